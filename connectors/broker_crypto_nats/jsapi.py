"""JetStream's own API as requests and answers in JSON: every call bounded, every failure one of two kinds.

The answers are read as the server wrote them, so that a setting that nats-py does not know yet is still seen.
"""

from __future__ import annotations

import asyncio
import calendar
import json
import time
from typing import Any

import nats.errors
from nats.aio.client import Client

from broker_crypto.errors import BrokerUnavailable

DEFAULT_PREFIX = "$JS.API"

NO_MESSAGE = 10037
NO_STREAM = 10059

_CONNECT_POLL_SECONDS = 0.02
_TRIES = (0.1, 0.3, 0.6)  # shares of the timeout: a request that went down with a connection is asked again, all are idempotent


class Refused(Exception):
    """The server's answer is an error that asking again does not change. `number` is its err_code."""

    def __init__(self, number: int, description: str) -> None:
        super().__init__(f"{description} ({number})")
        self.number = number
        self.description = description


class Api:
    """Requests to JetStream over one connection, each answered within `timeout` seconds."""

    def __init__(self, nc: Client, *, prefix: str = DEFAULT_PREFIX, timeout: float = 5.0) -> None:
        self.nc = nc
        self.prefix = prefix
        self.timeout = timeout

    async def call(self, name: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer to `<prefix>.<name>`; Refused if it is an error, BrokerUnavailable if there is none in time."""
        payload = b"" if body is None else json.dumps(body).encode()
        deadline = time.monotonic() + self.timeout
        for share in _TRIES:
            await self.connected(deadline)
            left = deadline - time.monotonic()
            try:
                reply = await self.nc.request(f"{self.prefix}.{name}", payload, timeout=max(0.05, min(left, share * self.timeout)))
                return _checked(json.loads(reply.data), name)
            except nats.errors.NoRespondersError as error:
                raise BrokerUnavailable("JetStream does not answer: is it enabled for this account?", request=name) from error
            except nats.errors.TimeoutError:
                continue
            except (nats.errors.Error, OSError, ValueError) as error:
                raise BrokerUnavailable(f"no answer from JetStream: {type(error).__name__}", request=name) from error
        raise BrokerUnavailable("no answer from JetStream in time", request=name)

    async def connected(self, deadline: float) -> None:
        """Wait for a reconnecting client until `deadline` (monotonic); nothing is buffered for later behind a caller's back."""
        while not self.nc.is_connected:
            if self.nc.is_closed or time.monotonic() >= deadline:
                raise BrokerUnavailable("not connected to NATS")
            await asyncio.sleep(_CONNECT_POLL_SECONDS)


def _checked(answer: dict[str, Any], name: str) -> dict[str, Any]:
    error = answer.get("error")
    if error is None:
        return answer
    description = str(error.get("description", ""))
    if error.get("code") == 503:
        raise BrokerUnavailable(f"JetStream: {description}", request=name)
    raise Refused(int(error.get("err_code", 0)), description)


def milliseconds(stamp: str) -> int:
    """A time as the server writes it (RFC 3339, UTC, up to nine decimals) in ms since 1970, rounded down."""
    whole, _, rest = stamp.removesuffix("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds * 1000 + int((rest + "000")[:3])
