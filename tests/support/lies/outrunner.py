"""Insiders that sit beside the broker: whenever another's commit comes in, theirs land before it, or at once behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from broker_crypto.delivery.committer import Own, Staged
from broker_crypto.delivery.log_records import COMMIT, GroupRecord
from broker_crypto.delivery.membership import Membership, follow
from broker_crypto.delivery.rules import judge
from broker_crypto.records import Clock, LogEntry, Random
from broker_crypto.testing import MemoryBroker
from tests.support.lies.scribe import Scribe
from tests.support.lies.secret import lie


class WatchedBroker(MemoryBroker):
    """A broker that shows each append to `before`, and what has landed to `after`."""

    before: Callable[[bytes], None] | None = None
    after: Callable[[bytes], None] | None = None

    def append(self, group: str, record: bytes, expected: int | None) -> int:
        if self.before is not None:
            self.before(record)
        position = super().append(group, record, expected)
        if self.after is not None:
            self.after(record)
        return position


@dataclass
class Insider:
    """One key that is in the group, with the state that it is in."""

    own: Own
    member: Membership
    staged: dict[bytes, Staged] = field(default_factory=dict)

    def read(self, entries: list[LogEntry]) -> None:
        """To the end, never stopping for whatever its own key says."""
        last = -1 if self.member.cursor is None else self.member.cursor.last.position
        for entry in entries:
            if entry.position > last:
                held = {digest: staged.next for digest, staged in self.staged.items()}
                self.member = follow(self.member, entry, "log", held, {}).next


@dataclass
class Outrunners:
    """Keys that answer each commit of others with one of theirs, whichever of them may still commit.

    `what` is the lie in it ("" for none), `ahead_ms` how far they sign ahead of the broker's clock as long as that counts, so
    that the window of the rate rule is new for them; `junk` records land as well, each time.
    """

    broker: WatchedBroker
    clock: Clock
    random: Random
    insiders: list[Insider]
    what: str = ""
    ahead_ms: int = 0
    junk: int = 0
    counted: int = 0
    refused: int = 0

    def answer(self, record: bytes) -> None:
        """Somebody's record is about to land, or has."""
        read = GroupRecord.decode(record) if record[:2] == b"\xc3\x01" else None
        if read is None or read.kind != COMMIT or any(read_of(s) == record for i in self.insiders for s in i.staged.values()):
            return
        for _ in range(self.junk):
            self._land(self.random(40))
        for insider in self.insiders:
            insider.read(self.broker.entries("orders"))
        for insider in self.insiders:
            made = self._made(insider)
            if made is not None:
                self.counted += 1
                insider.staged = {made.hash: made}
                self.insiders.append(self.insiders.pop(self.insiders.index(insider)))
                return

    def _made(self, insider: Insider) -> Staged | None:
        """Its commit, landed; None where nobody would count it, though it lands all the same."""
        member, now = insider.member, self.clock.now_ms()
        if member.mls is None or member.chain is None:
            return None
        steps = sorted({max(member.chain.time, now + step) for step in range(0, self.ahead_ms + 1, 10_000)})
        for time_ms in steps:
            scribe = Scribe.member(member.mls, self.random, time_ms=time_ms)
            staged = lie(scribe, self.what, victim=0 if self.what == "path_secret" else None).staged
            if judge(member.chain, LogEntry(0, now, staged.record), member.group).kind == "commit":
                self._land(staged.record)
                return staged
        self.refused += 1
        self._land(staged.record)
        return None

    def _land(self, record: bytes) -> None:
        self.broker._land("orders", record, None)


def read_of(staged: Staged) -> bytes:
    return staged.record
