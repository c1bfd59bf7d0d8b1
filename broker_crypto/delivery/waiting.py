"""Tasks that wait for one thing to happen in a group's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from broker_crypto import errors
from broker_crypto.delivery.ports import GroupLog


class Waiters:
    """Who waits now. One that gives up is forgotten at once, so that a broker out of reach for days leaves nothing here."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self) -> None:
        """Return when released."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        try:
            await future
        finally:
            self._waiting.pop(future, None)

    def asked(self) -> list[asyncio.Future[None]]:
        """Those who wait now, to be released later."""
        return list(self._waiting)

    def release(self, some: Iterable[asyncio.Future[None]] | None = None) -> None:
        """Let `some` go on, everybody where None is given."""
        for future in self.asked() if some is None else some:
            if not future.done():
                future.set_result(None)


async def first_of(waits: Iterable[Coroutine[Any, Any, object]], timeout: float) -> None:
    """Return when one of these has ended, or after `timeout` s; the others are ended."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def rung(log: GroupLog) -> None:
    """Return when the log may have grown; after a second where it cannot be told."""
    try:
        await log.changed()
    except errors.BrokerUnavailable:
        await asyncio.sleep(1.0)
