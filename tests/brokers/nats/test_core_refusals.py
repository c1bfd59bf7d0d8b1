"""Core NATS: what is refused, sending and receiving, over a real nats-server."""

from __future__ import annotations

import asyncio

import nats.errors
import pytest

from broker_crypto.errors import (
    AgentClosed,
    BadSignature,
    NoPolicy,
    NotBuilt,
    NotEncrypted,
    RecordRefused,
    Relocated,
    UsageError,
)
from broker_crypto.records import Decision
from broker_crypto_nats import SecureMsg
from tests.brokers.nats.support import Connect, Pair, settle

TEXT = b"the quick brown fox"


async def test_a_subject_without_a_rule_is_refused_both_ways_and_nothing_is_sent(pair: Pair) -> None:
    raw = await pair.raw.subscribe(f"{pair.root}.other")
    await settle(pair.raw)
    with pytest.raises(NoPolicy):
        await pair.alice.nc.publish(f"{pair.root}.other", TEXT)
    with pytest.raises(NoPolicy):
        await pair.bob.nc.subscribe(f"{pair.root}.other")
    await settle(pair.alice.nc)
    await settle(pair.raw)
    assert raw.pending_msgs == 0


async def test_a_wildcard_subscription_raises_for_what_no_rule_covers_and_goes_on(pair: Pair) -> None:
    sub = await pair.bob.nc.subscribe(f"{pair.root}.>")
    await settle(pair.bob.nc)
    await pair.raw.publish(f"{pair.root}.stray", b"clear")
    await settle(pair.raw)
    await pair.alice.nc.publish(f"{pair.root}.o.x", TEXT)
    with pytest.raises(NoPolicy):
        await sub.next_msg(5)
    assert (await sub.next_msg(5)).data == TEXT


async def forged(pair: Pair, *, reply: str = "", subject: str | None = None, flip: int | None = None) -> None:
    """A genuine record of Alice, published once more by somebody who is no member."""
    raw = await pair.raw.subscribe(f"{pair.root}.o.genuine")
    await settle(pair.raw)
    await pair.alice.nc.publish(f"{pair.root}.o.genuine", TEXT)
    data = bytearray((await raw.next_msg(5)).data)
    await raw.unsubscribe()
    if flip is not None:
        data[flip] ^= 1
    await pair.raw.publish(subject or f"{pair.root}.o.forged", bytes(data), reply=reply)
    await settle(pair.raw)


async def test_a_raised_refusal_carries_its_message_and_the_next_call_goes_on_behind_it(pair: Pair) -> None:
    sub = await pair.bob.nc.subscribe(f"{pair.root}.o.forged")
    await settle(pair.bob.nc)
    await forged(pair)
    await pair.alice.nc.publish(f"{pair.root}.o.forged", b"good")
    with pytest.raises(Relocated) as refused:
        await sub.next_msg(5)
    message = refused.value.message
    assert isinstance(message, SecureMsg)
    assert (message.data, message.error, message.security, message.subject) == (None, refused.value, None, f"{pair.root}.o.forged")
    assert (await sub.next_msg(5)).data == b"good"
    assert [type(error) for error in pair.bob.agent.judged] == [Relocated]


async def test_iteration_that_raised_goes_on_when_iterated_again(pair: Pair) -> None:
    sub = await pair.bob.nc.subscribe(f"{pair.root}.o.forged")
    await settle(pair.bob.nc)
    await forged(pair)
    await pair.alice.nc.publish(f"{pair.root}.o.forged", b"good")
    iterator = aiter(sub.messages)
    with pytest.raises(Relocated):
        await anext(iterator)
    async for message in sub.messages:
        assert message.data == b"good"
        break


async def test_skip_passes_over_what_is_refused(pair: Pair, side: Connect) -> None:
    skipping = await side("bob", on_failure=Decision.SKIP)
    got: asyncio.Queue[SecureMsg] = asyncio.Queue()
    await skipping.nc.subscribe(f"{pair.root}.o.forged", cb=got.put)
    sub = await skipping.nc.subscribe(f"{pair.root}.o.forged")
    await settle(skipping.nc)
    await forged(pair)
    await forged(pair, subject=f"{pair.root}.o.genuine", flip=60)
    await pair.alice.nc.publish(f"{pair.root}.o.forged", b"good")
    assert (await sub.next_msg(5)).data == b"good"
    assert (await asyncio.wait_for(got.get(), 5)).data == b"good"
    assert got.empty()
    assert {type(error) for error in skipping.agent.judged} == {Relocated}
    assert skipping.errors == []


async def test_in_a_callback_subscription_a_refusal_goes_to_error_cb(pair: Pair) -> None:
    got: asyncio.Queue[SecureMsg] = asyncio.Queue()
    await pair.bob.nc.subscribe(f"{pair.root}.o.*", cb=got.put)
    await settle(pair.bob.nc)
    await forged(pair, subject=f"{pair.root}.o.genuine", flip=-1)
    await pair.alice.nc.publish(f"{pair.root}.o.x", b"good")
    assert (await asyncio.wait_for(got.get(), 5)).data == TEXT
    assert (await asyncio.wait_for(got.get(), 5)).data == b"good"
    assert [type(error) for error in pair.bob.errors] == [BadSignature]


async def test_every_flipped_bit_of_a_record_is_a_typed_refusal(pair: Pair) -> None:
    sub = await pair.bob.nc.subscribe(f"{pair.root}.o.genuine")
    await settle(pair.bob.nc)
    for at in range(20, 130, 10):
        await forged(pair, subject=f"{pair.root}.o.genuine", flip=at)
        assert (await sub.next_msg(5)).data == TEXT
        with pytest.raises(RecordRefused) as refused:
            await sub.next_msg(5)
        assert refused.value.message.data is None


async def test_a_reply_subject_is_sealed_and_another_one_outside_is_refused(pair: Pair) -> None:
    sub = await pair.bob.nc.subscribe(f"{pair.root}.o.>")
    raw = await pair.raw.subscribe(f"{pair.root}.o.>")
    await settle(pair.bob.nc)
    await settle(pair.raw)
    inbox = pair.alice.nc.new_inbox()
    await pair.alice.nc.publish(f"{pair.root}.o.q", TEXT, reply=inbox, headers={"a": "b"})
    asked = await sub.next_msg(5)
    assert (asked.reply, asked.data, asked.headers) == (inbox, TEXT, {"a": "b"})
    record = (await raw.next_msg(5)).data
    for other in ("_INBOX.thief", ""):
        await pair.raw.publish(f"{pair.root}.o.q", record, reply=other)
        await settle(pair.raw)
        with pytest.raises(Relocated):
            await sub.next_msg(5)
    await pair.alice.nc.publish(f"{pair.root}.o.q", TEXT)
    await raw.next_msg(5)
    await raw.next_msg(5)
    unasked = await raw.next_msg(5)
    assert (await sub.next_msg(5)).reply == ""
    await pair.raw.publish(f"{pair.root}.o.q", unasked.data, reply="_INBOX.thief")
    await settle(pair.raw)
    with pytest.raises(Relocated):
        await sub.next_msg(5)


async def test_answering_is_refused_before_anything_is_sent_in_clear(pair: Pair) -> None:
    sub = await pair.bob.nc.subscribe(f"{pair.root}.o.q")
    inbox = pair.raw.new_inbox()
    answers = await pair.raw.subscribe(inbox)
    await settle(pair.bob.nc)
    await settle(pair.raw)
    await pair.alice.nc.publish(f"{pair.root}.o.q", TEXT, reply=inbox)
    asked = await sub.next_msg(5)
    with pytest.raises(NotBuilt):
        await asked.respond(b"secret")
    with pytest.raises(NoPolicy):
        await pair.bob.nc.publish(asked.reply, b"secret")
    with pytest.raises(NotBuilt):
        await pair.alice.nc.request(f"{pair.root}.o.q", b"secret")
    await settle(pair.bob.nc)
    await settle(pair.raw)
    assert answers.pending_msgs == 0


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\rb"])
async def test_a_line_break_in_a_header_is_refused(pair: Pair, value: str) -> None:
    with pytest.raises(nats.errors.BadHeaderError):
        await pair.alice.nc.publish(f"{pair.root}.o.x", TEXT, headers={"a": value})


async def test_headers_that_cannot_be_are_refused_at_the_call(pair: Pair) -> None:
    publish, subject = pair.alice.nc.publish, f"{pair.root}.o.x"
    with pytest.raises(nats.errors.BadHeaderError):
        await publish(subject, TEXT, headers={"a b": "c"})
    with pytest.raises(TypeError):
        await publish(subject, TEXT, headers={"a": ["b"]})  # type: ignore[dict-item]
    with pytest.raises(UsageError):
        await publish(subject, TEXT, headers={"nats-reply-to": "x"})
    with pytest.raises(TypeError):
        await publish(subject, "text")  # type: ignore[arg-type]


async def test_what_the_client_refuses_is_refused_at_the_call(pair: Pair) -> None:
    for subject in (f"{pair.root}.o.a b", f"{pair.root}.o.\r\nPUB"):
        with pytest.raises(nats.errors.BadSubjectError):
            await pair.alice.nc.publish(subject, TEXT)
    await pair.alice.nc.close()
    with pytest.raises(nats.errors.ConnectionClosedError):
        await pair.alice.nc.publish(f"{pair.root}.o.x", TEXT)


async def test_a_status_with_content_is_no_status(pair: Pair) -> None:
    sub = await pair.bob.nc.subscribe(f"{pair.root}.o.x")
    await settle(pair.bob.nc)
    await pair.raw.publish(f"{pair.root}.o.x", b"clear", headers={"Status": "404"})
    await settle(pair.raw)
    with pytest.raises(NotEncrypted):
        await sub.next_msg(5)


@pytest.mark.parametrize("headers", [None, {"x": "y" * 500}, {"traceparent": "z" * 700}])
@pytest.mark.parametrize("topic", ["o", "m"])
async def test_what_is_too_large_with_its_headers_is_refused_and_the_connection_lives(
    pair: Pair, headers: dict[str, str] | None, topic: str
) -> None:
    limit = pair.raw.max_payload
    subject = f"{pair.root}.{topic}.x"
    sub = await pair.bob.nc.subscribe(subject)
    await settle(pair.bob.nc)
    sent, refused = 0, 0
    for size in range(limit - 3000, limit + 100, 40):
        try:
            await pair.alice.nc.publish(subject, bytes(size), headers=headers)
        except nats.errors.MaxPayloadError:
            refused += 1
        else:
            assert len((await sub.next_msg(5)).data or b"") == size
            sent += 1
    assert pair.alice.nc.is_connected
    assert pair.alice.errors == []
    assert sent > 15
    assert refused > 0


async def test_max_payload_is_what_a_sealed_message_can_hold(pair: Pair) -> None:
    await pair.alice.nc.publish(f"{pair.root}.o.x", bytes(pair.alice.nc.max_payload))
    assert pair.alice.nc.max_payload > pair.raw.max_payload - 200


async def test_after_the_agent_is_closed_a_send_is_an_error_at_once(pair: Pair) -> None:
    pair.alice.agent.closed = True
    with pytest.raises(AgentClosed):
        await pair.alice.nc.publish(f"{pair.root}.o.x", TEXT)
