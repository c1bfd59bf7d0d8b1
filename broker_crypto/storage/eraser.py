"""Erasing: what was deleted or overwritten leaves the files when the database's log is copied back and truncated.

secure_delete overwrites in the database, truncating empties the log; either alone leaves everything that was deleted readable. Blocks
that the file system held before are beyond us (SECURITY.md): rows are sealed, so they need the store's key as well.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time

from broker_crypto.limits import STORE_ERASE_RETRY_SECONDS, STORE_ERASE_SECONDS


class Eraser:
    """Copies the database's log back and truncates it. Lives in the writer's thread."""

    def __init__(self, connection: sqlite3.Connection, busy_ms: int) -> None:
        self._connection = connection
        self._busy_ms = busy_ms
        self._due: float | None = time.monotonic()  # None: nothing to erase; a log left by a crash may hold what was deleted
        self._first_try: float | None = None
        self._pause = STORE_ERASE_RETRY_SECONDS
        self._warned = False
        self.waiting: list[asyncio.Future[None]] = []

    def dirty(self) -> None:
        """Something was written."""
        if self._due is None:
            self._due = time.monotonic() + STORE_ERASE_SECONDS

    def due(self) -> bool:
        return self._due is not None and time.monotonic() >= self._due

    def wait(self) -> float | None:
        """Seconds until the next attempt, None where there is none to make."""
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    def held_up(self) -> bool:
        """Whether attempts have failed for STORE_ERASE_SECONDS now; said once until one works."""
        late = self._first_try is not None and time.monotonic() - self._first_try >= STORE_ERASE_SECONDS
        if late and not self._warned:
            self._warned = True
            return True
        return False

    def attempt(self) -> bool:
        """Whether everything deleted is gone. Never waits for a reader; sets the time of the next attempt where one is needed."""
        if self._due is None:
            return True
        gone = False
        try:
            self._connection.execute("PRAGMA busy_timeout=0").fetchall()
            (busy, _, _) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            gone = int(busy) == 0
        finally:
            self._plan(again=not gone)
            self._connection.execute(f"PRAGMA busy_timeout={self._busy_ms}").fetchall()
        return gone

    def _plan(self, *, again: bool) -> None:
        now = time.monotonic()
        if again:
            self._first_try = now if self._first_try is None else self._first_try
            self._due = now + self._pause
            self._pause = min(self._pause * 2, STORE_ERASE_SECONDS)
        else:
            self._due = self._first_try = None
            self._pause = STORE_ERASE_RETRY_SECONDS
            self._warned = False
