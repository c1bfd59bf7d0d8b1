"""Removing, readmitting, revoking, leaving, coming back: asked of an agent, shown by the log."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from broker_crypto import errors, limits
from broker_crypto.delivery import log_records, plan, state
from broker_crypto.delivery.deltas import Delta
from broker_crypto.delivery.group_policy import key_of
from broker_crypto.delivery.plan import Habits
from broker_crypto.delivery.rules import judge
from broker_crypto.mls.framing import MLSMessage
from broker_crypto.records import MemberLeft, TopicFacts
from tests.support.world import Actor, World, same_epoch


@pytest.fixture(params=[True, False], ids=["compare_and_set", "blind"])
def world(request: pytest.FixtureRequest) -> World:
    world = World(compare_and_set=request.param)
    world.broker.describe("orders", TopicFacts("orders", "a stream", {-1: 7}, None, False))
    return world


async def trio(world: World) -> tuple[Actor, Actor, Actor]:
    actors = (world.actor("ops"), world.actor("writer-1"), world.actor("reader-1"))
    await world.settle(*actors)
    assert same_epoch(*actors)
    return actors


async def done(world: World, asked: Coroutine[Any, Any, None], *actors: Actor, rounds: int = 8) -> None:
    """Run what was asked while everybody takes turns; raises what it raises."""
    task = asyncio.ensure_future(asked)
    for _ in range(rounds):
        await asyncio.sleep(0)
        await world.settle(*actors)
        if task.done():
            break
        world.clock.advance(3)
    assert task.done(), "what was asked never came to its end"
    await task


def last_commit(world: World) -> log_records.CommitData:
    record = log_records.GroupRecord.decode(world.broker.entries("orders")[-1].record)
    assert record is not None
    return log_records.CommitData.decode(MLSMessage.decode(record.message).body.content.authenticated_data)  # type: ignore[union-attr]


def names(actor: Actor) -> list[str]:
    return [m.identity.rpartition("/")[2] for m in actor.group.members]


async def test_a_removed_identity_is_out_everywhere_and_does_not_come_back_by_itself(world: World) -> None:
    ops, writer, reader = await trio(world)
    await done(world, ops.group.remove(writer.own.identity), ops, writer, reader)
    assert same_epoch(ops, reader)
    assert names(ops) == ["ops", "reader-1"]
    assert writer.state == "removed"
    assert isinstance(writer.closed, errors.NotAMember)
    assert writer.view is not None
    assert writer.view.sealing is None
    assert writer.view.epochs  # what it held it still opens
    assert [e.identity for e in reader.events if isinstance(e, MemberLeft)] == [writer.own.identity]
    entries = len(world.broker.entries("orders"))
    for _ in range(5):
        world.clock.advance(700)
        await world.settle(writer, ops, reader)
    assert len(world.broker.entries("orders")) == entries
    again = await world.again(writer)
    await world.settle(again, ops)
    assert again.state == "removed"
    fresh = world.actor("writer-1")  # another key of the same identity
    await world.settle(fresh)
    assert fresh.state != "member"
    assert len(world.broker.entries("orders")) == entries


async def test_a_removal_carries_the_ends_of_the_topics_as_they_are_then(world: World) -> None:
    ops, writer, reader = await trio(world)
    world.broker.describe("orders", TopicFacts("orders", "a stream", {-1: 99}, None, False))
    await done(world, ops.group.remove(writer.own.identity), ops, writer, reader)
    assert last_commit(world).fences == (log_records.FencedTopic("orders", "a stream", ((-1, 99),)),)


async def test_a_topic_out_of_reach_stops_a_removal_until_it_is_left_out_by_name(world: World) -> None:
    ops, writer, reader = await trio(world)

    async def away(topic: str) -> list[TopicFacts]:
        raise errors.BrokerUnavailable("told to fail")

    object.__setattr__(ops.loop._services, "describe", away)
    asked = asyncio.ensure_future(ops.group.remove(writer.own.identity))
    await asyncio.sleep(0)
    with pytest.raises(errors.BrokerUnavailable, match="orders"):
        await ops.loop.turn()
    assert names(ops) == ["ops", "writer-1", "reader-1"]
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    for intent in list(ops.loop.memory.intents):
        await ops.loop._forget(intent)
    await done(world, ops.group.remove(writer.own.identity, without=("orders",)), ops, writer, reader)
    assert last_commit(world).fences == ()
    assert names(ops) == ["ops", "reader-1"]


async def test_readmitting_lets_an_identity_come_back_by_itself(world: World) -> None:
    ops, writer, reader = await trio(world)
    await done(world, ops.group.remove(writer.own.identity), ops, writer, reader)
    await done(world, ops.group.readmit(writer.own.identity), ops, writer, reader)
    world.clock.advance(20)
    await world.settle(writer, ops, reader)
    assert same_epoch(ops, writer, reader)
    assert writer.closed is None
    assert last_commit(world).fences is None  # giving back fences nobody


async def test_a_removed_leaf_is_out_by_its_key_and_the_identity_joins_with_another(world: World) -> None:
    ops, writer, reader = await trio(world)
    twin = world.actor("writer-1")  # a replica: its own key, the same identity
    await world.settle(ops, writer, reader, twin)
    assert same_epoch(ops, writer, reader, twin)
    assert writer.group.leaf is not None
    await done(world, ops.group.remove(leaf=writer.group.leaf), ops, writer, reader, twin)
    assert same_epoch(ops, reader, twin)
    assert writer.state == "removed"
    entries = len(world.broker.entries("orders"))
    world.clock.advance(700)
    await world.settle(writer)
    assert len(world.broker.entries("orders")) == entries
    third = world.actor("writer-1")
    await world.settle(third, ops, reader, twin)
    assert third.state == "member"


async def test_a_revoked_ca_key_takes_everybody_below_it_and_is_refused_where_the_admin_is_below(world: World) -> None:
    ops, writer, reader = await trio(world)
    chain = ops.loop.member.chain
    assert chain is not None
    node = chain.public.tree.leaf(1)
    assert node is not None
    await done(world, ops.group.revoke(key_of(node)), ops, writer, reader)
    assert names(ops) == ["ops", "reader-1"]
    own = chain.public.tree.leaf(0)
    assert own is not None
    with pytest.raises(errors.GroupError, match="own_leaf"):
        await done(world, ops.group.revoke(key_of(own)), ops, reader)
    assert same_epoch(ops, reader)


async def test_who_loses_the_role_of_a_writer_stays_where_it_may_read_and_writes_no_more(world: World) -> None:
    ops, writer, reader = await trio(world)
    demote = Delta(drop_roles=(("agent://acme/writer-*", "writer"),), add_roles=(("agent://acme/writer-*", "reader"),))
    await done(world, ops.group.change(demote), ops, writer, reader)
    assert same_epoch(ops, writer, reader)
    assert isinstance(writer.closed, errors.MayNotWrite)
    assert last_commit(world).fences == (log_records.FencedTopic("orders", "a stream", ((-1, 7),)),)
    await done(world, ops.group.change(Delta(drop_roles=(("agent://acme/writer-*", "reader"),))), ops, writer, reader)
    assert writer.state == "removed"
    assert names(ops) == ["ops", "reader-1"]


async def test_only_an_admin_is_asked_and_only_an_admins_commit_counts(world: World) -> None:
    ops, writer, reader = await trio(world)
    with pytest.raises(errors.GroupError, match="admin"):
        await writer.group.remove(reader.own.identity)
    sneaked = state.Intent(world.random(16), plan.REMOVE, 0, Delta(bar=(reader.own.identity,)).encode())
    async with writer.store.transaction() as tx:
        await tx.put(state.INTENT, state.prefix("orders") + sneaked.id, sneaked.encode())
    writer.loop.poke(reload=True)
    entries = len(world.broker.entries("orders"))
    await world.settle(writer, ops, reader)
    assert writer.loop.memory.intents[sneaked.id].refused == "policy_right"
    assert len(world.broker.entries("orders")) == entries
    assert same_epoch(ops, writer, reader)


async def test_what_is_so_already_is_done_without_a_commit(world: World) -> None:
    ops, writer, reader = await trio(world)
    await done(world, ops.group.remove(writer.own.identity), ops, writer, reader)
    entries = len(world.broker.entries("orders"))
    await done(world, ops.group.remove(writer.own.identity), ops, writer, reader)
    await done(world, ops.group.readmit("agent://acme/nobody"), ops, writer, reader)
    assert len(world.broker.entries("orders")) == entries


async def test_of_several_wishes_one_that_cannot_be_ends_alone_and_the_others_are_done(world: World) -> None:
    ops, writer, reader = await trio(world)
    own = ops.loop.member.chain.public.tree.leaf(0)  # type: ignore[union-attr]
    assert own is not None
    bad = asyncio.ensure_future(ops.group.revoke(key_of(own)))
    good = asyncio.ensure_future(ops.group.remove(writer.own.identity))
    turning = asyncio.ensure_future(ops.group.rotate())
    await asyncio.sleep(0)
    for _ in range(8):
        await world.settle(ops, writer, reader)
        await asyncio.sleep(0)
        world.clock.advance(11)
    with pytest.raises(errors.GroupError, match="own_leaf"):
        await bad
    await asyncio.gather(good, turning)
    assert names(ops) == ["ops", "reader-1"]
    assert same_epoch(ops, reader)


async def test_an_identity_without_a_leaf_can_be_removed_too(world: World) -> None:
    ops, writer, reader = await trio(world)
    await done(world, ops.group.remove("agent://acme/writer-9"), ops, writer, reader)
    late = world.actor("writer-9")
    await world.settle(late, ops)
    assert late.state != "member"
    assert last_commit(world).fences is not None


async def test_removals_that_two_admins_ask_for_at_once_are_both_in_force(world: World) -> None:
    world.policy = world.terms(roles=(("agent://acme/ops*", "admin"), ("agent://acme/writer-*", "writer")))
    one, two, three, four = (world.actor(n) for n in ("ops", "ops-2", "writer-1", "writer-2"))
    await world.settle(one, two, three, four)
    asked = [asyncio.ensure_future(one.group.remove(three.own.identity)), asyncio.ensure_future(two.group.remove(four.own.identity))]
    await asyncio.sleep(0)
    await asyncio.gather(one.turn(), two.turn())
    for _ in range(4):
        await world.settle(one, two, three, four)
        world.clock.advance(11)
    await asyncio.gather(*asked)
    assert same_epoch(one, two)
    assert names(one) == ["ops", "ops-2"]


# --- leaving ------------------------------------------------------------------------------------------------------------


async def test_who_leaves_seals_nothing_from_then_on_keeps_no_key_and_is_removed_by_the_next_commit(world: World) -> None:
    ops, writer, reader = await trio(world)
    leaving = asyncio.ensure_future(writer.group.leave())
    await asyncio.sleep(0.01)
    assert isinstance(writer.closed, errors.NotAMember)  # before anything is read
    await writer.turn()
    await asyncio.wait_for(leaving, 1)
    assert writer.state == "left"
    assert writer.view is not None
    assert not writer.view.epochs
    async with writer.store.transaction() as tx:
        kinds = [kind for kind in (state.CURSOR, state.EPOCH, state.STAGED, state.INTENT, state.FENCE) if await tx.scan(kind)]
    assert not kinds
    world.clock.advance(limits.SPREAD_SECONDS)
    await world.settle(ops, reader)
    assert same_epoch(ops, reader)
    assert names(ops) == ["ops", "reader-1"]
    again = await world.again(writer)
    await world.settle(again)
    assert again.state == "left"
    assert isinstance(again.closed, errors.NotAMember)


async def test_what_was_asked_before_leaving_and_not_done_is_said_not_to_be(world: World) -> None:
    ops, writer, reader = await trio(world)
    turning, leaving = asyncio.ensure_future(writer.group.rotate()), asyncio.ensure_future(writer.group.leave())
    await asyncio.sleep(0.01)
    await writer.turn()
    await asyncio.wait_for(leaving, 1)
    with pytest.raises(errors.NotAMember, match="left"):
        await asyncio.wait_for(turning, 1)


async def test_who_left_comes_back_when_asked_and_only_then(world: World) -> None:
    ops, writer, reader = await trio(world)
    await done(world, writer.group.leave(), writer, ops, reader)
    world.clock.advance(3)
    await world.settle(writer, ops, reader)
    assert writer.state == "left"
    await done(world, writer.group.join(), writer, ops, reader)
    assert same_epoch(ops, writer, reader)
    assert [m.identity for m in ops.group.members].count(writer.own.identity) == 1


async def test_the_last_member_does_not_leave(world: World) -> None:
    ops = world.actor("ops")
    await world.settle(ops)
    with pytest.raises(errors.LastMember):
        await ops.group.leave()
    assert ops.state == "member"


async def test_a_leave_that_an_own_path_made_void_is_sent_again(world: World) -> None:
    ops, writer, reader = await trio(world)
    (rotation,) = await writer.loop.writer.stage(plan.Due(plan.COMMIT))
    leaving = asyncio.ensure_future(writer.group.leave())
    await asyncio.sleep(0)
    log = world.broker.group_log()
    await log.open("orders", create=False)
    chain = writer.loop.member.chain
    assert chain is not None
    assert writer.group.leaf is not None
    await log.append(rotation.record, None)
    for _ in range(4):
        await world.settle(writer)
        world.clock.advance(3)
    await asyncio.wait_for(leaving, 1)
    world.clock.advance(3)
    await world.settle(ops, reader)
    assert names(ops) == ["ops", "reader-1"]


async def test_one_who_is_locked_out_can_leave(world: World) -> None:
    from tests.support.lies.secret import wrong_commit

    ops, writer, reader = await trio(world)
    group = ops.loop.member.mls
    assert group is not None
    log = world.broker.group_log()
    await log.open("orders", create=False)
    world.clock.advance(1)
    await log.append(wrong_commit(group, world.clock.now_ms(), "path_secret", world.random, victim=1).record, None)
    leaving = asyncio.ensure_future(writer.group.leave())
    await asyncio.sleep(0)
    for _ in range(3):
        await writer.turn()
        world.clock.advance(3)
    await asyncio.wait_for(leaving, 1)
    assert writer.state == "left"


# --- a log that is behind ------------------------------------------------------------------------------------------------


async def test_a_replicated_log_may_be_behind_for_a_minute_in_which_nothing_is_sealed(world: World) -> None:
    ops = world.actor("ops", habits=Habits(failover=limits.FAILOVER_SECONDS))
    writer = world.actor("writer-1")
    await world.settle(ops, writer)
    whole = world.broker.entries("orders")
    world.broker.roll_back("orders", len(whole) - 1)
    for _ in range(3):
        with pytest.raises(errors.BrokerUnavailable):
            await ops.loop.turn()
        assert isinstance(ops.loop.closed_by(), errors.GroupNotReady)
        world.clock.advance(15)
    world.broker.come_up("orders", whole)
    await ops.turn()
    assert ops.loop.closed_by() is None
    world.broker.roll_back("orders", len(whole) - 1)
    with pytest.raises(errors.BrokerUnavailable):
        await ops.loop.turn()
    world.clock.advance(limits.FAILOVER_SECONDS)
    with pytest.raises(errors.LogRolledBack):
        await ops.loop.turn()


async def test_an_admin_that_raises_the_rules_stops_who_does_not_know_them_and_loses_it_nothing(world: World) -> None:
    ops, writer, reader = await trio(world)
    higher = await raised(world, ops)
    log = world.broker.group_log()
    await log.open("orders", create=False)
    await log.append(higher, None)
    cursor = writer.loop.member.cursor
    await writer.turn()
    assert isinstance(writer.group.halted, errors.UpgradeNeeded)
    assert isinstance(writer.closed, errors.UpgradeNeeded)
    assert writer.loop.member.cursor == cursor
    assert writer.view is not None
    assert writer.view.epochs
    again = await world.again(writer)
    await again.turn()
    assert isinstance(again.group.halted, errors.UpgradeNeeded)
    assert again.loop.member.cursor == cursor


async def raised(world: World, ops: Actor) -> bytes:
    from broker_crypto.delivery import committer

    member = ops.loop.member
    assert member.chain is not None
    assert member.mls is not None
    policy = replace(member.chain.policy, rules=2)
    staged = committer.commit(member.mls, ops.own, committer.Change(world.clock.now_ms(), policy), (), world.random)
    assert judge(member.chain, _entry(staged.record, staged.time), "orders").kind == "upgrade"
    return staged.record


def _entry(record: bytes, time: int) -> Any:
    from broker_crypto.records import LogEntry

    return LogEntry(99, time, record)
