"""A sender that is killed again and again: whoever reads follows it, and misses nothing that its stream has acknowledged."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from broker_crypto.errors import RecordRefused
from broker_crypto.records import LockedOut
from tests.support.agents import Cast, Member, Realm, connect, together, until, uri
from tests.support.autopsy import nothing_twice
from tests.support.execution import Cell
from tests.support.servers import NatsServer

LOOPS = int(os.environ.get("BROKER_CRYPTO_KILLS", "50"))
SENDER = "ops"


class Reading:
    """One member that reads all the time. What a record carries is kept by the record's id."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.opened: dict[bytes, bytes] = {}
        self.refused: list[RecordRefused] = []
        self.on = True

    async def run(self) -> None:
        subscription = await self.member.reader(self.member.name)
        while self.on:
            try:
                messages = await subscription.fetch(64, timeout=0.3)
            except TimeoutError:
                continue
            except RecordRefused as error:
                self.refused.append(error)
                await error.message.term()
                continue
            for message in messages:
                assert message.security.sender == uri(SENDER)
                assert self.opened.setdefault(message.security.record_id, message.data) == message.data
                await message.ack()

    def numbers(self) -> set[int]:
        return {int(payload.split()[1]) for payload in self.opened.values()}


async def killed_once(cell: Cell, order: dict[str, Any], draw: random.Random) -> int:
    """One life of the sender; how many of its records were acknowledged so far, by all that it could still tell."""
    await cell.send(**order)
    pid, sent, wanted = 0, order["sent"], order["sent"] + draw.randrange(12)
    while not pid or sent < wanted:
        told = await cell.hear()
        assert "ended" not in told, (told, cell.said())
        pid, sent = told.get("pid", pid), told.get("sent", sent)
    await asyncio.sleep(draw.random() * 0.05)
    os.kill(pid, signal.SIGKILL)
    while "ended" not in (told := await cell.hear()):
        sent = told.get("sent", sent)
    assert told["ended"] == -signal.SIGKILL
    return int(sent)


async def test_a_sender_killed_fifty_times_in_a_row_loses_nothing_acknowledged_and_readers_follow(
    broker: NatsServer, tmp_path: Path, kills_told: list[str]
) -> None:
    realm, draw = Realm(tmp_path / "realm", broker.url), random.Random(50)
    realm.issue(SENDER)
    cell, raw = Cell(tmp_path / "cell.log"), await connect(broker.url)
    js = await realm.stream(raw)
    await cell.start()
    async with AsyncExitStack() as stack:
        cast, sent = Cast(realm, stack), 0
        order = {"life": "send", "policy": str(realm.policy()), "identity": uri(SENDER), "url": broker.url, "topic": realm.topic}
        readings: list[Reading] = []
        tasks: list[asyncio.Task[None]] = []
        for number in range(LOOPS):
            sent = await killed_once(cell, {**order, "sent": sent}, draw)
            if number == 0:
                readings = [Reading(await cast(name)) for name in ("writer-1", "reader-1")]
                tasks = [asyncio.ensure_future(reading.run()) for reading in readings]
                first = sent
        last = await cast(SENDER)
        await until(lambda: not last.group.intents, "what it was asked in its lives is done")
        await together(last, *(reading.member for reading in readings))
        total = (await js.stream_info(realm.topic)).state.messages
        for reading in readings:
            for _ in range(3000):
                if len(reading.opened) + len(reading.refused) >= total:
                    break
                await asyncio.sleep(0.01)
            reading.on = False
        await asyncio.gather(*tasks)
        for reading in readings:
            assert set(range(first + 1, sent)) <= reading.numbers()
            assert {error.code for error in reading.refused} <= {"not_a_member_at_epoch"}, "but for what was sealed before they joined"
            assert len(reading.refused) <= first + 1
            assert not reading.member.of(LockedOut)
        assert sent > 2 * LOOPS
        nothing_twice([(await js.get_msg(realm.topic, n)).data or b"" for n in range(1, total + 1)])
        kills_told.append(f"while sending: {LOOPS} kills, {sent} records acknowledged, epoch {last.group.epoch} at the end")
    await raw.close()
    await cell.end()
