"""An agent that is in 50 groups of 50 members each and does nothing: what it takes in memory, and how long its start takes.

Every group has its own 49 other members, so that no certificate is seen twice. The agent joins all of them on a real nats-server,
follows ROTATIONS more epochs of each, as many as a week of monthly rotations makes, and ends. Then it is started anew in a
process of its own, on its SQLite folder, and measured: from `Agent.open` until it may seal in all groups, and after SECONDS of rest.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nats

from bench.history import Authority, History
from bench.pinning import pinned
from broker_crypto import Agent
from broker_crypto.identity import generate, keys
from broker_crypto.storage import make_key_file
from broker_crypto.wire import pem
from broker_crypto_nats import SecureNats
from broker_crypto_nats.grouplog import NatsGroupLog
from broker_crypto_nats.server import LocalServer

GROUPS, MEMBERS, ROTATIONS = 50, 50, 12
SECONDS = 5.0  # of rest
MEMORY, START = 150, 2  # MiB, s: at most
PATIENCE = 120.0  # s
OWN = "agent://acme/writer-own"


def names() -> list[str]:
    return [f"group-{number}" for number in range(GROUPS)]


# --- the world around it ------------------------------------------------------------------------------------------


def policy(folder: Path, authority: Authority) -> Path:
    """The agent's file, its certificate, its keys."""
    who, key = generate(authority.root, OWN, now_ms=authority.now_ms)
    keys.write(folder / "own.key", key)
    (folder / "own.pem").write_bytes(pem.write_certificates(who.chain))
    (folder / "ca.pem").write_bytes(pem.write_certificates((authority.root.certificate,)))
    make_key_file(folder / "store.key")
    roles = {"admin": ["agent://acme/ops"], "writer": ["agent://acme/writer-*"]}
    path = folder / "policy.yaml"
    text = {
        "version": 1,
        "agent": {"identity": OWN, "certificate": "own.pem", "private_key": "own.key"},
        "trust": {"anchors": [{"certificate": "ca.pem", "identities": ["agent://acme/"]}]},
        "state_persistence": {"backend": "sqlite", "path": "state/state.db", "key": {"provider": "file", "path": "store.key"}},
        "groups": {name: {"roles": roles} for name in names()},
        "topics": [{"topic": name, "subjects": [f"{name}.>"], "channel": "mls"} for name in names()],
    }
    path.write_text(json.dumps(text))  # JSON is what YAML reads too
    return path


async def write(url: str, histories: list[History], sent: dict[str, int]) -> None:
    """Append what the server's logs do not have yet."""
    connection = await nats.connect(url)
    for history in histories:
        log = NatsGroupLog(connection)
        await log.open(history.group, create=True)
        for entry in history.entries[sent.get(history.group, 0) :]:
            await log.append(entry.record, None)
        sent[history.group] = len(history.entries)
    await connection.close()


async def take(url: str, histories: list[History], sent: dict[str, int]) -> None:
    """Follow the commit that is new in every log: the agent's."""
    connection = await nats.connect(url)
    for history in histories:
        log = NatsGroupLog(connection)
        await log.open(history.group, create=False)
        history.take((await log.read(0, 4 * MEMBERS))[-1])
        sent[history.group] = len(history.entries)
    await connection.close()


class Child:
    """The agent, in a process of its own, which does not outlive the block."""

    def __init__(self, part: str, where: Path, url: str) -> None:
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-m", "bench.idle", part, str(where), url]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environ, text=True)

    def told(self) -> dict[str, Any]:
        """The next line that it says."""
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError(f"the agent ended with {self._process.wait()}")
        said: dict[str, Any] = json.loads(line)
        return said

    def end(self) -> None:
        if self._process.wait(PATIENCE):
            raise RuntimeError("the agent failed")

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()


def run() -> dict[str, Any]:
    """The table of `python -m bench idle`."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    with tempfile.TemporaryDirectory() as place, pinned(cores[0] if len(cores) > 1 else None):
        server = LocalServer(Path(place) / "nats", synced=False)
        with server, pinned(cores[-1]) as core:
            first, measured = lived(Path(place), server.url)
    size = f"{GROUPS} groups of {MEMBERS}"
    rows = [
        {"work": f"resident memory, MiB, {size}", "values": {"broker_crypto": measured["memory"]}, "targets": [{"at_most": MEMORY}]},
        {"work": f"start, s, {size}", "values": {"broker_crypto": measured["start"]}, "targets": [{"at_most": START}]},
    ]
    notes = [
        f"of the memory, {measured['bare']:.0f} MiB are Python and the libraries, before the agent is opened",
        f"of the start, {measured['opened']:.2f} s until the agent is open; {measured['cpu']:.2f} s of CPU in all; imports took "
        f"{measured['imports']:.2f} s before it",
        f"at rest it takes {measured['idle'] * 100:.1f} % of a core; joining all groups took {first['start']:.1f} s",
    ]
    return {"title": "an idle agent", "unit": "MiB or s", "rows": rows, "notes": notes, "core": core, "measured": measured}


def lived(folder: Path, url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the agent said in its first life, and in its second."""
    authority = Authority(now_ms=time.time_ns() // 1_000_000)
    histories = [History(name, authority, between=0.01).grow(MEMBERS - 1) for name in names()]
    where, sent = policy(folder, authority), dict[str, int]()
    asyncio.run(write(url, histories, sent))
    with Child("enter", where, url) as child:
        first = child.told()
        asyncio.run(take(url, histories, sent))
        for history in histories:
            for number in range(ROTATIONS):
                history.rotate(number * 7 % (MEMBERS - 1))
        asyncio.run(write(url, histories, sent))
        child.end()
    with Child("rest", where, url) as child:
        second = child.told()
        child.end()
    return first, second


# --- the agent ----------------------------------------------------------------------------------------------------


def resident() -> float:
    """MiB of this process in memory now."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def agent(part: str, where: str, url: str) -> None:
    """One life of the agent: `enter` joins all groups and follows them on, `rest` starts anew and does nothing."""
    said = {"bare": resident(), "imports": time.process_time()}
    begun, cpu = time.perf_counter(), time.process_time()
    async with Agent.open(where) as opened:
        said["opened"] = time.perf_counter() - begun
        connection = SecureNats(await nats.connect(url), opened)
        await opened.ready(timeout=PATIENCE)
        said["start"], said["cpu"] = time.perf_counter() - begun, time.process_time() - cpu
        if part == "rest":
            idle = time.process_time()
            await asyncio.sleep(SECONDS)
            said["memory"], said["idle"] = resident(), (time.process_time() - idle) / SECONDS
        print(json.dumps(said), flush=True)
        end = time.monotonic() + PATIENCE
        while part == "enter" and any(group.epoch < MEMBERS + ROTATIONS - 1 for group in opened.groups.values()):
            if time.monotonic() > end:
                raise TimeoutError(str({group.epoch for group in opened.groups.values()}))
            await asyncio.sleep(0.1)
        await connection.close()


if __name__ == "__main__":
    asyncio.run(agent(*sys.argv[1:]))
