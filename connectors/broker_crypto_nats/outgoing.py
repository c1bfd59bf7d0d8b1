"""Messages on their way out: headers and sizes checked as the server will, and signed together where they wait together."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

import nats.errors
from nats.aio.client import Client

from broker_crypto.errors import BrokerCryptoError, UsageError
from broker_crypto.limits import MAX_BATCH
from broker_crypto.records import Header, Place, Sealed

from .front import Channel, Front, Item

REPLY = "Nats-Reply-To"  # the sealed copy of a reply subject; only `reply=` sets it
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BREAK = re.compile(r"[\r\n]")
_FRAME_BYTES = len(b"NATS/1.0\r\n\r\n")


def clean_headers(headers: Mapping[str, str] | None) -> list[Header] | None:
    """Headers as they are sealed: names and values without outer spaces, as the plain client sends them.

    Raises BadHeaderError for a name or value that cannot stand in a header (the plain client turns a line break into a
    space, which is not what was said), TypeError for a value that is no string, UsageError for `Nats-Reply-To`.
    """
    if not headers:
        return None
    cleaned: list[Header] = []
    for name, value in headers.items():
        key = name.strip()
        if not key:
            continue
        if not isinstance(value, str):
            raise TypeError(f"the value of header {key} is {type(value).__name__}, not str")
        value = value.strip()
        if not _NAME.fullmatch(key) or _BREAK.search(value):
            raise nats.errors.BadHeaderError(key)
        if key.casefold() == REPLY.casefold():
            raise UsageError(f"{REPLY} is set by `reply=`")
        cleaned.append((key, value.encode()))
    return cleaned or None


def outer_headers(headers: Sequence[Header]) -> dict[str, str] | None:
    """Outer headers in the client's form; None where there are none, so that none are sent."""
    if not headers:
        return None
    return {name: (value or b"").decode(errors="replace") for name, value in headers}


def check_size(nc: Client, payload: bytes, headers: Mapping[str, str] | None) -> None:
    """MaxPayloadError if payload and headers are together more than the server takes: it would close the connection."""
    size = len(payload)
    if headers:
        size += _FRAME_BYTES + sum(len(name) + len(value.encode()) + 4 for name, value in headers.items())
    if size > nc.max_payload:
        raise nats.errors.MaxPayloadError


def as_bytes(payload: bytes | bytearray | memoryview) -> bytes:
    """The payload as bytes that nobody changes behind us; TypeError for anything else."""
    if type(payload) is bytes:
        return payload
    if not isinstance(payload, bytes | bytearray | memoryview):
        raise TypeError(f"payload is {type(payload).__name__}, not bytes")
    return bytes(payload)


class Waiting(NamedTuple):
    """One core message that is not signed yet."""

    channel: Channel
    place: Place
    payload: bytes
    headers: list[Header] | None


class Outbox:
    """Core messages of one connection in their order. What one turn of the loop leaves here is signed together.

    Nothing that waits is lost when a caller is cancelled: a task of its own sends. What goes wrong there is no caller's
    any more and goes to `report`.
    """

    def __init__(self, nc: Client, front: Front, report: Callable[[Exception], Awaitable[None]]) -> None:
        self._nc = nc
        self._front = front
        self._report = report
        self._waiting: list[Waiting] = []
        self._task: asyncio.Task[None] | None = None

    def put(self, message: Waiting) -> bool:
        """Take one; True if a whole batch waits, so that the caller should await `empty`."""
        self._waiting.append(message)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        return len(self._waiting) >= MAX_BATCH

    @property
    def idle(self) -> bool:
        return self._task is None

    async def empty(self) -> None:
        """Return when all that was put before is with the client."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[:MAX_BATCH]
                del self._waiting[:MAX_BATCH]
                await self._send(batch)
        finally:
            self._task = None

    async def _send(self, batch: list[Waiting]) -> None:
        by_channel: dict[Channel, list[int]] = {}
        for at, message in enumerate(batch):
            by_channel.setdefault(message.channel, []).append(at)
        sealed: list[Sealed | None] = [None] * len(batch)
        for channel, places in by_channel.items():
            try:
                done = channel.seal([batch[at][1:] for at in places])
                rows = [row for one in done for row in one.rows]
                if rows:
                    await self._front.durable(rows)
            except BrokerCryptoError as error:
                await self._report(error)
                continue
            for at, one in zip(places, done, strict=True):
                sealed[at] = one
        for message, one_sealed in zip(batch, sealed, strict=True):
            if one_sealed is not None:
                await self._publish(message.place, one_sealed)

    async def _publish(self, place: Place, sealed: Sealed) -> None:
        headers = outer_headers(sealed.headers)
        try:
            check_size(self._nc, sealed.data, headers)
            await self._nc.publish(place.subject, sealed.data, place.reply or "", headers)
        except (nats.errors.Error, OSError) as error:
            await self._report(error)


class Pool:
    """Sealing for one channel where callers wait for an answer each: who is alone signs alone, at once.

    Whoever comes while others are under way waits one turn of the loop and shares a signature with those that came in it.
    """

    __slots__ = ("_channel", "_waiting", "active")

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: list[tuple[Item, asyncio.Future[Sealed]]] = []
        self.active = 0

    def join(self, item: Item) -> asyncio.Future[Sealed]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sealed] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._seal)
        self._waiting.append((item, future))
        return future

    def _seal(self) -> None:
        waiting, self._waiting = self._waiting, []
        waiting = [entry for entry in waiting if not entry[1].done()]  # cancelled meanwhile
        for start in range(0, len(waiting), MAX_BATCH):
            self._seal_batch(waiting[start : start + MAX_BATCH])

    def _seal_batch(self, batch: list[tuple[Item, asyncio.Future[Sealed]]]) -> None:
        try:
            sealed = self._channel.seal([item for item, _ in batch])
        except Exception as error:
            for item, future in batch:
                if len(batch) > 1:  # one caller's mistake is not the others'
                    self._seal_batch([(item, future)])
                else:
                    future.set_exception(error)
            return
        for (_, future), one in zip(batch, sealed, strict=True):
            future.set_result(one)
