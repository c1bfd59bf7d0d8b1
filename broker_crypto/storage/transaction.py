"""One transaction after another: a block's writes are kept aside and handed over as a whole when it ends.

1. Blocks run one at a time, so that what a block read still holds when its writes are handed over.
2. Handing over is the one step that counts, and nothing awaits inside it: before it nothing happened, behind it the
   backend alone decides.
3. The next block begins right then, not when the commit is durable: so commits can share an fsync. A read comes behind every
   commit that was handed over before it, so no block sees what may still fail.
"""

from __future__ import annotations

import asyncio
import re
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol, TypeAlias

from broker_crypto.errors import UsageError
from broker_crypto.limits import STORE_KEY, STORE_KIND, STORE_ROW

Writes: TypeAlias = dict[tuple[str, bytes], bytes | None]

_KIND = re.compile(rf"[a-z0-9_]{{1,{STORE_KIND}}}")


class Backend(Protocol):
    """What keeps the rows. Reads and hand-overs take effect in the order of their calls."""

    def check(self) -> None:
        """Raises unless the store may be used now."""
        ...

    async def begin(self) -> None:
        """A block begins."""
        ...

    async def read(self, kind: str, key: bytes) -> bytes | None: ...
    async def read_all(self, kind: str, prefix: bytes) -> list[tuple[bytes, bytes]]: ...

    def allow(self, kind: str, value: bytes | None) -> None:
        """Raises UsageError for a write that this store does not take."""
        ...

    def hand_over(self, writes: Mapping[tuple[str, bytes], bytes | None]) -> asyncio.Future[None]:
        """Commit these; the future is done when they are durable. An empty mapping ends a block that only read."""
        ...


class BufferedTransaction:
    """The Transaction of the port: reads through to the backend, writes kept aside."""

    __slots__ = ("_backend", "_open", "_writes")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._writes: Writes = {}
        self._open = True

    def __repr__(self) -> str:
        return f"<transaction of {len(self._writes)} writes>"

    async def get(self, kind: str, key: bytes) -> bytes | None:
        self._check(kind, key)
        if (kind, key) in self._writes:
            return self._writes[kind, key]
        return await self._backend.read(kind, bytes(key))

    async def put(self, kind: str, key: bytes, value: bytes) -> None:
        self._check(kind, key)
        if not isinstance(value, bytes) or len(value) > STORE_ROW:
            raise UsageError("a row is bytes of a bounded length", kind=kind, limit=STORE_ROW)
        self._backend.allow(kind, value)
        self._writes[kind, key] = value

    async def delete(self, kind: str, key: bytes) -> None:
        self._check(kind, key)
        self._backend.allow(kind, None)
        self._writes[kind, key] = None

    async def scan(self, kind: str, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
        self._check(kind, prefix)
        found: dict[bytes, bytes | None] = dict(await self._backend.read_all(kind, prefix))
        found.update((key, value) for (of, key), value in self._writes.items() if of == kind and key.startswith(prefix))
        return sorted((key, value) for key, value in found.items() if value is not None)

    def end(self) -> Writes:
        """Refuse everything from now on; what was written."""
        self._open = False
        return self._writes

    def _check(self, kind: str, key: bytes) -> None:
        if not self._open:
            raise UsageError("a transaction is used after its block")
        self._backend.check()
        if not isinstance(kind, str) or not _KIND.fullmatch(kind):
            raise UsageError("not a kind of row", kind=kind)
        if not isinstance(key, bytes) or len(key) > STORE_KEY:
            raise UsageError("a row's key is bytes of a bounded length", kind=kind, limit=STORE_KEY)


class Turns:
    """Gives each block its turn."""

    __slots__ = ("_backend", "_lock", "_owner")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = asyncio.Lock()
        self._owner: asyncio.Task[object] | None = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[BufferedTransaction]:
        """One block, as the port says."""
        await _deliver_cancellation()
        async with self.alone():
            self._backend.check()
            transaction = BufferedTransaction(self._backend)
            try:
                await self._backend.begin()
                yield transaction
            except BaseException:
                transaction.end()
                self._backend.hand_over({})
                raise
            self._backend.check()
            done = self._backend.hand_over(transaction.end())
        await settled(done)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """No block runs meanwhile. Raises UsageError inside a block of the same task."""
        task = asyncio.current_task()
        if self._owner is not None and self._owner is task:
            raise UsageError("a transaction inside a transaction of the same store")
        async with self._lock:
            self._owner = task
            try:
                yield
            finally:
                self._owner = None


_owed: weakref.WeakSet[asyncio.Task[object]] = weakref.WeakSet()  # tasks whose cancellation `settled` has put off


async def settled(done: asyncio.Future[None]) -> None:
    """Wait until `done`, cancelled or not; a cancellation arrives at the task's next await instead, so its outcome is known."""
    cancelled = False
    while not done.done():
        try:
            await asyncio.wait([done])
        except asyncio.CancelledError:
            cancelled = True
    task = asyncio.current_task()
    if cancelled and task is not None:
        task.uncancel()  # the request stays one: asyncio.timeout and TaskGroup count them
        task.cancel()
        _owed.add(task)
    done.result()


async def _deliver_cancellation() -> None:
    """A block's first await: without it, a task that does nothing but commit would put its cancellation off for ever."""
    task = asyncio.current_task()
    if task is not None and task in _owed:
        _owed.discard(task)
        await asyncio.sleep(0)
