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
    said: set[bytes] = field(default_factory=set)

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
    that the window of the rate rule is new for them; `junk` records come along, each time.
    """

    clock: Clock
    random: Random
    insiders: list[Insider]
    what: str = ""
    ahead_ms: int = 0
    junk: int = 0
    counted: int = 0
    refused: int = 0

    def own(self, record: bytes) -> bool:
        """Whether it is one of theirs, or no commit at all."""
        read = GroupRecord.decode(record) if record[:2] == b"\xc3\x01" else None
        mine = any(record in insider.said for insider in self.insiders)
        return mine or read is None or read.kind != COMMIT

    def answers(self, entries: list[LogEntry]) -> list[bytes]:
        """What they put into the log behind `entries`: junk, commits that nobody counts, at last one that all count if any may."""
        written = [self.random(40) for _ in range(self.junk)]
        for insider in self.insiders:
            insider.read(entries)
        for insider in self.insiders:
            made, counts = self._made(insider)
            written += [made.record] if made is not None else []
            if made is not None and counts:
                self.counted += 1
                insider.staged = {made.hash: made}
                self.insiders.append(self.insiders.pop(self.insiders.index(insider)))
                break
        return written

    def _made(self, insider: Insider) -> tuple[Staged | None, bool]:
        """(a commit of this key, whether it counts at this place of the log)."""
        member, now = insider.member, self.clock.now_ms()
        if member.mls is None or member.chain is None:
            return None, False
        for time_ms in sorted({max(member.chain.time, now + step) for step in range(0, self.ahead_ms + 1, 10_000)}):
            scribe = Scribe.member(member.mls, self.random, time_ms=time_ms)
            staged = lie(scribe, self.what, victim=0 if self.what == "path_secret" else None).staged
            insider.said.add(staged.record)
            if judge(member.chain, LogEntry(0, now, staged.record), member.group).kind == "commit":
                return staged, True
        self.refused += 1
        return staged, False


@dataclass
class Beside:
    """Outrunners that sit in the broker itself: theirs lands before another's commit, or at once behind it."""

    broker: WatchedBroker
    outrunners: Outrunners

    def answer(self, record: bytes) -> None:
        if not self.outrunners.own(record):
            for written in self.outrunners.answers(self.broker.entries("orders")):
                self.broker._land("orders", written, None)
