"""Agents that run at once over a broker that loses answers, lets appends land late, twice or never, while agents are stopped anywhere.

In the end everybody is in one epoch, every intent is done, and none was done twice.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from broker_crypto import errors
from broker_crypto.delivery import plan, state
from broker_crypto.delivery.rules import Chain, judge
from broker_crypto.delivery.state import Intent
from broker_crypto.testing import Chaos, FaultyStore, Moment, SeededRandom
from tests.support.world import Actor, World, same_epoch

NAMES = ("ops", "writer-1", "reader-1")


class Crowd:
    """Agents that run, each stopped and started anew by chance; a store that fails by chance."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.world = World(seed=seed, compare_and_set=bool(seed % 2))
        self.world.broker.chaos = Chaos(
            SeededRandom(seed), lose_ack=0.1, late=0.1, never=0.1, duplicate=0.1, refuse=0.1, late_calls=30, yields=2
        )
        self.failing = True
        self.actors: list[Actor] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.asked: dict[str, int] = dict.fromkeys(NAMES, 0)

    def start(self) -> None:
        for name in NAMES:
            inner = self.world.actor(name)
            self.actors.append(self.world.actor(name, own=inner.own, store=FaultyStore(inner.store, self.hook)))
            self.tasks.append(asyncio.ensure_future(self.actors[-1].loop.run()))

    def hook(self, call: int, name: str, moment: Moment) -> None:
        if self.failing and moment == "before" and self.draw.random() < 0.01:
            raise errors.StoreUnavailable("by chance")

    async def stop_and_start(self, at: int) -> None:
        """End it where it stands, as a kill would; start it on its store."""
        self.tasks[at].cancel()
        await asyncio.gather(self.tasks[at], return_exceptions=True)
        old = self.actors[at]
        self.actors[at] = self.world.actor(old.name, own=old.own, store=old.store)
        self.tasks[at] = asyncio.ensure_future(self.actors[at].loop.run())

    async def ask(self, at: int) -> None:
        actor = self.actors[at]
        intent = Intent(self.world.random(16), plan.ROTATE, 0)
        try:
            async with actor.store.transaction() as tx:
                await tx.put(state.INTENT, state.prefix("orders") + intent.id, intent.encode())
        except errors.StoreUnavailable:
            return
        self.asked[actor.name] += 1
        actor.loop.poke(reload=True)

    async def tick(self) -> None:
        self.world.clock.advance(0.1)
        for actor in self.actors:
            actor.loop.poke()
        await asyncio.sleep(0)
        for task in self.tasks:
            if task.done():
                task.result()

    async def live(self) -> None:
        self.start()
        try:
            for _ in range(300):
                await self.tick()
                chance = self.draw.random()
                if chance < 0.04:
                    await self.ask(self.draw.randrange(len(NAMES)))
                elif chance < 0.08:
                    await self.stop_and_start(self.draw.randrange(len(NAMES)))
            self.failing = False
            self.world.broker.chaos = None
            self.world.broker.land()
            for _ in range(2000):
                await self.tick()
                if same_epoch(*self.actors) and not any(a.loop.memory.intents or a.loop.memory.stale_intents for a in self.actors):
                    return
            raise AssertionError([(a.name, a.state, a.epoch, a.loop.trouble, len(a.loop.memory.intents)) for a in self.actors])
        finally:
            for actor in self.actors:
                await actor.loop.close()
            await asyncio.gather(*self.tasks)


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_broker_and_store_do_everybody_is_together_and_everything_asked_for_is_done_once(seed: int) -> None:
    crowd = Crowd(seed)
    await crowd.live()
    chain: Chain | None = None
    paths: dict[str, int] = dict.fromkeys((f"agent://acme/{name}" for name in NAMES), 0)
    for entry in crowd.world.broker.entries("orders"):
        verdict = judge(chain, entry, "orders")
        assert verdict.kind != "invalid", verdict.reason
        chain = verdict.chain
        if verdict.kind == "commit" and verdict.commit is not None and not verdict.commit.staged.external:
            assert verdict.sender is not None
            paths[verdict.sender] += 1
    assert chain is not None
    assert len(list(chain.public.tree.leaves())) == len(NAMES)
    for name in NAMES:
        asked, done = crowd.asked[name], paths[f"agent://acme/{name}"]
        assert done <= asked, name
        assert done > 0 or not asked, name
    for actor in crowd.actors:
        assert actor.loop.member.missed == ()
        assert not actor.loop.memory.staged
