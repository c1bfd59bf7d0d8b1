"""A member that is there while another one dies: its loop on the real group log, its rows in memory, each of its turns a test's."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from nats.aio.client import Client

from broker_crypto import identity, parts, policy
from broker_crypto.channels.topic import TopicChannel
from broker_crypto.delivery import plan, state
from broker_crypto.delivery.deltas import Delta
from broker_crypto.delivery.handle import Group
from broker_crypto.delivery.loop import GroupLoop
from broker_crypto.delivery.plan import Habits
from broker_crypto.delivery.services import Services
from broker_crypto.errors import BrokerCryptoError, RecordRefused
from broker_crypto.records import Event, GroupView, Opened, Place
from broker_crypto.storage.memory import MemoryStore
from broker_crypto_nats.grouplog import NatsGroupLog
from broker_crypto_nats.topics import NatsTopics
from tests.support.lies.secret import wrong_commit


class Bystander:
    def __init__(self, file: Path, who: str, topic: str, nc: Client) -> None:
        loaded = policy.load(file, identity=who)
        me, _ = loaded.require_agent()
        assert me.certificate is not None
        assert me.private_key is not None
        self.identity, self.topic, self.nc = who, topic, nc
        self.sent = 0
        self.events: list[Event] = []
        self.store = MemoryStore()
        self.log = NatsGroupLog(nc)
        self.channel = TopicChannel(parts.settings_of(loaded.route(topic)), secrets.token_bytes)
        own = parts.own(identity.load(me.certificate, me.private_key, loaded.anchors))
        self.loop = GroupLoop(topic, own, parts.local_policy(loaded.group(topic)), self._services(loaded.route(topic).subjects), Habits())
        self.loop.use(self.log)

    def _services(self, subjects: Sequence[str]) -> Services:
        return Services(
            store=self.store,
            clock=parts.SystemClock(),
            random=secrets.token_bytes,
            report=self.events.append,
            publish=self._publish,
            count=lambda verdict: None,
            joined=lambda outcome, seconds: None,
            describe=NatsTopics(self.nc, lambda topic: subjects).describe,
        )

    def _publish(self, view: GroupView, closed: BrokerCryptoError | None) -> None:
        self.channel.view, self.channel.closed_by = view, closed

    @property
    def group(self) -> Group:
        return Group(self.loop)

    @property
    def is_member(self) -> bool:
        return self.group.state == "member"

    @property
    def names(self) -> list[str]:
        """The identities of all members."""
        return [member.identity for member in self.group.members]

    async def turn(self) -> None:
        await self.loop.turn()

    async def ask(self, kind: str, delta: Delta | None = None) -> None:
        """What it wants is in the log, read back."""
        intent = state.Intent(secrets.token_bytes(16), kind, 0, delta.encode() if delta else b"")
        async with self.store.transaction() as tx:
            await tx.put(state.INTENT, state.prefix(self.topic) + intent.id, intent.encode())
        self.loop.poke(reload=True)
        while self.group.intents or self.loop.memory.stale_intents:
            await self.turn()

    async def rotate(self) -> None:
        await self.ask(plan.ROTATE)

    async def lie_to(self, victim: str) -> None:
        """A commit that counts and that `victim` cannot enter."""
        mls = self.loop.member.mls
        assert mls is not None
        (leaf,) = [member.leaf for member in self.group.members if member.identity == victim]
        staged = wrong_commit(mls, time.time_ns() // 1_000_000, "path_secret", secrets.token_bytes, victim=leaf)
        self.loop.memory.staged[staged.hash] = staged
        await self.log.append(staged.record, None)
        await self.turn()

    async def publish(self) -> None:
        """One sealed record more, acknowledged by its stream."""
        place = Place(self.topic, subject=f"{self.topic}.o.x")
        (sealed,) = self.channel.seal([(place, f"{self.identity} {self.sent}".encode(), None)])
        await self.nc.jetstream().publish(place.subject, sealed.data)
        self.sent += 1

    def open(self, stream: str, records: Sequence[tuple[int, bytes]]) -> tuple[list[str], list[str]]:
        """What (position, record) of the stream with this identity say, and the codes of those that are refused."""
        opened, refused = [], []
        places = [Place(self.topic, subject=f"{self.topic}.o.x", position=(stream, position)) for position, _ in records]
        for result in self.channel.open([(place, record, None) for place, (_, record) in zip(places, records, strict=True)], True):
            if isinstance(result, Opened):
                opened.append(result.payload.decode())
            else:
                assert isinstance(result, RecordRefused), result
                refused.append(result.code)
        return opened, refused
