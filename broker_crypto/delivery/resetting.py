"""Starting a halted group over from its log, by an operator who knows why it halted.

What was kept of the group's log is dropped: the cursor, the group state, own records and wishes. Epochs and their fences stay, so that
what was read stays readable; the agent follows the log that is there now from its founding and joins it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from broker_crypto.delivery import state
from broker_crypto.delivery.chain import Chain
from broker_crypto.delivery.group_policy import identity_of
from broker_crypto.delivery.membership import Membership
from broker_crypto.delivery.memory import GroupMemory
from broker_crypto.delivery.ports import GroupLog
from broker_crypto.delivery.rules import judge
from broker_crypto.errors import UsageError
from broker_crypto.storage.port import StateStore

_FETCH = 64  # entries a fetch


@dataclass(frozen=True, slots=True)
class Lost:
    """Whom the state that is dropped keeps out, and the log that is followed from now on may let in again."""

    barred: tuple[str, ...]
    revoked: tuple[bytes, ...]
    back: tuple[str, ...]


def lost(old: Chain | None, new: Chain | None) -> Lost:
    """What is given up by following `new` instead of `old`. `back` are members of the new log that the old state keeps out."""
    if old is None:
        return Lost((), (), ())
    there = {identity_of(leaf): leaf for _, leaf in new.public.tree.leaves()} if new is not None else {}
    here = {identity_of(leaf) for _, leaf in old.public.tree.leaves()}
    back = tuple(sorted(i for i in there if i not in here or i in old.policy.barred))
    barred = tuple(i for i in old.policy.barred if new is None or i not in new.policy.barred)
    revoked = tuple(k for k in old.policy.revoked if new is None or k not in new.policy.revoked)
    return Lost(barred, revoked, back)


async def reset(store: StateStore, group: str, now_ms: int) -> Membership:
    """Drop what was kept of the group's log, in one transaction; returns what it was. The caller holds the store's lock.

    Raises UsageError where nothing was kept, StateCorrupt.
    """
    memory = GroupMemory(Membership(group))
    await memory.load(store)
    was = memory.member
    if was.chain is None and was.cursor is None:
        raise UsageError("nothing is kept of this group", group=group)
    key = state.prefix(group)
    async with store.transaction() as tx:
        for kind in (state.GROUP, state.CURSOR):
            await tx.delete(kind, key)
        for kind in (state.STAGED, state.INTENT):
            for row, _ in await tx.scan(kind, key):
                await tx.delete(kind, row)
        for epoch in memory.epochs.values():
            if epoch.ended is None:
                await tx.put(state.EPOCH, state.epoch_key(group, epoch), state.encode_epoch(replace(epoch, ended=now_ms)))
    return was


async def chain_of(log: GroupLog, group: str) -> Chain | None:
    """What the log says now, read from its beginning without secrets; None without a founding. Raises as GroupLog.

    A commit that this version does not know the rules of ends the reading.
    """
    await log.open(group, create=False)
    chain: Chain | None = None
    position, head = 0, await log.head()
    while position < head:
        entries = await log.read(position, _FETCH)
        for entry in entries:
            verdict = judge(chain, entry, group)
            if verdict.kind == "upgrade":
                return chain
            chain, position = verdict.chain, entry.position + 1
        if not entries:
            break
    return chain
