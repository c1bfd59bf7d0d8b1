"""An agent that dies before or after any call of its store or its log, while it founds, joins, rotates and receives.

Started again on what the store holds, it is in one epoch with everybody, with one leaf, nothing staged and nothing asked twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from broker_crypto.delivery import plan, state
from broker_crypto.delivery.ports import GroupLog
from broker_crypto.delivery.state import Intent
from broker_crypto.records import EpochChanged, LockedOut, LogEntry
from broker_crypto.storage.memory import MemoryStore
from broker_crypto.testing import Crashed, FaultyStore, Moment, crash_at
from tests.support.world import Actor, World, same_epoch


class CrashingLog:
    """A group log whose calls count with those of the store."""

    def __init__(self, store: FaultyStore, log: GroupLog) -> None:
        self._store, self._log = store, log

    async def open(self, group: str, create: bool) -> str:
        return await self._store.through("open", lambda: self._log.open(group, create))

    async def head(self) -> int:
        return await self._store.through("head", self._log.head)

    async def read(self, position: int, limit: int) -> list[LogEntry]:
        return await self._store.through("read", lambda: self._log.read(position, limit))

    async def append(self, record: bytes, expected: int | None) -> int | None:
        return await self._store.through("append", lambda: self._log.append(record, expected))

    async def changed(self) -> None:
        await self._log.changed()

    async def close(self) -> None:
        await self._log.close()


Life = Callable[[World, Actor, Actor], Awaitable[None]]


async def ask(actor: Actor, number: int) -> None:
    intent = Intent(bytes(15) + bytes((number,)), plan.ROTATE, 0)
    async with actor.store.transaction() as tx:
        await tx.put(state.INTENT, state.prefix("orders") + intent.id, intent.encode())
    actor.loop.poke(reload=True)


async def found(world: World, actor: Actor, other: Actor) -> None:
    """Found the group, be joined, receive."""
    await actor.loop.load()
    await actor.turn()
    await other.turn()
    await actor.turn()


async def join_and_rotate(world: World, actor: Actor, other: Actor) -> None:
    """Join a group of another, rotate, and receive a rotation of the other."""
    await actor.loop.load()
    await actor.turn()
    await ask(actor, 1)
    await actor.turn()
    await ask(other, 2)
    await other.turn()
    await actor.turn()


@pytest.mark.parametrize("life", [found, join_and_rotate])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("compare_and_set", [True, False])
async def test_a_crash_at_any_call_loses_nothing_and_does_nothing_twice(life: Life, moment: Moment, compare_and_set: bool) -> None:
    point = 0
    while True:
        point += 1
        world = World(compare_and_set=compare_and_set)
        other = world.actor("writer-1" if life is found else "ops")
        if life is not found:
            await world.settle(other)
        inner = MemoryStore()
        faulty = FaultyStore(inner, crash_at(point, moment))
        victim = world.actor("ops" if life is found else "writer-1", store=faulty)
        victim.loop.use(CrashingLog(faulty, world.broker.group_log()))
        try:
            await life(world, victim, other)
        except Crashed:
            pass
        else:
            assert point > 30
            break
        again = await world.again(victim, store=inner)
        for _ in range(5):
            await world.settle(again, other)
            world.clock.advance(3)
        where = f"{moment} call {point}, {faulty.calls[-1]}"
        assert same_epoch(again, other), where
        assert [m.identity for m in other.group.members].count(victim.own.identity) == 1, where
        assert not again.loop.memory.staged, where
        assert not again.loop.memory.intents, where
        assert not [e for e in (*other.events, *again.events, *victim.events) if isinstance(e, LockedOut)], where
        own = [e for e in other.events if isinstance(e, EpochChanged) and e.committer == victim.own.identity]
        assert len(own) <= 2, where
