"""A group that halted for its log starts over from the log that is there, when an operator says so; what was read stays readable."""

from __future__ import annotations

import pytest

from broker_crypto import errors
from broker_crypto.delivery import state
from broker_crypto.delivery.membership import Membership
from broker_crypto.delivery.resetting import chain_of, lost, reset
from broker_crypto.storage.memory import MemoryStore
from tests.support.world import Actor, World, same_epoch
from tests.unit.delivery.test_removal import done


@pytest.fixture(params=[True, False], ids=["compare_and_set", "blind"])
def world(request: pytest.FixtureRequest) -> World:
    world = World(compare_and_set=request.param)
    world.broker.describe("orders")
    return world


async def halted(world: World, actor: Actor) -> None:
    actor.loop.use(world.broker.group_log())
    with pytest.raises(errors.LogRolledBack) as caught:
        await actor.loop.turn()
    await actor.loop._halt(caught.value)


async def started_over(world: World, actor: Actor) -> tuple[Membership, Actor]:
    was = await reset(actor.store, "orders", world.clock.now_ms())
    return was, await world.again(actor)


async def test_after_a_reset_members_of_a_log_made_anew_are_together_again_and_old_epochs_stay_open(world: World) -> None:
    ops, writer = world.actor("ops"), world.actor("writer-1")
    await world.settle(ops, writer)
    old = set(writer.loop.memory.views)
    assert old
    world.broker.recreate("orders")
    await halted(world, writer)
    await halted(world, ops)
    again = await world.again(writer)
    assert isinstance(again.closed, errors.LogRolledBack)  # a restart alone changes nothing
    _, ops = await started_over(world, ops)
    was, writer = await started_over(world, writer)
    assert was.chain is not None
    await world.settle(ops, writer)
    assert same_epoch(ops, writer)
    assert old < set(writer.loop.memory.views)
    later = await world.again(writer)
    await later.turn()
    assert set(later.loop.memory.views) == set(writer.loop.memory.views)
    assert len({view.group_id for view in later.loop.memory.views.values()}) == 2


async def test_the_keys_of_epochs_before_a_reset_end_with_it(world: World) -> None:
    ops = world.actor("ops")
    await world.settle(ops)
    world.broker.recreate("orders")
    await halted(world, ops)
    now = world.clock.now_ms()
    await reset(ops.store, "orders", now)
    async with ops.store.transaction() as tx:
        epochs = [state.decode_epoch(value) for _, value in await tx.scan(state.EPOCH)]
    assert [(e.epoch, e.ended) for e in epochs] == [(0, now)]


async def test_it_says_whom_the_dropped_state_kept_out(world: World) -> None:
    ops, writer, reader = world.actor("ops"), world.actor("writer-1"), world.actor("reader-1")
    await world.settle(ops, writer, reader)
    before = world.broker.entries("orders")
    await done(world, ops.group.remove(writer.own.identity), ops, writer, reader)
    old = ops.loop.member.chain
    world.broker.come_up("orders", before)
    new = await chain_of(world.broker.group_log(), "orders")
    assert new is not None
    gone = lost(old, new)
    assert gone.barred == (writer.own.identity,)
    assert gone.back == (writer.own.identity,)
    assert lost(old, old) == lost(None, new)
    assert lost(old, None).barred == (writer.own.identity,)


async def test_the_chain_of_a_log_is_what_a_member_at_its_head_has(world: World) -> None:
    assert await chain_of_empty(world) is None
    ops, writer = world.actor("ops"), world.actor("writer-1")
    await world.settle(ops, writer)
    for _ in range(70):
        world.clock.advance(1)
        await done(world, ops.group.rotate(), ops, writer)
    chain = await chain_of(world.broker.group_log(), "orders")
    assert chain is not None
    assert chain.public.context == ops.loop.member.chain.public.context  # type: ignore[union-attr]


async def chain_of_empty(world: World) -> object:
    log = world.broker.group_log()
    await log.open("orders", create=True)
    return await chain_of(log, "orders")


async def test_a_group_of_which_nothing_is_kept_is_not_reset() -> None:
    with pytest.raises(errors.UsageError):
        await reset(MemoryStore(), "orders", 0)
