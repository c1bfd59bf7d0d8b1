"""Nobody outruns its own removal: not one who answers every commit at once, not several keys, not under a flood of junk.

The insiders here sit beside the broker: they see each commit of others before it lands, and theirs lands first.
"""

from __future__ import annotations

import asyncio

import pytest

from broker_crypto import limits
from broker_crypto.delivery.plan import Habits
from broker_crypto.delivery.rules import judge
from tests.support.lies.outrunner import Beside, Insider, Outrunners, WatchedBroker
from tests.support.world import Actor, World, same_epoch

ATTACKER = "agent://acme/writer-1"


def watched(*, compare_and_set: bool = True) -> World:
    world = World(compare_and_set=compare_and_set)
    world.broker = WatchedBroker(world.clock, compare_and_set=compare_and_set)
    return world


async def stage(world: World, keys: int = 1, **how: object) -> tuple[list[Actor], Outrunners]:
    """An admin and a reader with running loops, and insiders of one identity with so many keys."""
    honest = [world.actor("ops", habits=Habits(jitter=0.5)), world.actor("reader-1", habits=Habits(jitter=0.5))]
    bad = [world.actor("writer-1") for _ in range(keys)]
    await world.settle(*honest, *bad)
    assert same_epoch(*honest, *bad)
    world.clock.advance(limits.RATE_WINDOW_MS / 1000 + 1)  # their joins are behind them
    assert isinstance(world.broker, WatchedBroker)
    insiders = [Insider(a.own, a.loop.member) for a in bad]
    return honest, Outrunners(world.clock, world.random, insiders, **how)  # type: ignore[arg-type]


def identities(actor: Actor) -> set[str]:
    return {member.identity for member in actor.group.members}


async def removed(world: World, honest: list[Actor], *, ticks: int = 1200) -> float:
    """The admin asks for the removal; the seconds until the log shows it."""
    ops, *others = honest
    began, asked = world.clock.monotonic(), asyncio.ensure_future(ops.group.remove(ATTACKER))
    await asyncio.sleep(0)
    await world.running(ops, *others, until=asked.done, ticks=ticks)
    await asked
    return world.clock.monotonic() - began


async def together(world: World, *actors: Actor) -> None:
    """Everybody, on connections made anew, comes to be in one epoch."""
    for actor in actors:
        actor.loop.use(world.broker.group_log())
    for _ in range(200):
        await world.settle(*actors)
        if same_epoch(*actors) and not any(a.loop.member.mend for a in actors):
            return
        world.clock.advance(5)
    raise AssertionError([(a.name, a.state, a.epoch) for a in actors])


def judged_anew(world: World) -> list[str]:
    """What one who reads the whole log makes of each record."""
    chain, kinds = None, []
    for entry in world.broker.entries("orders"):
        verdict = judge(chain, entry, "orders")
        chain = verdict.chain
        kinds.append(verdict.kind)
    return kinds


@pytest.mark.parametrize("compare_and_set", [True, False], ids=["expected", "blind"])
@pytest.mark.parametrize("keys", [1, 4, 6])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_who_answers_every_commit_at_once_with_its_own_is_removed_all_the_same(keys: int, when: str, compare_and_set: bool) -> None:
    world = watched(compare_and_set=compare_and_set)
    honest, outrunners = await stage(world, keys)
    assert isinstance(world.broker, WatchedBroker)
    setattr(world.broker, when, Beside(world.broker, outrunners).answer)
    rotated = asyncio.ensure_future(honest[1].group.rotate())
    taken = await removed(world, honest)
    assert ATTACKER not in identities(honest[0])
    if when == "before":
        assert outrunners.counted == min(limits.RATE_KEY * keys, limits.RATE_IDENTITY)
        assert outrunners.refused >= 1
    assert taken < 20
    rotated.cancel()
    world.broker.before = world.broker.after = None
    await together(world, *honest)


@pytest.mark.parametrize("keys", [1, 4])
async def test_signing_ahead_of_the_clock_buys_a_minute_of_commits_and_no_more(keys: int) -> None:
    world = watched()
    honest, outrunners = await stage(world, keys, ahead_ms=50_000)
    assert isinstance(world.broker, WatchedBroker)
    world.broker.before = Beside(world.broker, outrunners).answer
    await removed(world, honest)
    assert ATTACKER not in identities(honest[0])
    assert outrunners.counted > (limits.RATE_KEY if keys == 1 else limits.RATE_IDENTITY)
    world.broker.before = None
    await together(world, *honest)


@pytest.mark.parametrize("compare_and_set", [True, False], ids=["expected", "blind"])
@pytest.mark.parametrize("lie", ["path_secret", "confirmation_tag", "membership_tag", "external_pub"])
async def test_who_locks_the_admin_out_with_every_commit_is_removed_all_the_same(lie: str, compare_and_set: bool) -> None:
    world = watched(compare_and_set=compare_and_set)
    honest, outrunners = await stage(world, what=lie)
    assert isinstance(world.broker, WatchedBroker)
    world.broker.before = Beside(world.broker, outrunners).answer
    taken = await removed(world, honest)
    assert ATTACKER not in identities(honest[0])
    assert outrunners.counted >= limits.RATE_KEY
    assert taken < 60
    world.broker.before = None
    await together(world, *honest)


async def test_a_flood_of_junk_before_every_record_holds_nobody_up() -> None:
    world = watched()
    honest, outrunners = await stage(world, junk=20)
    assert isinstance(world.broker, WatchedBroker)
    world.broker.before = Beside(world.broker, outrunners).answer
    taken = await removed(world, honest)
    assert ATTACKER not in identities(honest[0])
    assert taken < 20
    kinds = judged_anew(world)
    assert kinds.count("passed") >= 20 * limits.RATE_KEY
    late = world.actor("reader-9")
    world.broker.before = Beside(world.broker, outrunners).answer  # the removed one goes on: what it writes is nothing
    await together(world, *honest, late)
    assert ATTACKER not in identities(late)


async def test_who_was_removed_while_it_outran_others_does_not_come_back_by_itself() -> None:
    world = watched()
    honest, outrunners = await stage(world, what="")
    assert isinstance(world.broker, WatchedBroker)
    world.broker.before = Beside(world.broker, outrunners).answer
    await removed(world, honest)
    world.broker.before = None
    insider = outrunners.insiders[0]
    back = world.actor("writer-1", own=insider.own)
    fresh = world.actor("writer-1")
    await together(world, *honest)
    await world.settle(*honest, back, fresh)
    assert [a.state for a in (back, fresh)] == ["joining", "joining"]
    assert same_epoch(*honest)
    assert ATTACKER not in identities(honest[1])
