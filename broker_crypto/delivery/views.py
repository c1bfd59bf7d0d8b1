"""What a topic channel may see of a group: epochs with their keys, and why it may not seal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from broker_crypto import errors, limits
from broker_crypto.delivery.committer import Own
from broker_crypto.delivery.membership import JOINING, LEFT, LOCKED_OUT, MEMBER, Epoch, Intervals, Membership, epoch_id_of
from broker_crypto.records import EpochView, Fence, GroupView

HALTS: dict[str, type[errors.GroupError]] = {
    kind.code: kind
    for kind in (
        errors.LogRolledBack,
        errors.GroupLogTruncated,
        errors.IdentityInUse,
        errors.UntrustedFounding,
        errors.UpgradeNeeded,
        errors.LogClockAhead,
    )
}


def epoch_view(epoch: Epoch, stream_secret: bytes, fences: Mapping[int, Sequence[Fence]]) -> EpochView:
    """The view of an epoch whose keys are held."""
    return EpochView(
        epoch=epoch.epoch,
        epoch_id=epoch.epoch_id,
        suite=epoch.suite,
        group_id=epoch.group_id,
        stream_secret=stream_secret,
        roster=epoch.roster,
        topics=frozenset(epoch.topics),
        fences=fences,
    )


def group_view(member: Membership, views: Mapping[bytes, EpochView], erased: frozenset[bytes], own: Own) -> GroupView:
    """The whole view: which epochs open, which one seals."""
    if member.halt == errors.UntrustedFounding.code:  # as one who has read nothing: what it may yet open is not refused for good
        return GroupView(epochs={}, current=-1, erased=erased)
    if member.state == LEFT:
        return GroupView(epochs={}, current=limits.MAX_EPOCH, absent=((0, limits.MAX_EPOCH),))
    current = member.chain.epoch if member.chain else -1
    sealing = None
    if closed_by(member, own.identity) is None and member.mls is not None:
        sealing = views.get(epoch_id_of(member.mls))
    missed = _closed(member.missed, current)
    return GroupView(
        epochs=dict(views),
        current=current,
        sealing=sealing,
        leaf=member.mls.leaf if member.mls else None,
        absent=_between(_closed(member.entered, current), missed, current),
        missed=missed,
        erased=erased,
        signature_private=member.mls.signature_private if member.mls else None,
    )


def closed_by(member: Membership, identity: str) -> errors.GroupError | None:
    """Why this agent may not seal in the group, None where it may. GroupNotReady is the one that passes by itself."""
    group = member.group
    if member.halt is not None:
        return HALTS[member.halt](group=group)
    if member.state == MEMBER and member.chain is not None:
        return None if member.chain.policy.may_write(identity) else errors.MayNotWrite(group=group, identity=identity)
    if member.state == JOINING:
        if member.chain is not None and member.chain.policy.role_of(identity) is None:
            return errors.NotAMember("the group's policy gives this identity no role", group=group, identity=identity)
        return errors.GroupNotReady(group=group, missing="the founding" if member.chain is None else "the own commit that joins")
    if member.state == LOCKED_OUT:
        return errors.LockedOut(group=group)
    return errors.NotAMember(group=group, state=member.state)


def _closed(intervals: Intervals, current: int) -> tuple[tuple[int, int], ...]:
    return tuple((first, current if last is None else last) for first, last in intervals)


def _between(entered: tuple[tuple[int, int], ...], missed: tuple[tuple[int, int], ...], current: int) -> tuple[tuple[int, int], ...]:
    """Epochs up to `current` that are in neither list."""
    gaps: list[tuple[int, int]] = []
    start = 0
    for first, last in sorted((*entered, *missed)):
        if first > start:
            gaps.append((start, first - 1))
        start = max(start, last + 1)
    if start <= current:
        gaps.append((start, current))
    return tuple(gaps)
