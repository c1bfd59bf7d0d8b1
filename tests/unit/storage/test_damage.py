"""A store that was changed behind our back says so; it never answers with something else than what was written."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from pathlib import Path

import pytest

from broker_crypto import storage
from broker_crypto.errors import StateCorrupt, StateError, StateVersionError, StoreUnavailable
from tests.unit.storage.conftest import GivenKey
from tests.unit.storage.rows import KINDS, Content, fill

ROWS: Content = {
    ("group", b"orders"): b"the group's state " * 60,
    ("group", b"payments"): b"another group's state",
    ("intent", b"\x01" * 16): b"rotate",
    **{("epoch", n.to_bytes(8, "big")): bytes((n % 256,)) * (37 * n) for n in range(60)},
}


@pytest.fixture
async def written(path: Path) -> Path:
    """A closed store that holds ROWS."""
    store = storage.open(path, GivenKey())
    await fill(store, ROWS)
    async with store.transaction() as tx:
        await tx.put("staged", b"gone", bytes(20000))
    async with store.transaction() as tx:
        await tx.delete("staged", b"gone")  # leaves free pages
    await store.close()
    return path


def change(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def everything(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


async def look(path: Path) -> Content:
    """What opening, agent and command alike, and reading everything shows."""
    found = []
    for beside in (False, True):
        store = storage.open(path, GivenKey(), beside=beside)
        try:
            async with store.transaction() as tx:
                found.append({(kind, key): value for kind in KINDS for key, value in await tx.scan(kind)})
        finally:
            await store.close()
    assert found[0] == found[1]
    return found[0]


async def test_another_key_is_corruption_of_the_data_key_and_changes_no_byte(written: Path) -> None:
    before = everything(written.parent)
    for beside in (False, True):
        with pytest.raises(StateCorrupt) as raised:
            storage.open(written, GivenKey(bytes(32)), beside=beside)
        assert (raised.value.fields["kind"], raised.value.fields["key"]) == ("header", b"data_key")
    assert everything(written.parent) == before
    assert await look(written) == ROWS


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


async def judge(path: Path, data: bytes) -> str:
    """Put these bytes in place of the database. Either a typed error, or every row as it was written."""
    path.write_bytes(data)
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    try:
        found = await look(path)
    except (StateCorrupt, StateVersionError, StoreUnavailable) as error:
        return error.code
    assert found == ROWS
    return "harmless"


async def test_every_flipped_bit_of_the_files_header_is_an_error_or_harmless(written: Path) -> None:
    good = written.read_bytes()
    outcomes = {await judge(written, flipped(good, bit)) for bit in range(8 * 100)}
    assert outcomes == {"state_corrupt", "state_version", "store_unavailable", "harmless"}
    assert await judge(written, good) == "harmless"


async def test_flipped_bits_in_every_page_are_an_error_or_harmless(written: Path) -> None:
    good = written.read_bytes()
    draw = random.Random(2024)
    outcomes: dict[str, int] = {}
    for page in range(0, len(good), 4096):
        for _ in range(10):
            outcome = await judge(written, flipped(good, 8 * page + draw.randrange(8 * 4096)))
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        for _ in range(5):  # where a page says what it holds
            outcome = await judge(written, flipped(good, 8 * page + draw.randrange(8 * 40)))
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes["state_corrupt"] > 100


async def test_zeroed_swapped_and_missing_pages_are_an_error(written: Path) -> None:
    good = written.read_bytes()
    pages = [good[at : at + 4096] for at in range(0, len(good), 4096)]
    used = [n for n, page in enumerate(pages) if any(page)]
    for n in used:
        assert await judge(written, b"".join([*pages[:n], bytes(4096), *pages[n + 1 :]])) in ("state_corrupt", "state_version", "harmless")
    assert await judge(written, b"".join([pages[0], bytes(4096 * (len(pages) - 1))])) == "state_corrupt"
    for n in used[1:-1]:
        pages[n], pages[n + 1] = pages[n + 1], pages[n]
        assert await judge(written, b"".join(pages)) in ("state_corrupt", "harmless")
        pages[n], pages[n + 1] = pages[n + 1], pages[n]
    for length in (1, 99, 100, 4095, 4096, 8192, len(good) // 2, len(good) - 4096, len(good) - 1):
        assert await judge(written, good[:length]) in ("state_corrupt", "state_version", "harmless")
    for data in (b"no database at all, but long enough to look like one " * 200, bytes(8192)):
        assert await judge(written, data) in ("state_corrupt", "state_version")


async def test_an_emptied_file_or_a_log_without_its_database_is_damage_and_not_a_beginning(written: Path) -> None:
    good = written.read_bytes()
    written.write_bytes(b"")
    with pytest.raises(StateCorrupt):
        storage.open(written, GivenKey())
    assert written.read_bytes() == b""
    written.unlink()
    log = written.with_name(written.name + "-wal")
    log.write_bytes(b"what a crash left")
    with pytest.raises(StateCorrupt):
        storage.open(written, GivenKey())
    assert not written.exists()
    log.unlink()
    written.write_bytes(good)
    assert await look(written) == ROWS


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rows SET value = (SELECT value FROM rows WHERE key = CAST('payments' AS BLOB)) WHERE key = CAST('orders' AS BLOB)",
        "UPDATE rows SET key = x'6f' WHERE key = CAST('orders' AS BLOB)",
        "UPDATE rows SET kind = 'groups' WHERE kind = 'group'",
        "UPDATE rows SET kind = CAST(x'ff' AS TEXT) WHERE kind = 'group'",
        "UPDATE rows SET value = x'' WHERE kind = 'intent'",
        "UPDATE rows SET value = substr(value, 2) WHERE kind = 'intent'",
        "UPDATE rows SET value = CAST(value || x'00' AS BLOB) WHERE kind = 'intent'",
        "INSERT INTO rows VALUES ('group', x'01', zeroblob(48))",
    ],
)
async def test_a_row_that_was_changed_moved_or_made_up_is_corruption_that_names_it(written: Path, statement: str) -> None:
    change(written, statement)
    with pytest.raises(StateCorrupt) as raised:
        storage.open(written, GivenKey())
    assert raised.value.fields["kind"] != "header"
    assert raised.value.fields["key"] is not None


async def test_a_row_that_is_changed_while_the_store_is_open_is_corruption_and_its_neighbours_are_read(written: Path) -> None:
    store = storage.open(written, GivenKey())
    middle = "CAST(substr(value, 1, 40) || x'00' || substr(value, 42) AS BLOB)"
    change(written, f"UPDATE rows SET value = {middle} WHERE key = CAST('orders' AS BLOB)")
    async with store.transaction() as tx:
        with pytest.raises(StateCorrupt) as raised:
            await tx.get("group", b"orders")
        assert (raised.value.fields["kind"], raised.value.fields["key"]) == ("group", b"orders")
        with pytest.raises(StateCorrupt):
            await tx.scan("group")
        assert await tx.get("group", b"payments") == ROWS["group", b"payments"]
    await store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE header SET value = zeroblob(16) WHERE name = 'store_id'",
        "UPDATE header SET value = zeroblob(80) WHERE name = 'data_key'",
        "DELETE FROM header WHERE name = 'store_id'",
        "DELETE FROM header WHERE name = 'data_key'",
        "PRAGMA user_version = 0",
        "PRAGMA user_version = -1",
    ],
)
async def test_a_changed_header_is_corruption(written: Path, statement: str) -> None:
    change(written, statement)
    for beside in (False, True):
        with pytest.raises(StateCorrupt) as raised:
            storage.open(written, GivenKey(), beside=beside)
        assert raised.value.fields["kind"] == "header"


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER keeper BEFORE DELETE ON rows BEGIN SELECT RAISE(IGNORE); END",
        "CREATE TABLE copies AS SELECT * FROM rows",
        "CREATE INDEX more ON rows (value)",
        "CREATE VIEW seen AS SELECT * FROM rows",
    ],
)
async def test_a_database_with_something_added_to_it_is_refused(written: Path, statement: str) -> None:
    change(written, statement)
    for beside in (False, True):
        with pytest.raises(StateCorrupt):
            storage.open(written, GivenKey(), beside=beside)


async def test_a_newer_store_and_somebody_elses_database_are_refused_and_left_as_they_are(written: Path) -> None:
    change(written, "PRAGMA user_version = 2")
    before = written.read_bytes()
    for beside in (False, True):
        with pytest.raises(StateVersionError) as raised:
            storage.open(written, GivenKey(), beside=beside)
        assert raised.value.fields == {"version": 2, "known": 1}
    assert written.read_bytes() == before
    other = written.with_name("other.db")
    change(other, "CREATE TABLE theirs (x)")
    before = other.read_bytes()
    with pytest.raises(StateVersionError):
        storage.open(other, GivenKey())
    assert other.read_bytes() == before


async def test_rows_of_another_store_do_not_open_even_under_the_same_key(written: Path) -> None:
    other = written.parent / "other" / "agent.db"
    store = storage.open(other, GivenKey())
    await store.close()
    with contextlib.closing(sqlite3.connect(other, isolation_level=None)) as connection:
        connection.execute("ATTACH ? AS first", (str(written),))
        connection.execute("INSERT INTO rows SELECT * FROM first.rows")
    with pytest.raises(StateError):
        storage.open(other, GivenKey())
