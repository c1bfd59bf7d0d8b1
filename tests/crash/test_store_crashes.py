"""Real processes that are killed while they use a store on disk. Opened again, it shows whole transactions, and all that ended well."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from broker_crypto import storage
from tests.support.dying import TASKS, GivenKey, counts
from tests.support.store_steps import CALLS, STEPS, Content, states

ROOT = Path(__file__).resolve().parents[2]


def die(plan: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.support.dying", plan, str(folder)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


async def look(folder: Path) -> Content:
    """What the next agent finds. Opening reads every page and row."""
    store = storage.open(folder / "agent.db", GivenKey())
    async with store.transaction() as tx:
        found = {(kind, key): value for kind in ("group", "epoch", "intent", "staged") for key, value in await tx.scan(kind)}
    await store.close()
    return found


async def judge(folder: Path, deaths: dict[str, Any], by: signal.Signals) -> list[int]:
    """Each death left the steps that ended well, and at most the one under way, whole. The last process was spared."""
    *killed, spared = deaths.items()
    found = []
    for name, death in killed:
        assert death["code"] == -by, (name, death)
        found.append(states().index(await look(folder / name)))
        assert found[-1] - death["ended"] in (0, 1), (name, death)
    name, death = spared
    assert death == {"code": 0, "ended": len(STEPS)}
    assert await look(folder / name) == states()[-1]
    return found


async def test_a_kill_before_or_after_any_call_leaves_whole_transactions(tmp_path: Path) -> None:
    deaths = die("around_calls", tmp_path)
    assert len(deaths) == 2 * (CALLS + 2)
    for name, death in deaths.items():
        assert death["code"] == -signal.SIGKILL
        number, moment = name.split("-")
        found = states().index(await look(tmp_path / name))
        assert found - death["ended"] in (0, 1)
        if moment == "after" and int(number) == len(STEPS[0]) + 2:  # the first commit: on disk, and nobody was told
            assert (found, death["ended"]) == (1, 0)


async def test_a_kill_at_any_statement_from_making_a_store_to_closing_it_leaves_whole_transactions(tmp_path: Path) -> None:
    deaths = die("at_statements", tmp_path)
    assert len(deaths) > 40
    found = await judge(tmp_path, deaths, signal.SIGKILL)
    assert set(found) == set(range(len(STEPS) + 1))


async def test_a_kill_in_the_middle_of_a_write_leaves_whole_transactions(tmp_path: Path) -> None:
    deaths = die("in_writes", tmp_path)
    assert len(deaths) > 20
    found = await judge(tmp_path, deaths, signal.SIGXFSZ)
    assert len(set(found)) > 2


async def test_a_store_that_ran_out_of_disk_goes_on_where_it_stopped_once_there_is_room(tmp_path: Path) -> None:
    found = die("full_disk", tmp_path)
    assert {outcome["code"] for outcome in found.values()} == {0}
    ended = [outcome["ended"] for outcome in found.values()]
    assert ended == sorted(ended)
    assert len(set(ended)) > 3
    assert (ended[0], ended[-1]) == (-1, len(STEPS))
    for name in found:
        assert await look(tmp_path / name) == states()[-1]


async def test_a_kill_at_any_moment_under_load_loses_nothing_that_ended_well(tmp_path: Path) -> None:
    found = die("under_load", tmp_path)["rounds"]
    assert len(found) >= 25
    before = dict.fromkeys(map(str, range(TASKS)), 0)
    for one in found:
        assert one["code"] == -signal.SIGKILL
        for task in before:
            number = one["found"].get(task, 0)
            told = one["newest"].get(task, before[task])
            assert number - told in (0, 1), (one["round"], task)
            before[task] = number
    assert sum(before.values()) > 500
    assert await counts(tmp_path) == {int(task): number for task, number in before.items()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_forked_children_are_refused_end_like_any_process_and_hold_nothing_up(tmp_path: Path) -> None:
    assert die("forks", tmp_path) == {"codes": [7] * 10}
    found = await look(tmp_path)
    assert found == {("group", b"%d" % n): bytes(20000) for n in range(400)}
