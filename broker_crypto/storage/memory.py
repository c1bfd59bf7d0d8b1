"""A store that ends with its process. The same promises as on disk, except that nothing outlives it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

from broker_crypto.errors import UsageError
from broker_crypto.storage.forks import ForkGuard
from broker_crypto.storage.port import Transaction
from broker_crypto.storage.transaction import Turns


class MemoryStore:
    """A StateStore (see the port) in a dict. Rows are not sealed: they lie where the state itself lies."""

    ephemeral = True

    def __init__(self) -> None:
        self._rows: dict[tuple[str, bytes], bytes] = {}
        self._turns = Turns(self)
        self._guard = ForkGuard()
        self._closed = False

    def __repr__(self) -> str:
        return "<MemoryStore>"

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        return self._turns.transaction()

    async def changed_by_others(self) -> bool:
        self.check()
        return False

    async def erased(self) -> None:
        self.check()

    async def close(self) -> None:
        async with self._turns.alone():
            self._closed = True
            self._rows.clear()

    def check(self) -> None:
        self._guard.check()
        if self._closed:
            raise UsageError("the store is closed")

    async def begin(self) -> None:
        pass

    async def read(self, kind: str, key: bytes) -> bytes | None:
        return self._rows.get((kind, key))

    async def read_all(self, kind: str, prefix: bytes) -> list[tuple[bytes, bytes]]:
        return [(key, value) for (of, key), value in sorted(self._rows.items()) if of == kind and key.startswith(prefix)]

    def allow(self, kind: str, value: bytes | None) -> None:
        pass

    def hand_over(self, writes: Mapping[tuple[str, bytes], bytes | None]) -> asyncio.Future[None]:
        for at, value in writes.items():
            if value is None:
                self._rows.pop(at, None)
            else:
                self._rows[at] = value
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        if writes:
            loop.call_soon(done.set_result, None)  # as on disk, the task gives way where it commits
        else:
            done.set_result(None)
        return done
