"""A proxy on loopback between NATS clients and a server that spoils what passes through it, message by message.

It reads the protocol of both directions whole, so that a fault strikes messages and never cuts one in two:

- `swallow`: answers to publishes are lost on the way back (the server has the message, the client never learns of it)
- `drop`: publishes are lost on the way there
- `duplicate`: publishes go to the server twice
- `replay`: publishes are kept and sent again when `replay_kept` is called
- `delay`: messages of a subject come late by so many seconds, others overtake them
- `reset`: all connections are cut now

A fault is asked for by the subject's beginning and strikes the next `times` messages.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

_PAYLOAD = re.compile(rb"^(PUB|HPUB|MSG|HMSG) ", re.IGNORECASE)


@dataclass
class Fault:
    """What strikes the messages whose subject begins with `subject`: `times` of them."""

    kind: str
    subject: str
    times: int = 1
    seconds: float = 0.0


@dataclass(eq=False)
class _Session:
    """One client's connection: where its unanswered publishes wait for their answer."""

    to_server: asyncio.StreamWriter
    to_client: asyncio.StreamWriter
    deaf: set[bytes] = field(default_factory=set)  # reply subjects whose answer is swallowed


class NatsProxy:
    """`async with NatsProxy(server.url) as proxy`: connect to `proxy.url` instead."""

    def __init__(self, server_url: str) -> None:
        host, port = server_url.removeprefix("nats://").split(":")
        self._server = (host, int(port))
        self.faults: list[Fault] = []
        self.struck: Counter[str] = Counter()
        self._kept: list[tuple[_Session, bytes]] = []
        self._sessions: set[_Session] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    async def __aenter__(self) -> NatsProxy:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *failure: object) -> None:
        assert self._listener is not None
        self._listener.close()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        assert self._listener is not None
        return f"nats://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    def strike(self, kind: str, subject: str, times: int = 1, seconds: float = 0.0) -> None:
        """Ask for a fault."""
        self.faults.append(Fault(kind, subject, times, seconds))

    def reset(self) -> None:
        """Cut every connection."""
        for session in list(self._sessions):
            session.to_server.close()
            session.to_client.close()
        self._kept = [(s, frame) for s, frame in self._kept if s in self._sessions]

    def replay_kept(self) -> int:
        """Send again what `replay` has kept, over the connections that are still there."""
        alive = [(s, frame) for s, frame in self._kept if not s.to_server.is_closing()]
        for session, frame in alive:
            session.to_server.write(frame)
        self._kept.clear()
        return len(alive)

    async def _accept(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(*self._server)
        except OSError:
            to_client.close()
            return
        session = _Session(to_server, to_client)
        self._sessions.add(session)
        up = asyncio.ensure_future(self._pump(session, from_client, to_server, self._up))
        down = asyncio.ensure_future(self._pump(session, from_server, to_client, self._down))
        self._tasks |= {up, down}
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        for writer in (to_server, to_client):
            writer.close()
        await asyncio.gather(up, down, return_exceptions=True)
        self._tasks -= {up, down}
        self._sessions.discard(session)

    async def _pump(self, session: _Session, source: asyncio.StreamReader, target: asyncio.StreamWriter, judge) -> None:  # type: ignore[no-untyped-def]
        with suppress(OSError, asyncio.IncompleteReadError):
            async for head, frame in _frames(source):
                for copy in judge(session, head, frame):
                    target.write(copy)
                await target.drain()

    def _up(self, session: _Session, head: list[bytes], frame: bytes) -> list[bytes]:
        verb = head[0].upper()
        if verb not in (b"PUB", b"HPUB"):
            return [frame]
        subject = head[1].decode()
        sizes = 1 if verb == b"PUB" else 2
        reply = head[2] if len(head) == 3 + sizes else None
        fault = self._fault(subject, ("swallow", "drop", "duplicate", "replay", "delay"))
        if fault is None:
            return [frame]
        if fault.kind == "swallow" and reply is not None:
            session.deaf.add(reply)
        elif fault.kind == "drop":
            return []
        elif fault.kind == "duplicate":
            return [frame, frame]
        elif fault.kind == "replay":
            self._kept.append((session, frame))
        elif fault.kind == "delay":
            self._later(session.to_server, frame, fault.seconds)
            return []
        return [frame]

    def _down(self, session: _Session, head: list[bytes], frame: bytes) -> list[bytes]:
        if head[0].upper() in (b"MSG", b"HMSG") and head[1] in session.deaf:
            session.deaf.discard(head[1])
            return []
        return [frame]

    def _fault(self, subject: str, kinds: tuple[str, ...]) -> Fault | None:
        for fault in self.faults:
            if fault.kind in kinds and subject.startswith(fault.subject):
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                self.struck[fault.kind] += 1
                return fault
        return None

    def _later(self, target: asyncio.StreamWriter, frame: bytes, seconds: float) -> None:
        async def send() -> None:
            await asyncio.sleep(seconds)
            if not target.is_closing():
                target.write(frame)

        task = asyncio.ensure_future(send())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _frames(source: asyncio.StreamReader) -> AsyncIterator[tuple[list[bytes], bytes]]:
    """(words of the control line, the whole frame) one after another."""
    while line := await source.readline():
        words = line.split()
        if not words:
            yield [b""], line
            continue
        body = b""
        if _PAYLOAD.match(line):
            body = await source.readexactly(int(words[-1]) + 2)
        yield words, line + body
