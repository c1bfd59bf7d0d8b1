"""Pull consumers: a fetched batch is opened in one call, and handed out in the order of the stream.

What comes goes into a backlog first and leaves it only when it is returned or raised. So a cancelled or timed-out call loses
nothing, and what lies behind a refused or waiting record comes with a later call, not before it: an application that
acknowledges everything up to a message (AckPolicy.ALL) must never skip one that it has not seen.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import ConsumerInfo
from nats.js.errors import FetchTimeoutError

from broker_crypto.errors import BrokerCryptoError
from broker_crypto.limits import HOLD_SECONDS
from broker_crypto.records import Behind

from .asking import PullRequests
from .incoming import Outcome, Receiver
from .message import SecureMsg
from .names import PULL_SUBSCRIPTION, Guarded
from .waiting import end_of, take, within

if TYPE_CHECKING:
    from .gate import Gate


class _Fetched:
    """One message taken from the server and not handed out yet; `outcome` None until it was opened."""

    __slots__ = ("outcome", "raw")

    def __init__(self, raw: Msg) -> None:
        self.raw = raw
        self.outcome: Outcome | None = None


class SecurePullSubscription(Guarded):
    """`PullSubscription` whose `fetch` gives SecureMsg. `next_subject` is where the consumer is asked for messages."""

    _names = PULL_SUBSCRIPTION
    _inner: Subscription

    def __init__(self, gate: Gate, receiver: Receiver, next_subject: str, info: Callable[[], Awaitable[ConsumerInfo]]) -> None:
        self._receiver = receiver
        self._info = info
        self._requests = PullRequests(gate.nc, next_subject, self._hold)
        self._backlog: deque[_Fetched] = deque()
        self._turn = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def start(self, prefix: bytes | None, **limits: Any) -> None:
        """Learn of the consumer and subscribe. BrokerUnavailable and the client's own errors."""
        await self._receiver.start(self._info)
        self._inner = await self._requests.open(prefix, **limits)

    async def fetch(self, batch: int = 1, timeout: float | None = 5, heartbeat: float | None = None) -> list[SecureMsg]:
        """Up to `batch` opened messages. nats.errors.TimeoutError if none can be opened in time.

        A record that the policy says to raise ends the list before it and is raised by the next call; the call after that
        goes on behind it. It is not acknowledged: `error.message` may be terminated or put back.
        """
        if batch < 1:
            raise ValueError("nats: invalid batch size")
        if timeout is not None and timeout <= 0:
            raise ValueError("nats: invalid fetch timeout")
        end = end_of(timeout)
        await take(self._turn, end)
        try:
            while True:
                if not self._backlog:
                    await self._requests.fill(batch, end, heartbeat)
                if not self._backlog:
                    raise FetchTimeoutError if self._requests.heard else nats.errors.TimeoutError
                messages = await self._take(batch, end)
                if messages:
                    return messages
        finally:
            self._turn.release()
            self._keep_backlog()

    def _hold(self, raw: Msg) -> None:
        self._backlog.append(_Fetched(raw))
        if not self._turn.locked():  # of a call that was cancelled
            self._keep_backlog()

    async def _take(self, batch: int, end: float | None) -> list[SecureMsg]:
        """Messages from the front of the backlog, none if what lies there was passed over."""
        await self._receiver.fresh()
        front = list(islice(self._backlog, batch))
        self._open([entry for entry in front if entry.outcome is None])
        if type(front[0].outcome) is Behind:
            await self._wait(front[0].outcome, end)
            self._open([entry for entry in front if type(entry.outcome) is Behind], final=True)
        messages: list[SecureMsg] = []
        done = 0
        try:
            await self._receiver.stored()
            for entry in front:
                outcome = entry.outcome
                if outcome is None or type(outcome) is Behind or (messages and isinstance(outcome, BrokerCryptoError)):
                    break  # waited for, or told, by the next call
                done += 1
                if type(outcome) is SecureMsg:
                    messages.append(outcome)
                else:
                    await self._receiver.finish(outcome, entry.raw)
        except asyncio.CancelledError:
            done = 0  # all of it is still to be handed out
            raise
        finally:
            for _ in range(done):
                self._backlog.popleft()
        return messages

    def _open(self, entries: list[_Fetched], final: bool = False) -> None:
        if entries:
            outcomes = self._receiver.open([entry.raw for entry in entries], final)
            for entry, outcome in zip(entries, outcomes, strict=True):
                entry.outcome = outcome

    async def _wait(self, behind: Behind, end: float | None) -> None:
        """Until the group log is read to its head, at most until `end`; the reading goes on for the next call."""
        if self._reading is None:
            held = [entry.raw for entry in self._backlog]
            self._reading = asyncio.get_running_loop().create_task(self._receiver.catch_up(behind, held))
        reading = self._reading
        try:
            await within(asyncio.shield(reading), end)
        finally:
            if reading.done():
                self._reading = None

    def _keep_backlog(self) -> None:
        """Tell the server for a while that what waits here is in work; then let it go, to be redelivered."""
        if self._backlog and (self._keeper is None or self._keeper.done()):
            self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + HOLD_SECONDS
        while self._backlog and loop.time() < end:
            await asyncio.sleep(self._receiver.half_ack_wait)
            await self._receiver.keep_alive([entry.raw for entry in self._backlog])
        if self._reading is None and not self._turn.locked():
            self._backlog.clear()

    @property
    def pending_msgs(self) -> int:
        """Messages that have come and were not handed out."""
        return len(self._backlog) + self._inner.pending_msgs

    @property
    def pending_bytes(self) -> int:
        return sum(len(entry.raw.data) for entry in self._backlog) + self._inner.pending_bytes

    async def consumer_info(self) -> ConsumerInfo:
        return await self._info()

    async def unsubscribe(self) -> None:
        """As the client's; what waits in the backlog is put back for another consumer at once."""
        for task in (self._reading, self._keeper):
            if task is not None:
                task.cancel()
        self._reading = self._keeper = None
        while self._backlog:
            raw = self._backlog.popleft().raw
            try:
                if not raw.is_acked:
                    await raw.nak()
            except (nats.errors.Error, OSError):
                break
        await self._inner.unsubscribe()
