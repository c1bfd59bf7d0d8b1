"""JetStream: what consumers refuse, over a real nats-server."""

from __future__ import annotations

import asyncio

import nats.errors
import pytest
from nats.js.api import ConsumerConfig

from broker_crypto.errors import (
    BrokerCryptoError,
    NotAMemberAtEpoch,
    NotBuilt,
    NotEncrypted,
    Relocated,
    Tampered,
)
from broker_crypto.records import Decision
from broker_crypto_nats import SecureMsg
from tests.brokers.nats.support import Connect, Pair, late_reader, put_forged, until, until_settled, written

TEXT = b"the quick brown fox"


async def test_raise_ends_the_list_before_a_refused_record_then_raises_it_then_goes_on(pair: Pair, stream: str) -> None:
    await written(pair, 2)
    await put_forged(pair)
    await written(pair, 2)
    sub = await pair.bob.nc.jetstream().pull_subscribe(f"{pair.root}.o.>", durable="d")
    first = await sub.fetch(10)
    assert [message.data for message in first] == [b"0", b"1"]
    with pytest.raises(Tampered) as refused:
        await sub.fetch(10)
    assert refused.value.message.data is None
    assert refused.value.message.metadata.sequence.stream == 3
    rest = await sub.fetch(10)
    assert [message.data for message in rest] == [b"0", b"1"]
    for message in [*first, *rest]:
        await message.ack_sync()
    assert (await sub.consumer_info()).num_ack_pending == 1  # the refused one
    await refused.value.message.term()
    await until_settled(pair, stream, "d")


async def test_skip_terminates_a_refused_record_and_the_rest_follows(pair: Pair, stream: str, side: Connect) -> None:
    skipping = await side("bob", on_failure=Decision.SKIP)
    await written(pair, 2)
    await put_forged(pair)
    await pair.raw.jetstream().publish(f"{pair.root}.o.x", b"clear")
    await written(pair, 2)
    js = skipping.nc.jetstream()
    sub = await js.pull_subscribe(f"{pair.root}.o.>", durable="d")
    messages = await sub.fetch(10)
    assert [message.data for message in messages] == [b"0", b"1", b"0", b"1"]
    for message in messages:
        await message.ack()
    await until_settled(pair, stream, "d")
    assert [type(error) for error in skipping.agent.judged][1:] == [NotEncrypted]
    got: list[bytes | None] = []

    async def handle(message: SecureMsg) -> None:
        got.append(message.data)

    await js.subscribe(f"{pair.root}.o.>", durable="p", cb=handle)
    await until(lambda: len(got) == 4)
    await until_settled(pair, stream, "p")
    assert skipping.errors == []


async def test_a_batch_of_refused_records_alone_is_no_empty_answer(pair: Pair, stream: str, side: Connect) -> None:
    skipping = await side("bob", on_failure=Decision.SKIP)
    for _ in range(5):
        await pair.raw.jetstream().publish(f"{pair.root}.o.x", b"clear")
    sub = await skipping.nc.jetstream().pull_subscribe(f"{pair.root}.o.>", durable="d")
    waiting = asyncio.create_task(sub.fetch(5, timeout=5))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await written(pair, 1)
    assert [message.data for message in await waiting] == [b"0"]


async def test_a_newcomer_is_told_not_a_member_at_epoch_and_reads_on(pair: Pair, stream: str) -> None:
    await written(pair, 2)
    pair.group.next_epoch()
    for member in (pair.alice, pair.bob):
        member.agent.know()
    await written(pair, 1)
    from dataclasses import replace

    view = pair.group.view("bob")
    first = pair.group.epochs[0].epoch_id
    newcomer = replace(view, epochs={k: v for k, v in view.epochs.items() if k != first}, absent=((0, 1),))
    pair.bob.agent.channels["orders"].view = newcomer  # type: ignore[union-attr]
    sub = await pair.bob.nc.jetstream().pull_subscribe(f"{pair.root}.o.>")
    for _ in range(2):
        with pytest.raises(NotAMemberAtEpoch) as refused:
            await sub.fetch(5)
        await refused.value.message.term()
    assert [message.data for message in await sub.fetch(5)] == [b"0"]


async def test_a_message_put_into_the_deliver_inbox_by_somebody_else_is_refused(pair: Pair, stream: str) -> None:
    await written(pair, 1)
    js = pair.bob.nc.jetstream()
    config = ConsumerConfig(deliver_subject=f"deliver.{pair.root}")
    sub = await js.subscribe(f"{pair.root}.o.>", config=config)
    assert (await sub.next_msg(5)).data == b"0"
    stored = await pair.raw.jetstream().get_msg(stream, 1)
    await pair.raw.publish(f"deliver.{pair.root}", stored.data or b"")
    await pair.raw.flush()
    with pytest.raises(BrokerCryptoError):
        await sub.next_msg(5)
    await written(pair, 1)
    assert (await sub.next_msg(5)).data == b"0"


async def test_a_moved_a_replayed_and_a_tampered_record_are_named_as_such(pair: Pair, stream: str) -> None:
    await written(pair, 1)
    stored = await pair.raw.jetstream().get_msg(stream, 1)
    await pair.raw.jetstream().publish(f"{pair.root}.o.elsewhere", stored.data or b"")
    await pair.raw.jetstream().publish(f"{pair.root}.o.x", stored.data or b"")
    await put_forged(pair)
    sub = await pair.bob.nc.jetstream().pull_subscribe(f"{pair.root}.o.>")
    assert [message.data for message in await sub.fetch(1)] == [b"0"]
    with pytest.raises(Relocated):
        await sub.fetch(1)
    [replayed] = await sub.fetch(1)
    assert replayed.security is not None
    assert replayed.security.duplicate
    with pytest.raises(Tampered):
        await sub.fetch(1)


async def test_empty_data_is_no_record_elsewhere(pair: Pair, stream: str) -> None:
    await pair.raw.jetstream().publish(f"{pair.root}.o.x", b"", headers={"Nats-Msg-Size": "5"})
    sub = await pair.bob.nc.jetstream().pull_subscribe(f"{pair.root}.o.>")
    with pytest.raises(NotEncrypted):
        await sub.fetch(1)


async def test_ordered_consumers_are_not_built(pair: Pair, stream: str) -> None:
    with pytest.raises(NotBuilt):
        await pair.bob.nc.jetstream().subscribe(f"{pair.root}.o.>", ordered_consumer=True)


async def test_while_the_log_is_out_of_reach_nothing_is_refused_and_nothing_skipped(pair: Pair, stream: str, side: Connect) -> None:
    late = await late_reader(pair, side, on_failure=Decision.SKIP)
    late.agent.reachable = False
    await written(pair, 2)
    js = late.nc.jetstream()
    pull = await js.pull_subscribe(f"{pair.root}.o.>", durable="pull", config=ConsumerConfig(ack_wait=0.5))
    got: list[bytes | None] = []

    async def handle(message: SecureMsg) -> None:
        got.append(message.data)

    await js.subscribe(f"{pair.root}.o.>", durable="push", cb=handle, config=ConsumerConfig(ack_wait=0.5))
    for _ in range(2):
        with pytest.raises(nats.errors.TimeoutError):
            await pull.fetch(5, timeout=0.8)
    assert got == []
    assert late.agent.judged == []
    late.agent.reachable = True
    late.agent.readable.set()
    messages = await pull.fetch(5)
    assert [message.data for message in messages] == [b"0", b"1"]
    for message in messages:
        await message.ack()
    await until(lambda: {b"0", b"1"} <= set(got))  # what waited in the client behind the held one may come twice
    await until_settled(pair, stream, "pull")
    await until_settled(pair, stream, "push")
