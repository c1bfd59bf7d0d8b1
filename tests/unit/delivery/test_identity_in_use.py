"""A copy of a store or a key that runs: one of the two stops with IdentityInUse; a store that was put back just comes back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from broker_crypto import errors, limits
from broker_crypto.delivery import committer, plan, state
from broker_crypto.delivery.committer import Change
from broker_crypto.delivery.state import Intent
from broker_crypto.records import Halted, Joined, LockedOut
from broker_crypto.storage.memory import MemoryStore
from tests.support.world import Actor, World, same_epoch


@pytest.fixture(params=[True, False], ids=["compare_and_set", "blind"])
def world(request: pytest.FixtureRequest) -> World:
    return World(compare_and_set=request.param)


async def pair(world: World) -> tuple[Actor, Actor]:
    """Members that have followed at the head for over a minute."""
    ops, writer = world.actor("ops"), world.actor("writer-1")
    await world.settle(ops, writer)
    assert same_epoch(ops, writer)
    world.clock.advance(limits.LIVE_SECONDS + 1)
    await world.settle(ops, writer)
    return ops, writer


async def copied(actor: Actor) -> MemoryStore:
    """Its store, as somebody copied it."""
    copy = MemoryStore()
    async with actor.store.transaction() as old, copy.transaction() as new:
        for kind in (state.GROUP, state.CURSOR, state.EPOCH, state.STAGED, state.INTENT, state.RETENTION):
            for key, value in await old.scan(kind):
                await new.put(kind, key, value)
    return copy


async def ask(world: World, actor: Actor) -> Intent:
    intent = Intent(world.random(16), plan.ROTATE, 0)
    async with actor.store.transaction() as tx:
        await tx.put(state.INTENT, state.prefix("orders") + intent.id, intent.encode())
    actor.loop.poke(reload=True)
    return intent


def stopped(actor: Actor) -> bool:
    return isinstance(actor.group.halted, errors.IdentityInUse)


async def test_of_a_store_and_its_copy_the_one_that_reads_the_others_commit_stops(world: World) -> None:
    ops, writer = await pair(world)
    copy = await world.again(writer, store=await copied(writer))
    await copy.turn()
    await ask(world, copy)
    await copy.turn()
    await ops.turn()
    entries = len(world.broker.entries("orders"))
    await writer.turn()
    assert (stopped(writer), stopped(copy)) == (True, False)
    assert same_epoch(ops, copy)
    assert [e.code for e in writer.events if isinstance(e, Halted)] == ["identity_in_use"]
    assert not [e for e in writer.events if isinstance(e, LockedOut)]
    assert isinstance(writer.closed, errors.IdentityInUse)
    assert "do not restart" in str(writer.closed)
    assert writer.view is not None
    assert writer.view.sealing is None
    assert 1 in [view.epoch for view in writer.view.epochs.values()]
    with pytest.raises(errors.IdentityInUse):
        await writer.loop.catch_up()
    with pytest.raises(errors.IdentityInUse):
        await writer.group.rotate()
    position = writer.group.position
    for _ in range(20):
        await world.settle(ops, copy, writer)
        world.clock.advance(30)
    await ask(world, ops)
    await world.settle(ops, copy, writer)
    assert len(world.broker.entries("orders")) == entries + 1  # nobody answers anybody
    assert writer.group.position == position
    assert same_epoch(ops, copy)


async def test_of_two_that_commit_at_once_exactly_one_stops(world: World) -> None:
    ops, writer = await pair(world)
    copy = await world.again(writer, store=await copied(writer))
    await copy.turn()
    await ask(world, copy)
    await ask(world, writer)
    await asyncio.gather(copy.turn(), writer.turn())
    for _ in range(5):
        await world.settle(ops, copy, writer)
        world.clock.advance(20)
    assert [stopped(copy), stopped(writer)].count(True) == 1
    [alive] = [actor for actor in (copy, writer) if not stopped(actor)]
    assert same_epoch(ops, alive)
    [halted] = [actor for actor in (copy, writer) if stopped(actor)]
    assert not [i for i in halted.loop.memory.intents.values() if i.refused is None]


async def test_a_copy_of_long_ago_comes_back_with_an_external_commit_and_who_ran_on_stops(world: World) -> None:
    ops, writer = await pair(world)
    old = await copied(writer)
    await ask(world, writer)
    await world.settle(writer, ops)
    copy = await world.again(writer, store=old)
    for _ in range(5):
        await world.settle(copy, ops, writer)
        world.clock.advance(20)
    assert (stopped(writer), stopped(copy)) == (True, False)
    assert same_epoch(ops, copy)
    assert [m.identity for m in ops.group.members].count(writer.own.identity) == 1


async def test_a_store_that_was_put_back_is_no_copy(world: World) -> None:
    ops, writer = await pair(world)
    old = await copied(writer)
    await ask(world, writer)
    await world.settle(writer, ops)
    back = await world.again(writer, store=old)
    await world.settle(back, ops)
    assert not stopped(back)
    assert same_epoch(ops, back)
    assert any(isinstance(e, Joined) and e.again for e in back.events)


async def test_what_a_store_that_was_put_back_had_sent_may_land_for_a_minute(world: World) -> None:
    ops, writer = await pair(world)
    old = await copied(writer)
    await ask(world, ops)
    await world.settle(ops, writer)
    back = await world.again(writer, store=old)
    await back.turn()
    assert same_epoch(ops, back)
    group = writer.loop.member.mls  # the one whose store is gone had just sent this
    assert group is not None
    late = committer.commit(group, writer.own, Change(world.clock.now_ms()), (), world.random)
    log = world.broker.group_log()
    await log.open("orders", create=True)
    world.clock.advance(limits.LIVE_SECONDS - 1)
    await log.append(late.record, None)
    await world.settle(back, ops)
    assert not stopped(back)
    assert same_epoch(ops, back)
    assert back.group.epoch == ops.group.epoch


async def test_after_that_minute_and_for_one_at_the_head_at_once_it_is_somebody_else(world: World) -> None:
    ops, writer = await pair(world)
    fresh = await world.again(writer)  # nothing to read at its start
    await fresh.turn()
    group = fresh.loop.member.mls
    assert group is not None
    log = world.broker.group_log()
    await log.open("orders", create=True)
    await log.append(committer.commit(group, writer.own, Change(world.clock.now_ms()), (), world.random).record, None)
    await fresh.turn()
    await ops.turn()
    assert stopped(fresh)
    assert not stopped(ops)


async def test_a_thief_of_the_key_alone_stops_its_owner(world: World) -> None:
    ops, writer = await pair(world)
    thief = world.actor("writer-1", own=writer.own)
    await thief.turn()
    await world.settle(writer, ops)
    assert stopped(writer)
    assert same_epoch(ops, thief)


async def test_open_intents_end_refused_and_whoever_waits_is_told(world: World) -> None:
    ops, writer = await pair(world)
    copy = await world.again(writer, store=await copied(writer))
    await copy.turn()
    await ask(world, copy)
    await copy.turn()
    theirs = await ask(world, writer)  # of another process
    waiting = asyncio.ensure_future(writer.group.rotate())
    await asyncio.sleep(0)
    await writer.turn()
    with pytest.raises(errors.GroupError, match="identity_in_use"):
        await waiting
    async with writer.store.transaction() as tx:
        rows = [Intent.decode(value) for _, value in await tx.scan(state.INTENT, b"")]
    assert [(i.id, i.refused) for i in rows] == [(theirs.id, "identity_in_use")]


async def test_a_start_ends_the_halt_and_brings_it_back_as_a_restored_store(world: World) -> None:
    ops, writer = await pair(world)
    copy = await world.again(writer, store=await copied(writer))
    await copy.turn()
    await ask(world, copy)
    await copy.turn()
    await writer.turn()
    assert stopped(writer)
    again = await world.again(writer)
    assert again.state == "locked_out"
    world.clock.advance(1)
    await again.turn()
    await world.settle(ops, copy)
    assert same_epoch(ops, again)
    assert stopped(copy)
    untrusting = replace(world.policy, roles=(("agent://acme/other", "admin"), ("agent://acme/writer-*", "writer")))
    shy = world.actor("writer-1", own=copy.own, store=copy.store, policy=untrusting)
    await shy.loop.load()
    assert isinstance(shy.closed, errors.UntrustedFounding)
    assert shy.view is not None
    assert not shy.view.epochs


async def test_an_own_commit_that_ends_no_epoch_stops_nobody(world: World) -> None:
    ops, writer = await pair(world)
    group = writer.loop.member.mls
    assert group is not None
    stale = committer.commit(group, writer.own, Change(world.clock.now_ms()), (), world.random)
    await ask(world, ops)
    await world.settle(ops, writer)
    log = world.broker.group_log()
    await log.open("orders", create=True)
    await log.append(stale.record, None)
    await world.settle(ops, writer)
    assert not stopped(writer)
    assert same_epoch(ops, writer)
