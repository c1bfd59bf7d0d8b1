"""What a member makes of the group log: one record in, the next membership out.

The chain of epochs (`rules.Chain`) is everybody's. On top of it lies what only this member knows: its MLS state, the
epochs it entered, those it was locked out of. A commit that counts ends the epoch whether we can enter the next or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from broker_crypto.delivery.committer import Own
from broker_crypto.delivery.group_policy import identity_of, key_of
from broker_crypto.delivery.log_records import record_hash
from broker_crypto.delivery.rules import Chain, Counted, Verdict, judge
from broker_crypto.identity import profile
from broker_crypto.mls.group import CannotEnter, Group
from broker_crypto.mls.group_info import GroupInfo
from broker_crypto.mls.leaf import LeafNode
from broker_crypto.mls.ratchet_tree import RatchetTree
from broker_crypto.records import LogEntry, RosterEntry

JOINING, MEMBER, LOCKED_OUT, REMOVED, LEFT, HALTED = "joining", "member", "locked_out", "removed", "left", "halted"

_MISLED = ("external_init", "confirmation_tag")  # how an external commit fails that was made for another key than ours

Intervals = tuple[tuple[int, int | None], ...]  # (first, last) epoch; None: still open


@dataclass(frozen=True, slots=True)
class Seen:
    """One record of the log as it was read: position, SHA-256, the broker's time in ms."""

    position: int
    digest: bytes
    time_ms: int

    @classmethod
    def of(cls, entry: LogEntry) -> Seen:
        return cls(entry.position, record_hash(entry.record), entry.time_ms)


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the log was read: its identity, the last record, and the record that made our epoch."""

    log: str
    last: Seen
    epoch: Seen | None


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch that was entered. `stream_secret` is None once erased; times are signed times in ms."""

    epoch: int
    epoch_id: bytes
    group_id: bytes
    suite: int
    began: int
    ended: int | None
    topics: tuple[str, ...]
    roster: Mapping[int, RosterEntry]
    stream_secret: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Alarm:
    """Who locked this member out of which epoch, at which signed time (ms); `key` is SHA-256 of its SubjectPublicKeyInfo."""

    time: int
    epoch: int
    identity: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Membership:
    """One group, as this agent knows it. `halt` is the code of the error that halted it."""

    group: str
    state: str = JOINING
    cursor: Cursor | None = None
    chain: Chain | None = None
    mls: Group | None = field(default=None, repr=False)
    entered: Intervals = ()
    missed: Intervals = ()
    resyncs: tuple[int, ...] = ()
    mend: bool = False  # the head's external_pub is not that of the epoch
    halt: str | None = None
    alarms: tuple[Alarm, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """What one record made: the next membership, the epoch entered with it, and whether an epoch ended.

    `lock_out` is why a commit that counts could not be entered, `alarm` the identity to name for it.
    """

    next: Membership
    verdict: Verdict
    moved: bool = False
    own: bool = False
    epoch: Epoch | None = None
    ended_ms: int | None = None
    lock_out: str | None = None
    alarm: str | None = None


def follow(member: Membership, entry: LogEntry, log: str, staged: Mapping[bytes, Group], known: Mapping[int, RosterEntry]) -> Step:
    """Read one record. `staged` are own pending states by commit hash, `known` the newest roster (entries are shared).

    Never raises for an input; a record that does not count changes nothing but the cursor, one that needs a newer version
    (verdict `upgrade`) not even that.
    """
    step = _follow(member, entry, log, staged, known=known)
    return step if member.halt is None else replace(step, next=replace(step.next, state=HALTED))


def _follow(member: Membership, entry: LogEntry, log: str, staged: Mapping[bytes, Group], *, known: Mapping[int, RosterEntry]) -> Step:
    verdict = judge(member.chain, entry, member.group)
    if verdict.kind == "upgrade":
        return Step(member, verdict)
    seen = Seen.of(entry)
    moved = verdict.kind in ("founding", "commit")
    previous = member.cursor.epoch if member.cursor else None
    cursor = Cursor(log, seen, seen if moved else previous)
    if not moved:
        return Step(replace(member, cursor=cursor, chain=verdict.chain), verdict)
    base = replace(member, cursor=cursor, chain=verdict.chain, mend=False)
    mine = staged.get(verdict.hash)
    if mine is not None and _same_context(mine, verdict):
        return replace(_entered(base, verdict, member, mine, known=known), own=True)
    if verdict.kind == "founding" or member.mls is None:
        return Step(base, verdict, moved=True)
    return _others(base, verdict, member, member.mls, known=known)


def _same_context(mine: Group, verdict: Verdict) -> bool:
    return verdict.chain is not None and mine.public.context == verdict.chain.public.context


def _others(base: Membership, verdict: Verdict, before: Membership, mls: Group, *, known: Mapping[int, RosterEntry]) -> Step:
    commit = verdict.commit
    if commit is None:
        return Step(base, verdict, moved=True)
    ended = commit.data.time
    if mls.leaf in commit.staged.removed:
        gone = replace(base, state=JOINING, mls=None, entered=_close(base.entered, mls.public.epoch))
        return Step(gone, verdict, moved=True, ended_ms=ended)
    try:
        return _entered(base, verdict, before, mls.enter(commit.staged, commit.message), known=known)
    except CannotEnter as error:
        out = replace(
            base,
            state=LOCKED_OUT,
            mls=None,
            entered=_close(base.entered, mls.public.epoch),
            missed=(*base.missed, (mls.public.epoch + 1, None)),
        )
        return Step(out, verdict, moved=True, ended_ms=ended, lock_out=error.reason, alarm=_suspect(before, commit, error.reason))


def _suspect_leaf(before: Membership, commit: Counted, reason: str) -> LeafNode | None:
    """Whom to name: the committer; where a joiner was misled by a false external_pub, the member that signed it."""
    chain, path = before.chain, commit.staged.path
    misled = before.mend and commit.staged.external and reason in _MISLED
    if chain is None or not misled:
        return path.leaf_node if path is not None else None
    return chain.public.tree.leaf(GroupInfo.decode(chain.info).signer) or (path.leaf_node if path is not None else None)


def _suspect(before: Membership, commit: Counted, reason: str) -> str:
    leaf = _suspect_leaf(before, commit, reason)
    return commit.sender if leaf is None else identity_of(leaf)


def _entered(base: Membership, verdict: Verdict, before: Membership, mls: Group, *, known: Mapping[int, RosterEntry]) -> Step:
    chain, number = base.chain, mls.public.epoch
    if chain is None:
        raise ValueError("an epoch without a chain")
    entered = base.entered
    if not entered or entered[-1][1] is not None:
        entered = (*entered, (number, None))
    nxt = replace(
        base,
        state=MEMBER,
        mls=mls,
        entered=entered,
        missed=_close(base.missed, number - 1),
        mend=chain.external_pub != mls.external_public,
    )
    ended = verdict.commit.data.time if verdict.commit else None
    same = before.mls is not None and before.chain is not None and before.chain.policy is chain.policy
    tree = before.chain.public.tree if same and before.chain is not None else None
    return Step(nxt, verdict, moved=True, epoch=epoch_of(chain, mls, known, tree), ended_ms=ended)


def halted(member: Membership, code: str) -> Membership:
    """Halted by the error of this code; what else it is stays, to be shown again by `resumed`."""
    return replace(member, halt=code, state=HALTED)


def resumed(member: Membership) -> Membership:
    """What it was before it halted, and has become since."""
    missing = bool(member.missed) and member.missed[-1][1] is None
    return replace(member, halt=None, state=MEMBER if member.mls else LOCKED_OUT if missing else JOINING)  # `placed` by who reads on


def own_leaf(member: Membership, own: Own) -> int | None:
    """The leaf of this agent: where its secrets are, else the one with its key."""
    if member.mls is not None:
        return member.mls.leaf
    return None if member.chain is None else member.chain.leaf_of(own.signature_public)


def placed(member: Membership, own: Own) -> Membership:
    """One who was in and may not come back is `removed`, until the group's policy admits it again."""
    if member.chain is None or member.state not in (JOINING, LOCKED_OUT, REMOVED):
        return member
    if own.admitted(member.chain.policy):
        missing = bool(member.missed) and member.missed[-1][1] is None
        return member if member.state != REMOVED else replace(member, state=LOCKED_OUT if missing else JOINING)
    return replace(member, state=REMOVED) if member.entered else member


def alarmed(member: Membership, step: Step, before: Membership) -> Membership:
    """With the alarm of this lock-out noted; the newest sixteen are kept."""
    commit, chain = step.verdict.commit, before.chain
    if commit is None or chain is None:
        return member
    suspect = _suspect_leaf(before, commit, step.lock_out or "")
    if suspect is None:
        return member
    alarm = Alarm(commit.data.time, chain.epoch + 1, identity_of(suspect), key_of(suspect))
    return replace(member, alarms=(*member.alarms[-15:], alarm))


def _close(intervals: Intervals, last: int) -> Intervals:
    if not intervals or intervals[-1][1] is not None:
        return intervals
    return (*intervals[:-1], (intervals[-1][0], last))


def epoch_id_of(mls: Group) -> bytes:
    """The id (16 bytes) of the epoch that `mls` is in: another one for the same number in another log."""
    return mls.export("broker_crypto epoch id v1", mls.public.group_id, 16)


def epoch_of(chain: Chain, mls: Group, known: Mapping[int, RosterEntry], tree: RatchetTree | None = None) -> Epoch:
    """The epoch that `mls` is in: its keys exported (RFC 9420 section 8.5), its roster by the group's policy."""
    suite, group_id = mls.public.suite, mls.public.group_id
    return Epoch(
        epoch=mls.public.epoch,
        epoch_id=epoch_id_of(mls),
        group_id=group_id,
        suite=suite.number,
        began=chain.time,
        ended=None,
        topics=chain.policy.topics,
        roster=roster_of(chain, known, tree),
        stream_secret=mls.export("broker_crypto stream v1", group_id, suite.nh),
    )


def roster_of(chain: Chain, known: Mapping[int, RosterEntry], tree: RatchetTree | None) -> dict[int, RosterEntry]:
    """{leaf: entry} of the chain's epoch; entries of `known` that did not change are the same objects.

    `tree`: the one that `known` was made from, by the policy that the chain has; a leaf that is the same object there is not
    looked at again. None where the policy is another, or nobody knows.
    """
    roster: dict[int, RosterEntry] = {}
    for index, leaf in chain.public.tree.leaves():
        old = known.get(index)
        if tree is not None and old is not None and tree.leaf(index) is leaf and old.signature_key == leaf.signature_key:
            roster[index] = old
            continue
        certificates, identity = profile.read_chain(leaf.credential.certificates), identity_of(leaf)
        issuers = profile.issuer_keys(certificates, chain.policy.anchors)
        entry = RosterEntry(identity, leaf.signature_key, chain.policy.may_write(identity), issuers)
        roster[index] = old if old is not None and old == entry else entry
    return roster
