"""The StateStore port: rows (kind, key) -> bytes, written in transactions that are durable when their block ends."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from broker_crypto.errors import BrokerCryptoError


class Transaction(Protocol):
    """All or nothing. Reads see the transaction's own writes. After the block the object refuses everything (UsageError).

    `kind` is a word of a-z, 0-9 and _, at most STORE_KIND characters; a key has at most STORE_KEY bytes, a value at most
    STORE_ROW bytes: UsageError beyond.
    """

    async def get(self, kind: str, key: bytes) -> bytes | None:
        """The row's value, None where there is none. Raises StateCorrupt for a row that is not what was written."""
        ...

    async def put(self, kind: str, key: bytes, value: bytes) -> None:
        """Write the row, new or not."""
        ...

    async def delete(self, kind: str, key: bytes) -> None:
        """Delete the row, there or not."""
        ...

    async def scan(self, kind: str, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
        """Rows of `kind` whose key begins with `prefix`, in key order. Raises StateCorrupt as `get` does."""
        ...


class StateStore(Protocol):
    """One store, one agent.

    Raises StateLocked, StateVersionError, StateCorrupt, ForkedState, StoreUnavailable.
    """

    ephemeral: bool  # True where nothing outlives the process: tests, and agents whose policy says so

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Durable when the block ends without an exception; else nothing of it happened.

        Blocks run one after another, in the order in which they were entered; their commits may share one fsync. A block must
        not wait for another transaction of the same store: UsageError in the same task, a deadlock across tasks.

        A task that is cancelled in the block leaves nothing of it. One that is cancelled while the commit is on its way learns
        of that at its next await: the block ends as the commit did, so that what follows it can adopt the new state.
        """
        ...

    async def changed_by_others(self) -> bool:
        """Whether another process has committed to this store since the last call (the first: since opening)."""
        ...

    async def erased(self) -> None:
        """Return when what was deleted or overwritten before this call is gone from every file of the store."""
        ...

    async def close(self) -> None:
        """Wait for the transactions under way, then free everything. A second call does nothing."""
        ...


class Watch(Protocol):
    """Hears how a store does. Called in the event loop's thread; must not raise."""

    def committed(self, seconds: float, /) -> None:
        """One shared commit took so long, fsync included."""
        ...

    def failed(self, error: BrokerCryptoError, /) -> None:
        """A call failed, or (StoreUnavailable) a reader has held up an erasure for a second."""
        ...


class KeyProvider(Protocol):
    """Gives the key (32 bytes) under which a store's data key is sealed."""

    def key(self) -> bytes:
        """Raises UsageError for a key of another form or open to others, StoreUnavailable where it cannot be had."""
        ...
