"""A small world for the group log: one CA, agents on memory stores, a broker in memory, time that only tests move."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from broker_crypto.delivery.committer import Own
from broker_crypto.delivery.group_policy import GroupPolicy
from broker_crypto.delivery.handle import Group
from broker_crypto.delivery.loop import GroupLoop
from broker_crypto.delivery.plan import Habits
from broker_crypto.delivery.services import Services
from broker_crypto.delivery.trust import LocalPolicy
from broker_crypto.errors import BrokerUnavailable, GroupError
from broker_crypto.identity import ca, identity, keys
from broker_crypto.records import Anchor, Event, GroupView
from broker_crypto.storage.memory import MemoryStore
from broker_crypto.storage.port import StateStore
from broker_crypto.testing import EPOCH_MS, FakeClock, MemoryBroker, SeededRandom

ROLES = (("agent://acme/ops", "admin"), ("agent://acme/writer-*", "writer"), ("agent://acme/reader-*", "reader"))


@dataclass
class Actor:
    """One agent: its loop, what it reported and published."""

    name: str
    own: Own
    store: StateStore
    loop: GroupLoop
    events: list[Event] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)
    joins: list[tuple[str, float]] = field(default_factory=list)
    view: GroupView | None = None
    closed: GroupError | None = None

    @property
    def group(self) -> Group:
        return Group(self.loop)

    @property
    def epoch(self) -> int:
        return self.group.epoch

    @property
    def state(self) -> str:
        return self.loop.member.state

    async def turn(self) -> float:
        """One turn; a broker that is out of reach is met again at the next."""
        try:
            return await self.loop.turn()
        except BrokerUnavailable:
            return 0.1


class World:
    def __init__(self, *, group: str = "orders", compare_and_set: bool = True, seed: int = 1) -> None:
        self.group_name = group
        self.clock = FakeClock()
        self.broker = MemoryBroker(self.clock, compare_and_set=compare_and_set)
        self.random = SeededRandom(seed)
        self.authority = ca.found("test CA", keys.generate(), now_ms=EPOCH_MS)
        self.policy = self.terms()
        self.watchful = True  # False: nobody ever counts as live, so that one may read lies of its own key without stopping

    def terms(self, *, roles: tuple[tuple[str, str], ...] = ROLES, topics: tuple[str, ...] = ("orders",)) -> GroupPolicy:
        return GroupPolicy(
            rules=1,
            group=self.group_name,
            topics=topics,
            time=0,
            anchors=(Anchor(self.authority.certificate, ("agent://acme/",)),),
            roles=roles,
            barred=(),
            revoked=(),
            key_retention=7 * 86400,
            max_offline=90 * 86400,
        )

    def own(self, name: str, *, scheme: str = "ed25519") -> Own:
        key = keys.generate(scheme)
        certificate = ca.issue(self.authority, f"agent://acme/{name}", key.public_key(), now_ms=self.clock.now_ms())
        who = identity.of((certificate,), key)
        return Own(who.uri, who.chain, who.signature_private, who.signature_public)

    def actor(
        self,
        name: str,
        *,
        own: Own | None = None,
        store: StateStore | None = None,
        policy: GroupPolicy | None = None,
        suite: int = 1,
        habits: Habits | None = None,
        clock: FakeClock | None = None,
    ) -> Actor:
        actor: Actor

        def publish(view: GroupView, closed: GroupError | None) -> None:
            actor.view, actor.closed = view, closed

        store = store or MemoryStore()
        own = own or self.own(name)
        events: list[Event] = []
        verdicts: list[str] = []
        joins: list[tuple[str, float]] = []
        services = Services(
            store,
            clock or self.clock,
            self.random,
            events.append,
            publish,
            verdicts.append,
            lambda outcome, seconds: joins.append((outcome, seconds)),
            describe=self.broker.topics().describe,
        )
        local = LocalPolicy(suite, policy or self.policy)
        loop = GroupLoop(self.group_name, own, local, services, habits or Habits())
        if not self.watchful:
            loop._live_from = math.inf
        actor = Actor(name, own, store, loop, events, verdicts, joins)
        loop.use(self.broker.group_log())
        return actor

    async def again(self, actor: Actor, *, store: StateStore | None = None) -> Actor:
        """The same agent started anew, on its own store or another one."""
        born = self.actor(actor.name, own=actor.own, store=store or actor.store, suite=actor.loop.local.suite)
        await born.loop.load()
        return born

    async def settle(self, *actors: Actor, rounds: int = 8) -> None:
        """Let everybody take turns until nothing moves any more."""
        for _ in range(rounds):
            before = [(a.loop.member.cursor, a.state) for a in actors]
            for actor in actors:
                await actor.turn()
            if before == [(a.loop.member.cursor, a.state) for a in actors]:
                return

    async def running(self, *actors: Actor, until: Callable[[], bool], ticks: int = 400) -> None:
        """Run everybody's loop at once until a condition holds; time passes 0.1 s a tick."""
        tasks = [asyncio.ensure_future(a.loop.run()) for a in actors]
        try:
            for _ in range(ticks):
                if until():
                    return
                for task in tasks:
                    if task.done():
                        task.result()
                self.clock.advance(0.1)
                for a in actors:
                    a.loop.poke()
                await asyncio.sleep(0.002)
            raise AssertionError("it did not come to pass")
        finally:
            for a in actors:
                await a.loop.close()
            await asyncio.gather(*tasks)


def same_epoch(*actors: Actor) -> bool:
    """Everybody is a member of one epoch with one authenticator."""
    return all(a.state == "member" for a in actors) and len({(a.epoch, a.group.authenticator) for a in actors}) == 1
