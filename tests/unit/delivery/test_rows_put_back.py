"""Somebody who can write the store's file, and has no key, puts old rows back, or the whole file: told by name, or followed again.

Old rows open as well as they ever did. What shows them is the group's log.
"""

from __future__ import annotations

import pytest

from broker_crypto import errors
from broker_crypto.delivery import plan, state
from broker_crypto.delivery.state import Intent
from broker_crypto.records import LockedOut
from broker_crypto.storage.memory import MemoryStore
from tests.support.world import Actor, World, same_epoch

KINDS = (state.GROUP, state.CURSOR, state.EPOCH, state.STAGED, state.INTENT, state.FENCE, state.RETENTION)
Content = dict[tuple[str, bytes], bytes]


async def content(store: MemoryStore) -> Content:
    async with store.transaction() as tx:
        return {(kind, key): value for kind in KINDS for key, value in await tx.scan(kind)}


async def put_back(store: MemoryStore, old: Content, *kinds: str) -> None:
    """The rows of these kinds as they were, and no others of them."""
    now = await content(store)
    async with store.transaction() as tx:
        for kind, key in now:
            if kind in kinds:
                await tx.delete(kind, key)
        for (kind, key), value in old.items():
            if kind in kinds:
                await tx.put(kind, key, value)


async def rotated(world: World, actor: Actor, *others: Actor) -> None:
    intent = Intent(world.random(16), plan.ROTATE, 0)
    async with actor.store.transaction() as tx:
        await tx.put(state.INTENT, state.prefix("orders") + intent.id, intent.encode())
    actor.loop.poke(reload=True)
    await world.settle(actor, *others)
    assert same_epoch(actor, *others)


async def restored(*kinds: str) -> tuple[World, Actor, Actor]:
    """A member that has rotated since, as has another; started again on rows of which these are as they were before."""
    world, store = World(), MemoryStore()
    ops, writer = world.actor("ops"), world.actor("writer-1", store=store)
    await world.settle(ops, writer)
    old = await content(store)
    await rotated(world, writer, ops)
    await rotated(world, ops, writer)
    await put_back(store, old, *kinds)
    return world, ops, await world.again(writer)


@pytest.mark.parametrize("kinds", [(state.GROUP,), (state.CURSOR,), (state.GROUP, state.EPOCH)], ids=str)
async def test_a_state_and_a_cursor_of_different_epochs_are_corruption_and_nothing_is_sealed_by_them(kinds: tuple[str, ...]) -> None:
    _, ops, again = await restored(*kinds)
    epoch = ops.epoch
    for _ in range(3):
        with pytest.raises(errors.StateCorrupt) as raised:
            await again.loop.turn()
        assert (raised.value.fields["kind"], raised.value.fields["key"]) == ("group", b"orders\x00")
        assert isinstance(again.loop.closed_by(), errors.GroupNotReady), "it has not read its log to the head"
    await ops.turn()
    assert ops.epoch == epoch


async def test_a_state_that_was_taken_away_beside_its_cursor_founds_and_joins_nothing() -> None:
    world, ops, again = await restored()
    async with again.store.transaction() as tx:
        await tx.delete(state.GROUP, state.prefix("orders"))
    again = await world.again(again)
    with pytest.raises(errors.StateCorrupt):
        await again.loop.turn()
    entries = len(world.broker.entries("orders"))
    await ops.turn()
    assert len(world.broker.entries("orders")) == entries


@pytest.mark.parametrize("kinds", [KINDS, (state.GROUP, state.CURSOR), (state.GROUP, state.CURSOR, state.EPOCH)], ids=str)
async def test_an_old_state_with_its_cursor_follows_the_log_again_and_comes_back_as_the_same_member(kinds: tuple[str, ...]) -> None:
    world, ops, again = await restored(*kinds)
    for _ in range(4):
        await world.settle(again, ops)
        world.clock.advance(11)
    assert same_epoch(again, ops)
    assert [m.identity for m in ops.group.members].count(again.own.identity) == 1
    assert len([e for e in again.events if isinstance(e, LockedOut)]) == 1, "of its own commit, whose state is gone"
    assert not [e for e in ops.events if isinstance(e, LockedOut)]


@pytest.mark.parametrize("kinds", [(state.EPOCH,), (state.RETENTION,), (state.STAGED,)], ids=str)
async def test_other_old_rows_change_nothing_about_who_is_in_which_epoch(kinds: tuple[str, ...]) -> None:
    world, ops, again = await restored(*kinds)
    await world.settle(again, ops)
    assert same_epoch(again, ops)
    await rotated(world, again, ops)
    await rotated(world, ops, again)
