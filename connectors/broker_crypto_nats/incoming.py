"""Messages on their way in, in this order: what is whose, opened in one call a channel, waited for if behind, then judged.

1. Messages of the server itself (status, `$JS.`, `$SRV.`, `$SYS.`, inboxes) pass as they came.
2. A message of a subject without a rule is NoPolicy; one that did not come through its consumer is refused as `Relocated`.
3. What is behind the group log is held, kept alive at the server, and opened again after the log was read to its head.
4. A refused record is the policy's: raised, or terminated and passed over. Nothing else of it reaches the application.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import nats.errors
from nats.aio.msg import Msg
from nats.js.api import ConsumerInfo

from broker_crypto.errors import BrokerCryptoError, BrokerUnavailable, RecordRefused, Relocated
from broker_crypto.records import Behind, Decision, Opened, Place, Row

from .front import Channel, Item, Reader, Result
from .jsapi import Api, Refused
from .message import SecureMsg

if TYPE_CHECKING:
    from .gate import Gate

ACK = "$JS.ACK."
ACK_WAIT_SECONDS = 30.0  # the server's default
AGAIN_SECONDS = 1.0  # between tries to read a group log that is out of reach


class PassedOver(NamedTuple):
    """Not handed out. `term`: refused, and not to come again; else a duplicate that the policy drops, acknowledged."""

    term: bool


Outcome = SecureMsg | BrokerCryptoError | Behind | PassedOver
DROPPED, SKIPPED = PassedOver(term=False), PassedOver(term=True)


class StreamIdentity:
    """Creation time of one stream, looked at anew after every reconnect and never in between."""

    def __init__(self, api: Api, stream: str) -> None:
        self._api = api
        self.stream = stream
        self._reconnects = -1
        self.value = ""

    @property
    def fresh(self) -> bool:
        return bool(self._api.nc.stats["reconnects"] == self._reconnects)

    async def refresh(self) -> None:
        """BrokerUnavailable if the stream cannot be looked at (it needs the right to ask for `STREAM.INFO`)."""
        reconnects = self._api.nc.stats["reconnects"]
        try:
            info = await self._api.call(f"STREAM.INFO.{self.stream}")
        except Refused as refused:
            raise BrokerUnavailable(f"the stream cannot be looked at: {refused}", stream=self.stream) from refused
        self.value = str(info["created"])
        self._reconnects = reconnects


class Receiver:
    """Opens the messages of one subscription. `identity` None: core NATS, where nothing has a position or is acknowledged.

    `whole` is the topic of which this subscription gets every record, None if it gets a part or shares them.
    """

    def __init__(self, gate: Gate, identity: StreamIdentity | None = None, *, whole: str | None = None) -> None:
        self._gate = gate
        self._identity = identity
        self._whole = whole
        self._headers_only = False
        self._flow_control = False
        self._ack_wait = ACK_WAIT_SECONDS
        self._rows: list[Row] = []
        self._readers: dict[Channel, Reader] = {}
        self._started = asyncio.Event()
        if identity is None:
            self._started.set()

    @property
    def positioned(self) -> bool:
        return self._identity is not None

    @property
    def half_ack_wait(self) -> float:
        return self._ack_wait / 2

    async def start(self, info: Callable[[], Awaitable[ConsumerInfo]]) -> None:
        """Learn of the consumer what waiting needs to know. Messages that come before are held."""
        config = (await info()).config
        waits = [wait for wait in [config.ack_wait, *(config.backoff or ())] if wait]
        self._ack_wait = min(waits, default=ACK_WAIT_SECONDS)
        self._headers_only = bool(config.headers_only)
        self._flow_control = bool(config.flow_control)
        self._started.set()

    @property
    def ready(self) -> bool:
        """Whether messages can be opened now and nothing else is to be done about them."""
        return self._identity is None or (self._started.is_set() and self._identity.fresh and not self._flow_control)

    @property
    def unstored(self) -> bool:
        """Whether opening left something that must be durable first."""
        return bool(self._rows)

    async def answer_flow(self, subscription: Any) -> None:
        """Answer the server's flow control once all that came before it was taken, as the client's `next_msg` does."""
        control = subscription._sub._jsi if self._flow_control else None
        if control is not None and control._fcr and control.get_js_delivered() >= control._fciseq:
            answer, control._fcr = control._fcr, None
            await self._gate.nc.publish(answer)

    async def fresh(self) -> None:
        """Know which stream the positions belong to; waits only at the start and after a reconnect."""
        if self._identity is not None and not (self._started.is_set() and self._identity.fresh):
            await self._started.wait()
            if not self._identity.fresh:
                await self._identity.refresh()

    def open(self, raws: Sequence[Msg], final: bool = False) -> list[Outcome]:
        """One outcome a message, in their order."""
        outcomes: list[Outcome] = [DROPPED] * len(raws)
        waiting: dict[Channel, tuple[list[int], list[Item]]] = {}
        for at, raw in enumerate(raws):
            try:
                channel = self._channel(raw)
                if channel is None:
                    outcomes[at] = SecureMsg(self._gate, raw, None)
                    continue
                item = self._item(channel, raw)
            except BrokerCryptoError as error:
                outcomes[at] = self._refused(error, raw)
                continue
            places, items = waiting.setdefault(channel, ([], []))
            places.append(at)
            items.append(item)
        for channel, (places, items) in waiting.items():
            results = self._reader(channel).open(items, final)
            self._gate.front.seen(results)
            for at, result in zip(places, results, strict=True):
                outcomes[at] = self._outcome(result, raws[at])
        return outcomes

    def _channel(self, raw: Msg) -> Channel | None:
        """None for what passes as it came."""
        if not raw.data and (self._headers_only or (raw.headers and "Status" in raw.headers and not raw.reply.startswith(ACK))):
            return None
        if self._identity is not None and not raw.reply.startswith(ACK):
            raise Relocated("the message did not come through its consumer", subject=raw.subject)
        if self._gate.passes(raw.subject) or self._gate.is_inbox(raw.subject):
            return None
        return self._gate.channel(raw.subject)

    def _reader(self, channel: Channel) -> Reader:
        reader = self._readers.get(channel)
        if reader is None:
            reader = self._readers[channel] = channel.reader(whole=channel.topic == self._whole)
        return reader

    def _item(self, channel: Channel, raw: Msg) -> Item:
        headers = [(name, value.encode()) for name, value in raw.headers.items()] if raw.headers else None
        reply = raw.reply
        if self._identity is None:
            outer = None if reply.startswith(ACK) else reply
            return Place(channel.topic, -1, raw.subject, None, None, outer), raw.data, headers
        position = (self._identity.value, sequence_of(reply))
        return Place(channel.topic, -1, raw.subject, None, position, None), raw.data, headers

    def _outcome(self, result: Result, raw: Msg) -> Outcome:
        if isinstance(result, Opened):
            self._rows += result.rows
            if result.drop:
                if result.receipt is not None:
                    self._gate.front.acknowledged(result.receipt)
                return DROPPED
            return SecureMsg(self._gate, raw, result)
        if isinstance(result, RecordRefused | BrokerCryptoError):
            return self._refused(result, raw)
        return result

    def _refused(self, error: BrokerCryptoError, raw: Msg) -> Outcome:
        """What the policy says of a refused record; asked once a record. What is no record's fault is always raised."""
        if isinstance(error, RecordRefused) and "topic" in error.fields and self._gate.front.judge(error) == Decision.SKIP:
            return SKIPPED
        error.message = SecureMsg(self._gate, raw, None, error)  # type: ignore[attr-defined]
        return error

    async def finish(self, outcome: Outcome, raw: Msg) -> SecureMsg | None:
        """What is handed out, None for nothing; raises what is to be raised. `outcome` is not Behind."""
        await self.stored()
        if isinstance(outcome, SecureMsg):
            return outcome
        if isinstance(outcome, BrokerCryptoError):
            raise outcome
        if isinstance(outcome, PassedOver) and raw.reply.startswith(ACK) and not raw.is_acked:
            await (raw.term() if outcome.term else raw.ack())
        return None

    async def stored(self) -> None:
        """What opening left to be durable is, before anything is handed out."""
        if self._rows:
            rows, self._rows = self._rows, []
            await self._gate.front.durable(rows)

    async def catch_up(self, behind: Behind, held: Sequence[Msg]) -> None:
        """Read the group log to its head; meanwhile the server is told that the held messages are in work.

        While the log is out of reach it is tried again: nobody knows yet whether the records are to be refused.
        """
        reading = asyncio.ensure_future(self._read_log(behind))
        try:
            while not (await asyncio.wait({reading}, timeout=self.half_ack_wait if self.positioned else None))[0]:
                await self.keep_alive(held)
        except asyncio.CancelledError:
            reading.cancel()
            raise
        await reading

    async def _read_log(self, behind: Behind) -> None:
        while True:
            try:
                await self._gate.front.catch_up(behind)
            except BrokerUnavailable:
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                return

    async def keep_alive(self, held: Sequence[Msg]) -> None:
        for raw in held:
            try:
                if not raw.is_acked:
                    await raw.in_progress()
            except (nats.errors.Error, OSError):
                return  # the connection is down: the server redelivers


def sequence_of(reply: str) -> int:
    """Stream sequence in a JetStream reply subject; Relocated for one that the server would not write."""
    tokens = reply.split(".")
    try:
        return int(tokens[5] if len(tokens) == 9 else tokens[7])
    except (IndexError, ValueError):
        raise Relocated("a reply subject that is not the server's") from None
