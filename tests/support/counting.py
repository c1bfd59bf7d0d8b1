"""An agent's store, group log and topics whose calls are counted, phase by phase, so that a process can die at each of them.

A point is (phase, call, number): "the 2nd `log.read` while it joins". Background work that another phase happens to see moves no
number of a phase, so a point means the same call in every run.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple, TypeVar

from broker_crypto.delivery.ports import GroupLog, Topics
from broker_crypto.records import LogEntry, TopicFacts
from broker_crypto.storage import StateStore, Transaction
from broker_crypto.testing import Moment
from broker_crypto_nats import SecureNats

T = TypeVar("T")


class Point(NamedTuple):
    phase: str
    call: str
    number: int


class Calls:
    """Counts the calls of one process. `die` is where it ends by SIGKILL, before or after that call; None: nowhere."""

    def __init__(self, die: tuple[Point, Moment] | None = None) -> None:
        self.phase = ""  # nothing is counted in the phase without a name
        self.moments: list[tuple[Point, Moment]] = []
        self._die = die
        self._counts: Counter[tuple[str, str]] = Counter()

    async def through(self, call: str, run: Callable[[], Awaitable[T]]) -> T:
        """One call. One that is cancelled has no moment after it."""
        point = self.enter(call)
        try:
            result = await run()
        except Exception:  # whatever it is, the call has ended; a cancelled one has not
            self.left(point)
            raise
        self.left(point)
        return result

    def enter(self, call: str) -> Point:
        self._counts[self.phase, call] += 1
        point = Point(self.phase, call, self._counts[self.phase, call])
        self._meet(point, "before")
        return point

    def left(self, point: Point) -> None:
        self._meet(point, "after")

    def _meet(self, point: Point, moment: Moment) -> None:
        if point.phase:
            self.moments.append((point, moment))
        if self._die == (point, moment):
            os.kill(os.getpid(), signal.SIGKILL)


class CountedStore:
    """A StateStore; begin, commit and every read and write inside are calls."""

    def __init__(self, inner: StateStore, calls: Calls) -> None:
        self._inner, self._calls = inner, calls
        self.ephemeral = inner.ephemeral

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Transaction]:
        begin = self._calls.enter("store.begin")
        async with self._inner.transaction() as tx:
            self._calls.left(begin)
            yield _CountedTransaction(tx, self._calls)
            commit = self._calls.enter("store.commit")
        self._calls.left(commit)

    async def changed_by_others(self) -> bool:
        return await self._calls.through("store.changed_by_others", self._inner.changed_by_others)

    async def erased(self) -> None:
        await self._calls.through("store.erased", self._inner.erased)

    async def close(self) -> None:
        await self._calls.through("store.close", self._inner.close)


class _CountedTransaction:
    def __init__(self, inner: Transaction, calls: Calls) -> None:
        self._inner, self._calls = inner, calls

    async def get(self, kind: str, key: bytes) -> bytes | None:
        return await self._calls.through(f"store.get {kind}", lambda: self._inner.get(kind, key))

    async def put(self, kind: str, key: bytes, value: bytes) -> None:
        await self._calls.through(f"store.put {kind}", lambda: self._inner.put(kind, key, value))

    async def delete(self, kind: str, key: bytes) -> None:
        await self._calls.through(f"store.delete {kind}", lambda: self._inner.delete(kind, key))

    async def scan(self, kind: str, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
        return await self._calls.through(f"store.scan {kind}", lambda: self._inner.scan(kind, prefix))


class Gate:
    """Lets the bell of a group log through once each time it is opened. `resting`: the loop waits for nothing else."""

    def __init__(self) -> None:
        self.resting = False
        self._open = asyncio.Event()

    def let(self) -> None:
        self._open.set()

    async def passed(self) -> None:
        await self._open.wait()
        self._open.clear()


class CountedLog:
    """A GroupLog; `changed` returns only when the gate lets it."""

    def __init__(self, inner: GroupLog, calls: Calls, gate: Gate) -> None:
        self._inner, self._calls, self._gate = inner, calls, gate

    async def open(self, group: str, create: bool) -> str:
        return await self._calls.through("log.open", lambda: self._inner.open(group, create))

    async def head(self) -> int:
        return await self._calls.through("log.head", self._inner.head)

    async def read(self, position: int, limit: int) -> list[LogEntry]:
        return await self._calls.through("log.read", lambda: self._inner.read(position, limit))

    async def append(self, record: bytes, expected: int | None) -> int | None:
        return await self._calls.through("log.append", lambda: self._inner.append(record, expected))

    async def changed(self) -> None:
        self._gate.resting = True
        try:
            await self._calls.through("log.changed", self._rung)
        finally:
            self._gate.resting = False

    async def _rung(self) -> None:
        await self._inner.changed()
        await self._gate.passed()

    async def close(self) -> None:
        await self._calls.through("log.close", self._inner.close)


class CountedTopics:
    def __init__(self, inner: Topics, calls: Calls) -> None:
        self._inner, self._calls = inner, calls

    async def describe(self, topic: str) -> list[TopicFacts]:
        return await self._calls.through("topics.describe", lambda: self._inner.describe(topic))


def counted(calls: Calls, gate: Gate) -> type[SecureNats]:
    """The shipped client, what it gives the agent counted."""

    class CountedNats(SecureNats):
        def group_log(self, replicas: int = 1) -> GroupLog:
            return CountedLog(super().group_log(replicas), calls, gate)

        def topics(self) -> Topics:
            return CountedTopics(super().topics(), calls)

    return CountedNats
