"""A member whose clock is more than 30 min behind a commit that counts: it waits in front of it, and judges nothing otherwise."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from broker_crypto import errors, limits
from broker_crypto.delivery import plan
from broker_crypto.records import Halted
from broker_crypto.testing import FakeClock
from tests.support.world import Actor, World, same_epoch

HALF_AN_HOUR_S = limits.CLOCK_AHEAD_MS / 1000


async def behind(world: World) -> tuple[Actor, Actor, FakeClock]:
    """ops, and writer-1 with a clock of its own, which is right so far."""
    clock = FakeClock()
    ops, writer = world.actor("ops"), world.actor("writer-1", clock=clock)
    await world.settle(ops, writer)
    assert same_epoch(ops, writer)
    return ops, writer, clock


async def rotate(world: World, actor: Actor) -> None:
    want = asyncio.ensure_future(actor.group.rotate())
    await asyncio.sleep(0)
    await world.settle(actor)
    await want


async def test_half_an_hour_is_not_too_much(world: World) -> None:
    ops, writer, _ = await behind(world)
    world.clock.advance(HALF_AN_HOUR_S)
    await rotate(world, ops)
    await writer.turn()
    assert same_epoch(ops, writer)


async def test_a_commit_too_far_ahead_is_not_taken_until_the_clock_is_right(world: World) -> None:
    ops, writer, clock = await behind(world)
    await rotate(world, ops)  # this one it takes in the same turn
    world.clock.advance(HALF_AN_HOUR_S + 1)
    await rotate(world, ops)
    await rotate(world, ops)
    verdicts = len(writer.verdicts)
    assert await writer.turn() == limits.CLOCK_AHEAD_LOOK_SECONDS
    assert writer.verdicts[verdicts:] == ["commit"]
    entries = world.broker.entries("orders")
    assert writer.group.position == entries[-3].position
    assert writer.group.lag == 2
    assert writer.state == "halted"
    assert isinstance(writer.group.halted, errors.LogClockAhead)
    assert isinstance(writer.closed, errors.LogClockAhead)
    assert writer.view is not None
    assert writer.view.sealing is None
    assert writer.view.epochs
    with pytest.raises(errors.LogClockAhead):
        await writer.loop.catch_up()
    assert await writer.turn() == limits.CLOCK_AHEAD_LOOK_SECONDS
    again = world.actor("writer-1", own=writer.own, store=writer.store, clock=clock)
    await again.loop.load()
    assert again.state == "halted"
    await again.turn()
    assert again.group.position == entries[-3].position
    assert [e.code for e in (*writer.events, *again.events) if isinstance(e, Halted)] == ["log_clock_ahead"]
    clock.advance(1)
    await again.turn()
    assert same_epoch(ops, again)
    assert again.closed is None
    assert again.group.position == entries[-1].position


async def test_what_counts_for_others_counts_for_it_and_what_does_not_halts_nobody(world: World) -> None:
    ops, writer, clock = await behind(world)
    world.clock.advance(HALF_AN_HOUR_S + 1)
    chain = ops.loop.member.chain
    log = world.broker.group_log()
    await log.open("orders", create=True)
    world.broker.skew_ms = 3600_000
    (staged,) = await ops.loop.writer.stage(plan.Due(plan.COMMIT))
    await log.append(staged.record, None)  # its time is an hour from the broker's: it counts for nobody
    await writer.turn()
    assert writer.state == "member"
    assert writer.loop.member.chain is not None
    assert chain is not None
    assert writer.loop.member.chain.epoch == chain.epoch
    assert writer.verdicts[-1] == "invalid"


async def test_an_own_commit_of_before_the_clock_was_set_back_waits_too(world: World) -> None:
    ops, writer, clock = await behind(world)
    world.clock.advance(60)
    clock.advance(60)
    (staged,) = await writer.loop.writer.stage(plan.Due(plan.COMMIT))
    log = world.broker.group_log()
    await log.open("orders", create=True)
    await log.append(staged.record, None)
    clock.shift(-limits.CLOCK_AHEAD_MS - 1)
    await writer.turn()
    assert writer.state == "halted"
    assert len(world.broker.entries("orders")) == 3
    clock.shift(limits.CLOCK_AHEAD_MS)
    await writer.turn()
    await ops.turn()
    assert same_epoch(ops, writer)
    assert len(world.broker.entries("orders")) == 3


async def test_a_newcomer_waits_in_front_of_the_founding_and_asks_for_nothing(world: World) -> None:
    ops = world.actor("ops")
    await world.settle(ops)
    clock = FakeClock()
    clock.shift(-limits.CLOCK_AHEAD_MS - 1)
    newcomer = world.actor("writer-1", clock=clock)
    await newcomer.turn()
    assert newcomer.state == "halted"
    assert newcomer.group.epoch == -1
    clock.shift(limits.CLOCK_AHEAD_MS + 1)
    await world.settle(newcomer, ops)
    assert same_epoch(ops, newcomer)


async def test_a_founder_that_is_not_trusted_stays_so_whatever_the_clock_does(world: World) -> None:
    ops = world.actor("ops")
    await world.settle(ops)
    clock = FakeClock()
    other = replace(world.policy, roles=(("agent://acme/other", "admin"), ("agent://acme/writer-*", "writer")))
    stranger = world.actor("writer-1", policy=other, clock=clock)
    await stranger.turn()
    assert isinstance(stranger.closed, errors.UntrustedFounding)
    world.clock.advance(HALF_AN_HOUR_S + 1)
    await rotate(world, ops)
    await stranger.turn()
    assert isinstance(stranger.closed, errors.UntrustedFounding)
    clock.advance(60)
    await stranger.turn()
    assert isinstance(stranger.closed, errors.UntrustedFounding)
    assert stranger.group.epoch == ops.epoch


@pytest.fixture
def world() -> World:
    return World()
