"""Agents as applications have them: a CA, identities, one policy for all, each agent with its own store and its own connection.

A `Realm` is a folder with all of that. `Realm.agent` runs one agent here, `Realm.process` one or several in a process of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext

from broker_crypto import Agent, Event
from broker_crypto.delivery.handle import Group
from broker_crypto.identity import ca, generate, keys
from broker_crypto.observe import MemoryMetrics
from broker_crypto.storage.keys import make_key_file
from broker_crypto.wire import pem
from broker_crypto_nats import SecureNats
from broker_crypto_nats.jetstream import SecureJetStream

PATIENCE = 30.0  # s for anything that must come to pass
ROLES = {"admin": ["agent://acme/ops"], "writer": ["agent://acme/writer-*"], "reader": ["agent://acme/reader-*"]}

Change = Callable[[dict[str, Any]], object]


def uri(name: str) -> str:
    return f"agent://acme/{name}"


def numbered(number: int, size: int = 64) -> bytes:
    """A payload that says which one it is."""
    return f"record {number:06d} ".encode().ljust(size, b".")


def number_of(payload: bytes) -> int:
    return int(payload.split()[1])


async def until(holds: Callable[[], object], why: str = "", patience: float = PATIENCE) -> None:
    """Return as soon as `holds()`; AssertionError after `patience` s."""
    end = time.monotonic() + patience
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"it did not come to pass: {why}")
        await asyncio.sleep(0.01)


@dataclass
class Realm:
    """One CA, one group `topic` with its subjects below `root`, one policy. Names are those of this realm alone."""

    folder: Path
    url: str
    root: str = field(default_factory=lambda: "t" + secrets.token_hex(5))

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.authority = ca.found("test CA", keys.generate(), now_ms=self.now_ms())
        (self.folder / "ca.pem").write_bytes(pem.write_certificates((self.authority.certificate,)))
        make_key_file(self.folder / "store.key")

    @staticmethod
    def now_ms() -> int:
        return time.time_ns() // 1_000_000

    @property
    def topic(self) -> str:
        """The sealed topic, which is also the name of its group and stream."""
        return self.root

    def mapping(self) -> dict[str, Any]:
        """The policy as a mapping that a test may change."""
        return {
            "version": 1,
            "agent": {"identity": uri("ops"), "certificate": "keys/{agent_id}.pem", "private_key": "keys/{agent_id}.key"},
            "trust": {"anchors": [{"certificate": "ca.pem", "identities": ["agent://acme/"]}]},
            "state_persistence": {
                "backend": "sqlite",
                "path": "state/{agent_id}/state.db",
                "key": {"provider": "file", "path": "store.key"},
            },
            "defaults": {"epoch_wait": "10s"},
            "groups": {self.topic: {"roles": {name: list(patterns) for name, patterns in ROLES.items()}}},
            "topics": [
                {"topic": self.topic, "subjects": [f"{self.root}.o.>"], "channel": "mls"},
                {"topic": f"{self.root}-plain", "subjects": [f"{self.root}.p.>"], "channel": "plain"},
            ],
        }

    def policy(self, change: Change | None = None, *, file: str | None = None) -> Path:
        """Write the policy, changed; returns its file. JSON is what YAML reads too."""
        mapping = self.mapping()
        if change is not None:
            change(mapping)
        path = self.folder / (file or ("policy.yaml" if change is None else f"policy-{secrets.token_hex(4)}.yaml"))
        path.write_text(json.dumps(mapping, indent=1))
        return path

    def issue(self, name: str, *, authority: ca.Authority | None = None) -> None:
        """A certificate for `name`, unless it has one."""
        place = self.folder / "keys" / "acme"
        if authority is None and (place / f"{name}.pem").exists():
            return
        who, key = generate(authority or self.authority, uri(name), now_ms=self.now_ms())
        keys.write(place / f"{name}.key", key)
        (place / f"{name}.pem").write_bytes(pem.write_certificates(who.chain))

    def state(self, name: str) -> Path:
        """The folder of an agent's store."""
        return self.folder / "state" / "acme" / name

    def forget(self, name: str) -> None:
        """Delete an agent's store."""
        shutil.rmtree(self.state(name))

    @asynccontextmanager
    async def agent(
        self, name: str, policy: Path | None = None, *, url: str | None = None, connection: Any = SecureNats
    ) -> AsyncIterator[Member]:
        """An agent of this process, attached to its own connection; closed as the docs say: client first, then agent."""
        self.issue(name)
        metrics = MemoryMetrics()
        async with Agent.open(policy or self.policy(), identity=uri(name), metrics=metrics) as agent:
            raw = await connect(url or self.url)
            member = Member(self, name, agent, raw, metrics)
            close = raw.close
            try:
                agent.on(Event, member.events.append)
                member.nc = connection(raw, agent)
                close = member.nc.close
                member.js = member.nc.jetstream()
                yield member
            finally:
                with suppress(OSError):  # the client's own way of closing where its server is gone
                    await close()

    async def stream(self, raw: Client, *, name: str | None = None, **how: Any) -> JetStreamContext:
        """The stream of the sealed topic."""
        js = raw.jetstream()
        await js.add_stream(name=name or self.topic, subjects=[f"{self.root}.o.>"], **how)
        return js

    def process(self, *names: str, policy: Path | None = None) -> Process:
        """Agents in one process of their own, not started yet."""
        for name in names:
            self.issue(name)
        return Process(self, names, policy or self.policy())


async def connect(url: str) -> Client:
    """A plain client that comes back quickly, as often as it takes."""

    async def quiet(error: Exception) -> None:
        """Servers that go away are what many tests are about."""

    return await nats.connect(url, reconnect_time_wait=0.05, max_reconnect_attempts=-1, error_cb=quiet)


@dataclass
class Member:
    """One running agent. `events` holds everything that it has reported."""

    realm: Realm
    name: str
    agent: Agent
    raw: Client
    metrics: MemoryMetrics
    events: list[Event] = field(default_factory=list)
    nc: SecureNats = field(init=False)
    js: SecureJetStream = field(init=False)

    @property
    def group(self) -> Group:
        return self.agent.groups[self.realm.topic]

    async def ready(self, timeout: float = PATIENCE) -> None:
        await self.agent.ready(self.realm.topic, timeout)

    async def publish(self, *numbers: int, subject: str = "x") -> None:
        """Sealed, acknowledged by the stream; what goes out together is signed together."""
        await asyncio.gather(*(self.js.publish(f"{self.realm.root}.o.{subject}", numbered(n)) for n in numbers))

    async def reader(self, durable: str | None = None, **how: Any) -> Any:
        """A pull consumer over the whole topic."""
        return await self.js.pull_subscribe(f"{self.realm.root}.o.>", durable=durable, stream=self.realm.topic, **how)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


async def take(subscription: Any, count: int, *, patience: float = PATIENCE) -> list[Any]:
    """`count` messages of a pull consumer, each acknowledged. A refused record is raised, as its policy says."""
    end, taken = time.monotonic() + patience, []
    while len(taken) < count and time.monotonic() < end:
        with suppress(TimeoutError):
            for message in await subscription.fetch(min(256, count - len(taken)), timeout=1):
                await message.ack()
                taken.append(message)
    assert len(taken) == count, f"{len(taken)} of {count}"
    return taken


async def nothing_more(subscription: Any, wait: float = 0.3) -> bool:
    try:
        await subscription.fetch(1, timeout=wait)
    except TimeoutError:
        return True
    return False


async def together(*members: Member, patience: float = PATIENCE) -> None:
    """Return when all are members of one epoch with one authenticator."""

    def equal() -> bool:
        states = {(m.group.epoch, m.group.authenticator) for m in members}
        return len(states) == 1 and all(m.group.state == "member" for m in members)

    def told() -> str:
        return str([(m.name, m.group.state, m.group.epoch) for m in members])

    end = time.monotonic() + patience
    while not equal():
        assert time.monotonic() < end, told()
        await asyncio.sleep(0.01)


class Cast:
    """Agents of this process that end with the test."""

    def __init__(self, realm: Realm, stack: AsyncExitStack) -> None:
        self.realm = realm
        self._stack = stack

    async def __call__(self, name: str, policy: Path | None = None, *, ready: bool = True, **how: Any) -> Member:
        member = await self._stack.enter_async_context(self.realm.agent(name, policy, **how))
        if ready:
            await member.ready()
        return member

    async def all(self, *names: str, policy: Path | None = None) -> list[Member]:
        """One after the other; all in one epoch in the end."""
        members = [await self(name, policy) for name in names]
        await together(*members)
        return members


class Process:
    """Agents in a process of their own, spoken to over its pipes (tests/support/agent_process.py)."""

    def __init__(self, realm: Realm, names: Sequence[str], policy: Path) -> None:
        self.realm, self.names, self.policy = realm, tuple(names), policy
        self.events: list[dict[str, Any]] = []
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    @property
    def log(self) -> Path:
        return self.realm.folder / f"{self.names[0]}.log"

    async def start(self) -> None:
        """Start it, anew after `kill`."""
        self._answers = asyncio.Queue()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.support.agent_process", str(self.policy), self.realm.url, self.realm.root, *self.names),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=2**24,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
        self._listening = asyncio.ensure_future(self._listen(self._process))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        stdout = process.stdout
        while stdout is not None and (line := await stdout.readline()):
            try:
                told = json.loads(line)
            except ValueError:  # the last line of one that was killed
                continue
            if "event" in told:
                self.events.append(told)
            else:
                await self._answers.put(told)
        await self._answers.put({"failed": "it ended", "error": self.log.read_text(errors="replace")[-2000:]})

    def tell(self, what: str, **details: Any) -> None:
        """Tell it to do something, and do not wait."""
        process = self._process
        assert process is not None, "it does not run"
        assert process.stdin is not None
        process.stdin.write(json.dumps({"do": what, **details}).encode() + b"\n")

    async def answer(self, patience: float = PATIENCE) -> dict[str, Any]:
        answer = await asyncio.wait_for(self._answers.get(), patience)
        assert "failed" not in answer, f"{answer}"
        return answer

    async def ask(self, what: str, *, patience: float = PATIENCE, **details: Any) -> dict[str, Any]:
        self.tell(what, **details)
        return await self.answer(patience)

    async def report_of(self, count: int, patience: float = PATIENCE) -> dict[str, Any]:
        """The report once so many different records are read, or after `patience` s."""
        end = time.monotonic() + patience
        while (report := await self.ask("report"))["read"] < count and time.monotonic() < end:
            await asyncio.sleep(0.05)
        return report

    async def kill(self) -> None:
        """SIGKILL."""
        process = self._process
        if process is not None and process.returncode is None:
            process.kill()
        await self._gone()

    async def stop(self) -> None:
        await self.ask("stop")
        await self._gone()

    async def _gone(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.wait()
        if self._listening is not None:
            await self._listening


@asynccontextmanager
async def ended(*processes: Process) -> AsyncIterator[None]:
    """Whatever happens inside, none of them runs afterwards."""
    try:
        yield
    finally:
        await asyncio.gather(*(process.kill() for process in processes))


Make = Callable[..., Awaitable[Member]]
