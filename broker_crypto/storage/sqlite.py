"""The store on disk: SQLite with a write-ahead log, every row sealed (sealing.py), one writer thread (writer.py).

An agent opens it alone: the folder is locked, damage is looked for in every page and row, deleted rows are erased. A command
opens it beside the agent: it reads, each block one state of the store, and it may add rows of kind `intent`, which the
agent notices by `changed_by_others`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker_crypto.errors import StateCorrupt, StateVersionError, StoreUnavailable, UsageError
from broker_crypto.limits import STORE_BUSY_SECONDS
from broker_crypto.records import Random
from broker_crypto.storage import schema
from broker_crypto.storage.folder import FolderLock, prepare, unavailable
from broker_crypto.storage.forks import ForkGuard
from broker_crypto.storage.port import Transaction, Watch
from broker_crypto.storage.sealing import Sealer
from broker_crypto.storage.transaction import Turns, settled
from broker_crypto.storage.writer import Writer, as_error

BESIDE_KIND: Final = "intent"

_ONE: Final = "SELECT value FROM rows WHERE kind = ? AND key = ?"
_FROM: Final = "SELECT key, value FROM rows WHERE kind = ? AND key >= ? ORDER BY key"
_BETWEEN: Final = "SELECT key, value FROM rows WHERE kind = ? AND key >= ? AND key < ? ORDER BY key"


@dataclass(frozen=True, slots=True)
class Options:
    """How to open. `create` makes a store where there is none; `busy_seconds` bounds the wait for another process's write."""

    random: Random
    create: bool = True
    busy_seconds: float = STORE_BUSY_SECONDS
    watch: Watch | None = None
    migrations: schema.Migrations = schema.CURRENT


class Rows:
    """Reads of one connection. Lives in the writer's thread."""

    __slots__ = ("_connection", "_sealer", "_seen")

    def __init__(self, connection: sqlite3.Connection, sealer: Sealer) -> None:
        self._connection = connection
        self._sealer = sealer
        self._seen = self._data_version()

    def one(self, kind: str, key: bytes) -> bytes | None:
        with _blamed(kind, key):
            found = self._connection.execute(_ONE, (kind, key)).fetchone()
        return None if found is None else self._sealer.open(kind, key, found[0])

    def all(self, kind: str, prefix: bytes) -> list[tuple[bytes, bytes]]:
        end = _behind(prefix)
        with _blamed(kind, prefix):
            if end is None:
                found = self._connection.execute(_FROM, (kind, prefix)).fetchall()
            else:
                found = self._connection.execute(_BETWEEN, (kind, prefix, end)).fetchall()
        return [(key, self._sealer.open(kind, key, value)) for key, value in found]

    def changed(self) -> bool:
        """Whether another connection has committed since the last call."""
        now = self._data_version()
        changed, self._seen = now != self._seen, now
        return changed

    def hold(self) -> None:
        """Read one state of the store until `release`, whatever others commit."""
        self._connection.execute("BEGIN")
        try:
            version = schema.read_version(self._connection)
            if version != schema.VERSION:
                raise StateVersionError("the store was changed by another version meanwhile", version=version, known=schema.VERSION)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _data_version(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])


@contextlib.contextmanager
def _blamed(kind: str, key: bytes) -> Iterator[None]:
    """Damage that SQLite finds while it reads is damage of that row."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        typed = as_error(error)
        if isinstance(typed, StateCorrupt):
            raise StateCorrupt(kind=kind, key=key) from None
        raise typed from None


def _behind(prefix: bytes) -> bytes | None:
    """The smallest key behind all that begin with `prefix`, None where there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None


class SqliteStore:
    """A StateStore (see the port) in one file. Made by `open_alone` and `open_beside`."""

    ephemeral = False

    def __init__(self, path: Path, sealer: Sealer, rows: Rows, writer: Writer, lock: FolderLock | None) -> None:
        self.path = path
        self._sealer = sealer
        self._rows = rows
        self._writer = writer
        self._lock = lock
        self._turns = Turns(self)
        self._guard = ForkGuard(None if lock is None else lock.abandon)
        self._closed = False

    def __repr__(self) -> str:
        return f"<SqliteStore {str(self.path)!r}>"

    @property
    def store_id(self) -> bytes:
        """16 random bytes that name this store for its whole life."""
        return self._sealer.store_id

    @property
    def beside(self) -> bool:
        """Whether another process may be the store's agent: reads and new intents only."""
        return self._lock is None

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        return self._turns.transaction()

    async def changed_by_others(self) -> bool:
        self.check()
        return await self._writer.run(self._rows.changed)

    async def erased(self) -> None:
        self.check()
        await self._writer.erase()

    async def close(self) -> None:
        if self._closed or self._guard.forked:
            return
        async with self._turns.alone():
            if self._closed:
                return
            self._closed = True
            try:
                await settled(asyncio.get_running_loop().run_in_executor(None, self._writer.stop))
            finally:
                self._sealer.wipe()
                if self._lock is not None:
                    self._lock.release()

    # the backend of its transactions

    def check(self) -> None:
        self._guard.check()
        if self._closed:
            raise UsageError("the store is closed")

    def allow(self, kind: str, value: bytes | None) -> None:
        if self.beside and (kind != BESIDE_KIND or value is None):
            raise UsageError("beside an agent only new intents are written", kind=kind)

    async def begin(self) -> None:
        if self.beside:
            await self._writer.run(self._rows.hold)

    async def read(self, kind: str, key: bytes) -> bytes | None:
        return await self._writer.run(lambda: self._rows.one(kind, key))

    async def read_all(self, kind: str, prefix: bytes) -> list[tuple[bytes, bytes]]:
        return await self._writer.run(lambda: self._rows.all(kind, prefix))

    def hand_over(self, writes: Mapping[tuple[str, bytes], bytes | None]) -> asyncio.Future[None]:
        if self._guard.forked:
            return _nothing()
        released = self._writer.run(self._rows.release) if self.beside else _nothing()
        return self._writer.write(writes) if writes else released


def _nothing() -> asyncio.Future[None]:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


def open_alone(path: Path, provider_key: bytes, options: Options) -> SqliteStore:
    """The agent's own store: locked until closed. Made where there is none.

    Raises StateLocked, StateVersionError, StateCorrupt, StoreUnavailable; UsageError for a folder that is open to others.
    """
    if not options.create and not path.exists():
        raise StoreUnavailable("there is no store", path=str(path))
    prepare(path)
    lock = FolderLock(path.parent)
    try:
        _make_or_refuse(path, provider_key, options)
        return _opened(path, lock, options, lambda connection: _examine(connection, provider_key, options))
    except BaseException:
        lock.release()
        raise


def open_beside(path: Path, provider_key: bytes, options: Options) -> SqliteStore:
    """The store of an agent that may be running: to read, and to add intents. Errors as `open_alone`, without StateLocked."""
    if not path.exists():
        raise StoreUnavailable("there is no store", path=str(path))

    def examine(connection: sqlite3.Connection) -> Sealer:
        version = schema.read_version(connection)
        if version != schema.VERSION:
            raise StateVersionError("the store waits for its agent to bring it forward", version=version, known=schema.VERSION)
        schema.check_tables(connection)
        return schema.open_sealer(connection, provider_key, version, options.random)

    return _opened(path, None, options, examine)


def _make_or_refuse(path: Path, provider_key: bytes, options: Options) -> None:
    """A missing database is made. An empty one, or a log without its database, is damage: never begun anew."""
    log = path.with_name(path.name + "-wal")
    try:
        missing = not path.exists()
        emptied = path.is_file() and not path.stat().st_size
        if emptied or (missing and log.exists() and log.stat().st_size):
            raise StateCorrupt("the database was emptied or taken away", kind="header", key=b"pages")
        if missing:
            schema.create(path, provider_key, options.random)
    except OSError as error:
        raise unavailable("the store cannot be made", path, error) from None
    except sqlite3.Error as error:
        raise as_error(error) from None


def _opened(path: Path, lock: FolderLock | None, options: Options, examine: Callable[[sqlite3.Connection], Sealer]) -> SqliteStore:
    try:
        connection = schema.connect(path, options.busy_seconds)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise as_error(error) from None
    try:
        sealer = examine(connection)
        rows = Rows(connection, sealer)
    except BaseException as error:
        connection.close()
        raise as_error(error) from None
    writer = Writer(connection, sealer, insert_only=lock is None, busy_seconds=options.busy_seconds, watch=options.watch)
    return SqliteStore(path, sealer, rows, writer, lock)


def _examine(connection: sqlite3.Connection, provider_key: bytes, options: Options) -> Sealer:
    migrations = options.migrations
    version = schema.read_version(connection, migrations.version)
    sealer = schema.open_sealer(connection, provider_key, version, options.random)
    if connection.execute("PRAGMA journal_mode=WAL").fetchone() != (b"wal",):
        raise StoreUnavailable("this file system cannot keep a write-ahead log")
    if version < migrations.version:
        sealer = migrations.run(connection, sealer, provider_key, version)
    schema.check_tables(connection, migrations.tables)
    schema.check_rows(connection, sealer)
    return sealer
