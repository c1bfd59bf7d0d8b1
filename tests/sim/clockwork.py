"""An event loop whose time is a FakeClock: it never waits, and what happens depends on nothing but the program.

Where nothing can run, time goes on to the next timer. So an agent's own sleeps, timeouts and patience cost nothing, and
every run of one seed is the same.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from broker_crypto.testing import FakeClock

T = TypeVar("T")


class Stuck(AssertionError):
    """Everybody waits for something that cannot come."""


class _Selector(selectors.SelectSelector):
    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("nothing is due, and nobody can go on")
        if timeout > 0:
            self._clock.advance(timeout)
        return []


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """`time()` is the clock's."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(_Selector(clock))
        self._clock = clock

    def time(self) -> float:
        return self._clock.monotonic()


def run(main: Coroutine[Any, Any, T], clock: FakeClock) -> T:
    """Run `main` to its end in time that only `clock` knows."""
    with asyncio.Runner(loop_factory=lambda: FakeTimeLoop(clock)) as runner:
        return runner.run(main)
