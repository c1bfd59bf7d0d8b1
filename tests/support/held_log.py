"""The group log of the shipped connector in a test's hand: appends that go together, a bell that is muffled, a log out of reach."""

from __future__ import annotations

import asyncio

from broker_crypto import errors
from broker_crypto.delivery.ports import GroupLog
from broker_crypto.records import LogEntry
from broker_crypto_nats import SecureNats


class Hand:
    """What a test does to the logs that it holds. `lost` counts the races that were lost.

    `wanted`: appends are held back until so many are there, then go together (0: they just go). `away`: every call is
    BrokerUnavailable. `muffled`: nobody is told that the log has grown.
    """

    def __init__(self) -> None:
        self.wanted = 0
        self.lost = 0
        self.away = False
        self.muffled = False
        self._there = 0
        self._go = asyncio.Event()

    async def barrier(self) -> None:
        if self.wanted == 0:
            return
        self._there += 1
        go = self._go
        if self._there < self.wanted:
            await go.wait()
            return
        self.wanted = self._there = 0
        self._go = asyncio.Event()
        go.set()

    def reach(self) -> None:
        if self.away:
            raise errors.BrokerUnavailable("the test holds the log")


class HeldLog:
    """A group log whose calls go through the hand first."""

    def __init__(self, inner: GroupLog, hand: Hand) -> None:
        self.inner, self.hand = inner, hand

    async def open(self, group: str, create: bool) -> str:
        self.hand.reach()
        return await self.inner.open(group, create)

    async def head(self) -> int:
        self.hand.reach()
        return await self.inner.head()

    async def read(self, position: int, limit: int) -> list[LogEntry]:
        self.hand.reach()
        return await self.inner.read(position, limit)

    async def append(self, record: bytes, expected: int | None) -> int | None:
        self.hand.reach()
        await self.hand.barrier()
        try:
            return await self.inner.append(record, expected)
        except errors.LostRace:
            self.hand.lost += 1
            raise

    async def changed(self) -> None:
        while True:
            await self.inner.changed()
            if not self.hand.muffled:
                return

    async def close(self) -> None:
        await self.inner.close()


def held(hand: Hand) -> type[SecureNats]:
    """The shipped client, its group logs in the hand."""

    class HeldNats(SecureNats):
        def group_log(self, replicas: int = 1) -> GroupLog:
            return HeldLog(super().group_log(replicas), hand)

    return HeldNats
