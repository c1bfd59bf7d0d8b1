"""Events as they happen: a queue of its own for everyone who listens, and callbacks. Nobody who is slow holds others up."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from broker_crypto.limits import EVENTS_QUEUE
from broker_crypto.records import Event

E = TypeVar("E", bound=Event)


class Listener:
    """One `events()`: at most EVENTS_QUEUE wait in it, the oldest is dropped and counted in `dropped`."""

    def __init__(self, kinds: tuple[type[Event], ...]) -> None:
        self.dropped = 0
        self._kinds = kinds or (Event,)
        self._queue: deque[Event] = deque(maxlen=EVENTS_QUEUE)
        self._more = asyncio.Event()
        self._closed = False

    def put(self, event: Event) -> None:
        """Queue an event of our kinds."""
        if isinstance(event, self._kinds):
            self.dropped += len(self._queue) == EVENTS_QUEUE
            self._queue.append(event)
            self._more.set()

    def close(self) -> None:
        """End the iteration behind what is queued."""
        self._closed = True
        self._more.set()

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Event:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._more.clear()
            await self._more.wait()
        return self._queue.popleft()


class EventHub:
    """Where events are reported. A callback that raises is dropped from then on and counted in `failed`."""

    def __init__(self) -> None:
        self.failed = 0
        self._closed = False
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()  # who lets go of one has ended it
        self._callbacks: dict[object, tuple[type[Event], Callable[[Event], None]]] = {}

    def report(self, event: Event) -> None:
        """Tell everyone."""
        for listener in list(self._listeners):
            listener.put(event)
        for key, (kind, callback) in list(self._callbacks.items()):
            if isinstance(event, kind):
                try:
                    callback(event)
                except Exception:  # an application's callback must not end the group's loop
                    self.failed += 1
                    self._callbacks.pop(key, None)

    def events(self, *kinds: type[Event]) -> Listener:
        """Events of these kinds (none named: all) from this call on."""
        listener = Listener(kinds)
        if self._closed:
            listener.close()
        self._listeners.add(listener)
        return listener

    def on(self, kind: type[E], callback: Callable[[E], None]) -> Callable[[], None]:
        """Call `callback` for every event of `kind`; returns what ends that."""
        key = object()
        self._callbacks[key] = (kind, callback)  # type: ignore[assignment]  # a callback of E only ever gets an E
        return lambda: self._callbacks.pop(key, None) and None

    def close(self) -> None:
        """End every iteration, also of those who come later."""
        self._closed = True
        for listener in self._listeners:
            listener.close()
