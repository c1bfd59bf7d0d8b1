"""What a kill left, and what everybody finds once the victim is started again."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker_crypto import storage
from broker_crypto.delivery import fences, state
from broker_crypto.errors import BrokerUnavailable
from broker_crypto.records import Joined, LockedOut
from broker_crypto.storage import FileKey
from broker_crypto.wire import envelopes
from tests.support.agents import uri
from tests.support.execution import Cell, Scene

PATIENCE = 45.0  # s until one that is started again has settled


@dataclass(frozen=True)
class Left:
    """What the victim's folder holds after its death, every row of it decoded."""

    state: str = "none"
    intents: int = 0
    staged: int = 0
    epochs: int = 0


async def left_in(scene: Scene) -> Left:
    """Look at a copy of the folder, so that the agent itself is the first on the true one. Opening reads every page and row."""
    if not scene.database.exists():
        return Left()
    with tempfile.TemporaryDirectory() as copied:
        folder = Path(copied) / "state"
        shutil.copytree(scene.database.parent, folder)
        store = storage.open(folder / scene.database.name, FileKey(scene.realm.folder / "store.key"), create=False)
        try:
            return await _rows(store, scene.realm.topic)
        finally:
            await store.close()


async def _rows(store: storage.StateStore, group: str) -> Left:
    key = state.prefix(group)
    async with store.transaction() as tx:
        row, seen = await tx.get(state.GROUP, key), await tx.get(state.CURSOR, key)
        epochs = [state.decode_epoch(value) for _, value in await tx.scan(state.EPOCH, key)]
        staged = [state.decode_staged(value) for _, value in await tx.scan(state.STAGED, key)]
        intents = [state.Intent.decode(value) for _, value in await tx.scan(state.INTENT, key)]
        rows = [state.decode_fence(value) for _, value in await tx.scan(state.FENCE, key)]
    assert all(isinstance(fence, fences.FenceRow) for fence in rows)
    cursor = state.decode_cursor(seen) if seen is not None else None
    if row is None:
        assert not epochs
        return Left(intents=len(intents), staged=len(staged))
    member = state.decode_member(row, cursor)
    if member.state == "left":
        assert (cursor, epochs, staged, intents, rows) == (None, [], [], [], [])
        return Left("left")
    assert cursor is not None
    assert member.chain is not None
    if member.mls is not None:
        assert member.mls.public.epoch == member.chain.epoch == max(epoch.epoch for epoch in epochs)
    return Left(member.state, sum(i.refused is None for i in intents), len(staged), len(epochs))


class Return:
    """The victim started again, in a cell."""

    def __init__(self, scene: Scene, cell: Cell) -> None:
        self.scene, self.cell = scene, cell

    async def start(self) -> None:
        await self.cell.send(**self.scene.order("back"))

    async def ask(self, do: str, **more: Any) -> dict[str, Any]:
        await self.cell.send(do=do, **more)
        told = await self.cell.hear()
        assert "answer" in told, (told, self.cell.said())
        answer: dict[str, Any] = told["answer"]
        return answer

    async def settled(self, wanted: str) -> dict[str, Any]:
        """It is in the state that is wanted, agrees with the other, and nothing is open; what it says then."""
        other = self.scene.other
        end = asyncio.get_running_loop().time() + PATIENCE
        while True:
            try:
                await other.turn()
            except BrokerUnavailable:
                continue
            seen = await self.ask("look")
            if seen["state"] == wanted and not seen["open"] and not other.group.intents and self._agrees(wanted, seen):
                return seen
            assert asyncio.get_running_loop().time() < end, (wanted, seen, other.group.state, other.group.epoch, other.names)
            await asyncio.sleep(0.01)

    def _agrees(self, wanted: str, seen: dict[str, Any]) -> bool:
        other, victim = self.scene.other, self.scene.victim
        mark = other.group.authenticator
        if wanted == "left":
            return victim not in other.names
        if wanted == "removed":
            return victim not in other.names and seen["epoch"] == other.group.epoch
        return mark is not None and (seen["epoch"], seen["mark"]) == (other.group.epoch, mark.hex())

    async def end(self) -> None:
        await self.cell.send(do="end")
        while "ended" not in (told := await self.cell.hear()):
            pass
        assert told["ended"] == 0, self.cell.said()


async def judge(scene: Scene, cell: Cell, *, away: bool) -> None:
    """What everybody finds after a kill. `away`: the group moves on before the victim is started again."""
    other, did = scene.other, scene.did
    await other.turn()
    left = await left_in(scene)
    landed = scene.own_commits() if scene.honest is None else scene.honest
    asked = max(left.intents, landed - 1, 0)  # what was stored, or is done already; the first commit is its entry
    answers = len(did & {"lie", "readmit me"})
    wanted = _wanted(scene, left)
    if wanted == "left":
        asked = 0
    if away and other.is_member:
        await other.rotate()
        if wanted == "member" and scene.victim in other.names and scene.own_commits() == 1 + asked + answers:
            await other.publish()  # in an epoch that the victim can enter
    again = Return(scene, cell)
    await again.start()
    seen = await again.settled(wanted)
    commits = {1 + asked + answers}
    if "leave" in did:
        commits.add(2 + asked)  # either of the two that are left took the leaf away
        assert scene.others[-1].identity not in other.names
    assert scene.own_commits() in commits, (left, asked)
    assert not [e for e in other.events if isinstance(e, LockedOut)]
    assert len(seen["locked_out"]) <= ("lie" in did)
    if wanted == "member":
        assert other.names.count(scene.victim) == 1
        assert seen["members"] == other.names
    await _records(scene, again, wanted)
    await again.end()
    if wanted == "left":
        assert await left_in(scene) == Left("left")


def _wanted(scene: Scene, left: Left) -> str:
    """The state that the victim must end in."""
    if scene.life == "leave":
        gone = bool(left.intents) or left.state == "left" or scene.victim not in scene.other.names
        return "left" if gone else "member"
    return "removed" if "remove me" in scene.did and "readmit me" not in scene.did else "member"


async def _records(scene: Scene, again: Return, wanted: str) -> None:
    """All that was acknowledged opens for whom it was sealed, nothing behind a fence does, no (stream, sequence) is there twice."""
    other, victim = scene.other, scene.victim
    told = await again.ask("publish")
    assert told.get("refused") == (None if wanted == "member" else "not_a_member")
    scene.sent = told["sent"]
    outsider = None
    if scene.life == "remove" and uri("writer-2") not in other.names:
        outsider = scene.others[1]
        await outsider.publish()  # it has not read of its removal, and seals with keys that everybody holds
    if wanted == "member":
        await other.publish()
    stream, records = await scene.records()
    (joined,) = [event.epoch for event in other.events if isinstance(event, Joined)]
    opened, refused = other.open(stream, [r for r in records if envelopes.TOPIC_RECORD.decode(r[1])["epoch"] >= joined])
    assert refused == ["removed_sender"] * (outsider is not None)
    nothing_twice([record for _, record in records])
    if wanted == "left":
        assert not (await again.ask("look"))["held"]
        return
    read = await again.ask("read", stream=scene.realm.topic, count=len(records))
    assert read["refused"] == refused, read
    mine, theirs = ({f"{who} {n}" for n in range(sent)} for who, sent in ((victim, scene.sent), (other.identity, other.sent)))
    assert mine | theirs <= set(read["opened"])
    assert set(opened) <= set(read["opened"])


def nothing_twice(records: Sequence[bytes]) -> None:
    """No two records share (stream, sequence), and with it (key, nonce), unless they are the same bytes."""
    seen: dict[tuple[bytes, int], bytes] = {}
    for record in records:
        fields: dict[str, Any] = envelopes.TOPIC_RECORD.decode(record)
        assert seen.setdefault((fields["stream"], fields["sequence"]), record) == record
