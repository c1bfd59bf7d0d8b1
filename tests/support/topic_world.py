"""One topic's group as channels see it: members with real keys, epochs as a view gives them, no group log."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from broker_crypto.channels.topic import TopicChannel, TopicSettings
from broker_crypto.crypto import suite
from broker_crypto.errors import RecordRefused
from broker_crypto.records import Behind, EpochView, GroupView, Header, Opened, Place, RosterEntry

TOPIC = "orders"
READER = 2  # the leaf that may not write


class World:
    """Leaves 0 and 1 write, leaf 2 only reads; epochs 5 and 6 are held, 0 to 4 were before this member joined."""

    def __init__(self, number: int = 1, seed: int = 7) -> None:
        self.random = random.Random(seed)
        self.suite = suite(number)
        pairs = [self.suite.signature_key_pair(self.random.randbytes) for _ in range(3)]
        self.private = [private for private, _ in pairs]
        self.roster = {leaf: RosterEntry(f"agent://acme/{leaf}", public, leaf != READER) for leaf, (_, public) in enumerate(pairs)}
        self.group_id = self.random.randbytes(32)
        self.epochs = [self.epoch(5), self.epoch(6)]

    def epoch(self, number: int, **changes: Any) -> EpochView:
        view = EpochView(
            epoch=number,
            epoch_id=self.random.randbytes(16),
            suite=self.suite.number,
            group_id=self.group_id,
            stream_secret=self.random.randbytes(self.suite.nh),
            roster=self.roster,
            topics=frozenset({TOPIC}),
        )
        return replace(view, **changes)

    def view(self, leaf: int = 0, *, sealing: EpochView | None = None, epochs: list[EpochView] | None = None, **changes: Any) -> GroupView:
        held = self.epochs if epochs is None else epochs
        view = GroupView(
            epochs={epoch.epoch_id: epoch for epoch in held},
            current=held[-1].epoch if held else -1,
            sealing=sealing or (held[-1] if held else None),
            leaf=leaf,
            absent=[(0, 4)],
            signature_private=self.private[leaf],
        )
        return replace(view, **changes)

    def channel(self, leaf: int = 0, view: GroupView | None = None, **settings: Any) -> TopicChannel:
        channel = TopicChannel(TopicSettings(**{"topic": TOPIC, **settings}), self.random.randbytes)
        channel.view = view or self.view(leaf)
        return channel


def place(at: int | None = None, *, partition: int = -1, subject: str = "orders.new", identity: str = "stream 1", **more: Any) -> Place:
    return Place(TOPIC, partition, subject, position=None if at is None else (identity, at), **more)


def sealed(channel: TopicChannel, *payloads: bytes, headers: list[Header] | None = None, to: Place | None = None) -> list[bytes]:
    """The records of one call, for one place."""
    return [one.data for one in channel.seal([(to or place(), payload, headers) for payload in payloads])]


def opened(channel: Any, data: bytes, at: Place | None = None, outer: list[Header] | None = None, *, final: bool = True) -> Opened:
    [result] = channel.open([(at or place(), data, outer)], final)
    assert isinstance(result, Opened), result
    return result


def refused(channel: Any, data: bytes, at: Place | None = None, outer: list[Header] | None = None, *, final: bool = True) -> RecordRefused:
    [result] = channel.open([(at or place(), data, outer)], final)
    assert not isinstance(result, Opened | Behind), result
    return result
