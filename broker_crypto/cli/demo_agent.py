"""One agent of the demo: a process of its own that does what it is told on stdin and says what happens on stdout, a JSON object a line.

It is an ordinary application: an Agent, a SecureNats, js.publish and a pull consumer. What it has read is written to a ledger before it
is acknowledged, so that its word holds after SIGKILL.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from broker_crypto import Agent
from broker_crypto.cli.demo_loot import Loot
from broker_crypto.errors import BrokerCryptoError
from broker_crypto.records import EpochChanged, Joined, LockedOut, Marked, MemberLeft, Refused

if TYPE_CHECKING:
    from broker_crypto_nats import SecureJetStream

PAYLOAD_BYTES = 1024
KNOWN = "these words are in every order of the demo and nowhere else"
AT_ONCE = 64  # publishes in flight, so that they are signed together
ENTRY = struct.Struct(">BIB")  # producer, number, 1 where the sender was the one that the order names
PRODUCERS = ("ops", "checkout")


def order(producer: str, number: int) -> bytes:
    """One order, PAYLOAD_BYTES long, that says who wrote it."""
    head = json.dumps({"order": number, "from": f"agent://demo/{producer}", "says": KNOWN})
    return head.encode().ljust(PAYLOAD_BYTES)


class Worker:
    """Carries out one command after another; reading goes on beside them."""

    def __init__(self, name: str, folder: Path, agent: Agent, js: SecureJetStream, raw: Any) -> None:
        self.name, self.folder, self.agent, self.js, self.raw = name, folder, agent, js, raw
        self.ledger_path = folder / f"{name}.ledger"
        self.ledger = os.open(self.ledger_path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        self.refused: Counter[str] = Counter()
        self.marked: Counter[str] = Counter()
        self.reading: asyncio.Task[None] | None = None
        self.done, self.stopping = 0, False
        agent.on(Refused, lambda event: self.refused.update((event.code,)))
        agent.on(Marked, lambda event: self.marked.update(("duplicate",) if event.duplicate else ("gap",)))
        agent.on(EpochChanged, lambda event: say(event="epoch", epoch=event.epoch, by=event.committer))
        agent.on(MemberLeft, lambda event: say(event="gone", epoch=event.epoch, who=event.identity))
        agent.on(Joined, lambda event: say(event="joined", epoch=event.epoch, leaf=event.leaf, founded=event.founded))
        agent.on(LockedOut, lambda event: say(event="locked_out", epoch=event.epoch, reason=event.reason))

    async def ready(self) -> dict[str, Any]:
        await self.agent.ready("orders", 30)
        group = self.agent.groups["orders"]
        return {"epoch": group.epoch, "leaf": group.leaf, "members": len(group.members)}

    async def epoch(self) -> dict[str, Any]:
        group = self.agent.groups["orders"]
        return {"epoch": group.epoch, "state": group.state, "members": len(group.members)}

    async def publish(self, first: int, count: int) -> dict[str, Any]:
        start = time.monotonic()
        for at in range(first, first + count, AT_ONCE):
            numbers = range(at, min(at + AT_ONCE, first + count))
            await asyncio.gather(*(self.js.publish(f"orders.{self.name}", order(self.name, n)) for n in numbers))
        return {"count": count, "seconds": time.monotonic() - start}

    async def control(self, count: int) -> dict[str, Any]:
        for n in range(count):
            await self.js.publish("control.plain", f"control record {n:06d} {KNOWN}".encode().ljust(PAYLOAD_BYTES))
        return {"count": count}

    async def rotate(self) -> dict[str, Any]:
        await self.agent.groups["orders"].rotate()
        return await self.epoch()

    async def remove(self, who: str) -> dict[str, Any]:
        await self.agent.groups["orders"].remove(f"agent://demo/{who}")
        return await self.epoch()

    async def leave(self) -> dict[str, Any]:
        """How many keys of the group the own folder holds before and after it has left."""
        before = await self._keys()
        await self.agent.groups["orders"].leave()
        return {"before": before, "after": await self._keys()}

    async def _keys(self) -> int:
        loot = Loot("orders")
        await loot.rob(self.folder / "state" / "demo" / self.name / "state.db", self.folder / "keys" / "store.key")
        return len(loot)

    async def try_to_publish(self) -> dict[str, Any]:
        """What one more order ends in: the code of the error, "" for none."""
        try:
            await self.js.publish(f"orders.{self.name}", order(self.name, 0))
        except BrokerCryptoError as error:
            return {"refusal": error.code}
        return {"refusal": ""}

    async def read(self, ack_wait: float) -> dict[str, Any]:
        from nats.js.api import ConsumerConfig

        config = ConsumerConfig(ack_wait=ack_wait, max_ack_pending=4096)
        sub = await self.js.pull_subscribe("orders.>", durable=self.name, config=config)
        self.reading = asyncio.ensure_future(self._read(sub))
        self.reading.add_done_callback(_tell_why)
        return {}

    async def stop(self) -> None:
        """End what is under way. nats-py may keep a cancellation to itself while its server is gone, so the flag says it too."""
        self.stopping = True
        if self.reading is not None:
            self.reading.cancel()
            await asyncio.gather(self.reading, return_exceptions=True)

    async def _read(self, sub: Any) -> None:
        while not self.stopping:
            try:
                messages = await sub.fetch(256, timeout=1)
            except TimeoutError:  # the client's own, or asyncio's: nats-py raises either when nothing came
                continue
            entries = bytearray()
            for message in messages:
                told = json.loads(message.data)
                producer = told["from"].rsplit("/", 1)[1]
                true = message.security.sender == told["from"]
                entries += ENTRY.pack(PRODUCERS.index(producer), told["order"], true)
            os.write(self.ledger, entries)
            for message in messages:
                await message.ack()
            if self.done // 100 != (self.done + len(messages)) // 100:
                say(event="read", count=self.done + len(messages))
            self.done += len(messages)

    async def report(self) -> dict[str, Any]:
        read: Counter[tuple[int, int]] = Counter()
        wrong = 0
        for producer, number, true in ENTRY.iter_unpack(self.ledger_path.read_bytes()):
            read[producer, number] += 1
            wrong += not true
        return {
            "unique": len(read),
            "total": sum(read.values()),
            "numbers": {PRODUCERS[p]: sorted(n for q, n in read if q == p) for p in (0, 1)},
            "wrong_sender": wrong,
            "refused": dict(self.refused),
            "marked": dict(self.marked),
        }

    async def sizes(self, sequences: list[int]) -> dict[str, Any]:
        """Bytes as the broker has them: the plain client beneath, which this agent's application made."""
        raw = self.raw.jetstream()
        stored = [len((await raw.get_msg("ORDERS", seq=n)).data or b"") for n in sequences]
        return {"added": [size - PAYLOAD_BYTES for size in stored]}


def _tell_why(reading: asyncio.Task[None]) -> None:
    error = None if reading.cancelled() else reading.exception()
    if error is not None:
        say(failed="reading", error=f"{type(error).__name__}: {error}")


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Player(Protocol):
    """Who is told what to do: each command is a method."""

    async def stop(self) -> None: ...


async def obey(worker: Player, stdin: asyncio.StreamReader) -> None:
    """Commands until `stop` or the end of stdin: whoever started this process is gone then, and what is under way is given up."""
    under_way: asyncio.Task[None] | None = None
    while line := await stdin.readline():
        command = json.loads(line)
        name = command.pop("do")
        if name == "stop":
            break
        under_way = asyncio.ensure_future(carry_out(worker, name, command))
    if under_way is not None:
        under_way.cancel()
        await asyncio.gather(under_way, return_exceptions=True)
    await worker.stop()


async def carry_out(worker: Player, name: str, details: dict[str, Any]) -> None:
    try:
        result = await getattr(worker, name)(**details)
    except Exception as error:  # told to whoever started it, who ends the demo
        say(failed=name, error=f"{type(error).__name__}: {error}")
    else:
        say(done=name, **result)


async def connect(url: str) -> Any:
    """The demo's server is there, or the demo is over."""
    import nats

    return await nats.connect(url, allow_reconnect=False, max_reconnect_attempts=1, reconnect_time_wait=0.1)


async def run(folder: Path, name: str, url: str) -> None:
    from broker_crypto_nats import SecureNats

    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    async with Agent.open(folder / "policy.yaml", identity=f"agent://demo/{name}") as agent:
        raw = await connect(url)
        client = SecureNats(raw, agent)
        await obey(Worker(name, folder, agent, client.jetstream(), raw), stdin)
        await client.close()
    say(done="stop")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started it; the end of stdin ends this one
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
