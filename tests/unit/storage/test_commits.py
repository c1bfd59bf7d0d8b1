"""Transactions share an fsync, and stand or fall each for itself."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from broker_crypto import storage
from broker_crypto.errors import BrokerCryptoError, StoreUnavailable, UsageError
from broker_crypto.limits import STORE_SHARED_COMMIT
from broker_crypto.observe import MemoryMetrics, StoreFigures
from broker_crypto.storage import SqliteStore
from broker_crypto.storage.sqlite import Options, open_alone
from tests.unit.storage.conftest import KEY, GivenKey
from tests.unit.storage.rows import content, fill


class Heard:
    """A watch that remembers."""

    def __init__(self) -> None:
        self.commits: list[float] = []
        self.errors: list[BrokerCryptoError] = []
        self.threads: set[int] = set()

    def committed(self, seconds: float, /) -> None:
        self.commits.append(seconds)
        self.threads.add(threading.get_ident())

    def failed(self, error: BrokerCryptoError, /) -> None:
        self.errors.append(error)
        self.threads.add(threading.get_ident())


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def store(path: Path, heard: Heard) -> AsyncIterator[SqliteStore]:
    store = storage.open(path, GivenKey(), watch=heard)
    assert isinstance(store, SqliteStore)
    yield store
    await store.close()


def in_thread(store: SqliteStore, run: Callable[[sqlite3.Connection], object]) -> asyncio.Future[object]:
    """Something done to the database by its own thread, between jobs."""
    return store._writer.run(lambda: run(store._rows._connection))


def wait_for(gate: threading.Event) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: gate.wait(30)


async def write(store: SqliteStore, key: bytes, value: bytes = b"v") -> None:
    async with store.transaction() as tx:
        await tx.put("group", key, value)


async def settle() -> None:
    """Let every task go as far as it comes by itself."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_the_database_is_set_to_lose_nothing_and_to_keep_nothing_deleted(store: SqliteStore) -> None:
    settings = {"journal_mode": b"wal", "synchronous": 2, "secure_delete": 1, "foreign_keys": 1, "trusted_schema": 0, "temp_store": 2}
    for name, value in settings.items():
        assert await in_thread(store, lambda connection, name=name: connection.execute(f"PRAGMA {name}").fetchone()) == (value,)


async def test_transactions_that_wait_at_the_same_time_share_one_commit(store: SqliteStore, heard: Heard) -> None:
    gate = threading.Event()
    held = in_thread(store, wait_for(gate))
    tasks = [asyncio.create_task(write(store, b"%d" % n)) for n in range(STORE_SHARED_COMMIT + 44)]
    await settle()
    assert not any(task.done() for task in tasks)
    gate.set()
    await asyncio.gather(held, *tasks)
    assert len(heard.commits) == 2
    assert heard.threads == {threading.get_ident()}
    assert len(await content(store)) == STORE_SHARED_COMMIT + 44


async def test_a_block_ends_only_when_its_commit_is_on_disk(store: SqliteStore, path: Path) -> None:
    gate = threading.Event()
    held = in_thread(store, wait_for(gate))
    task = asyncio.create_task(write(store, b"k"))
    await asyncio.sleep(0.05)
    assert not task.done()
    gate.set()
    await task
    beside = storage.open(path, GivenKey(), beside=True)
    assert await content(beside) == {("group", b"k"): b"v"}
    await beside.close()
    await held


async def test_a_read_sees_the_commits_handed_over_before_it(store: SqliteStore) -> None:
    gate = threading.Event()
    held = in_thread(store, wait_for(gate))

    async def read_and_add() -> None:
        async with store.transaction() as tx:
            await tx.put("group", b"n", b"%d" % (int(await tx.get("group", b"n") or b"0") + 1))

    tasks = [asyncio.create_task(read_and_add()) for _ in range(20)]
    await settle()
    gate.set()
    await asyncio.gather(held, *tasks)
    assert await content(store) == {("group", b"n"): b"20"}


async def test_one_that_does_not_fit_on_a_full_disk_does_not_take_its_neighbours_down(store: SqliteStore, heard: Heard) -> None:
    await fill(store, {("group", b"before"): b"v"})
    await in_thread(store, lambda connection: connection.execute("PRAGMA max_page_count = 20").fetchall())
    gate = threading.Event()
    held = in_thread(store, wait_for(gate))
    small = [asyncio.create_task(write(store, b"small %d" % n)) for n in range(3)]
    large = asyncio.create_task(write(store, b"large", bytes(200_000)))
    more = [asyncio.create_task(write(store, b"more %d" % n)) for n in range(3)]
    await settle()
    gate.set()
    await asyncio.gather(held, *small, *more)
    with pytest.raises(StoreUnavailable) as raised:
        await large
    assert raised.value.retriable
    assert "SQLITE_FULL" in str(raised.value)
    kept = {b"before", *(b"small %d" % n for n in range(3)), *(b"more %d" % n for n in range(3))}
    assert {key for _, key in await content(store)} == kept
    assert [type(error) for error in heard.errors] == [StoreUnavailable]
    await in_thread(store, lambda connection: connection.execute("PRAGMA max_page_count = 1000000").fetchall())
    await write(store, b"large", bytes(200_000))


async def test_a_store_that_may_not_be_written_fails_every_write_and_still_reads(store: SqliteStore, heard: Heard) -> None:
    await fill(store, {("group", b"k"): b"v"})
    await in_thread(store, lambda connection: connection.execute("PRAGMA query_only = 1").fetchall())
    outcomes = await asyncio.gather(*(write(store, b"%d" % n) for n in range(5)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 5
    assert await content(store) == {("group", b"k"): b"v"}
    assert len(heard.errors) == 5
    await in_thread(store, lambda connection: connection.execute("PRAGMA query_only = 0").fetchall())
    await write(store, b"again")


async def test_while_another_process_writes_a_commit_waits_and_then_is_unavailable(path: Path) -> None:
    store = open_alone(path, KEY, Options(storage_random(), busy_seconds=0.05))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    outcomes = await asyncio.gather(*(write(store, b"%d" % n) for n in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3
    task = asyncio.create_task(write(store, b"later"))
    await asyncio.sleep(0.01)
    other.execute("ROLLBACK")
    await task
    assert await content(store) == {("group", b"later"): b"v"}
    other.close()
    await store.close()


def storage_random() -> Callable[[int], bytes]:
    import secrets

    return secrets.token_bytes


async def test_an_error_in_the_thread_reaches_its_caller_and_the_thread_goes_on(store: SqliteStore) -> None:
    def fail(connection: sqlite3.Connection) -> object:
        raise UsageError("of the job")

    with pytest.raises(UsageError):
        await in_thread(store, fail)
    await write(store, b"k")


async def test_the_figures_of_a_store_say_what_happened_to_it(path: Path) -> None:
    metrics = MemoryMetrics()
    store = storage.open(path, GivenKey(), watch=StoreFigures(metrics))
    assert isinstance(store, SqliteStore)
    await write(store, b"a")
    await write(store, b"b")
    assert metrics.value("store_commit_seconds") == 2
    assert metrics.value("store_errors_total") == 0
    await in_thread(store, lambda connection: connection.execute("PRAGMA query_only = 1").fetchall())
    with pytest.raises(StoreUnavailable):
        await write(store, b"c")
    assert metrics.value("store_commit_seconds") == 2
    assert metrics.value("store_errors_total") == 1
    await store.close()
