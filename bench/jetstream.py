"""JetStream end to end, 1 KiB records: `SecureNats` with two real agents beside plain nats-py, in one process and one run.

The two take turns within every round, on streams of the same kind on one nats-server; figures are medians of the rounds, wall
time. Our process keeps to one core and the server to another. The streams are in memory, so that no disk hides what sealing
costs: with a file and a sync for each record the ratios are nearer to 1.

`plain + floor` is what plain nats-py would do if each record also cost the bare primitives of bench/floor.py, signed alone,
measured in the same rounds: what no connector that does its work in the same process can pass, unless it spends less on the
client's part. Where callers publish at once, many records share a signature and this bound does not apply.

Rows: publishing one after the other, and 64 callers at once; fetching in batches of 64 with an acknowledgement each, of records
that were signed alone and of records that shared signatures; end to end, a subscription iterated while others publish.
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, StorageType, StreamConfig

from bench.floor import Floor
from bench.pinning import pinned
from broker_crypto import Agent
from broker_crypto_nats import SecureNats
from broker_crypto_nats.server import LocalServer

PAYLOAD = secrets.token_bytes(1024)
ROUNDS = 9
SEQUENTIAL, CONCURRENT = 600, 2560  # records a round
CALLERS, BATCH = 64, 64
ALONE = "sequential"

Nats = Client | SecureNats


class Side:
    """One client: a writer and a reader, each with its own connection; a stream for each round."""

    def __init__(self, writer: Nats, reader: Nats, admin: Client) -> None:
        self.writer, self.reader, self.admin = writer, reader, admin
        self.subject = ""

    async def begin(self, subject: str) -> None:
        """An empty stream over the subject."""
        self.subject = subject
        await self.admin.jetstream().add_stream(StreamConfig(name="BENCH", subjects=[subject], storage=StorageType.MEMORY))

    async def end(self) -> None:
        await self.admin.jetstream().delete_stream("BENCH")

    async def publish(self, count: int, callers: int) -> None:
        js: Any = self.writer.jetstream()

        async def one(share: int) -> None:
            for _ in range(share):
                await js.publish(self.subject, PAYLOAD)

        if callers == 1:
            await one(count)
        else:
            await asyncio.gather(*(one(count // callers) for _ in range(callers)))

    async def read(self, count: int) -> None:
        js: Any = self.reader.jetstream()
        sub = await js.pull_subscribe(self.subject, config=ConsumerConfig(max_ack_pending=-1))
        got = 0
        while got < count:
            messages = await sub.fetch(BATCH, timeout=10)
            for message in messages:
                if message.data != PAYLOAD:
                    raise ValueError("a record came back as another one")
                await message.ack()
            got += len(messages)
        await sub.unsubscribe()

    async def iterate(self, count: int, begun: asyncio.Event) -> None:
        js: Any = self.reader.jetstream()
        sub = await js.subscribe(self.subject)
        begun.set()
        async for message in sub.messages:
            if message.data != PAYLOAD:
                raise ValueError("a record came back as another one")
            await message.ack()
            count -= 1
            if not count:
                break
        await sub.unsubscribe()

    async def both(self, count: int, callers: int) -> None:
        begun = asyncio.Event()
        reading = asyncio.create_task(self.iterate(count, begun))
        await begun.wait()
        await self.publish(count, callers)
        await reading


async def seconds(work: Awaitable[None]) -> float:
    start = time.perf_counter()
    await work
    return time.perf_counter() - start


async def measure(side: Side, subject: str) -> dict[str, float]:
    """Records a second of each kind of work, in one round."""
    rates: dict[str, float] = {}

    async def note(work: str, count: int, doing: Callable[[], Awaitable[None]]) -> None:
        gc.collect()
        rates[work] = count / await seconds(doing())

    for callers, count, word in ((1, SEQUENTIAL, ALONE), (CALLERS, CONCURRENT, f"{CALLERS} at once")):
        await side.begin(subject)
        await note(f"publish, {word}", count, lambda: side.publish(count, callers))  # noqa: B023
        await note(f"fetch and ack, published {word}", count, lambda: side.read(count))  # noqa: B023
        await side.end()
        await side.begin(subject)
        await note(f"end to end, {word}", count, lambda: side.both(count, callers))  # noqa: B023
        await side.end()
    return rates


def floor_seconds(count: int = 200) -> tuple[float, float]:
    """Seconds a record to seal and to open, by the bare primitives, signed alone."""
    floor = Floor(bytes(16), bytes(12), bytes(32), 0, bytes(16), 0, bytes(16), bytes(32), -1, b"orders.x", bytes(32))
    start = time.perf_counter()
    sealed = [floor.seal([(None, PAYLOAD)], sequence)[0] for sequence in range(count)]
    between = time.perf_counter()
    for record in sealed:
        floor.open(None, record)
    return (between - start) / count, (time.perf_counter() - between) / count


def add_floor(rates: dict[str, float]) -> None:
    """What plain would do with the bare primitives on top, for the rows in which each record is signed alone."""
    seal, opened = floor_seconds()
    spent = {"publish": seal, "fetch and ack, published": opened, "end to end,": seal + opened}
    for work, seconds_a_record in spent.items():
        name = f"publish, {ALONE}" if work == "publish" else f"{work} {ALONE}"
        rates[name] = 1 / (1 / rates[name] + seconds_a_record)


async def sides(stack: AsyncExitStack, folder: Path, url: str) -> dict[str, Side]:
    """Ours, with two agents in one group that the first has founded, and the plain one."""
    plain = [await nats.connect(url) for _ in range(3)]
    sealing = []
    for name in ("alice", "bob"):
        agent = await stack.enter_async_context(Agent.open(folder / "agents" / "policy.yaml", identity=f"agent://example/{name}"))
        connection = SecureNats(await nats.connect(url), agent)
        stack.push_async_callback(connection.close)
        await agent.ready("orders", 30)
        sealing.append(connection)
    for connection in plain:
        stack.push_async_callback(connection.close)
    return {"broker_crypto": Side(sealing[0], sealing[1], plain[2]), "nats-py": Side(plain[0], plain[1], plain[2])}


async def rounds(folder: Path, url: str) -> dict[str, dict[str, list[float]]]:
    """{work: {peer: rates}}."""
    rates: dict[str, dict[str, list[float]]] = {}
    async with AsyncExitStack() as stack:
        peers = list((await sides(stack, folder, url)).items())
        for number in range(ROUNDS + 1):
            for name, side in peers if number % 2 else reversed(peers):
                found = await measure(side, f"orders.bench{number}")
                for work, rate in found.items():
                    if number:  # the first warms up
                        rates.setdefault(work, {}).setdefault(name, []).append(rate)
                if number and name == "nats-py":
                    add_floor(found)
                    for work in (work for work in found if work.endswith(ALONE)):
                        rates[work].setdefault("plain + floor", []).append(found[work])
    return rates


def run() -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    with tempfile.TemporaryDirectory() as place, pinned(cores[0] if len(cores) > 1 else None):
        server = LocalServer(Path(place) / "nats")
        made = [sys.executable, "-c", "from broker_crypto.cli import main; main()", "init", str(Path(place) / "agents")]
        subprocess.run(made, check=True, capture_output=True)
        with server, pinned(cores[-1]) as core:
            os.environ["NATS_URL"] = server.url  # what the policy made by `init` reads
            rates = asyncio.run(rounds(Path(place), server.url))
    rows = []
    for work, found in rates.items():
        values = {name: statistics.median(found[name]) for name in ("broker_crypto", "nats-py", "plain + floor") if name in found}
        targets = [{"of": "nats-py", "at_least": 0.7}] if work.startswith("end to end") else []
        spread = {name: [min(found[name]), max(found[name])] for name in found}
        rows.append({"work": work, "values": values, "targets": targets, "spread": spread})
    return {
        "title": "JetStream, 1 KiB, signed",
        "unit": "records/s",
        "rows": rows,
        "core": core,
        "rounds": ROUNDS,
    }
