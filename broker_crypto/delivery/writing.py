"""What an agent writes to the log of one group: what is due is built, judged, stored, appended.

1  An own record is stored, with the state that it leads to, before it is appended for the first time.
2  It is judged as everybody will judge it, before it goes out.
3  What an append answers decides nothing: the log is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from broker_crypto import errors, limits
from broker_crypto.delivery import committer, deltas, fences, plan, rights, state
from broker_crypto.delivery.appends import Appends
from broker_crypto.delivery.chain import Chain
from broker_crypto.delivery.committer import Change, Own, Staged
from broker_crypto.delivery.comparing import Comparison
from broker_crypto.delivery.group_policy import ADMIN, GroupPolicy
from broker_crypto.delivery.log_records import FencedTopic, record_hash
from broker_crypto.delivery.membership import Membership, own_leaf
from broker_crypto.delivery.memory import GroupMemory
from broker_crypto.delivery.plan import Due, Habits, Now
from broker_crypto.delivery.ports import GroupLog
from broker_crypto.delivery.rules import judge
from broker_crypto.delivery.services import Services
from broker_crypto.delivery.state import Intent
from broker_crypto.delivery.trust import LocalPolicy
from broker_crypto.mls.group import Group
from broker_crypto.records import ClockSkew, LogEntry

_WAITING = ("time", "rate", "remove_right")  # refusals that pass: the intents wait


class Writer:
    """The own records of one group. `tell` is called where something changed that others may wait for."""

    def __init__(self, memory: GroupMemory, own: Own, local: LocalPolicy, services: Services, habits: Habits) -> None:
        self.own, self.local, self.habits = own, local, habits
        self.appends = Appends(services.clock)
        self.tell: Callable[[], None] = lambda: None
        self._memory, self._services = memory, services
        self._group = memory.member.group
        self._noticed: dict[str, float] = {}  # since when something is so, by the monotonic clock
        self._join_began: float | None = None
        self._ends: tuple[float, tuple[bytes, ...], tuple[FencedTopic, ...]] | None = None
        self._alone: bytes | None = None  # the intent that is tried by itself, several having been refused together; b"": none is

    # --- what the log says ------------------------------------------------------------------------------------

    def moved(self) -> None:
        """An epoch has ended."""
        self.appends.moved()
        self._noticed = {k: at for k, at in self._noticed.items() if k == "empty"}
        self._alone = None

    def joined(self, outcome: str) -> None:
        """An own external commit came to its end."""
        began, self._join_began = self._join_began, None
        if began is not None:
            self._services.joined(outcome, self._services.clock.monotonic() - began)

    async def refused_in_log(self, refused: dict[bytes, tuple[str, int]]) -> None:
        """Own records that do not count: one refused for its time is built anew by the broker's clock."""
        for digest, (reason, broker_ms) in refused.items():
            if not self.appends.kill(digest):
                continue  # a second copy
            staged = self._memory.staged.get(digest)
            if reason == "time":
                off = broker_ms - self._services.clock.now_ms()
                self.appends.retime(off)
                self._services.report(ClockSkew(self._group, off))
            await self._refused(reason, staged.intents if staged else ())

    async def _refused(self, reason: str, intents: tuple[bytes, ...]) -> None:
        """Hold back; intents end, but for what passes. Several that are refused together are tried one by one."""
        if reason not in _WAITING and len(intents) > 1:
            self._alone = intents[0]
            return
        self._alone = None
        self.appends.refuse(reason)
        self.joined("refused")
        if reason not in _WAITING:
            await self.end(intents, reason)
        self.tell()

    def against(self, before: Membership, after: Membership) -> list[Intent]:
        """What an admin whose file says `on_locked_out: remove` wants done to who locked it out: the key revoked, the identity barred
        the second time in a day.
        """
        chain, known = after.chain, set(before.alarms)
        if self.habits.on_locked_out != "remove" or chain is None or chain.policy.role_of(self.own.identity) != ADMIN:
            return []
        wanted = []
        for alarm in [one for one in after.alarms if one not in known and one.identity != self.own.identity]:
            again = [a for a in after.alarms if a.identity == alarm.identity and abs(alarm.time - a.time) < limits.AGAIN_MS]
            delta = deltas.Delta(revoke=(alarm.key,), bar=(alarm.identity,) if len(again) > 1 else ())
            wanted.append(Intent(self._services.random(16), plan.REMOVE, self._services.clock.now_ms(), delta.encode()))
        return wanted

    async def end(self, intents: Sequence[bytes], reason: str) -> None:
        """Store that these intents ended refused, and why."""
        ended = [replace(self._memory.intents[i], refused=reason) for i in intents if i in self._memory.intents]
        if not ended:
            return
        async with self._services.store.transaction() as tx:
            for intent in ended:
                await tx.put(state.INTENT, state.prefix(self._group) + intent.id, intent.encode())
        self._memory.intents.update({intent.id: intent for intent in ended})

    async def settled(self) -> None:
        """Forget intents that ask for what is so already; those that no policy can have end refused."""
        done: list[bytes] = []
        for intent in [i for i in self._memory.intents.values() if i.refused is None]:
            try:
                if self._so_already(intent):
                    done.append(intent.id)
            except errors.BrokerCryptoError:
                await self.end([intent.id], "policy")
                self.tell()
        if done:
            async with self._services.store.transaction() as tx:
                for one in done:
                    await tx.delete(state.INTENT, state.prefix(self._group) + one)
            self._memory.settle(done)
            self.tell()

    def _so_already(self, intent: Intent) -> bool:
        member = self._memory.member
        if intent.kind == plan.JOIN:
            return member.mls is not None
        if intent.kind not in (plan.REMOVE, plan.POLICY) or member.chain is None:
            return False
        return deltas.Delta.decode(intent.delta).apply(member.chain.policy) is member.chain.policy

    # --- what is due ------------------------------------------------------------------------------------------

    def due(self) -> Due:
        """What to write now that the log was read to its head."""
        member, clock = self._memory.member, self._services.clock
        now_ms = clock.now_ms()
        chain = member.chain
        gone = chain is not None and member.mls is not None and bool(plan.removable(chain, member.mls.leaf, now_ms))
        now = Now(
            now_ms,
            empty_for=self._for("empty", chain is None),
            false_for=self._for("false", member.mend),
            removable_for=self._for("removable", gone),
        )
        intents = list(self._memory.intents.values())
        if self._alone is not None:
            intents = [i for i in intents if i.id == self._alone]
        return plan.due(member, self.local, self.own, habits=self.habits, now=now, intents=intents)

    def _for(self, name: str, so: bool) -> float:
        """Seconds since when something is so."""
        if not so:
            self._noticed.pop(name, None)
            return 0.0
        now = self._services.clock.monotonic()
        return now - self._noticed.setdefault(name, now)

    def pending(self, wanted: Due) -> Staged | None:
        """The own record that waits for this epoch, if it still says what is wanted and its time may still count."""
        chain = self._memory.member.chain
        epoch, now = chain.epoch if chain else 0, self.now_ms()
        intents = () if wanted.at_once else wanted.intents
        staged = self._memory.staged.values()
        return next((one for one in staged if self.appends.may_count(one, epoch, intents, now)), None)

    def now_ms(self) -> int:
        """The time to sign: own clock (or the broker's, where ours was refused), never before the last that counted."""
        chain = self._memory.member.chain
        return max(self._services.clock.now_ms() + self.appends.off_ms, chain.time if chain else 0)

    # --- building ---------------------------------------------------------------------------------------------

    async def stage(self, wanted: Due) -> list[Staged]:
        """Build and store what is wanted, in the order to append it; nothing where everybody would refuse it."""
        try:
            made = await self._build(wanted)
        except (errors.PeerError, errors.GroupTooLarge, errors.MalformedInput) as error:
            if wanted.at_once:
                self._alone = b""  # come back first, then see what is wrong with the removal
            else:
                await self._refused(str(error.fields.get("rule", error.code)), wanted.intents)
            return []
        async with self._services.store.transaction() as tx:
            for staged in made:
                await tx.put(state.STAGED, state.prefix(self._group) + staged.hash, state.encode_staged(staged))
        self._memory.staged.update({staged.hash: staged for staged in made})
        return made

    async def _build(self, wanted: Due) -> list[Staged]:
        """Raises PeerError with the rule by which everybody would refuse it."""
        member, random, now = self._memory.member, self._services.random, self.now_ms()
        if wanted.wish == plan.FOUND or member.chain is None:
            policy = replace(self.local.policy, time=now)
            return [self._judged(None, committer.found(self.own, policy, self.local.suite, random))[0]]
        if wanted.wish == plan.JOIN or member.mls is None:
            self._join_began = self._join_began or self._services.clock.monotonic()
            joining, after = self._judged(member.chain, committer.join(member.chain, self.own, now, random))
            if not wanted.at_once:
                return [joining]
            following = await self._commit(after, joining.next, wanted)
            return [joining, self._judged(after, following)[0]]
        return [self._judged(member.chain, await self._commit(member.chain, member.mls, wanted))[0]]

    def _judged(self, chain: Chain | None, staged: Staged) -> tuple[Staged, Chain]:
        """`staged`, and the chain behind it, if it counts."""
        verdict = judge(chain, LogEntry(0, staged.time, staged.record), self._group)
        if verdict.kind not in ("commit", "founding") or verdict.chain is None:
            raise errors.PeerError("the own record does not count", rule=verdict.reason or verdict.kind)
        return staged, verdict.chain

    async def _commit(self, chain: Chain, mls: Group, wanted: Due) -> Staged:
        asked = [self._memory.intents[i] for i in wanted.intents if i in self._memory.intents]
        changes = [deltas.Delta.decode(i.delta) for i in asked if i.kind in (plan.REMOVE, plan.POLICY)]
        admin = chain.policy.role_of(self.own.identity) == ADMIN
        if changes and not admin:
            raise errors.PeerError("only an admin changes the group's policy", rule="policy_right")
        policy = deltas.apply_all(chain.policy, changes)
        gone = wanted.remove & {leaf for leaf, _ in chain.public.tree.leaves()}
        if policy is not chain.policy:
            gone |= rights.uncounted(chain.public.tree, policy)
        if mls.leaf in gone:
            raise errors.PeerError("an admin cannot take itself away", rule="own_leaf")
        ends = None
        if admin and (gone or takes_away(chain.policy, policy)):
            ends = await self._read_ends(chain, wanted.intents, changes)
        change = Change(max(self.now_ms(), chain.time), policy if policy is not chain.policy else None, frozenset(gone), ends)
        return committer.commit(mls, self.own, change, wanted.intents, self._services.random)

    async def _read_ends(self, chain: Chain, intents: tuple[bytes, ...], changes: list[deltas.Delta]) -> tuple[FencedTopic, ...] | None:
        """The ends of the group's topics, read anew for each commit; after a lost race those of the last 10 s do.

        Without an admin's word (nothing was asked) a topic out of reach means no fence at all: an honest member that left would else
        lose all that it ever wrote there.
        """
        clock = self._services.clock
        if self._ends is not None and self._ends[1] == intents and clock.monotonic() - self._ends[0] < limits.ENDS_SECONDS:
            return self._ends[2]
        without = frozenset(topic for change in changes for topic in change.without)
        try:
            ends = await fences.read_ends(self._services.describe, chain.policy.topics, without)
        except errors.BrokerUnavailable:
            if changes:
                raise
            return None
        self._ends = (clock.monotonic(), intents, ends)
        return ends

    # --- appending --------------------------------------------------------------------------------------------

    async def append(self, log: GroupLog, made: Sequence[Staged], comparison: Comparison) -> None:
        """Send these records, each behind the one before."""
        cursor = self._memory.member.cursor
        await comparison.epoch(log, cursor)
        expected = self.appends.expected(cursor)
        for staged in made:
            self.appends.sent(staged.hash)
            try:
                expected = await log.append(staged.record, expected)
            except errors.AppendUnknown:
                return
            except errors.GroupTooLarge as error:
                self.appends.kill(staged.hash)
                await self._refused(error.code, staged.intents)
                return
            except errors.LostRace:
                self.appends.not_sent(staged.hash, lost=True)
                return
            except errors.BrokerUnavailable:
                self.appends.not_sent(staged.hash)
                raise

    def unsettled(self) -> float:
        """Seconds for which an own external commit may still land and count: who leaves before that would be in and not know it."""
        now, epoch = self._services.clock.now_ms(), self._memory.member.chain.epoch if self._memory.member.chain else 0
        ends = [s.time + 2 * limits.COMMIT_TIME_WINDOW_MS for s in self._memory.staged.values() if s.epoch == epoch]
        return (max(ends, default=now) - now) / 1000

    async def leave(self, log: GroupLog, comparison: Comparison) -> float:
        """Send the own leave, unless it is on its way; the s until it may be sent again."""
        member = self._memory.member
        leaf = own_leaf(member, self.own)
        if member.chain is None or leaf is None:
            return math.inf
        private = member.mls.signature_private if member.mls else self.own.signature_private
        record = rights.leave_record(member.chain, leaf, private)
        digest = record_hash(record)
        patience = self.appends.patience(digest)
        if patience > 0:
            return patience
        await comparison.epoch(log, member.cursor)
        self.appends.sent(digest)
        try:
            await log.append(record, None)
        except errors.AppendUnknown:
            pass
        except errors.BrokerUnavailable:
            self.appends.not_sent(digest)
            raise
        return 0.0


def takes_away(before: GroupPolicy, after: GroupPolicy) -> bool:
    """Whether somebody may no longer write, or be here."""
    return bool(
        set(after.barred) - set(before.barred)
        or set(after.revoked) - set(before.revoked)
        or set(before.roles) - set(after.roles)
        or set(before.anchors) - set(after.anchors)
    )
