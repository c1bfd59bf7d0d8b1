"""Subscriptions whose messages come opened: core NATS, and JetStream's push consumers over the same code.

A message that was taken from the client and cannot be opened yet waits in a slot; it is neither lost nor overtaken, however
often the caller times out or is cancelled meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.client import JetStreamContext

from broker_crypto.records import Behind

from .incoming import Outcome, Receiver
from .message import SecureMsg
from .names import PUSH_SUBSCRIPTION, SUBSCRIPTION, Guarded
from .taking import Taker
from .waiting import end_of, take, within

if TYPE_CHECKING:
    from .gate import Gate

Callback = Callable[[SecureMsg], Awaitable[None]]


class Handler:
    """The coroutine function that the client calls for each message of a callback subscription.

    `auto_ack`: acknowledge after the application's callback has returned; one that raises leaves the message unacknowledged.
    Done here and not by the client, which would acknowledge what was never handed out.
    """

    def __init__(self, receiver: Receiver, callback: Callback, *, auto_ack: bool = False) -> None:
        self._receiver = receiver
        self._callback = callback
        self._auto_ack = auto_ack
        self.subscription: SecureSubscription | None = None
        self._taken = 0
        self.limit = 0

    async def handle(self, raw: Msg) -> None:
        """Open, wait if it is behind, call the application. What is raised here goes to the client's error_cb."""
        self._taken += 1
        try:
            if not self.limit or self._taken <= self.limit:
                await self._hand_out(raw)
        finally:
            if self.limit and self._taken >= self.limit and self.subscription is not None:
                self.subscription.end_soon()

    async def _hand_out(self, raw: Msg) -> None:
        await self._receiver.fresh()
        outcome = self._receiver.open((raw,))[0]
        if type(outcome) is Behind:
            await self._receiver.catch_up(outcome, (raw,))
            outcome = self._receiver.open((raw,), final=True)[0]
        message = await self._receiver.finish(outcome, raw)
        if message is None:
            return
        await self._callback(message)
        if self._auto_ack and raw.reply and not raw.is_acked:
            await message.ack()


class _Slot:
    """One message taken from the client that is not handed out yet, and the reading of the group log it may wait for."""

    __slots__ = ("outcome", "raw", "reading")

    def __init__(self, raw: Msg, outcome: Outcome | None = None) -> None:
        self.raw = raw
        self.outcome = outcome
        self.reading: asyncio.Task[None] | None = None


class SecureSubscription(Guarded):
    """`Subscription` whose messages are SecureMsg. Refused records are raised or passed over, as the policy says."""

    _names = SUBSCRIPTION

    def __init__(self, gate: Gate, inner: Subscription, receiver: Receiver, handler: Handler | None = None) -> None:
        self._gate = gate
        self._inner = inner
        self._receiver = receiver
        self._handler = handler
        self._taker = Taker(inner)
        self._slot: _Slot | None = None
        self._turn = asyncio.Lock()
        self._ending: asyncio.Task[None] | None = None
        if handler is not None:
            handler.subscription = self

    @property
    def messages(self) -> AsyncIterator[SecureMsg]:
        """Iterates opened messages. A raised refusal does not end it: iterate again and it goes on behind that record."""
        if self._handler is not None:
            raise nats.errors.Error("cannot iterate over messages with a non iteration subscription type")
        return _Messages(self)

    async def next_msg(self, timeout: float | None = 1.0) -> SecureMsg:
        """The next opened message. nats.errors.TimeoutError if none can be opened in time; none is lost by that."""
        ready = self._at_once()
        if ready is not None:
            return ready
        message = await self._next(end_of(timeout))
        if message is None:
            raise nats.errors.ConnectionClosedError if self._gate.nc.is_closed else nats.errors.BadSubscriptionError
        return message

    def _at_once(self) -> SecureMsg | None:
        """The next message if it is here and opens without waiting. One that does not goes into the slot."""
        if self._slot is not None or self._turn.locked() or not self._receiver.ready:
            return None
        raw = self._taker.at_once()
        if raw is None:
            return None
        outcome = self._receiver.open((raw,))[0]
        if type(outcome) is SecureMsg and not self._receiver.unstored:
            return outcome
        self._slot = _Slot(raw, outcome)
        return None

    async def _next(self, end: float | None) -> SecureMsg | None:
        """The next opened message, None when the subscription is over and nothing waits."""
        await take(self._turn, end)
        try:
            while True:
                if self._slot is None:
                    raw = await self._taker.wait(end)
                    if raw is None:
                        return None
                    self._slot = _Slot(raw)
                message = await self._work_off(self._slot, end)
                await self._receiver.answer_flow(self._inner)
                if message is not None:
                    return message
        finally:
            self._turn.release()

    async def _work_off(self, slot: _Slot, end: float | None) -> SecureMsg | None:
        """Hand the slot's message out, None if there is nothing to hand out of it. It stays if time runs out or on a cancellation."""
        if slot.outcome is None:
            await self._receiver.fresh()
            slot.outcome = self._receiver.open((slot.raw,))[0]
        if type(slot.outcome) is Behind:
            await self._read_log(slot, slot.outcome, end)
            slot.outcome = self._receiver.open((slot.raw,), final=True)[0]
        try:
            message = await self._receiver.finish(slot.outcome, slot.raw)
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._slot = None
            raise
        self._slot = None
        return message

    async def _read_log(self, slot: _Slot, behind: Behind, end: float | None) -> None:
        if slot.reading is None:
            slot.reading = asyncio.get_running_loop().create_task(self._receiver.catch_up(behind, (slot.raw,)))
        try:
            await within(asyncio.shield(slot.reading), end)
        finally:
            if slot.reading.done():  # if it failed, the next call reads anew
                slot.reading = None

    async def unsubscribe(self, limit: int = 0) -> None:
        """As the client's. With a callback and a limit the messages are counted here: all `limit` of them are handled."""
        if self._handler is None or limit == 0:
            if limit == 0:
                self._drop()
            await self._inner.unsubscribe(limit)
            return
        self._handler.limit = limit
        if self._inner.delivered >= limit and self._inner.pending_msgs == 0:
            await self._inner.unsubscribe()

    def end_soon(self) -> None:
        """Unsubscribe from a task of its own: the client cancels the one that handles messages."""
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        try:
            await self._inner.unsubscribe()
        except nats.errors.Error:
            pass  # closed or drained meanwhile

    async def drain(self) -> None:
        """Take no more, and work off what has come. A message that waits in the slot is still given by `next_msg`."""
        slot = self._slot
        if slot is not None and slot.reading is not None:
            await asyncio.wait({slot.reading})
        await self._inner.drain()

    def _drop(self) -> None:
        self._taker.stop()
        slot, self._slot = self._slot, None
        if slot is not None and slot.reading is not None:
            slot.reading.cancel()


class SecurePushSubscription(SecureSubscription):
    """`PushSubscription` whose messages are SecureMsg."""

    _names = PUSH_SUBSCRIPTION
    _inner: JetStreamContext.PushSubscription


class _Messages:
    """The iterator of `messages`. It ends with the subscription, after all that had come."""

    def __init__(self, subscription: SecureSubscription) -> None:
        self._subscription = subscription

    def __aiter__(self) -> _Messages:
        return self

    async def __anext__(self) -> SecureMsg:
        message = self._subscription._at_once()
        if message is None:
            message = await self._subscription._next(None)
        if message is None:
            raise StopAsyncIteration
        return message
