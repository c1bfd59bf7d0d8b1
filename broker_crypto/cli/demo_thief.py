"""The thief of the demo: a process that is handed the whole folder of a member, and tries whatever can be done with it.

It is spoken to like the agents. What it finds is all that it says; the same search before and after a removal shows what the removal did.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from broker_crypto import Agent
from broker_crypto.cli.demo_agent import connect, obey, order, say
from broker_crypto.cli.demo_loot import Loot
from broker_crypto.errors import BrokerCryptoError
from broker_crypto.records import Refused


class Thief:
    """`folder` holds what was copied: policy, certificates, keys, store key and the state, as the member `name` has them."""

    def __init__(self, name: str, folder: Path, url: str, raw: Any) -> None:
        self.name, self.folder, self.url, self.raw = name, folder, url, raw
        self.loot = Loot("orders")
        self.own: set[int] = set()  # what it published itself

    async def rob(self, state: str) -> dict[str, Any]:
        """Take the keys of a copy of the state folder, then go through the group's log with all that are at hand."""
        from broker_crypto_nats.grouplog import NatsGroupLog

        await self.loot.rob(self.folder / state / "state.db", self.folder / "keys" / "store.key")
        log = NatsGroupLog(self.raw)
        try:
            await log.open("orders", create=False)
            self.loot.follow(await log.read(0, 1000))
        finally:
            await log.close()
        return {"keys": len(self.loot), "entered": self.loot.entered}

    async def search(self, first: int, last: int) -> dict[str, Any]:
        """Try every key on each record of the stream from `first` to `last` that it did not seal itself."""
        js, opened = self.raw.jetstream(), 0
        sequences = [number for number in range(first, last + 1) if number not in self.own]
        for number in sequences:
            message = await js.get_msg("ORDERS", number)
            opened += self.loot.open("orders", message.subject, message.data) is not None
        return {"tried": len(sequences), "opened": opened}

    async def write(self, first: int, count: int) -> dict[str, Any]:
        """Publish orders in the name of the member, sealed and signed with its keys."""
        js, subject = self.raw.jetstream(), f"orders.{self.name}"
        payloads = [order(self.name, number) for number in range(first, first + count)]
        for sealed in self.loot.seal("orders", subject, payloads, secrets.token_bytes):
            self.own.add((await js.publish(subject, sealed.data)).seq)
        return {"count": count}

    async def impersonate(self, first: int, removal: int, last: int) -> dict[str, Any]:
        """Run the shipped agent on the folder, read the stream from `first` on, try to publish. `removal` is where `after` begins."""
        from nats.js.api import ConsumerConfig, DeliverPolicy

        from broker_crypto_nats import SecureNats

        refused: dict[int, str] = {}
        opened: Counter[str] = Counter()
        async with Agent.open(self.folder / "policy.yaml", identity=f"agent://demo/{self.name}") as agent:
            agent.on(Refused, lambda event: refused.update({event.position or 0: event.code}))
            client = SecureNats(await connect(self.url), agent)
            told = await _refusal(agent.ready("orders", 20))
            js = client.jetstream()
            config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=first)
            consumer = await js.pull_subscribe("orders.>", config=config)
            while len(refused) + opened.total() < last - first + 1:
                try:
                    messages = await consumer.fetch(256, timeout=2)
                except TimeoutError:
                    break
                for message in messages:
                    opened["after" if message.metadata.sequence.stream >= removal else "before"] += 1
                    await message.ack()
            publishing = await _refusal(js.publish(f"orders.{self.name}", order(self.name, 0)))
            state = agent.groups["orders"].state
            await client.close()
        after = Counter(code for position, code in refused.items() if position >= removal)
        return {"opened": dict(opened), "refused": dict(after), "ready": told, "publish": publishing, "state": state}

    async def stop(self) -> None:
        """Nothing goes on beside the commands."""


async def _refusal(call: Any) -> str:
    """The code of the error that a call ends in, "" for none."""
    try:
        await call
    except BrokerCryptoError as error:
        return error.code
    return ""


async def run(folder: Path, name: str, url: str) -> None:
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    raw = await connect(url)
    await obey(Thief(name, folder, url, raw), stdin)
    await raw.close()
    say(done="stop")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as the agents
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
