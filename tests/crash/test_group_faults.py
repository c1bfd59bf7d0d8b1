"""A store or log that fails at any call, a task cancelled at any await: memory is what the store says, nothing is lost or told twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from broker_crypto import errors
from broker_crypto.delivery import plan, state
from broker_crypto.records import EpochChanged, Joined, LockedOut
from broker_crypto.storage.memory import MemoryStore
from broker_crypto.testing import FaultyStore, Hook, Moment
from tests.crash.test_group_crashes import CrashingLog, ask
from tests.support.lies.secret import wrong_commit
from tests.support.world import Actor, World, same_epoch

Step = Callable[[], Awaitable[object]]


async def same_as_stored(world: World, actor: Actor, store: MemoryStore) -> None:
    """What the actor holds in memory is what one finds that is started on its store now."""
    found = world.actor(actor.name, own=actor.own, store=store)
    await found.loop.memory.load(store)
    mine, theirs = actor.loop.memory, found.loop.memory
    assert state.encode_member(mine.member) == state.encode_member(theirs.member)
    assert mine.member.cursor == theirs.member.cursor
    assert mine.epochs == theirs.epochs
    assert mine.staged.keys() == theirs.staged.keys()
    assert mine.view(actor.own) == theirs.view(found.own)
    if not mine.stale_intents:
        assert mine.intents == theirs.intents


class Cast:
    """The victim, on a store and a log that a hook hears of, and one other."""

    def __init__(self, hook: Hook | None = None, *, compare_and_set: bool = True) -> None:
        self.world = World(compare_and_set=compare_and_set)
        self.inner = MemoryStore()
        self.faulty = FaultyStore(self.inner, hook or (lambda call, name, moment: None))
        self.world.watchful = False
        self.other = self.world.actor("ops")  # its key signs the lie
        self.world.watchful = True
        self.victim = self.world.actor("writer-1", store=self.faulty)
        self.victim.loop.use(CrashingLog(self.faulty, self.world.broker.group_log()))

    def steps(self) -> list[tuple[str, Step]]:
        """One life: founded by another, joined, rotated, received, locked out, back."""
        victim, other = self.victim, self.other
        return [
            ("", other.turn),
            ("load", victim.loop.load),
            ("join", victim.loop.turn),
            ("", other.turn),
            ("", lambda: ask_store(self, 1)),
            ("rotate", victim.loop.turn),
            ("", other.turn),
            ("", lambda: ask(other, 2)),
            ("", other.turn),
            ("receive", victim.loop.turn),
            ("", lambda: self.lie()),
            ("resync", victim.loop.turn),
            ("", other.turn),
        ]

    async def lie(self) -> None:
        group = self.other.loop.member.mls
        assert group is not None
        staged = wrong_commit(group, self.world.clock.now_ms(), "path_secret", self.world.random, victim=1)
        log = self.world.broker.group_log()
        await log.open("orders", create=True)
        await log.append(staged.record, None)

    async def whole(self, where: str) -> None:
        """Everything is as if nothing had happened."""
        victim, other = self.victim, self.other
        for _ in range(6):
            await self.world.settle(victim, other)
            self.world.clock.advance(11)
        assert same_epoch(victim, other), where
        assert not victim.loop.memory.staged, where
        assert not victim.loop.memory.intents, where
        assert [m.identity for m in other.group.members].count(victim.own.identity) == 1, where
        epochs = [e.epoch for e in victim.events if isinstance(e, EpochChanged)]
        assert epochs == list(range(victim.epoch + 1)), where
        assert len([e for e in victim.events if isinstance(e, Joined)]) == 2, where
        assert len([e for e in victim.events if isinstance(e, LockedOut)]) == 1, where
        assert victim.view == victim.loop.memory.view(victim.own), where
        assert victim.closed is None, where
        await same_as_stored(self.world, victim, self.inner)


async def ask_store(cast: Cast, number: int) -> None:
    """An intent of another process: the victim's store itself does not fail."""
    intent = state.Intent(bytes(15) + bytes((number,)), plan.ROTATE, 0)
    async with cast.inner.transaction() as tx:
        await tx.put(state.INTENT, state.prefix("orders") + intent.id, intent.encode())
    cast.victim.loop.poke(reload=True)


def failing_at(n: int, kinds: tuple[str, ...] | None, moment: Moment) -> Hook:
    """The n-th call fails once, a call of the log as one of a broker. After its effect only a broker's answer can be lost."""
    log = ("open", "head", "read", "append")

    def hook(call: int, name: str, now: Moment) -> None:
        if (call, now) == (n, moment) and (moment == "before" or name in log):
            raise errors.BrokerUnavailable("told to fail") if name in log else errors.StoreUnavailable("told to fail")

    return hook


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("compare_and_set", [True, False])
async def test_a_call_that_fails_changes_nothing_and_is_made_good(moment: Moment, compare_and_set: bool) -> None:
    point = 0
    while True:
        point += 1
        cast = Cast(failing_at(point, None, moment), compare_and_set=compare_and_set)
        failed = False
        for name, step in cast.steps():
            for _ in range(3):
                try:
                    await step()
                except (errors.StoreUnavailable, errors.BrokerUnavailable):
                    failed = True
                    if name:
                        cast.victim.loop._opened = False  # as `run` does
                    if cast.victim.loop._loaded:
                        await same_as_stored(cast.world, cast.victim, cast.inner)
                else:
                    break
        if len(cast.faulty.calls) < point:
            assert point > 60
            break
        await cast.whole(f"{moment} call {point}, {cast.faulty.calls[point - 1]}, failed {failed}")


@pytest.mark.parametrize("name", ["load", "join", "rotate", "receive", "resync"])
async def test_a_task_that_is_cancelled_at_any_await_leaves_memory_as_the_store(name: str) -> None:
    ticks = 0
    while True:
        cast = Cast()
        for step_name, step in cast.steps():
            if step_name != name:
                await step()
                continue
            task = asyncio.ensure_future(step())
            for _ in range(ticks):
                await asyncio.sleep(0)
            ended = task.done()
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass
            if cast.victim.loop._loaded:
                await same_as_stored(cast.world, cast.victim, cast.inner)
            for _ in range(0 if ended else 3):  # what was sent and not read back is sent again after a while
                await step()
                cast.world.clock.advance(3)
        await cast.whole(f"{name} cancelled after {ticks} ticks")
        if ended:
            assert ticks > 5 or name == "load"
            break
        ticks += 1


async def test_an_intent_whose_asker_is_cancelled_at_any_await_is_stored_whole_or_not_at_all() -> None:
    for ticks in range(12):
        cast = Cast()
        for _, step in cast.steps()[:4]:
            await step()
        task = asyncio.ensure_future(cast.victim.loop.want(plan.ROTATE))
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        await same_as_stored(cast.world, cast.victim, cast.inner)
        wanted = len(cast.victim.loop.memory.intents)
        await cast.world.settle(cast.victim, cast.other)
        assert cast.victim.epoch == 1 + wanted
        assert not cast.victim.loop.memory.intents


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_loop_that_runs_meets_every_failure_and_goes_on(moment: Moment) -> None:
    for point in range(1, 60, 3):
        cast = Cast(failing_at(point, None, moment))
        await cast.other.turn()
        await cast.world.running(cast.victim, cast.other, until=lambda: same_epoch(cast.victim, cast.other))
        await same_as_stored(cast.world, cast.victim, cast.inner)


async def test_rows_that_cannot_all_be_read_are_not_read_at_all() -> None:
    cast = Cast()
    for _, step in cast.steps()[:-3]:
        await step()
    for point in range(1, 40):
        failing = FaultyStore(cast.inner, failing_at(point, None, "before"))
        born = cast.world.actor("writer-1", own=cast.victim.own, store=failing)
        before = state.encode_member(born.loop.member)
        try:
            await born.loop.load()
        except errors.StoreUnavailable:
            memory = born.loop.memory
            assert (state.encode_member(memory.member), memory.epochs, memory.staged) == (before, {}, {})
            assert isinstance(born.loop.closed_by(), errors.GroupNotReady)
        else:
            assert point > 5
            assert born.state == "member"
            return
    raise AssertionError("it never loads")
