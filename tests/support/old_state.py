"""One that was removed and kept all it had: a copy of its state folder from before, opened by itself, which seals on with the old keys."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from broker_crypto import parts
from broker_crypto.channels.topic import TopicChannel
from broker_crypto.delivery.membership import Membership
from broker_crypto.delivery.memory import GroupMemory
from broker_crypto.errors import RecordRefused
from broker_crypto.observe.metrics import NULL
from broker_crypto.records import Place
from tests.support.agents import Realm, numbered, uri


class OldState:
    """The copy, from the moment at which it was made. It follows no log, so nothing that was committed since is known to it."""

    def __init__(self, realm: Realm, name: str) -> None:
        self.realm, self.name = realm, name
        self.folder = "copies/" + secrets.token_hex(4)
        shutil.copytree(realm.state(name), realm.folder / self.folder / "acme" / name)

    def policy(self) -> Path:
        """The realm's, for an agent on this copy."""

        def change(mapping: dict[str, Any]) -> None:
            mapping["state_persistence"]["path"] = f"{self.folder}/{{agent_id}}/state.db"

        return self.realm.policy(change)

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[TopicChannel]:
        made = parts.gather(self.policy(), uri(self.name), NULL, parts.SystemClock(), secrets.token_bytes)
        try:
            memory = GroupMemory(Membership(self.realm.topic))
            await memory.load(made.store)
            channel = TopicChannel(parts.settings_of(made.policy.route(self.realm.topic)), secrets.token_bytes)
            channel.view = memory.view(parts.own(made.who))
            yield channel
        finally:
            await made.store.close()

    def _place(self, subject: str) -> Place:
        return Place(self.realm.topic, subject=f"{self.realm.root}.o.{subject}")

    async def records(self, *numbers: int, subject: str = "x") -> list[bytes]:
        """Records sealed with its old keys, as if nothing had happened."""
        async with self._channel() as channel:
            return [one.data for one in channel.seal([(self._place(subject), numbered(number), None) for number in numbers])]

    async def opened(self, records: Sequence[bytes], subject: str = "x") -> list[str]:
        """What its keys make of these records: opened, or the code of the refusal."""
        async with self._channel() as channel:
            results = channel.open([(self._place(subject), record, None) for record in records], final=True)
            return [one.code if isinstance(one, RecordRefused) else "opened" for one in results]

    async def publish(self, raw: Client, *numbers: int, subject: str = "x") -> list[int]:
        """Such records in the stream; their positions."""
        js = raw.jetstream()
        return [(await js.publish(f"{self.realm.root}.o.{subject}", data)).seq for data in await self.records(*numbers, subject=subject)]
