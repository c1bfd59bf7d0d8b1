"""Waiting until a point on the loop's clock, and no longer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import nats.errors


async def within(waited: Awaitable[Any], end: float | None) -> None:
    """Await until `end` on the loop's clock (None: for ever), then raise the client's own TimeoutError."""
    scope = asyncio.timeout_at(end)
    try:
        async with scope:
            await waited
    except TimeoutError:
        if scope.expired():
            raise nats.errors.TimeoutError from None
        raise


async def take(turn: asyncio.Lock, end: float | None) -> None:
    """Acquire a lock by `end`; free locks cost no turn of the loop."""
    if turn.locked():
        await within(turn.acquire(), end)
    else:
        await turn.acquire()


def end_of(timeout: float | None) -> float | None:
    return None if timeout is None else asyncio.get_running_loop().time() + timeout


def left_of(end: float | None) -> float | None:
    """Seconds until `end`, at least 1 ms: the client takes no time-out of 0 for an answer."""
    return None if end is None else max(0.001, end - asyncio.get_running_loop().time())
