"""What was deleted or overwritten is in no file of the store any more."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker_crypto import storage
from broker_crypto.errors import StoreUnavailable
from broker_crypto.storage import StateStore, eraser
from tests.unit.storage.conftest import GivenKey
from tests.unit.storage.rows import Content, content, fill
from tests.unit.storage.test_commits import Heard


def rows_of(name: bytes) -> Content:
    """50 rows, some larger than a page."""
    return {("epoch", name + b" key %02d" % n): b"stream secret %02d of an epoch, " % n + name * (1 + n % 7 * 160) for n in range(50)}


ERASED = rows_of(b"erased")
KEPT = rows_of(b"kept")


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def store(path: Path, heard: Heard) -> AsyncIterator[StateStore]:
    store = storage.open(path, GivenKey(), watch=heard)
    await fill(store, ERASED | KEPT)
    yield store
    await store.close()


def sealed(path: Path) -> dict[bytes, bytes]:
    """Every sealed row by its key, read past the store."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT key, value FROM rows").fetchall())


def pieces(row: bytes) -> list[bytes]:
    """Up to 24 pieces of 8 bytes from all over a sealed row; a large one is spread over pages."""
    return [row[at : at + 8] for at in range(0, len(row) - 7, max(8, len(row) // 24))]


def traces(path: Path, row: bytes) -> int:
    """How many of a sealed row's pieces lie anywhere in the folder."""
    files = b"\n".join(file.read_bytes() for file in path.parent.iterdir())
    return sum(piece in files for piece in pieces(row))


@pytest.fixture
def only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is erased by itself, so that a test sees what would be left."""
    monkeypatch.setattr(eraser, "STORE_ERASE_SECONDS", 3600.0)


async def delete(store: StateStore, rows: Content) -> None:
    async with store.transaction() as tx:
        for kind, key in rows:
            await tx.delete(kind, key)


@pytest.mark.usefixtures("only_when_asked")
async def test_nothing_of_a_deleted_row_is_left_in_any_file_once_erased_returns(store: StateStore, path: Path) -> None:
    rows = sealed(path)
    gone, kept = [rows[key] for _, key in ERASED], [rows[key] for _, key in KEPT]
    assert all(traces(path, row) for row in gone + kept)
    await delete(store, ERASED)
    assert all(traces(path, row) for row in gone)  # deleting alone erases nothing
    await store.erased()
    assert sum(traces(path, row) for row in gone) == 0
    assert not any(key in file.read_bytes() for file in path.parent.iterdir() for _, key in ERASED)
    assert all(traces(path, row) >= len(pieces(row)) - 2 for row in kept)  # a piece may lie across two pages
    assert await content(store, ["epoch"]) == KEPT


async def test_nothing_of_an_overwritten_row_is_left_either(store: StateStore, path: Path) -> None:
    rows = sealed(path)
    await fill(store, dict.fromkeys(ERASED, b"new"))
    await store.erased()
    assert sum(traces(path, rows[key]) for _, key in ERASED) == 0


async def test_no_plaintext_is_ever_in_any_file(store: StateStore, path: Path) -> None:
    def looked() -> bool:
        files = b"\n".join(file.read_bytes() for file in path.parent.iterdir())
        assert b"kept key 01" in files  # keys of rows are not hidden: the search works
        return b"stream secret" in files or GivenKey().key() in files

    assert not looked()
    await store.erased()
    assert not looked()
    await delete(store, ERASED)
    assert not looked()


async def test_without_anybody_asking_it_is_gone_soon(store: StateStore, path: Path) -> None:
    rows = sealed(path)
    await delete(store, ERASED)
    give_up = time.monotonic() + 30
    while any(traces(path, rows[key]) for _, key in ERASED):
        assert time.monotonic() < give_up
        await asyncio.sleep(0.05)


async def test_a_reader_in_another_process_holds_an_erasure_up_which_is_reported_and_then_done(
    store: StateStore, path: Path, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    command = storage.open(path, GivenKey(), beside=True)
    async with command.transaction() as tx:
        await tx.get("epoch", b"kept key 01")
        rows = sealed(path)
        await delete(store, ERASED)
        erased = asyncio.create_task(store.erased())
        while not heard.errors:
            await asyncio.sleep(0.02)
        assert not erased.done()
        assert any(traces(path, rows[key]) for _, key in ERASED)
        await fill(store, {("group", b"k"): b"goes on"})
    await erased
    assert sum(traces(path, rows[key]) for _, key in ERASED) == 0
    assert [type(error) for error in heard.errors] == [StoreUnavailable]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    await command.close()


@pytest.mark.usefixtures("only_when_asked")
async def test_what_a_crash_left_in_the_log_is_gone_after_opening(store: StateStore, path: Path, tmp_path: Path) -> None:
    rows = sealed(path)
    await delete(store, ERASED)
    crashed = tmp_path / "crashed" / "agent.db"
    crashed.parent.mkdir(mode=0o700)
    for file in path.parent.iterdir():
        (crashed.parent / file.name).write_bytes(file.read_bytes())
    assert any(traces(crashed, rows[key]) for _, key in ERASED)
    again = storage.open(crashed, GivenKey())
    await again.erased()
    assert sum(traces(crashed, rows[key]) for _, key in ERASED) == 0
    assert await content(again, ["epoch"]) == KEPT
    await again.close()


async def test_after_closing_nothing_but_the_database_is_left_and_nothing_deleted_in_it(path: Path) -> None:
    store = storage.open(path, GivenKey())
    await fill(store, ERASED | KEPT)
    rows = sealed(path)
    await delete(store, ERASED)
    await store.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert sum(traces(path, rows[key]) for _, key in ERASED) == 0
