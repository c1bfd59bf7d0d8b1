"""Tells that a group's subject has grown: a push consumer of headers only, made anew whenever it falls silent.

It is a bell and nothing else: what it says is never used as a record, so what it misses costs time, not truth. It rings after
the record is stored, unlike a plain subscription to the subject, which hears it before.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker_crypto.errors import BrokerUnavailable

from .jsapi import Api, Refused

HEARTBEAT_SECONDS = 5.0  # how often an idle server says that the consumer is there
SILENCE_SECONDS = 12.0  # without a word for this long it is taken for dead
LOOK_SECONDS = 1.0  # how often a reconnect of the client is looked for
ANYWAY_SECONDS = 60.0  # rings after this in any case


class Bell:
    """One consumer on one subject. Only one caller waits at a time."""

    def __init__(self, api: Api, stream: str, subject: str) -> None:
        self._api = api
        self._stream = stream
        self._subject = subject
        self._event = asyncio.Event()
        self._subscription: Subscription | None = None
        self._consumer = ""
        self._heard = 0.0
        self._reconnects = -1

    async def rung(self) -> None:
        """Return once the subject may have grown since the last return. BrokerUnavailable if the bell cannot be hung."""
        if self._subscription is None or self._silent():
            await self._hang()
            return  # what came while there was no bell was not heard
        end = time.monotonic() + ANYWAY_SECONDS
        while not self._event.is_set() and not self._silent() and time.monotonic() < end:
            try:
                await asyncio.wait_for(self._event.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue
        self._event.clear()

    async def close(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        try:
            await subscription.unsubscribe()
            await self._api.nc.publish(f"{self._api.prefix}.CONSUMER.DELETE.{self._stream}.{self._consumer}")
        except (nats.errors.Error, OSError):
            pass

    def _silent(self) -> bool:
        gone = time.monotonic() - self._heard > SILENCE_SECONDS
        return gone or self._api.nc.is_closed or self._api.nc.stats["reconnects"] != self._reconnects

    async def _hang(self) -> None:
        await self.close()
        nc = self._api.nc
        await self._api.connected(time.monotonic() + self._api.timeout)
        self._reconnects = nc.stats["reconnects"]
        self._event.clear()
        inbox = nc.new_inbox()
        try:
            subscription = await nc.subscribe(inbox, cb=self._hear)
        except (nats.errors.Error, OSError) as error:
            raise BrokerUnavailable("the group log cannot be listened to", subject=self._subject) from error
        self._subscription = subscription
        self._consumer = "bc-" + secrets.token_hex(8)
        await self._make_consumer(inbox)
        self._heard = time.monotonic()

    async def _make_consumer(self, inbox: str) -> None:
        config: dict[str, Any] = {
            "name": self._consumer,
            "deliver_policy": "new",
            "deliver_subject": inbox,
            "ack_policy": "none",
            "replay_policy": "instant",
            "filter_subject": self._subject,
            "headers_only": True,
            "idle_heartbeat": int(HEARTBEAT_SECONDS * 10**9),
            "inactive_threshold": int(2 * SILENCE_SECONDS * 10**9),
            "mem_storage": True,
            "num_replicas": 1,
        }
        name = f"CONSUMER.CREATE.{self._stream}.{self._consumer}.{self._subject}"
        try:
            await self._api.call(name, {"stream_name": self._stream, "config": config})
        except BaseException as error:
            await self.close()
            if isinstance(error, Refused):
                raise BrokerUnavailable(f"the group log cannot be listened to: {error}", subject=self._subject) from error
            raise

    async def _hear(self, message: Msg) -> None:
        self._heard = time.monotonic()
        if (message.headers or {}).get("Status") != "100":
            self._event.set()
