"""Cells that fork the condemned (tests/support/condemned.py), and scenes in which they live and die."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from broker_crypto.delivery import plan
from broker_crypto.delivery.deltas import Delta
from broker_crypto.records import EpochChanged
from tests.support.agents import Realm, uri
from tests.support.bystander import Bystander


class Cell:
    """One process that forks the condemned."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.support.condemned"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=2**24,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )

    async def send(self, **order: Any) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        await self._process.stdin.drain()

    async def hear(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 90)
        assert line, self.said()
        told: dict[str, Any] = json.loads(line)
        return told

    def said(self) -> str:
        """The end of what it wrote to stderr."""
        return self.log.read_text(errors="replace")[-3000:]

    async def end(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


@dataclass(frozen=True)
class Part:
    """Who plays in a life. `waits` are phases that wait for what the agent looks at once a second."""

    victim: str
    others: tuple[str, ...]
    waits: tuple[str, ...] = ()
    at_least: int = 0  # calls


PARTS = {
    "found": Part("ops", ("writer-1",), waits=("rotate as a command asks",), at_least=80),
    "join": Part("writer-1", ("ops",), at_least=80),
    "remove": Part("ops", ("writer-1", "writer-2", "reader-2"), at_least=40),
    "leave": Part("writer-1", ("ops",), at_least=35),
    "removed": Part("writer-1", ("ops",), at_least=25),
}


@dataclass
class Scene:
    """One group on the broker: its victim's folder, and the others, who do nothing that they are not told to."""

    realm: Realm
    nc: Client
    life: str
    policy: Path = field(init=False)
    others: list[Bystander] = field(init=False)
    sent: int = 0  # records of the victim that were acknowledged
    honest: int | None = None  # commits of the victim that counted when another did what it answers by itself
    did: set[str] = field(default_factory=set)

    @classmethod
    async def made(cls, realm: Realm, nc: Client, life: str) -> Scene:
        realm = copy.copy(realm)
        realm.root = "t" + secrets.token_hex(5)
        scene = cls(realm, nc, life)
        file = f"policy-{realm.root}.yaml"
        scene.policy = realm.policy(lambda m: m["state_persistence"].update(path=f"state/{realm.root}/{{agent_id}}/state.db"), file=file)
        scene.others = [Bystander(scene.policy, uri(name), realm.topic, nc) for name in PARTS[life].others]
        await nc.jetstream().add_stream(name=realm.topic, subjects=[f"{realm.root}.o.>"], storage="memory")
        if scene.victim != uri("ops"):
            await scene.other.turn()
            assert scene.other.is_member
        return scene

    @property
    def victim(self) -> str:
        return uri(PARTS[self.life].victim)

    @property
    def other(self) -> Bystander:
        """The one that stays to the end."""
        return self.others[0]

    @property
    def database(self) -> Path:
        return self.realm.folder / "state" / self.realm.root / "acme" / PARTS[self.life].victim / "state.db"

    def order(self, life: str, **more: Any) -> dict[str, Any]:
        who = {"policy": str(self.policy), "identity": self.victim, "url": self.realm.url, "topic": self.realm.topic}
        return {"life": life, **who, "sent": self.sent, **more}

    async def act(self, cell: Cell, kill: Sequence[Any] | None = None) -> tuple[int, list[Any]]:
        """Let the life go on to its end or to its kill: the exit code, and at its end every moment before or after a call."""
        await cell.send(**self.order(self.life, kill=kill))
        moments: list[Any] = []
        while "ended" not in (told := await cell.hear()):
            self.sent = told.get("sent", self.sent)
            moments = told.get("moments", moments)
            if "ask" in told:
                await self.do(told["ask"])
                await cell.send(go=True)
        return told["ended"], moments

    async def do(self, what: str) -> None:
        """What the victim's life asks of the others."""
        other = self.other
        await other.turn()
        if what in ("lie", "leave", "remove me"):
            self.honest = self.own_commits()
        self.did.add(what)
        if what == "join":
            for one in self.others:
                while not one.is_member:
                    await one.turn()
                if one is not other and one.loop.member.chain is not None:
                    await one.publish() if one.identity == uri("writer-2") else None
        elif what == "commit":
            await other.rotate()
        elif what == "lie":
            await other.lie_to(self.victim)
        elif what == "leave":
            await self.others[-1].ask(plan.LEAVE)
        elif what == "remove me":
            await other.ask(plan.REMOVE, Delta(bar=(self.victim,)))
        elif what == "readmit me":
            await other.ask(plan.POLICY, Delta(unbar=(self.victim,)))

    def own_commits(self) -> int:
        """Commits of the victim that count, as the other has read them; its founding among them."""
        return sum(isinstance(e, EpochChanged) and e.committer == self.victim for e in self.other.events)

    async def records(self) -> tuple[str, list[tuple[int, bytes]]]:
        """What the topic's stream holds: its identity, and (sequence, record)."""
        js = self.nc.jetstream()
        info = await self.nc.request(f"$JS.API.STREAM.INFO.{self.realm.topic}")
        told = json.loads(info.data)
        found = []
        for sequence in range(1, told["state"]["last_seq"] + 1):
            message = await js.get_msg(self.realm.topic, sequence)
            assert message.data is not None
            found.append((sequence, message.data))
        return told["created"], found

    async def close(self) -> None:
        await self.nc.jetstream().delete_stream(self.realm.topic)
        for one in self.others:
            await one.log.close()
