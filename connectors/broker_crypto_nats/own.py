"""A connection that the agent makes for itself, where the policy names the servers and no application has attached one."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import nats
import nats.errors
from nats.aio.client import Client

from broker_crypto.delivery.ports import GroupLog, Topics
from broker_crypto.errors import BrokerUnavailable

from .grouplog import NatsGroupLog
from .topics import NatsTopics

CONNECT_SECONDS = 5


class _Tls(Protocol):
    @property
    def ca(self) -> Path | None: ...
    @property
    def certificate(self) -> Path | None: ...
    @property
    def private_key(self) -> Path | None: ...
    @property
    def hostname(self) -> str | None: ...


class _Login(Protocol):
    @property
    def user(self) -> str | None: ...
    @property
    def password(self) -> str | None: ...
    @property
    def token(self) -> str | None: ...
    @property
    def file(self) -> Path | None: ...


class Servers(Protocol):
    """One entry of `brokers` in a policy."""

    @property
    def name(self) -> str: ...
    @property
    def servers(self) -> Sequence[str]: ...
    @property
    def tls(self) -> _Tls | None: ...
    @property
    def credentials(self) -> _Login | None: ...


class OwnConnection:
    """Group logs and topics over a connection of our own; `close` ends it."""

    type = "nats"

    def __init__(self, nc: Client, broker: str, subjects: Callable[[str], Sequence[str]]) -> None:
        self._nc, self.broker, self._subjects = nc, broker, subjects

    @property
    def closed(self) -> bool:
        return bool(self._nc.is_closed)

    def group_log(self, replicas: int = 1) -> GroupLog:
        """A group log over this connection, one a group."""
        return NatsGroupLog(self._nc, replicas=replicas)

    def topics(self) -> Topics:
        return NatsTopics(self._nc, self._subjects)

    async def stored(self, stream: str, sequence: int) -> bytes:
        """The bytes of one message of a stream, as they lie there. Raises BrokerUnavailable where there is none."""
        try:
            message = await self._nc.jetstream().get_msg(stream, sequence)
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerUnavailable("no such message", stream=stream, sequence=sequence, reason=type(error).__name__) from None
        return bytes(message.data or b"")

    async def close(self) -> None:
        """End the connection."""
        await self._nc.close()


async def connect(settings: Servers, subjects: Callable[[str], Sequence[str]]) -> OwnConnection:
    """Connect as the policy says. Raises BrokerUnavailable, naming the broker and its servers."""
    options: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS, "max_reconnect_attempts": 1, "reconnect_time_wait": 0.2}
    if settings.tls is not None:
        options["tls"] = _context(settings.tls)
        if settings.tls.hostname is not None:
            options["tls_hostname"] = settings.tls.hostname
    if settings.credentials is not None:
        options |= _login(settings.credentials)
    try:
        nc = await asyncio.wait_for(nats.connect(list(settings.servers), error_cb=_silent, **options), 2 * CONNECT_SECONDS)
    except (nats.errors.Error, OSError, TimeoutError) as error:
        what = f"cannot connect ({type(error).__name__})"
        raise BrokerUnavailable(what, broker=settings.name, servers=list(settings.servers)) from None
    nc.options["max_reconnect_attempts"] = -1  # whoever asked is told of the first failure; later ones are waited out
    return OwnConnection(nc, settings.name, subjects)


async def _silent(error: Exception) -> None:
    """What goes wrong later shows in the group log's own calls."""


def _context(tls: _Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(tls.ca) if tls.ca else None)
    if tls.certificate is not None:
        context.load_cert_chain(str(tls.certificate), str(tls.private_key) if tls.private_key else None)
    return context


def _login(login: _Login) -> dict[str, Any]:
    found = {
        "user": login.user,
        "password": login.password,
        "token": login.token,
        "user_credentials": str(login.file) if login.file else None,
    }
    return {name: value for name, value in found.items() if value is not None}
