"""`group_oldest_epoch_timestamp_seconds` says how far back a thief of the state folder and its key can read, before there is one."""

from __future__ import annotations

from broker_crypto import upkeep
from broker_crypto.channels.topic import TopicChannel, TopicSettings
from broker_crypto.delivery import plan, state
from broker_crypto.delivery.state import Intent
from broker_crypto.observe import MemoryMetrics
from tests.support.topic_world import opened, refused, sealed
from tests.support.world import Actor, World, same_epoch

KEPT = 7 * 86400  # s, what the world's policy says


def horizon(actor: Actor) -> float:
    metrics = MemoryMetrics()
    upkeep.show_group(metrics, "orders", actor.loop)
    return metrics.value("group_oldest_epoch_timestamp_seconds", group="orders")


def channel(world: World, actor: Actor) -> TopicChannel:
    made = TopicChannel(TopicSettings(topic="orders"), world.random)
    assert actor.view is not None
    made.view = actor.view
    return made


async def test_the_figure_is_the_time_of_the_oldest_record_that_the_stored_keys_open_also_before_anything_is_stolen() -> None:
    world = World()
    ops, writer = world.actor("ops"), world.actor("writer-1")
    await world.settle(ops, writer)
    records: list[tuple[float, bytes]] = []
    for _ in range(4):
        records.append((world.clock.now_ms() / 1000, sealed(channel(world, ops), b"x")[0]))
        world.clock.advance(86400)
        async with ops.store.transaction() as tx:
            intent = Intent(world.random(16), plan.ROTATE, 0)
            await tx.put(state.INTENT, state.prefix("orders") + intent.id, intent.encode())
        ops.loop.poke(reload=True)
        await world.settle(ops, writer)
        assert same_epoch(ops, writer)
    seen = []
    for _ in range(7):
        await writer.turn()
        said = horizon(writer)
        thief = channel(world, await world.again(writer))  # who has the rows has what is read from them
        for at, record in records:
            if at >= said:
                assert opened(thief, record).payload == b"x"
            else:
                assert refused(thief, record).code == "key_expired"
        seen.append(sum(at >= said for at, _ in records))
        world.clock.advance(KEPT / 4)
    assert seen[0] == 4
    assert seen[-1] == 0
    assert seen == sorted(seen, reverse=True)
