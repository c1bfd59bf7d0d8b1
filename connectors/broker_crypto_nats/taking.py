"""Takes messages out of the client's subscription, so that none is lost when the one who waits gives up.

The client's own `next_msg` and iterator lose a message that arrives in the moment in which they are cancelled, and make two
tasks for each that is there already. This takes it from the same queue with the same accounts (private names of nats-py, held
by a test); a wait that is given up goes on and its message is the next one taken.
"""

from __future__ import annotations

import asyncio

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from .waiting import left_of


class Taker:
    """For one subscription without a callback."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._queue = subscription._pending_queue
        self._waiting: asyncio.Task[Msg] | None = None
        self._stopped = False

    def at_once(self) -> Msg | None:
        """A message that is here, None if none is."""
        if self._stopped:
            return None
        if self._waiting is not None:
            return self._finish() if self._waiting.done() else None
        if self._queue.empty():
            return None
        return self._account(self._queue.get_nowait())

    async def wait(self, end: float | None) -> Msg | None:
        """The next message, None when the subscription is over. nats.errors.TimeoutError at `end` on the loop's clock."""
        if self._stopped:
            return None
        iterator = self._subscription._message_iterator
        if iterator is None:
            raise nats.errors.Error("nats: messages of a subscription with a callback go to the callback")
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_task(self._queue.get())
        both: set[asyncio.Future[Msg] | asyncio.Future[bool]] = {self._waiting, iterator._unsubscribed_future}
        await asyncio.wait(both, timeout=left_of(end), return_when=asyncio.FIRST_COMPLETED)
        if self._waiting is not None and self._waiting.done():
            return self._finish()
        if iterator._unsubscribed_future.done():
            self.stop()
            return None
        raise nats.errors.TimeoutError

    def stop(self) -> None:
        """Take no more; what waits in the client is discarded, as the client does."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _finish(self) -> Msg | None:
        waiting, self._waiting = self._waiting, None
        return None if waiting is None or waiting.cancelled() else self._account(waiting.result())

    def _account(self, message: Msg) -> Msg:
        self._subscription._pending_size -= len(message.data)
        self._queue.task_done()
        return message
