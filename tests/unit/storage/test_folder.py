"""Who may look at a store and who may open it."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from broker_crypto import storage
from broker_crypto.errors import NotBuilt, StateCorrupt, StateLocked, StoreUnavailable, UsageError
from broker_crypto.storage.folder import PID_FILE
from tests.unit.storage.conftest import GivenKey
from tests.unit.storage.rows import content, fill

HOLD = """
import asyncio, sys
from broker_crypto import storage
from tests.unit.storage.conftest import GivenKey
async def main():
    store = storage.open(sys.argv[1], GivenKey())
    print("open", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_new_store_and_its_folder_are_closed_to_others_whatever_the_umask(path: Path) -> None:
    old = os.umask(0)
    try:
        store = storage.open(path, GivenKey())
        await fill(store, {("group", b"k"): b"v"})
    finally:
        os.umask(old)
    assert mode(path.parent) == 0o700
    assert {file.name for file in path.parent.iterdir()} == {"agent.db", "agent.db-wal", "agent.db-shm", PID_FILE}
    assert {mode(file) for file in path.parent.iterdir()} == {0o600}
    await store.close()
    assert [file.name for file in path.parent.iterdir()] == ["agent.db"]


async def test_looser_modes_of_a_folder_with_nothing_but_the_store_are_tightened(path: Path) -> None:
    path.parent.mkdir(mode=0o755)
    store = storage.open(path, GivenKey())
    await fill(store, {("group", b"k"): b"v"})
    await store.close()
    assert mode(path.parent) == 0o700
    path.parent.chmod(0o777)
    path.chmod(0o666)
    store = storage.open(path, GivenKey())
    assert (mode(path.parent), mode(path)) == (0o700, 0o600)
    assert await content(store) == {("group", b"k"): b"v"}
    await store.close()


def test_a_folder_that_others_use_is_refused_and_left_as_it_is(path: Path) -> None:
    path.parent.mkdir(mode=0o755)
    other = path.parent / "somebody's file"
    other.write_text("theirs")
    with pytest.raises(UsageError, match="chmod 700"):
        storage.open(path, GivenKey())
    assert mode(path.parent) == 0o755
    assert list(path.parent.iterdir()) == [other]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_a_loose_folder_of_another_user_is_refused(path: Path) -> None:
    path.parent.mkdir(mode=0o755)
    os.chown(path.parent, 12345, 12345)
    with pytest.raises(UsageError):
        storage.open(path, GivenKey())
    assert mode(path.parent) == 0o755


async def test_a_closed_folder_may_hold_other_files(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    (path.parent / "billing.pem").write_text("a certificate")
    store = storage.open(path, GivenKey())
    await store.close()


async def test_a_second_agent_in_this_process_is_locked_out_until_the_first_closes(path: Path) -> None:
    store = storage.open(path, GivenKey())
    with pytest.raises(StateLocked) as raised:
        storage.open(path, GivenKey())
    assert raised.value.fields["pid"] == os.getpid()
    with pytest.raises(StateLocked):
        storage.open(path.with_name("other.db"), GivenKey())
    await store.close()
    await storage.open(path, GivenKey()).close()


async def test_a_second_agent_in_another_process_is_locked_out_until_the_first_is_dead(path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(StateLocked) as raised:
            storage.open(path, GivenKey())
        assert raised.value.fields["pid"] == holder.pid
        assert str(holder.pid) in str(raised.value)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    store = storage.open(path, GivenKey())
    assert (path.parent / PID_FILE).read_text() == f"{os.getpid()}\n"
    await store.close()


async def test_neither_a_stale_nor_a_deleted_pid_file_matters(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    (path.parent / PID_FILE).write_text("1\n")
    store = storage.open(path, GivenKey())
    (path.parent / PID_FILE).unlink()
    with pytest.raises(StateLocked) as raised:
        storage.open(path, GivenKey())
    assert raised.value.fields["pid"] is None
    await store.close()


async def test_a_refused_opening_frees_the_folder_again(path: Path) -> None:
    await storage.open(path, GivenKey()).close()
    for _ in range(3):
        with pytest.raises(StateCorrupt):
            storage.open(path, GivenKey(bytes(32)))
    await storage.open(path, GivenKey()).close()


def test_a_store_that_is_not_there_is_not_made_unless_asked_for(path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        storage.open(path, GivenKey(), create=False)
    with pytest.raises(StoreUnavailable):
        storage.open(path, GivenKey(), beside=True)
    assert not path.parent.exists()


def test_a_place_where_no_folder_can_be_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreUnavailable):
        storage.open(tmp_path / "file" / "agent.db", GivenKey())
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "agent.db").mkdir()
    with pytest.raises(StoreUnavailable):
        storage.open(tmp_path / "state" / "agent.db", GivenKey())


async def test_the_ways_to_name_a_store(path: Path) -> None:
    for where in (path, str(path), f"sqlite:{path}"):
        store = storage.open(where, GivenKey())
        assert not store.ephemeral
        await store.close()
    odd = path.with_name("100%? yes#1.db")
    await storage.open(odd, GivenKey()).close()
    assert odd.exists()
    memory = storage.open("memory:")
    assert memory.ephemeral
    await memory.close()
    for wrong in ("memory:x",):
        with pytest.raises(UsageError):
            storage.open(wrong)
    with pytest.raises(UsageError):
        storage.open("memory:", beside=True)
    with pytest.raises(UsageError):
        storage.open(path)
    with pytest.raises(NotBuilt):
        storage.open("vault:secret/agents/acme/billing/crypto", GivenKey())


async def test_a_store_may_be_used_by_one_event_loop_after_another(path: Path) -> None:
    def in_a_loop_of_its_own() -> None:
        asyncio.run(use())

    async def use() -> None:
        await asyncio.gather(*(fill(store, {("group", b"%d" % n): b"v"}) for n in range(20)))
        await content(store)

    store = storage.open(path, GivenKey())
    for _ in range(3):
        await asyncio.to_thread(in_a_loop_of_its_own)
    assert len(await content(store)) == 20
    await store.close()
