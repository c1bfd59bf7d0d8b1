"""A write-ahead log with a flipped bit, and a disk that takes no writes: a typed error, or whole transactions; never something else."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_crypto import storage
from broker_crypto.errors import StateCorrupt, StateVersionError, StoreUnavailable
from broker_crypto.storage import eraser
from tests.support.store_steps import STEPS, Content, run, states
from tests.unit.storage.conftest import GivenKey
from tests.unit.storage.rows import KINDS

HEADER, FRAME = 32, 24 + 4096  # bytes of a write-ahead log: its head, then a head and a page again and again


async def look(path: Path) -> Content | str:
    try:
        store = storage.open(path, GivenKey(), create=False)
    except (StateCorrupt, StateVersionError, StoreUnavailable) as error:
        return error.code
    try:
        async with store.transaction() as tx:
            return {(kind, key): value for kind in KINDS for key, value in await tx.scan(kind)}
    finally:
        await store.close()


@pytest.fixture
async def logged(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a crash leaves whose commits all lie in the log."""
    monkeypatch.setattr(eraser, "STORE_ERASE_SECONDS", 3600.0)
    store = storage.open(path, GivenKey())
    await store.erased()
    assert await run(store) == len(STEPS)
    left = tmp_path / "left"
    left.mkdir(mode=0o700)
    for name in (path.name, path.name + "-wal"):
        shutil.copyfile(path.parent / name, left / name)
    await store.close()
    return left / path.name


async def test_flipped_bits_in_every_frame_of_the_log_leave_whole_transactions_or_a_typed_error(logged: Path, tmp_path: Path) -> None:
    log = (logged.with_name(logged.name + "-wal")).read_bytes()
    frames, draw = (len(log) - HEADER) // FRAME, random.Random(7)
    assert frames > 5
    bits = [draw.randrange(8 * HEADER) for _ in range(8)]
    for frame in range(frames):
        begin = HEADER + frame * FRAME
        bits += [8 * begin + draw.randrange(8 * 24) for _ in range(2)] + [8 * begin + draw.randrange(8 * FRAME) for _ in range(3)]
    found: list[Content | str] = []
    for number, bit in enumerate(bits):
        folder = tmp_path / f"flip-{number}"
        shutil.copytree(logged.parent, folder)
        spoiled = bytearray(log)
        spoiled[bit // 8] ^= 1 << bit % 8
        (folder / (logged.name + "-wal")).write_bytes(spoiled)
        found.append(await look(folder / logged.name))
    assert all(one in states() or isinstance(one, str) for one in found)
    assert sum(one in states()[:-1] for one in found) > len(bits) / 2, "what follows a damaged frame is not read"
    assert await look(logged) == states()[-1]


READ_ONLY = """
import asyncio, concurrent.futures.thread, os, sys
from broker_crypto import errors, storage
from tests.unit.storage.conftest import GivenKey
from tests.support.store_steps import run

async def main(path):
    try:
        store = storage.open(path, GivenKey())
    except errors.StoreUnavailable as error:
        return error.code
    done = await run(store)
    await store.close()
    return f"{done} steps"

os.setgroups([]) if os.geteuid() == 0 else None
os.setuid(int(sys.argv[2])) if os.geteuid() == 0 else None
print(asyncio.run(main(sys.argv[1])))
"""
NOBODY = 65534


def asked(path: Path, owner: int) -> str:
    command = [sys.executable, "-c", READ_ONLY, str(path), str(owner)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONDONTWRITEBYTECODE": "1"}
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that another user comes to, who plays the agent: root may write anything."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("what", ["folder", "file"])
async def test_a_store_that_may_not_be_written_is_unavailable_and_stays_as_it_is(reachable: Path, what: str) -> None:
    path = reachable / "state" / "agent.db"
    store = storage.open(path, GivenKey())
    assert await run(store) == len(STEPS)
    await store.close()
    owner = NOBODY if os.geteuid() == 0 else os.geteuid()
    for place in (path, path.parent):
        os.chown(place, owner, -1)
    (path.parent if what == "folder" else path).chmod(0o500 if what == "folder" else 0o400)
    before = path.read_bytes()
    assert asked(path, owner) == ("store_unavailable" if what == "folder" else "0 steps")
    assert path.read_bytes() == before
    path.parent.chmod(0o700)
    for file in path.parent.iterdir():  # SQLite gives the files beside the database its mode
        file.chmod(0o600)
    assert asked(path, owner) == f"{len(STEPS)} steps"
