"""What is due next in a group whose log has been read to its head: a value in, a wish and a time out. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broker_crypto import limits
from broker_crypto.delivery import rights
from broker_crypto.delivery.chain import Chain
from broker_crypto.delivery.committer import Own
from broker_crypto.delivery.group_policy import ADMIN, GroupPolicy
from broker_crypto.delivery.membership import LEFT, MEMBER, Membership, own_leaf
from broker_crypto.delivery.state import Intent
from broker_crypto.delivery.trust import LocalPolicy

FOUND, JOIN, COMMIT, LEAVE = "found", "join", "commit", "leave"  # wishes
ROTATE, REMOVE, POLICY = "rotate", "remove", "policy"  # kinds of intents, beside JOIN and LEAVE; REMOVE and POLICY carry a delta
FOREVER = 3600.0  # seconds after which the loop looks again although nothing is due


@dataclass(frozen=True, slots=True)
class Habits:
    """Local settings of the loop, in s. `jitter` in [0, 1) is drawn once a loop and shifts what all members do alike.

    `failover` is how long a log that is behind the cursor may take to come up again: 0 where it has no other replica.
    """

    rotation_interval: float = limits.ROTATION_INTERVAL_SECONDS
    epoch_max_age: float | None = None
    jitter: float = 0.0
    on_locked_out: str = "alert"
    failover: float = 0.0


@dataclass(frozen=True, slots=True)
class Now:
    """Wall clock (ms), and for how many s the log has been seen empty, the head's external_pub false, a leaf removable."""

    ms: int
    empty_for: float = 0.0
    false_for: float = 0.0
    removable_for: float = 0.0


@dataclass(frozen=True, slots=True)
class Due:
    """`wish` is what to do now (None: nothing), else look again after `wait` s.

    `intents` are the rows it would settle, `remove` the leaves that anybody may remove. `at_once`: a resync is followed by a commit
    of these intents before anybody else can commit.
    """

    wish: str | None
    wait: float = FOREVER
    intents: tuple[bytes, ...] = ()
    remove: frozenset[int] = frozenset()
    at_once: bool = False


def due(member: Membership, local: LocalPolicy, own: Own, *, habits: Habits, now: Now, intents: Sequence[Intent]) -> Due:
    """What this agent should write at the head of the log."""
    if member.halt is not None or member.state == LEFT:
        return Due(None)
    if member.chain is None:
        return _founding(local.policy, own.identity, now)
    leaving = _ids(intents, (LEAVE,))
    if leaving:
        leaf = own_leaf(member, own)
        return Due(LEAVE, intents=leaving) if leaf is None or leaf not in member.chain.left else Due(None)
    if not own.admitted(member.chain.policy):
        return Due(None)
    if member.state != MEMBER:
        return _joining(member, own.identity, now, intents)
    return _commit(member, own, habits=habits, now=now, intents=intents)


def _ids(intents: Sequence[Intent], kinds: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(i.id for i in intents if i.kind in kinds and i.refused is None)


def _founding(policy: GroupPolicy, identity: str, now: Now) -> Due:
    role = policy.role_of(identity)
    if role is None:
        return Due(None)
    wait = 0.0 if role == ADMIN else limits.FOUND_DELAY_SECONDS - now.empty_for
    return Due(FOUND) if wait <= 0 else Due(None, wait)


def _joining(member: Membership, identity: str, now: Now, intents: Sequence[Intent]) -> Due:
    """An admin with a removal asked for comes back at once, each time: whoever locks it out would outlast it else."""
    removals = _ids(intents, (REMOVE,))
    if removals and member.chain is not None and member.chain.policy.role_of(identity) == ADMIN:
        return Due(JOIN, intents=removals, at_once=True)
    wait = resync_wait(member, now.ms) if member.missed or member.entered else 0.0
    return Due(JOIN) if wait <= 0 else Due(None, wait)


def resync_wait(member: Membership, now_ms: int) -> float:
    """Seconds until the next resync: none, then 10 s doubling to 10 min, by resyncs in force within the last 10 min."""
    ages = [abs(now_ms - t) / 1000 for t in member.resyncs]  # a clock that was set back makes none of them last longer
    recent = [age for age in ages if age < limits.RESYNC_FORGET_SECONDS]
    if not recent:
        return 0.0
    gap: float = min(limits.RESYNC_MIN_SECONDS * 2.0 ** (len(recent) - 1), limits.RESYNC_MAX_SECONDS)
    return gap - recent[-1]


def removable(chain: Chain, own: int, now_ms: int) -> frozenset[int]:
    """Leaves that anybody may remove at `now_ms`, without the own."""
    return frozenset(rights.removable(chain, now_ms)) - {own}


def _commit(member: Membership, own: Own, *, habits: Habits, now: Now, intents: Sequence[Intent]) -> Due:
    chain, mls = member.chain, member.mls
    if chain is None or mls is None:
        return Due(None)
    gone = removable(chain, mls.leaf, now.ms)
    wanted = _ids(intents, (ROTATE, REMOVE, POLICY))
    if wanted:
        return Due(COMMIT, intents=wanted, remove=gone)
    spread = habits.jitter * limits.SPREAD_SECONDS
    since_path = (now.ms - chain.paths.get(mls.leaf, chain.time)) / 1000
    waits = [_interval(habits) - since_path]
    if member.mend:
        waits.append(spread - now.false_for)
    if gone:
        waits.append(spread - now.removable_for)
    if own.renews(chain.public.tree.leaf(mls.leaf)):
        waits.append(0.0)
    if habits.epoch_max_age is not None:
        waits.append(habits.epoch_max_age + spread - (now.ms - chain.time) / 1000)
    wait = min(waits)
    return Due(COMMIT, remove=gone) if wait <= 0 else Due(None, min(wait, FOREVER))


def _interval(habits: Habits) -> float:
    return habits.rotation_interval * (1 + limits.ROTATION_JITTER * (2 * habits.jitter - 1))
