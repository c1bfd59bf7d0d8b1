"""A group in memory as it stands in the store: followed on a copy, written in one transaction, then adopted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from broker_crypto import errors, limits, records
from broker_crypto.delivery import fences, retention, state, views
from broker_crypto.delivery.committer import Own, Staged
from broker_crypto.delivery.fences import FenceRow
from broker_crypto.delivery.group_policy import identity_of
from broker_crypto.delivery.membership import LEFT, MEMBER, Epoch, Membership, Step, alarmed, follow, halted, own_leaf, placed
from broker_crypto.mls.group import Group
from broker_crypto.records import EpochView, Event, GroupView, LogEntry
from broker_crypto.storage.port import StateStore, Transaction

LEAVE = "leave"  # the kind of intent


@dataclass(slots=True)
class Change:
    """What some entries made.

    `own`: a record of ours counted. `epochs` are new or ended ones, `refused` own records: hash -> (rule, broker's time).
    """

    member: Membership
    moved: bool = False
    noted: bool = False  # a leave counts: the chain says more, and no epoch moved
    own: bool = False
    epochs: dict[bytes, Epoch] = field(default_factory=dict)
    fences: dict[bytes, FenceRow] = field(default_factory=dict)
    settled: set[bytes] = field(default_factory=set)
    kept: dict[bytes, Staged] = field(default_factory=dict)  # own records behind the own commit that ended the epoch
    refused: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    verdicts: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    halt: str | None = None  # code of what the last entry stops this member with
    left: bool = False  # the last entry is the own leave
    refused_intents: dict[bytes, state.Intent] = field(default_factory=dict)
    ahead: bool = False  # the next entry counts at a time that this clock is far from: not taken


class GroupMemory:
    """Membership, epochs, views, staged records and intents of one group."""

    def __init__(self, member: Membership) -> None:
        self.member = member
        self.epochs: dict[bytes, Epoch] = {}
        self.fences: dict[bytes, FenceRow] = {}  # by the hash of the commit
        self.views: dict[bytes, EpochView] = {}
        self.staged: dict[bytes, Staged] = {}
        self.intents: dict[bytes, state.Intent] = {}
        self.stale_intents = False
        self.done: deque[bytes] = deque(maxlen=1024)  # intents that were settled lately

    async def load(self, store: StateStore) -> None:
        """Read the group's rows, all or none. Raises StateCorrupt."""
        key = state.prefix(self.member.group)
        async with store.transaction() as tx:
            row, seen = await tx.get(state.GROUP, key), await tx.get(state.CURSOR, key)
            epochs = [state.decode_epoch(value) for _, value in await tx.scan(state.EPOCH, key)]
            fenced = [state.decode_fence(value) for _, value in await tx.scan(state.FENCE, key)]
            staged = [state.decode_staged(value) for _, value in await tx.scan(state.STAGED, key)]
            self.intents = await self._read_intents(tx)  # in the block: whoever stores one comes behind it
        cursor = state.decode_cursor(seen) if seen else None
        self.member = state.decode_member(row, cursor) if row is not None else replace(self.member, cursor=cursor)
        self.staged = {one.hash: one for one in staged}
        self.fences = {row.commit: row for row in fenced}
        for epoch in epochs:
            self._keep(epoch)

    async def end(self, store: StateStore, now_ms: int) -> None:
        """The group is over: an epoch that is open ends now."""
        ended = [replace(epoch, ended=now_ms) for epoch in self.epochs.values() if epoch.ended is None]
        if ended:
            async with store.transaction() as tx:
                for epoch in ended:
                    await tx.put(state.EPOCH, state.epoch_key(self.member.group, epoch), state.encode_epoch(epoch))
            self.epochs.update({epoch.epoch_id: epoch for epoch in ended})

    async def refresh_intents(self, store: StateStore) -> None:
        """Read the intents again, if another process may have stored one."""
        if not self.stale_intents:
            return
        self.stale_intents = False  # who stores another one from here on says so again
        try:
            async with store.transaction() as tx:
                self.intents = await self._read_intents(tx)  # in the block: whoever stores one comes behind it
        except BaseException:
            self.stale_intents = True
            raise

    async def _read_intents(self, tx: Transaction) -> dict[bytes, state.Intent]:
        rows = await tx.scan(state.INTENT, state.prefix(self.member.group))
        return {intent.id: intent for intent in (state.Intent.decode(value) for _, value in rows)}

    def _keep(self, epoch: Epoch) -> None:
        self.epochs[epoch.epoch_id] = epoch
        if epoch.stream_secret is not None and epoch.epoch_id not in self.views:
            raised = fences.fences_for(epoch, self.fences.values())
            self.views[epoch.epoch_id] = views.epoch_view(epoch, epoch.stream_secret, raised)

    def forget(self, erased: Iterable[Epoch]) -> None:
        """Take over what was stored of epochs whose keys are erased."""
        for epoch in erased:
            self.epochs[epoch.epoch_id] = epoch
            self.views.pop(epoch.epoch_id, None)
        for row in self.idle_fences():
            del self.fences[row.commit]

    def idle_fences(self, erased: Iterable[Epoch] = ()) -> list[FenceRow]:
        """Fences that speak of no epoch with a key, once the keys of `erased` are gone too."""
        gone = {epoch.epoch_id for epoch in erased}
        held = [epoch for epoch in self.epochs.values() if epoch.stream_secret is not None and epoch.epoch_id not in gone]
        return [row for row in self.fences.values() if not any(row.speaks_of(epoch.epoch, epoch.began) for epoch in held)]

    def _raise(self, rows: Mapping[bytes, FenceRow]) -> None:
        self.fences |= rows
        for epoch in self.epochs.values() if rows else ():
            view, new = self.views.get(epoch.epoch_id), fences.fences_for(epoch, rows.values())
            if view is not None and new:
                merged = {leaf: (*view.fences.get(leaf, ()), *more) for leaf, more in new.items()}
                self.views[epoch.epoch_id] = replace(view, fences={**view.fences, **merged})

    def _newest(self) -> Epoch | None:
        """The epoch that was entered last: behind a log that was founded anew its number may be a low one."""
        return max(self.epochs.values(), key=lambda e: (e.began, e.epoch), default=None)

    def view(self, own: Own) -> GroupView:
        """What channels see from now on."""
        erased = frozenset(e.epoch_id for e in self.epochs.values() if e.stream_secret is None)
        return views.group_view(self.member, self.views, erased, own)

    # --- following --------------------------------------------------------------------------------------------

    def follow(self, entries: Iterable[LogEntry], log: str, own: Own, now_ms: int, *, known_ms: int = 0, live: bool = False) -> Change:
        """Work out what `entries` make; nothing of this object changes.

        `known_ms` is when this member last knew its epoch to be the current one, by the clock of `now_ms`. `live`: it has been
        at the head since it started, so that a commit by its key is one that is staged here, or somebody else's.
        """
        change = Change(self.member)
        pending = {h: s.next for h, s in self.staged.items()}
        current = self._newest()
        known = dict(current.roster) if current is not None else {}
        for entry in entries:
            before = change.member
            step = follow(before, entry, log, pending, known)
            if _not_taken(change, before, step, now_ms):
                break
            if live and in_use(before, step, own):
                change.halt = errors.IdentityInUse.code
                step = replace(step, next=halted(step.next, change.halt), lock_out=None, alarm=None)
            change.member = step.next if _same_terms(before, step.next) else placed(step.next, own)
            change.verdicts.append(step.verdict.kind if step.lock_out is None else "locked_out")
            self._note_refused(change, step, entry, pending)
            change.noted |= step.verdict.kind == "leave"
            if change.noted and self._has_left(change.member, own):
                change.left, change.member = True, Membership(before.group, state=LEFT)
                break
            if not step.moved:
                continue
            fence = self._fence(before, step, change)
            if fence is not None:
                change.fences[fence.commit] = fence
            if current is not None and step.ended_ms is not None and current.ended is None:
                change.epochs[current.epoch_id] = replace(current, ended=retention.ended_at(step.ended_ms, known_ms, now_ms))
            if step.epoch is not None:
                current, known = step.epoch, dict(step.epoch.roster)
                change.epochs[current.epoch_id] = current
            self._note_own(change, step, now_ms)
            kept = self._behind(step)
            change.moved, change.kept, pending = True, kept, {h: s.next for h, s in kept.items()}
            change.refused.clear()  # what was refused before is of an epoch that is over
            change.events += _events(before, step, own)
            if step.lock_out is not None:
                change.member = alarmed(change.member, step, before)
            if change.halt is not None:
                break
        return change

    def _note_refused(self, change: Change, step: Step, entry: LogEntry, pending: Mapping[bytes, Group]) -> None:
        verdict = step.verdict
        if verdict.kind == "invalid" and verdict.hash in pending and self.staged[verdict.hash].record == entry.record:
            change.refused[verdict.hash] = (verdict.reason, entry.time_ms)

    def _behind(self, step: Step) -> dict[bytes, Staged]:
        """Own records that stand behind this one of ours: written in the epoch that it makes."""
        if not step.own or step.next.chain is None:
            return {}
        epoch = step.next.chain.epoch
        return {h: s for h, s in self.staged.items() if s.epoch == epoch and h != step.verdict.hash}

    def _fence(self, before: Membership, step: Step, change: Change) -> FenceRow | None:
        commit, after = step.verdict.commit, step.next.chain
        if commit is None or commit.data.fences is None or before.chain is None or after is None:
            return None
        held = [epoch.roster for epoch in {**self.epochs, **change.epochs}.values() if epoch.stream_secret is not None]
        return fences.fence_of(before.chain, commit, after, held) if held else None

    def _note_own(self, change: Change, step: Step, now_ms: int) -> None:
        if not step.own:
            return
        change.own = True
        staged = self.staged.get(step.verdict.hash)
        change.settled |= set(staged.intents) if staged else set()
        commit = step.verdict.commit
        if commit is not None and commit.staged.external and commit.staged.removed:
            change.member = replace(change.member, resyncs=(*change.member.resyncs[-8:], now_ms))

    async def write(self, tx: Transaction, change: Change) -> None:
        """Cursor always; state where a leave counts; state, keys, staged records and intents where an epoch moved."""
        key, member = state.prefix(change.member.group), change.member
        if change.left:
            await self._write_left(tx)
            return
        if member.cursor is not None:
            await tx.put(state.CURSOR, key, state.encode_cursor(member.cursor))
        if change.moved or change.noted or change.halt is not None:
            await tx.put(state.GROUP, key, state.encode_member(member))
        if not change.moved:
            return
        for epoch in change.epochs.values():
            await tx.put(state.EPOCH, state.epoch_key(member.group, epoch), state.encode_epoch(epoch))
        for row in change.fences.values():
            await tx.put(state.FENCE, state.fence_key(member.group, row), state.encode_fence(row))
        for digest in self.staged.keys() - change.kept.keys():
            await tx.delete(state.STAGED, key + digest)
        for intent in change.settled:
            await tx.delete(state.INTENT, key + intent)
        if change.halt == errors.IdentityInUse.code:
            change.refused_intents = await self._refuse_intents(tx)

    async def _refuse_intents(self, tx: Transaction) -> dict[bytes, state.Intent]:
        """Nobody commits here any more: what is open, also of other processes, ends refused."""
        intents = await self._read_intents(tx)
        for intent in intents.values():
            ended = replace(intent, refused=intent.refused or errors.IdentityInUse.code)
            intents[intent.id] = ended
            await tx.put(state.INTENT, state.prefix(self.member.group) + intent.id, ended.encode())
        return intents

    def adopt(self, change: Change) -> None:
        """Only after the transaction of `write` has committed."""
        self.member = change.member
        if change.left:
            self._forget_all()
            return
        if not change.moved:
            return
        for epoch in change.epochs.values():
            self._keep(epoch)
        self._raise(change.fences)
        self.staged = dict(change.kept)
        self.settle(change.settled)
        if change.halt == errors.IdentityInUse.code:
            self.intents = change.refused_intents

    def settle(self, intents: Iterable[bytes]) -> None:
        """These are done, and their rows gone."""
        for intent in intents:
            self.intents.pop(intent, None)
            self.done.append(intent)

    # --- leaving ----------------------------------------------------------------------------------------------

    def _has_left(self, member: Membership, own: Own) -> bool:
        """Whether the own leaf has left, and this agent wanted it to."""
        leaf = own_leaf(member, own)
        wanted = any(intent.kind == LEAVE and intent.refused is None for intent in self.intents.values())
        return wanted and member.chain is not None and leaf is not None and leaf in member.chain.left

    async def leave(self, store: StateStore) -> None:
        """Leave a group in which there is no leaf of ours."""
        async with store.transaction() as tx:
            await self._write_left(tx)
        self.member = Membership(self.member.group, state=LEFT)
        self._forget_all()

    async def _write_left(self, tx: Transaction) -> None:
        """Nothing stays but that this agent has left."""
        key = state.prefix(self.member.group)
        for kind in (state.CURSOR, state.EPOCH, state.STAGED, state.INTENT, state.FENCE, state.RETENTION):
            for row, _ in await tx.scan(kind, key):
                await tx.delete(kind, row)
        await tx.put(state.GROUP, key, state.encode_member(Membership(self.member.group, state=LEFT)))

    def _forget_all(self) -> None:
        self.settle(list(self.intents))
        for held in (self.epochs, self.views, self.fences, self.staged, self.intents):
            held.clear()


def _not_taken(change: Change, before: Membership, step: Step, now_ms: int) -> bool:
    """Whether following stops before this entry: its time is far ahead of this clock, or a newer version must read on from here."""
    if step.moved and step.next.chain is not None and step.next.chain.time > now_ms + limits.CLOCK_AHEAD_MS:
        change.ahead = True
    elif step.verdict.kind == "upgrade":
        change.halt, change.member = errors.UpgradeNeeded.code, halted(before, errors.UpgradeNeeded.code)
    else:
        return False
    return True


def _same_terms(before: Membership, after: Membership) -> bool:
    """Whether neither the policy nor the state is another one, so that whether this agent is admitted need not be asked again."""
    policies = [None if one.chain is None else one.chain.policy for one in (before, after)]
    return before.state == after.state and policies[0] is policies[1]


def in_use(before: Membership, step: Step, own: Own) -> bool:
    """Whether a commit that ends an epoch of this member is signed by its own key, and was not made here."""
    commit, chain, mls = step.verdict.commit, before.chain, before.mls
    if before.state != MEMBER or step.own or commit is None or chain is None or mls is None:
        return False
    tree = commit.staged.next.tree if commit.staged.external else chain.public.tree
    signer, leaf = tree.leaf(commit.staged.committer), chain.public.tree.leaf(mls.leaf)
    own_keys = (own.signature_public, leaf.signature_key if leaf is not None else b"")
    return signer is not None and signer.signature_key in own_keys


def _events(before: Membership, step: Step, own: Own) -> list[Event]:
    chain, group = step.next.chain, step.next.group
    if chain is None:
        return []
    committer = step.verdict.sender or chain.founder
    events: list[Event] = [records.EpochChanged(group, chain.epoch, committer)]
    if step.lock_out is not None:
        events.append(records.LockedOut(group, chain.epoch, step.lock_out, step.alarm or ""))
    if step.next.state == MEMBER and before.state != MEMBER and step.next.mls is not None:
        founded = step.verdict.kind == "founding"
        events.append(records.Joined(group, chain.epoch, step.next.mls.leaf, founded, bool(before.entered)))
    commit = step.verdict.commit
    if commit is not None and before.chain is not None:
        gone = () if commit.staged.external else commit.staged.removed  # who comes back by an external commit was never away
        for leaf in gone:
            old = before.chain.public.tree.leaf(leaf)
            if old is not None and old.signature_key != own.signature_public:
                events.append(records.MemberLeft(group, chain.epoch, leaf, identity_of(old)))
        if commit.staged.external and not commit.staged.removed:
            events.append(records.MemberJoined(group, chain.epoch, commit.staged.committer, commit.sender))
    return events
