"""What others do to a group's loop while it works: connections that change under it, forged answers, stores that fail, clocks that jump."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from broker_crypto import errors, limits
from broker_crypto.delivery import plan
from broker_crypto.delivery.committer import Own
from broker_crypto.delivery.log_records import GroupRecord
from broker_crypto.delivery.plan import Habits
from broker_crypto.delivery.ports import GroupLog
from broker_crypto.identity import ca, identity, keys
from broker_crypto.records import ClockSkew, EpochChanged, LogEntry
from broker_crypto.storage.memory import MemoryStore
from broker_crypto.testing import FaultyStore, Moment
from tests.support.lies.secret import wrong_commit
from tests.support.world import Actor, World, same_epoch

ROTATE = plan.Due(plan.COMMIT)


@pytest.fixture
def world() -> World:
    return World()


async def two(world: World, **how: object) -> tuple[Actor, Actor]:
    ops, writer = world.actor("ops", **how), world.actor("writer-1", **how)  # type: ignore[arg-type]
    await world.settle(ops, writer)
    assert same_epoch(ops, writer)
    return ops, writer


async def append(world: World, record: bytes) -> None:
    log = world.broker.group_log()
    await log.open("orders", create=True)
    await log.append(record, None)


class Meddling:
    """A log that does something else first, once, when it is called by name. `failing`: append raises it."""

    def __init__(self, inner: GroupLog, at: str, what: Callable[[], object], failing: Exception | None = None) -> None:
        self.inner, self.at, self.what, self.failing = inner, at, what, failing
        self.opened = 0

    def _meddle(self, name: str) -> None:
        if name == self.at:
            self.at = ""
            self.what()

    async def open(self, group: str, create: bool) -> str:
        self.opened += 1
        self._meddle("open")
        return await self.inner.open(group, create)

    async def head(self) -> int:
        self._meddle("head")
        return await self.inner.head()

    async def read(self, position: int, limit: int) -> list[LogEntry]:
        self._meddle("read")
        return await self.inner.read(position, limit)

    async def append(self, record: bytes, expected: int | None) -> int | None:
        self._meddle("append")
        if self.failing is not None:
            raise self.failing
        return await self.inner.append(record, expected)

    async def changed(self) -> None:
        await self.inner.changed()

    async def close(self) -> None:
        await self.inner.close()


# --- connections --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["open", "head", "read", "append"])
async def test_a_connection_that_is_taken_away_in_a_turn_does_not_end_the_loop(world: World, at: str) -> None:
    ops, writer = await two(world)
    writer.loop.use(Meddling(world.broker.group_log(), at, lambda: writer.loop.use(None)))
    want = asyncio.ensure_future(writer.group.rotate())
    await asyncio.sleep(0)
    await writer.turn()
    await writer.turn()
    writer.loop.use(world.broker.group_log())
    await world.settle(writer, ops)
    await want
    assert same_epoch(ops, writer)


@pytest.mark.parametrize("at", ["open", "head", "read"])
async def test_a_log_that_is_exchanged_in_a_turn_is_opened_before_it_is_used(world: World, at: str) -> None:
    ops, writer = await two(world)
    new = Meddling(world.broker.group_log(), "", lambda: None)
    writer.loop.use(Meddling(world.broker.group_log(), at, lambda: writer.loop.use(new)))
    await writer.loop.turn()
    assert new.opened == 0
    await writer.loop.turn()
    assert new.opened == 1


# --- answers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [True, False], ids=["then the genuine one", "alone"])
async def test_a_copy_of_the_own_commit_with_another_group_info_is_no_answer(world: World, after: bool) -> None:
    ops, writer = await two(world)
    want = asyncio.ensure_future(writer.group.rotate())
    await asyncio.sleep(0.01)
    (intent,) = writer.loop.memory.intents
    (staged,) = await writer.loop.writer.stage(plan.Due(plan.COMMIT, intents=(intent,)))
    genuine = GroupRecord.decode(staged.record)
    assert genuine is not None
    await append(world, replace(genuine, group_info=b"").encode())
    if after:
        await append(world, staged.record)
    wait = await writer.turn()
    assert wait > limits.RESYNC_MAX_SECONDS
    await world.settle(writer, ops)
    await want
    assert same_epoch(ops, writer)
    assert ops.epoch == 2


async def test_a_record_that_the_broker_finds_too_large_ends_what_asked_for_it_and_nothing_else(world: World) -> None:
    ops, writer = await two(world)
    writer.loop.use(Meddling(world.broker.group_log(), "", lambda: None, errors.GroupTooLarge(size=1, limit=0)))
    want = asyncio.ensure_future(writer.group.rotate())
    await asyncio.sleep(0)
    wait = await writer.turn()
    with pytest.raises(errors.GroupError, match="group_too_large"):
        await want
    assert writer.loop.closed_by() is None
    assert wait > 0
    assert same_epoch(ops, writer)


async def test_an_own_record_that_is_refused_twice_counts_as_one_refusal(world: World) -> None:
    ops, writer = await two(world)
    (staged,) = await writer.loop.writer.stage(ROTATE)
    world.broker.skew_ms = 120_000
    await append(world, staged.record)
    await writer.turn()
    await append(world, staged.record)
    await writer.turn()
    assert len([e for e in writer.events if isinstance(e, ClockSkew)]) == 1


# --- who waits ----------------------------------------------------------------------------------------------------------


async def test_who_waits_for_the_log_is_told_why_nobody_reads_it(world: World) -> None:
    ops, writer = await two(world)
    last = world.broker.entries("orders")[-1]
    running = asyncio.ensure_future(ops.loop.run())
    await ops.loop.catch_up()
    world.broker.reads.clear()
    waiting = asyncio.ensure_future(ops.loop.catch_up())
    await asyncio.sleep(0.01)
    world.broker.replace("orders", last.position, record=b"another")
    world.broker.reads.set()
    with pytest.raises(errors.LogRolledBack):
        await waiting
    with pytest.raises(errors.LogRolledBack):
        await ops.loop.catch_up()
    await ops.loop.close()
    await running
    with pytest.raises(errors.AgentClosed):
        await ops.loop.catch_up()
    with pytest.raises(errors.AgentClosed):
        await ops.loop.want(plan.ROTATE)


async def test_who_waits_while_the_loop_is_closed_or_dies_waits_no_longer(world: World) -> None:
    ops, writer = await two(world)
    waiting = asyncio.ensure_future(ops.loop.catch_up())
    await asyncio.sleep(0)
    await ops.loop.close()
    with pytest.raises(errors.AgentClosed):
        await waiting
    waiting = asyncio.ensure_future(writer.loop.catch_up())
    wanting = asyncio.ensure_future(writer.loop.want(plan.ROTATE))
    await asyncio.sleep(0.01)
    writer.loop.fail(RuntimeError("a fault"))
    for task in (waiting, wanting):
        with pytest.raises(errors.GroupError, match="ended"):
            await task
    with pytest.raises(errors.GroupError, match="ended"):
        await writer.loop.catch_up()


async def test_who_gives_up_waiting_leaves_nothing_behind(world: World) -> None:
    ops, _ = await two(world)
    for wait in (ops.loop.catch_up, ops.loop.changed):
        for _ in range(3):
            task = asyncio.ensure_future(wait())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert (len(ops.loop._readers), len(ops.loop._watchers)) == (0, 0)


async def test_one_that_asked_before_a_turn_failed_is_released_by_the_next(world: World) -> None:
    ops, _ = await two(world)
    waiting = asyncio.ensure_future(ops.loop.catch_up())
    await asyncio.sleep(0)
    world.broker.down = True
    with pytest.raises(errors.BrokerUnavailable):
        await ops.loop.turn()
    assert not waiting.done()
    world.broker.down = False
    await ops.loop.turn()
    await waiting


# --- halts --------------------------------------------------------------------------------------------------------------


async def test_nothing_is_sealed_over_a_log_rolled_back_while_the_halt_cannot_be_stored(world: World) -> None:
    failing = False

    def hook(call: int, name: str, moment: Moment) -> None:
        if failing and (name, moment) == ("begin", "before"):
            raise errors.StoreUnavailable("told to fail")

    ops = world.actor("ops", store=FaultyStore(MemoryStore(), hook))
    await ops.loop.load()
    await world.settle(ops)
    assert ops.loop.closed_by() is None
    failing = True
    world.broker.replace("orders", world.broker.entries("orders")[-1].position, record=b"another")
    running = asyncio.ensure_future(ops.loop.run())
    await asyncio.sleep(0.01)
    assert not running.done()
    assert isinstance(ops.closed, errors.LogRolledBack)
    assert ops.loop.member.halt is None
    failing = False
    ops.loop.poke()
    await asyncio.sleep(0.01)
    assert ops.loop.member.halt == errors.LogRolledBack.code
    assert isinstance(ops.closed, errors.LogRolledBack)
    await ops.loop.close()
    await running


async def test_a_file_that_does_not_trust_shows_nothing_and_a_file_in_line_shows_everything_again(world: World) -> None:
    ops, writer = await two(world)
    strict = world.terms(roles=(("agent://acme/other", "admin"), ("agent://acme/*", "writer")))
    doubting = world.actor("writer-1", own=writer.own, store=writer.store, policy=strict)
    await doubting.loop.load()
    assert doubting.state == "halted"
    assert isinstance(doubting.closed, errors.UntrustedFounding)
    view = doubting.view
    assert view is not None
    assert (dict(view.epochs), view.sealing, view.current) == ({}, None, -1)
    want = asyncio.ensure_future(ops.group.rotate())
    await asyncio.sleep(0)
    await world.settle(ops, doubting)
    await want
    assert doubting.state == "halted"  # it reads on, and says so
    assert doubting.epoch == 2
    with pytest.raises(errors.UntrustedFounding):
        await doubting.loop.catch_up()
    trusting = await world.again(doubting)
    assert same_epoch(ops, trusting)
    assert trusting.view is not None
    assert [v.epoch for v in trusting.view.epochs.values()] == [1, 2]


async def test_one_that_was_locked_out_when_it_halted_is_locked_out_when_it_goes_on(world: World) -> None:
    world.watchful = False  # ops reads a lie of its own key
    ops, writer = await two(world)
    group = ops.loop.member.mls
    assert group is not None
    await append(world, wrong_commit(group, world.clock.now_ms(), "confirmation_tag", world.random).record)
    strict = world.terms(roles=(("agent://acme/other", "admin"), ("agent://acme/*", "writer")))
    doubting = world.actor("writer-1", own=writer.own, store=writer.store, policy=strict)
    await doubting.loop.load()
    await doubting.turn()
    assert doubting.state == "halted"
    trusting = await world.again(doubting)
    assert trusting.state == "locked_out"
    assert isinstance(trusting.loop.closed_by(), errors.LockedOut)
    await world.settle(trusting, ops)
    assert same_epoch(trusting, ops)


# --- comparing ----------------------------------------------------------------------------------------------------------


async def test_a_doubt_within_ten_seconds_of_the_last_is_looked_at_when_they_are_over(world: World) -> None:
    ops, _ = await two(world)
    ops.loop.suspect()
    await ops.loop.turn()
    await append(world, b"junk")
    await ops.loop.turn()
    epoch = world.broker.entries("orders")[-2]
    world.broker.replace("orders", epoch.position, record=b"another")
    world.clock.advance(3)
    ops.loop.suspect()
    assert await ops.loop.turn() == pytest.approx(limits.CURSOR_CHECK_SECONDS - 3)
    world.clock.advance(limits.CURSOR_CHECK_SECONDS - 3)
    with pytest.raises(errors.LogRolledBack):
        await ops.loop.turn()


# --- clocks -------------------------------------------------------------------------------------------------------------


async def test_the_brokers_time_is_signed_only_until_an_own_commit_counts(world: World) -> None:
    world.broker.skew_ms = 5 * 60_000
    ops = world.actor("ops")
    await world.settle(ops)
    assert ops.state == "member"
    assert ops.loop.clock_off_ms == 0
    world.broker.skew_ms = 0  # the machine's clock was right after all
    world.clock.advance(5 * 60)
    want = asyncio.ensure_future(ops.group.rotate())
    await asyncio.sleep(0)
    await world.settle(ops)
    await want
    assert [e.off_ms for e in ops.events if isinstance(e, ClockSkew)] == [5 * 60_000]


async def test_a_clock_set_back_holds_no_resync_back_longer_than_its_gap(world: World) -> None:
    ops, writer = await two(world)
    member = replace(writer.loop.member, resyncs=(world.clock.now_ms(),))
    now = world.clock.now_ms()
    assert plan.resync_wait(member, now) == limits.RESYNC_MIN_SECONDS
    assert plan.resync_wait(member, now + 4_000) == pytest.approx(limits.RESYNC_MIN_SECONDS - 4)
    for back in (1_000, 60_000, 3_600_000, 400 * 86_400_000):
        assert plan.resync_wait(member, now - back) <= limits.RESYNC_MIN_SECONDS


@pytest.mark.parametrize("off_ms", [-1_500_000, 0, 3_600_000])
async def test_a_false_external_pub_is_mended_in_two_seconds_whatever_the_own_clock_says(world: World, off_ms: int) -> None:
    habits = Habits(jitter=0.5)
    ops, writer = await two(world, habits=habits)
    group = ops.loop.member.mls
    assert group is not None
    await append(world, wrong_commit(group, world.clock.now_ms(), "external_pub", world.random).record)
    world.clock.shift(off_ms)
    world.broker.skew_ms = -off_ms
    assert await writer.loop.turn() == pytest.approx(limits.SPREAD_SECONDS / 2)
    world.clock.advance(limits.SPREAD_SECONDS / 2)
    assert plan.due(
        writer.loop.member, writer.loop.local, writer.own, habits=habits, now=plan.Now(0, 0.0, 1.0), intents=()
    ) == plan.Due(plan.COMMIT)
    assert writer.loop.writer.due().wish == plan.COMMIT


async def test_a_newcomer_is_in_although_the_time_that_counted_last_is_a_minute_ahead_of_its_clock(world: World) -> None:
    ops, writer = await two(world)
    world.clock.shift(-59_000)
    world.broker.skew_ms = 59_000
    late = world.actor("reader-1", own=world.own("reader-1"))
    world.broker.skew_ms = 0
    await world.settle(late)
    assert late.state == "member"


# --- what is shown ------------------------------------------------------------------------------------------------------


async def test_a_member_with_a_new_certificate_seals_with_the_key_of_its_leaf(world: World) -> None:
    ops, writer = await two(world)
    key = keys.generate()
    who = identity.of((ca.issue(world.authority, writer.own.identity, key.public_key(), now_ms=world.clock.now_ms()),), key)
    renewed = world.actor("writer-1", own=Own(who.uri, who.chain, who.signature_private, who.signature_public), store=writer.store)
    await renewed.loop.load()
    assert renewed.view is not None
    assert renewed.view.sealing is not None
    assert renewed.view.leaf is not None
    entry = renewed.view.sealing.roster[renewed.view.leaf]
    suite = ops.loop.member.mls.suite  # type: ignore[union-attr]
    private = renewed.view.signature_private
    assert private is not None
    assert suite.signature_public_of(private) == entry.signature_key
    assert writer.own.signature_private == private


async def test_what_was_adopted_is_told_although_the_store_fails_behind_it(world: World) -> None:
    """A batch that refuses an own commit and a store that cannot keep that: events and view are there all the same."""
    armed: list[int] = []

    def hook(call: int, name: str, moment: Moment) -> None:
        if armed and moment == "before" and name == "begin":
            armed[0] -= 1
            if armed[0] < 0:
                raise errors.StoreUnavailable("told to fail")

    writer = world.actor("writer-1", store=FaultyStore(MemoryStore(), hook))
    ops = world.actor("ops")
    await world.settle(ops, writer)
    want = asyncio.ensure_future(writer.group.rotate())
    await asyncio.sleep(0.01)
    want.cancel()
    (intent,) = writer.loop.memory.intents
    (theirs,) = await ops.loop.writer.stage(ROTATE)
    await append(world, theirs.record)
    armed.append(1)
    for _ in range(4):
        try:
            await writer.loop.turn()
        except errors.StoreUnavailable:
            pass
    assert [e.epoch for e in writer.events if isinstance(e, EpochChanged)][-1] == 2
    assert writer.view is not None
    assert writer.view.sealing is not None
    assert writer.view.sealing.epoch == 2
    assert intent in writer.loop.memory.intents
    armed.clear()
    await world.settle(writer, ops)
    assert same_epoch(writer, ops)
    assert not writer.loop.memory.intents
