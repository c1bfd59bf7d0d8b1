"""A group as an application sees it: what it is now, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from broker_crypto import errors
from broker_crypto.delivery import plan
from broker_crypto.delivery.group_policy import identity_of
from broker_crypto.delivery.loop import GroupLoop
from broker_crypto.delivery.membership import MEMBER, Membership
from broker_crypto.delivery.memory import GroupMemory
from broker_crypto.delivery.views import HALTS
from broker_crypto.records import Member


class Source(Protocol):
    """Where a group is read from: its loop, or what its rows say."""

    @property
    def group(self) -> str: ...
    @property
    def member(self) -> Membership: ...
    @property
    def memory(self) -> GroupMemory: ...
    @property
    def head(self) -> int: ...


class Group:
    """One group of the agent. Everything but the coroutines reads what was adopted last."""

    def __init__(self, source: Source) -> None:
        self._loop = source

    @property
    def name(self) -> str:
        """The log's full name, with its generation."""
        return self._loop.group

    @property
    def state(self) -> str:
        """joining, member, locked_out, removed, left or halted."""
        return self._loop.member.state

    @property
    def epoch(self) -> int:
        """The newest epoch of the log that was read, -1 before the founding."""
        chain = self._loop.member.chain
        return chain.epoch if chain else -1

    @property
    def leaf(self) -> int | None:
        """The own leaf index, None while no member."""
        mls = self._loop.member.mls
        return mls.leaf if mls else None

    @property
    def members(self) -> Sequence[Member]:
        """Everybody in the newest epoch, by leaf."""
        chain = self._loop.member.chain
        if chain is None:
            return ()
        return tuple(
            Member(index, identity_of(leaf), chain.policy.role_of(identity_of(leaf)) or "none", chain.paths.get(index, 0))
            for index, leaf in chain.public.tree.leaves()
        )

    @property
    def authenticator(self) -> bytes | None:
        """The epoch authenticator (RFC 9420 section 8.7), to compare by voice; None while no member."""
        mls = self._loop.member.mls
        return mls.epoch_authenticator if mls else None

    @property
    def halted(self) -> errors.GroupError | None:
        """Why following stopped."""
        halt = self._loop.member.halt
        return HALTS[halt](group=self.name) if halt else None

    @property
    def lag(self) -> int:
        """Positions of the log that were there at the last look and not read."""
        cursor = self._loop.member.cursor
        return max(0, self._loop.head - (cursor.last.position + 1 if cursor else 0))

    @property
    def position(self) -> int:
        """Position of the last record read, -1 before the first."""
        cursor = self._loop.member.cursor
        return cursor.last.position if cursor else -1

    @property
    def last_commit_ms(self) -> int | None:
        """Signed time of the last commit that counted."""
        chain = self._loop.member.chain
        return chain.time if chain else None

    @property
    def intents(self) -> Sequence[str]:
        """Kinds of what is wanted and not settled."""
        return tuple(intent.kind for intent in self._loop.memory.intents.values())

    async def rotate(self) -> None:
        """Fresh keys for the own leaf; returns when the log shows it. Raises GroupError where it cannot be."""
        loop = self._loop
        if not isinstance(loop, GroupLoop):
            raise errors.UsageError("no agent runs here; ask one through its store", group=self.name)
        if self.state != MEMBER:
            raise loop.closed_by() or errors.GroupNotReady(group=self.name)
        await loop.want(plan.ROTATE)

    async def remove(self, identity: str | None = None, *, leaf: int | None = None) -> None:
        """Remove an identity or one leaf. Raises NotBuilt in this version."""
        raise errors.NotBuilt("removing members comes with the next version", group=self.name)

    async def readmit(self, identity: str) -> None:
        """Lift a bar. Raises NotBuilt in this version."""
        raise errors.NotBuilt("removing members comes with the next version", group=self.name)

    async def leave(self) -> None:
        """Leave the group. Raises NotBuilt in this version."""
        raise errors.NotBuilt("leaving comes with the next version", group=self.name)
