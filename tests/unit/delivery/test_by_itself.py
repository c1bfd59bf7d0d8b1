"""What members do of themselves: take out who expired or stayed away, bring in a new certificate, answer a lock-out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import pytest

from broker_crypto import limits
from broker_crypto.delivery import plan
from broker_crypto.delivery.plan import Habits
from broker_crypto.records import TopicFacts
from broker_crypto.storage.memory import MemoryStore
from broker_crypto.storage.port import Transaction
from tests.support.world import Actor, World, same_epoch
from tests.unit.delivery.test_removal import done, last_commit, names, trio


@pytest.fixture(params=[True, False], ids=["compare_and_set", "blind"])
def world(request: pytest.FixtureRequest) -> World:
    world = World(compare_and_set=request.param)
    world.broker.describe("orders", TopicFacts("orders", "a stream", {-1: 7}, None, False))
    return world


async def test_an_expired_leaf_is_removed_by_whoever_notices_and_fences_nobody_without_an_admin(world: World) -> None:
    ops, writer, reader = await trio(world)
    world.clock.advance(400 * 86400)  # beyond the certificates that the world issues
    late = world.actor("writer-3")
    await world.settle(late)
    assert late.state == "member"
    for _ in range(3):
        world.clock.advance(limits.SPREAD_SECONDS)
        await world.settle(late)
    assert names(late) == ["writer-3"]
    assert last_commit(world).fences is None


async def test_a_leaf_without_a_path_for_max_offline_is_removed_and_comes_back_by_itself(world: World) -> None:
    world.policy = replace(world.policy, max_offline=20 * 86400)
    busy = Habits(rotation_interval=5 * 86400)
    ops, reader, writer = world.actor("ops", habits=busy), world.actor("reader-1", habits=busy), world.actor("writer-1")
    await world.settle(ops, writer, reader)
    for _ in range(4):  # ops and reader make their rotations, writer sleeps
        world.clock.advance(6 * 86400)
        await world.settle(ops, reader)
    world.clock.advance(limits.SPREAD_SECONDS)
    await world.settle(ops, reader)
    assert names(ops) == ["ops", "reader-1"]
    await world.settle(writer)
    world.clock.advance(11)
    await world.settle(writer, ops, reader)
    assert same_epoch(ops, writer, reader)


async def test_a_new_certificate_comes_in_by_a_path_with_a_new_key_too(world: World) -> None:
    ops, writer, reader = await trio(world)
    leaf = writer.group.leaf
    renewed = world.own("writer-1")
    writer.loop.renew(renewed)
    await world.settle(writer, ops, reader)
    assert same_epoch(ops, writer, reader)
    assert writer.group.leaf == leaf
    node = ops.loop.member.chain.public.tree.leaf(leaf)  # type: ignore[union-attr, arg-type]
    assert node is not None
    assert node.signature_key == renewed.signature_public
    assert names(ops) == ["ops", "writer-1", "reader-1"]
    entries = len(world.broker.entries("orders"))
    await world.settle(writer, ops, reader)
    assert len(world.broker.entries("orders")) == entries
    await done(world, writer.group.rotate(), writer, ops, reader)
    assert same_epoch(ops, writer, reader)


async def lock_out(world: World, signer: Actor, victim: int) -> None:
    from tests.support.lies.secret import wrong_commit

    group = signer.loop.member.mls
    assert group is not None
    log = world.broker.group_log()
    await log.open("orders", create=False)
    await log.append(wrong_commit(group, world.clock.now_ms(), "path_secret", world.random, victim=victim).record, None)


async def test_an_admin_whose_file_says_so_revokes_who_locks_it_out_and_bars_it_the_second_time(world: World) -> None:
    ops = world.actor("ops", habits=Habits(on_locked_out="remove"))
    writer = world.actor("writer-1")
    await world.settle(ops, writer)
    world.clock.advance(1)
    await lock_out(world, writer, victim=0)
    for _ in range(3):
        await world.settle(ops)
        world.clock.advance(11)
    assert names(ops) == ["ops"]
    assert [a.identity for a in ops.group.alarms] == [writer.own.identity]
    policy = ops.loop.member.chain.policy  # type: ignore[union-attr]
    assert (policy.barred, len(policy.revoked)) == ((), 1)
    twin = world.actor("writer-1")
    await world.settle(twin, ops)
    world.clock.advance(1)
    await lock_out(world, twin, victim=0)
    for _ in range(3):
        await world.settle(ops)
        world.clock.advance(11)
    policy = ops.loop.member.chain.policy  # type: ignore[union-attr]
    assert policy.barred == (writer.own.identity,)
    again = await world.again(ops)
    assert again.group.alarms == ops.group.alarms


async def test_without_that_word_an_admin_removes_nobody_by_itself(world: World) -> None:
    ops, writer, reader = await trio(world)
    world.clock.advance(1)
    await lock_out(world, writer, victim=0)
    for _ in range(3):
        await world.settle(ops, writer, reader)
        world.clock.advance(11)
    assert "writer-1" in names(ops)
    assert not ops.loop.memory.intents


async def test_a_locked_out_admin_with_a_removal_asked_for_sends_resync_and_removal_together(world: World) -> None:
    world.watchful = False  # the liar reads its own lies
    ops, writer, reader = await trio(world)
    for _ in range(2):  # with resyncs in force it would wait
        world.clock.advance(1)
        await lock_out(world, writer, victim=0)
        for _ in range(4):
            world.clock.advance(21)
            await world.settle(writer, ops, reader)
    assert same_epoch(ops, writer)
    assert plan.resync_wait(ops.loop.member, world.clock.now_ms()) < 0 or len(ops.loop.member.resyncs) == 2
    asked = asyncio.ensure_future(ops.group.remove(writer.own.identity))
    await asyncio.sleep(0)
    await lock_out(world, writer, victim=0)
    before = len(world.broker.entries("orders"))
    await ops.turn()
    await asyncio.wait_for(asked, 1)
    assert len(world.broker.entries("orders")) == before + 2
    assert "writer-1" not in names(ops)
    world.clock.advance(700)
    await world.settle(ops, reader)
    assert same_epoch(ops, reader)


class LateStore(MemoryStore):
    """The next transaction that is committed tells its caller only when it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.held: asyncio.Event | None = None

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        return self._late()

    @asynccontextmanager
    async def _late(self) -> AsyncIterator[Transaction]:
        held, self.held = self.held, None
        async with super().transaction() as tx:
            yield tx
        if held is not None:
            await held.wait()


@pytest.mark.parametrize("what", ["rotate", "leave"])
async def test_what_was_done_before_its_asker_went_on_is_done_once(world: World, what: str) -> None:
    store = LateStore()
    ops, writer = world.actor("ops"), world.actor("writer-1", store=store)
    await world.settle(ops, writer)
    released = store.held = asyncio.Event()
    asked = asyncio.ensure_future(writer.group.rotate() if what == "rotate" else writer.group.leave())
    await asyncio.sleep(0.01)
    writer.loop.poke(reload=True)
    await world.settle(writer, ops)
    assert writer.state == ("member" if what == "rotate" else "left")
    epoch = ops.epoch
    released.set()
    await asyncio.wait_for(asked, 1)
    world.clock.advance(3)
    await world.settle(writer, ops)
    assert not writer.loop.memory.intents
    assert ops.epoch == epoch
