"""Processes in which an agent lives a part of its life and is killed at one call: `python -m tests.support.condemned`

The process that is started only forks: one child for each order on stdin, after all imports, before any thread or loop is there.
The child speaks over the same pipes, a JSON object a line; a question of its is answered by a line. Its end is told by its parent.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import nats
from nats.js.api import ConsumerConfig

from broker_crypto import Agent, Event, errors, parts, policy, storage
from broker_crypto.delivery import plan, state
from broker_crypto.delivery.handle import Group
from broker_crypto.delivery.loop import GroupLoop
from broker_crypto.records import Joined, LockedOut
from broker_crypto.testing import Moment
from broker_crypto_nats import SecureNats
from tests.support.counting import Calls, CountedStore, Gate, Point, counted

LIFE_SECONDS = 120  # SIGALRM behind it: a life that hangs is no kill
HUNG = 98  # its exit code


def say(**what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def at_once(n: int, /) -> bytes:
    """Random, but for the one byte that spreads over a while what several members would do alike."""
    return bytes(n) if n == 1 else secrets.token_bytes(n)


class Life:
    """One child: what it was ordered, its counted agent, and whom it asks for what others do."""

    def __init__(self, order: dict[str, Any], stdin: asyncio.StreamReader) -> None:
        self.policy, self.identity, self.url, self.topic = Path(order["policy"]), order["identity"], order["url"], order["topic"]
        self.number = order.get("sent", 0)  # of the next record
        self.kill = order.get("kill")
        die: tuple[Point, Moment] | None = (Point(*self.kill[:3]), self.kill[3]) if self.kill else None
        self.calls, self.gate = Calls(die), Gate()
        self.events: list[Event] = []
        self._stdin = stdin
        self.agent: Agent
        self.js: Any

    @property
    def group(self) -> Group:
        return self.agent.groups[self.topic]

    @property
    def loop(self) -> GroupLoop:
        loop = self.group._loop
        assert isinstance(loop, GroupLoop)
        return loop

    async def hear(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(await self._stdin.readline())
        return told

    async def ask(self, what: str) -> None:
        """Let the others do it, and wait until they have."""
        say(ask=what)
        await self.hear()

    @asynccontextmanager
    async def running(self, *, count: bool = True) -> AsyncIterator[None]:
        """The agent, from opening its store to closing it."""
        opened = parts.open_store

        def open_store(*args: Any, **how: Any) -> storage.StateStore:
            point = self.calls.enter("store.open")
            store = opened(*args, **how)
            self.calls.left(point)
            return CountedStore(store, self.calls)

        with mock.patch.object(parts, "open_store", open_store if count else opened):
            async with Agent.open(self.policy, identity=self.identity, random=at_once) as self.agent:
                self.agent.on(Event, self.events.append)
                raw = await nats.connect(self.url)
                nc = (counted(self.calls, self.gate) if count else SecureNats)(raw, self.agent)
                self.js = nc.jetstream()
                yield
                await nc.close()

    async def rest(self) -> None:
        """Return when the loop has done all that it had to do and waits for its log."""
        while not self.gate.resting:
            await asyncio.sleep(0.001)

    async def phase(self, name: str) -> None:
        await self.rest()
        self.calls.phase = name

    async def receive(self, holds: Callable[[], object]) -> None:
        """Let the bell through, once; whatever it rang for is in the log already."""
        self.gate.let()
        while not holds():
            await asyncio.sleep(0.001)

    async def publish(self) -> None:
        """One sealed record more, acknowledged by its stream."""
        await self.rest()
        await self.js.publish(f"{self.topic}.o.x", f"{self.identity} {self.number}".encode())
        self.number += 1
        say(sent=self.number)


# --- lives ------------------------------------------------------------------------------------------------------------


async def found(life: Life) -> None:
    """Found the group, let another in, rotate as a command asks, be started again."""
    life.calls.phase = "found"
    async with life.running():
        await life.agent.ready(life.topic)
        await life.publish()
        await life.ask("join")
        await life.phase("be joined")
        await life.receive(lambda: life.group.epoch == 1)
        await life.publish()
        await life.phase("a command asks")
        await by_command(life, plan.ROTATE)
        life.calls.phase = "rotate as a command asks"
        while life.group.epoch < 2:
            await asyncio.sleep(0.001)
        await life.publish()
        await life.phase("close")
    await start_again(life)


async def by_command(life: Life, kind: str) -> None:
    """Store an intent as a command beside the agent does."""
    _, kept = policy.load(life.policy, identity=life.identity).require_agent()
    beside = parts.open_store(kept, beside=True)
    intent = state.Intent(os.urandom(16), kind, 0)
    async with beside.transaction() as tx:
        await tx.put(state.INTENT, state.prefix(life.topic) + intent.id, intent.encode())
    await beside.close()


async def start_again(life: Life) -> None:
    life.calls.phase = "start again"
    async with life.running():
        await life.agent.ready(life.topic)
        await life.publish()
        await life.rest()
        life.calls.phase = ""


async def join(life: Life) -> None:
    """Join, rotate, receive a commit, be locked out by a lie and come back by an external commit."""
    life.calls.phase = "join"
    async with life.running():
        await life.agent.ready(life.topic)
        await life.publish()
        await life.phase("rotate")
        await life.group.rotate()
        await life.publish()
        await life.ask("commit")
        await life.phase("receive")
        await life.receive(lambda: life.group.epoch == 3)
        await life.publish()
        await life.ask("lie")
        await life.phase("come back")
        await life.receive(lambda: life.group.epoch == 5)
        await life.publish()
        await life.rest()
        life.calls.phase = ""


async def remove(life: Life) -> None:
    """Found, let all in, remove one of them, and take away one that has left."""
    async with life.running():
        await life.agent.ready(life.topic)
        await life.ask("join")
        await life.receive(lambda: len(life.group.members) == 4)
        await life.phase("remove")
        await life.group.remove("agent://acme/writer-2")
        await life.publish()
        await life.ask("leave")
        await life.phase("take away who left")
        await life.receive(lambda: len(life.group.members) == 2)
        await life.publish()
        await life.rest()
        life.calls.phase = ""


async def leave(life: Life) -> None:
    """Join, leave, be started again: it stays away."""
    async with life.running():
        await life.agent.ready(life.topic)
        await life.publish()
        await life.phase("leave")
        await life.group.leave()
        await life.phase("close")
    life.calls.phase = "start again"
    async with life.running():
        while not life.loop._loaded:
            await asyncio.sleep(0.001)
        life.calls.phase = ""


async def removed(life: Life) -> None:
    """Join, be removed, be readmitted."""
    async with life.running():
        await life.agent.ready(life.topic)
        await life.publish()
        await life.ask("remove me")
        await life.phase("be removed")
        await life.receive(lambda: life.group.state == "removed")
        await life.ask("readmit me")
        await life.phase("come in again")
        await life.receive(lambda: life.group.state == "member")
        await life.publish()
        await life.rest()
        life.calls.phase = ""


async def send(life: Life) -> None:
    """Publish without end, and rotate once meanwhile. Killed from outside, by the pid that it tells."""
    say(pid=os.getpid())
    async with life.running(count=False):
        await life.agent.ready(life.topic)
        rotating = asyncio.ensure_future(life.group.rotate())
        while True:
            await life.js.publish(f"{life.topic}.o.x", f"{life.identity} {life.number}".encode())
            life.number += 1
            say(sent=life.number)
            if rotating.done():
                rotating.result()


# --- and after ----------------------------------------------------------------------------------------------------------


async def back(life: Life) -> None:
    """The agent once more, as any application runs it; does what it is told until its end."""
    async with life.running(count=False):
        while (told := await life.hear())["do"] != "end":
            say(answer=await DEEDS[told["do"]](life, told))


async def look(life: Life, _: dict[str, Any]) -> dict[str, Any]:
    group, memory = life.group, life.loop.memory
    mark = group.authenticator
    return {
        "state": group.state,
        "halted": str(group.halted) if group.halted else None,
        "epoch": group.epoch,
        "mark": mark.hex() if mark else None,
        "members": [member.identity for member in group.members],
        "open": [intent.kind for intent in memory.intents.values()] + ["staged" for _ in memory.staged],
        "held": len(memory.views),
        "joined": [[event.epoch, event.again] for event in life.events if isinstance(event, Joined)],
        "locked_out": [event.epoch for event in life.events if isinstance(event, LockedOut)],
    }


async def read(life: Life, told: dict[str, Any]) -> dict[str, Any]:
    """Everything that the stream holds of the topic: opened payloads, and the codes of what was refused."""
    config = ConsumerConfig(inactive_threshold=30)
    sub = await life.js.pull_subscribe(f"{life.topic}.o.>", stream=told["stream"], config=config)
    opened: list[str] = []
    refused: list[str] = []
    for _ in range(told["count"]):
        try:
            (message,) = await sub.fetch(1, timeout=5)
        except errors.RecordRefused as error:
            refused.append(error.code)
        else:
            opened.append(message.data.decode())
    return {"opened": opened, "refused": refused}


async def publish(life: Life, _: dict[str, Any]) -> dict[str, Any]:
    try:
        await life.agent.ready(life.topic, 10)
    except errors.NotAMember as error:
        return {"refused": error.code, "sent": life.number}
    await life.js.publish(f"{life.topic}.o.x", f"{life.identity} {life.number}".encode())
    life.number += 1
    return {"sent": life.number}


DEEDS: dict[str, Callable[[Life, dict[str, Any]], Awaitable[dict[str, Any]]]] = {"look": look, "read": read, "publish": publish}
LIVES: dict[str, Callable[[Life], Awaitable[None]]] = {life.__name__: life for life in (found, join, remove, leave, removed, send, back)}


# --- the process that forks -----------------------------------------------------------------------------------------------


async def live(order: dict[str, Any]) -> None:
    stdin = asyncio.StreamReader()
    pipe = os.fdopen(0, "rb", closefd=False)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), pipe)
    life = Life(order, stdin)
    await LIVES[order["life"]](life)
    say(moments=life.calls.moments)


def read_line() -> bytes:
    """A line from stdin and not a byte more: the rest is the next child's."""
    line = b""
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line


def tell_what_waits(*_: object) -> None:
    """A life hangs: say where each of its tasks stands, and end."""
    for task in asyncio.all_tasks(asyncio.get_event_loop_policy().get_event_loop()):
        task.print_stack(file=sys.stderr)
    for loop in [one for one in gc.get_objects() if isinstance(one, GroupLoop)]:
        kinds = [(intent.kind, intent.refused) for intent in loop.memory.intents.values()]
        print(f"{loop.member.state}, {kinds}, {loop.memory.stale_intents=}, {loop.trouble=}, head {loop.head}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(HUNG)


def serve() -> None:
    gc.collect()
    gc.freeze()
    while line := read_line():
        order = json.loads(line)
        if "life" not in order:  # for a child that has died
            continue
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGALRM, tell_what_waits)
            signal.alarm(LIFE_SECONDS)
            try:
                asyncio.run(live(order))
                os._exit(0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(99)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.set_blocking(0, True)
        say(ended=code)


if __name__ == "__main__":
    serve()
