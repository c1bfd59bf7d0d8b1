"""One process of an agent: the shipped Agent on a store and a log whose every call takes time, may fail, and may be its last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from broker_crypto import Event, parts
from broker_crypto.agent import Agent
from broker_crypto.delivery.loop import GroupLoop
from broker_crypto.delivery.ports import GroupLog, Topics
from broker_crypto.errors import AppendUnknown, BrokerUnavailable, LostRace, StoreUnavailable
from broker_crypto.observe.metrics import NULL
from broker_crypto.records import LogEntry, TopicFacts
from broker_crypto.storage.memory import MemoryStore
from broker_crypto.storage.port import Transaction
from broker_crypto.testing import Crashed, SeededRandom
from tests.sim.cast import GROUP, identity_of, policy_of

if TYPE_CHECKING:
    from tests.sim.node import Node

Rows = dict[tuple[str, bytes], bytes]


class Disk(MemoryStore):
    """The rows of an agent; the ledger hears of each commit as it happens."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node

    @property
    def rows(self) -> Rows:
        return self._rows

    def hand_over(self, writes: Mapping[tuple[str, bytes], bytes | None]) -> asyncio.Future[None]:
        self._node.sim.ledger.committed(self._node, self._rows, writes)
        return super().hand_over(writes)


class LifeStore:
    """The disk as one process has it."""

    ephemeral = True

    def __init__(self, life: Life) -> None:
        self._life = life

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Transaction]:
        life = self._life
        await life.gate("begin")
        async with life.node.disk.transaction() as inner:
            yield LifeTransaction(life, inner)
            await life.gate("commit")
            if life.node.draw_store_fails():
                raise StoreUnavailable("the disk failed")
        await life.gate("committed")

    async def changed_by_others(self) -> bool:
        self._life.check()
        changed, self._life.node.commanded = self._life.node.commanded, False
        return changed

    async def erased(self) -> None:
        await self._life.gate("erased")

    async def close(self) -> None:
        """The disk outlives its process."""


class LifeTransaction:
    def __init__(self, life: Life, inner: Transaction) -> None:
        self._life, self._inner = life, inner

    async def get(self, kind: str, key: bytes) -> bytes | None:
        await self._life.gate("get")
        return await self._inner.get(kind, key)

    async def put(self, kind: str, key: bytes, value: bytes) -> None:
        await self._life.gate("put")
        await self._inner.put(kind, key, value)

    async def delete(self, kind: str, key: bytes) -> None:
        await self._life.gate("delete")
        await self._inner.delete(kind, key)

    async def scan(self, kind: str, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
        await self._life.gate("scan")
        return await self._inner.scan(kind, prefix)


class LifeLog:
    """The group log as one process has it: whichever broker it is shown now."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._inner: GroupLog | None = None
        self._shown: object = None
        self._lost = True

    async def _at(self, name: str) -> GroupLog:
        await self._life.gate(name)
        node = self._life.node
        if node.offline:
            self._lost = True
            raise BrokerUnavailable("no way to the broker")
        if self._inner is None or self._shown is not node.broker:  # who shows another log does not say so
            self._inner, self._shown = node.broker.group_log(), node.broker
            await self._inner.open(GROUP, True)
        return self._inner

    async def open(self, group: str, create: bool) -> str:
        inner = await self._at("open")
        identity = await inner.open(group, create)
        self._lost = False
        await self._life.gate("opened")
        return identity

    async def head(self) -> int:
        inner = await self._at("head")
        if self._lost:
            raise BrokerUnavailable("the connection was lost")
        head = await inner.head()
        await self._life.gate("head told")
        return head

    async def read(self, position: int, limit: int) -> list[LogEntry]:
        inner = await self._at("read")
        entries = await inner.read(position, limit)
        await self._life.gate("entries")
        return entries

    async def append(self, record: bytes, expected: int | None) -> int | None:
        inner = await self._at("append")
        node = self._life.node
        fate, later = node.draw_fate()
        node.sim.note(node, f"appends {len(record)} bytes behind {expected}: {fate}")
        if fate == "refuse":
            raise BrokerUnavailable("the broker took no append")
        if fate in ("late", "again"):
            node.broker.land_in(later, GROUP, record, expected)
        if fate in ("late", "never"):
            await self._life.gate("no answer")
            raise AppendUnknown(group=GROUP)
        answer = await self._land(inner, record, expected, fate)
        await self._life.gate("answer")
        return answer

    async def _land(self, inner: GroupLog, record: bytes, expected: int | None, fate: str) -> int | None:
        lost = None
        try:
            position = await inner.append(record, expected)
            if fate == "duplicate":
                await inner.append(record, expected)
        except LostRace as error:
            lost, position = error, None
        if fate == "lose_ack":
            raise AppendUnknown(group=GROUP)
        if lost is not None and fate != "duplicate":
            raise lost
        return position

    async def changed(self) -> None:
        if self._inner is None:
            raise BrokerUnavailable("the group log is not open")
        await self._inner.changed()
        self._life.check()

    async def close(self) -> None:
        if self._inner is not None:
            await self._inner.close()


class LifeTopics:
    def __init__(self, life: Life) -> None:
        self._life = life

    async def describe(self, topic: str) -> list[TopicFacts]:
        await self._life.gate("describe")
        node = self._life.node
        if node.offline or node.broker.down:
            raise BrokerUnavailable("no way to the broker")
        return node.broker.facts(topic)


class LifeConnection:
    """What a connector attaches."""

    type, closed = "nats", False
    broker: str | None = None

    def __init__(self, life: Life) -> None:
        self._life = life

    def group_log(self, replicas: int = 1) -> GroupLog:
        return LifeLog(self._life)

    def topics(self) -> Topics:
        return LifeTopics(self._life)


class Life:
    """From start to end of one process. `crash_in`: it dies at so many calls from now."""

    def __init__(self, node: Node, number: int) -> None:
        self.node, self.number = node, number
        self.dead = False
        self.crash_in: int | None = None
        self.tasks: list[asyncio.Task[Any]] = []
        self.seen: Any = None  # what was checked last of it
        self.seen_view: Any = None
        self.random = SeededRandom(f"{node.sim.seed} {node.label} {number}")
        name, suite = node.name, node.sim.profile.suite
        made = parts.Parts(policy_of(name, suite), identity_of(name, suite), LifeStore(self), node.clock, self.random, NULL)
        self.agent = Agent(made)
        self.agent.on(Event, lambda event: node.sim.heard(self, event))
        self.agent.attach(LifeConnection(self))
        self.channels = {topic: self.agent.channel("nats", f"{topic}.x") for topic in node.broker.data}
        self.readers = {topic: channel.reader(whole=True) for topic, channel in self.channels.items()}

    @property
    def loop(self) -> GroupLoop:
        return self.agent._running[GROUP].loop

    def task(self, work: Any) -> None:
        """Work of the application in this process."""
        self.tasks.append(asyncio.ensure_future(work))

    def check(self) -> None:
        if self.dead:
            raise Crashed("this process is gone")

    async def gate(self, name: str) -> None:
        """A call of the store or the log: it takes a moment, others go first, and the process may end here."""
        self.check()
        self.node.sim.observe(self)
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in <= 0:
                self.node.sim.note(self.node, f"dies at {name}")
                self.die()
                self.check()
        await asyncio.sleep(self.node.draw_latency())
        self.check()

    def die(self) -> None:
        """At once: nothing that it would still have done reaches its store or a broker."""
        self.dead = True
        for task in self._all():
            task.cancel()

    async def stop(self) -> None:
        """As an application leaves: what it would still have done it may do."""
        await self.agent.close()
        self.dead = True
        for task in self.tasks:
            task.cancel()

    async def ended(self) -> None:
        """Return when no task of it runs."""
        for task in self._all():
            task.cancel()
        await asyncio.gather(*self._all(), return_exceptions=True)

    def faults(self) -> list[BaseException]:
        """What ended a task that should run as long as the process."""
        ends = [task.exception() for task in self._all() if task.done() and not task.cancelled()]
        return [error for error in ends if error is not None and not isinstance(error, Crashed)]

    def _all(self) -> list[asyncio.Task[Any]]:
        return [*(r.task for r in self.agent._running.values()), self.agent._housekeeping, *self.tasks]
