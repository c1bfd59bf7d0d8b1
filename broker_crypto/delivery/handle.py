"""A group as an application sees it: what it is now, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from broker_crypto import errors
from broker_crypto.delivery import plan
from broker_crypto.delivery.deltas import Delta
from broker_crypto.delivery.group_policy import ADMIN, identity_of, key_of
from broker_crypto.delivery.loop import GroupLoop
from broker_crypto.delivery.membership import LEFT, MEMBER, Alarm, Membership
from broker_crypto.delivery.memory import GroupMemory
from broker_crypto.delivery.state import Intent
from broker_crypto.delivery.views import HALTS
from broker_crypto.records import Member
from broker_crypto.wire import names


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
    @property
    def trouble(self) -> errors.BrokerCryptoError | None: ...


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
    def leaving(self) -> Sequence[Member]:
        """Members that have left and that no commit has removed yet."""
        chain = self._loop.member.chain
        return [member for member in self.members if chain is not None and member.leaf in chain.left]

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
    def alarms(self) -> Sequence[Alarm]:
        """Who locked this agent out, the newest last."""
        return self._loop.member.alarms

    @property
    def intents(self) -> Sequence[str]:
        """Kinds of what is wanted and not settled."""
        return tuple(intent.kind for intent in self._loop.memory.intents.values() if intent.refused is None)

    @property
    def refused(self) -> Sequence[Intent]:
        """Intents that ended undone, with the reason; forgotten when the agent is started again."""
        return tuple(intent for intent in self._loop.memory.intents.values() if intent.refused is not None)

    @property
    def trouble(self) -> errors.BrokerCryptoError | None:
        """What is in the way of following now, and is tried again; None where nothing is."""
        return self._loop.trouble

    async def rotate(self) -> None:
        """Fresh keys for the own leaf; returns when the log shows it. Raises GroupError where it cannot be."""
        loop = self._following()
        if self.state != MEMBER:
            raise loop.closed_by() or errors.GroupNotReady(group=self.name)
        await loop.want(plan.ROTATE)

    async def remove(self, identity: str | None = None, *, leaf: int | None = None, without: Sequence[str] = ()) -> None:
        """Bar an identity, which removes all its leaves; or revoke the key of one leaf, which removes that one.

        Returns when the log shows it: from then on nobody takes a record of theirs at or behind the fence, also one sealed with old keys.
        `without` are topics whose ends are not read, for a broker that is gone for good: there all that they ever wrote is refused.
        Raises UsageError, GroupError where the caller is no admin or the log refuses it, BrokerUnavailable where the ends of a
        topic cannot be read.
        """
        if (identity is None) == (leaf is None):
            raise errors.UsageError("name an identity or a leaf", group=self.name)
        if identity is not None:
            delta = Delta(bar=(_identity(identity),), without=tuple(without))
        else:
            delta = Delta(revoke=(self.key_of(leaf),), without=tuple(without))
        await self._ask(plan.REMOVE, delta)

    async def revoke(self, key: bytes, *, without: Sequence[str] = ()) -> None:
        """Revoke a key, a member's or a CA's, by SHA-256 of its SubjectPublicKeyInfo (32 bytes). Raises as `remove`."""
        if len(key) != 32:
            raise errors.UsageError("a fingerprint is 32 bytes", group=self.name)
        await self._ask(plan.REMOVE, Delta(revoke=(bytes(key),), without=tuple(without)))

    async def readmit(self, identity: str) -> None:
        """Lift the bar of an identity: it may join again by itself. Raises as `remove`."""
        await self._ask(plan.POLICY, Delta(unbar=(_identity(identity),)))

    async def change(self, delta: Delta) -> None:
        """Change the group's policy. Raises as `remove`."""
        await self._ask(plan.POLICY, delta)

    async def leave(self) -> None:
        """Leave: nothing is sealed from now on, and when the log shows it all keys of the group are erased here.

        Raises LastMember where nobody would be left.
        """
        loop = self._following()
        if self.leaf is not None and len(self.members) == 1:
            raise errors.LastMember(group=self.name)
        if self.state != LEFT:
            await loop.want(plan.LEAVE)

    async def join(self) -> None:
        """Come back after leaving; returns as a member. Raises GroupError where the group's policy does not admit this identity."""
        if self.state == LEFT:
            await self._following().want(plan.JOIN)

    def _following(self) -> GroupLoop:
        if not isinstance(self._loop, GroupLoop):
            raise errors.UsageError("no agent runs here; ask one through its store", group=self.name)
        return self._loop

    async def _ask(self, kind: str, delta: Delta) -> None:
        loop, chain = self._following(), self._loop.member.chain
        identity = loop.own.identity
        if chain is not None and chain.policy.role_of(identity) != ADMIN:
            raise errors.GroupError("only an admin of the group changes its policy", group=self.name, identity=identity)
        await loop.want(kind, delta.encode())

    def key_of(self, leaf: int | None) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo of a member's key, as `revoke` takes it. Raises UsageError for a leaf without occupant."""
        chain = self._loop.member.chain
        node = chain.public.tree.leaf(leaf) if chain is not None and leaf is not None and leaf >= 0 else None
        if node is None:
            raise errors.UsageError("nobody is at this leaf", group=self.name, leaf=leaf)
        return key_of(node)


def _identity(identity: str) -> str:
    if not names.is_identity(identity):
        raise errors.UsageError("no identity in its canonical form", identity=identity)
    return identity
