"""Where the demo plays: its processes, who is to read what, and the account that is kept of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker_crypto.cli.demo_agent import PRODUCERS
from broker_crypto.cli.demo_cast import PATIENCE, Actor

CONTROL = 100  # records of the topic that the policy says is plain
ACK_WAIT = 3.0  # s until the broker gives a killed reader's records again
READERS = ("ops", "checkout", "billing", "audit")
Say = Callable[[str], None]


@dataclass(slots=True)
class Result:
    """What came out, all of it from the processes' own reports but for the search of the broker's files."""

    published: int = 0
    read: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    twice: dict[str, int] = field(default_factory=dict)
    epochs: int = 0
    records_per_s: float = 0.0
    overhead_bytes: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)
    plaintext_found_in_broker: bool = True
    control_found: int = 0
    control: int = CONTROL
    removed_member_could_read: bool = True
    removed_member: str = "not tried"
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.faults

    @property
    def lost(self) -> int:
        return sum(self.missing.values())

    @property
    def duplicates(self) -> int:
        return sum(self.twice.values())

    def as_object(self) -> dict[str, Any]:
        return {
            "published": self.published,
            "read": {name: self.read[name] for name in READERS if name in self.read},
            "lost": self.lost,
            "duplicates": self.duplicates,
            "epochs": self.epochs,
            "records_per_s": round(self.records_per_s, 1),
            "overhead_bytes": round(self.overhead_bytes, 1),
            "refused": dict(self.refused),
            "plaintext_found_in_broker": self.plaintext_found_in_broker,
            "control_found": self.control_found,
            "removed_member_could_read": self.removed_member_could_read,
            "ok": self.ok,
        }

    def expect(self, holds: bool, promise: str) -> None:
        if not holds:
            self.faults.append(promise)


@dataclass(slots=True)
class Stage:
    """`readers` are those who may read what is published now, `owed` what each may read of all that was, by (producer, number)."""

    url: str
    folder: Path
    plain: Any
    cast: dict[str, Actor]
    thief: Actor
    say: Say
    result: Result
    readers: list[str] = field(default_factory=list)
    owed: dict[str, set[tuple[str, int]]] = field(default_factory=lambda: {name: set() for name in READERS})
    numbers: Counter[str] = field(default_factory=Counter)

    def owe(self, producer: str, count: int) -> int:
        """Note that the next orders of a producer are for all who read now; returns the number of the first."""
        first = self.numbers[producer]
        self.numbers[producer] += count
        for reader in self.readers:
            self.owed[reader] |= {(producer, number) for number in range(first, first + count)}
        return first

    async def publish(self, count: int, *producers: str) -> list[dict[str, Any]]:
        """The next `count` orders of each of them, all at once."""
        first = [self.owe(name, count) for name in producers]
        told = await asyncio.gather(
            *(self.cast[name].ask("publish", first=at, count=count) for name, at in zip(producers, first, strict=True))
        )
        self.result.published += sum(answer["count"] for answer in told)
        return told

    async def read_out(self, name: str, *, refused: Mapping[str, int] | None = None) -> dict[str, Any]:
        """Its report once it has read what it may and refused so many by each code, or stands still."""

        def holds(report: dict[str, Any]) -> bool:
            codes = report["refused"]
            return report["unique"] >= len(self.owed[name]) and all(codes.get(c, 0) >= n for c, n in (refused or {}).items())

        return await self.cast[name].reads_out(holds)

    def account(self, name: str, report: dict[str, Any]) -> None:
        """Take down the last report of a process, which ends now; what it has read stands in its ledger across all of them."""
        result, wanted = self.result, self.owed[name]
        read = {(p, n) for p in PRODUCERS for n in report["numbers"][p]}
        result.read[name] = report["unique"]
        result.missing[name], result.twice[name] = len(wanted - read), report["total"] - report["unique"]
        result.refused.update(report["refused"])
        result.expect(not wanted - read, f"{name} read everything it may read")
        result.expect(not read - wanted, f"{name} read nothing that it may not read")
        result.expect(report["wrong_sender"] == 0, f"every order that {name} read named its true sender")

    async def acknowledged(self, name: str) -> None:
        """Return when the broker has every acknowledgement of a reader: nothing that it has read comes again."""
        js = self.plain.jetstream()
        async with asyncio.timeout(PATIENCE):
            while (await js.consumer_info("ORDERS", name)).num_ack_pending:  # noqa: ASYNC110  the broker is asked
                await asyncio.sleep(0.02)

    async def last_position(self) -> int:
        """Sequence of the newest record in the stream."""
        return int((await self.plain.jetstream().stream_info("ORDERS")).state.last_seq)
