"""Random histories of a group: at every record a member, a follower and a newcomer say the same, and so does who was started again."""

from __future__ import annotations

import asyncio
import random
from dataclasses import fields

import pytest

from broker_crypto.delivery import plan, state
from broker_crypto.delivery.committer import Own
from broker_crypto.delivery.membership import Membership
from broker_crypto.delivery.plan import Habits
from broker_crypto.delivery.rules import Chain, judge
from broker_crypto.delivery.state import Intent
from broker_crypto.mls.public import PublicGroup
from broker_crypto.records import GroupView, LogEntry
from tests.support.lies.secret import LIES, wrong_commit
from tests.support.world import Actor, World, same_epoch

NAMES = ("ops", "writer-1", "writer-2", "reader-1", "reader-2", "reader-3")


def rows_of(member: Membership) -> bytes:
    return state.encode_member(member)


def of_chain(chain: Chain | None) -> tuple[object, ...]:
    """Everything that a chain says, its trees as bytes."""
    if chain is None:
        return ()
    return tuple(
        value.to_bytes() if isinstance(value, PublicGroup) else dict(value) if field.name == "paths" else value  # type: ignore[call-overload]
        for field, value in ((field, getattr(chain, field.name)) for field in fields(chain))
    )


class History:
    """Actors who do what chance tells them, over one log."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.world = World(seed=seed, compare_and_set=bool(seed % 2))
        self.world.watchful = False  # an actor is honest and a liar in one
        self.suite, self.scheme = ((1, "ed25519"), (2, "p256"), (3, "ed25519"))[seed % 3]
        self.actors: list[Actor] = []
        self.said: dict[int, tuple[object, ...]] = {}
        self.chain: Chain | None = None
        self.read = 0

    async def step(self) -> None:
        if len(self.actors) < 2 or (len(self.actors) < len(NAMES) and self.draw.random() < 0.08):
            name = NAMES[len(self.actors)]
            self.actors.append(self.actor(name))
            return
        actor = self.draw.choice(self.actors)
        what = self.draw.choices(
            [self.turn, self.rotate, self.lie, self.junk, self.again, self.start_anew, self.lose, self.wait],
            [12, 3, 1, 1, 1, 2, 1, 3],
        )[0]
        await what(actor)

    def actor(self, name: str, own: Own | None = None) -> Actor:
        own = own or self.world.own(name, scheme=self.scheme)
        return self.world.actor(name, own=own, suite=self.suite, habits=Habits(jitter=self.draw.random()))

    async def turn(self, actor: Actor) -> None:
        await actor.turn()
        self.compare(actor)

    async def rotate(self, actor: Actor) -> None:
        intent = Intent(self.world.random(16), plan.ROTATE, 0)
        async with actor.store.transaction() as tx:
            await tx.put(state.INTENT, state.prefix("orders") + intent.id, intent.encode())
        actor.loop.poke(reload=True)

    async def lie(self, actor: Actor) -> None:
        group = actor.loop.member.mls
        if group is None:
            return
        lie, victim = self.draw.choice(LIES), self.draw.choice([None, *(i for i, _ in group.public.tree.leaves())])
        now = max(self.world.clock.now_ms(), actor.loop.member.chain.time)  # type: ignore[union-attr]
        await self.append(wrong_commit(group, now, lie, self.world.random, victim=victim).record)

    async def junk(self, actor: Actor) -> None:
        entries = self.world.broker.entries("orders")
        old = self.draw.choice(entries).record if entries else b""
        at = self.draw.randrange(len(old)) if old else 0
        await self.append(self.draw.choice([old, b"junk", old[:at], old[:at] + b"\x00" + old[at + 1 :]]))

    async def again(self, actor: Actor) -> None:
        """One of the entries a second time."""
        entries = self.world.broker.entries("orders")
        if entries:
            await self.append(entries[-1].record)

    async def start_anew(self, actor: Actor) -> None:
        """Stop it, start it on its store: it knows what it knew."""
        born = await self.world.again(actor)
        old, new = actor.loop.memory, born.loop.memory
        assert rows_of(new.member) == rows_of(old.member)
        assert (new.member.cursor, of_chain(new.member.chain)) == (old.member.cursor, of_chain(old.member.chain))
        assert new.epochs == old.epochs
        assert new.view(born.own) == old.view(actor.own)
        assert new.staged.keys() == old.staged.keys()
        for digest, staged in new.staged.items():
            before = old.staged[digest]
            assert (staged.record, staged.time, staged.intents, staged.next.to_bytes()) == (
                *(before.record, before.time, before.intents),
                before.next.to_bytes(),
            )
        self.actors[self.actors.index(actor)] = born

    async def lose(self, actor: Actor) -> None:
        """Its store is gone; it comes back with its key."""
        self.actors[self.actors.index(actor)] = self.actor(actor.name, actor.own)

    async def wait(self, actor: Actor) -> None:
        self.world.clock.advance(self.draw.choice([0.01, 0.5, 3, 30, 200]))

    async def append(self, record: bytes) -> None:
        log = self.world.broker.group_log()
        await log.open("orders", create=True)
        await log.append(record, None)

    def follow(self) -> None:
        """Read on as one without secrets, one record at a time."""
        for entry in self.world.broker.entries("orders")[self.read :]:
            verdict = judge(self.chain, entry, "orders")
            if verdict.kind in ("founding", "commit"):
                self.chain = verdict.chain
            else:
                assert verdict.chain is self.chain
            self.said[entry.position] = of_chain(self.chain)
            self.read += 1

    def compare(self, actor: Actor) -> None:
        self.follow()
        member = actor.loop.member
        if member.cursor is None:
            return
        assert of_chain(member.chain) == self.said[member.cursor.last.position]
        assert rows_of(state.decode_member(rows_of(member), member.cursor)) == rows_of(member)
        if member.mls is not None:
            assert member.chain is not None
            assert member.mls.public.to_bytes() == member.chain.public.to_bytes()
        if actor.view is not None:
            whole(actor.view, member)

    async def to_the_end(self) -> None:
        for _ in range(400):
            await self.world.settle(*self.actors)
            if same_epoch(*self.actors) and not any(a.loop.member.mend or a.loop.memory.intents for a in self.actors):
                return
            self.world.clock.advance(1)
        raise AssertionError([(a.name, a.state, a.epoch, list(a.loop.memory.intents)) for a in self.actors])


def whole(view: GroupView, member: Membership) -> None:
    """Each epoch of the log is held, missed or was another's; what seals is the newest and held."""
    if member.chain is None:
        return
    held = {v.epoch for v in view.epochs.values()}
    for epoch in range(member.chain.epoch + 1):
        where = (
            epoch in held,
            any(first <= epoch <= last for first, last in view.missed),
            any(first <= epoch <= last for first, last in view.absent),
        )
        assert sum(where) == 1, (epoch, where, member.entered, member.missed)
    assert view.current == member.chain.epoch
    if view.sealing is not None:
        assert view.sealing is view.epochs[view.sealing.epoch_id]
        assert (view.sealing.epoch, member.state) == (view.current, "member")
        assert view.sealing.roster.keys() == {i for i, _ in member.chain.public.tree.leaves()}


@pytest.mark.parametrize("seed", range(12))
def test_everybody_says_the_same_at_every_record_and_is_together_in_the_end(seed: int) -> None:
    async def live() -> None:
        history = History(seed)
        for _ in range(120):
            await history.step()
        await history.to_the_end()
        entries = history.world.broker.entries("orders")
        late = history.actor("writer-9")
        await history.to_the_end()
        await history.world.settle(late, *history.actors)
        assert same_epoch(late, *history.actors)
        history.follow()
        batch(entries, history.said)

    asyncio.run(live())


def batch(entries: list[LogEntry], said: dict[int, tuple[object, ...]]) -> None:
    chain: Chain | None = None
    for entry in entries:
        chain = judge(chain, entry, "orders").chain
        if chain is not None and entry.position % 7 == 0:
            row = chain.public.to_bytes()
            chain = replace_public(chain, PublicGroup.from_bytes(row))
        assert of_chain(chain) == said[entry.position]


def replace_public(chain: Chain, public: PublicGroup) -> Chain:
    values = {field.name: getattr(chain, field.name) for field in fields(chain)}
    return Chain(**{**values, "public": public})
