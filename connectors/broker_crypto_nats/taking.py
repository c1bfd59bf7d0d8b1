"""Takes messages out of the client's subscription, so that none is lost when the one who waits gives up.

The client's own `next_msg` and iterator lose a message that arrives in the moment in which they are cancelled, and make tasks
for each message. This waits on the same queue with the same accounts (private names of nats-py, held by a test): a cancelled
wait on an asyncio.Queue takes nothing out of it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

_END: Final[Any] = Msg(_client=None)  # type: ignore[arg-type]  # put into the queue to wake whoever waits there


class Taker:
    """For one subscription without a callback; one caller at a time waits."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._queue: asyncio.Queue[Msg] = subscription._pending_queue
        self._over = False
        if subscription._message_iterator is not None:  # what the client sets when it unsubscribes, drains or closes
            subscription._message_iterator._unsubscribed_future.add_done_callback(self._ended)

    def at_once(self) -> Msg | None:
        """A message that is here, None if none is."""
        if self._over or self._queue.empty():
            return None
        return self._account(self._queue.get_nowait())

    async def wait(self, end: float | None) -> Msg | None:
        """The next message, None when the subscription is over. nats.errors.TimeoutError at `end` on the loop's clock."""
        subscription = self._subscription
        if subscription._message_iterator is None:
            raise nats.errors.Error("nats: messages of a subscription with a callback go to the callback")
        limit = subscription._max_msgs
        if self._over or (0 < limit <= subscription._received and self._queue.empty()):
            return None
        if end is None:
            return self._account(await self._queue.get())
        try:
            async with asyncio.timeout_at(end):
                message = await self._queue.get()
        except TimeoutError:
            raise nats.errors.TimeoutError from None
        return self._account(message)

    def stop(self) -> None:
        """Take no more; what waits in the client is discarded, as the client does."""
        self._over = True
        self._wake()

    def _ended(self, _: object) -> None:
        self._wake()

    def _wake(self) -> None:
        if not self._queue.full():
            self._queue.put_nowait(_END)

    def _account(self, message: Msg) -> Msg | None:
        self._queue.task_done()
        if message is _END:
            self._over = True
            return None
        self._subscription._pending_size -= len(message.data)
        return message
