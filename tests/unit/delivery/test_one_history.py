"""One history: over a broker that loses answers, with liars, junk and files that distrust, everybody says the same at every record.

Whoever turns reads its records three ways, which must agree: as it does, all in one batch, and started anew from its rows before
each single record.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest

from broker_crypto import errors
from broker_crypto.delivery import state
from broker_crypto.delivery.group_policy import GroupPolicy
from broker_crypto.delivery.membership import HALTED, JOINING, LOCKED_OUT, MEMBER, Membership, follow
from broker_crypto.delivery.plan import Habits
from broker_crypto.delivery.rules import Chain, judge, signed_time
from broker_crypto.records import ClockSkew, Event, Halted, LogEntry
from broker_crypto.storage.memory import MemoryStore
from broker_crypto.storage.port import StateStore
from broker_crypto.testing import Chaos, SeededRandom
from tests.support.lies.secret import LIES, wrong_commit
from tests.support.world import Actor, same_epoch
from tests.unit.delivery.test_histories import History, of_chain, rows_of, whole

Rows = dict[tuple[str, bytes], bytes]


def rows_in(store: StateStore) -> Rows:
    """Everything that a store holds."""
    assert isinstance(store, MemoryStore)
    return dict(store._rows)


def copied(rows: Rows) -> MemoryStore:
    store = MemoryStore()
    store._rows = dict(rows)
    return store


def but_intents(rows: Rows) -> Rows:
    """Whether an own record was refused before or after its epoch ended is seen by who reads one at a time."""
    return {at: value for at, value in rows.items() if at[0] != state.INTENT}


def same_rows_when_read_and_written_again(rows: Rows) -> None:
    for (table, _), value in rows.items():
        if table == state.CURSOR:
            assert state.encode_cursor(state.decode_cursor(value)) == value
        elif table == state.EPOCH:
            assert state.encode_epoch(state.decode_epoch(value)) == value
        elif table == state.STAGED:
            staged = state.decode_staged(value)
            assert state.encode_staged(staged) == value
            assert staged.time == signed_time(staged.record)
        elif table == state.INTENT:
            assert state.Intent.decode(value).encode() == value
        elif table == state.GROUP:
            assert state.encode_member(state.decode_member(value, None)) == value


def told(events: list[Event]) -> list[Event]:
    """Without what a restart, or a record that was refused and then overtaken, says again."""
    return [event for event in events if not isinstance(event, Halted | ClockSkew)]


class OneHistory(History):
    """Random lives over a broker of faults."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.world.broker.chaos = Chaos(
            SeededRandom(seed), lose_ack=0.1, late=0.1, never=0.1, duplicate=0.1, refuse=0.1, late_calls=30, yields=1
        )
        self.newcomer = Membership("orders")
        self.told = 0
        self.halts = 0

    async def step(self) -> None:
        if self.actors and self.draw.random() < 0.05:
            await self.change_the_file(self.draw.choice(self.actors))
        await super().step()

    def distrusting(self) -> GroupPolicy:
        """A file by which neither ops is an admin, nor the founding says what it should."""
        return self.world.terms(roles=(("agent://acme/boss", "admin"), ("agent://acme/*", "writer")), topics=("other",))

    async def change_the_file(self, actor: Actor) -> None:
        """Started anew with a file that distrusts the founding, or with the good one again."""
        good = actor.loop.local.policy == self.world.policy
        await self.with_file(actor, self.distrusting() if good and actor.loop.member.chain is not None else self.world.policy)

    async def with_file(self, actor: Actor, policy: GroupPolicy) -> None:
        own, habits = actor.own, Habits(jitter=self.draw.random())
        born = self.world.actor(actor.name, own=own, store=actor.store, policy=policy, suite=self.suite, habits=habits)
        await born.loop.load()
        self.actors[self.actors.index(actor)] = born
        self.halts += born.state == HALTED
        member = born.loop.member
        if member.halt is None and member.chain is not None:
            missing = bool(member.missed) and member.missed[-1][1] is None
            assert member.state == (MEMBER if member.mls else LOCKED_OUT if missing else JOINING)

    async def start_anew(self, actor: Actor) -> None:
        if actor.loop.local.policy == self.world.policy:
            await super().start_anew(actor)

    async def append(self, record: bytes) -> None:
        with suppress(errors.BrokerUnavailable, errors.AppendUnknown, errors.LostRace):
            await super().append(record)

    async def turn(self, actor: Actor) -> None:
        before = rows_in(actor.store)
        cursor = actor.loop.member.cursor
        await super().turn(actor)
        self.follow_anew()
        same_rows_when_read_and_written_again(rows_in(actor.store))
        first = cursor.last.position + 1 if cursor else 0
        await self.three_ways(actor, before, [e for e in self.world.broker.entries("orders") if e.position >= first])

    def follow_anew(self) -> None:
        """A newcomer that follows from the founding says what the follower says."""
        self.follow()
        for entry in self.world.broker.entries("orders")[self.told :]:
            self.newcomer = follow(self.newcomer, entry, "log-1", {}, {}).next
            assert of_chain(self.newcomer.chain) == self.said[entry.position]
            self.newcomer = state.decode_member(rows_of(self.newcomer), self.newcomer.cursor)
            assert (self.newcomer.entered, self.newcomer.missed, self.newcomer.mls) == ((), (), None)
            self.told += 1

    async def as_it_was(self, actor: Actor, store: MemoryStore) -> Actor:
        """The agent started on these rows; it reads only what it is given."""
        loop = actor.loop
        born = self.world.actor(actor.name, own=actor.own, store=store, policy=loop.local.policy, suite=self.suite, habits=loop.habits)
        await born.loop.load()
        born.loop._log_id = "log-1"
        return born

    async def three_ways(self, actor: Actor, rows: Rows, entries: list[LogEntry]) -> None:
        if not entries:
            return
        batch, single = copied(rows), copied(rows)
        at_once = await self.as_it_was(actor, batch)
        await at_once.loop._apply(entries)
        verdicts: list[str] = []
        events: list[Event] = []
        for entry in entries:
            one = await self.as_it_was(actor, single)
            await one.loop._apply([entry])
            verdicts, events = verdicts + one.verdicts, events + one.events
            again = await self.as_it_was(actor, copied(rows_in(single)))
            self.same(one, again)
            member = again.loop.member
            assert of_chain(member.chain) == self.said[entry.position]
            if member.halt is None:
                whole(again.loop.memory.view(again.own), member)
        assert verdicts == at_once.verdicts
        assert told(events) == told(at_once.events)
        assert but_intents(rows_in(batch)) == but_intents(rows_in(single))
        self.same(at_once, one)
        self.same(at_once, await self.as_it_was(actor, copied(rows_in(batch))))

    def same(self, one: Actor, other: Actor) -> None:
        left, right = one.loop.memory, other.loop.memory
        assert rows_of(left.member) == rows_of(right.member)
        assert left.view(one.own) == right.view(other.own)
        assert left.member.cursor == right.member.cursor
        assert left.epochs == right.epochs
        assert left.staged.keys() == right.staged.keys()

    def compare(self, actor: Actor) -> None:
        if actor.loop.member.halt is None:
            super().compare(actor)
            return
        self.follow()
        member = actor.loop.member
        assert member.cursor is not None
        assert of_chain(member.chain) == self.said[member.cursor.last.position]
        assert rows_of(state.decode_member(rows_of(member), member.cursor)) == rows_of(member)
        assert actor.view is not None
        assert (actor.view.epochs, actor.view.sealing) == ({}, None)

    async def mend_the_world(self) -> None:
        """The broker does as it should, and all have the good file."""
        self.world.broker.chaos = None
        self.world.broker.land()
        for actor in list(self.actors):
            if actor.loop.local.policy != self.world.policy:
                await self.with_file(actor, self.world.policy)

    async def to_the_end(self) -> None:
        await self.mend_the_world()
        await super().to_the_end()


@pytest.mark.parametrize("seed", range(10))
def test_everybody_says_the_same_at_every_record_however_it_is_read(seed: int) -> None:
    async def live() -> None:
        history = OneHistory(seed)
        for _ in range(90):
            await history.step()
        await history.to_the_end()
        history.follow_anew()
        assert same_epoch(*history.actors)
        for actor in history.actors:
            assert not actor.loop.memory.staged
            assert not actor.loop.memory.intents
            assert len({id(epoch) for epoch in actor.loop.memory.views.values()}) == len(actor.loop.memory.epochs)
            ends(actor)

    asyncio.run(live())


def ends(actor: Actor) -> None:
    """All epochs but the newest have an end, none before it began; what is held of them is what members of it held."""
    epochs = sorted(actor.loop.memory.epochs.values(), key=lambda epoch: epoch.epoch)
    for epoch in epochs[:-1]:
        assert epoch.ended is not None
        assert epoch.began <= epoch.ended
    assert epochs[-1].ended is None
    assert epochs[-1].epoch == actor.epoch


def test_members_of_one_epoch_hold_the_same_row_of_it() -> None:
    async def live() -> None:
        history = OneHistory(3)
        for _ in range(150):
            await history.step()
        await history.with_file(history.actors[0], history.distrusting())
        await history.world.settle(*history.actors)
        await history.to_the_end()
        held: dict[bytes, set[bytes]] = {}
        for actor in history.actors:
            for epoch in actor.loop.memory.epochs.values():
                held.setdefault(epoch.epoch_id, set()).add(state.encode_epoch(replace(epoch, ended=None)))
        assert all(len(rows) == 1 for rows in held.values())
        assert history.halts

    asyncio.run(live())


class Copied(OneHistory):
    """Two of the agents run twice, on copies of one folder, and take the leaf from each other."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.copies: list[str] = []

    async def step(self) -> None:
        actor = self.draw.choice(self.actors) if len(self.actors) > 1 else None
        if actor is not None and actor.name not in self.copies and len(self.copies) < 2:
            self.copies.append(actor.name)
            policy = actor.loop.local.policy
            copy = self.world.actor(actor.name, own=actor.own, store=copied(rows_in(actor.store)), policy=policy, suite=self.suite)
            await copy.loop.load()
            self.actors.append(copy)
        await super().step()


@pytest.mark.parametrize("seed", range(20, 24))
def test_copies_of_an_agent_that_fight_for_its_leaf_change_nothing_for_who_only_follows(seed: int) -> None:
    async def live() -> None:
        history = Copied(seed)
        for _ in range(90):
            await history.step()
        assert len(history.copies) == 2
        await history.mend_the_world()
        for actor in list(history.actors):
            await history.rotate(actor)
        for _ in range(20):
            await history.world.settle(*history.actors, rounds=2)
            history.world.clock.advance(1)
        assert any(actor.loop.member.resyncs for actor in history.actors)
        history.actors = list({actor.name: actor for actor in history.actors}.values())  # one of each goes on
        await history.to_the_end()
        history.follow_anew()
        assert same_epoch(*history.actors)

    asyncio.run(live())


@pytest.mark.parametrize("lie", LIES)
async def test_a_wish_to_rotate_outlives_a_lock_out_and_lost_answers_and_is_done_once(lie: str) -> None:
    history = OneHistory(7)
    history.world.broker.chaos = None
    while len(history.actors) < 3:
        await History.step(history)
    await history.to_the_end()
    liar, other = history.actors[0], history.actors[1]
    group = liar.loop.member.mls
    assert group is not None
    await history.rotate(other)
    await history.append(wrong_commit(group, history.world.clock.now_ms(), lie, history.world.random).record)
    history.world.broker.fates.extend(["lose_ack", "never", "late", "lose_ack"])
    for actor in (other, liar, *history.actors):
        await history.turn(actor)
    await history.to_the_end()
    chain: Chain | None = None
    rotated = 0
    for entry in history.world.broker.entries("orders"):
        verdict = judge(chain, entry, "orders")
        if verdict.commit is not None and not verdict.commit.staged.external:
            rotated += verdict.sender == other.own.identity
        chain = verdict.chain
    assert rotated == 1
    assert ("locked_out" in other.verdicts) == (lie != "external_pub")
