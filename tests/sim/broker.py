"""The broker of a run: MemoryBroker, data topics beside the group logs, appends that land when they like, forks of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from broker_crypto.errors import LostRace
from broker_crypto.records import Clock, Header, LogEntry, Place, TopicFacts
from broker_crypto.testing import MemoryBroker
from tests.sim.cast import GROUP, TOPICS


@dataclass(frozen=True)
class Truth:
    """What was sealed, by whom, and in which epoch: known to the run alone."""

    number: int
    payload: bytes
    sender: str
    label: str
    epoch: int
    epoch_id: bytes
    leaf: int
    forged: bool = False


@dataclass(frozen=True)
class Published:
    """One record of a data topic, with its position."""

    place: Place
    data: bytes
    headers: Sequence[Header]
    truth: Truth


@dataclass
class DataTopic:
    """A topic: partitions that count from 0, or one stream of subjects that counts from 1."""

    name: str
    partitions: tuple[int, ...]
    identity: str = "data-1"
    records: list[Published] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ends = {p: 1 if p < 0 else 0 for p in self.partitions}

    def add(self, place: Place, data: bytes, headers: Sequence[Header], truth: Truth) -> None:
        position = self.ends[place.partition]
        self.ends[place.partition] = position + 1
        self.records.append(Published(place._replace(position=(self.identity, position)), data, headers, truth))

    def facts(self) -> TopicFacts:
        return TopicFacts(self.name, self.identity, dict(self.ends), None, False)


class SimBroker(MemoryBroker):
    """`flying` appends have lost their answer and are on their way."""

    def __init__(self, clock: Clock, *, compare_and_set: bool) -> None:
        super().__init__(clock, compare_and_set=compare_and_set)
        partitions = (-1,) if compare_and_set else (0, 1)
        self.data = {name: DataTopic(name, partitions) for name in TOPICS}
        self.flying = 0

    def facts(self, topic: str) -> list[TopicFacts]:
        return [self.data[topic].facts()] if topic in self.data else []

    def land_in(self, seconds: float, group: str, record: bytes, expected: int | None) -> None:
        """The append lands after `seconds`, whoever made it may be gone by then."""
        self.flying += 1

        def land() -> None:
            self.flying -= 1
            self.fates.appendleft("land")
            try:
                self.append(group, record, expected)
            except LostRace:
                pass

        asyncio.get_running_loop().call_later(seconds, land)

    def fork(self) -> SimBroker:
        """Another broker that shows the same so far, under the same name; data topics are the same ones."""
        other = SimBroker(self.clock, compare_and_set=self.compare_and_set)
        other._logs = {name: list(log) for name, log in self._logs.items()}
        other._identities = dict(self._identities)
        other.data = self.data
        return other

    def behind(self, position: int) -> list[LogEntry]:
        """The entries of the group's log behind a position."""
        log = self._logs.get(GROUP, [])
        at = len(log)
        while at and log[at - 1].position > position:
            at -= 1
        return log[at:]
