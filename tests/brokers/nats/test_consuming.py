"""JetStream: consumers whose messages come opened, over a real nats-server."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import nats.errors
import nats.js.errors
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from broker_crypto.errors import (
    BrokerCryptoError,
    NotEncrypted,
    Tampered,
)
from broker_crypto.records import Decision
from broker_crypto_nats import SecureJetStream, SecureMsg
from broker_crypto_nats.jsapi import Api
from tests.brokers.nats.support import Connect, Pair, late_reader, put_forged, settle, until, until_settled, written
from tests.support.servers import NatsServer

TEXT = b"the quick brown fox"


async def test_pulled_messages_come_opened_with_their_metadata_and_every_ack(pair: Pair, stream: str) -> None:
    payloads = await written(pair, 6)
    config = ConsumerConfig(ack_wait=0.5, max_deliver=5)
    sub = await pair.bob.nc.jetstream().pull_subscribe(f"{pair.root}.o.>", durable="d", config=config)
    messages = await sub.fetch(6)
    assert [message.data for message in messages] == payloads
    assert [message.metadata.sequence.stream for message in messages] == [1, 2, 3, 4, 5, 6]
    assert {message.security.sender for message in messages if message.security} == {"agent://acme/alice"}
    await messages[0].ack()
    await messages[1].ack_sync()
    await messages[2].nak()
    await messages[3].term()
    assert [message.is_acked for message in messages] == [True, True, True, True, False, False]
    with pytest.raises(nats.errors.MsgAlreadyAckdError):
        await messages[0].ack()
    again = await sub.fetch(1)
    assert (again[0].data, again[0].metadata.num_delivered) == (b"2", 2)
    await again[0].ack()
    for _ in range(4):  # in work for longer than AckWait: not delivered anew
        await asyncio.sleep(0.2)
        await messages[4].in_progress()
    late = await sub.fetch(1, timeout=2)
    assert (late[0].data, late[0].metadata.num_delivered) == (b"5", 2)
    assert late[0].security is not None
    assert not late[0].security.duplicate  # the same place: no copy
    await messages[4].ack()
    await late[0].ack_sync()
    info = await sub.consumer_info()
    assert (info.num_ack_pending, info.num_pending) == (0, 0)
    await sub.unsubscribe()


async def test_fetch_without_anything_times_out_as_the_clients_does(pair: Pair, stream: str) -> None:
    sub = await pair.bob.nc.jetstream().pull_subscribe(f"{pair.root}.o.>")
    for batch in (1, 10):
        with pytest.raises(nats.errors.TimeoutError if batch == 1 else asyncio.TimeoutError):
            await sub.fetch(batch, timeout=0.1)
    with pytest.raises(ValueError, match="batch"):
        await sub.fetch(0)
    with pytest.raises(ValueError, match="timeout"):
        await sub.fetch(1, timeout=0)


async def test_a_callback_is_acknowledged_after_it_returned_and_not_if_it_raised(pair: Pair, stream: str) -> None:
    await written(pair, 3)
    got: list[tuple[bytes | None, int]] = []

    async def handle(message: SecureMsg) -> None:
        got.append((message.data, message.metadata.num_delivered))
        if message.data == b"1" and message.metadata.num_delivered == 1:
            raise ValueError("not now")

    config = ConsumerConfig(ack_wait=0.3)
    sub = await pair.bob.nc.jetstream().subscribe(f"{pair.root}.o.>", durable="d", cb=handle, config=config)
    await until(lambda: len(got) == 4)
    assert got == [(b"0", 1), (b"1", 1), (b"2", 1), (b"1", 2)]
    await until_settled(pair, stream, "d")
    assert [type(error) for error in pair.bob.errors] == [ValueError]
    assert (await sub.consumer_info()).name == "d"
    await sub.unsubscribe()


async def test_with_manual_ack_the_application_acknowledges(pair: Pair, stream: str) -> None:
    await written(pair, 2)
    got: list[SecureMsg] = []

    async def handle(message: SecureMsg) -> None:
        got.append(message)

    js = pair.bob.nc.jetstream()
    await js.subscribe(f"{pair.root}.o.>", durable="d", cb=handle, manual_ack=True)
    await until(lambda: len(got) == 2)
    await asyncio.sleep(0.05)
    assert (await pair.raw.jsm().consumer_info(stream, "d")).num_ack_pending == 2
    for message in got:
        await message.ack()
    await until_settled(pair, stream, "d")


async def test_pushed_messages_by_next_msg_and_by_iteration(pair: Pair, stream: str) -> None:
    payloads = await written(pair, 20)
    js = pair.bob.nc.jetstream()
    sub = await js.subscribe(f"{pair.root}.o.>")
    assert [(await sub.next_msg(5)).data for _ in range(20)] == payloads
    iterated = await js.subscribe(f"{pair.root}.o.>", config=ConsumerConfig(ack_policy=AckPolicy.NONE))
    seen = []
    async for message in iterated.messages:
        seen.append(message.data)
        if len(seen) == 20:
            break
    assert seen == payloads
    assert sub.delivered == 20


async def test_the_card_reads_what_was_published(pair: Pair, stream: str) -> None:
    js = pair.alice.nc.jetstream()
    await js.publish(f"{pair.root}.o.created", b"...")
    sub = await pair.bob.nc.jetstream().subscribe(f"{pair.root}.o.>", durable="billing")
    async for msg in sub.messages:
        assert msg.security is not None
        assert (msg.security.sender, msg.data) == ("agent://acme/alice", b"...")
        await msg.ack()
        break
    await until_settled(pair, stream, "billing")


async def test_binding_to_consumers_that_exist(pair: Pair, stream: str) -> None:
    payloads = await written(pair, 3)
    jsm = pair.raw.jsm()
    await jsm.add_consumer(stream, ConsumerConfig(durable_name="pull", ack_policy=AckPolicy.EXPLICIT))
    sub = await pair.bob.nc.jetstream().pull_subscribe_bind("pull", stream)
    assert [message.data for message in await sub.fetch(3)] == payloads
    inbox = pair.bob.nc.new_inbox()
    made = await jsm.add_consumer(stream, ConsumerConfig(durable_name="push", deliver_subject=inbox))
    got: list[bytes | None] = []

    async def handle(message: SecureMsg) -> None:
        got.append(message.data)

    await pair.bob.nc.jetstream().subscribe_bind(stream, made.config, "push", cb=handle)
    await until(lambda: len(got) == 3)
    assert got == payloads
    await until_settled(pair, stream, "push")


async def test_fetch_holds_what_is_behind_keeps_it_alive_and_hands_it_out_in_order(pair: Pair, stream: str, side: Connect) -> None:
    await written(pair, 2)
    late = await late_reader(pair, side)
    await written(pair, 3)
    config = ConsumerConfig(ack_wait=0.4)
    sub = await late.nc.jetstream().pull_subscribe(f"{pair.root}.o.>", durable="d", config=config)
    assert [message.data for message in await sub.fetch(10)] == [b"0", b"1"]
    for _ in range(6):
        with pytest.raises(nats.errors.TimeoutError):
            await sub.fetch(10, timeout=0.2)
    cancelled = asyncio.create_task(sub.fetch(10, timeout=5))
    await asyncio.sleep(0.1)
    cancelled.cancel()
    late.agent.readable.set()
    held = await sub.fetch(10)
    assert [message.data for message in held] == [b"0", b"1", b"2"]
    assert [message.metadata.num_delivered for message in held] == [1, 1, 1]
    assert len(late.agent.asked) == 1


async def test_a_callback_waits_for_the_log_and_the_message_is_not_delivered_anew(pair: Pair, stream: str, side: Connect) -> None:
    late = await late_reader(pair, side)
    await written(pair, 1)
    got: list[SecureMsg] = []

    async def handle(message: SecureMsg) -> None:
        got.append(message)

    js = late.nc.jetstream()
    await js.subscribe(f"{pair.root}.o.>", durable="d", cb=handle, config=ConsumerConfig(ack_wait=0.3))
    await asyncio.sleep(1.2)
    assert got == []
    late.agent.readable.set()
    await until(lambda: len(got) == 1)
    assert (got[0].data, got[0].metadata.num_delivered) == (b"0", 1)
    await until_settled(pair, stream, "d")
    await asyncio.sleep(0.5)
    assert len(got) == 1


async def test_what_waits_when_unsubscribing_goes_to_another_consumer_at_once(pair: Pair, stream: str, side: Connect) -> None:
    late = await late_reader(pair, side)
    await written(pair, 3)
    sub = await late.nc.jetstream().pull_subscribe(f"{pair.root}.o.>", durable="d")
    with pytest.raises(nats.errors.TimeoutError):
        await sub.fetch(3, timeout=0.1)
    await sub.unsubscribe()
    other = await pair.bob.nc.jetstream().pull_subscribe_bind("d", stream)
    pair.bob.agent.know()
    assert sorted(message.data or b"" for message in await other.fetch(3)) == [b"0", b"1", b"2"]


async def test_a_rewound_consumer_reads_everything_again_unmarked(pair: Pair, stream: str) -> None:
    payloads = await written(pair, 50)
    js = pair.bob.nc.jetstream()
    for _ in range(2):
        sub = await js.pull_subscribe(f"{pair.root}.o.>", config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL))
        messages = await sub.fetch(50)
        assert [message.data for message in messages] == payloads
        assert not any(message.security.duplicate for message in messages if message.security)


async def test_stored_messages_are_opened_and_refusals_are_raised(pair: Pair, stream: str) -> None:
    await pair.alice.nc.jetstream().publish(f"{pair.root}.o.x", TEXT, headers={"a": "b"})
    await pair.alice.nc.jetstream().publish(f"{pair.root}.m.x", b"42")
    for manager in (pair.bob.nc.jsm(), pair.bob.nc.jetstream()):
        message = await manager.get_msg(stream, 1)
        assert (message.data, message.headers, message.seq) == (TEXT, {"a": "b"}, 1)
        assert message.security is not None
        assert message.security.sender == "agent://acme/alice"
        assert "fox" not in repr(message)
        assert (await manager.get_last_msg(stream, f"{pair.root}.m.x")).data == b"42"
    await put_forged(pair)
    with pytest.raises(Tampered):
        await pair.bob.nc.jsm().get_last_msg(stream, f"{pair.root}.o.x")
    with pytest.raises(nats.js.errors.NotFoundError):
        await pair.bob.nc.jsm().get_msg(stream, 99)


async def test_a_consumer_of_headers_only_hands_over_what_comes(pair: Pair, stream: str) -> None:
    await written(pair, 1)
    sub = await pair.bob.nc.jetstream().pull_subscribe(f"{pair.root}.o.>", config=ConsumerConfig(headers_only=True))
    [message] = await sub.fetch(1)
    assert (message.data, message.security) == (b"", None)
    assert int((message.headers or {})["Nats-Msg-Size"]) > 100


async def test_after_a_restart_of_the_server_the_same_subscriptions_go_on(
    pair: Pair, server: NatsServer, side: Connect, root: str
) -> None:
    writer, reader = await side("alice", server), await side("bob", server)
    js: SecureJetStream = writer.nc.jetstream()
    await js.add_stream(name="S", subjects=[f"{root}.>"])
    pull = await reader.nc.jetstream().pull_subscribe(f"{root}.o.>", durable="d")
    await js.publish(f"{root}.o.x", b"before")
    [message] = await pull.fetch(1)
    await message.ack_sync()
    server.stop()
    server.start()
    payload = await retried(lambda: js.publish(f"{root}.o.x", b"after", timeout=1))
    assert payload.seq == 2
    [message] = await retried(lambda: pull.fetch(1, timeout=1))
    assert message.data == b"after"


async def retried(call: Any) -> Any:
    for _ in range(20):
        try:
            return await call()
        except (nats.errors.Error, BrokerCryptoError):
            await asyncio.sleep(0.05)
    raise AssertionError("it did not come back")


async def test_positions_belong_to_the_stream_as_it_is_after_a_reconnect(pair: Pair, stream: str) -> None:
    await written(pair, 1)
    sub = await pair.bob.nc.jetstream().pull_subscribe(f"{pair.root}.o.>", durable="d")
    identity = sub._receiver._identity
    assert identity is not None
    created = identity.value
    assert created == (await Api(pair.raw).call(f"STREAM.INFO.{stream}"))["created"]
    await sub.fetch(1)
    pair.bob.nc._inner.stats["reconnects"] += 1  # as a reconnect does
    assert not identity.fresh
    identity.value = "stale"
    await written(pair, 1)
    await sub.fetch(1)
    assert identity.value == created


async def test_many_writers_and_readers_lose_and_mix_nothing(pair: Pair, stream: str, side: Connect) -> None:
    js = pair.alice.nc.jetstream()
    sent = {secrets.token_bytes(40) for _ in range(400)}
    readers = [await (await side(name)).nc.jetstream().pull_subscribe(f"{pair.root}.o.>", durable="d") for name in ("bob", "carol")]
    got: list[bytes] = []

    async def read(sub: Any) -> None:
        while len(got) < len(sent):
            try:
                messages = await sub.fetch(32, timeout=0.3)
            except TimeoutError:  # the client's own is one
                continue
            for message in messages:
                got.append(message.data)
                await message.ack()

    async def write(part: list[bytes]) -> None:
        for payload in part:
            await js.publish(f"{pair.root}.o.x", payload)

    listed = list(sent)
    await asyncio.wait_for(asyncio.gather(*(write(listed[at::8]) for at in range(8)), *(read(sub) for sub in readers)), 30)
    assert len(got) == len(sent)
    assert set(got) == sent


async def test_settled_connections_leave_no_task_behind(pair: Pair, stream: str) -> None:
    await written(pair, 5)
    sub = await pair.bob.nc.jetstream().pull_subscribe(f"{pair.root}.o.>")
    await sub.fetch(5)
    await settle(pair.alice.nc)
    names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]  # type: ignore[union-attr]
    assert not [name for name in names if name.startswith(("Outbox", "Receiver", "SecurePull"))]


async def test_a_message_with_a_status_header_is_a_message_and_stops_nobody(pair: Pair, stream: str, side: Connect) -> None:
    skipping = await side("bob", on_failure=Decision.SKIP)
    await pair.raw.jetstream().publish(f"{pair.root}.o.x", b"", headers={"Status": "404"})
    await pair.raw.jetstream().publish(f"{pair.root}.o.x", b"junk", headers={"Status": "999"})
    await pair.alice.nc.jetstream().publish(f"{pair.root}.o.x", TEXT, headers={"Status": "503"})
    sub = await skipping.nc.jetstream().pull_subscribe(f"{pair.root}.o.>", durable="d")
    [message] = await sub.fetch(10)
    assert (message.data, message.headers) == (TEXT, {"Status": "503"})
    await message.ack()
    await until_settled(pair, stream, "d")
    assert [type(error) for error in skipping.agent.judged] == [NotEncrypted, NotEncrypted]


async def test_what_somebody_puts_into_a_pull_inbox_is_not_taken_for_a_message_or_a_status(pair: Pair, stream: str) -> None:
    sub = await pair.bob.nc.jetstream().pull_subscribe(f"{pair.root}.o.>")
    prefix = sub._requests._prefix
    waiting = asyncio.create_task(sub.fetch(5, timeout=5))
    await asyncio.sleep(0.1)
    for number in range(4):
        await pair.raw.publish(f"{prefix}{number}", b"junk")
        await pair.raw.publish(f"{prefix}{number}", b"", headers={"Status": "not a number"})
    await pair.raw.flush()
    assert not waiting.done()
    payloads = await written(pair, 1)
    assert [message.data for message in await waiting] == payloads


async def test_messages_of_a_cancelled_fetch_come_with_the_next_one(pair: Pair, stream: str) -> None:
    config = ConsumerConfig(ack_wait=0.5)
    sub = await pair.bob.nc.jetstream().pull_subscribe(f"{pair.root}.o.>", durable="d", config=config)
    cancelled = asyncio.create_task(sub.fetch(1, timeout=10))
    await asyncio.sleep(0.1)
    cancelled.cancel()
    payloads = await written(pair, 3)
    await asyncio.sleep(1)  # longer than AckWait: what has come is kept alive meanwhile
    messages = await sub.fetch(3) + await sub.fetch(2)
    assert [message.data for message in messages] == payloads
    assert {message.metadata.num_delivered for message in messages} == {1}


async def test_a_fetch_goes_on_over_a_restart_of_the_server(server: NatsServer, side: Connect, root: str) -> None:
    writer, reader = await side("alice", server), await side("bob", server)
    js = writer.nc.jetstream()
    await js.add_stream(name="S", subjects=[f"{root}.>"])
    sub = await reader.nc.jetstream().pull_subscribe(f"{root}.o.>", durable="d")
    waiting = asyncio.create_task(sub.fetch(1, timeout=None))
    await asyncio.sleep(0.1)
    server.stop()
    server.start()
    await retried(lambda: js.publish(f"{root}.o.x", TEXT, timeout=1))
    [message] = await asyncio.wait_for(waiting, 15)
    assert message.data == TEXT


async def test_a_heartbeat_makes_an_empty_fetch_say_that_the_server_was_there(pair: Pair, stream: str) -> None:
    sub = await pair.bob.nc.jetstream().pull_subscribe(f"{pair.root}.o.>")
    with pytest.raises(nats.js.errors.FetchTimeoutError):
        await sub.fetch(1, timeout=1, heartbeat=0.2)


async def test_a_consumer_that_is_gone_is_an_error_not_a_hang(pair: Pair, stream: str) -> None:
    sub = await pair.bob.nc.jetstream().pull_subscribe(f"{pair.root}.o.>", durable="d")
    await pair.raw.jsm().delete_consumer(stream, "d")
    with pytest.raises(nats.errors.Error):
        await sub.fetch(1, timeout=2)


async def test_a_cancelled_next_msg_loses_nothing(pair: Pair, stream: str) -> None:
    sub = await pair.bob.nc.jetstream().subscribe(f"{pair.root}.o.>", durable="d")
    got: list[bytes | None] = []

    async def read() -> None:
        got.append((await sub.next_msg(None)).data)

    writing = asyncio.create_task(written(pair, 200))
    tries = 0
    while len(got) < 200:
        reading = asyncio.create_task(read())
        tries += 1
        for _ in range(tries % 9):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    assert got == await writing


async def test_flow_control_is_answered_while_iterating(pair: Pair, stream: str) -> None:
    js = pair.alice.nc.jetstream()
    for _ in range(300):
        await js.publish(f"{pair.root}.o.x", bytes(50_000))
    sub = await pair.bob.nc.jetstream().subscribe(f"{pair.root}.o.>", flow_control=True, idle_heartbeat=1)
    count = 0
    async for message in sub.messages:
        assert len(message.data or b"") == 50_000
        await message.ack()
        count += 1
        if count == 300:
            break


async def test_an_unsubscribed_or_closed_subscription_ends_for_those_who_wait(pair: Pair, stream: str) -> None:
    js = pair.bob.nc.jetstream()
    one, two = await js.subscribe(f"{pair.root}.o.>"), await js.subscribe(f"{pair.root}.o.>")
    waiting = asyncio.create_task(one.next_msg(None))
    iterating = asyncio.create_task(anext(aiter(two.messages)))
    await asyncio.sleep(0.05)
    await one.unsubscribe()
    with pytest.raises(nats.errors.BadSubscriptionError):
        await asyncio.wait_for(waiting, 2)
    await pair.bob.nc.close()
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(iterating, 2)
    with pytest.raises(nats.errors.ConnectionClosedError):
        await two.next_msg(1)
