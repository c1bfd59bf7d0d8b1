"""The sealing client: a connected `nats.NATS` and an agent, put together. Nothing of the client is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Self

from nats.aio.client import Client
from nats.aio.msg import Msg

from broker_crypto.delivery.ports import GroupLog, Topics
from broker_crypto.errors import NotBuilt
from broker_crypto.limits import SEALED_BYTES
from broker_crypto.records import Place

from .front import Front
from .gate import Gate
from .grouplog import NatsGroupLog
from .incoming import Receiver
from .jetstream import SecureJetStream, SecureJetStreamManager, prefix_of
from .jsapi import Api
from .message import SecureMsg
from .names import CLIENT, Guarded
from .outgoing import Waiting, as_bytes, check_size, clean_headers, outer_headers
from .subscription import Handler, SecureSubscription
from .topics import NatsTopics

WAIT_SECONDS = 5.0  # how long a core publish waits for its group: JetStream's own default time-out
SHARED_BYTES = 64 * 1024  # messages up to this, and up to a quarter of max_payload, may be signed with others

_Callback = Callable[[SecureMsg], Awaitable[None]]


class SecureNats(Guarded):
    """`nats.NATS` whose messages are sealed and opened by the agent's policy. Refuses every name it does not know.

    `nc` is connected, and stays the application's; `broker` names an entry of the policy's `brokers` where two are NATS.
    Attaches to the agent; `close` and `drain` detach and close `nc`.
    """

    _names = CLIENT
    type = "nats"

    def __init__(self, nc: Client, agent: Front, *, broker: str | None = None) -> None:
        self._inner = nc
        self.broker = broker
        self._gate = Gate(nc, agent)
        self._gate.broker = agent.attach(self)

    # --- what the agent is given

    @property
    def closed(self) -> bool:
        return bool(self._inner.is_closed)

    def group_log(self, replicas: int = 1) -> GroupLog:
        """A group log over this connection, one a group."""
        return NatsGroupLog(self._inner, replicas=replicas)

    def topics(self) -> Topics:
        return NatsTopics(self._inner, self._gate.front.subjects)

    # --- sending

    async def publish(self, subject: str, payload: bytes = b"", reply: str = "", headers: dict[str, str] | None = None) -> None:
        """As the client's, sealed. Messages of one turn of the loop are signed together and go out in their order.

        Waits only while the group is not ready, or for the client's own buffer. MaxPayloadError counts the headers.
        """
        gate = self._gate
        if gate.passes(subject):
            await gate.clear(subject, payload, reply, headers)
            return
        channel = gate.channel(subject)
        place = Place(channel.topic, -1, subject, None, None, reply or None)
        message = Waiting(channel, place, as_bytes(payload), clean_headers(headers))
        if not channel.ready:
            await gate.front.ready(channel.topic, WAIT_SECONDS)
        if not channel.ready or not self._may_wait(message):  # not ready still: who may not write is told by sealing
            await self._publish_alone(message)
        elif gate.outbox.put(message):
            await gate.outbox.empty()

    async def _publish_alone(self, message: Waiting) -> None:
        """Behind what waits, so that every error is its caller's."""
        gate, place = self._gate, message.place
        await gate.outbox.empty()
        sealed = message.channel.seal([message[1:]])[0]
        if sealed.rows:
            await gate.front.durable(sealed.rows)
        outer = outer_headers(sealed.headers)
        check_size(self._inner, sealed.data, outer)
        await self._inner.publish(place.subject, sealed.data, place.reply or "", outer)

    def _may_wait(self, message: Waiting) -> bool:
        """Whether nothing can be wrong with a message that its caller would have to be told."""
        nc = self._inner
        size = len(message.payload) + sum(len(name) + len(value or b"") for name, value in message.headers or ())
        if size > SHARED_BYTES or 4 * size > nc.max_payload or not nc.is_connected or nc.is_draining:
            return False
        return _plain_word(message.place.subject) and _plain_word(message.place.reply or "x")

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        old_style: bool = False,
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        """To the server's own subjects (`$JS.`, `$SRV.`, `$SYS.`) as the client's. NotBuilt for all others."""
        if not self._gate.passes(subject) or old_style:
            raise NotBuilt("request and reply", subject=subject)
        await self._gate.outbox.empty()
        check_size(self._inner, payload, headers)
        answer: Msg = await self._inner.request(subject, payload, timeout, headers=headers)
        return answer

    # --- receiving

    async def subscribe(  # tidy: the client's own signature
        self,
        subject: str,
        queue: str = "",
        cb: _Callback | None = None,
        future: asyncio.Future[Any] | None = None,
        max_msgs: int = 0,
        **limits: Any,
    ) -> SecureSubscription:
        """As the client's; messages come opened. `future` is NotBuilt."""
        if future is not None:
            raise NotBuilt("subscribing a future", subject=subject)
        gate = self._gate
        gate.check(subject)
        receiver = Receiver(gate, whole=None if queue else gate.whole(subject))
        handler = Handler(receiver, cb) if cb is not None else None
        inner = await self._inner.subscribe(subject, queue, handler.handle if handler else None, None, max_msgs, **limits)
        return SecureSubscription(gate, inner, receiver, handler)

    # --- the rest

    @property
    def max_payload(self) -> int:
        """What a message may hold: the server's limit less what sealing adds without headers, padding and a shared signature."""
        limit: int = self._inner.max_payload
        return max(0, limit - SEALED_BYTES)

    def jetstream(self, **opts: Any) -> SecureJetStream:
        """The sealing JetStream context; options as the client's."""
        return SecureJetStream(self._gate, self._inner.jetstream(**opts), self._api(opts))

    def jsm(self, **opts: Any) -> SecureJetStreamManager:
        return SecureJetStreamManager(self._gate, self._inner.jsm(**opts), self._api(opts))

    def _api(self, opts: dict[str, Any]) -> Api:
        return Api(self._inner, prefix=prefix_of(opts), timeout=float(opts.get("timeout", 5.0)))

    async def flush(self, timeout: int = 10) -> None:
        await self._gate.outbox.empty()
        await self._inner.flush(timeout)

    async def drain(self) -> None:
        """Our own queue first, then the client's; then detach."""
        await self._gate.outbox.empty()
        await self._inner.drain()
        self._gate.front.detach(self)

    async def close(self) -> None:
        """Our own queue first, then the client's; then detach. May be called again."""
        try:
            await self._gate.outbox.empty()
        finally:
            self._gate.front.detach(self)
            await self._inner.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<SecureNats broker={self._gate.broker!r}>"


def _plain_word(subject: str) -> bool:
    """A subject with nothing in it that the client refuses."""
    return bool(subject) and " " not in subject and subject.isprintable()


