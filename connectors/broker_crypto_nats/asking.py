"""Asks one pull consumer for messages over an inbox of its own, one request at a time.

As the client's own `fetch` does it (what is there at once, else wait for more until the time is up), with three differences:

1. Each request has its own reply subject, so the end of an earlier one is never taken for the end of this one.
2. Only what has no acknowledgement's reply subject is a status. An application's message with a header `Status`, which anybody
   who may publish can send, is a message; the client's own `fetch` fails on it.
3. After a reconnect the request is asked again: it went down with the connection, or the server has forgotten it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

ACK = "$JS.ACK."
LOOK_SECONDS = 1.0  # how often a reconnect is looked for
AGAIN_SECONDS = 0.05  # after a request that the server ended for reasons of its own
NOBODY_SECONDS = 1.0  # a server may not have heard yet of a consumer made on another one of its cluster

_HEARTBEAT = "100"
_NOTHING_MORE = ("404", "408")  # no messages; the request's time is up
_CONFLICT, _NOBODY = "409", "503"


class PullRequests:
    """`take` gets every message, whenever it comes; what else comes ends the request that is under way."""

    def __init__(self, nc: Client, next_subject: str, take: Callable[[Msg], None]) -> None:
        self._nc = nc
        self._next = next_subject
        self._take = take
        self._prefix = ""
        self._number = 0
        self._received = 0
        self._needed = 0
        self._status: Msg | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.heard = False  # a heartbeat came in this fetch

    async def open(self, prefix: bytes | None, **limits: Any) -> Subscription:
        """Subscribe the inbox; `prefix` is the client's `inbox_prefix`."""
        inbox = self._nc.new_inbox()
        if prefix is not None:
            inbox = prefix.decode() + inbox.rpartition(".")[2]
        self._prefix = inbox + "."
        return await self._nc.subscribe(self._prefix + "*", cb=self._hear, **limits)

    async def fill(self, needed: int, end: float | None, heartbeat: float | None) -> None:
        """Have `take` called up to `needed` times; returns when that is done, or `end` (on the loop's clock) has come."""
        self.heard = False
        nobody_until: float | None = None
        no_wait = needed > 1
        while not await self._ask(needed, end, heartbeat, no_wait=no_wait) and not self._over(end):
            status = "" if self._status is None else _status_of(self._status)
            if status == _NOBODY and nobody_until is None:
                nobody_until = asyncio.get_running_loop().time() + NOBODY_SECONDS
            if status == _CONFLICT or (status == _NOBODY and not self._over(nobody_until)):
                await asyncio.sleep(AGAIN_SECONDS)
            elif status in _NOTHING_MORE or self._status is None:
                no_wait = False
            else:
                raise nats.js.errors.APIError.from_msg(self._status)

    async def _ask(self, needed: int, end: float | None, heartbeat: float | None, no_wait: bool = False) -> bool:
        """One request and its end; True if anything came."""
        self._number += 1
        self._needed, self._received, self._status = needed, 0, None
        request: dict[str, Any] = {"batch": needed}
        if end is not None:
            request["expires"] = max(1, int((end - asyncio.get_running_loop().time()) * 1e9) - 100_000)
        if heartbeat:
            request["idle_heartbeat"] = int(heartbeat * 1e9)
        if no_wait:
            request["no_wait"] = True
        reconnects = self._nc.stats["reconnects"]
        await self._nc.publish(self._next, json.dumps(request).encode(), f"{self._prefix}{self._number}")
        while self._received < needed and self._status is None and not self._over(end):
            await self._wait(end)
            if self._nc.is_closed or self._nc.stats["reconnects"] != reconnects:
                break
        self._needed = 0
        if self._nc.is_closed and not self._received:
            raise nats.errors.ConnectionClosedError
        return self._received > 0

    def _over(self, end: float | None) -> bool:
        return end is not None and asyncio.get_running_loop().time() >= end

    async def _wait(self, end: float | None) -> None:
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        at = loop.time() + LOOK_SECONDS
        timer = loop.call_at(at if end is None else min(at, end), _wake, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    async def _hear(self, message: Msg) -> None:
        if message.reply.startswith(ACK) or not message.subject.startswith(self._prefix):
            self._take(message)
            self._received += 1
            if self._received != self._needed:
                return
        else:
            status = _status_of(message)
            if message.subject != f"{self._prefix}{self._number}" or not status.isdecimal():
                return  # of a request that is over, or put there by somebody else
            if status == _HEARTBEAT:
                self.heard = True
                return
            self._status = message
        if self._waiter is not None:
            _wake(self._waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _status_of(message: Msg) -> str:
    return (message.headers or {}).get("Status", "")
