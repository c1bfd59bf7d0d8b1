"""A group for tests of what commits do to records of old epochs: an admin whose commits say what a test wants, records, who reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from broker_crypto.channels.topic import TopicChannel, TopicSettings
from broker_crypto.delivery import committer, rights, state
from broker_crypto.delivery.committer import Own
from broker_crypto.delivery.deltas import Delta
from broker_crypto.delivery.group_policy import GroupPolicy
from broker_crypto.delivery.log_records import FencedTopic
from broker_crypto.identity import ca, identity, keys
from broker_crypto.identity.ca import PrivateKey
from broker_crypto.records import Anchor, Opened, Place
from tests.support.certificates import CA_EXTENSIONS, Plan, alt_name, basic_constraints, key_usage, plans, uri
from tests.support.certificates import key as fixed_key
from tests.support.certificates import name as subject_name
from tests.support.topic_world import place, sealed
from tests.support.world import Actor, World, same_epoch

DAY = 86400
FROM_10 = (FencedTopic("orders", "stream 1", ((-1, 10),)),)
BARRED = Delta(bar=("agent://acme/writer-1",))


def policy_of(actor: Actor) -> GroupPolicy:
    chain = actor.loop.member.chain
    assert chain is not None
    return chain.policy


def uri_of(name: str) -> str:
    return f"agent://acme/{name}"


@dataclass
class Play:
    """A group with its admin, and channels made anew for every look at a record."""

    world: World = field(default_factory=World)
    actors: dict[str, Actor] = field(default_factory=dict)

    async def enter(self, *names: str, owns: dict[str, Own] | None = None, **how: Any) -> list[Actor]:
        """These agents, all in one epoch in the end."""
        for name in names:
            own = (owns or {}).get(name)
            self.actors[name] = self.world.actor(name.split("+")[0], own=own, **how)
            await self.settle()
        return [self.actors[name] for name in names]

    async def settle(self, *without: str) -> None:
        """Everybody reads to the head, and joins where it may; but for those who only keep what they had."""
        await self.world.settle(*(actor for name, actor in self.actors.items() if name not in without))

    def leaf(self, actor: Actor, *, of: Actor | None = None) -> int:
        chain = (of or actor).loop.member.chain
        assert chain is not None
        leaf = chain.leaf_of(actor.own.signature_public)
        assert leaf is not None
        return leaf

    async def commit(
        self,
        by: Actor,
        *,
        remove: Sequence[Actor] = (),
        delta: Delta | None = None,
        policy: GroupPolicy | None = None,
        ends: tuple[FencedTopic, ...] | None = None,
    ) -> None:
        """A commit of these parts by one that has read to the head; its list is what the test says. Nobody has read it yet."""
        chain, group = by.loop.member.chain, by.loop.member.mls
        assert chain is not None
        assert group is not None
        new = policy or (delta.apply(chain.policy) if delta else chain.policy)
        gone = {self.leaf(actor, of=by) for actor in remove}
        gone |= rights.uncounted(chain.public.tree, new) if new is not chain.policy else set()
        time, changed = max(self.world.clock.now_ms(), chain.time), new if new is not chain.policy else None
        change = committer.Change(time, changed, frozenset(gone), ends)
        staged = committer.commit(group, by.own, change, (), self.world.random)
        by.loop.memory.staged[staged.hash] = staged
        await self.append(staged.record)

    async def append(self, record: bytes) -> None:
        log = self.world.broker.group_log()
        await log.open("orders", create=True)
        await log.append(record, None)

    async def turn(self, *actors: Actor) -> None:
        for actor in actors:
            await actor.loop.turn()

    def channel(self, actor: Actor) -> TopicChannel:
        made = TopicChannel(TopicSettings(topic="orders"), self.world.random)
        assert actor.view is not None
        made.view = actor.view
        return made

    def seal(self, actor: Actor, *, partition: int = -1) -> bytes:
        [data] = sealed(self.channel(actor), b"payload", to=place(partition=partition))
        return data

    def said(self, reader: Actor, data: bytes, *positions: int | None, channel: TopicChannel | None = None, **where: Any) -> list[str]:
        """What comes of a record at these positions: opened, or the code of the refusal."""
        return outcomes(channel or self.channel(reader), data, *(place(at, **where) for at in positions))


def outcomes(channel: TopicChannel, data: bytes, *places: Place) -> list[str]:
    return ["opened" if isinstance(one, Opened) else one.code for one in channel.open([(at, data, None) for at in places], True)]  # type: ignore[union-attr]


ANY, REMOVED = "opened", "removed_sender"


async def group(*names: str, **how: Any) -> tuple[Play, list[Actor]]:
    """A play with `ops` as its founder and these others."""
    play = Play(**how)
    actors = await play.enter("ops", *names)
    assert same_epoch(*actors)
    return play, actors


async def gone_before(play: Play, how: str, actor: Actor, by: Actor, ops: Actor) -> None:
    """`actor` is no member any more, and nobody was fenced."""
    if how == "left":
        chain = actor.loop.member.chain
        assert chain is not None
        await play.append(rights.leave_record(chain, play.leaf(actor), actor.own.signature_private))
        await play.commit(by, remove=[actor])
    elif how == "expired":
        play.world.clock.advance(2 * DAY)
        await play.commit(by, remove=[actor])
    else:
        await play.commit(ops, remove=[actor])
    await play.turn(ops, by)
    assert actor.own.signature_public not in {leaf.signature_key for _, leaf in tree_of(ops)}


def tree_of(actor: Actor) -> Any:
    chain = actor.loop.member.chain
    assert chain is not None
    return chain.public.tree.leaves()


def certified(world: World, name: str, *, days: int = 90, authority: ca.Authority | None = None) -> Own:
    key = keys.generate()
    certificate = ca.issue(authority or world.authority, uri_of(name), key.public_key(), now_ms=world.clock.now_ms(), days=days)
    who = identity.of((certificate,), key)
    return Own(who.uri, who.chain, who.signature_private, who.signature_public)


def below(root: Plan, name: str, *, middle: str | None, key: PrivateKey | None = None, uri_: str | None = None) -> Own:
    """Who has a certificate from the root itself, or from one between."""
    key, signer, issuer, above = key or keys.generate(), root.key, root.subject, ()
    if middle is not None:
        plan = Plan(subject_name(middle), root.subject, fixed_key(middle), root.key, CA_EXTENSIONS)
        signer, issuer, above = plan.key, plan.subject, (plan.build(),)
    extensions = (basic_constraints(ca=False), key_usage(0), alt_name(uri(uri_ or uri_of(name))))
    leaf = Plan(subject_name(name), issuer, key, signer, extensions).build()
    who = identity.of((leaf, *above), key)
    return Own(who.uri, who.chain, who.signature_private, who.signature_public)


async def rooted(play: Play) -> Plan:
    """The group's anchor is a root that may have others below it."""
    root = plans().root
    anchor = Anchor(root.build(), ("agent://acme/",))
    play.world.policy = replace(play.world.policy, anchors=(*play.world.policy.anchors, anchor))
    return root


async def rows_of(actor: Actor) -> int:
    """How many fences its store has."""
    async with actor.store.transaction() as tx:
        return len(await tx.scan(state.FENCE, b""))
