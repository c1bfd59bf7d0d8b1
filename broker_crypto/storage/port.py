"""The StateStore port: rows (kind, key) -> bytes, written in transactions that are durable when their block ends."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Transaction(Protocol):
    """All or nothing. Reads see the transaction's own writes. After the block the object refuses everything."""

    async def get(self, kind: str, key: bytes) -> bytes | None: ...
    async def put(self, kind: str, key: bytes, value: bytes) -> None: ...
    async def delete(self, kind: str, key: bytes) -> None: ...
    async def scan(self, kind: str, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
        """Rows of `kind` whose key begins with `prefix`, in key order."""
        ...


class StateStore(Protocol):
    """One store, one agent.

    Raises StateLocked, StateVersionError, StateCorrupt, ForkedState, StoreUnavailable.
    """

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Durable when the block ends without an exception; else nothing of it happened."""
        ...

    async def erased(self) -> None:
        """Return when what was deleted before this call is gone from every file of the store."""
        ...

    async def close(self) -> None: ...


class KeyProvider(Protocol):
    """Gives the key (32 bytes) under which a store's data key is sealed."""

    def key(self) -> bytes: ...
