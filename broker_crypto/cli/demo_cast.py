"""The agents of the demo as processes: their folder, their keys, one policy for all, and how they are spoken to."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from broker_crypto.errors import BrokerCryptoError
from broker_crypto.identity import ca, generate, keys
from broker_crypto.storage.keys import make_key_file
from broker_crypto.wire import pem

PATIENCE = 60.0  # s for any one answer
POLICY = """\
version: 1
agent:
  identity: agent://demo/ops
  certificate: "keys/{agent_id}.pem"
  private_key: "keys/{agent_id}.key"
trust:
  anchors:
    - {certificate: ca.pem, identities: ["agent://demo/"]}
state_persistence:
  backend: sqlite
  path: "state/{agent_id}/state.db"
  key: {provider: file, path: keys/store.key}
defaults:
  on_failure: skip
groups:
  orders:
    roles:
      admin: ["agent://demo/ops"]
      writer: ["agent://demo/checkout"]
      reader: ["agent://demo/billing", "agent://demo/audit"]
topics:
  - topic: orders
    subjects: ["orders.>"]
    channel: mls
  - topic: control
    subjects: ["control.>"]
    channel: plain
"""


class DemoFailed(BrokerCryptoError):
    """An agent of the demo did not do what it was told."""

    code = "demo_failed"


def prepare(folder: Path, names: Sequence[str]) -> None:
    """A CA, a certificate for each name, a store key, the policy."""
    now_ms = time.time_ns() // 1_000_000
    root = ca.found("demo CA", keys.generate(), now_ms=now_ms)
    (folder / "ca.pem").write_bytes(pem.write_certificates((root.certificate,)))
    (folder / "policy.yaml").write_text(POLICY)
    for name in names:
        identity, key = generate(root, f"agent://demo/{name}", now_ms=now_ms)
        keys.write(folder / "keys" / "demo" / f"{name}.key", key)
        (folder / "keys" / "demo" / f"{name}.pem").write_bytes(pem.write_certificates(identity.chain))
    make_key_file(folder / "keys" / "store.key")


def copy_of(folder: Path, name: str, into: Path) -> None:
    """All that the machine of one agent has to do with the demo: policy, certificates, its key, the store key and its state."""
    for part in ("ca.pem", "policy.yaml", "keys/store.key", f"keys/demo/{name}.key", f"keys/demo/{name}.pem"):
        (into / part).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy2(folder / part, into / part)
    shutil.copytree(state_of(folder, name), state_of(into, name))


def state_of(folder: Path, name: str) -> Path:
    """The state folder of an agent."""
    return folder / "state" / "demo" / name


class Actor:
    """One process: an agent's, or the thief's. What it reports by itself is told as it comes."""

    def __init__(self, name: str, folder: Path, say: Callable[[str], None], *, module: str = "demo_agent") -> None:
        self.name = name
        self._folder, self._say, self._module = folder, say, module
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._read = 0
        self._progress = asyncio.Condition()

    async def start(self, url: str) -> None:
        """Start it, anew after `kill`."""
        self._answers = asyncio.Queue()
        with (self._folder / f"{self.name}.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", f"broker_crypto.cli.{self._module}", str(self._folder), self.name, url),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=2**24,
            )
        self._listening = asyncio.ensure_future(self._listen(self._process))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        stdout = process.stdout
        while stdout is not None and (line := await stdout.readline()):
            told = json.loads(line)
            if "event" in told:
                await self._hear(told)
            else:
                await self._answers.put(told)
        await self._answers.put({"failed": "it ended", "error": self._last_words()})

    async def _hear(self, told: dict[str, Any]) -> None:
        kind = told["event"]
        if kind == "read":
            async with self._progress:
                self._read = told["count"]
                self._progress.notify_all()
        elif kind == "joined" and told["founded"]:
            self._say(f"{self.name} founded the group `orders`: epoch 0")
        elif kind == "joined":
            self._say(f"{self.name} joined as leaf {told['leaf']}: epoch {told['epoch']}")
        elif kind == "locked_out":
            self._say(f"{self.name} was locked out of epoch {told['epoch']} ({told['reason']}) and comes back")
        elif kind == "gone" and self.name == "ops":
            self._say(f"  {told['who']} is no member from epoch {told['epoch']} on")
        elif kind == "epoch" and self.name == "ops" and told["epoch"]:
            self._say(f"  epoch {told['epoch']} began, by a commit of {told['by']}")

    def _last_words(self) -> str:
        log = (self._folder / f"{self.name}.log").read_text(errors="replace")
        return log[-2000:]

    async def ask(self, what: str, **details: Any) -> dict[str, Any]:
        """Tell it to do something, and wait until it has. Raises DemoFailed with its own words."""
        process = self._process
        if process is None or process.stdin is None:
            raise DemoFailed("it does not run", agent=self.name)
        process.stdin.write(json.dumps({"do": what, **details}).encode() + b"\n")
        await process.stdin.drain()
        try:
            answer = await asyncio.wait_for(self._answers.get(), PATIENCE)
        except TimeoutError:
            raise DemoFailed(f"no answer to {what} within {PATIENCE:.0f} s", agent=self.name) from None
        if "failed" in answer:
            raise DemoFailed(f"{what}: {answer['error']}", agent=self.name)
        return answer

    async def has_read(self, count: int) -> None:
        """Return when this process has read so many."""
        async with self._progress:
            await asyncio.wait_for(self._progress.wait_for(lambda: self._read >= count), PATIENCE)

    async def reaches(self, epoch: int) -> None:
        """Return when it seals in that epoch or a later one."""
        while (await self.ask("epoch"))["epoch"] < epoch:  # noqa: ASYNC110  another process is asked
            await asyncio.sleep(0.02)

    async def reads_out(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Its report once it holds what is awaited, or has stood still for 5 s."""
        report = await self.ask("report")
        still = 0
        while still < 20 and not holds(report):
            await asyncio.sleep(0.25)
            before, report = report, await self.ask("report")
            still = still + 1 if report == before else 0
        return report

    async def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            await self._gone(self._process)

    async def stop(self) -> None:
        """Ask it to end."""
        await self.ask("stop")
        if self._process is not None:
            await self._gone(self._process)

    async def end(self) -> None:
        """Whatever happened, it does not run any more."""
        process = self._process
        if process is not None and process.returncode is None:
            process.kill()
            await self._gone(process)

    async def _gone(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        if self._listening is not None:
            await self._listening
        self._process = None
