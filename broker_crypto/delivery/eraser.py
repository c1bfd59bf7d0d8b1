"""Erases the keys of ended epochs of one group when their time has come, from the store and from memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from broker_crypto import errors, limits
from broker_crypto.delivery import retention, state
from broker_crypto.delivery.membership import Epoch
from broker_crypto.delivery.memory import GroupMemory
from broker_crypto.delivery.retention import Jumps, Marks
from broker_crypto.delivery.services import Services
from broker_crypto.records import KeysErased


class Eraser:
    """Looked at each turn of the group's loop, also of one that has no broker or is halted."""

    def __init__(self, memory: GroupMemory, services: Services) -> None:
        self._memory, self._services = memory, services
        self._jumps = Jumps(services.clock.now_ms(), services.clock.monotonic())
        self._marks = Marks()
        self._stored = Marks()
        self._telling: set[asyncio.Task[None]] = set()

    @property
    def known_ms(self) -> int:
        """When the newest epoch that was read was last known to be the current one."""
        return self._marks.known

    def know(self, now_ms: int) -> None:
        """At `now_ms` the log had nothing behind what was read."""
        self._marks = Marks(now_ms, self._marks.held_until)

    async def load(self) -> None:
        """Read what was stored of a hold. Raises StateCorrupt."""
        async with self._services.store.transaction() as tx:
            row = await tx.get(state.RETENTION, state.prefix(self._memory.member.group))
        self._marks = self._stored = state.decode_marks(row) if row is not None else Marks()

    def wait(self) -> float | None:
        """Seconds until something is due, None where nothing ever is as it stands."""
        plan = self._plan()
        return 0.0 if plan.due else plan.wait

    async def look(self) -> bool:
        """Erase what is due, in one transaction, from memory behind it; whether anything was."""
        clock = self._services.clock
        now = clock.now_ms()
        marks = self._marks.held_at(now)
        if self._jumps.jumped(now, clock.monotonic()):
            marks = Marks(marks.known, now + limits.RETENTION_HOLD_MS)
        self._marks = marks
        due = [retention.erased(epoch) for epoch in self._plan().due]
        if not due and not marks.worth_storing(self._stored):
            return False
        group = self._memory.member.group
        async with self._services.store.transaction() as tx:
            await tx.put(state.RETENTION, state.prefix(group), state.encode_marks(marks))
            for epoch in due:
                await tx.put(state.EPOCH, state.epoch_key(group, epoch), state.encode_epoch(epoch))
            for row in self._memory.idle_fences(due):
                await tx.delete(state.FENCE, state.fence_key(group, row))
        self._stored = marks
        self._memory.forget(due)
        if due:
            self._tell_when_gone(due)
        return bool(due)

    def _plan(self) -> retention.Plan:
        chain = self._memory.member.chain
        kept = chain.policy.key_retention if chain is not None else -1
        return retention.plan(self._memory.epochs.values(), kept, self._marks.held_until, self._services.clock.now_ms())

    def _tell_when_gone(self, due: Sequence[Epoch]) -> None:
        """In a task: a reader of the store's files may hold the last step up, and following must not wait for it."""
        task = asyncio.ensure_future(self._tell([epoch.epoch for epoch in due]))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, numbers: Sequence[int]) -> None:
        try:
            await self._services.store.erased()
        except errors.BrokerCryptoError:  # the store tells; whoever opens it next erases what is left
            return
        self._services.report(KeysErased(self._memory.member.group, tuple(numbers)))

    async def close(self) -> None:
        """Wait for no reader any more."""
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)
