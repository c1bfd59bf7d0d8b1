"""What is asked of a group: a row in the agent's store, which whoever runs on that store carries out.

Beside a running agent a command stores the row and waits until the agent has taken it away, or says why not. Where none runs the
command takes the store's lock, starts an agent on it for as long as that takes, and asks it in the same way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from broker_crypto import Agent, errors, parts, policy
from broker_crypto.cli.output import Output, no
from broker_crypto.cli.reach import Found, beside, log_broker, reached
from broker_crypto.delivery import fences, plan
from broker_crypto.delivery.membership import LEFT, Membership
from broker_crypto.delivery.reading import read_member
from broker_crypto.delivery.state import INTENT, Intent, prefix
from broker_crypto.delivery.views import closed_by
from broker_crypto.records import Row, TopicFacts
from broker_crypto.storage.port import StateStore

SETTLED_SECONDS = 60.0  # how long a command waits for its intent before it says that it goes on waiting
HOPELESS_SECONDS = 3.0  # how long something must be in the way before it is believed: what the store says may be about to change

REFUSALS = {
    "own_leaf": "an admin cannot take itself away; another admin does, or `group leave`",
    "policy_right": "only an admin of the group changes its policy",
    "policy_admin": "no admin would remain",
    "policy": "no policy can say that",
    errors.IdentityInUse.code: "somebody else runs with this agent's key",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What to ask: `delta` as bytes, and the topics whose ends a commit for it reads."""

    kind: str
    delta: bytes = b""
    ends: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it. `epoch` is None where this agent keeps none."""

    intent: bytes
    settled: bool
    epoch: int | None


def carry_out(out: Output, loaded: policy.Policy, found: Found, wish: Wish, *, no_wait: bool, **more: Any) -> None:
    """Ask, wait, say what became of it. Exit code 1 where it still waits."""
    done = asyncio.run(ask(out, loaded, found, wish, no_wait=no_wait))
    out.say(_told(done))
    if not done.settled and not no_wait and wish.ends:
        out.say("if the agent cannot read the ends of a topic, ask again with `--without TOPIC`")
    answer = {"group": found.name, "kind": wish.kind, "epoch": done.epoch, "intent": done.intent.hex(), "settled": done.settled}
    out.result({**answer, **more})
    if not done.settled and not no_wait:
        no()


def _told(done: Outcome) -> str:
    if not done.settled:
        return f"asked as {done.intent.hex()}; whoever runs on this store goes on with it"
    return "done" if done.epoch is None else f"done, in epoch {done.epoch}"


async def ask(out: Output, loaded: policy.Policy, found: Found, wish: Wish, *, no_wait: bool = False) -> Outcome:
    """Raises GroupError with the reason where it is refused, BrokerUnavailable where a broker that it takes is out of reach."""
    if no_wait:
        async with _store(loaded) as store:
            return Outcome(await _put(store, found.name, wish), False, _epoch(await read_member(store, found.name)))
    async with AsyncExitStack() as stack:
        brokers = Brokers(loaded)
        try:
            agent = await stack.enter_async_context(Agent.open(loaded))
        except errors.StateLocked:
            return await _of_the_running(out, loaded, found, wish, stack=stack)
        return await _by_itself(out, agent, found, wish, brokers=brokers)


async def _of_the_running(out: Output, loaded: policy.Policy, found: Found, wish: Wish, *, stack: AsyncExitStack) -> Outcome:
    if wish.ends and loaded.brokers:
        async with Brokers(loaded) as brokers:
            await brokers.check_ends(wish.ends)
    out.say("an agent runs on this store; it is asked, and this command waits for the group's log to show it")
    store = await stack.enter_async_context(_store(loaded))
    return await _Waiting(store, found, wish).outcome(out)


async def _by_itself(out: Output, agent: Agent, found: Found, wish: Wish, *, brokers: Brokers) -> Outcome:
    needed = log_broker(agent.policy, found.section)
    if needed is None:
        raise errors.PolicyError("no agent runs here, and the policy names no broker that holds the group's log", group=found.name)
    async with brokers, _store(agent.policy) as store:
        brokers.require(needed.name)
        await brokers.check_ends(wish.ends)
        waiting = _Waiting(store, found, wish)
        await waiting.put()  # before the group is followed: who wants to leave does not join first
        waiting.agent = agent
        agent.follow(found.section.name)
        for connection in brokers.connections.values():
            agent.attach(connection)
        try:
            return await waiting.outcome(out)
        finally:
            await agent.close()  # before its connections are


class Brokers:
    """Connections to the brokers of the policy, as many as can be had."""

    def __init__(self, loaded: policy.Policy) -> None:
        self._loaded = loaded
        self._stack = AsyncExitStack()
        self.connections: dict[str, Any] = {}
        self._missing: dict[str, errors.BrokerCryptoError] = {}

    async def __aenter__(self) -> Brokers:
        for name in self._loaded.brokers:
            try:
                self.connections[name] = await self._stack.enter_async_context(reached(self._loaded, name))
            except (errors.BrokerUnavailable, errors.PolicyError) as error:
                self._missing[name] = error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def require(self, name: str) -> None:
        """Raises why this broker is not there."""
        if name in self._missing:
            raise self._missing[name]

    async def check_ends(self, topics: Sequence[str]) -> None:
        """Raises BrokerUnavailable, with the cure, where the ends of one of these topics cannot be read."""
        try:
            await fences.read_ends(self._describe, topics)
        except errors.BrokerUnavailable as error:
            raise with_cure(error) from None

    async def _describe(self, topic: str) -> list[TopicFacts]:
        kind = self._type_of(topic)
        of_kind = [name for name, broker in self._loaded.brokers.items() if broker.type == kind]
        for name in of_kind:
            self.require(name)
        if not of_kind:
            raise errors.BrokerUnavailable("the policy names no broker that could hold the topic", topic=topic)
        return [fact for name in of_kind for fact in await self.connections[name].topics().describe(topic)]

    def _type_of(self, topic: str) -> str:
        rule = next((rule for rule in self._loaded.rules if rule.topic == topic), None) or self._loaded.route(topic)
        return "nats" if rule.subjects else "kafka"


def with_cure(error: errors.BrokerUnavailable) -> errors.BrokerUnavailable:
    """The same error, saying what an admin can do about a topic out of reach."""
    topic = error.fields.get("topic", "TOPIC")
    error.hint = f"wait for the broker, or `--without {topic}`: everything that they ever wrote there is then refused"
    return error


@asynccontextmanager
async def _store(loaded: policy.Policy) -> AsyncIterator[StateStore]:
    async with beside(loaded) as store:
        if store is None:
            raise errors.UsageError("this agent has kept nothing yet, so that nothing can be asked of it; start it once")
        yield store


def _epoch(member: Membership) -> int | None:
    return member.chain.epoch if member.chain is not None else None


async def _put(store: StateStore, group: str, wish: Wish) -> bytes:
    intent = Intent(parts.fresh_id(), wish.kind, time.time_ns() // 1_000_000, wish.delta)
    async with store.transaction() as tx:
        await tx.put(INTENT, prefix(group) + intent.id, intent.encode())
    return intent.id


@dataclass(slots=True)
class _Waiting:
    """Waits for one intent. `agent` is an own one, None beside one that runs elsewhere."""

    store: StateStore
    found: Found
    wish: Wish
    agent: Agent | None = None
    intent: bytes = b""
    _since: dict[str, float] = field(default_factory=dict)

    async def put(self) -> None:
        self.intent = await _put(self.store, self.found.name, self.wish)

    async def outcome(self, out: Output) -> Outcome:
        """Raises GroupError where it was refused, and what keeps it from being carried out.

        The intent is then taken back, but not from an agent that runs elsewhere: beside it only new ones are written.
        """
        if not self.intent:
            await self.put()
        with out.waiting("waiting for the group's log"):
            settled = await self._settled()
        return Outcome(self.intent, settled, _epoch(await read_member(self.store, self.found.name)))

    async def _settled(self) -> bool:
        deadline, looked = time.monotonic() + SETTLED_SECONDS, 0.0
        while time.monotonic() < deadline:
            intent = await self._row()
            if intent is None:
                return True
            if intent.refused is not None:
                why = REFUSALS.get(intent.refused, "the group's log refused it")
                raise errors.GroupError(why, group=self.found.name, reason=intent.refused)
            if time.monotonic() - looked > 1.0:
                looked = time.monotonic()
                await self._raise_if_hopeless()
            await asyncio.sleep(0.1)
        trouble = self._trouble()
        if trouble is not None:
            await self._give_up(trouble)
        return False

    def _trouble(self) -> errors.BrokerCryptoError | None:
        return self.agent.groups[self.found.name].trouble if self.agent is not None else None

    async def _row(self) -> Intent | None:
        async with self.store.transaction() as tx:
            row = await tx.get(INTENT, prefix(self.found.name) + self.intent)
        return Intent.decode(row) if row is not None else None

    async def _raise_if_hopeless(self) -> None:
        member = await read_member(self.store, self.found.name)
        met = [e for e in (self._trouble(), _closed(member, self.found.identity, self.wish.kind)) if e is not None]
        hopeless = {str(e): e for e in met if not e.retriable or _at_a_topic(e)}
        now = time.monotonic()
        self._since = {what: self._since.get(what, now) for what in hopeless}
        for what, error in hopeless.items():
            if now - self._since[what] >= HOPELESS_SECONDS:
                await self._give_up(error)

    async def _give_up(self, error: errors.BrokerCryptoError) -> None:
        if await self._row() is None:
            return  # it was carried out after all, which is seen next
        if self.agent is not None:
            await self.agent.durable([Row(INTENT, prefix(self.found.name) + self.intent, None)])
        else:
            error.fields["still_asked_as"] = self.intent.hex()
        raise with_cure(error) if isinstance(error, errors.BrokerUnavailable) and _at_a_topic(error) else error


def _at_a_topic(error: errors.BrokerCryptoError) -> bool:
    """Whether the ends of a topic cannot be read."""
    return isinstance(error, errors.BrokerUnavailable) and "topic" in error.fields


def _closed(member: Membership, identity: str, kind: str) -> errors.GroupError | None:
    """What keeps an intent of this kind from being carried out, as the store says."""
    error = closed_by(member, identity)
    passes = isinstance(error, errors.NotAMember) and (kind == plan.LEAVE or (kind == plan.JOIN and member.state == LEFT))
    return None if passes or isinstance(error, errors.MayNotWrite) else error
