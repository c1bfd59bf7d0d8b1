"""A store goes forward as a whole or not at all."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from broker_crypto import storage
from broker_crypto.errors import StateVersionError
from broker_crypto.records import Row
from broker_crypto.storage import SqliteStore
from broker_crypto.storage.schema import TABLES, Migrations, Step
from broker_crypto.storage.sqlite import Options, open_alone
from tests.unit.storage.conftest import KEY, GivenKey
from tests.unit.storage.rows import Content, content, fill

ROWS: Content = {("group", b"orders"): b"state", ("epoch", b"1"): b"old", ("staged", b"s"): bytes(10000)}
MORE = "CREATE TABLE more (name TEXT PRIMARY KEY) STRICT"


def forward(row: Row) -> Row | None:
    """Of version 2: groups are renamed, epochs changed, staged rows dropped."""
    if row.kind == "staged":
        return None
    if row.kind == "epoch":
        return Row("epoch", row.key, b"new from " + (row.value or b""))
    return Row("group", b"renamed " + row.key, row.value)


MIGRATIONS = Migrations(3, {1: Step((MORE,), forward), 2: Step()}, (*TABLES, MORE))


def opened(path: Path, migrations: Migrations = MIGRATIONS) -> SqliteStore:
    return open_alone(path, KEY, Options(secrets.token_bytes, migrations=migrations))


@pytest.fixture
async def old(path: Path) -> Path:
    store = storage.open(path, GivenKey())
    await fill(store, ROWS)
    await store.close()
    return path


async def test_every_step_runs_once_and_every_row_is_sealed_for_the_new_version(old: Path) -> None:
    for _ in range(2):
        store = opened(old)
        assert await content(store) == {("group", b"renamed orders"): b"state", ("epoch", b"1"): b"new from old"}
        await fill(store, {("intent", b"1"): b"written after"})
        async with store.transaction() as tx:
            await tx.delete("intent", b"1")
        await store.close()


async def test_what_a_newer_version_brought_forward_is_refused_by_the_older_one(old: Path) -> None:
    await opened(old).close()
    for beside in (False, True):
        with pytest.raises(StateVersionError):
            storage.open(old, GivenKey(), beside=beside)


async def test_a_migration_that_fails_leaves_the_old_store(old: Path) -> None:
    def fails_at_the_last(row: Row) -> Row | None:
        if row.kind == "staged":
            raise RuntimeError("a mistake in a step")
        return forward(row)

    with pytest.raises(RuntimeError):
        opened(old, Migrations(3, {1: Step(), 2: Step((MORE,), fails_at_the_last)}, (*TABLES, MORE)))
    store = storage.open(old, GivenKey())
    assert await content(store) == ROWS
    await store.close()
    await opened(old).close()


async def test_two_rows_that_would_become_one_are_not_lost_silently(old: Path) -> None:
    store = storage.open(old, GivenKey())
    await fill(store, {("group", b"payments"): b"state"})
    await store.close()
    with pytest.raises(Exception):
        opened(old, Migrations(2, {1: Step(row=lambda row: Row("group", b"same", row.value))}, TABLES))
    store = storage.open(old, GivenKey())
    assert await content(store) == ROWS | {("group", b"payments"): b"state"}
    await store.close()
