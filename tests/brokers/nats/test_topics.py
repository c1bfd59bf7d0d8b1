"""What a real nats-server says of data topics."""

from __future__ import annotations

import secrets

import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig

from broker_crypto.errors import BrokerUnavailable
from broker_crypto_nats.jsapi import Api
from broker_crypto_nats.topics import NatsTopics
from tests.brokers.conftest import connect
from tests.support.servers import NatsServer


def topics(nc: Client, *patterns: str) -> NatsTopics:
    return NatsTopics(nc, lambda topic: patterns, timeout=1)


async def stream(nc: Client, *subjects: str, **settings: object) -> str:
    name = "S" + secrets.token_hex(5)
    await nc.jetstream().add_stream(StreamConfig(name=name, subjects=list(subjects), **settings))  # type: ignore[arg-type]
    return name


async def test_a_topic_without_a_stream_has_no_facts(nc: Client) -> None:
    assert await topics(nc, "nowhere.>").describe("orders") == []


async def test_the_facts_are_those_of_the_stream(nc: Client) -> None:
    root = secrets.token_hex(4)
    name = await stream(nc, f"{root}.>", max_age=90.5)
    facts = await topics(nc, f"{root}.orders.>").describe("orders")
    created = (await Api(nc).call(f"STREAM.INFO.{name}"))["created"]
    assert [(fact.topic, fact.identity, fact.retention_s, fact.compacted) for fact in facts] == [("orders", created, 91, False)]
    assert facts[0].ends == {-1: 1}
    for _ in range(3):
        await nc.jetstream().publish(f"{root}.orders.created", b"x")
    assert (await topics(nc, f"{root}.orders.>").describe("orders"))[0].ends == {-1: 4}


async def test_the_first_position_not_written_counts_on_after_a_purge(nc: Client) -> None:
    root = secrets.token_hex(4)
    name = await stream(nc, f"{root}.>")
    await nc.jetstream().publish(f"{root}.a", b"x")
    await nc.jsm().purge_stream(name)
    assert (await topics(nc, f"{root}.>").describe("orders"))[0].ends == {-1: 2}


async def test_every_stream_that_holds_a_subject_is_told_and_no_other(nc: Client) -> None:
    root = secrets.token_hex(4)
    one, two = await stream(nc, f"{root}.a.>"), await stream(nc, f"{root}.b.x")
    await stream(nc, f"{root}.c")
    facts = await topics(nc, f"{root}.a.*", f"{root}.b.>").describe("orders")
    wanted = {(await Api(nc).call(f"STREAM.INFO.{name}"))["created"] for name in (one, two)}
    assert {fact.identity for fact in facts} == wanted


KEEPING = [({"max_msgs_per_subject": 1}, True), ({"max_msgs_per_subject": 9}, False), ({}, False)]


@pytest.mark.parametrize(("settings", "compacted"), KEEPING)
async def test_a_stream_that_keeps_the_last_of_each_subject_for_good_is_compacted(
    nc: Client, settings: dict[str, object], compacted: bool
) -> None:
    root = secrets.token_hex(4)
    await stream(nc, f"{root}.>", **settings)
    [facts] = await topics(nc, f"{root}.>").describe("orders")
    assert facts.compacted is compacted
    assert facts.retention_s is None


async def test_more_streams_than_one_answer_holds_are_all_told(own_nc: Client) -> None:
    for at in range(1100):
        await Api(own_nc).call(f"STREAM.CREATE.S{at}", {"name": f"S{at}", "subjects": [f"many.{at}"], "storage": "memory"})
    found = await topics(own_nc, "many.*")._holding("many.*")
    assert sorted(found) == sorted(f"S{at}" for at in range(1100))


async def test_a_broker_that_is_away_is_unavailable(server: NatsServer) -> None:
    connection = await connect(server)
    server.stop()
    with pytest.raises(BrokerUnavailable):
        await topics(connection, "a.>").describe("orders")
    await connection.close()
