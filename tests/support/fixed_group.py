"""Agents of one group whose epochs are given, not agreed on: real channels, real keys, a real policy's words, no group log.

What a connector is told by an agent can be set here: whether it is ready, how far it has read, what it does with refusals.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from broker_crypto.channels.plain import PlainChannel
from broker_crypto.channels.topic import TopicChannel, TopicSettings
from broker_crypto.crypto.suites import suite
from broker_crypto.errors import AgentClosed, BrokerUnavailable, GroupNotReady, NoPolicy, RecordRefused
from broker_crypto.records import Behind, Decision, EpochView, GroupView, RosterEntry, Row

SUITE = suite(1)


@dataclass(frozen=True)
class Rule:
    """One line of `topics:` in a policy."""

    topic: str
    subjects: tuple[str, ...]
    plain: bool = False
    on_failure: Decision = Decision.RAISE
    settings: TopicSettings | None = None


ORDERS = Rule("orders", ("orders.>",))
METRICS = Rule("metrics", ("metrics.>",), plain=True)


class FixedGroup:
    """Members with leaves and keys, and epochs drawn on demand. Every agent made from it sees the epochs it was given."""

    def __init__(self, names: Sequence[str], topics: Sequence[str] = ("orders",)) -> None:
        self.names = list(names)
        self.topics = frozenset(topics)
        self.group_id = secrets.token_bytes(32)
        self.keys = {name: SUITE.signature_key_pair(secrets.token_bytes) for name in names}
        self.epochs: list[EpochView] = []
        self.next_epoch()

    def next_epoch(self) -> EpochView:
        """A new epoch with fresh secrets and the same members."""
        roster = {
            leaf: RosterEntry(f"agent://acme/{name}", self.keys[name][1], True) for leaf, name in enumerate(self.names)
        }
        view = EpochView(
            epoch=len(self.epochs) + 1,
            epoch_id=secrets.token_bytes(16),
            suite=1,
            group_id=self.group_id,
            stream_secret=secrets.token_bytes(SUITE.nh),
            roster=roster,
            topics=self.topics,
        )
        self.epochs.append(view)
        return view

    def view(self, name: str, upto: int | None = None) -> GroupView:
        """What a member knows that has read `upto` epochs (default: all)."""
        known = self.epochs[: len(self.epochs) if upto is None else upto]
        return GroupView(
            epochs={epoch.epoch_id: epoch for epoch in known},
            current=known[-1].epoch,
            sealing=known[-1],
            leaf=self.names.index(name),
            signature_private=self.keys[name][0],
        )

    def agent(self, name: str, *rules: Rule, upto: int | None = None) -> FixedAgent:
        return FixedAgent(self, name, rules or (ORDERS, METRICS), upto)


class FixedAgent:
    """The agent as a connector sees it, for one member of a FixedGroup."""

    def __init__(self, group: FixedGroup, name: str, rules: Sequence[Rule], upto: int | None) -> None:
        self.group, self.name, self.rules = group, name, rules
        self.attached: list[Any] = []
        self.results: list[Any] = []
        self.judged: list[RecordRefused] = []
        self.asked: list[Behind] = []
        self.closed = False
        self.reachable = True  # False: reading the group log fails
        self.readable = asyncio.Event()  # cleared: the group log cannot be read
        self.readable.set()
        self._readiness = asyncio.Event()
        self._readiness.set()
        self.channels = {rule.topic: self._make(rule) for rule in rules}
        self.know(upto)

    def _make(self, rule: Rule) -> PlainChannel | TopicChannel:
        if rule.plain:
            return PlainChannel(rule.topic)
        return TopicChannel(rule.settings or TopicSettings(rule.topic), secrets.token_bytes)

    def know(self, upto: int | None = None) -> None:
        """Have read `upto` epochs of the log."""
        view = self.group.view(self.name, upto)
        for channel in self.channels.values():
            if isinstance(channel, TopicChannel):
                channel.view = view if self._readiness.is_set() else replace(view, sealing=None)

    def pause(self) -> None:
        """No member yet: nothing can be sealed until `go`."""
        self._readiness.clear()
        self.know()

    def go(self) -> None:
        self._readiness.set()
        self.know()

    # --- what a connector calls

    def attach(self, connection: Any) -> str:
        self.attached.append(connection)
        return connection.broker or "main"

    def detach(self, connection: Any) -> None:
        if connection in self.attached:
            self.attached.remove(connection)

    def channel(self, broker: str, subject: str) -> Any:
        if self.closed:
            raise AgentClosed
        for rule in self.rules:
            if any(matches(pattern, subject) for pattern in rule.subjects):
                return self.channels[rule.topic]
        raise NoPolicy(subject=subject, broker=broker)

    def subjects(self, topic: str) -> Sequence[str]:
        return next(rule.subjects for rule in self.rules if rule.topic == topic)

    async def ready(self, topic: str | None = None, timeout: float | None = None) -> None:
        try:
            await asyncio.wait_for(self._readiness.wait(), timeout)
        except TimeoutError:
            raise GroupNotReady(topic=topic) from None

    async def catch_up(self, behind: Behind) -> None:
        self.asked.append(behind)
        if not self.reachable:
            raise BrokerUnavailable("the group log cannot be read")
        await self.readable.wait()
        self.know()

    def seen(self, results: Sequence[Any]) -> None:
        self.results += results

    def judge(self, error: RecordRefused) -> Decision:
        self.judged.append(error)
        topic = error.fields.get("topic")
        return next((rule.on_failure for rule in self.rules if rule.topic == topic), self.rules[0].on_failure)

    async def durable(self, rows: Sequence[Row]) -> None:
        raise AssertionError("topics write no rows")

    def acknowledged(self, receipt: object) -> None:
        raise AssertionError("topics give no receipts")


def matches(pattern: str, subject: str) -> bool:
    """NATS: `*` is one token, `>` one or more at the end."""
    wanted, given = pattern.split("."), subject.split(".")
    for at, token in enumerate(wanted):
        if token == ">":
            return len(given) > at
        if at >= len(given) or token not in ("*", given[at]):
            return False
    return len(wanted) == len(given)
