"""An agent on a broker in memory: what it shows channels, and that nobody who waits for it waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker_crypto import Agent, Event, errors
from broker_crypto.channels.bound import BoundChannel
from broker_crypto.delivery.ports import GroupLog, Topics
from broker_crypto.parts import SystemClock
from broker_crypto.records import Behind, Opened, Place
from broker_crypto.testing import MemoryBroker
from tests.support.agents import Realm, until, uri
from tests.support.lies.secret import wrong_commit


class Connection:
    """What a connector attaches, over a broker in memory."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.type, self.broker = "nats", None
        self.closed = False
        self._broker = broker

    def group_log(self, replicas: int = 1) -> GroupLog:
        return self._broker.group_log()

    def topics(self) -> Topics:
        return self._broker.topics()


class Stage:
    """Agents of one policy with their state in memory, and the broker they share."""

    def __init__(self, folder: Path) -> None:
        self.realm = Realm(folder, "")
        self.broker = MemoryBroker(SystemClock())
        self.topic = self.realm.topic
        self.position = 0

    def policy(self, **changes: Any) -> Path:
        def change(mapping: dict[str, Any]) -> None:
            mapping["state_persistence"] = {"backend": "memory", "ephemeral": True}
            mapping["defaults"] = {"epoch_wait": "1s"}
            mapping.update(changes)

        return self.realm.policy(change)

    @asynccontextmanager
    async def agent(self, name: str, policy: Path | None = None) -> AsyncIterator[Agent]:
        self.realm.issue(name)
        async with Agent.open(policy or self.policy(), identity=uri(name)) as agent:
            agent.attach(Connection(self.broker))
            yield agent

    def channel(self, agent: Agent) -> BoundChannel:
        return agent.channel("nats", f"{self.realm.root}.o.x")

    def place(self) -> Place:
        self.position += 1
        return Place(self.topic, -1, f"{self.realm.root}.o.x", position=("stream", self.position))

    def seal(self, agent: Agent, payload: bytes = b"payload") -> bytes:
        return self.channel(agent).seal([(self.place()._replace(position=None), payload, None)])[0].data

    def open(self, agent: Agent, data: bytes, *, final: bool = False) -> Any:
        return self.channel(agent).open([(self.place(), data, None)], final)[0]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_a_channel_made_before_the_group_was_there_seals_and_opens_once_it_is(stage: Stage) -> None:
    stage.realm.issue("ops")
    async with Agent.open(stage.policy(), identity=uri("ops")) as agent:
        channel = stage.channel(agent)
        assert not channel.ready
        with pytest.raises(errors.GroupNotReady):
            stage.seal(agent)
        agent.attach(Connection(stage.broker))
        await agent.ready(stage.topic, 10)
        assert channel.ready
        opened = stage.open(agent, stage.seal(agent))
        assert isinstance(opened, Opened)
        assert (opened.payload, opened.security.sender) == (b"payload", uri("ops"))
        assert stage.channel(agent) is channel


async def test_what_was_sealed_before_one_joined_is_named_so_and_what_comes_after_opens(stage: Stage) -> None:
    async with stage.agent("ops") as ops:
        await ops.ready(stage.topic, 10)
        early = stage.seal(ops)
        async with stage.agent("writer-1") as writer:
            await writer.ready(stage.topic, 10)
            await until(lambda: ops.groups[stage.topic].epoch == 1)
            assert isinstance(stage.open(writer, early), errors.NotAMemberAtEpoch)
            assert stage.open(writer, stage.seal(ops)).security.sender == uri("ops")
            assert stage.open(ops, stage.seal(writer)).security.sender == uri("writer-1")
            assert stage.open(ops, early).payload == b"payload"


async def test_a_topic_that_the_groups_policy_does_not_list_is_neither_sealed_nor_opened(stage: Stage) -> None:
    more = {"topic": "more", "subjects": ["more.>"], "channel": "mls", "group": stage.topic}
    groups = {stage.topic: {"roles": {"admin": [uri("ops")], "writer": [uri("writer-*")]}}}
    mapping = stage.realm.mapping()
    founding = stage.policy(groups=groups)
    wider = stage.policy(groups=groups, topics=[*mapping["topics"], more])
    async with stage.agent("ops", founding) as ops, stage.agent("writer-1", wider) as writer:
        await ops.ready(stage.topic, 10)
        await writer.ready("more", 10)
        place = Place("more", -1, "more.x")
        channel = writer.channel("nats", "more.x")
        with pytest.raises(errors.NotThisGroup):
            channel.seal([(place, b"payload", None)])
        await until(lambda: ops.groups[stage.topic].epoch == 1)
        data = stage.seal(ops)
        (result,) = channel.open([(place._replace(position=("s", 1)), data, None)])
        assert isinstance(result, errors.NotThisGroup)


# --- who waits ----------------------------------------------------------------------------------------------------------


async def test_everybody_who_waits_is_told_when_the_agent_closes_whatever_the_broker_does(stage: Stage) -> None:
    async with stage.agent("ops") as ops:
        await ops.ready(stage.topic, 10)
        stage.broker.reads.clear()  # calls hang
        group = ops.groups[stage.topic]
        behind = Behind(stage.topic, 99, bytes(16))
        waiting = [asyncio.ensure_future(w) for w in (group.rotate(), ops.catch_up(behind))]
        async with stage.agent("writer-1") as writer:
            waiting.append(asyncio.ensure_future(writer.ready(stage.topic)))
            await asyncio.sleep(0.05)
            async with asyncio.timeout(5):
                await asyncio.gather(ops.close(), writer.close())
            ended = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
        assert [type(e) for e in ended] == [errors.AgentClosed] * 3
        for call in (group.rotate(), ops.catch_up(behind), ops.ready(stage.topic), ops.durable([])):
            with pytest.raises(errors.AgentClosed):
                await asyncio.wait_for(call, 5)
        with pytest.raises(errors.AgentClosed):
            stage.channel(ops)


async def test_closing_that_is_given_up_ends_the_loops_and_the_store_all_the_same(stage: Stage) -> None:
    async with stage.agent("ops") as ops:
        await ops.ready(stage.topic, 10)
        stage.broker.reads.clear()
        await asyncio.sleep(0.01)
        ops.groups[stage.topic]._loop.poke()  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)
        closing = asyncio.ensure_future(ops.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await asyncio.sleep(0.05)
        assert all(running.task.done() for running in ops._running.values())
        with pytest.raises(errors.UsageError, match="closed"):
            async with ops._store.transaction():
                pass


async def test_a_log_out_of_reach_holds_what_is_behind_and_says_so_after_epoch_wait(stage: Stage) -> None:
    async with stage.agent("ops") as ops:
        await ops.ready(stage.topic, 10)
        stage.broker.down = True
        behind = Behind(stage.topic, 99, bytes(16))
        with pytest.raises(errors.BrokerUnavailable):
            await asyncio.wait_for(ops.catch_up(behind), 10)
        stage.broker.down = False
        await asyncio.wait_for(ops.catch_up(behind), 20)
        stage.broker.down = True
        await asyncio.wait_for(ops.catch_up(behind), 0.5)  # it was not there, a moment ago


@pytest.mark.parametrize("how", ["rolled back", "truncated", "untrusted"])
async def test_what_is_behind_a_group_that_is_not_followed_is_held_with_the_reason(stage: Stage, how: str) -> None:
    expected = {"rolled back": errors.LogRolledBack, "truncated": errors.GroupLogTruncated, "untrusted": errors.UntrustedFounding}[how]
    async with stage.agent("ops") as ops:
        await ops.ready(stage.topic, 10)
        data = stage.seal(ops)
        log = stage.broker.entries(stage.topic)
        other = stage.policy(groups={stage.topic: {"roles": {"admin": [uri("boss")], "writer": [uri("writer-1"), uri("ops")]}}})
        async with stage.agent("writer-1", other if how == "untrusted" else None) as writer:
            if how != "untrusted":
                await writer.ready(stage.topic, 10)
            if how == "rolled back":
                stage.broker.replace(stage.topic, log[0].position, record=b"another")
                stage.broker.roll_back(stage.topic, log[0].position + 1)
            if how == "truncated":
                stage.broker.trim(stage.topic, stage.broker.entries(stage.topic)[-1].position + 1)
            await until(lambda: writer.groups[stage.topic].state == "halted")
            behind = Behind(stage.topic, 99, bytes(16))
            with pytest.raises(expected):
                await asyncio.wait_for(writer.catch_up(behind), 5)
            with pytest.raises(expected):
                await writer.ready(stage.topic, 5)
            with pytest.raises(expected):
                stage.seal(writer)
            assert not writer.health().ok
            if how == "untrusted":
                assert isinstance(stage.open(writer, data), Behind)


async def test_a_fault_in_the_loop_is_told_to_all_and_nothing_is_sealed_behind_it(stage: Stage) -> None:
    class Broken(Connection):
        def group_log(self, replicas: int = 1) -> GroupLog:
            log = self._broker.group_log()

            async def read(position: int, limit: int) -> list[Any]:
                raise RuntimeError("a fault")

            log.read = read  # type: ignore[method-assign]
            return log

    async with stage.agent("ops") as ops:
        await ops.ready(stage.topic, 10)
        ops.attach(Broken(stage.broker))
        first = ops._connections["nats"][0]
        ops.detach(first)
        await until(lambda: not ops.health().ok)
        for call in (ops.ready(stage.topic), ops.catch_up(Behind(stage.topic, 99, bytes(16))), ops.groups[stage.topic].rotate()):
            with pytest.raises(errors.GroupError, match="ended"):
                await asyncio.wait_for(call, 5)
        with pytest.raises(errors.GroupError, match="ended"):
            stage.seal(ops)


async def test_a_member_that_is_locked_out_waits_seals_nothing_and_comes_back(stage: Stage) -> None:
    async with stage.agent("ops") as ops, stage.agent("writer-1") as writer:
        await ops.ready(stage.topic, 10)
        await writer.ready(stage.topic, 10)
        await until(lambda: ops.groups[stage.topic].epoch == 1)
        before = stage.seal(ops)
        group = ops._running[stage.topic].loop.member.mls
        assert group is not None
        seen: list[str] = []
        writer.on(Event, lambda event: seen.append(type(event).__name__))
        log = stage.broker.group_log()
        await log.open(stage.topic, create=False)
        staged = wrong_commit(group, SystemClock().now_ms(), "path_secret", ops._random, victim=1)
        ops._running[stage.topic].loop.memory.staged[staged.hash] = staged
        await log.append(staged.record, None)
        await until(lambda: "LockedOut" in seen and writer.groups[stage.topic].state == "member")
        await until(lambda: ops.groups[stage.topic].epoch == writer.groups[stage.topic].epoch == 3)
        assert stage.open(writer, before).payload == b"payload"
        assert stage.open(writer, stage.seal(ops)).payload == b"payload"
        view = writer._running[stage.topic].view
        assert (tuple(view.absent), tuple(view.missed)) == (((0, 0),), ((2, 2),))


async def test_an_agent_whose_file_lets_in_fewer_than_the_group_reads_and_seals_nothing(stage: Stage) -> None:
    fewer = stage.policy(groups={stage.topic: {"roles": {"admin": [uri("ops")], "writer": [uri("writer-1")]}}})
    async with stage.agent("ops") as ops, stage.agent("writer-1", fewer) as writer:
        await ops.ready(stage.topic, 10)
        await writer.ready(stage.topic, 10)
        await until(lambda: ops.groups[stage.topic].epoch == 1)
        assert stage.open(writer, stage.seal(ops)).payload == b"payload"
        with pytest.raises(errors.PolicyConflict, match="lets in"):
            stage.seal(writer)
        assert any("lets in" in reason for reason in writer.health().reasons)
