"""Whether a log is still the one that was read: its identity, the cursor's own record, the record that made our epoch."""

from __future__ import annotations

from broker_crypto import limits
from broker_crypto.delivery.membership import Cursor, Seen
from broker_crypto.delivery.plan import FOREVER
from broker_crypto.delivery.ports import GroupLog
from broker_crypto.errors import LogRolledBack
from broker_crypto.records import Clock, LogEntry


class Comparison:
    """The comparisons of one group's log. Each raises LogRolledBack where the log is another one."""

    def __init__(self, group: str, clock: Clock) -> None:
        self._group, self._clock = group, clock
        self._doubted = False
        self._compared_at = -limits.CURSOR_CHECK_SECONDS

    def doubt(self) -> None:
        """Something looked odd: compare soon."""
        self._doubted = True

    async def at_open(self, log: GroupLog, identity: str, cursor: Cursor) -> None:
        """The log's identity, and both records of the cursor."""
        if cursor.log != identity:
            raise LogRolledBack("the log was made anew", group=self._group)
        await self._compare(log, cursor.last)
        await self.epoch(log, cursor)

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

    async def _compare(self, log: GroupLog, seen: Seen) -> None:
        self._same(seen, await log.read(seen.position, 1))

    def _same(self, seen: Seen, entries: list[LogEntry]) -> None:
        if not entries or Seen.of(entries[0]) != seen:
            raise LogRolledBack("a record that was read is not there", group=self._group, position=seen.position)
