"""One member signs a commit that others cannot enter: the epoch ends for everybody all the same, and everybody is together again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker_crypto.delivery import committer
from broker_crypto.delivery.plan import Habits
from broker_crypto.mls.group_info import GroupInfo
from broker_crypto.mls.leaf import EXTERNAL_PUB, Extension
from broker_crypto.records import LockedOut
from broker_crypto.wire import tls
from tests.support.lies.secret import wrong_commit
from tests.support.world import Actor, World, same_epoch


async def five(world: World) -> list[Actor]:
    late = Habits(jitter=0.5)
    names = ("ops", "writer-1", "reader-0", "reader-1", "reader-2")
    actors = [world.actor(name, habits=late) for name in names]
    await world.settle(*actors)
    assert same_epoch(*actors)
    return actors


async def strike(world: World, actor: Actor, lie: str, victim: int | None = None) -> None:
    group = actor.loop.member.mls
    assert group is not None
    staged = wrong_commit(group, world.clock.now_ms(), lie, world.random, victim=victim)
    actor.loop.memory.staged[staged.hash] = staged
    log = world.broker.group_log()
    await log.open("orders", create=False)
    await log.append(staged.record, None)


async def mended(world: World, actors: list[Actor]) -> None:
    for _ in range(200):
        await world.settle(*actors)
        if same_epoch(*actors) and not any(a.loop.member.mend for a in actors):
            return
        world.clock.advance(0.5)
    raise AssertionError([(a.name, a.state, a.epoch) for a in actors])


@pytest.mark.parametrize("lie", ["membership_tag", "confirmation_tag", "path_secret"])
async def test_a_commit_that_nobody_can_enter_ends_in_one_epoch_for_all(lie: str) -> None:
    world = World()
    actors = await five(world)
    await strike(world, actors[1], lie)
    await actors[0].turn()
    locked = [e for e in actors[0].events if isinstance(e, LockedOut)]
    reasons = {"path_secret": ("path_secret", "path_key")}.get(lie, (lie,))
    assert [e.suspect for e in locked] == ["agent://acme/writer-1"]
    assert locked[0].reason in reasons
    await mended(world, actors)
    assert actors[0].view is not None
    assert actors[0].view.missed == ((5, 5),)


async def test_a_bad_path_secret_for_one_member_locks_out_that_member_alone() -> None:
    world = World()
    actors = await five(world)
    await strike(world, actors[1], "path_secret", victim=4)
    for actor in actors[:4]:
        await actor.turn()
        assert actor.state == "member"
    await actors[4].turn()
    assert [type(e) for e in actors[4].events].count(LockedOut) == 1
    await mended(world, actors)


async def test_a_false_external_pub_is_mended_by_a_path_commit() -> None:
    world = World()
    actors = await five(world)
    await strike(world, actors[1], "external_pub")
    for actor in actors:
        await actor.turn()
    assert all(a.loop.member.mend for a in actors if a is not actors[1])
    await mended(world, actors)
    late = world.actor("reader-9")
    await mended(world, [*actors, late])


async def test_a_newcomer_that_meets_a_false_external_pub_is_in_one_epoch_with_everybody() -> None:
    world = World()
    actors = await five(world)
    await strike(world, actors[1], "external_pub")
    late = world.actor("reader-9")
    await late.turn()
    assert late.state == "member"
    await mended(world, [*actors, late])


async def test_who_signed_a_false_external_pub_is_named_not_who_was_misled_by_it() -> None:
    world = World()
    actors = await five(world)
    await strike(world, actors[1], "external_pub")
    late = world.actor("reader-9")
    await late.turn()
    await world.settle(*actors)
    told = [e for a in actors for e in a.events if isinstance(e, LockedOut)]
    assert len(told) == 5
    assert {(e.reason, e.suspect) for e in told} == {("confirmation_tag", "agent://acme/writer-1")}


async def test_a_joiner_whose_init_does_not_open_is_named_where_the_key_was_sound() -> None:
    world = World()
    actors = await five(world)
    late = world.actor("reader-9")
    chain = actors[0].loop.member.chain
    assert chain is not None
    _, other = chain.public.suite.derive_key_pair(b"\x05" * 32)
    false = Extension(EXTERNAL_PUB, tls.opaque(other))
    info = GroupInfo.decode(chain.info)
    await late.turn()  # reads, joins
    entries = world.broker.entries("orders")
    lied = replace(chain, info=replace(info, extensions=(false, info.extensions[1])).encode())
    commit = committer.join(lied, late.own, world.clock.now_ms(), world.random)
    world.broker.replace("orders", entries[-1].position, record=commit.record)
    for actor in actors:
        await actor.turn()
    told = [e for a in actors for e in a.events if isinstance(e, LockedOut)]
    assert {(e.reason, e.suspect) for e in told} == {("confirmation_tag", "agent://acme/reader-9")}
