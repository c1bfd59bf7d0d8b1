"""The tables of a store, how a new one comes to be, and how an old one goes forward.

A new database is built under another name and renamed when it is whole and on disk: under its own name there is never half of one,
so an empty file there is damage, not a beginning. A migration re-seals every row, because a row's associated data names
the schema version, and is one transaction.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker_crypto.errors import StateCorrupt, StateVersionError
from broker_crypto.records import Random, Row
from broker_crypto.storage.folder import files, staging
from broker_crypto.storage.keys import sync_folder
from broker_crypto.storage.sealing import Sealer, new_sealer, unwrapped

APPLICATION_ID: Final = 0x42435354  # "BCST" in the header of the database file
VERSION: Final = 1

TABLES: Final = (
    "CREATE TABLE header (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE rows (kind TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key)) STRICT, WITHOUT ROWID",
)

_SOUND: Final = "typeof(kind) = 'text' AND typeof(key) = 'blob' AND typeof(value) = 'blob'"
_SETTINGS: Final = (
    "synchronous=FULL",
    "secure_delete=ON",
    "foreign_keys=ON",
    "trusted_schema=OFF",
    "cell_size_check=ON",
    "temp_store=MEMORY",
)


def _unchanged(row: Row) -> Row | None:
    return row


@dataclass(frozen=True, slots=True)
class Step:
    """From one version to the next: statements, then each row (None drops it)."""

    statements: Sequence[str] = ()
    row: Callable[[Row], Row | None] = _unchanged


STEPS: Final[Mapping[int, Step]] = {}  # by the version that a step begins at; VERSION has none


def connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """A connection with our settings, usable from any thread (one at a time)."""
    where = f"file:{_quoted(path)}?mode=rw"
    connection = sqlite3.connect(where, uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    connection.text_factory = bytes
    try:
        for setting in _SETTINGS:
            connection.execute(f"PRAGMA {setting}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def create(database: Path, provider_key: bytes, random: Random) -> None:
    """A new, empty store under `database`, on disk when this returns. The caller holds the folder's lock."""
    building = staging(database)
    for left_over in files(building):
        if left_over.name.startswith(building.name):
            left_over.unlink(missing_ok=True)
    os.close(os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    sealer = new_sealer(VERSION, random)
    with contextlib.closing(connect(building, 0)) as connection:
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.execute("BEGIN IMMEDIATE")
        for statement in TABLES:
            connection.execute(statement)
        _put_header(connection, sealer, provider_key, VERSION)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute("COMMIT")
    os.replace(building, database)
    sync_folder(database.parent)
    sealer.wipe()


def _put_header(connection: sqlite3.Connection, sealer: Sealer, provider_key: bytes, version: int) -> None:
    put = "INSERT OR REPLACE INTO header VALUES (?, ?)"
    connection.execute(put, ("store_id", sealer.store_id))
    connection.execute(put, ("data_key", sealer.wrapped(provider_key)))
    connection.execute(f"PRAGMA user_version={version}")


def read_version(connection: sqlite3.Connection, known: int = VERSION) -> int:
    """The schema version of an open database. Raises StateVersionError unless it is ours and not newer than `known`."""
    application = _number(connection, "application_id")
    version = _number(connection, "user_version")
    if application != APPLICATION_ID:
        raise StateVersionError("no store of broker_crypto", application=application)
    if version > known:
        raise StateVersionError("the store was written by a newer version", version=version, known=known)
    if version < 1:
        raise StateCorrupt(kind="header", key=b"version")
    return version


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def check_tables(connection: sqlite3.Connection, tables: Sequence[str] = TABLES) -> None:
    """Raises StateCorrupt unless the database has our tables and nothing else: a trigger could keep what is deleted."""
    found = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    if len(found) != len(tables) or {sql for (sql,) in found} != {table.encode() for table in tables}:
        raise StateCorrupt(kind="header", key=b"tables")


def open_sealer(connection: sqlite3.Connection, provider_key: bytes, version: int, random: Random) -> Sealer:
    """The Sealer of an open database. Raises StateCorrupt where the key is another or a byte changed."""
    header = dict(connection.execute("SELECT name, value FROM header").fetchall())
    return unwrapped(header.get(b"data_key"), provider_key, header.get(b"store_id"), version, random)


def check_rows(connection: sqlite3.Connection, sealer: Sealer) -> int:
    """Open every page and every row; their number. Raises StateCorrupt, with kind and key where one row is the fault."""
    faults = connection.execute("PRAGMA integrity_check(1)").fetchall()
    if faults != [(b"ok",)]:
        raise StateCorrupt(kind="header", key=b"pages")
    number = 0
    for kind, key, value, sound in connection.execute(f"SELECT kind, key, value, {_SOUND} FROM rows"):  # noqa: S608  a constant
        if not sound:  # such a row would be found by no key
            raise StateCorrupt(kind="header", key=b"pages")
        sealer.open(_text(kind), key, value)
        number += 1
    return number


def _text(kind: bytes) -> str:
    return kind.decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Migrations:
    """What this version knows: `version`, and the step from each older one. Tests bring their own."""

    version: int = VERSION
    steps: Mapping[int, Step] = field(default_factory=lambda: STEPS)
    tables: Sequence[str] = TABLES

    def run(self, connection: sqlite3.Connection, sealer: Sealer, provider_key: bytes, version: int) -> Sealer:
        """Bring the open database from `version` to ours, all or nothing. The Sealer for it from now on."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            while version < self.version:
                sealer = _step(connection, sealer, self.steps[version], version + 1)
                version += 1
            _put_header(connection, sealer, provider_key, version)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return sealer


CURRENT: Final = Migrations()


def _step(connection: sqlite3.Connection, sealer: Sealer, step: Step, version: int) -> Sealer:
    after = sealer.at_version(version)
    for statement in step.statements:
        connection.execute(statement)
    for kind, key in connection.execute("SELECT kind, key FROM rows").fetchall():
        (sealed,) = connection.execute("SELECT value FROM rows WHERE kind = ? AND key = ?", (_text(kind), key)).fetchone()
        row = step.row(Row(_text(kind), key, sealer.open(_text(kind), key, sealed)))
        connection.execute("DELETE FROM rows WHERE kind = ? AND key = ?", (_text(kind), key))
        if row is not None and row.value is not None:
            value = after.seal(row.kind, row.key, row.value)
            connection.execute("INSERT INTO rows VALUES (?, ?, ?)", (row.kind, row.key, value))
    return after
