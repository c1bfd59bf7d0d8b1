"""JetStream: publishing sealed, subscribing opened, and the management calls that carry no application bytes.

Reading needs the right to ask for `STREAM.INFO` and `CONSUMER.INFO` of what is read: which stream a position belongs to is
part of judging a removed sender's records, and how long a message may wait is the consumer's setting.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import nats.errors
from nats.js import api
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError
from nats.js.manager import JetStreamManager

from broker_crypto.errors import BrokerCryptoError, NotBuilt
from broker_crypto.records import Behind, Place, Sealed, Security

from .fetching import SecurePullSubscription
from .incoming import Receiver, StreamIdentity
from .jsapi import DEFAULT_PREFIX, Api
from .message import SecureMsg
from .names import JETSTREAM, MANAGER, Guarded
from .outgoing import Pool, as_bytes, check_size, clean_headers, outer_headers
from .subscription import Handler, SecurePushSubscription

if TYPE_CHECKING:
    from .gate import Gate

_NEVER_ACKED = (api.AckPolicy.NONE, api.AckPolicy.FLOW_CONTROL)
Callback = Callable[[SecureMsg], Awaitable[None]]


@dataclass
class SecureRawStreamMsg(api.RawStreamMsg):
    """`RawStreamMsg` with `data` opened; its repr shows no data."""

    security: Security | None = None

    def __repr__(self) -> str:
        return f"<SecureRawStreamMsg subject={self.subject!r} seq={self.seq!r} security={self.security!r}>"


class SecureJetStreamManager(Guarded):
    """`JetStreamManager`: what reads stored messages opens them, all else is the client's."""

    _names = MANAGER
    _inner: Any

    def __init__(self, gate: Gate, inner: JetStreamManager, api_: Api) -> None:
        self._gate = gate
        self._inner = inner
        self._api = api_
        self._identities: dict[str, StreamIdentity] = {}

    async def get_msg(
        self,
        stream_name: str,
        seq: int | None = None,
        subject: str | None = None,
        direct: bool | None = False,
        next: bool | None = False,
    ) -> SecureRawStreamMsg:
        """As the client's, opened. Raises the record's refusal, whatever `on_failure` says: nothing is passed over here."""
        raw = await self._inner.get_msg(stream_name, seq, subject, direct, next)
        return await self._open(stream_name, raw)

    async def get_last_msg(self, stream_name: str, subject: str, direct: bool | None = False) -> SecureRawStreamMsg:
        """As the client's, opened; see `get_msg`."""
        return await self._open(stream_name, await self._inner.get_last_msg(stream_name, subject, direct))

    def _identity(self, stream: str) -> StreamIdentity:
        return self._identities.setdefault(stream, StreamIdentity(self._api, stream))

    async def _open(self, stream: str, raw: api.RawStreamMsg) -> SecureRawStreamMsg:
        copied = SecureRawStreamMsg(**{field.name: getattr(raw, field.name) for field in fields(raw)})
        subject = raw.subject or ""
        if self._gate.passes(subject):
            return copied
        channel = self._gate.channel(subject)
        identity = self._identity(stream)
        if not identity.fresh:
            await identity.refresh()
        headers = [(name, value.encode()) for name, value in raw.headers.items()] if raw.headers else None
        place = Place(channel.topic, -1, subject, None, (identity.value, raw.seq or 0), None)
        item = (place, raw.data or b"", headers)
        result = channel.reader(whole=False).open([item])[0]
        if isinstance(result, Behind):
            await self._gate.front.catch_up(result)
            result = channel.reader(whole=False).open([item], True)[0]
        if isinstance(result, BrokerCryptoError):
            raise result
        if isinstance(result, Behind):
            raise NotBuilt("a record that stays behind", subject=subject)
        copied.data, copied.security = result.payload, result.security
        copied.headers = outer_headers(result.headers or ())
        return copied


class SecureJetStream(SecureJetStreamManager):
    """`JetStreamContext`: publishes sealed, subscribes opened."""

    _names = JETSTREAM
    _inner: JetStreamContext

    def __init__(self, gate: Gate, inner: JetStreamContext, api_: Api) -> None:
        super().__init__(gate, inner, api_)
        self._nc = gate.nc
        self._pools: dict[Any, Pool] = {}

    async def publish(  # tidy: the client's own signature
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float | None = None,
        stream: str | None = None,
        headers: dict[str, Any] | None = None,
        msg_ttl: float | None = None,
    ) -> api.PubAck:
        """Seal, publish, return the stream's answer. Waiting until the group is ready does not count against `timeout`.

        MaxPayloadError if what is sealed and its headers are more than the server takes: nothing is sent then.
        """
        gate = self._gate
        if not gate.outbox.idle:
            await gate.outbox.empty()
        if gate.passes(subject):
            check_size(self._nc, payload, headers)
            return await self._inner.publish(subject, payload, timeout, stream, headers, msg_ttl)
        channel = gate.channel(subject)
        item = (Place(channel.topic, -1, subject), as_bytes(payload), clean_headers(headers))
        if not channel.ready:
            await gate.front.ready(channel.topic, self._api.timeout if timeout is None else timeout)
        pool = self._pools.get(channel)
        if pool is None:
            pool = self._pools[channel] = Pool(channel)
        pool.active += 1
        try:
            sealed = channel.seal((item,))[0] if pool.active == 1 else await pool.join(item)
            if sealed.rows:
                await gate.front.durable(sealed.rows)
            return await self._send(subject, sealed, timeout, stream, msg_ttl)
        finally:
            pool.active -= 1

    async def _send(
        self, subject: str, sealed: Sealed, timeout: float | None, stream: str | None, msg_ttl: float | None
    ) -> api.PubAck:
        headers = outer_headers(sealed.headers)
        if stream is not None:
            headers = {**(headers or {}), api.Header.EXPECTED_STREAM.value: stream}
        if msg_ttl is not None:
            headers = {**(headers or {}), api.Header.MSG_TTL.value: str(int(msg_ttl))}
        check_size(self._nc, sealed.data, headers)
        return await self._gate.acks.publish(subject, sealed.data, headers, self._api.timeout if timeout is None else timeout)

    async def subscribe(  # tidy: the client's own signature
        self,
        subject: str,
        queue: str | None = None,
        cb: Callback | None = None,
        durable: str | None = None,
        stream: str | None = None,
        config: api.ConsumerConfig | None = None,
        manual_ack: bool = False,
        ordered_consumer: bool = False,
        **how: Any,
    ) -> SecurePushSubscription:
        """As the client's. A callback is acknowledged after it has returned, unless `manual_ack`."""
        _refuse_ordered(ordered_consumer)
        self._gate.check(subject)
        stream = stream or await self._inner.find_stream_name_by_subject(subject)
        never = config is not None and config.ack_policy in _NEVER_ACKED
        receiver, handler = await self._receiver(stream, cb, auto_ack=not (manual_ack or never), whole=None if queue else subject)
        inner = await self._inner.subscribe(
            subject,
            queue,
            handler.handle if handler else None,
            durable=durable,
            stream=stream,
            config=config,
            manual_ack=True,
            **how,
        )
        return await self._pushed(inner, receiver, handler)

    async def subscribe_bind(  # tidy: the client's own signature
        self,
        stream: str,
        config: api.ConsumerConfig,
        consumer: str,
        cb: Callback | None = None,
        manual_ack: bool = False,
        ordered_consumer: bool = False,
        **how: Any,
    ) -> SecurePushSubscription:
        """As the client's; see `subscribe`."""
        _refuse_ordered(ordered_consumer)
        auto_ack = not (manual_ack or config.ack_policy in _NEVER_ACKED)
        receiver, handler = await self._receiver(stream, cb, auto_ack=auto_ack)
        inner = await self._inner.subscribe_bind(
            stream, config, consumer, cb=handler.handle if handler else None, manual_ack=True, **how
        )
        return await self._pushed(inner, receiver, handler)

    async def _receiver(
        self, stream: str, cb: Callback | None = None, *, auto_ack: bool = False, whole: str | None = None
    ) -> tuple[Receiver, Handler | None]:
        identity = StreamIdentity(self._api, stream)
        await identity.refresh()
        receiver = Receiver(self._gate, identity, whole=self._gate.whole(whole))
        return receiver, Handler(receiver, cb, auto_ack=auto_ack) if cb is not None else None

    async def _pushed(
        self, inner: JetStreamContext.PushSubscription, receiver: Receiver, handler: Handler | None
    ) -> SecurePushSubscription:
        try:
            await receiver.start(inner.consumer_info)
        except BaseException:
            await _give_up(inner)
            raise
        return SecurePushSubscription(self._gate, inner, receiver, handler)

    async def pull_subscribe(  # tidy: the client's own signature
        self,
        subject: str,
        durable: str | None = None,
        stream: str | None = None,
        config: api.ConsumerConfig | None = None,
        **how: Any,
    ) -> SecurePullSubscription:
        """As the client's."""
        self._gate.check(subject)
        stream = stream or await self._inner.find_stream_name_by_subject(subject)
        name = durable or secrets.token_hex(11)
        if not durable or not await self._exists(stream, durable):
            wanted = (config or api.ConsumerConfig()).evolve(name=name, durable_name=durable)
            if not wanted.filter_subjects:
                wanted = wanted.evolve(filter_subject=subject)
            await self._inner.add_consumer(stream, config=wanted)
        return await self._pull(stream, name, whole=None if durable else subject, **how)

    async def _exists(self, stream: str, consumer: str) -> bool:
        try:
            await self._inner.consumer_info(stream, consumer)
        except NotFoundError:
            return False
        return True

    async def pull_subscribe_bind(
        self, consumer: str | None = None, stream: str | None = None, inbox_prefix: bytes | None = None, **how: Any
    ) -> SecurePullSubscription:
        """As the client's."""
        named = how.pop("name", None)
        name = how.pop("durable", None) or named or consumer
        if not stream:
            raise ValueError("nats: stream name is required")
        if not name:
            raise ValueError("nats: consumer name is required")
        return await self._pull(stream, name, inbox_prefix=inbox_prefix, **how)

    async def _pull(
        self, stream: str, name: str, *, whole: str | None = None, inbox_prefix: bytes | None = None, **limits: Any
    ) -> SecurePullSubscription:
        receiver, _ = await self._receiver(stream, whole=whole)
        asked = f"{self._api.prefix}.CONSUMER.MSG.NEXT.{stream}.{name}"
        subscription = SecurePullSubscription(self._gate, receiver, asked, lambda: self._inner.consumer_info(stream, name))
        await subscription.start(inbox_prefix, **limits)
        return subscription


async def _give_up(subscription: Any) -> None:
    try:
        await subscription.unsubscribe()
    except nats.errors.Error:
        pass


def _refuse_ordered(ordered_consumer: bool) -> None:
    if ordered_consumer:
        raise NotBuilt("ordered consumers: the client's lose messages unseen when its own limit is reached")


def prefix_of(opts: dict[str, Any]) -> str:
    """The API prefix that `jetstream(**opts)` means."""
    domain = opts.get("domain")
    return f"$JS.{domain}.API" if domain is not None else str(opts.get("prefix", DEFAULT_PREFIX))


