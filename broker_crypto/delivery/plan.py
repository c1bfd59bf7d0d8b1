"""What is due next in a group whose log has been read to its head: a value in, a wish and a time out. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broker_crypto import limits
from broker_crypto.delivery.group_policy import ADMIN, GroupPolicy
from broker_crypto.delivery.membership import LEFT, MEMBER, Membership
from broker_crypto.delivery.state import Intent
from broker_crypto.delivery.trust import LocalPolicy

FOUND, JOIN, ROTATE = "found", "join", "rotate"
FOREVER = 3600.0  # seconds after which the loop looks again although nothing is due


@dataclass(frozen=True, slots=True)
class Habits:
    """Local settings of the loop, in s. `jitter` in [0, 1) is drawn once a loop and shifts what all members do alike."""

    rotation_interval: float = limits.ROTATION_INTERVAL_SECONDS
    epoch_max_age: float | None = None
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class Now:
    """Wall clock (ms), and for how many s the log has been seen empty, and the head's external_pub false."""

    ms: int
    empty_for: float = 0.0
    false_for: float = 0.0


@dataclass(frozen=True, slots=True)
class Due:
    """`wish` is what to do now (None: nothing), else look again after `wait` s. `intents` are the rows it would settle."""

    wish: str | None
    wait: float = FOREVER
    intents: tuple[bytes, ...] = ()


def due(member: Membership, local: LocalPolicy, identity: str, *, habits: Habits, now: Now, intents: Sequence[Intent]) -> Due:
    """What this agent should commit at the head of the log."""
    if member.halt is not None or member.state == LEFT:
        return Due(None)
    if member.chain is None:
        return _founding(local.policy, identity, now)
    if member.chain.policy.role_of(identity) is None:
        return Due(None)
    if member.state != MEMBER:
        wait = resync_wait(member, now.ms) if member.missed or member.entered else 0.0
        return Due(JOIN) if wait <= 0 else Due(None, wait)
    return _rotation(member, habits, now, intents)


def _founding(policy: GroupPolicy, identity: str, now: Now) -> Due:
    role = policy.role_of(identity)
    if role is None:
        return Due(None)
    wait = 0.0 if role == ADMIN else limits.FOUND_DELAY_SECONDS - now.empty_for
    return Due(FOUND) if wait <= 0 else Due(None, wait)


def resync_wait(member: Membership, now_ms: int) -> float:
    """Seconds until the next resync: none, then 10 s doubling to 10 min, by resyncs in force within the last 10 min."""
    ages = [abs(now_ms - t) / 1000 for t in member.resyncs]  # a clock that was set back makes none of them last longer
    recent = [age for age in ages if age < limits.RESYNC_FORGET_SECONDS]
    if not recent:
        return 0.0
    gap: float = min(limits.RESYNC_MIN_SECONDS * 2.0 ** (len(recent) - 1), limits.RESYNC_MAX_SECONDS)
    return gap - recent[-1]


def _rotation(member: Membership, habits: Habits, now: Now, intents: Sequence[Intent]) -> Due:
    chain, mls = member.chain, member.mls
    if chain is None or mls is None:
        return Due(None)
    wanted = tuple(i.id for i in intents if i.kind == ROTATE and i.refused is None)
    if wanted:
        return Due(ROTATE, intents=wanted)
    spread = habits.jitter * limits.FALSE_EXTERNAL_PUB_SECONDS
    since_epoch = (now.ms - chain.time) / 1000
    waits = [_interval(habits) - (now.ms - chain.paths.get(mls.leaf, chain.time)) / 1000]
    if member.mend:
        waits.append(spread - now.false_for)
    if habits.epoch_max_age is not None:
        waits.append(habits.epoch_max_age + spread - since_epoch)
    wait = min(waits)
    return Due(ROTATE) if wait <= 0 else Due(None, min(wait, FOREVER))


def _interval(habits: Habits) -> float:
    return habits.rotation_interval * (1 + limits.ROTATION_JITTER * (2 * habits.jitter - 1))
