"""A group log under attack: an admin, two writers, a reader, one outside; a chain of one history and everybody's state in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from broker_crypto.delivery.committer import Own
from broker_crypto.delivery.membership import Membership, follow
from broker_crypto.delivery.rules import Chain, Verdict, judge
from broker_crypto.identity import ca, identity, keys
from broker_crypto.mls.group import Group
from broker_crypto.mls.proposals import Proposal, ProposalRef
from broker_crypto.records import LogEntry
from tests.support.forging import commit_in
from tests.support.log_forging import Scribe
from tests.support.world import World, same_epoch

NAMES = ("ops", "writer-1", "writer-2", "reader-1")


@dataclass
class Scene:
    """Members at leaves 0 to 3, in the order of NAMES; `entries` is the log up to here, `chain` what it says."""

    suite: int = 1
    scheme: str = "ed25519"
    world: World = field(default_factory=World)
    owns: dict[str, Own] = field(default_factory=dict)
    members: dict[str, Membership] = field(default_factory=dict)

    def __post_init__(self) -> None:
        asyncio.run(self._settle())
        self.entries = self.world.broker.entries("orders")
        chain = self.members["ops"].chain
        assert chain is not None
        self.chain: Chain = chain
        self.now = self.world.clock.now_ms()

    async def _settle(self) -> None:
        actors = [self.world.actor(name, own=self.world.own(name, scheme=self.scheme), suite=self.suite) for name in NAMES]
        await self.world.settle(*actors)
        assert same_epoch(*actors)
        for actor in actors:
            self.owns[actor.name], self.members[actor.name] = actor.own, actor.loop.member

    def group(self, name: str) -> Group:
        group = self.members[name].mls
        assert group is not None
        return group

    def member(self, name: str, *, time_ms: int | None = None) -> Scribe:
        """Writes as a member."""
        return Scribe(self.chain, self.owns[name], self.now if time_ms is None else time_ms, self.world.random, self.group(name))

    def outside(self, own: Own | str = "writer-9", *, time_ms: int | None = None) -> Scribe:
        """Writes as one who joins."""
        own = self.world.own(own, scheme=self.scheme) if isinstance(own, str) else own
        return Scribe(self.chain, own, self.now if time_ms is None else time_ms, self.world.random)

    def entry(self, record: bytes, *, broker_ms: int | None = None) -> LogEntry:
        return LogEntry(self.entries[-1].position + 1, self.now if broker_ms is None else broker_ms, record)

    def judged(self, record: bytes, *, broker_ms: int | None = None) -> Verdict:
        """The verdict of a follower, which every member and every newcomer shares; a refusal changes nothing but their cursors."""
        entry = self.entry(record, broker_ms=broker_ms)
        verdict = judge(self.chain, entry, "orders")
        newcomer: Chain | None = None
        for one in (*self.entries, entry):
            newcomer = judge(newcomer, one, "orders").chain
        assert newcomer == verdict.chain
        for member in self.members.values():
            step = follow(member, entry, "log", {}, {})
            assert (step.verdict.kind, step.verdict.reason, step.verdict.chain) == (verdict.kind, verdict.reason, verdict.chain)
            if verdict.kind != "commit":
                assert step.next.mls is member.mls
                assert (step.next.state, step.next.chain, step.next.entered) == (member.state, member.chain, member.entered)
        return verdict


Attack = Callable[[Scene], bytes]


class Attacks(list[tuple[tuple[str, ...], Attack]]):
    """Attacks that write one record, with the rules of which one may name it."""

    def breaks(self, *reasons: str) -> Callable[[Attack], Attack]:
        def register(attack: Attack) -> Attack:
            self.append((reasons, attack))
            return attack

        return register


def items_of(scribe: Scribe) -> tuple[Proposal | ProposalRef, ...]:
    """The proposals of an honest commit."""
    return commit_in(scribe.staged()).proposals


def joined_with(scribe: Scribe, *more: Proposal, **leaf: object) -> bytes:
    """An external commit that also holds `more`; fields of its leaf changed."""
    return scribe.with_info(scribe.say((*items_of(scribe), *more), scribe.path_with(**leaf)))


def committed_with(scribe: Scribe, *items: Proposal | ProposalRef, **leaf: object) -> bytes:
    """A member's commit of `items`; fields of its leaf changed."""
    return scribe.with_info(scribe.say(items, scribe.path_with(**leaf)))


def certified(scene: Scene, uri: str, *, authority: ca.Authority | None = None, scheme: str = "ed25519", at: int = 0) -> Own:
    """Who has a certificate for `uri`, issued `at` ms from now."""
    key = keys.generate(scheme)
    certificate = ca.issue(authority or scene.world.authority, uri, key.public_key(), now_ms=scene.now + at)
    who = identity.of((certificate,), key)
    return Own(who.uri, who.chain, who.signature_private, who.signature_public)
