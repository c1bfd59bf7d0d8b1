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
from typing import Any

from broker_crypto import errors, limits
from broker_crypto.delivery import plan, state, views
from broker_crypto.delivery.committer import Own
from broker_crypto.delivery.comparing import Comparison
from broker_crypto.delivery.eraser import Eraser
from broker_crypto.delivery.group_policy import GroupPolicy
from broker_crypto.delivery.membership import LEFT, Membership, halted, own_leaf, placed, resumed
from broker_crypto.delivery.memory import GroupMemory
from broker_crypto.delivery.plan import Habits
from broker_crypto.delivery.ports import GroupLog
from broker_crypto.delivery.services import Services
from broker_crypto.delivery.trust import LocalPolicy, conflict, trusts
from broker_crypto.delivery.waiting import Waiters, first_of, rung
from broker_crypto.delivery.writing import Writer
from broker_crypto.records import Halted, Joined, LogEntry

_FETCH = 64  # entries a fetch, and so a transaction
_RESTART = (errors.IdentityInUse.code, errors.UpgradeNeeded.code)  # halts that read no further until started again
_STOPPED = (errors.LogRolledBack.code, errors.GroupLogTruncated.code, *_RESTART)  # halts that read no further
_PATIENCE = (0.1, 5.0)  # s, first and longest wait for a broker or store out of reach


class GroupLoop:
    """One group of one agent. `run` until `close`; everything else may be called at any time from the same event loop."""

    def __init__(self, group: str, own: Own, local: LocalPolicy, services: Services, habits: Habits | None = None) -> None:
        self.group, self.local = group, local
        self.habits = habits or Habits(jitter=services.random(1)[0] / 256)
        self.memory = GroupMemory(Membership(group))
        self.writer = Writer(self.memory, own, local, services, self.habits)
        self.writer.tell = self._publish
        self.head = 0
        self.trouble: errors.BrokerCryptoError | None = None  # what ended the last turn; None where it went well
        self.former = False  # an earlier generation: what is open in it has ended
        self._services = services
        self._comparison = Comparison(group, services.clock, self.habits.failover)
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
        return self.writer.appends.off_ms

    @property
    def own(self) -> Own:
        """What this agent brings, as its certificate says now."""
        return self.writer.own

    def renew(self, own: Own) -> None:
        """Take another certificate of the same identity into use: a path commit brings it in."""
        self.writer.own = own
        self._poke.set()

    def closed_by(self) -> errors.BrokerCryptoError | None:
        """Why this agent may not seal in the group now.

        A broker out of reach does not stop a member that has read the log to its head since it started: what it kept may be
        old, and what is sealed in an old epoch is for those who were members then. Any other reason stops it.
        """
        trouble, error = self.trouble, views.closed_by(self.member, self.own.identity) or self.conflict()
        waiting = error is not None and error.retriable
        if trouble is not None and not trouble.retriable and (error is None or waiting):
            return trouble
        if error is None and self._wants(plan.LEAVE):
            return errors.NotAMember("this agent is leaving", group=self.group)
        unread = not self._read_once or self._comparison.waits
        if unread and (error is None or isinstance(error, errors.MayNotWrite)):
            error = errors.GroupNotReady(group=self.group, missing="the group's log to be read to its head")
        if isinstance(error, errors.GroupNotReady):
            chain = self.member.chain
            refused_for = self.writer.appends.refused_for or (chain and self.own.refusal(chain.policy))
            held_up = trouble or (refused_for and f"it would be refused: {refused_for}")
            if held_up:
                return errors.GroupNotReady(group=self.group, missing=f"{error.fields['missing']}; {held_up}")
        return error

    def _wants(self, kind: str) -> bool:
        return any(intent.kind == kind and intent.refused is None for intent in self.memory.intents.values())

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
        if self.former:
            await self.memory.end(self._services.store, self._services.clock.now_ms())
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
        if self.member.state == LEFT:
            raise errors.NotAMember("this agent has left", group=self.group)
        if self.member.halt is not None:
            raise views.HALTS[self.member.halt](group=self.group)

    async def changed(self) -> None:
        """Return after the next change of the membership."""
        await self._watchers.wait()

    async def want(self, kind: str, delta: bytes = b"") -> None:
        """Store an intent, return when the log shows it done; GroupError with the reason where it ended refused."""
        if self._closing:
            raise errors.AgentClosed()
        intent = state.Intent(self._services.random(16), kind, self._services.clock.now_ms(), delta)
        async with self._services.store.transaction() as tx:
            await tx.put(state.INTENT, state.prefix(self.group) + intent.id, intent.encode())
        if intent.id not in self.memory.done:  # the loop may have read the row and done it before this task went on
            self.memory.intents.setdefault(intent.id, intent)
        self._publish()
        self._poke.set()
        while intent.id in self.memory.intents:
            refused = self.memory.intents[intent.id].refused
            if refused is not None:
                await self._forget(intent.id)
                raise errors.GroupError("the group's log refused it", group=self.group, reason=refused)
            if self._closing:
                raise errors.AgentClosed()
            self._raise_if_hopeless(kind)
            await self.changed()
        if self.member.state == LEFT and kind != plan.LEAVE:
            raise errors.NotAMember("this agent has left before it was done", group=self.group)

    def _raise_if_hopeless(self, kind: str) -> None:
        """Raise what keeps an intent from being settled: a halt, no place in the group, a log that cannot be followed."""
        closed = views.closed_by(self.member, self.own.identity)
        if isinstance(closed, errors.NotAMember) and (kind == plan.LEAVE or self.member.state == LEFT):
            closed = None
        for error in (self.trouble, closed):
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
        if self.member.state == LEFT:
            await self._come_back()
        if log is None or self.member.halt in _STOPPED or self.member.state == LEFT:
            return self._until_erased()
        if not self._opened:
            await self._open(log)
        asked = self._readers.asked()
        await self._read(log)
        doubt = await self._comparison.if_doubted(log, self.member.cursor)
        self._readers.release(asked)
        clock = limits.CLOCK_AHEAD_LOOK_SECONDS if self._ahead else plan.FOREVER
        return min(doubt, clock, await self._act(log), self._until_erased())

    async def _come_back(self) -> None:
        """One who left follows the log anew once it was asked to join."""
        await self.memory.refresh_intents(self._services.store)
        if self._wants(plan.JOIN):
            await self._store(Membership(self.group))

    def _until_erased(self) -> float:
        wait = self._eraser.wait()
        return plan.FOREVER if wait is None else min(max(wait, 0.0), plan.FOREVER)

    async def _open(self, log: GroupLog) -> None:
        self._log_id = await log.open(self.group, create=True)
        await self._comparison.at_open(log, self._log_id, self.member)
        self._opened = self._log is log

    async def _read(self, log: GroupLog) -> None:
        now, self._ahead = self._services.clock.now_ms(), False
        self.head = await log.head()
        while not self._ahead and self.member.halt not in _STOPPED and self.member.state != LEFT:
            cursor = self.member.cursor
            fetched = await log.read(cursor.last.position if cursor else 0, _FETCH + 1)
            entries = self._comparison.behind(cursor, fetched)
            if entries:
                self._was_behind |= self._live_from is None
                await self._apply(entries)
            after = self.member.cursor
            if not entries or (after is not None and after.last.position + 1 >= self.head):
                break
        if not self._ahead and self.member.halt not in _STOPPED and self.member.state != LEFT:
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

    async def _apply(self, entries: list[LogEntry]) -> None:
        now = self._services.clock.now_ms()
        live = self._live_from is not None and self._services.clock.monotonic() >= self._live_from
        change = self.memory.follow(entries, self._log_id, self.own, now, known_ms=self._eraser.known_ms, live=live)
        self._ahead = change.ahead
        if change.member is self.member:
            return
        against = self.writer.against(self.member, change.member)
        async with self._services.store.transaction() as tx:
            await self.memory.write(tx, change)
            for intent in against:
                await tx.put(state.INTENT, state.prefix(self.group) + intent.id, intent.encode())
        self.memory.adopt(change)
        self.memory.intents.update({intent.id: intent for intent in against})
        if "early" in change.verdicts:
            self._comparison.doubt()
        if change.moved:
            self.writer.moved()
        if change.own:
            self.writer.appends.off_ms = 0
        for event in change.events:
            if isinstance(event, Joined):
                self.writer.joined("done")
            self._services.report(event)
        if change.halt is not None:
            self._services.report(Halted(self.group, change.halt))
            self._readers.release()
        self._publish()
        for verdict in change.verdicts:
            self._services.count(verdict)
        await self.writer.refused_in_log(change.refused)

    async def _settle_halt(self, *, started: bool = False) -> None:
        """Halt, or go on, for the two reasons that pass by themselves: the founder, and a clock that lags. `started` ends two more."""
        member, error = self.member, self._passing()
        passing = (errors.UntrustedFounding.code, errors.LogClockAhead.code, *(_RESTART if started else ()))
        if member.halt is not None and member.halt not in passing:
            return
        if error is not None:
            await self._halt(error)
        elif member.halt is not None:
            await self._store(placed(resumed(member), self.own))

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
        writer = self.writer
        for _ in range(limits.TRIES_A_TURN):
            await self.memory.refresh_intents(self._services.store)
            await writer.settled()
            wanted = writer.due()
            if wanted.wish is None:
                return wanted.wait
            held = writer.appends.held()
            if held > 0:
                return held
            if wanted.wish == plan.LEAVE:
                wait = await self._leave(log)
                if wait > 0:
                    return wait
                continue
            ready = writer.pending(wanted)
            made = [ready] if ready is not None else await writer.stage(wanted)
            if not made:
                continue
            patience = writer.appends.patience(made[0].hash)
            if patience > 0:
                return patience
            await writer.append(log, made, self._comparison)
            await self._read(log)
        return 0.0

    async def _leave(self, log: GroupLog) -> float:
        """Leave; 0 where something may have come of it. One whose leaf is gone has left already."""
        member = self.member
        if member.chain is not None and own_leaf(member, self.own) is None:
            wait = self.writer.unsettled()
            if wait > 0:
                return wait
            await self.memory.leave(self._services.store)
            self._publish()
            return 0.0
        wait = await self.writer.leave(log, self._comparison)
        if wait <= 0:
            await self._read(log)
        return wait

    async def _rest(self, wait: float) -> None:
        """Until something changed in the log, somebody pokes, or `wait` s are over."""
        if self._closing or self._poke.is_set():
            return
        waits: list[Coroutine[Any, Any, object]] = [self._poke.wait()]
        if self._log is not None and self._opened:
            waits.append(rung(self._log))
        await first_of(waits, wait)
