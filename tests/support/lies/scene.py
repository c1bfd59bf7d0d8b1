"""A group log under attack: an admin, two writers, a reader, one outside; and everybody who reads what is written there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from broker_crypto.delivery import committer, state
from broker_crypto.delivery.committer import Change, Own, Staged
from broker_crypto.delivery.group_policy import GroupPolicy
from broker_crypto.delivery.membership import Membership, Seen, Step, follow
from broker_crypto.delivery.rules import Chain, Verdict, judge
from broker_crypto.identity import ca, identity, keys
from broker_crypto.mls.group import Group
from broker_crypto.records import LogEntry
from tests.support.lies.scribe import Scribe
from tests.support.world import Actor, World, same_epoch

NAMES = ("ops", "writer-1", "writer-2", "reader-1")
FOLLOWER = "follower"  # reads along without a secret


@dataclass
class Scene:
    """Members at leaves 0 to 3, in the order of NAMES; `entries` is the log up to here, `chain` what it says, `now` ms."""

    suite: int = 1
    scheme: str = "ed25519"
    world: World = field(default_factory=World)
    owns: dict[str, Own] = field(default_factory=dict)
    members: dict[str, Membership] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.take(asyncio.run(self._settle()))

    async def _settle(self) -> list[Actor]:
        actors = [self.world.actor(name, own=self.world.own(name, scheme=self.scheme), suite=self.suite) for name in NAMES]
        await self.world.settle(*actors)
        assert same_epoch(*actors)
        return actors

    def take(self, actors: list[Actor]) -> None:
        """Begin where these members of the world are."""
        for actor in actors:
            self.owns[actor.name], self.members[actor.name] = actor.own, actor.loop.member
        self.entries = self.world.broker.entries("orders")
        chain = self.members["ops"].chain
        assert chain is not None
        self.chain: Chain = chain
        self.now = self.world.clock.now_ms()

    # --- who writes ---------------------------------------------------------------------------------------------------

    def group(self, name: str) -> Group:
        group = self.members[name].mls
        assert group is not None
        return group

    def member(self, name: str, *, time_ms: int | None = None) -> Scribe:
        """Writes as a member."""
        return Scribe.behind(self.chain, self.owns[name], self.world.random, time_ms=self._time(time_ms), group=self.group(name))

    def outside(self, own: Own | str = "writer-9", *, time_ms: int | None = None) -> Scribe:
        """Writes as one who joins."""
        own = self.world.own(own, scheme=self.scheme) if isinstance(own, str) else own
        return Scribe.behind(self.chain, own, self.world.random, time_ms=self._time(time_ms))

    def _time(self, time_ms: int | None) -> int:
        return self.now if time_ms is None else time_ms

    def certified(self, uri: str, *, authority: ca.Authority | None = None, scheme: str | None = None, at: int = 0, days: int = 90) -> Own:
        """Who has a certificate for `uri`, issued `at` ms from now for so many days."""
        key = keys.generate(scheme or self.scheme)
        certificate = ca.issue(authority or self.world.authority, uri, key.public_key(), now_ms=self.now + at, days=days)
        who = identity.of((certificate,), key)
        return Own(who.uri, who.chain, who.signature_private, who.signature_public)

    def honest(self, name: str = "ops", after: int = 0) -> Staged:
        """An honest commit of a member, `after` ms from now."""
        return committer.commit(self.group(name), self.owns[name], Change(self.now + after), (), self.world.random)

    def add(self, record: bytes, staged: Mapping[str, Staged] | None = None) -> Verdict:
        """Write a record behind the log's end, and have all members read it. `staged` is what its writer, by name, holds."""
        entry, own = self.entry(record), staged or {}
        for name, member in self.members.items():
            held = {own[name].hash: own[name].next} if name in own else {}
            self.members[name] = follow(member, entry, "log", held, {}).next
        verdict = judge(self.chain, entry, self.chain.group)
        assert verdict.chain is not None
        self.chain, self.entries = verdict.chain, [*self.entries, entry]
        return verdict

    def rotate(self, name: str) -> None:
        """An honest commit of a member, in the log."""
        staged = self.honest(name)
        assert self.add(staged.record, {name: staged}).kind == "commit"

    def join(self, name: str, own: Own) -> None:
        """`own` joins, under a name of its own."""
        self.owns[name], self.members[name] = own, self.newcomer()
        staged = committer.join(self.chain, own, self.now, self.world.random)
        assert self.add(staged.record, {name: staged}).kind == "commit"

    def with_policy(self, **changes: Any) -> Scene:
        """The same scene where the group's policy says something else: only judged by, not in the log."""
        other = Scene.__new__(Scene)
        other.__dict__.update(self.__dict__)
        other.chain = replace(self.chain, policy=replace(self.chain.policy, **changes))
        return other

    # --- who reads ----------------------------------------------------------------------------------------------------

    def entry(self, record: bytes, *, broker_ms: int | None = None, at: int = 1) -> LogEntry:
        """`record` as the broker shows it, `at` places behind the log's end."""
        return LogEntry(self.entries[-1].position + at, self.now if broker_ms is None else broker_ms, record)

    def readers(self) -> dict[str, Membership]:
        """The members, and one that follows without secrets; all at the log's end."""
        cursor = self.members["ops"].cursor
        return {**self.members, FOLLOWER: Membership(self.chain.group, cursor=cursor, chain=self.chain)}

    def newcomer(self, *entries: LogEntry) -> Membership:
        """One who reads the log from its founding on, then `entries`."""
        member = Membership(self.chain.group)
        for entry in (*self.entries, *entries):
            member = follow(member, entry, "log", {}, {}).next
        return member

    def judged(self, record: bytes, *, broker_ms: int | None = None) -> Verdict:
        """The verdict of all who read: the same for members, followers and newcomers; a refusal changes nothing but cursors."""
        entry = self.entry(record, broker_ms=broker_ms)
        verdict = judge(self.chain, entry, self.chain.group)
        for member in self.readers().values():
            step = follow(member, entry, "log", {}, {})
            same_verdict(step.verdict, verdict)
            if verdict.chain is self.chain:
                assert not step.moved
                unchanged(member, step, entry)
        assert self.newcomer(entry).chain == verdict.chain
        return verdict

    def together_after(self, honest: Staged, *records: bytes) -> None:
        """Behind `records` that do not end the epoch, the honest commit counts, and all are in one epoch."""
        entries = [self.entry(record, at=at) for at, record in enumerate((*records, honest.record), 1)]
        authenticators, chains = set(), [self.newcomer(*entries).chain]
        for name, member in self.readers().items():
            staged = {honest.hash: honest.next} if name == "ops" else {}
            for entry in entries:
                member = follow(member, entry, "log", staged, {}).next
            chains.append(member.chain)
            if name != FOLLOWER:
                assert member.mls is not None
                authenticators.add(member.mls.epoch_authenticator)
        assert len(authenticators) == 1
        assert all(chain == chains[0] for chain in chains)
        assert chains[0] is not None
        assert chains[0].epoch == self.chain.epoch + 1


def rows(member: Membership) -> bytes:
    """What is stored of a member but its cursor."""
    return state.encode_member(member)


def same_verdict(one: Verdict, other: Verdict) -> None:
    assert (one.kind, one.reason, one.sender, one.hash, one.chain) == (other.kind, other.reason, other.sender, other.hash, other.chain)


def unchanged(member: Membership, step: Step, entry: LogEntry) -> None:
    """Byte for byte as before, but that the cursor stands at `entry`; before it, where a newer version is needed to go on."""
    assert rows(step.next) == rows(member)
    assert step.next.mls is member.mls
    assert (step.epoch, step.ended_ms, step.lock_out, step.own) == (None, None, None, False)
    cursor = step.next.cursor
    assert cursor is not None
    if step.verdict.kind == "upgrade":
        assert cursor == member.cursor
        return
    assert cursor.last == Seen.of(entry)
    assert member.cursor is None or cursor.epoch == member.cursor.epoch


def actors_rows(actor: Actor) -> Mapping[tuple[str, bytes], bytes]:
    """What an actor's store holds but its cursor."""
    held: Mapping[tuple[str, bytes], bytes] = actor.store._rows  # type: ignore[attr-defined]
    return {at: value for at, value in held.items() if at[0] != state.CURSOR}


def policy_of(scene: Scene, **changes: Any) -> GroupPolicy:
    """The group's policy with something else in it."""
    return replace(scene.chain.policy, **changes)
