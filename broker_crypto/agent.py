"""The agent: joins policy, identity, store, groups and channels, and runs what goes on in the background.

No decision of a protocol lives here. Connectors attach, ask for channels, and carry out what channels return; the loops of
the groups run from attach to close.
"""

from __future__ import annotations

import asyncio
import importlib
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, TypeVar

from broker_crypto import errors, limits, parts, policy, upkeep
from broker_crypto.channels.bound import BoundChannel, Watcher
from broker_crypto.channels.plain import PlainChannel
from broker_crypto.channels.topic import TopicChannel
from broker_crypto.delivery.handle import Group
from broker_crypto.delivery.loop import GroupLoop
from broker_crypto.delivery.plan import Habits
from broker_crypto.delivery.ports import GroupLog, Topics
from broker_crypto.delivery.services import Services
from broker_crypto.former import Former, Publish
from broker_crypto.observe.events import EventHub
from broker_crypto.observe.metrics import NULL, Metrics
from broker_crypto.policy.rules import GroupSection, Rule
from broker_crypto.records import Behind, Clock, Decision, Event, GroupView, Random, Row, TopicFacts

E = TypeVar("E", bound=Event)


class Connection(Protocol):
    """What a connector attaches. `type` is nats or kafka, `broker` its name in the policy file where it was given."""

    type: str
    broker: str | None

    @property
    def closed(self) -> bool: ...
    def group_log(self, replicas: int = 1) -> GroupLog: ...
    def topics(self) -> Topics: ...


class OwnedConnection(Connection, Protocol):
    """A connection that the agent made, and ends."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Health:
    """For a probe: `ok`, why not, the state of each group, and whether the store answers."""

    ok: bool
    reasons: Sequence[str]
    groups: Mapping[str, str]


@dataclass(slots=True)
class _Running:
    """A group that this agent follows, the connection that supplies its log, its task, and the channels that seal for it."""

    loop: GroupLoop
    section: GroupSection
    supplier: Connection | None
    task: asyncio.Task[None]
    former: Former
    channels: list[TopicChannel]
    view: GroupView
    closed: errors.BrokerCryptoError | None


class Agent:
    """One identity with its own folder. Several may run in one process; there is no module state.

    Made by `Agent.open`. Channels and groups belong to the event loop that it was opened in.
    """

    def __init__(self, made: parts.Parts) -> None:
        self.policy = made.policy
        self.identity = made.who.uri
        self._certificate = upkeep.Certificate(made)
        self._store, self._clock, self._random, self._metrics = made.store, made.clock, made.random, made.metrics
        self._hub = EventHub()
        self._running: dict[str, _Running] = {}
        self._connections: dict[str, list[Connection]] = {}
        self._routes: OrderedDict[tuple[str, str], BoundChannel] = OrderedDict()
        self._channels: dict[tuple[str, str], BoundChannel] = {}
        self._missing: OrderedDict[bytes, float] = OrderedDict()
        self._made: list[OwnedConnection] = []
        self._closed = False
        self._housekeeping = asyncio.ensure_future(self._keep_house())

    # --- open and close -----------------------------------------------------------------------------------------

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        policy: str | Path | policy.Policy,
        *,
        identity: str | None = None,
        metrics: Metrics | None = None,
        clock: Clock | None = None,
        random: Random = secrets.token_bytes,
    ) -> AsyncIterator[Agent]:
        """Open the agent of a policy file (or a Policy) for the length of the block.

        `identity` goes before `agent.identity` of the file. Raises PolicyError, NotBuilt, UsageError (identity), StateLocked,
        StateCorrupt, StateVersionError, StoreUnavailable.
        """
        agent = cls(parts.gather(policy, identity, metrics or NULL, clock or parts.SystemClock(), random))
        try:
            yield agent
        finally:
            await agent.close()

    async def close(self, timeout: float = 10) -> None:
        """What leaving the block does: sealing is refused, the loops end, the store closes. The application's connections stay."""
        if self._closed:
            return
        self._closed = True
        for running in self._running.values():
            for channel in running.channels:
                channel.close(errors.AgentClosed())
            await running.loop.close()
            await running.former.close()
        self._housekeeping.cancel()
        tasks = [task for running in self._running.values() for task in (running.task, *running.former.tasks)]
        try:
            await self._end(tasks, timeout)
        finally:  # also where closing itself is given up
            for task in tasks:
                task.cancel()
            self._hub.close()
            await self._store.close()

    async def _end(self, tasks: Sequence[asyncio.Task[None]], timeout: float) -> None:
        for grace in (limits.CLOSE_GRACE_SECONDS, timeout):  # whoever waits for a broker is not waited for
            late = [task for task in tasks if not task.done()]
            if late:
                await asyncio.wait(late, timeout=min(grace, timeout))
            for task in late:
                task.cancel()
        await asyncio.gather(self._housekeeping, *tasks, *(c.close() for c in self._made), return_exceptions=True)

    def _open_or_raise(self) -> None:
        if self._closed:
            raise errors.AgentClosed()

    # --- for applications ---------------------------------------------------------------------------------------

    @property
    def groups(self) -> Mapping[str, Group]:
        """The groups that are followed, by the name of their log."""
        return MappingProxyType({name: Group(running.loop) for name, running in self._running.items()})

    async def ready(self, topic: str | None = None, timeout: float | None = None) -> None:
        """Return when this agent is a member of the topic's group (None: of every group that it follows or its file gives it a role in).

        Raises GroupNotReady, naming what is missing, after `timeout` s (None: no limit), and at once where waiting cannot help.
        """
        self._open_or_raise()
        sections = self.policy.groups(self.identity) if topic is None else self._sections_of(topic)
        running = [self._follow(section) for section in sections]
        if topic is None:
            running = list(self._running.values())
        waited = None
        try:
            async with asyncio.timeout(timeout):
                for waited in running:
                    await self._reached(waited)
        except TimeoutError:
            closed = waited.loop.closed_by() if waited else None
            raise closed or errors.GroupNotReady(topic=topic) from None

    def _sections_of(self, topic: str) -> list[GroupSection]:
        rule = self._rule_of(topic)
        return [self.policy.group(rule.group)] if rule.group is not None else []

    def _rule_of(self, topic: str) -> Rule:
        """The rule that has this name, else the one that covers it: a topic may be called like a subject of another."""
        return next((rule for rule in self.policy.rules if rule.topic == topic), None) or self.policy.route(topic)

    def follow(self, group: str) -> Group:
        """Follow a group of the policy from now on, and give its face. Raises PolicyError, NotBuilt."""
        self._open_or_raise()
        return Group(self._follow(self.policy.group(group)).loop)

    async def _reached(self, running: _Running) -> None:
        broker = self._log_of(running.section)
        if not self._connections.get(broker):
            await self._connect(broker)
        await self._member(running)

    async def _connect(self, broker: str) -> None:
        """Connect to a broker of the policy by ourselves. GroupNotReady, naming it, where the file has no servers for it."""
        settings = self.policy.brokers.get(broker)
        if settings is None:
            raise errors.GroupNotReady("no connection is attached, and the policy names no servers", broker=broker or None)
        self.policy.require_broker(broker)
        connector = importlib.import_module(f"broker_crypto_{settings.type}")
        connection = await connector.connect(settings, self.subjects)
        if self._closed or self._connections.get(broker):
            await connection.close()
            return
        self._made.append(connection)
        self.attach(connection)

    async def _member(self, running: _Running) -> None:
        while True:
            error = running.loop.closed_by()
            if error is None or isinstance(error, errors.MayNotWrite) or error is running.loop.conflict():
                return  # a member, who may read at least
            if not error.retriable:
                raise error
            self._open_or_raise()
            await running.loop.changed()

    def health(self) -> Health:
        """What a probe wants to know. Never waits."""
        reasons = ["the agent is closed"] if self._closed else []
        for name, running in self._running.items():
            error = running.loop.closed_by()
            if error is None or isinstance(error, errors.MayNotWrite):
                error = running.loop.trouble
            if error is not None:
                reasons.append(f"group {name}: {error}")
        return Health(not reasons, reasons, {name: running.loop.member.state for name, running in self._running.items()})

    def events(self, *kinds: type[Event]) -> AsyncIterator[Event]:
        """Events of these kinds (none named: all) from now on; a queue of its own, the oldest of 1,024 dropped."""
        return self._hub.events(*kinds)

    def on(self, kind: type[E], callback: Callable[[E], None]) -> Callable[[], None]:
        """Call `callback` for each event of `kind`, from the event loop; returns what ends that."""
        return self._hub.on(kind, callback)

    # --- for connectors -----------------------------------------------------------------------------------------

    def attach(self, connection: Connection) -> str:
        """Take a connection into use; returns its broker's name. Groups whose log lies there are followed from now on.

        Raises PolicyConflict where the file names several brokers of its type and `broker` none of them.
        """
        self._open_or_raise()
        name = self._broker_of(connection)
        sections = [section for section in self.policy.groups(self.identity) if self._log_of(section, name) == name]
        for section in sections:
            self._check(section)
        self._connections.setdefault(name, []).append(connection)
        for section in sections:
            self._follow(section)
        self._supply(name)
        return name

    def detach(self, connection: Connection) -> None:
        """The connection closes; another one of the same broker takes over."""
        for name, connections in self._connections.items():
            if connection in connections:
                connections.remove(connection)
                self._supply(name)

    def _broker_of(self, connection: Connection) -> str:
        named = [b.name for b in self.policy.brokers.values() if b.type == connection.type]
        if connection.broker is not None:
            if named and connection.broker not in named:
                raise errors.PolicyConflict("no such broker in the policy", broker=connection.broker, type=connection.type)
            return connection.broker
        if len(named) > 1:
            raise errors.PolicyConflict("several brokers of this type; say which one with broker=", brokers=named)
        return named[0] if named else connection.type

    def _log_of(self, section: GroupSection, first: str = "") -> str:
        """The broker of a group's log: the file's word, else its first broker, else the first that was ever attached."""
        return section.log or next(iter(self.policy.brokers), "") or next(iter(self._connections), first)

    def _supply(self, broker: str) -> None:
        """Give every group of the broker the log of the first connection that is open, unless it has it."""
        connection = next((c for c in self._connections.get(broker, ()) if not c.closed), None)
        replicas = self.policy.brokers[broker].replicas if broker in self.policy.brokers else 1
        for running in self._running.values():
            if running.supplier is not connection and self._log_of(running.section) == broker:
                running.supplier = connection
                running.loop.use(connection.group_log(replicas) if connection else None)

    def _check(self, section: GroupSection) -> None:
        section.require_built()
        if section.suite not in self._certificate.who.suites:
            raise errors.PolicyConflict("the agent's key does not fit the group's suite", group=section.name, suite=section.suite)

    def _follow(self, section: GroupSection) -> _Running:
        known = self._running.get(section.log_name)
        if known is not None:
            return known
        self._check(section)
        self._metrics.gauge("build_info", version=parts.VERSION, suite=str(section.suite)).set(1)
        name = section.log_name
        loop = self._loop(section, lambda view, closed: self._publish(name, view, closed))
        former = Former(section, self._loop, lambda: self._show_again(name))
        task = asyncio.ensure_future(self._run(loop))
        self._running[name] = running = _Running(loop, section, None, task, former, [], GroupView({}, -1), loop.closed_by())
        self._supply(self._log_of(section))
        return running

    def _loop(self, section: GroupSection, publish: Publish) -> GroupLoop:
        timing = self.policy.timing
        jitter = self._random(1)[0] / 256
        broker = self.policy.brokers.get(self._log_of(section))
        failover = limits.FAILOVER_SECONDS if broker is not None and broker.replicas > 1 else 0.0
        habits = Habits(timing.rotation_interval, timing.epoch_max_age, jitter, section.on_locked_out, failover)
        services = Services(
            store=self._store,
            clock=self._clock,
            random=self._random,
            report=self._hub.report,
            publish=publish,
            count=lambda verdict: upkeep.count_verdict(self._metrics, section.name, verdict),
            joined=lambda outcome, seconds: self._metrics.histogram(
                "handshake_duration_seconds", kind="mls_external", outcome=outcome
            ).observe(seconds),
            describe=self._describe,
        )
        return GroupLoop(section.log_name, parts.own(self._certificate.who), parts.local_policy(section), services, habits)

    async def _run(self, loop: GroupLoop) -> None:
        try:
            await loop.run()
        except Exception as error:
            loop.fail(error)
            raise

    def _publish(self, group: str, view: GroupView, closed: errors.BrokerCryptoError | None) -> None:
        running = self._running.get(group)
        if running is None:
            return
        grown = view.epochs.keys() - running.view.epochs.keys()
        if view.current < running.view.current:  # it begins anew: what was not there may be now
            self._missing.clear()
        running.view, running.closed = view, closed
        for name, other in self._running.items():
            if name == group or grown:
                self._show(name, other)
        upkeep.show_group(self._metrics, running.section.name, running.loop)

    def _show_again(self, name: str) -> None:
        running = self._running.get(name)
        if running is not None:
            self._show(name, running)

    def _show(self, name: str, running: _Running) -> None:
        if not running.channels or self._closed:
            return
        others = frozenset().union(*(r.view.epochs.keys() | r.view.erased for n, r in self._running.items() if n != name))
        view = replace(running.former.beside(running.view), other_groups=others)
        for channel in running.channels:
            channel.view = view
            channel.closed_by = running.closed

    def channel(self, broker: str, subject: str) -> BoundChannel:
        """The channel for a NATS subject or Kafka topic on an attached broker. Raises NoPolicy, NotBuilt, AgentClosed."""
        key = (broker, subject)
        self._open_or_raise()
        bound = self._routes.get(key)
        if bound is None:
            bound = self._routes[key] = self._bind(broker, subject)
            if len(self._routes) > limits.ROUTES:
                self._routes.popitem(last=False)
        return bound

    def _bind(self, broker: str, name: str) -> BoundChannel:
        kind = self.policy.brokers[broker].type if broker in self.policy.brokers else self._type_of(broker)
        rule = self.policy.route(name, type=kind)
        key = (broker, rule.topic)
        bound = self._channels.get(key)
        if bound is None:
            bound = self._channels[key] = self._make(broker, rule)
        return bound

    def _type_of(self, broker: str) -> str | None:
        return next((c.type for c in self._connections.get(broker, ())), None)

    def _make(self, broker: str, rule: Rule) -> BoundChannel:
        rule.require_built()
        watcher = Watcher(self._metrics, broker, rule.name, self._hub.report, self._clock.monotonic)
        if rule.channel == "plain" or rule.group is None:
            return BoundChannel(PlainChannel(rule.topic), rule, watcher)
        running = self._follow(self.policy.group(rule.group))
        channel = TopicChannel(parts.settings_of(rule), self._random)
        running.channels.append(channel)
        self._show(running.loop.group, running)
        return BoundChannel(channel, rule, replace(watcher, group=running.loop.group, suspect=running.loop.suspect))

    def subjects(self, topic: str) -> Sequence[str]:
        """The patterns of subjects that a topic of the policy covers."""
        return self._rule_of(topic).subjects

    async def _describe(self, topic: str) -> list[TopicFacts]:
        """What each attached broker of the topic's kind says of it. Raises NoPolicy, BrokerUnavailable."""
        kind = "nats" if self._rule_of(topic).subjects else "kafka"
        kept = [next((c for c in held if c.type == kind and not c.closed), None) for held in self._connections.values()]
        brokers = [connection.topics() for connection in kept if connection is not None]
        if not brokers:
            raise errors.BrokerUnavailable("no broker that could hold the topic is attached", topic=topic)
        return [fact for broker in brokers for fact in await broker.describe(topic)]

    async def catch_up(self, behind: Behind) -> None:
        """Return when the group log was read to the head it had after this call. BrokerUnavailable if that takes `epoch_wait`:
        the record is then to be held, not refused, for nobody knows whether its epoch is there.

        Raises why nobody reads the log (AgentClosed, what halted the group), for which it is to be held too. An epoch id that
        was not there is remembered for a minute; for it this returns at once.
        """
        self._open_or_raise()
        now = self._clock.monotonic()
        missed = self._missing.get(behind.epoch_id)
        if missed is not None and now - missed < limits.BEHIND_SECONDS:
            return
        for running in map(self._follow, self._sections_of(behind.topic)):
            try:
                await asyncio.wait_for(running.loop.catch_up(), self.policy.timing.epoch_wait)
            except TimeoutError:
                raise errors.BrokerUnavailable("the group log cannot be read", group=running.loop.group) from None
            if behind.epoch_id not in running.view.epochs:
                self._missing[behind.epoch_id] = now
                while len(self._missing) > limits.BEHIND_IDS:
                    self._missing.popitem(last=False)

    def judge(self, error: errors.RecordRefused) -> Decision:
        """What a connector does with a refused record, by the rule of its topic."""
        return Decision(self._rule_of(error.fields["topic"]).on_failure)

    def seen(self, results: Sequence[object]) -> None:
        """Told after a batch was handed out. What is counted and reported happens where it is opened."""

    async def durable(self, rows: Sequence[Row]) -> None:
        """Store rows that must outlive a crash before what they belong to is released."""
        self._open_or_raise()
        async with self._store.transaction() as tx:
            for row in rows:
                if row.value is None:
                    await tx.delete(row.kind, row.key)
                else:
                    await tx.put(row.kind, row.key, row.value)

    def acknowledged(self, receipt: object) -> None:
        """The application has acknowledged what this receipt came with. Topics have none."""
        if receipt is not None:
            raise errors.UsageError("no channel of this version gives receipts")

    # --- in the background --------------------------------------------------------------------------------------

    async def _keep_house(self) -> None:
        """Once a second: intents of other processes, connections that closed, clocks that jumped, another certificate."""
        wall, steady = self._clock.now_ms(), self._clock.monotonic()
        while not self._closed:
            await asyncio.sleep(1.0)
            try:
                changed = await self._store.changed_by_others()
            except errors.BrokerCryptoError:  # the loops meet it too, and tell
                changed = False
            if changed:
                for running in self._running.values():
                    running.loop.poke(reload=True)
            self._look_at_certificate()
            for name, connections in self._connections.items():
                if connections and connections[0].closed:
                    connections[:] = [c for c in connections if not c.closed]
                    self._supply(name)
            now, then = self._clock.now_ms(), self._clock.monotonic()
            if abs((now - wall) - (then - steady) * 1000) > limits.CLOCK_JUMP_MS:
                for running in self._running.values():
                    for channel in running.channels:
                        channel.redraw()
            wall, steady = now, then

    def _look_at_certificate(self) -> None:
        found, warning = self._certificate.look(), self._certificate.warning()
        if found is not None:
            for running in self._running.values():
                running.loop.renew(parts.own(found))
        if warning is not None:
            self._hub.report(warning)
