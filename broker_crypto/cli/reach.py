"""What a command reaches by itself: brokers that the policy names, and the agent's store beside whoever runs on it."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from broker_crypto import parts, policy
from broker_crypto.delivery.chain import Chain
from broker_crypto.delivery.handle import Group
from broker_crypto.delivery.membership import Membership
from broker_crypto.delivery.ports import GroupLog
from broker_crypto.delivery.reading import read_group, read_member
from broker_crypto.delivery.resetting import chain_of
from broker_crypto.delivery.views import HALTS
from broker_crypto.errors import BrokerUnavailable, GroupError, IdentityInUse, PolicyError, UsageError
from broker_crypto.policy.rules import BrokerSettings, GroupSection
from broker_crypto.storage.port import StateStore

HEAD_SECONDS = 3.0  # how long a command that only looks tries to reach the log


@asynccontextmanager
async def reached(loaded: policy.Policy, broker: str) -> AsyncIterator[Any]:
    """A connection to a broker of the policy, for the length of the block. Raises PolicyError, NotBuilt, BrokerUnavailable."""
    settings = loaded.require_broker(broker)
    connector = importlib.import_module(f"broker_crypto_{settings.type}")
    connection = await connector.connect(settings, lambda topic: _subjects(loaded, topic))
    try:
        yield connection
    finally:
        await connection.close()


def _subjects(loaded: policy.Policy, topic: str) -> Sequence[str]:
    rule = next((rule for rule in loaded.rules if rule.topic == topic), None) or loaded.route(topic)
    return rule.subjects


@asynccontextmanager
async def beside(loaded: policy.Policy) -> AsyncIterator[StateStore | None]:
    """The agent's store, to read and to ask; None where there is none yet."""
    _, kept = loaded.require_agent()
    if kept.backend == "memory" or kept.path is None or not os.path.exists(kept.path):  # noqa: ASYNC240  a local file, once
        yield None
        return
    store = parts.open_store(kept, beside=True)
    try:
        yield store
    finally:
        await store.close()


def own_identity(loaded: policy.Policy) -> str:
    """Who the policy says this agent is."""
    return loaded.require_agent()[0].identity or ""


async def kept(loaded: policy.Policy, name: str) -> Group:
    """A group as the store says. UsageError where nothing was kept yet."""
    section = loaded.group(name)
    async with beside(loaded) as store:
        if store is None:
            raise UsageError("this agent has kept nothing yet; start it once", group=name)
        return await read_group(store, section.log_name, own_identity(loaded))


def log_broker(loaded: policy.Policy, section: GroupSection) -> BrokerSettings | None:
    """The broker that holds the group's log, None where the policy names none."""
    return loaded.brokers.get(section.log or next(iter(loaded.brokers), ""))


async def head_of(loaded: policy.Policy, name: str) -> int | None:
    """The last position of the group's log, 0 or -1 where nothing is; None where its broker is not named or out of reach."""
    section = loaded.group(name)
    broker = log_broker(loaded, section)
    if broker is None:
        return None
    try:
        async with asyncio.timeout(HEAD_SECONDS), reached(loaded, broker.name) as connection:
            log = connection.group_log(broker.replicas)
            await log.open(section.log_name, create=False)
            head: int = await log.head()
            await log.close()
    except (BrokerUnavailable, PolicyError, TimeoutError):
        return None
    return head - 1


@dataclass(frozen=True, slots=True)
class Found:
    """A group before something is asked of it: what the store says, and what the log's head does (None: not founded, not known).

    `away` is why the log's broker could not be reached: `chain` is then what the store says.
    """

    section: GroupSection
    identity: str
    member: Membership
    chain: Chain | None
    away: BrokerUnavailable | None = None

    @property
    def name(self) -> str:
        return self.section.log_name

    def require_chain(self) -> Chain:
        """What the head says. Raises why nobody knows."""
        if self.chain is None:
            raise self.away or GroupError("the group's log holds no founding", group=self.name)
        return self.chain

    def raise_if_stopped(self) -> None:
        """Raise what halted the group for good: nobody is to be started on it unasked."""
        halt = self.member.halt
        if halt in ("log_rolled_back", "group_log_truncated", IdentityInUse.code):
            raise HALTS[halt](group=self.name)


async def look(loaded: policy.Policy, name: str) -> Found:
    """What the store says of a group, and what its log does. Joins nothing, writes nothing."""
    section = loaded.group(name)
    async with beside(loaded) as store:
        member = await read_member(store, section.log_name) if store is not None else Membership(section.log_name)
    broker = log_broker(loaded, section)
    chain, away = member.chain, None
    if broker is not None:
        try:
            async with reached(loaded, broker.name) as connection:
                chain = await _chain_at_head(connection.group_log(broker.replicas), section, member)
        except BrokerUnavailable as error:
            away = error
    return Found(section, own_identity(loaded), member, chain, away)


async def _chain_at_head(log: GroupLog, section: GroupSection, member: Membership) -> Chain | None:
    """Read from the log where the store is behind it; what the store says where the log is not there or has lost its beginning."""
    try:
        await log.open(section.log_name, create=False)
        if member.cursor is not None and member.cursor.last.position + 1 == await log.head():
            return member.chain
        return await chain_of(log, section.log_name)
    except (BrokerUnavailable, GroupError):
        return member.chain
    finally:
        await log.close()
