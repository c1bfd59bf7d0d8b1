"""Records of epochs that a reader has not read of yet, or never will."""

from __future__ import annotations

import asyncio
import secrets
import time

import pytest
from nats.aio.client import Client

from broker_crypto import errors
from broker_crypto.records import Refused
from tests.support.agents import Cast, Realm, number_of, take, together, until
from tests.support.held_log import Hand, held


async def test_a_record_of_an_epoch_that_nobody_has_told_the_reader_of_makes_it_read_the_group_log(
    realm: Realm, cast: Cast, raw: Client
) -> None:
    await realm.stream(raw)
    hand = Hand()
    ops = await cast("ops")
    reader = await cast("reader-1", connection=held(hand))
    await together(ops, reader)
    subscription = await reader.reader()
    hand.muffled = True
    for number in range(3):
        before = reader.group.epoch
        await ops.group.rotate()
        await ops.publish(number)
        (message,) = await take(subscription, 1)
        assert (number_of(message.data), message.security.epoch) == (number, before + 1)
        assert reader.group.epoch == before + 1
    assert not reader.of(Refused)


@pytest.mark.parametrize("push", [False, True], ids=["pull", "push"])
async def test_a_record_whose_epoch_cannot_be_looked_up_is_held_and_not_refused(realm: Realm, cast: Cast, raw: Client, push: bool) -> None:
    await realm.stream(raw)
    hand = Hand()
    policy = realm.policy(lambda m: m["defaults"].update(epoch_wait="1s"))
    ops = await cast("ops", policy)
    reader = await cast("reader-1", policy, connection=held(hand))
    await together(ops, reader)
    hand.muffled = hand.away = True
    subject = f"{realm.root}.o.>"
    sub = await (reader.js.subscribe(subject, durable="d") if push else reader.js.pull_subscribe(subject, durable="d"))
    await ops.group.rotate()
    await ops.publish(1)

    async def one():  # type: ignore[no-untyped-def]
        return await sub.next_msg(2) if push else (await sub.fetch(1, timeout=2))[0]

    with pytest.raises((errors.BrokerUnavailable, TimeoutError)):
        await one()
    hand.muffled = hand.away = False
    end = time.monotonic() + 20
    while True:
        try:
            message = await one()
            break
        except (errors.BrokerUnavailable, TimeoutError):
            assert time.monotonic() < end
    assert number_of(message.data) == 1
    await message.ack()
    assert not reader.of(Refused)


async def test_an_epoch_that_is_nowhere_in_the_log_is_looked_for_once_and_other_records_flow(realm: Realm, cast: Cast, raw: Client) -> None:
    js = await realm.stream(raw)
    ops, reader = await cast.all("ops", "reader-1")
    await ops.publish(1)
    genuine = (await js.get_msg(realm.topic, 1)).data
    epoch_at = 10  # behind the marker: one byte of epoch (zigzag), sixteen of its id
    invented = genuine[:epoch_at] + bytes((2 * 9,)) + secrets.token_bytes(16) + genuine[epoch_at + 17 :]
    for _ in range(20):
        await js.publish(f"{realm.root}.o.x", invented)
    await ops.publish(2)
    subscription = await reader.reader()
    assert [number_of(m.data) for m in await take(subscription, 1)] == [1]
    for _ in range(20):
        with pytest.raises(errors.EpochNotReached) as caught:
            await asyncio.wait_for(subscription.fetch(1), 5)
        await caught.value.message.term()
    assert [number_of(m.data) for m in await take(subscription, 1)] == [2]


async def test_a_record_under_another_id_of_the_current_epoch_is_refused_and_the_group_goes_on(
    realm: Realm, cast: Cast, raw: Client
) -> None:
    js = await realm.stream(raw)
    ops, reader = await cast.all("ops", "reader-1")
    await ops.publish(1)
    genuine = (await js.get_msg(realm.topic, 1)).data
    await js.publish(f"{realm.root}.o.x", genuine[:11] + secrets.token_bytes(16) + genuine[27:])
    subscription = await reader.reader()
    await take(subscription, 1)
    with pytest.raises(errors.UnknownEpoch) as caught:
        await subscription.fetch(1)
    await caught.value.message.term()
    await ops.group.rotate()
    await together(ops, reader)
    await ops.publish(2)
    assert [number_of(m.data) for m in await take(subscription, 1)] == [2]
    await until(lambda: reader.agent.health().ok)
