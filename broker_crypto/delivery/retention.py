"""How long the keys of ended epochs are kept: what is due, and when the local clock is not believed. No I/O (docs/topics.md, Retention)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from broker_crypto import limits
from broker_crypto.delivery.membership import Epoch


@dataclass(frozen=True, slots=True)
class Marks:
    """What must outlive a restart, in ms of the local wall clock.

    `known`: when this member last knew the newest epoch that it had read to be the current one (0: never). `held_until`: nothing
    is erased before, since the clock has jumped.
    """

    known: int = 0
    held_until: int = 0

    def worth_storing(self, stored: Marks) -> bool:
        """Whether the row `stored` says too little: another hold, or an hour's knowledge."""
        return self.held_until != stored.held_until or abs(self.known - stored.known) >= limits.RETENTION_MARK_MS

    def held_at(self, now_ms: int) -> Marks:
        """As it counts at `now_ms`: a clock that was set back holds nothing up for longer than the whole wait."""
        return replace(self, held_until=min(self.held_until, now_ms + limits.RETENTION_HOLD_MS))


def ended_at(signed_ms: int, known_ms: int, now_ms: int) -> int:
    """When an epoch ended, by the local clock: its commit's signed time, clamped to [known to be current, now]."""
    return min(max(signed_ms, known_ms), now_ms)


def erased(epoch: Epoch) -> Epoch:
    """What stays of an epoch: number, id, suite and times."""
    return replace(epoch, topics=(), roster={}, stream_secret=None)


@dataclass(frozen=True, slots=True)
class Plan:
    """Epochs whose keys go now, and the s after which another's may."""

    due: tuple[Epoch, ...]
    wait: float | None


def plan(epochs: Iterable[Epoch], retention_s: int, held_until_ms: int, now_ms: int) -> Plan:
    """What `retention_s` (below 0: never) has to say of `epochs` at `now_ms`; nothing is due before `held_until_ms`."""
    if retention_s < 0:
        return Plan((), None)
    ends = [(e.ended + retention_s * 1000, e) for e in epochs if e.ended is not None and e.stream_secret is not None]
    due = [] if now_ms < held_until_ms else [e for at, e in ends if at <= now_ms]
    left = [max(at, held_until_ms) for at, e in ends if e not in due]
    return Plan(tuple(sorted(due, key=lambda e: e.epoch)), (min(left) - now_ms) / 1000 if left else None)


class Jumps:
    """Whether the wall clock went ahead of the monotonic one by more than an hour: at once, or little by little."""

    def __init__(self, wall_ms: int, monotonic_s: float) -> None:
        self._lowest = wall_ms - monotonic_s * 1000

    def jumped(self, wall_ms: int, monotonic_s: float) -> bool:
        """True once for each jump."""
        apart = wall_ms - monotonic_s * 1000
        jumped = apart - self._lowest > limits.RETENTION_JUMP_MS
        self._lowest = apart if jumped else min(self._lowest, apart)
        return jumped
