"""Whole contents of stores, for comparison."""

from __future__ import annotations

from collections.abc import Iterable

from broker_crypto.storage import StateStore

KINDS = ("group", "epoch", "intent", "staged")

Content = dict[tuple[str, bytes], bytes]


async def content(store: StateStore, kinds: Iterable[str] = KINDS) -> Content:
    found: Content = {}
    async with store.transaction() as tx:
        for kind in kinds:
            for key, value in await tx.scan(kind):
                assert await tx.get(kind, key) == value
                found[kind, key] = value
    return found


async def fill(store: StateStore, rows: Content) -> None:
    async with store.transaction() as tx:
        for (kind, key), value in rows.items():
            await tx.put(kind, key, value)
