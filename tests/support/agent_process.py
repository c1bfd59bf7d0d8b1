"""One process with one or several agents, each an ordinary application: `python -m tests.support.agent_process POLICY URL ROOT NAME...`

It does what it is told on stdin and says what happens on stdout, a JSON object a line. What an agent has read stands in a ledger
before it is acknowledged, so that its word holds after SIGKILL.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import nats
from nats.js.api import ConsumerConfig

from broker_crypto import Agent
from broker_crypto.records import Joined, LockedOut, Refused
from broker_crypto_nats import SecureNats

ENTRY = struct.Struct(">IB")  # number, 1 where the sender is the one that the record names


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Worker:
    """One agent and its connection."""

    def __init__(self, name: str, folder: Path, root: str, agent: Agent, nc: SecureNats) -> None:
        self.name, self.root, self.agent, self.nc, self.js = name, root, agent, nc, nc.jetstream()
        self.ledger_path = folder / f"{name}.ledger"
        self.ledger = _appended(self.ledger_path)
        self.sent_path = folder / f"{name}.sent"
        self.refused: Counter[str] = Counter()
        self.reading: asyncio.Task[None] | None = None
        self.writing: asyncio.Task[None] | None = None
        self.writing_on = self.reading_on = False
        agent.on(Refused, lambda event: self.refused.update((event.code,)))
        agent.on(Joined, lambda event: say(event="joined", name=name, epoch=event.epoch, again=event.again, at=time.time()))
        agent.on(LockedOut, lambda event: say(event="locked_out", name=name, epoch=event.epoch, reason=event.reason))

    async def ready(self, timeout: float = 30) -> dict[str, Any]:
        await self.agent.ready(self.root, timeout)
        return self.state()

    def state(self) -> dict[str, Any]:
        group = self.agent.groups[self.root]
        mark = group.authenticator
        return {"state": group.state, "epoch": group.epoch, "leaf": group.leaf, "members": len(group.members), "mark": mark and mark.hex()}

    async def rotate(self) -> dict[str, Any]:
        await self.agent.groups[self.root].rotate()
        return self.state()

    @property
    def sent(self) -> int:
        """How many records of this agent the broker has acknowledged, in this process and in those before."""
        return self.sent_path.stat().st_size if self.sent_path.exists() else 0

    async def write(self) -> dict[str, Any]:
        """Publish from now on, one record after the other, behind the last that was acknowledged."""
        self.writing_on = True
        self.writing = asyncio.ensure_future(self._write())
        self.writing.add_done_callback(_tell_why)
        return {}

    async def _write(self) -> None:
        number, file = self.sent, _appended(self.sent_path)
        while self.writing_on:  # the client may keep a cancellation to itself
            try:
                await self.js.publish(f"{self.root}.o.{self.name}", f"{self.name} {number}".encode())
            except TimeoutError:  # not acknowledged: sent again
                continue
            os.write(file, b".")
            number += 1
            await asyncio.sleep(0.002)
        os.close(file)

    async def pause(self) -> dict[str, Any]:
        """Stop publishing; how far it came."""
        self.writing_on = False
        if self.writing is not None:
            await self.writing
        return {"sent": self.sent}

    async def read(self, ack_wait: float = 1.0) -> dict[str, Any]:
        config = ConsumerConfig(ack_wait=ack_wait, max_ack_pending=4096)
        sub = await self.js.pull_subscribe(f"{self.root}.o.>", durable=self.name, config=config)
        self.reading_on = True
        self.reading = asyncio.ensure_future(self._read(sub))
        self.reading.add_done_callback(_tell_why)
        return {}

    async def _read(self, sub: Any) -> None:
        while self.reading_on:
            try:
                messages = await sub.fetch(64, timeout=0.5)
            except TimeoutError:
                continue
            entries = bytearray()
            for message in messages:
                writer, number = message.data.decode().split()
                entries += ENTRY.pack(int(number), message.security.sender == f"agent://acme/{writer}")
            os.write(self.ledger, entries)
            for message in messages:
                await message.ack()

    async def report(self) -> dict[str, Any]:
        """What this agent has ever read, in this process and in those before."""
        entries = list(ENTRY.iter_unpack(self.ledger_path.read_bytes()))
        numbers = {number for number, _ in entries}
        return {
            "read": len(numbers),
            "highest": max(numbers, default=-1),
            "total": len(entries),
            "wrong_sender": sum(not true for _, true in entries),
            "refused": dict(self.refused),
        }

    async def end(self) -> None:
        self.reading_on = self.writing_on = False
        await _end(self.reading)
        await _end(self.writing)
        await self.nc.close()
        os.close(self.ledger)


def _appended(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)


async def _end(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _tell_why(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        say(failed="a task", error=f"{type(error).__name__}: {error}")


async def quiet(error: Exception) -> None:
    """Servers that go away are what some tests are about."""


async def obey(workers: dict[str, Worker], stdin: asyncio.StreamReader) -> None:
    """Commands until `stop` or the end of stdin: whoever started this process is gone then. `name` says which agent, else all."""
    while line := await stdin.readline():
        command = json.loads(line)
        what, name = command.pop("do"), command.pop("name", None)
        if what == "stop":
            return
        asked = [workers[name]] if name else list(workers.values())
        try:
            results = await asyncio.gather(*(getattr(worker, what)(**command) for worker in asked))
        except Exception as error:
            say(failed=what, error=f"{type(error).__name__}: {error}")
        else:
            say(done=what, **(results[0] if len(results) == 1 else {"all": results}))


async def run(policy: Path, url: str, root: str, *names: str) -> None:
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    async with AsyncExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name in names:
            agent = await stack.enter_async_context(Agent.open(policy, identity=f"agent://acme/{name}"))
            raw = await nats.connect(url, reconnect_time_wait=0.05, max_reconnect_attempts=-1, error_cb=quiet)
            workers[name] = Worker(name, policy.parent, root, agent, SecureNats(raw, agent))
        say(event="started", at=time.time())
        await obey(workers, stdin)
        for worker in workers.values():
            await worker.end()
    say(done="stop")


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), *sys.argv[2:]))
