"""JetStream: publishing sealed, over a real nats-server."""

from __future__ import annotations

import asyncio

import nats.errors
import nats.js.errors
import pytest

from broker_crypto.channels.record import read_record
from broker_crypto.errors import (
    GroupNotReady,
    NoPolicy,
)
from tests.brokers.nats.support import Pair, stream_of, written

TEXT = b"the quick brown fox"


async def test_publish_answers_as_the_client_does_and_stores_ciphertext(pair: Pair, stream: str) -> None:
    js = pair.alice.nc.jetstream()
    headers = {"Nats-Msg-Id": "1", "secret-header": "value"}
    answer = await js.publish(f"{pair.root}.o.x", TEXT, headers=headers, stream=stream)
    assert (answer.stream, answer.seq, answer.duplicate) == (stream, 1, None)
    again = await js.publish(f"{pair.root}.o.x", TEXT, headers=headers)
    assert (again.seq, again.duplicate) == (1, True)
    assert headers == {"Nats-Msg-Id": "1", "secret-header": "value"}
    stored = await pair.raw.jetstream().get_msg(stream, 1)
    assert TEXT not in (stored.data or b"")
    assert stored.headers == {"Nats-Msg-Id": "1", "Nats-Expected-Stream": stream}
    with pytest.raises(nats.js.errors.APIError):
        await js.publish(f"{pair.root}.o.x", TEXT, stream="ANOTHER")
    with pytest.raises(nats.js.errors.APIError):
        await js.publish(f"{pair.root}.o.x", TEXT, headers={"Nats-Expected-Last-Sequence": "9"})


async def test_publish_to_no_stream_is_the_clients_own_error(pair: Pair) -> None:
    with pytest.raises(nats.js.errors.NoStreamResponseError):
        await pair.alice.nc.jetstream().publish(f"{pair.root}.o.x", TEXT)


async def test_a_message_ttl_is_set_outside(pair: Pair) -> None:
    name = await stream_of(pair, allow_msg_ttl=True)
    await pair.alice.nc.jetstream().publish(f"{pair.root}.o.x", TEXT, msg_ttl=60)
    stored = await pair.raw.jetstream().get_msg(name, 1)
    assert (stored.headers or {}).get("Nats-TTL") == "60"


async def test_publishers_at_once_share_signatures_and_a_sequential_one_signs_alone(pair: Pair, stream: str) -> None:
    js = pair.alice.nc.jetstream()

    async def one(at: int) -> None:
        for round in range(3):
            await js.publish(f"{pair.root}.o.x", b"%d.%d" % (round, at))

    await asyncio.gather(*(one(at) for at in range(64)))
    together = await signatures(pair, stream, 1, 192)
    assert len(together) < 60
    await written(pair, 5)
    assert len(await signatures(pair, stream, 193, 197)) == 5
    sub = await pair.bob.nc.jetstream().pull_subscribe(f"{pair.root}.o.x")
    payloads: list[bytes | None] = []
    while len(payloads) < 197:
        payloads += [message.data for message in await sub.fetch(100)]
    assert sorted(payloads[:192]) == sorted(b"%d.%d" % (round, at) for round in range(3) for at in range(64))


async def signatures(pair: Pair, stream: str, first: int, last: int) -> set[bytes]:
    stored = [await pair.raw.jetstream().get_msg(stream, at) for at in range(first, last + 1)]
    return {read_record(message.data or b"")[1].signature for message in stored}


async def test_one_callers_mistake_is_not_that_of_those_it_was_signed_with(pair: Pair, stream: str) -> None:
    js = pair.alice.nc.jetstream()
    calls = [js.publish(f"{pair.root}.o.x", b"%d" % at) for at in range(20)]
    too_large = js.publish(f"{pair.root}.o.x", bytes(17 * 1024 * 1024))
    outcomes = await asyncio.gather(*calls[:10], too_large, *calls[10:], return_exceptions=True)
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False] * 10 + [True] + [False] * 10


async def test_a_cancelled_publisher_does_not_stop_the_others(pair: Pair, stream: str) -> None:
    js = pair.alice.nc.jetstream()
    tasks = [asyncio.create_task(js.publish(f"{pair.root}.o.x", b"%d" % at)) for at in range(40)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(not isinstance(outcome, BaseException) for outcome in outcomes[1::2])
    assert (await js.publish(f"{pair.root}.o.x", TEXT)).seq >= 21


async def test_a_core_publish_before_it_is_stored_before_it(pair: Pair, stream: str) -> None:
    for at in range(10):
        await pair.alice.nc.publish(f"{pair.root}.o.core{at}", TEXT)
    answer = await pair.alice.nc.jetstream().publish(f"{pair.root}.o.js", TEXT)
    assert answer.seq == 11


async def test_waiting_for_the_group_does_not_eat_the_time_out(pair: Pair, stream: str) -> None:
    pair.alice.agent.pause()
    sending = asyncio.create_task(pair.alice.nc.jetstream().publish(f"{pair.root}.o.x", TEXT, timeout=0.5))
    await asyncio.sleep(0.45)
    pair.alice.agent.go()
    assert (await sending).seq == 1
    pair.alice.agent.pause()
    with pytest.raises(GroupNotReady):
        await pair.alice.nc.jetstream().publish(f"{pair.root}.o.x", TEXT, timeout=0.05)


async def test_what_is_too_large_is_refused_before_it_is_sent(pair: Pair, stream: str) -> None:
    js = pair.alice.nc.jetstream()
    limit = pair.raw.max_payload
    with pytest.raises(nats.errors.MaxPayloadError):
        await js.publish(f"{pair.root}.o.x", bytes(limit - 100))
    with pytest.raises(nats.errors.MaxPayloadError):
        await js.publish(f"{pair.root}.o.x", bytes(limit - 1000), headers={"Nats-Msg-Id": "x" * 1000})
    with pytest.raises(nats.errors.MaxPayloadError):
        await js.publish(f"{pair.root}.m.x", bytes(limit - 10), stream=stream)
    assert (await js.publish(f"{pair.root}.o.x", bytes(pair.alice.nc.max_payload))).seq == 1
    assert pair.alice.errors == []


async def test_subjects_without_a_rule_are_refused_at_the_call(pair: Pair, stream: str) -> None:
    js = pair.alice.nc.jetstream()
    for call in (
        js.publish(f"{pair.root}.other", TEXT),
        js.subscribe(f"{pair.root}.other"),
        js.pull_subscribe(f"{pair.root}.other"),
    ):
        with pytest.raises(NoPolicy):
            await call
