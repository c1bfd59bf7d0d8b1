"""How a group agrees over its log, on a broker in memory: founding, joining, rotating, racing, lost answers, lock-outs."""

from __future__ import annotations

import asyncio

import pytest

from broker_crypto import errors, limits
from broker_crypto.delivery.plan import Habits
from broker_crypto.records import ClockSkew, EpochChanged, Joined, LockedOut
from tests.support.world import Actor, World, same_epoch


async def trio(world: World) -> tuple[Actor, Actor, Actor]:
    ops, writer, reader = world.actor("ops"), world.actor("writer-1"), world.actor("reader-1")
    await world.settle(ops, writer, reader)
    assert same_epoch(ops, writer, reader)
    return ops, writer, reader


@pytest.fixture(params=[True, False], ids=["compare-and-set", "append only"])
def world(request: pytest.FixtureRequest) -> World:
    return World(compare_and_set=request.param)


async def test_an_admin_founds_at_once_and_others_join_by_external_commit(world: World) -> None:
    ops, writer, reader = await trio(world)
    assert ops.epoch == 2
    assert [m.identity for m in ops.group.members] == ["agent://acme/ops", "agent://acme/writer-1", "agent://acme/reader-1"]
    assert [m.role for m in ops.group.members] == ["admin", "writer", "reader"]
    assert [e for e in ops.events if isinstance(e, Joined)] == [Joined("orders", 0, 0, True, False)]
    assert [e for e in writer.events if isinstance(e, Joined)] == [Joined("orders", 1, 1, False, False)]
    assert ([outcome for outcome, _ in writer.joins], ops.joins) == (["done"], [])


async def test_one_that_is_no_admin_founds_only_after_two_seconds(world: World) -> None:
    writer = world.actor("writer-1")
    assert await writer.turn() == pytest.approx(limits.FOUND_DELAY_SECONDS)
    assert not world.broker.entries("orders")
    world.clock.advance(limits.FOUND_DELAY_SECONDS)
    await world.settle(writer)
    assert writer.state == "member"


async def test_an_identity_without_a_role_neither_founds_nor_joins(world: World) -> None:
    stranger = world.actor("stranger")
    world.clock.advance(10)
    await world.settle(stranger)
    assert not world.broker.entries("orders")
    await world.settle(world.actor("ops"))
    await world.settle(stranger)
    assert stranger.state == "joining"
    assert isinstance(stranger.loop.closed_by(), errors.NotAMember)
    assert len(world.broker.entries("orders")) == 1


async def test_two_founders_at_once_end_in_one_group(world: World) -> None:
    one, two = world.actor("ops"), world.actor("ops")
    await world.running(one, two, until=lambda: same_epoch(one, two))
    assert one.loop.member.chain is not None
    assert two.loop.member.chain is not None
    assert one.loop.member.chain.public.group_id == two.loop.member.chain.public.group_id


async def test_rotation_gives_every_member_the_same_new_epoch(world: World) -> None:
    ops, writer, reader = await trio(world)
    before = ops.group.authenticator
    task = asyncio.ensure_future(writer.group.rotate())
    await asyncio.sleep(0)
    await world.settle(writer, ops, reader)
    await task
    assert same_epoch(ops, writer, reader)
    assert ops.epoch == 3
    assert ops.group.authenticator != before
    assert not writer.loop.memory.intents
    assert not writer.loop.memory.staged


async def test_rotation_is_due_after_the_interval(world: World) -> None:
    ops = world.actor("ops", habits=Habits(rotation_interval=100.0, jitter=0.5))
    await world.settle(ops)
    world.clock.advance(99)
    await world.settle(ops)
    assert ops.epoch == 0
    world.clock.advance(2)
    await world.settle(ops)
    assert ops.epoch == 1


async def test_members_that_commit_at_once_end_equal_with_no_intent_lost(world: World) -> None:
    ops, writer, reader = await trio(world)
    wants = [asyncio.ensure_future(a.group.rotate()) for a in (ops, writer, reader)]
    await world.running(ops, writer, reader, until=lambda: all(w.done() for w in wants))
    await asyncio.gather(*wants)
    assert ops.epoch == 5
    assert same_epoch(ops, writer, reader)


@pytest.mark.parametrize("fate", ["lose_ack", "late", "never", "duplicate", "refuse"])
async def test_whatever_an_append_answers_the_log_decides(world: World, fate: str) -> None:
    ops, writer, reader = await trio(world)
    world.broker.fates.append(fate)  # type: ignore[arg-type]
    task = asyncio.ensure_future(writer.group.rotate())
    await asyncio.sleep(0)
    for _ in range(6):
        await world.settle(writer, ops, reader)
        world.broker.land()
        world.clock.advance(limits.APPEND_RETRY_SECONDS)
    await task
    assert same_epoch(ops, writer, reader)
    assert ops.epoch == 3


async def test_a_member_started_again_goes_on_from_its_store(world: World) -> None:
    ops, writer, reader = await trio(world)
    again = await world.again(writer)
    assert again.state == "member"
    assert again.view is not None
    assert writer.view is not None
    assert again.view.epochs.keys() == writer.view.epochs.keys()
    await world.settle(again, ops, reader)
    assert same_epoch(again, ops, reader)


async def test_a_member_whose_store_is_gone_is_back_with_its_old_key(world: World) -> None:
    ops, writer, reader = await trio(world)
    lost = world.actor("writer-1", own=writer.own)
    await world.settle(lost, ops, reader)
    assert same_epoch(lost, ops, reader)
    assert [m.identity for m in ops.group.members].count("agent://acme/writer-1") == 1


async def test_a_newcomer_joins_while_nobody_else_is_there(world: World) -> None:
    await trio(world)
    late = world.actor("reader-2")
    await world.settle(late)
    assert late.state == "member"
    assert late.view is not None
    assert late.view.absent == ((0, 2),)
    assert [v.epoch for v in late.view.epochs.values()] == [3]


async def test_a_staged_commit_that_was_not_sent_is_sent_after_a_crash(world: World) -> None:
    ops, writer, reader = await trio(world)
    await writer.loop.writer.stage(writer.loop.writer.due().__class__("commit"))
    again = await world.again(writer)
    assert len(again.loop.memory.staged) == 1
    task = asyncio.ensure_future(again.group.rotate())
    await asyncio.sleep(0)
    await world.settle(again, ops, reader)
    await task
    assert same_epoch(again, ops, reader)


async def test_a_commit_that_was_sent_and_never_read_back_is_merged_from_the_staged_state(world: World) -> None:
    ops, writer, reader = await trio(world)
    (staged,) = await writer.loop.writer.stage(writer.loop.writer.due().__class__("commit"))
    log = world.broker.group_log()
    await log.open("orders", create=False)
    await log.append(staged.record, None)
    again = await world.again(writer)
    await world.settle(again, ops, reader)
    assert again.epoch == 3
    assert same_epoch(again, ops, reader)
    assert not [e for e in again.events if isinstance(e, LockedOut)]


async def test_an_own_commit_found_without_its_staged_state_ends_in_a_resync(world: World) -> None:
    ops, writer, reader = await trio(world)
    (staged,) = await writer.loop.writer.stage(writer.loop.writer.due().__class__("commit"))
    log = world.broker.group_log()
    await log.open("orders", create=False)
    await log.append(staged.record, None)
    async with writer.store.transaction() as tx:
        for key, _ in await tx.scan("staged"):
            await tx.delete("staged", key)
    again = await world.again(writer)
    await world.settle(again, ops, reader)
    assert same_epoch(again, ops, reader)
    assert again.view is not None
    assert again.view.missed == ((3, 3),)


async def test_a_record_that_was_read_and_changed_halts_with_log_rolled_back(world: World) -> None:
    ops, writer, _ = await trio(world)
    last = world.broker.entries("orders")[-1]
    world.broker.replace("orders", last.position, time_ms=last.time_ms + 1)
    with pytest.raises(errors.LogRolledBack):
        await ops.turn()
    await ops.loop._halt(errors.LogRolledBack(group="orders"))
    assert isinstance(ops.loop.closed_by(), errors.LogRolledBack)
    again = await world.again(ops)
    assert isinstance(again.loop.closed_by(), errors.LogRolledBack)


async def test_a_log_that_lost_its_end_and_grew_another_is_noticed_by_the_record_of_our_epoch(world: World) -> None:
    ops, writer, reader = await trio(world)
    third = world.broker.entries("orders")[-1]
    log = world.broker.group_log()
    await log.open("orders", create=False)
    junk = await log.append(b"junk", None)
    await ops.turn()
    assert junk is not None
    world.broker.replace("orders", third.position, record=b"another")
    again = await world.again(ops)
    with pytest.raises(errors.LogRolledBack):
        await again.turn()


async def test_a_log_made_anew_halts(world: World) -> None:
    ops, *_ = await trio(world)
    world.broker.recreate("orders")
    again = await world.again(ops)
    with pytest.raises(errors.LogRolledBack):
        await again.turn()


async def test_junk_in_the_log_changes_nothing_but_the_cursor(world: World) -> None:
    ops, writer, reader = await trio(world)
    log = world.broker.group_log()
    await log.open("orders", create=False)
    for junk in (b"", b"\x00" * 100, world.broker.entries("orders")[1].record, world.broker.entries("orders")[0].record):
        await log.append(junk, None)
    async with ops.store.transaction() as tx:
        before = await tx.get("group", b"orders\x00")
    await world.settle(ops, writer, reader)
    async with ops.store.transaction() as tx:
        assert await tx.get("group", b"orders\x00") == before
    assert ops.epoch == 2
    assert ops.loop.member.cursor is not None
    assert ops.loop.member.cursor.last.position == world.broker.entries("orders")[-1].position


async def test_a_founder_that_the_file_does_not_trust_halts_and_a_file_in_line_goes_on(world: World) -> None:
    other = World(seed=2)
    other.clock, other.broker = world.clock, world.broker
    squatter = other.actor("ops")
    await other.settle(squatter)
    ops = world.actor("ops")
    await ops.turn()
    assert isinstance(ops.loop.closed_by(), errors.UntrustedFounding)
    assert ops.view is not None
    assert not ops.view.epochs
    assert len(world.broker.entries("orders")) == 1


async def test_a_founding_by_a_writer_is_trusted_where_the_file_says_the_same(world: World) -> None:
    writer = world.actor("writer-1")
    await writer.turn()
    world.clock.advance(3)
    await world.settle(writer)
    same = world.actor("reader-1")
    await world.settle(same)
    assert same.state == "member"
    differing = world.actor("reader-2", policy=world.terms(topics=("orders", "more")))
    await differing.turn()
    assert isinstance(differing.loop.closed_by(), errors.UntrustedFounding)


async def test_an_agent_whose_clock_is_off_takes_the_brokers_time_for_its_next_try(world: World) -> None:
    world.broker.skew_ms = 5 * 60_000
    ops = world.actor("ops")
    await world.settle(ops)
    world.clock.advance(1)
    await world.settle(ops)
    assert ops.state == "member"
    assert any(isinstance(e, ClockSkew) for e in ops.events)


async def test_a_clock_more_than_twenty_minutes_off_does_not_sign_the_brokers_time(world: World) -> None:
    world.broker.skew_ms = 25 * 60_000
    ops = world.actor("ops")
    for _ in range(3):
        await ops.turn()
        world.clock.advance(3)
    assert ops.state == "joining"
    assert any(isinstance(e, ClockSkew) for e in ops.events)


async def test_thirty_agents_started_at_once_are_all_in(world: World) -> None:
    ops = world.actor("ops")
    crowd = [ops, *(world.actor(f"reader-{i}") for i in range(29))]
    await world.running(*crowd, until=lambda: same_epoch(*crowd), ticks=2000)
    assert len(ops.group.members) == 30


async def test_events_tell_each_epoch_once(world: World) -> None:
    ops, *_ = await trio(world)
    assert [e.epoch for e in ops.events if isinstance(e, EpochChanged)] == [0, 1, 2]


async def test_an_own_commit_that_everybody_would_refuse_never_goes_out_and_its_intent_ends_refused(world: World) -> None:
    ops, writer, reader = await trio(world)
    world.clock.advance(91 * 86400)  # the certificates have ended
    want = asyncio.ensure_future(writer.group.rotate())
    await asyncio.sleep(0)
    before = len(world.broker.entries("orders"))
    wait = await writer.turn()
    with pytest.raises(errors.GroupError, match="refused"):
        await want
    for _ in range(5):
        await writer.turn()
    assert len(world.broker.entries("orders")) == before
    assert wait > 0
    assert not isinstance(writer.loop.closed_by(), errors.LockedOut)


async def test_a_newcomer_whose_certificate_has_ended_writes_nothing_and_tries_again_later(world: World) -> None:
    await trio(world)
    own = world.own("reader-2")
    world.clock.advance(91 * 86400)
    late = world.actor("reader-2", own=own)
    before = len(world.broker.entries("orders"))
    waits = [await late.turn() for _ in range(4)]
    assert len(world.broker.entries("orders")) == before
    assert all(0 < wait <= limits.RESYNC_MIN_SECONDS for wait in waits)
    assert isinstance(late.loop.closed_by(), errors.GroupNotReady)
    assert {outcome for outcome, _ in late.joins} == {"refused"}


async def test_an_early_record_makes_the_cursor_be_compared(world: World) -> None:
    ops, writer, reader = await trio(world)
    entries = world.broker.entries("orders")
    log = world.broker.group_log()
    await log.open("orders", create=False)
    other = World(compare_and_set=world.broker.compare_and_set, seed=9)
    o1, o2, o3 = other.actor("ops"), other.actor("writer-1"), other.actor("reader-1")
    await other.settle(o1, o2, o3)
    want = asyncio.ensure_future(o1.group.rotate())
    await other.settle(o1, o2, o3)
    await want
    want = asyncio.ensure_future(o1.group.rotate())
    await other.settle(o1, o2, o3)
    await want
    world.broker.replace("orders", entries[-1].position, record=entries[-1].record)
    await log.append(other.broker.entries("orders")[-1].record, None)
    await ops.turn()
    assert "early" in ops.verdicts
    world.broker.replace("orders", entries[-1].position, record=b"another")
    world.clock.advance(limits.CURSOR_CHECK_SECONDS)
    ops.loop.suspect()
    with pytest.raises(errors.LogRolledBack):
        await ops.turn()


async def test_a_member_started_again_seals_nothing_before_it_has_read_the_log_to_its_head(world: World) -> None:
    ops, writer, reader = await trio(world)
    late = world.actor("reader-2")
    await late.turn()
    assert late.state == "member"
    again = await world.again(ops)  # it was away while somebody joined
    assert again.epoch == 2
    error = again.closed
    assert isinstance(error, errors.GroupNotReady)
    assert "log" in error.fields["missing"]
    world.broker.down = True
    await again.turn()
    assert isinstance(again.closed, errors.GroupNotReady)
    world.broker.down = False
    await again.turn()
    assert again.closed is None
    assert again.view is not None
    assert again.view.sealing is not None
    assert again.view.sealing.epoch == 3
    world.broker.down = True
    await again.turn()
    assert again.closed is None  # one that has read once goes on while the broker is away


async def test_a_member_that_missed_nothing_seals_after_one_read(world: World) -> None:
    ops, writer, reader = await trio(world)
    again = await world.again(writer)
    assert isinstance(again.closed, errors.GroupNotReady)
    await again.turn()
    assert again.closed is None


async def test_a_reader_started_again_is_not_ready_before_the_log_was_read_either(world: World) -> None:
    ops, writer, reader = await trio(world)
    again = await world.again(reader)
    assert isinstance(again.closed, errors.GroupNotReady)
    await again.turn()
    assert isinstance(again.closed, errors.MayNotWrite)
