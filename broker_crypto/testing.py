"""Fakes that ship: a clock, seeded randomness, a broker in memory with its group logs and topics, a store that fails.

They keep the promises of the real ports, and break them only as told: a test says which append loses its answer, or draws
faults from a seed. None of them keeps anything secret.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import random
import signal
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Literal, TypeAlias, TypeVar

from broker_crypto.delivery.ports import GroupLog, Topics
from broker_crypto.errors import (
    AppendUnknown,
    BrokerUnavailable,
    GroupLogTruncated,
    GroupTooLarge,
    LostRace,
    PolicyConflict,
    StoreUnavailable,
    UsageError,
)
from broker_crypto.limits import MAX_GROUP_RECORD
from broker_crypto.records import Clock, LogEntry, TopicFacts
from broker_crypto.storage.port import StateStore, Transaction

T = TypeVar("T")

EPOCH_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z, where fake time begins


class FakeClock:
    """Time stands still until `advance`. `shift` moves the wall clock alone, as an operator or NTP would."""

    def __init__(self, now_ms: int = EPOCH_MS) -> None:
        self._start_ms = now_ms
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._ids = count()

    def now_ms(self) -> int:
        return self._start_ms + round(self._elapsed * 1000)

    def monotonic(self) -> float:
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass (>= 0) and wake whoever slept that long."""
        if seconds < 0:
            raise UsageError("time does not go back; shift() moves the wall clock", seconds=seconds)
        self._elapsed += seconds
        while self._sleepers and self._sleepers[0][0] <= self._elapsed:
            sleeper = heapq.heappop(self._sleepers)[2]
            if not sleeper.done():
                sleeper.set_result(None)

    def shift(self, ms: int) -> None:
        """Move the wall clock by `ms`, either way."""
        self._start_ms += ms

    async def sleep(self, seconds: float) -> None:
        """Return once `advance` has let so much time pass; at once for 0."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._ids), sleeper))
        await sleeper


class SeededRandom:
    """The same bytes for the same seed. Never for keys that protect anything."""

    def __init__(self, seed: int | str) -> None:
        self.draw = random.Random(seed)  # noqa: S311  the point is that it repeats

    def __call__(self, n: int, /) -> bytes:
        return self.draw.randbytes(n)


# --- a broker in memory -------------------------------------------------------------------------------------------

Fate: TypeAlias = Literal["land", "lose_ack", "late", "never", "duplicate", "refuse"]


@dataclass(frozen=True, slots=True)
class Chaos:
    """Faults drawn from a seed: the chance (0..1) of each fate of an append; what is left lands as it should.

    `lose_ack` lands without an answer, `late` lands without an answer after up to `late_calls` further calls, `never` does not
    land and has no answer, `duplicate` lands twice, `refuse` does not land and says so. `yields`: how often a call gives way
    to others, at most, before and after it takes effect.
    """

    random: SeededRandom
    lose_ack: float = 0.0
    late: float = 0.0
    never: float = 0.0
    duplicate: float = 0.0
    refuse: float = 0.0
    late_calls: int = 20
    yields: int = 3

    def fate(self) -> Fate:
        at = self.random.draw.random()
        chances: tuple[tuple[Fate, float], ...] = (
            ("lose_ack", self.lose_ack),
            ("late", self.late),
            ("never", self.never),
            ("duplicate", self.duplicate),
            ("refuse", self.refuse),
        )
        for fate, chance in chances:
            if at < chance:
                return fate
            at -= chance
        return "land"


@dataclass(slots=True)
class _InFlight:
    """An append whose answer is lost and which has not landed. `calls` None: until `land`."""

    group: str
    record: bytes
    expected: int | None
    calls: int | None


class MemoryBroker:
    """One broker. With `compare_and_set` like NATS: group logs share one stream, so positions begin at 1, have holes, and
    `expected` is checked. Without it like Kafka: each log counts from 0, and every append lands.

    Faults, beside `chaos`: `fates` are those of the next appends, first come first served; `down` makes every call
    BrokerUnavailable; `wrong_settings` makes opening PolicyConflict; while `reads` is cleared, reads wait. Appends that are
    late without chaos land when `land` is called.
    """

    def __init__(
        self, clock: Clock, *, compare_and_set: bool = True, chaos: Chaos | None = None, max_record: int = MAX_GROUP_RECORD
    ) -> None:
        self.clock = clock
        self.compare_and_set = compare_and_set
        self.chaos = chaos
        self.max_record = max_record
        self.fates: deque[Fate] = deque()
        self.down = False
        self.skew_ms = 0  # the broker's clock against `clock`
        self.wrong_settings: Sequence[str] = ()
        self.reads = asyncio.Event()
        self.reads.set()
        self._logs: dict[str, list[LogEntry]] = {}
        self._trimmed: dict[str, int] = {}
        self._identities: dict[str, str] = {}
        self._generations = count(1)
        self._in_flight: list[_InFlight] = []
        self._wakers: set[asyncio.Event] = set()
        self._topics: dict[str, list[TopicFacts]] = {}

    def group_log(self) -> GroupLog:
        """A GroupLog; one for each agent and group."""
        return MemoryGroupLog(self)

    def topics(self) -> Topics:
        return MemoryTopics(self)

    def entries(self, group: str) -> list[LogEntry]:
        """What the log holds now, seen past every fault."""
        return list(self._logs.get(group, ()))

    def land(self, n: int | None = None) -> None:
        """Let `n` late appends land (all if None), in the order in which they were made."""
        landing = self._in_flight[:n]
        del self._in_flight[: len(landing)]
        for one in landing:
            self._land(one.group, one.record, one.expected)

    def roll_back(self, group: str, position: int) -> None:
        """The log loses its entries from `position` on; the positions are given again."""
        self._logs[group] = [entry for entry in self._logs[group] if entry.position < position]
        self.wake()

    def come_up(self, group: str, entries: list[LogEntry]) -> None:
        """The log holds these entries: a replica that was behind has them all again."""
        self._logs[group] = list(entries)
        self.wake()

    def trim(self, group: str, position: int) -> None:
        """The log loses its entries before `position`."""
        self._logs[group] = [entry for entry in self._logs[group] if entry.position >= position]
        self._trimmed[group] = max(position, self._trimmed.get(group, 0))
        self.wake()

    def replace(self, group: str, position: int, *, record: bytes | None = None, time_ms: int | None = None) -> None:
        """One entry becomes another, in its place."""
        log = self._logs[group]
        at, was = next((n, entry) for n, entry in enumerate(log) if entry.position == position)
        log[at] = LogEntry(position, was.time_ms if time_ms is None else time_ms, was.record if record is None else record)
        self.wake()

    def recreate(self, group: str) -> None:
        """The log is deleted and made anew, empty, with another identity; on a shared stream all logs are."""
        for name in list(self._logs) if self.compare_and_set else [group]:
            self._logs[name] = []
            self._trimmed.pop(name, None)
            self._identities.pop(name, None)
        self._identities.pop("", None)
        self.wake()

    def describe(self, topic: str, *facts: TopicFacts) -> None:
        """What `Topics.describe` answers for `topic` from now on."""
        self._topics[topic] = list(facts)

    def wake(self) -> None:
        """Everybody who waits for a change looks again."""
        for waker in self._wakers:
            waker.set()

    # what its clients call

    async def arrive(self, *, reading: bool = False) -> None:
        """A call reaches the broker: others may come first, late appends come nearer."""
        await self._give_way()
        if reading:
            await self.reads.wait()
        if self.down:
            raise BrokerUnavailable("the broker is down")
        for one in self._in_flight:
            if one.calls is not None:
                one.calls -= 1
        due = [one for one in self._in_flight if one.calls is not None and one.calls <= 0]
        self._in_flight = [one for one in self._in_flight if one.calls is None or one.calls > 0]
        for one in due:
            self._land(one.group, one.record, one.expected)

    async def leave(self) -> None:
        """The answer is on its way."""
        await self._give_way()

    async def _give_way(self) -> None:
        for _ in range(self.chaos.random.draw.randint(1, max(1, self.chaos.yields)) if self.chaos else 1):
            await asyncio.sleep(0)

    def opened(self, group: str, create: bool) -> str:
        if self.wrong_settings:
            raise PolicyConflict("the group log has other settings", settings=list(self.wrong_settings))
        if group not in self._logs:
            if not create:
                raise BrokerUnavailable("no such group log", group=group)
            self._logs[group] = []
        where = "" if self.compare_and_set else group
        if where not in self._identities:
            self._identities[where] = f"log-{next(self._generations)}"
        return self._identities[where]

    def head_of(self, group: str) -> int:
        log = self._logs[group]
        return log[-1].position + 1 if log else self._trimmed.get(group, 0)

    def read_from(self, group: str, position: int, limit: int) -> list[LogEntry]:
        if position < self._trimmed.get(group, 0):
            raise GroupLogTruncated(group=group, position=position)
        return [entry for entry in self._logs[group] if entry.position >= position][:limit]

    def append(self, group: str, record: bytes, expected: int | None) -> int:
        if len(record) > self.max_record:
            raise GroupTooLarge(group=group, size=len(record), limit=self.max_record)
        fate = self.fates.popleft() if self.fates else self.chaos.fate() if self.chaos else "land"
        if fate == "refuse":
            raise BrokerUnavailable("the broker took no append")
        if fate == "late":
            calls = self.chaos.random.draw.randint(1, self.chaos.late_calls) if self.chaos else None
            self._in_flight.append(_InFlight(group, record, expected, calls))
        if fate in ("late", "never"):
            raise AppendUnknown(group=group)
        position = self._land(group, record, expected)
        if fate == "duplicate":
            self._land(group, record, expected)
        if fate == "lose_ack":
            raise AppendUnknown(group=group)
        if position is None:
            raise LostRace(group=group, expected=expected)
        return position

    def _land(self, group: str, record: bytes, expected: int | None) -> int | None:
        """The position, None where `expected` is not met: then nobody hears of it but the one who waits for the answer."""
        log = self._logs.setdefault(group, [])
        last = log[-1].position if log else -1
        if self.compare_and_set and expected is not None and expected != last:
            return None
        position = self._next(group)
        log.append(LogEntry(position, self.clock.now_ms() + self.skew_ms, record))
        self.wake()
        return position

    def _next(self, group: str) -> int:
        shared, first = (self._logs, 1) if self.compare_and_set else ((group,), 0)
        ends = (self._logs[name][-1].position + 1 for name in shared if self._logs[name])
        return max((first, *ends, *(self._trimmed.get(name, 0) for name in shared)))

    def facts(self, topic: str) -> list[TopicFacts]:
        return list(self._topics.get(topic, ()))

    def subscribe(self, waker: asyncio.Event) -> None:
        self._wakers.add(waker)

    def unsubscribe(self, waker: asyncio.Event) -> None:
        self._wakers.discard(waker)


class MemoryGroupLog:
    """The GroupLog of a MemoryBroker, for one agent and group."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._group: str | None = None
        self._waker = asyncio.Event()

    async def open(self, group: str, create: bool) -> str:
        await self._broker.arrive()
        identity = self._broker.opened(group, create)
        self._group = group
        self._broker.subscribe(self._waker)
        await self._broker.leave()
        return identity

    async def head(self) -> int:
        await self._broker.arrive(reading=True)
        head = self._broker.head_of(self._opened())
        await self._broker.leave()
        return head

    async def read(self, position: int, limit: int) -> list[LogEntry]:
        await self._broker.arrive(reading=True)
        entries = self._broker.read_from(self._opened(), position, limit)
        await self._broker.leave()
        return entries

    async def append(self, record: bytes, expected: int | None) -> int | None:
        await self._broker.arrive()
        try:
            return self._broker.append(self._opened(), record, expected)
        finally:
            await self._broker.leave()

    async def changed(self) -> None:
        self._opened()
        await self._waker.wait()
        self._waker.clear()

    async def close(self) -> None:
        self._group = None
        self._broker.unsubscribe(self._waker)
        self._waker.set()

    def _opened(self) -> str:
        if self._group is None:
            raise BrokerUnavailable("the group log is not open")
        return self._group


class MemoryTopics:
    """The Topics of a MemoryBroker."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def describe(self, topic: str) -> list[TopicFacts]:
        await self._broker.arrive(reading=True)
        facts = self._broker.facts(topic)
        await self._broker.leave()
        return facts


# --- a store that fails -------------------------------------------------------------------------------------------

Moment: TypeAlias = Literal["before", "after"]
Hook: TypeAlias = Callable[[int, str, Moment], None]


class Crashed(BaseException):
    """The process is gone, as far as a test is concerned: nothing that it would have done in `finally` reaches the store."""


def fail_at(n: int) -> Hook:
    """The n-th store call (from 1) raises StoreUnavailable and takes no effect."""

    def hook(call: int, name: str, moment: Moment) -> None:
        if call == n and moment == "before":
            raise StoreUnavailable("this store fails when told", call=call, name=name)

    return hook


def crash_at(n: int, moment: Moment) -> Hook:
    """The process "crashes" before or after the n-th store call took effect."""

    def hook(call: int, name: str, now: Moment) -> None:
        if (call, now) == (n, moment):
            raise Crashed(f"{moment} call {n}, {name}")

    return hook


def kill_at(n: int, moment: Moment) -> Hook:
    """SIGKILL to this very process before or after the n-th store call took effect. For child processes of a test."""

    def hook(call: int, name: str, now: Moment) -> None:
        if (call, now) == (n, moment):
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


class FaultyStore:
    """A store around another. `hook` hears each call (number from 1, name, moment) and may raise: an error, or Crashed.

    Calls are begin, get, put, delete, scan, commit, changed_by_others, erased and close. What raises before a commit keeps
    it from happening. `calls` lists the names so far.
    """

    def __init__(self, store: StateStore, hook: Hook) -> None:
        self._store = store
        self._hook = hook
        self._dead = False
        self.calls: list[str] = []

    @property
    def ephemeral(self) -> bool:
        return self._store.ephemeral

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Transaction]:
        begin = self.enter("begin")
        async with self._store.transaction() as inner:
            self.tell(begin, "after")
            yield _FaultyTransaction(self, inner)
            commit = self.enter("commit")
        self.tell(commit, "after")

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        return self._transaction()

    async def changed_by_others(self) -> bool:
        return await self.through("changed_by_others", self._store.changed_by_others)

    async def erased(self) -> None:
        await self.through("erased", self._store.erased)

    async def close(self) -> None:
        await self.through("close", self._store.close)

    async def through(self, name: str, run: Callable[[], Awaitable[T]]) -> T:
        """One call, with the hook before and after it."""
        call = self.enter(name)
        result = await run()
        self.tell(call, "after")
        return result

    def enter(self, name: str) -> int:
        """A call begins; its number."""
        if self._dead:
            raise Crashed("crashed before")
        self.calls.append(name)
        self.tell(len(self.calls), "before")
        return len(self.calls)

    def tell(self, call: int, moment: Moment) -> None:
        try:
            self._hook(call, self.calls[call - 1], moment)
        except Crashed:
            self._dead = True
            raise


class _FaultyTransaction:
    def __init__(self, store: FaultyStore, inner: Transaction) -> None:
        self._store = store
        self._inner = inner

    async def get(self, kind: str, key: bytes) -> bytes | None:
        return await self._store.through("get", lambda: self._inner.get(kind, key))

    async def put(self, kind: str, key: bytes, value: bytes) -> None:
        await self._store.through("put", lambda: self._inner.put(kind, key, value))

    async def delete(self, kind: str, key: bytes) -> None:
        await self._store.through("delete", lambda: self._inner.delete(kind, key))

    async def scan(self, kind: str, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
        return await self._store.through("scan", lambda: self._inner.scan(kind, prefix))
