"""Own records on their way into the log: what was sent when, what is refused for good, and what holds the next one back.

Kept in memory only: after a start everything may be sent again, for a second copy is stale by itself.
"""

from __future__ import annotations

from broker_crypto import limits
from broker_crypto.delivery.committer import Staged
from broker_crypto.delivery.membership import Cursor
from broker_crypto.records import Clock

_TOO_OLD_MS = limits.COMMIT_TIME_WINDOW_MS - 15_000  # a staged commit that waited longer is built anew


class Appends:
    """The appends of one group since its epoch began. Times are those of the monotonic clock."""

    def __init__(self, clock: Clock) -> None:
        self.off_ms = 0  # the broker's clock against the own, where an own record was refused for its time
        self.refused_for = ""  # rule that the last own record broke
        self._clock = clock
        self._sent_at: dict[bytes, float] = {}
        self._tries: dict[bytes, int] = {}
        self._dead: set[bytes] = set()
        self._lost = 0
        self._refusals = 0
        self._hold_until = 0.0

    def moved(self) -> None:
        """An epoch has ended: what was sent in it is over."""
        self._dead.clear()
        self._sent_at.clear()
        self._tries.clear()
        self._lost = self._refusals = 0
        self._hold_until, self.refused_for = 0.0, ""

    def kill(self, digest: bytes) -> bool:
        """The record of this hash never counts; whether that is news."""
        news = digest not in self._dead
        self._dead.add(digest)
        return news

    def retime(self, off_ms: int) -> None:
        """Sign by the broker's clock, which is so far ahead of the own, unless that is too far to be believed."""
        if abs(off_ms) <= limits.RETIME_MAX_MS:
            self.off_ms = off_ms

    def refuse(self, reason: str) -> None:
        """Hold back: at once again after a first refusal for time, else after 10 s, doubling to 10 min."""
        self._refusals += 1
        self.refused_for = reason
        tries = self._refusals - (1 if reason == "time" else 0)
        if tries > 0:
            hold = min(limits.RESYNC_MIN_SECONDS * 2.0 ** (tries - 1), limits.RESYNC_MAX_SECONDS)
            self._hold_until = self._clock.monotonic() + hold

    def held(self) -> float:
        """Seconds for which nothing is built; 0 or less for none."""
        return self._hold_until - self._clock.monotonic()

    def may_count(self, staged: Staged, epoch: int, intents: tuple[bytes, ...], now_ms: int) -> bool:
        """Whether `staged` says what is wanted in `epoch`, and its signed time may still count."""
        wanted = staged.epoch == epoch and staged.hash not in self._dead and set(intents) <= set(staged.intents)
        return wanted and abs(now_ms - staged.time) < _TOO_OLD_MS

    def patience(self, digest: bytes) -> float:
        """Seconds until the record of this hash may be sent (again): none at first and after a lost race, then 2 s a try."""
        sent = self._sent_at.get(digest)
        if sent is None:
            return 0.0
        return sent + limits.APPEND_RETRY_SECONDS * max(1, self._tries.get(digest, 0)) - self._clock.monotonic()

    def expected(self, cursor: Cursor | None) -> int | None:
        """The position to expect the log at; None (any) once junk has won three races."""
        if self._lost >= limits.LOST_RACES_BEFORE_BLIND:
            return None
        return cursor.last.position if cursor else -1

    def sent(self, digest: bytes) -> None:
        """The record of this hash goes out now."""
        self._sent_at[digest] = self._clock.monotonic()
        self._tries[digest] = self._tries.get(digest, 0) + 1

    def not_sent(self, digest: bytes, *, lost: bool = False) -> None:
        """It did not get in and may be sent at once; `lost`: somebody else's record did."""
        self._lost += lost
        self._sent_at.pop(digest, None)
