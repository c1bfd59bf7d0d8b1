"""What an application meets: waiting, refusals with a name, closing in either order, several agents and connections, a restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import nats
import nats.js.errors
import pytest
from nats.aio.client import Client
from nats.js.api import ConsumerConfig

from broker_crypto import Agent, errors
from broker_crypto.records import EpochChanged, Joined, Marked, MemberJoined, Place, Refused
from broker_crypto_nats import SecureNats
from tests.support.agents import Cast, Member, Realm, connect, number_of, numbered, take, together, until, uri
from tests.support.servers import NatsServer


async def test_a_first_send_waits_by_itself_until_the_group_is_ready(realm: Realm, cast: Cast, raw: Client) -> None:
    await realm.stream(raw)
    ops = await cast("ops", ready=False)
    assert ops.group.state == "joining"
    await ops.publish(1)
    await ops.nc.publish(f"{realm.root}.o.core", numbered(2))
    await ops.nc.flush()
    assert ops.group.state == "member"
    assert {number_of(m.data) for m in await take(await ops.reader(), 2)} == {1, 2}


async def test_waiting_ends_with_what_is_missing_where_nobody_may_found_the_group(realm: Realm, cast: Cast) -> None:
    def other_rules(policy):  # type: ignore[no-untyped-def]
        policy["groups"][realm.topic]["roles"]["writer"] = []

    stranger = await cast("writer-1", realm.policy(other_rules), ready=False)
    with pytest.raises(errors.GroupNotReady, match="founding") as caught:
        await stranger.ready(timeout=0.5)
    assert caught.value.fields["group"] == realm.topic


async def test_an_identity_without_a_role_in_the_groups_policy_is_told_so_at_once(realm: Realm, cast: Cast, raw: Client) -> None:
    await realm.stream(raw)
    await cast("ops")
    mine = realm.policy(lambda m: m["groups"][realm.topic]["roles"].update(writer=[uri("stranger")]))
    stranger = await cast("stranger", mine, ready=False)
    with pytest.raises(errors.NotAMember):
        await stranger.ready(timeout=10)
    with pytest.raises(errors.NotAMember):
        await stranger.publish(1)
    health = stranger.agent.health()
    assert not health.ok
    assert "no role" in health.reasons[0]


async def test_a_reader_may_not_write(realm: Realm, cast: Cast, raw: Client) -> None:
    js = await realm.stream(raw)
    _, reader = await cast.all("ops", "reader-1")
    with pytest.raises(errors.MayNotWrite):
        await reader.publish(1)
    with pytest.raises(errors.MayNotWrite):
        await reader.nc.publish(f"{realm.root}.o.x", b"core")
    assert (await js.stream_info(realm.topic)).state.messages == 0
    assert reader.agent.health().ok


async def test_a_subject_without_a_rule_is_refused_and_nothing_goes_out(realm: Realm, cast: Cast, raw: Client) -> None:
    heard = await raw.subscribe(f"{realm.root}.>")
    ops = await cast("ops")
    for send in (ops.nc.publish, ops.js.publish):
        with pytest.raises(errors.NoPolicy):
            await send(f"{realm.root}.elsewhere", b"secret")
    await ops.nc.publish(f"{realm.root}.p.x", b"plain")
    await ops.nc.flush()
    assert (await heard.next_msg(5)).data == b"plain"
    with pytest.raises(TimeoutError):
        await heard.next_msg(0.1)


@pytest.mark.parametrize("first", ["client", "agent"])
async def test_both_orders_of_shutting_down_end_without_a_hang(realm: Realm, raw: Client, first: str) -> None:
    await realm.stream(raw)
    realm.issue("ops")
    async with asyncio.timeout(10):
        inner = await connect(realm.url)
        async with Agent.open(realm.policy(), identity=uri("ops")) as agent:
            nc = SecureNats(inner, agent)
            js = nc.jetstream()
            await js.publish(f"{realm.root}.o.x", numbered(1))
            sub = await js.pull_subscribe(f"{realm.root}.o.>", stream=realm.topic)
            waiting = asyncio.ensure_future(sub.fetch(2, timeout=30))
            await asyncio.sleep(0.1)
            if first == "client":
                await nc.drain()
        for subject in (f"{realm.root}.o.x", f"{realm.root}.p.x"):
            with pytest.raises(errors.AgentClosed):
                await js.publish(subject, b"late")
            with pytest.raises(errors.AgentClosed):
                await nc.publish(subject, b"late")
        with pytest.raises(errors.AgentClosed):
            await agent.ready(realm.topic)
        assert not agent.health().ok
        await nc.close()
        assert inner.is_closed
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_who_waits_for_an_agent_that_is_closed_is_told(realm: Realm) -> None:
    nobody = realm.policy(lambda m: m["groups"][realm.topic]["roles"].update(writer=[uri("nobody")]))
    realm.issue("writer-1")
    inner = await connect(realm.url)
    async with Agent.open(nobody, identity=uri("writer-1")) as agent:
        SecureNats(inner, agent)
        waiting = asyncio.ensure_future(agent.ready(realm.topic))
        await asyncio.sleep(0.1)
    with pytest.raises(errors.BrokerCryptoError):
        await asyncio.wait_for(waiting, 5)
    await inner.close()


async def test_two_agents_in_one_process_are_two_members(realm: Realm, cast: Cast, raw: Client) -> None:
    await realm.stream(raw)
    ops, writer = await cast.all("ops", "writer-1")
    await ops.publish(1)
    await writer.publish(2)
    for member in (ops, writer):
        assert {m.security.sender for m in await take(await member.reader(), 2)} == {uri("ops"), uri("writer-1")}


async def test_an_agent_of_two_groups_keeps_them_apart(realm: Realm, cast: Cast, raw: Client) -> None:
    js = await realm.stream(raw)
    await js.add_stream(name=f"{realm.topic}-b", subjects=[f"{realm.root}.b.>"])

    def second(policy):  # type: ignore[no-untyped-def]
        policy["groups"][f"{realm.topic}-b"] = policy["groups"][realm.topic]
        policy["topics"].append({"topic": f"{realm.topic}-b", "subjects": [f"{realm.root}.b.>"], "channel": "mls"})

    ops, reader = await cast.all("ops", "reader-1", policy=realm.policy(second))
    for member in (ops, reader):
        await member.agent.ready(timeout=20)
        assert {name: group.state for name, group in member.agent.groups.items()} == {realm.topic: "member", f"{realm.topic}-b": "member"}
    other = [member.agent.groups[f"{realm.topic}-b"] for member in (ops, reader)]
    await until(lambda: other[0].epoch == other[1].epoch == 1)
    await other[0].rotate()
    assert ops.group.epoch == 1
    await until(lambda: other[1].epoch == 2)
    await ops.publish(1)
    await ops.js.publish(f"{realm.root}.b.x", numbered(2))
    await js.publish(f"{realm.root}.b.x", (await js.get_msg(realm.topic, 1)).data)
    assert [number_of(m.data) for m in await take(await reader.reader(), 1)] == [1]
    subscription = await reader.js.pull_subscribe(f"{realm.root}.b.>")
    assert [number_of(m.data) for m in await take(subscription, 1)] == [2]
    with pytest.raises(errors.Relocated):
        await subscription.fetch(1)


async def test_a_topic_that_is_called_like_a_subject_of_another_is_still_itself(realm: Realm, cast: Cast, raw: Client) -> None:
    js = await realm.stream(raw)

    def other_first(policy):  # type: ignore[no-untyped-def]
        policy["topics"].insert(0, {"topic": "other", "subjects": [realm.topic], "channel": "plain"})
        policy["topics"][1]["on_failure"] = "skip"

    ops, reader = await cast.all("ops", "reader-1", policy=realm.policy(other_first))
    await js.publish(f"{realm.root}.o.x", b"no envelope")
    await ops.publish(1)
    assert [number_of(m.data) for m in await take(await reader.reader(), 1)] == [1]
    assert list(reader.agent.subjects(realm.topic)) == [f"{realm.root}.o.>"]


async def test_one_store_takes_one_agent(realm: Realm, cast: Cast) -> None:
    await cast("ops")
    with pytest.raises(errors.StateLocked):
        async with Agent.open(realm.policy(), identity=uri("ops")):
            pass


@pytest.mark.parametrize("how", ["through the sealing client", "behind its back"])
async def test_a_second_connection_takes_the_group_log_over_when_the_first_closes(realm: Realm, cast: Cast, raw: Client, how: str) -> None:
    await realm.stream(raw)
    ops, writer = await cast.all("ops", "writer-1")
    second = await connect(realm.url)
    other = SecureNats(second, writer.agent)
    await (writer.nc.close() if how == "through the sealing client" else writer.raw.close())
    await ops.group.rotate()
    await together(ops, writer)
    await asyncio.wait_for(writer.group.rotate(), 10)
    await together(ops, writer)
    await other.jetstream().publish(f"{realm.root}.o.x", numbered(1))
    assert [m.security.sender for m in await take(await ops.reader(), 1)] == [uri("writer-1")]
    await other.close()


async def test_closing_the_second_of_two_connections_disturbs_nobody(realm: Realm, cast: Cast) -> None:
    ops, writer = await cast.all("ops", "writer-1")
    other = SecureNats(await connect(realm.url), writer.agent)
    await other.close()
    await writer.group.rotate()
    await together(ops, writer)


async def test_agents_go_on_after_the_server_was_restarted(own_realm: Realm, own_cast: Cast, own_raw: Client, server: NatsServer) -> None:
    await own_realm.stream(own_raw)
    ops, reader = await own_cast.all("ops", "reader-1")
    subscription = await reader.reader("r")
    await ops.publish(1)
    server.stop()
    await asyncio.sleep(0.3)
    rotating = asyncio.ensure_future(ops.group.rotate())
    await until(lambda: not ops.agent.health().ok, "the probe says that the log is out of reach")
    assert "not connected" in str(ops.agent.health().reasons)
    server.start()
    await asyncio.wait_for(rotating, 20)
    await until(lambda: ops.raw.is_connected and reader.raw.is_connected)
    await together(ops, reader)
    await ops.publish(2)
    assert {number_of(m.data) for m in await take(subscription, 2)} == {1, 2}
    await until(lambda: ops.agent.health().ok and reader.agent.health().ok)


async def test_a_member_seals_while_the_group_log_cannot_be_read_and_closing_does_not_wait_for_it(
    own_realm: Realm, own_cast: Cast, server: NatsServer
) -> None:
    ops = await own_cast("ops")
    server.stop()
    await until(lambda: not ops.raw.is_connected)
    reading = asyncio.ensure_future(ops.group.rotate())
    await asyncio.sleep(0.1)
    channel = ops.agent.channel("nats", f"{own_realm.root}.o.x")
    assert len(channel.seal([(Place(own_realm.topic, -1, f"{own_realm.root}.o.x"), b"payload", None)])) == 1
    await asyncio.wait_for(ops.agent.close(), 4)  # the log itself would wait longer
    with pytest.raises(errors.AgentClosed):
        await asyncio.wait_for(reading, 1)


async def test_events_and_callbacks_tell_what_happens_to_a_group_and_to_records(realm: Realm, cast: Cast, raw: Client) -> None:
    js = await realm.stream(raw)
    skipping = realm.policy(lambda m: m["defaults"].update(on_failure="skip"))
    reader = await cast("ops", skipping, ready=False)
    queue = reader.agent.events(Joined, Refused, Marked)
    called: list[EpochChanged] = []
    stop = reader.agent.on(EpochChanged, called.append)
    await reader.ready()
    writer = await cast("writer-1", skipping)
    await until(lambda: reader.of(MemberJoined))
    stop()
    await writer.group.rotate()
    await together(reader, writer)
    await writer.publish(1)
    genuine = await js.get_msg(realm.topic, 1)
    await js.publish(genuine.subject, b"no envelope")
    await js.publish(genuine.subject, genuine.data)
    assert len(await take(await reader.reader(), 2)) == 2
    told = [await asyncio.wait_for(anext(queue), 5) for _ in range(3)]
    assert told == [
        Joined(realm.topic, 0, 0, founded=True, again=False),
        Refused(realm.topic, realm.topic, "not_encrypted", 2),
        Marked(realm.topic, realm.topic, duplicate=True, gap=0),
    ]
    assert called == [EpochChanged(realm.topic, 0, uri("ops")), EpochChanged(realm.topic, 1, uri("writer-1"))]
    assert reader.of(EpochChanged)[-1] == EpochChanged(realm.topic, 2, uri("writer-1"))
    assert reader.of(MemberJoined) == [MemberJoined(realm.topic, 1, 1, uri("writer-1"))]
    await reader.agent.close()
    assert [event async for event in queue] == []


async def test_health_and_figures_say_what_was_done_to_them(realm: Realm, cast: Cast, raw: Client) -> None:
    js = await realm.stream(raw)
    skipping = realm.policy(lambda m: m["defaults"].update(on_failure="skip"))
    ops, reader = await cast("ops", skipping), await cast("reader-1", skipping)
    await together(ops, reader)
    await ops.publish(*range(70))
    genuine = await js.get_msg(realm.topic, 1)
    for data in (b"no envelope", genuine.data[:-1] + bytes((genuine.data[-1] ^ 1,)), genuine.data):
        await js.publish(genuine.subject, data)
    log = f"_bc.group.{realm.topic}"
    commit = await raw.jetstream().get_last_msg("BC_GROUPS", log)
    for record in (b"junk", commit.data[:100], commit.data):
        await raw.jetstream().publish(log, record)
    assert len(await take(await reader.reader(), 71)) == 71
    await ops.group.rotate()
    await together(ops, reader)
    assert ops.agent.health() == type(ops.agent.health())(True, [], {realm.topic: "member"})
    labels = {"broker": "nats", "topic": realm.topic}
    assert ops.metrics.value("records_sealed_total", **labels) == 70
    assert reader.metrics.value("records_opened_total", **labels) == 71
    assert reader.metrics.value("records_refused_total", **labels, reason="not_encrypted") == 1
    assert reader.metrics.value("records_refused_total", **labels, reason="bad_signature") == 1
    assert reader.metrics.value("records_refused_total") == 2
    assert reader.metrics.value("records_marked_total", topic=realm.topic, mark="duplicate") == 1
    for member in (ops, reader):
        assert member.metrics.value("group_epoch", group=realm.topic) == 2
        assert member.metrics.value("group_members", group=realm.topic) == 2
        assert member.metrics.value("group_log_lag", group=realm.topic) == 0
        verdicts = [member.metrics.value("group_commits_total", group=realm.topic, verdict=v) for v in ("valid", "invalid", "stale")]
        assert verdicts == [3, 1, 1]
        assert member.metrics.value("certificate_expiry_timestamp_seconds") > time.time()
    assert ops.metrics.value("store_commit_seconds") > 0
    assert not ops.metrics.value("store_errors_total")


async def test_without_a_connection_waiting_names_the_broker(realm: Realm, tmp_path: Path) -> None:
    realm.issue("ops")
    async with Agent.open(realm.policy(), identity=uri("ops")) as agent:
        with pytest.raises(errors.GroupNotReady, match="no connection"):
            await agent.ready(realm.topic, 5)


async def test_an_agent_connects_by_itself_where_the_policy_names_the_servers(realm: Realm) -> None:
    def named(policy):  # type: ignore[no-untyped-def]
        policy["brokers"] = {"main": {"type": "nats", "servers": [realm.url]}}

    realm.issue("ops")
    async with Agent.open(realm.policy(named), identity=uri("ops")) as agent:
        await agent.ready(timeout=20)
        assert agent.groups[realm.topic].state == "member"
        inner = await connect(realm.url)
        nc = SecureNats(inner, agent)
        await nc.close()
        await asyncio.wait_for(agent.groups[realm.topic].rotate(), 10)


async def test_padding_and_sealed_headers_hold_from_end_to_end(realm: Realm, cast: Cast, raw: Client) -> None:
    js = await realm.stream(raw)

    def padded(policy):  # type: ignore[no-untyped-def]
        policy["topics"][0].update(padding=512, headers={"plain": ["x-route"], "sealed": ["traceparent"]})

    ops, reader = await cast.all("ops", "reader-1", policy=realm.policy(padded))
    headers = {"Authorization": "Bearer 1234", "x-route": "eu", "traceparent": "00-1", "content-type": "text/plain"}
    for size in (1, 100, 300):
        await ops.js.publish(f"{realm.root}.o.x", b"s" * size, headers=headers)
    stored = [await js.get_msg(realm.topic, n) for n in (1, 2, 3)]
    assert {len(m.data) for m in stored} == {len(stored[0].data)}, "all alike"
    for message in stored:
        assert message.headers == {"x-route": "eu", "content-type": "text/plain"}
        assert b"1234" not in message.data
    for message in await take(await reader.reader(), 3):
        assert message.headers == headers
    assert reader.agent.groups[realm.topic].name == realm.topic


async def test_a_server_killed_again_and_again_under_members_that_write_read_and_commit_costs_nobody_anything(
    own_realm: Realm, own_cast: Cast, own_raw: Client, server: NatsServer
) -> None:
    await own_realm.stream(own_raw)
    ops, writer, reader = members = await own_cast.all("ops", "writer-1", "reader-1")
    acknowledged: set[int] = set()
    read: set[int] = set()

    async def write(member: Member, numbers: Iterator[int]) -> None:
        for number in numbers:
            while number not in acknowledged:
                try:
                    await member.js.publish(f"{own_realm.root}.o.{member.name}", numbered(number), timeout=0.5)
                except (nats.errors.Error, TimeoutError):
                    await asyncio.sleep(0.05)
                else:
                    acknowledged.add(number)

    async def read_on() -> None:
        subscription = await reader.reader("r", config=ConsumerConfig(ack_wait=2))
        while True:
            try:
                messages = await subscription.fetch(64, timeout=0.5)
                for message in messages:
                    read.add(number_of(message.data))
                    await message.ack()
            except (nats.errors.Error, nats.js.errors.Error, errors.BrokerUnavailable, TimeoutError):
                await asyncio.sleep(0.05)

    reading = asyncio.ensure_future(read_on())
    writing = [asyncio.ensure_future(write(m, iter(range(first, 600, 2)))) for first, m in enumerate((ops, writer))]
    for _ in range(5):
        rotating = [asyncio.ensure_future(member.group.rotate()) for member in members]
        await asyncio.sleep(0.05)
        server.kill()
        server.start()
        await asyncio.wait_for(asyncio.gather(*rotating), 60)
        await together(*members)
    await asyncio.wait_for(asyncio.gather(*writing), 60)
    await until(lambda: read >= acknowledged or reading.done(), "everything acknowledged is read")
    assert not reading.done()
    reading.cancel()
    assert acknowledged == set(range(600))
    assert not reader.of(Refused)
    assert ops.group.epoch == 2 + 15
