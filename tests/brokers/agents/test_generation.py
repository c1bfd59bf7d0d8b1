"""A group founded anew beside its old log by `generation`: what was held stays readable, a squatter is left behind."""

from __future__ import annotations

from typing import Any

from nats.aio.client import Client

from broker_crypto import errors, limits
from broker_crypto.delivery import state
from broker_crypto.storage.memory import MemoryStore
from tests.support.agents import Cast, Realm, number_of, take, together, until
from tests.support.world import World


def second(mapping: dict[str, Any]) -> None:
    for group in mapping["groups"].values():
        group["generation"] = 1


async def test_members_read_both_generations_and_seal_in_the_newer_after_a_restart_too(realm: Realm, raw: Client, cast: Cast) -> None:
    await realm.stream(raw)
    async with realm.agent("ops") as ops, realm.agent("reader-1") as reader:
        await ops.ready()
        await reader.ready()
        await together(ops, reader)
        await ops.publish(1)
    policy = realm.policy(second)
    async with realm.agent("ops", policy) as ops, realm.agent("reader-1", policy) as reader:
        await ops.ready()
        await reader.ready()
        group = f"{realm.topic}.g1"
        await until(lambda: ops.agent.groups[group].epoch == reader.agent.groups[group].epoch)
        assert list(ops.agent.groups) == [group]
        await ops.publish(2)
        messages = await take(await reader.reader("r"), 2)
        assert [number_of(m.data) for m in messages] == [1, 2]
        assert {m.security.sender for m in messages} == {"agent://acme/ops"}
    again = await cast("reader-1", policy)
    messages = await take(await again.reader("s"), 2)
    assert [number_of(m.data) for m in messages] == [1, 2]


async def test_a_squatted_name_is_left_behind_by_a_generation(realm: Realm, raw: Client, cast: Cast) -> None:
    await realm.stream(raw)
    other = Realm(realm.folder / "squatter", realm.url, root=realm.root)  # another CA
    async with other.agent("ops") as squatter:
        await squatter.ready()
        ops = await cast("ops", ready=False)
        await until(lambda: isinstance(ops.group.halted, errors.UntrustedFounding))
    await ops.nc.close()
    await ops.agent.close()
    anew = await cast("ops", realm.policy(second))
    await anew.publish(1)
    (message,) = await take(await anew.reader("r"), 1)
    assert number_of(message.data) == 1


async def test_the_keys_of_a_generation_that_is_over_end_when_the_next_is_used_and_are_erased_in_their_time() -> None:
    world = World()
    ops = world.actor("ops")
    await world.settle(ops)
    later = world.actor("ops", own=ops.own, store=ops.store)
    later.loop.former = True
    later.loop.use(None)
    began = world.clock.now_ms()
    await later.loop.load()
    await later.turn()
    assert [e.ended for e in later.loop.memory.epochs.values()] == [began]
    assert later.view is not None
    assert later.view.epochs
    world.clock.advance(world.policy.key_retention + limits.RETENTION_HOLD_MS / 1000)
    await later.turn()
    assert isinstance(ops.store, MemoryStore)
    async with ops.store.transaction() as tx:
        rows = [state.decode_epoch(value) for _, value in await tx.scan(state.EPOCH)]
    assert [row.stream_secret for row in rows] == [None]
    assert not later.view.epochs
