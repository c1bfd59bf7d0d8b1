"""Whether a log is still the one that was read: its identity, the cursor's own record, the record that made our epoch.

And whether the state is the one that was stored with the cursor: who can write the store's file can put an old row back, which
opens as well as it ever did, and would have its member seal in an epoch that is over.
"""

from __future__ import annotations

import hmac

from broker_crypto import limits
from broker_crypto.delivery.log_records import GroupRecord
from broker_crypto.delivery.membership import Cursor, Membership, Seen
from broker_crypto.delivery.plan import FOREVER
from broker_crypto.delivery.ports import GroupLog
from broker_crypto.errors import BrokerUnavailable, LogRolledBack, StateCorrupt
from broker_crypto.mls.framing import MLSMessage
from broker_crypto.mls.group_info import GroupInfo
from broker_crypto.records import Clock, LogEntry


class Comparison:
    """The comparisons of one group's log. Each raises LogRolledBack where the log is another one.

    A log that merely ends before what was read may be a replica that has taken over and comes up: for `patience` s that is
    BrokerUnavailable, seconds in which nothing is sealed.
    """

    def __init__(self, group: str, clock: Clock, patience: float = 0.0) -> None:
        self._group, self._clock, self._patience = group, clock, patience
        self._short_since: float | None = None
        self._doubted = False
        self._compared_at = -limits.CURSOR_CHECK_SECONDS

    def doubt(self) -> None:
        """Something looked odd: compare soon."""
        self._doubted = True

    async def at_open(self, log: GroupLog, identity: str, member: Membership) -> None:
        """The log's identity, both records of the cursor, and the state: StateCorrupt where it is not what the record made."""
        cursor = member.cursor
        if cursor is None:
            return
        if cursor.log != identity:
            raise LogRolledBack("the log was made anew", group=self._group)
        await self._compare(log, cursor.last)
        if cursor.epoch is None:
            return
        entries = await self._compare(log, cursor.epoch)
        if member.chain is None or not hmac.compare_digest(_info_of(entries[0].record), member.chain.info):
            raise StateCorrupt("the state is not of the epoch that the cursor names", kind="group", key=self._group.encode() + b"\x00")

    async def epoch(self, log: GroupLog, cursor: Cursor | None) -> None:
        """The record that made our epoch."""
        if cursor is not None and cursor.epoch is not None:
            await self._compare(log, cursor.epoch)

    async def if_doubted(self, log: GroupLog, cursor: Cursor | None) -> float:
        """Compare where something looked odd, at most once in 10 s; the s after which there is something to compare."""
        if not self._doubted:
            return FOREVER
        now = self._clock.monotonic()
        wait = self._compared_at + limits.CURSOR_CHECK_SECONDS - now
        if wait > 0:
            return wait
        await self.epoch(log, cursor)
        self._doubted, self._compared_at = False, now
        return FOREVER

    def behind(self, cursor: Cursor | None, entries: list[LogEntry]) -> list[LogEntry]:
        """What was fetched from the cursor's own record on, without that record."""
        if cursor is None:
            return entries
        self._same(cursor.last, entries)
        return entries[1:]

    async def _compare(self, log: GroupLog, seen: Seen) -> list[LogEntry]:
        entries = await log.read(seen.position, 1)
        self._same(seen, entries)
        return entries

    def _same(self, seen: Seen, entries: list[LogEntry]) -> None:
        if not entries:
            self._wait_or_raise(seen)
        elif Seen.of(entries[0]) != seen:
            raise LogRolledBack("a record that was read is not there", group=self._group, position=seen.position)
        else:
            self._short_since = None

    @property
    def waits(self) -> bool:
        """Whether the log was behind what was read when it was last looked at."""
        return self._short_since is not None

    def _wait_or_raise(self, seen: Seen) -> None:
        now = self._clock.monotonic()
        if self._short_since is None:
            self._short_since = now
        if now - self._short_since >= self._patience:
            raise LogRolledBack("the log ends before a record that was read", group=self._group, position=seen.position)
        raise BrokerUnavailable("the log is behind what was read: a replica may be coming up", group=self._group)


def _info_of(record: bytes) -> bytes:
    """The GroupInfo of the epoch that a record made which counted."""
    read = GroupRecord.decode(record)
    if read is None:
        return b""
    body = MLSMessage.decode(read.message).body
    return body.encode() if isinstance(body, GroupInfo) else read.group_info
