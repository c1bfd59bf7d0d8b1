"""The loop of one group: read to the head, do what is due, wait. The only module of delivery that awaits.

1  Whatever an append answered, the log is read: the answer decides nothing.
2  What is read is worked out on copies, stored in one transaction, and only then adopted.
3  An own record is stored, with the state that it leads to, before it is appended for the first time.
4  Each fetch begins at the cursor's own record, and is used only if it is that record.
5  The record that made our epoch is compared too: at every open, and before every own append.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from broker_crypto import errors, limits
from broker_crypto.delivery import committer, plan, state, views
from broker_crypto.delivery.appends import Appends
from broker_crypto.delivery.committer import Own, Staged
from broker_crypto.delivery.comparing import Comparison
from broker_crypto.delivery.eraser import Eraser
from broker_crypto.delivery.group_policy import GroupPolicy
from broker_crypto.delivery.membership import Membership, halted, resumed
from broker_crypto.delivery.memory import GroupMemory
from broker_crypto.delivery.plan import Due, Habits, Now
from broker_crypto.delivery.ports import GroupLog
from broker_crypto.delivery.rules import judge
from broker_crypto.delivery.services import Services
from broker_crypto.delivery.trust import LocalPolicy, conflict, trusts
from broker_crypto.delivery.waiting import Waiters, first_of, rung
from broker_crypto.records import ClockSkew, Halted, Joined, LogEntry

_FETCH = 64  # entries a fetch, and so a transaction
_STOPPED = (errors.LogRolledBack.code, errors.GroupLogTruncated.code, errors.IdentityInUse.code)  # halts that read no further
_PATIENCE = (0.1, 5.0)  # s, first and longest wait for a broker or store out of reach


class GroupLoop:
    """One group of one agent. `run` until `close`; everything else may be called at any time from the same event loop."""

    def __init__(self, group: str, own: Own, local: LocalPolicy, services: Services, habits: Habits | None = None) -> None:
        self.group, self.own, self.local = group, own, local
        self.habits = habits or Habits(jitter=services.random(1)[0] / 256)
        self.memory = GroupMemory(Membership(group))
        self.head = 0
        self.trouble: errors.BrokerCryptoError | None = None  # what ended the last turn; None where it went well
        self._services = services
        self._appends = Appends(services.clock)
        self._comparison = Comparison(group, services.clock)
        self._eraser = Eraser(self.memory, services)
        self._log: GroupLog | None = None
        self._log_id = ""
        self._retired: list[GroupLog] = []
        self._opened = False
        self._loaded = False
        self._ahead = False  # the next record counts at a time more than 30 min ahead of the own clock
        self._closing = False
        self._poke = asyncio.Event()
        self._fault: errors.BrokerCryptoError | None = None  # what ended `run`
        self._judged: tuple[GroupPolicy, errors.PolicyConflict | None] | None = None
        self._readers = Waiters()
        self._watchers = Waiters()
        self._empty_since: float | None = None
        self._mend_since: float | None = None
        self._join_began: float | None = None
        self._read_once = False  # to the head, since it started
        self._was_behind = False  # the log had more than the store at the start
        self._live_from: float | None = None  # since when a commit by the own key that is not staged here is somebody else's

    # --- what others call -------------------------------------------------------------------------------------

    @property
    def member(self) -> Membership:
        return self.memory.member

    @property
    def clock_off_ms(self) -> int:
        """How far the times that are signed are ahead of the own clock."""
        return self._appends.off_ms

    def closed_by(self) -> errors.BrokerCryptoError | None:
        """Why this agent may not seal in the group now.

        A broker out of reach does not stop a member that has read the log to its head since it started: what it kept may be
        old, and what is sealed in an old epoch is for those who were members then. Any other reason stops it.
        """
        trouble, error = self.trouble, views.closed_by(self.member, self.own.identity) or self.conflict()
        waiting = error is not None and error.retriable
        if trouble is not None and not trouble.retriable and (error is None or waiting):
            return trouble
        if not self._read_once and (error is None or isinstance(error, errors.MayNotWrite)):
            error = errors.GroupNotReady(group=self.group, missing="the group's log to be read to its head")
        if isinstance(error, errors.GroupNotReady):
            refused_for = self._appends.refused_for
            held_up = trouble or (refused_for and f"it would be refused: {refused_for}")
            if held_up:
                return errors.GroupNotReady(group=self.group, missing=f"{error.fields['missing']}; {held_up}")
        return error

    def conflict(self) -> errors.PolicyConflict | None:
        """What the group's policy allows beyond the own file; the same object as long as the policy is."""
        chain = self.member.chain
        if chain is not None and (self._judged is None or self._judged[0] is not chain.policy):
            self._judged = chain.policy, conflict(self.local, chain)
        return self._judged[1] if chain is not None and self._judged is not None else None

    def use(self, log: GroupLog | None) -> None:
        """Take another connection's log (the one before closed), or none."""
        if self._log is not None:
            self._retired.append(self._log)
        self._log, self._opened = log, False
        self._poke.set()

    async def load(self) -> None:
        """Read the group's rows; StateCorrupt where one is not what was written."""
        await self._eraser.load()
        await self.memory.load(self._services.store)
        ended = [intent.id for intent in self.memory.intents.values() if intent.refused is not None]
        if ended:  # whoever asked has had the time since to read why
            await self._forget(*ended)
        self._ahead = self.member.halt == errors.LogClockAhead.code
        await self._settle_halt(started=True)  # the file may be another one now
        self._loaded = True
        self._publish()

    async def run(self) -> None:
        """Follow the log until `close`. Whatever is in the way is shown by `trouble` and tried again, after 0.1 s growing to 5 s."""
        patience = _PATIENCE[0]
        try:
            while not self._closing:
                self._poke.clear()
                try:
                    if not self._loaded:
                        await self.load()
                    await self._close_retired()
                    wait = await self._turn_or_halt()
                    patience = _PATIENCE[0]
                except errors.BrokerCryptoError as error:
                    self._opened = False
                    self._meet(error)
                    wait, patience = patience, min(patience * 2, _PATIENCE[1])
                await self._rest(wait)
        finally:
            self.use(None)
            await self._eraser.close()
            await self._close_retired()

    async def _turn_or_halt(self) -> float:
        try:
            wait = await self.turn()
        except (errors.LogRolledBack, errors.GroupLogTruncated) as error:
            self._opened = False
            self._meet(error)  # nothing is sealed from here on, whether the halt can be stored or not
            try:
                await self._halt(error)
            except errors.StoreUnavailable:
                return _PATIENCE[1]
            return self._until_erased()
        self._meet(None)
        return wait

    def _meet(self, trouble: errors.BrokerCryptoError | None) -> None:
        if (trouble is None) != (self.trouble is None) or str(trouble) != str(self.trouble):
            self.trouble = trouble
            self._publish()

    def fail(self, error: Exception) -> None:
        """`load` or `run` ended with a fault: nobody seals behind it, nobody waits for it."""
        fault = errors.GroupError("following the group ended", group=self.group, fault=type(error).__name__)
        self._fault = error if isinstance(error, errors.BrokerCryptoError) and not error.retriable else fault
        self._meet(self._fault)
        self._readers.release()

    async def _close_retired(self) -> None:
        while self._retired:
            await self._retired.pop().close()

    async def close(self) -> None:
        """End `run` at its next rest, and release who waits."""
        self._closing = True
        self._poke.set()
        self._watchers.release()
        self._readers.release()

    async def catch_up(self) -> None:
        """Return when the log has been read to the head that it had after this call.

        Raises why nobody reads it: AgentClosed, the error that halted the group, the fault that ended `run`.
        """
        self._raise_if_unread()
        self._poke.set()
        await self._readers.wait()
        self._raise_if_unread()

    def _raise_if_unread(self) -> None:
        if self._closing:
            raise errors.AgentClosed()
        if self._fault is not None:
            raise self._fault
        if self.member.halt is not None:
            raise views.HALTS[self.member.halt](group=self.group)

    async def changed(self) -> None:
        """Return after the next change of the membership."""
        await self._watchers.wait()

    async def want(self, kind: str) -> None:
        """Store an intent, return when the log shows it done; GroupError with the reason where it ended refused."""
        if self._closing:
            raise errors.AgentClosed()
        intent = state.Intent(self._services.random(16), kind, self._services.clock.now_ms())
        async with self._services.store.transaction() as tx:
            await tx.put(state.INTENT, state.prefix(self.group) + intent.id, intent.encode())
        self.memory.intents[intent.id] = intent
        self._poke.set()
        while intent.id in self.memory.intents:
            refused = self.memory.intents[intent.id].refused
            if refused is not None:
                await self._forget(intent.id)
                raise errors.GroupError("the group's log refused it", group=self.group, reason=refused)
            if self._closing:
                raise errors.AgentClosed()
            self._raise_if_hopeless()
            await self.changed()

    def _raise_if_hopeless(self) -> None:
        """Raise what keeps every intent from being settled: a halt, no place in the group, a log that cannot be followed."""
        for error in (self.trouble, views.closed_by(self.member, self.own.identity)):
            if error is not None and not error.retriable and not isinstance(error, errors.MayNotWrite):
                raise error

    async def _forget(self, *intents: bytes) -> None:
        async with self._services.store.transaction() as tx:
            for intent in intents:
                await tx.delete(state.INTENT, state.prefix(self.group) + intent)
        for intent in intents:
            self.memory.intents.pop(intent, None)

    def suspect(self) -> None:
        """A record looks as if the log were another one: compare the cursor, at most once in 10 s."""
        self._comparison.doubt()
        self._poke.set()

    def poke(self, reload: bool = False) -> None:
        """Look at once; `reload` where another process may have stored an intent."""
        self.memory.stale_intents |= reload
        self._poke.set()

    # --- one turn ---------------------------------------------------------------------------------------------

    async def turn(self) -> float:
        """Erase, read to the head, then append what is due and read again. Returns the s after which something may be due."""
        if await self._eraser.look():
            self._publish()
        log = self._log  # this one to the end of the turn: `use` may bring another meanwhile
        if log is None or self.member.halt in _STOPPED:
            return self._until_erased()
        if not self._opened:
            await self._open(log)
        asked = self._readers.asked()
        await self._read(log)
        doubt = await self._comparison.if_doubted(log, self.member.cursor)
        self._readers.release(asked)
        clock = limits.CLOCK_AHEAD_LOOK_SECONDS if self._ahead else plan.FOREVER
        return min(doubt, clock, await self._act(log), self._until_erased())

    def _until_erased(self) -> float:
        wait = self._eraser.wait()
        return plan.FOREVER if wait is None else min(max(wait, 0.0), plan.FOREVER)

    async def _open(self, log: GroupLog) -> None:
        self._log_id = await log.open(self.group, create=True)
        cursor = self.member.cursor
        if cursor is not None:
            await self._comparison.at_open(log, self._log_id, cursor)
        self._opened = self._log is log

    async def _read(self, log: GroupLog) -> None:
        now, self._ahead = self._services.clock.now_ms(), False
        self.head = await log.head()
        while not self._ahead and self.member.halt not in _STOPPED:
            cursor = self.member.cursor
            fetched = await log.read(cursor.last.position if cursor else 0, _FETCH + 1)
            entries = self._comparison.behind(cursor, fetched)
            if entries:
                self._was_behind |= self._live_from is None
                await self._apply(entries)
            after = self.member.cursor
            if not entries or (after is not None and after.last.position + 1 >= self.head):
                break
        if not self._ahead and self.member.halt not in _STOPPED:
            self._at_head(now)
        await self._settle_halt()

    def _at_head(self, asked_ms: int) -> None:
        """Everything was read that was there at `asked_ms`."""
        self._eraser.know(asked_ms)
        if self._live_from is None:  # what a store that was put back had sent before may land for a while
            self._live_from = self._services.clock.monotonic() + (limits.LIVE_SECONDS if self._was_behind else 0.0)
        if not self._read_once:
            self._read_once = True
            self._publish()
        if self.member.chain is None and self._empty_since is None:
            self._empty_since = self._services.clock.monotonic()

    async def _apply(self, entries: list[LogEntry]) -> None:
        now = self._services.clock.now_ms()
        live = self._live_from is not None and self._services.clock.monotonic() >= self._live_from
        change = self.memory.follow(entries, self._log_id, self.own, now, known_ms=self._eraser.known_ms, live=live)
        self._ahead = change.ahead
        if change.member is self.member:
            return
        async with self._services.store.transaction() as tx:
            await self.memory.write(tx, change)
        self.memory.adopt(change)
        for verdict in change.verdicts:
            self._services.count(verdict)
        if "early" in change.verdicts:
            self._comparison.doubt()
        if change.moved:
            self._appends.moved()
            self._mend_since = None
        if change.own:
            self._appends.off_ms = 0
        for event in change.events:
            if isinstance(event, Joined):
                self._tell_joined("done")
            self._services.report(event)
        if change.in_use:
            self._services.report(Halted(self.group, errors.IdentityInUse.code))
            self._readers.release()
        self._publish()
        await self._own_verdicts(change.refused)

    async def _own_verdicts(self, refused: dict[bytes, tuple[str, int]]) -> None:
        """An own record that does not count: refused for its time, it is built anew by the broker's clock."""
        for digest, (reason, broker_ms) in refused.items():
            if not self._appends.kill(digest):
                continue  # a second copy
            staged = self.memory.staged.get(digest)
            if reason == "time":
                off = broker_ms - self._services.clock.now_ms()
                self._appends.retime(off)
                self._services.report(ClockSkew(self.group, off))
            await self._refused(reason, staged.intents if staged else ())

    async def _refused(self, reason: str, intents: tuple[bytes, ...]) -> None:
        """Hold back. Intents end, but for time."""
        self._appends.refuse(reason)
        self._tell_joined("refused")
        ended = [replace(self.memory.intents[i], refused=reason) for i in intents if i in self.memory.intents]
        self._publish()
        if reason == "time" or not ended:
            return
        async with self._services.store.transaction() as tx:
            for intent in ended:
                await tx.put(state.INTENT, state.prefix(self.group) + intent.id, intent.encode())
        self.memory.intents.update({intent.id: intent for intent in ended})
        self._watchers.release()

    def _tell_joined(self, outcome: str) -> None:
        began, self._join_began = self._join_began, None
        if began is not None:
            self._services.joined(outcome, self._services.clock.monotonic() - began)

    async def _settle_halt(self, *, started: bool = False) -> None:
        """Halt, or go on, for the two reasons that pass by themselves: the founder, and a clock that lags. `started` ends a third."""
        member, error = self.member, self._passing()
        passing = (errors.UntrustedFounding.code, errors.LogClockAhead.code, errors.IdentityInUse.code if started else None)
        if member.halt is not None and member.halt not in passing:
            return
        if error is not None:
            await self._halt(error)
        elif member.halt is not None:
            await self._store(resumed(member))

    def _passing(self) -> errors.GroupError | None:
        chain = self.member.chain
        if chain is not None and not trusts(self.local, chain):
            return errors.UntrustedFounding(group=self.group, founder=chain.founder)
        return errors.LogClockAhead(group=self.group) if self._ahead else None

    async def _halt(self, error: errors.GroupError) -> None:
        if self.member.halt != error.code:
            await self._store(halted(self.member, error.code))
            self._services.report(Halted(self.group, error.code))
        self._readers.release()

    async def _store(self, member: Membership) -> None:
        async with self._services.store.transaction() as tx:
            await tx.put(state.GROUP, state.prefix(self.group), state.encode_member(member))
        self.memory.member = member
        self._publish()

    def _publish(self) -> None:
        self._services.publish(self.memory.view(self.own), self.closed_by())
        self._watchers.release()

    # --- writing ----------------------------------------------------------------------------------------------

    async def _act(self, log: GroupLog) -> float:
        for _ in range(limits.TRIES_A_TURN):
            await self.memory.refresh_intents(self._services.store)
            wanted = self._due()
            if wanted.wish is None:
                return wanted.wait
            held = self._appends.held()
            if held > 0:
                return held
            staged = self._pending(wanted) or await self._stage(wanted)
            if staged is None:
                continue
            patience = self._appends.patience(staged)
            if patience > 0:
                return patience
            await self._append(log, staged)
            await self._read(log)
        return 0.0

    def _due(self) -> Due:
        clock = self._services.clock
        empty = clock.monotonic() - self._empty_since if self._empty_since is not None else 0.0
        if self.member.mend and self._mend_since is None:
            self._mend_since = clock.monotonic()
        false = clock.monotonic() - self._mend_since if self._mend_since is not None else 0.0
        return plan.due(
            self.member,
            self.local,
            self.own.identity,
            habits=self.habits,
            now=Now(clock.now_ms(), empty, false),
            intents=list(self.memory.intents.values()),
        )

    def _pending(self, wanted: Due) -> Staged | None:
        """The own record that waits for this epoch, if it still says what is wanted and its time may still count."""
        epoch, now = self.member.chain.epoch if self.member.chain else 0, self._now_ms()
        staged = self.memory.staged.values()
        return next((one for one in staged if self._appends.may_count(one, epoch, wanted.intents, now)), None)

    def _now_ms(self) -> int:
        """The time to sign: own clock (or the broker's, where ours was refused), never before the last that counted."""
        chain = self.member.chain
        return max(self._services.clock.now_ms() + self._appends.off_ms, chain.time if chain else 0)

    async def _stage(self, wanted: Due) -> Staged | None:
        """Build and store what is wanted; None where everybody would refuse it, so that it never goes out."""
        try:
            staged = self._build(wanted)
        except (errors.PeerError, errors.GroupTooLarge) as error:
            await self._refused(str(error.fields.get("rule", error.code)), wanted.intents)
            return None
        verdict = judge(self.member.chain, LogEntry(0, staged.time, staged.record), self.group)
        if verdict.kind not in ("commit", "founding"):
            await self._refused(verdict.reason, wanted.intents)
            return None
        async with self._services.store.transaction() as tx:
            await tx.put(state.STAGED, state.prefix(self.group) + staged.hash, state.encode_staged(staged))
        self.memory.staged[staged.hash] = staged
        return staged

    def _build(self, wanted: Due) -> Staged:
        member, random, now = self.member, self._services.random, self._now_ms()
        if wanted.wish == plan.FOUND or member.chain is None:
            return committer.found(self.own, replace(self.local.policy, time=now), self.local.suite, random)
        if wanted.wish == plan.JOIN or member.mls is None:
            self._join_began = self._join_began or self._services.clock.monotonic()
            return committer.join(member.chain, self.own, now, random)
        return committer.rotate(member.mls, now, wanted.intents, random)

    async def _append(self, log: GroupLog, staged: Staged) -> None:
        await self._comparison.epoch(log, self.member.cursor)
        self.memory.staged[staged.hash] = replace(staged, appended=staged.appended + 1)
        self._appends.sent(staged)
        try:
            await log.append(staged.record, self._appends.expected(self.member.cursor))
        except errors.AppendUnknown:
            pass
        except errors.GroupTooLarge as error:
            self._appends.kill(staged.hash)
            await self._refused(error.code, staged.intents)
        except errors.LostRace:
            self._appends.not_sent(staged, lost=True)
        except errors.BrokerUnavailable:
            self._appends.not_sent(staged)
            raise

    async def _rest(self, wait: float) -> None:
        """Until something changed in the log, somebody pokes, or `wait` s are over."""
        if self._closing or self._poke.is_set():
            return
        waits: list[Coroutine[Any, Any, object]] = [self._poke.wait()]
        if self._log is not None and self._opened:
            waits.append(rung(self._log))
        await first_of(waits, wait)
