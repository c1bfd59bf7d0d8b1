"""One agent of a run, through all its lives: its disk, its clock, the broker that it is shown, its application."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from broker_crypto import errors
from broker_crypto.channels.topic import TopicChannel
from broker_crypto.delivery import plan, state
from broker_crypto.delivery.handle import Group
from broker_crypto.delivery.membership import Membership
from broker_crypto.records import Behind, GroupView, Place
from broker_crypto.testing import FakeClock
from tests.sim.broker import Published, SimBroker, Truth
from tests.sim.cast import GROUP, identity_of, uri
from tests.sim.life import Disk, Life, Rows

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

HOLD = (errors.BrokerUnavailable, errors.GroupError)  # why a record is held: nobody can say yet whether its epoch is there


class NodeClock:
    """The run's time as one machine shows it."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.off_ms = 0

    def now_ms(self) -> int:
        return self._clock.now_ms() + self.off_ms

    def monotonic(self) -> float:
        return self._clock.monotonic()


@dataclass
class Reading:
    """How far a reader of one process has come in a topic, and where it saw each record."""

    at: int = 0
    positions: dict[bytes, set[tuple[str, int] | None]] = field(default_factory=dict)


class Node:
    """`label` is the name in the history: a copied folder has its original's name and another label."""

    def __init__(self, sim: Simulation, name: str, label: str, broker: SimBroker) -> None:
        self.sim, self.name, self.label, self.broker = sim, name, label, broker
        self.identity = uri(name)
        self.key = identity_of(name, sim.profile.suite).signature_public
        self.dice = random.Random(f"{sim.seed} {label}")
        self.clock = NodeClock(sim.clock)
        self.disk = Disk(self)
        self.life: Life | None = None
        self.lives = 0
        self.offline = False
        self.commanded = False
        self.evil = False
        self.marks: set[str] = set()  # what was done to it: lost, restored, copied, lied
        self.snapshots: list[Rows] = []
        self.has_left = False
        self.held: list[tuple[GroupView, str]] = []  # what it sealed with: a removed one keeps it, whatever it is told
        self.readings: dict[str, Reading] = {}
        self.ever: list[bytes] = []  # its rows of the group, as they were stored

    def __repr__(self) -> str:
        return f"<{self.label}>"

    # --- chance -----------------------------------------------------------------------------------------------

    def draw_latency(self) -> float:
        slow = self.sim.faulty and self.dice.random() < self.sim.profile.slow
        return self.dice.uniform(0.05, 3.0) if slow else self.dice.uniform(0.0001, 0.01)

    def draw_store_fails(self) -> bool:
        return self.sim.faulty and self.dice.random() < self.sim.profile.store_fails

    def draw_fate(self) -> tuple[str, float]:
        """The fate of an append, and after how many s a late one lands."""
        at, later = self.dice.random(), self.dice.choice((0.05, 0.5, 3.0, 20.0, 50.0, 90.0)) * self.dice.uniform(0.5, 1.0)
        for fate, chance in self.sim.profile.fates.items() if self.sim.faulty else ():
            if at < chance:
                return fate, later
            at -= chance
        return "land", 0.0

    # --- its process ------------------------------------------------------------------------------------------

    @property
    def touched(self) -> bool:
        """Whether somebody asked for something that may take its leaf or its right to write away."""
        return self.name in self.sim.touched

    @property
    def alive(self) -> bool:
        return self.life is not None and not self.life.dead

    @property
    def member(self) -> Membership:
        assert self.life is not None
        return self.life.loop.member

    async def start(self) -> None:
        """A process on what the disk holds."""
        if self.alive:
            return
        if self.life is not None:
            await self.life.ended()
        self.lives += 1
        self.sim.note(self, f"starts, life {self.lives}")
        self.readings = {topic: Reading() for topic in self.broker.data}
        self.life = Life(self, self.lives)
        self.life.task(self._read_on(self.life))

    async def die(self) -> None:
        """kill -9."""
        if self.life is not None and self.alive:
            self.sim.note(self, "is killed")
            self.life.die()
            await self.life.ended()

    async def stop(self) -> None:
        """As it should be stopped."""
        if self.life is not None and self.alive:
            self.sim.note(self, "stops")
            await self.life.stop()
            await self.life.ended()

    def back_up(self) -> None:
        self.snapshots.append(dict(self.disk.rows))

    # --- its application --------------------------------------------------------------------------------------

    def rotate(self) -> None:
        """Ask for fresh keys, and wait for the answer in the background."""
        life = self.life
        if life is None or life.dead:
            return

        async def ask() -> None:
            try:
                await life.agent.groups[GROUP].rotate()
                self.sim.note(self, "has rotated")
            except errors.BrokerCryptoError as error:
                self.sim.note(self, f"is not to rotate: {error}")

        life.task(ask())

    def ask(self, what: str, wish: Callable[[Group], Coroutine[Any, Any, None]]) -> None:
        """Ask the running agent for something, and wait for the answer in the background."""
        life = self.life
        if life is None or life.dead:
            return

        async def ask() -> None:
            self.sim.note(self, f"asks: {what}")
            try:
                await wish(life.agent.groups[GROUP])
                self.sim.note(self, f"is done: {what}")
            except errors.BrokerCryptoError as error:
                self.sim.note(self, f"is not to {what}: {error}")

        life.task(ask())

    def attack(self, topic: str) -> None:
        """It seals with what it held when it last was a writer, whatever the group says by now."""
        life = self.life
        if life is None or not self.held:
            return
        view, _ = self.dice.choice(self.held)
        inner = life.channels[topic]._inner
        assert isinstance(inner, TopicChannel)
        forging = TopicChannel(inner.settings, self.sim.random)
        forging.view, forging.closed_by = view, None
        data = self.broker.data[topic]
        place, payload = self._place(topic, data.partitions), f"{self.label} {self.sim.next_number()}".encode()
        (sealed,) = forging.seal([(place, payload, None)])
        self.sim.note(self, f"seals in epoch {view.sealing.epoch if view.sealing else -1} for {topic}, as it once could")
        place, record, truth = self.sim.ledger.released(self, life, place, payload, sealed)
        data.add(place, record, (), truth)

    def command(self) -> None:
        """A command of another process stores an intent beside the running agent."""
        intent = state.Intent(self.sim.random(16), plan.ROTATE, self.clock.now_ms())
        key = (state.INTENT, state.prefix(GROUP) + intent.id)
        self.sim.ledger.committed(self, self.disk.rows, {key: intent.encode()})
        self.disk.rows[key] = intent.encode()
        self.commanded = True

    def publish(self, topic: str, count: int) -> None:
        """Seal some records, and send them in the background."""
        life = self.life
        if life is None or life.dead:
            return
        channel, data = life.channels[topic], self.broker.data[topic]
        places = [self._place(topic, data.partitions) for _ in range(count)]
        payloads = [f"{self.label} {self.sim.next_number()}".encode() for _ in places]
        try:
            sealed = channel.seal([(place, payload, None) for place, payload in zip(places, payloads, strict=True)])
        except errors.BrokerCryptoError as error:
            self.sim.check(self.sim.rules.a_sender_is_told_why, self, life, error)
            return
        self.sim.note(self, f"seals {count} for {topic}")
        released = [self.sim.ledger.released(self, life, *one) for one in zip(places, payloads, sealed, strict=True)]
        life.task(self._send(life, topic, released))

    def _place(self, topic: str, partitions: tuple[int, ...]) -> Place:
        partition = self.dice.choice(partitions)
        key = self.dice.choice((None, b"k1", b"k2"))
        return Place(topic, partition, f"{topic}.{self.dice.choice('xyz')}", None) if partition < 0 else Place(topic, partition, "", key)

    async def _send(self, life: Life, topic: str, released: list[tuple[Place, bytes, Truth]]) -> None:
        for place, data, truth in released:
            await life.gate("publish")
            fate = self.draw_fate()[0]
            if fate in ("never", "refuse"):
                continue
            for _ in range(2 if fate in ("duplicate", "again") else 1):
                self.broker.data[topic].add(place, data, (), truth)

    async def _read_on(self, life: Life) -> None:
        """A consumer of each topic: a batch now and then, sometimes a piece of it a second time."""
        while True:
            await asyncio.sleep(self.dice.uniform(0.1, 1.5))
            for topic, reading in self.readings.items():
                records = self.broker.data[topic].records
                if reading.at and self.dice.random() < 0.05:
                    reading.at -= self.dice.randint(1, min(3, reading.at))
                batch = records[reading.at : reading.at + self.dice.randint(1, 8)]
                for record in batch:
                    await life.gate("deliver")
                    if not await self._receive(life, topic, reading, record):
                        break
                    reading.at += 1

    async def _receive(self, life: Life, topic: str, reading: Reading, record: Published) -> bool:
        """Open one record; False where it is held."""
        reader = life.readers[topic]
        (result,) = reader.open([(record.place, record.data, record.headers)])
        if isinstance(result, Behind):
            try:
                await life.agent.catch_up(result)
            except HOLD as error:
                self.sim.note(self, f"holds a record of epoch {record.truth.epoch}: {error.code}")
                return False
            (result,) = reader.open([(record.place, record.data, record.headers)], final=True)
        self.sim.delivered(self, life, reading, record, result)
        return True
