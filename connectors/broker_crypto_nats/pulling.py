"""Many records of one subject at once, through a pull consumer that lives in memory and only for this call."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from broker_crypto.errors import BrokerUnavailable
from broker_crypto.records import LogEntry

from .jsapi import Api, Refused

_IDLE_NS = 30 * 10**9  # the server drops the consumer by itself after this, should our delete be lost

_AGAIN_SECONDS = 0.05


async def pull(api: Api, stream: str, subject: str, position: int, *, limit: int, last: int) -> list[LogEntry]:
    """At least one entry from `position` on, at most `limit`, none behind `last`, which the leader holds.

    BrokerUnavailable if the consumer does not reach `last` or `limit` in time, or if its own count shows a hole.
    """
    nc = api.nc
    name = "bc-" + secrets.token_hex(8)
    inbox = nc.new_inbox()
    question = json.dumps({"batch": limit, "expires": int(api.timeout * 10**9)}).encode()

    async def ask() -> None:
        await nc.publish(f"{api.prefix}.CONSUMER.MSG.NEXT.{stream}.{name}", question, inbox)

    collector = _Collector(limit, last, ask)
    subscription = await nc.subscribe(inbox, cb=collector.take, pending_bytes_limit=0)
    try:
        await _make_consumer(api, stream, name, subject, position)
        await ask()
        return await asyncio.wait_for(collector.done, api.timeout)
    except (TimeoutError, nats.errors.Error, OSError) as error:
        raise BrokerUnavailable("the group log was not read in time", subject=subject) from error
    finally:
        collector.done.cancel()
        await _forget(nc, subscription, f"{api.prefix}.CONSUMER.DELETE.{stream}.{name}")


async def _make_consumer(api: Api, stream: str, name: str, subject: str, position: int) -> None:
    config: dict[str, Any] = {
        "name": name,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": max(1, position),
        "ack_policy": "none",
        "replay_policy": "instant",
        "filter_subject": subject,
        "inactive_threshold": _IDLE_NS,
        "mem_storage": True,
        "num_replicas": 1,
    }
    try:
        await api.call(f"CONSUMER.CREATE.{stream}.{name}.{subject}", {"stream_name": stream, "config": config})
    except Refused as refused:
        raise BrokerUnavailable(f"the group log cannot be read: {refused}", subject=subject) from refused


async def _forget(nc: Client, subscription: Any, delete: str) -> None:
    """Best effort and without waiting for an answer; the server's own idle limit does the rest."""
    try:
        await subscription.unsubscribe()
        await nc.publish(delete)
    except (nats.errors.Error, OSError):
        pass


class _Collector:
    """Entries of one pull, checked for holes by the consumer's own count, until enough are there."""

    def __init__(self, limit: int, last: int, ask: Callable[[], Awaitable[None]]) -> None:
        self._ask = ask
        self.done: asyncio.Future[list[LogEntry]] = asyncio.get_running_loop().create_future()
        self._entries: list[LogEntry] = []
        self._limit = limit
        self._last = last

    async def take(self, message: Msg) -> None:
        if self.done.done():
            return
        if not message.reply.startswith("$JS.ACK."):
            await self._told(message)
            return
        tokens = message.reply.split(".")
        # $JS.ACK.stream.consumer.delivered.sequence.count.time.pending; newer servers put domain and account behind ACK
        sequence, count, stamp = (int(token) for token in (tokens[5:8] if len(tokens) == 9 else tokens[7:10]))
        if count != len(self._entries) + 1:
            self.done.set_exception(BrokerUnavailable("the group log came with a hole", position=sequence))
            return
        if sequence <= self._last:
            self._entries.append(LogEntry(sequence, stamp // 1_000_000, message.data))
        if sequence >= self._last or len(self._entries) == self._limit:
            self.done.set_result(self._entries)

    async def _told(self, message: Msg) -> None:
        """A status. "Nobody there" may mean that our server has not heard yet of a consumer made on another one."""
        status = (message.headers or {}).get("Status", "")
        if status == "503":
            await asyncio.sleep(_AGAIN_SECONDS)
            await self._ask()
        elif status != "100" and not self.done.done():
            self.done.set_exception(BrokerUnavailable("reading the group log was ended by the server", status=status))
