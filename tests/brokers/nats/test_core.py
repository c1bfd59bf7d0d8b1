"""Core NATS, sealed, over a real nats-server."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import nats.errors
import pytest
from nats.aio.msg import Msg

from broker_crypto.channels.record import read_record
from broker_crypto.errors import (
    GroupNotReady,
)
from broker_crypto_nats import SecureMsg
from tests.brokers.nats.support import Connect, Pair, settle

TEXT = b"the quick brown fox"


async def test_a_callback_gets_the_payload_and_who_sent_it(pair: Pair) -> None:
    got: asyncio.Queue[SecureMsg] = asyncio.Queue()
    await pair.bob.nc.subscribe(f"{pair.root}.o.>", cb=got.put)
    await settle(pair.bob.nc)
    await pair.alice.nc.publish(f"{pair.root}.o.created", TEXT)
    message = await asyncio.wait_for(got.get(), 5)
    assert message.data == TEXT
    assert message.subject == f"{pair.root}.o.created"
    assert message.security is not None
    assert (message.security.sender, message.security.epoch, message.security.duplicate) == ("agent://acme/alice", 1, False)
    assert message.headers is None
    assert message.reply == ""


async def test_next_msg_and_iteration_give_opened_messages_in_order(pair: Pair) -> None:
    one = await pair.bob.nc.subscribe(f"{pair.root}.o.>")
    two = await pair.bob.nc.subscribe(f"{pair.root}.o.*")
    await settle(pair.bob.nc)
    for at in range(300):
        await pair.alice.nc.publish(f"{pair.root}.o.x", b"%d" % at)
    assert [(await one.next_msg(5)).data for _ in range(300)] == [b"%d" % at for at in range(300)]
    seen = []
    async for message in two.messages:
        seen.append(message.data)
        if len(seen) == 300:
            break
    assert seen == [b"%d" % at for at in range(300)]
    with pytest.raises(nats.errors.TimeoutError):
        await one.next_msg(0.01)


async def test_the_broker_sees_no_plaintext_and_no_header_that_is_not_on_the_list(pair: Pair) -> None:
    raw = await pair.raw.subscribe(f"{pair.root}.o.>")
    sub = await pair.bob.nc.subscribe(f"{pair.root}.o.>")
    await settle(pair.raw)
    await settle(pair.bob.nc)
    headers = {"Authorization": "Bearer xyz", "traceparent": "00-ab-cd-01", "X-Tenant": "  spaced  "}
    await pair.alice.nc.publish(f"{pair.root}.o.x", TEXT, headers=headers)
    outside = await raw.next_msg(5)
    assert TEXT not in outside.data
    assert b"Bearer" not in outside.data
    assert outside.data[:2] == b"\xc3\x01"
    assert outside.headers == {"traceparent": "00-ab-cd-01"}
    inside = await sub.next_msg(5)
    assert inside.headers == inside.header == {"Authorization": "Bearer xyz", "traceparent": "00-ab-cd-01", "X-Tenant": "spaced"}


async def test_messages_of_one_turn_share_a_signature_and_a_lone_one_has_its_own(pair: Pair) -> None:
    raw = await pair.raw.subscribe(f"{pair.root}.o.>")
    await settle(pair.raw)
    for at in range(64):
        await pair.alice.nc.publish(f"{pair.root}.o.x", b"%d" % at)
    records = [read_record((await raw.next_msg(5)).data)[1] for _ in range(64)]
    assert len({record.signature for record in records}) == 1
    assert [record.batch_index for record in records] == list(range(64))
    await pair.alice.nc.publish(f"{pair.root}.o.x", b"alone")
    alone = read_record((await raw.next_msg(5)).data)[1]
    assert (alone.batch_index, alone.batch_path) == (0, b"")


async def test_the_order_of_calls_is_the_order_on_the_wire_whatever_the_channel_and_size(pair: Pair) -> None:
    raw = await pair.raw.subscribe(f"{pair.root}.>")
    await settle(pair.raw)
    wanted = []
    for at in range(50):
        kind, size = ("o", "m")[at % 2], (10, 100_000)[at % 5 == 0]
        wanted.append(f"{pair.root}.{kind}.{at}")
        await pair.alice.nc.publish(wanted[-1], b"x" * size)
    assert [(await raw.next_msg(5)).subject for _ in range(50)] == wanted


async def test_flush_sends_what_waits(pair: Pair) -> None:
    raw = await pair.raw.subscribe(f"{pair.root}.o.>")
    await settle(pair.raw)
    await pair.alice.nc.publish(f"{pair.root}.o.x", TEXT)
    await pair.alice.nc.flush()
    assert (await raw.next_msg(5)).subject == f"{pair.root}.o.x"


async def test_a_publisher_that_is_cancelled_takes_no_others_message_with_it(pair: Pair) -> None:
    raw = await pair.raw.subscribe(f"{pair.root}.o.>")
    await settle(pair.raw)

    async def many() -> None:
        for at in range(200):
            await pair.alice.nc.publish(f"{pair.root}.o.x", b"%d" % at)

    victim = asyncio.create_task(many())
    others = [asyncio.create_task(pair.alice.nc.publish(f"{pair.root}.o.other", b"%d" % at)) for at in range(100)]
    await asyncio.sleep(0)
    victim.cancel()
    await asyncio.gather(victim, *others, return_exceptions=True)
    await settle(pair.alice.nc)
    await settle(pair.raw)
    subjects = [(await raw.next_msg(1)).subject for _ in range(raw.pending_msgs)]
    assert subjects.count(f"{pair.root}.o.other") == 100


async def test_plain_topics_pass_and_say_so(pair: Pair) -> None:
    raw = await pair.raw.subscribe(f"{pair.root}.m.>")
    sub = await pair.bob.nc.subscribe(f"{pair.root}.m.>")
    await settle(pair.raw)
    await settle(pair.bob.nc)
    await pair.alice.nc.publish(f"{pair.root}.m.cpu", b"42", headers={"unit": "percent"})
    outside, inside = await raw.next_msg(5), await sub.next_msg(5)
    assert (outside.data, outside.headers) == (b"42", {"unit": "percent"})
    assert (inside.data, inside.headers) == (b"42", {"unit": "percent"})
    assert inside.security is not None
    assert (inside.security.channel, inside.security.sender) == ("plain", None)


async def test_the_servers_own_subjects_pass_without_a_policy(pair: Pair) -> None:
    nc = pair.alice.nc
    inbox = nc.new_inbox()
    answers = await nc.subscribe(inbox)
    await nc.publish("$JS.API.INFO", b"", reply=inbox)
    answer = await answers.next_msg(5)
    assert b"account_info_response" in (answer.data or b"")
    assert answer.security is None
    assert b"account_info" in (await nc.request("$JS.API.INFO")).data
    pings = await pair.bob.nc.subscribe("$SRV.PING")
    await settle(pair.bob.nc)
    await pair.alice.nc.publish("$SRV.PING", b"", reply=inbox)
    ping = await pings.next_msg(5)
    await ping.respond(b"pong")
    assert (await answers.next_msg(5)).data == b"pong"


async def test_a_status_message_reaches_the_caller_unchanged(pair: Pair) -> None:
    nc = pair.alice.nc
    inbox = nc.new_inbox()
    answers = await nc.subscribe(inbox)
    await nc.publish("$SRV.NOBODY", b"", reply=inbox)
    status = await answers.next_msg(5)
    plain_inbox = pair.raw.new_inbox()
    plain = await pair.raw.subscribe(plain_inbox)
    await pair.raw.publish("$SRV.NOBODY", b"", reply=plain_inbox)
    assert status.headers == (await plain.next_msg(5)).headers
    assert status.headers is not None
    assert status.headers["Status"] == "503"
    assert (status.data, status.security) == (b"", None)
    with pytest.raises(nats.errors.NoRespondersError):
        await nc.request("$SRV.NOBODY")


async def test_a_record_of_an_epoch_not_read_yet_is_waited_for_and_overtaken_by_none(pair: Pair, side: Connect) -> None:
    late = await side("bob", upto=1)
    pair.group.next_epoch()
    pair.alice.agent.know()
    late.agent.readable.clear()
    sub = await late.nc.subscribe(f"{pair.root}.o.>")
    got: asyncio.Queue[SecureMsg] = asyncio.Queue()
    await late.nc.subscribe(f"{pair.root}.o.>", cb=got.put)
    await settle(late.nc)
    for at in range(5):
        await pair.alice.nc.publish(f"{pair.root}.o.x", b"%d" % at)
    await settle(pair.alice.nc)
    for _ in range(3):
        with pytest.raises(nats.errors.TimeoutError):
            await sub.next_msg(0.05)
    cancelled = asyncio.create_task(sub.next_msg(10))
    await asyncio.sleep(0.05)
    cancelled.cancel()
    assert got.empty()
    late.agent.readable.set()
    assert [(await sub.next_msg(5)).data for _ in range(5)] == [b"%d" % at for at in range(5)]
    assert [(await asyncio.wait_for(got.get(), 5)).data for _ in range(5)] == [b"%d" % at for at in range(5)]
    assert late.errors == []


async def test_a_log_that_cannot_be_read_raises_and_the_message_is_still_there_later(pair: Pair, side: Connect) -> None:
    late = await side("bob", upto=1)
    pair.group.next_epoch()
    pair.alice.agent.know()
    sub = await late.nc.subscribe(f"{pair.root}.o.>")
    await settle(late.nc)
    await pair.alice.nc.publish(f"{pair.root}.o.x", TEXT)
    whole = late.agent.catch_up

    async def out_of_reach(behind: Any) -> None:
        raise GroupNotReady("the log is out of reach")

    late.agent.catch_up = out_of_reach  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(GroupNotReady):
            await sub.next_msg(5)
    late.agent.catch_up = whole  # type: ignore[method-assign]
    assert (await sub.next_msg(5)).data == TEXT


async def test_a_group_that_is_not_ready_is_waited_for(pair: Pair) -> None:
    sub = await pair.bob.nc.subscribe(f"{pair.root}.o.>")
    await settle(pair.bob.nc)
    pair.alice.agent.pause()
    sending = asyncio.create_task(pair.alice.nc.publish(f"{pair.root}.o.x", TEXT))
    await asyncio.sleep(0.05)
    assert not sending.done()
    pair.alice.agent.go()
    await sending
    assert (await sub.next_msg(5)).data == TEXT


async def test_unsubscribe_with_a_limit_hands_all_of_them_to_the_callback(pair: Pair) -> None:
    got: list[bytes | None] = []

    async def slow(message: SecureMsg) -> None:
        await asyncio.sleep(0.005)
        got.append(message.data)

    sub = await pair.bob.nc.subscribe(f"{pair.root}.o.>", cb=slow)
    await sub.unsubscribe(limit=5)
    await settle(pair.bob.nc)
    for at in range(9):
        await pair.alice.nc.publish(f"{pair.root}.o.x", b"%d" % at)
    await settle(pair.alice.nc)
    await asyncio.sleep(0.2)
    assert got == [b"%d" % at for at in range(5)]


async def test_leaving_an_iteration_early_only_ends_the_subscription(pair: Pair) -> None:
    sub = await pair.bob.nc.subscribe(f"{pair.root}.o.>")
    await settle(pair.bob.nc)
    for _ in range(10):
        await pair.alice.nc.publish(f"{pair.root}.o.x", TEXT)
    async for _ in sub.messages:
        break
    await sub.unsubscribe()
    again = await pair.bob.nc.subscribe(f"{pair.root}.o.>")
    await settle(pair.bob.nc)
    await pair.alice.nc.publish(f"{pair.root}.o.x", b"again")
    assert (await again.next_msg(5)).data == b"again"


async def test_drain_hands_out_what_has_come_and_closes(pair: Pair) -> None:
    got: list[bytes | None] = []

    async def slow(message: SecureMsg) -> None:
        await asyncio.sleep(0.002)
        got.append(message.data)

    await pair.bob.nc.subscribe(f"{pair.root}.o.>", cb=slow)
    await settle(pair.bob.nc)
    for at in range(30):
        await pair.alice.nc.publish(f"{pair.root}.o.x", b"%d" % at)
    await pair.alice.nc.drain()  # what waits goes out first
    for _ in range(100):
        if len(got) == 30:
            break
        await asyncio.sleep(0.01)
    await pair.bob.nc.drain()
    assert got == [b"%d" % at for at in range(30)]
    assert pair.bob.nc.is_closed
    assert pair.bob.nc.closed
    assert pair.bob.agent.attached == pair.alice.agent.attached == []


async def test_close_sends_what_waits_and_may_be_called_again(pair: Pair) -> None:
    raw = await pair.raw.subscribe(f"{pair.root}.o.>")
    await settle(pair.raw)
    async with pair.alice.nc as nc:
        await nc.publish(f"{pair.root}.o.x", TEXT)
    assert (await raw.next_msg(5)).subject == f"{pair.root}.o.x"
    await pair.alice.nc.close()


async def test_two_workers_of_a_queue_group_share_the_messages_and_both_open(pair: Pair, side: Connect) -> None:
    got: list[tuple[str, bytes | None]] = []
    for name in ("bob", "carol"):
        worker = await side(name)

        async def take(message: SecureMsg, name: str = name) -> None:
            got.append((name, message.data))

        await worker.nc.subscribe(f"{pair.root}.o.>", queue="workers", cb=take)
        await settle(worker.nc)
    for at in range(60):
        await pair.alice.nc.publish(f"{pair.root}.o.x", b"%d" % at)
    for _ in range(100):
        if len(got) == 60:
            break
        await asyncio.sleep(0.01)
    assert sorted(int(data or b"") for _, data in got) == list(range(60))
    assert {name for name, _ in got} == {"bob", "carol"}


async def test_a_message_shows_no_data_in_its_repr(pair: Pair) -> None:
    sub = await pair.bob.nc.subscribe(f"{pair.root}.o.>")
    await settle(pair.bob.nc)
    await pair.alice.nc.publish(f"{pair.root}.o.x", TEXT, headers={"a": "hidden value"})
    message = await sub.next_msg(5)
    assert "fox" not in repr(message)
    assert "hidden" not in repr(message)
    assert message.subject in repr(message)


async def test_a_message_has_the_names_of_the_clients_own(pair: Pair) -> None:
    sub = await pair.bob.nc.subscribe(f"{pair.root}.o.>")
    await settle(pair.bob.nc)
    await pair.alice.nc.publish(f"{pair.root}.o.x", TEXT)
    message = await sub.next_msg(5)
    assert message.sid > 0
    assert message.is_acked is False
    assert message.Ack is Msg.Ack
    with pytest.raises(nats.errors.NotJSMessageError):
        await message.ack()
    with pytest.raises(nats.errors.NotJSMessageError):
        _ = message.metadata


async def test_a_sealing_connection_can_be_a_key_and_be_held_weakly(pair: Pair) -> None:
    known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary({pair.alice.nc: 1})
    assert known[pair.alice.nc] == 1
    sub = await pair.bob.nc.subscribe(f"{pair.root}.o.>")
    await settle(pair.bob.nc)
    await pair.alice.nc.publish(f"{pair.root}.o.x", TEXT)
    held = weakref.ref(await sub.next_msg(5))
    gc.collect()
    assert held() is None


async def test_core_messages_have_no_place_so_a_second_sight_is_marked(pair: Pair) -> None:
    sub = await pair.bob.nc.subscribe(f"{pair.root}.o.>")
    raw = await pair.raw.subscribe(f"{pair.root}.o.>")
    await settle(pair.bob.nc)
    await settle(pair.raw)
    await pair.alice.nc.publish(f"{pair.root}.o.x", TEXT)
    record = (await raw.next_msg(5)).data
    await pair.raw.publish(f"{pair.root}.o.x", record)
    await settle(pair.raw)
    marks = [(await sub.next_msg(5)).security for _ in range(2)]
    assert [mark.duplicate for mark in marks if mark] == [False, True]
    other = await pair.bob.nc.subscribe(f"{pair.root}.o.>")
    await settle(pair.bob.nc)
    await pair.alice.nc.publish(f"{pair.root}.o.x", TEXT)
    first = (await other.next_msg(5)).security
    assert first is not None
    assert not first.duplicate  # another subscription has seen it too; that is no second sight


async def test_unsubscribe_with_a_limit_ends_an_iteration_after_all_of_them(pair: Pair) -> None:
    sub = await pair.bob.nc.subscribe(f"{pair.root}.o.>")
    await sub.unsubscribe(limit=5)
    await settle(pair.bob.nc)
    for at in range(9):
        await pair.alice.nc.publish(f"{pair.root}.o.x", b"%d" % at)
    got = []
    async with asyncio.timeout(5):
        async for message in sub.messages:
            got.append(message.data)
    assert got == [b"%d" % at for at in range(5)]


async def test_a_subscription_of_a_few_messages_ends_by_itself(pair: Pair) -> None:
    sub = await pair.bob.nc.subscribe(f"{pair.root}.o.>", max_msgs=2)
    await settle(pair.bob.nc)
    for at in range(2):
        await pair.alice.nc.publish(f"{pair.root}.o.x", b"%d" % at)
    async with asyncio.timeout(5):
        assert [message.data async for message in sub.messages] == [b"0", b"1"]


async def test_what_has_come_is_read_after_a_drain(pair: Pair) -> None:
    sub = await pair.bob.nc.subscribe(f"{pair.root}.o.>")
    await settle(pair.bob.nc)
    for at in range(20):
        await pair.alice.nc.publish(f"{pair.root}.o.x", b"%d" % at)
    assert (await sub.next_msg(5)).data == b"0"
    draining = asyncio.create_task(sub.drain())
    async with asyncio.timeout(5):
        assert [message.data async for message in sub.messages] == [b"%d" % at for at in range(1, 20)]
    await draining
