"""An agent on a real nats-server and a store on disk, killed before and after every call that it makes of its store and its log.

Started again on what is left, it is in one epoch with everybody, has done once what it was asked, and reads all that it held before.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.agents import Realm, connect
from tests.support.autopsy import judge
from tests.support.condemned import HUNG
from tests.support.counting import Point
from tests.support.execution import PARTS, Cell, Scene
from tests.support.servers import NatsServer

CELLS = 6
TRIES = 5  # of one point: where a clock decides, it may not be reached
ON_TIME = "store.changed_by_others"  # called once a second; a phase waits for it where it matters
WIDE = os.environ.get("BROKER_CRYPTO_KILLS_WIDE") == "1"  # each kill twice: with the group standing still meanwhile, and moving on


@asynccontextmanager
async def prison(broker: NatsServer, folder: Path) -> AsyncIterator[tuple[asyncio.Queue[Cell], Realm]]:
    realm = Realm(folder / "realm", broker.url)
    for part in PARTS.values():
        for name in (part.victim, *part.others):
            realm.issue(name)
    cells = [Cell(folder / f"cell-{n}.log") for n in range(CELLS)]
    free: asyncio.Queue[Cell] = asyncio.Queue()
    try:
        for cell in cells:
            await cell.start()
            free.put_nowait(cell)
        yield free, realm
    finally:
        for cell in cells:
            await cell.end()


class Kills:
    """All kills of one life."""

    def __init__(self, life: str, cells: asyncio.Queue[Cell], realm: Realm) -> None:
        self.life, self.cells, self.realm = life, cells, realm
        self.kills = 0
        self.hung: list[str] = []

    async def moments(self) -> list[tuple[Point, str]]:
        """Before and after every call of a life that nobody ends."""
        async with self._scene() as (scene, cell):
            code, moments = await scene.act(cell)
            assert code == 0, cell.said()
            await judge(scene, cell, away=False)
        found = [(Point(*point), moment) for point, moment in moments]
        return [(p, moment) for p, moment in found if p.call != ON_TIME or p.phase in PARTS[self.life].waits]

    async def kill(self, point: Point, moment: str, away: bool) -> None:
        for _ in range(TRIES):
            async with self._scene() as (scene, cell):
                code, _ = await scene.act(cell, [*point, moment])
                if code == -9:
                    self.kills += 1
                    try:
                        await judge(scene, cell, away=away)
                    except AssertionError as error:
                        raise AssertionError(f"killed {moment} {point}, {away=}") from error
                    return
                if code == HUNG:  # told, and tried again: a machine that stands still for so long ends all that live at that moment
                    self.hung.append(f"hung, {moment} {point}: {cell.said()}")
                    continue
                assert code == 0, (point, code, cell.said())
        raise AssertionError(f"not reached: {moment} {point}")

    @asynccontextmanager
    async def _scene(self) -> AsyncIterator[tuple[Scene, Cell]]:
        cell = await self.cells.get()
        nc = await connect(self.realm.url)
        try:
            scene = await Scene.made(self.realm, nc, self.life)
            yield scene, cell
            await scene.close()
            self.cells.put_nowait(cell)
        finally:
            await nc.close()


@pytest.mark.parametrize("life", PARTS)
async def test_a_kill_at_any_call_loses_nothing_tears_nothing_and_what_was_asked_is_done_once(
    broker: NatsServer, tmp_path: Path, life: str, kills_told: list[str]
) -> None:
    async with prison(broker, tmp_path) as (cells, realm):
        kills = Kills(life, cells, realm)
        moments = await kills.moments()
        wanted = [(*one, away) for number, one in enumerate(moments) for away in (False, True) if WIDE or away == bool(number // 2 % 2)]
        async with asyncio.TaskGroup() as group:
            for one in wanted:
                group.create_task(kills.kill(*one))
    kills_told.extend(kills.hung)
    assert len(kills.hung) <= CELLS, kills.hung
    assert kills.kills == len(wanted)
    points = [point for point, moment in moments if moment == "before"]
    assert len(points) >= PARTS[life].at_least
    for phase in dict.fromkeys(point.phase for point in points):
        calls = [f"{point.call} {point.number}" for point in points if point.phase == phase]
        kills_told.append(f"{life}, {phase}: {len(calls)} calls: {', '.join(calls)}")
    kills_told.append(f"{life}: {len(points)} calls, {kills.kills} kills")
