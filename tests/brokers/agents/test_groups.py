"""How members agree on a real broker: at once, in a crowd, alone, behind, from nothing."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from nats.aio.client import Client
from nats.js.api import ConsumerConfig

from broker_crypto import errors
from broker_crypto.records import EpochChanged, Joined
from tests.support.agents import Cast, Member, Realm, ended, number_of, take, together, until, uri
from tests.support.held_log import Hand, held


async def records_of(realm: Realm, raw: Client) -> int:
    """How many records the group's log holds."""
    info = await raw.jetstream().stream_info("BC_GROUPS", subjects_filter=f"_bc.group.{realm.topic}")
    return sum((info.state.subjects or {}).values())


async def test_two_founders_at_once_end_in_one_group(realm: Realm, cast: Cast, raw: Client) -> None:
    both = realm.policy(lambda m: m["groups"][realm.topic]["roles"].update(admin=[uri("ops"), uri("chief")]))
    hand = Hand()
    hand.wanted = 2
    kind = held(hand)
    ops, chief = await asyncio.gather(*(cast(name, both, connection=kind) for name in ("ops", "chief")))
    await together(ops, chief)
    assert hand.lost == 1
    assert sorted(e.founded for m in (ops, chief) for e in m.of(Joined)) == [False, True]
    assert {member.identity for member in ops.group.members} == {uri("ops"), uri("chief")}
    assert await records_of(realm, raw) == 2, "one founding, one joining"


async def test_twenty_rounds_of_three_committing_at_once_end_equal_and_lose_no_intent(realm: Realm, cast: Cast) -> None:
    hand = Hand()
    members = [await cast(name, connection=held(hand)) for name in ("ops", "writer-1", "reader-1")]
    await together(*members)
    lost_before, epoch = hand.lost, members[0].group.epoch
    for _ in range(20):
        hand.wanted = 3
        await asyncio.gather(*(member.group.rotate() for member in members))
        await together(*members)
    assert hand.lost - lost_before >= 20, "in each round two of three lost the first race"
    assert [member.group.intents for member in members] == [(), (), ()]
    assert members[0].group.epoch == epoch + 60
    committers = [e.committer for e in members[0].of(EpochChanged)[-60:]]
    assert {name: committers.count(name) for name in committers} == {uri(m.name): 20 for m in members}


async def test_thirty_agents_in_four_processes_started_at_once_are_all_in(
    realm: Realm, raw: Client, record_property: pytest.RecordProperty
) -> None:
    names = ["ops", *(f"writer-{n}" for n in range(14)), *(f"reader-{n}" for n in range(15))]
    processes = [realm.process(*names[n::4]) for n in range(4)]
    async with ended(*processes):
        await asyncio.gather(*(process.start() for process in processes))
        for process in processes:
            process.tell("ready", timeout=60)
        await asyncio.gather(*(process.answer(60) for process in processes))
        events = [event for process in processes for event in process.events]
        joined = {e["name"]: e["at"] for e in events if e["event"] == "joined"}
        assert joined.keys() == set(names)
        last_start = max(e["at"] for e in events if e["event"] == "started")
        seconds = max(joined.values()) - last_start
        record_property("seconds_from_the_last_start", seconds)
        print(f"thirty agents were in {seconds:.1f} s after the last of them had started")
        assert seconds < 30
        end = time.monotonic() + 20
        while True:
            answers = await asyncio.gather(*(process.ask("ready") for process in processes))
            states = [state for answer in answers for state in answer["all"]]
            if len({(s["epoch"], s["mark"]) for s in states}) == 1:
                break
            assert time.monotonic() < end, states
        assert {(s["state"], s["members"]) for s in states} == {("member", 30)}
        assert len({s["leaf"] for s in states}) == 30


async def test_members_killed_at_random_under_load_are_back_each_time_and_readers_lose_nothing(realm: Realm, raw: Client) -> None:
    await realm.stream(raw)
    rng = random.Random(20)
    writer, keeper = realm.process("ops"), realm.process("reader-0")
    victims = [writer, realm.process("reader-1"), realm.process("reader-2")]
    readers = [keeper, *victims[1:]]
    async with ended(keeper, *victims):
        leaves = {}
        for process in (keeper, *victims):
            await process.start()
            leaves[process] = (await process.ask("ready"))["leaf"]
        for process in readers:
            await process.ask("read")
        await writer.ask("write")
        for number in range(20):
            victim = rng.choice(victims)
            if number % 2:
                victim.tell("rotate")  # killed before, in or behind its commit
            await asyncio.sleep(rng.random() * 0.1)
            await victim.kill()
            await victim.start()
            back = await victim.ask("ready")
            assert back["leaf"] == leaves[victim]
            assert back["members"] == 4
            await victim.ask("write" if victim is writer else "read")
        sent = (await writer.ask("pause"))["sent"]
        assert sent > 500
        for process in readers:
            report = await process.report_of(sent)
            assert (report["read"], report["highest"], report["wrong_sender"], report["refused"]) == (sent, sent - 1, 0, {})
        states = [await process.ask("ready") for process in (keeper, *victims)]
        assert len({(state["epoch"], state["mark"]) for state in states}) == 1


async def test_a_reader_500_records_and_10_epochs_behind_reads_everything(realm: Realm, cast: Cast, raw: Client) -> None:
    await realm.stream(raw)
    ops, writer = await cast.all("ops", "writer-1")
    async with realm.agent("reader-1") as reader:
        await reader.ready()
        epoch = reader.group.epoch
        await reader.reader("behind")
    await until(lambda: ops.group.epoch == writer.group.epoch == epoch)
    for number in range(10):
        await ops.publish(*range(number * 50, number * 50 + 25))
        await writer.publish(*range(number * 50 + 25, number * 50 + 50))
        await (ops, writer)[number % 2].group.rotate()
        await together(ops, writer)
    assert ops.group.epoch == epoch + 10
    reader = await cast("reader-1")
    messages = await take(await reader.reader("behind"), 500)
    assert sorted(number_of(m.data) for m in messages) == list(range(500))
    assert {m.security.epoch for m in messages} == set(range(epoch, epoch + 10))
    assert reader.group.epoch == epoch + 10
    later = await take(await reader.reader("created-later"), 500)
    assert [m.security.record_id for m in later] == [m.security.record_id for m in messages]
    assert not reader.metrics.value("records_refused_total")


async def test_what_comes_again_after_ack_wait_opens_again(realm: Realm, cast: Cast, raw: Client) -> None:
    await realm.stream(raw)
    ops, reader = await cast.all("ops", "reader-1")
    await ops.publish(*range(20))
    subscription = await reader.reader("slow", config=ConsumerConfig(ack_wait=0.5))
    first = await subscription.fetch(20, timeout=5)
    await asyncio.sleep(0.7)
    again = await take(subscription, 20)
    assert [m.data for m in again] == [m.data for m in first]
    assert {m.metadata.num_delivered for m in again} == {2}
    assert not any(m.security.duplicate for m in again), "the same position is no duplicate"
    assert not reader.metrics.value("records_refused_total")


async def test_a_member_whose_state_folder_is_deleted_is_back_with_its_old_key_and_one_leaf(realm: Realm, cast: Cast, raw: Client) -> None:
    await realm.stream(raw)
    ops = await cast("ops")
    async with realm.agent("writer-1") as writer:
        await writer.ready()
        epoch = writer.group.epoch
        await writer.publish(1)
    realm.forget("writer-1")
    again = await cast("writer-1")
    await together(ops, again)
    assert again.group.epoch == epoch + 1
    assert [m.identity for m in ops.group.members].count(uri("writer-1")) == 1
    await again.publish(2)
    messages = await take(await ops.reader(), 2)
    assert [m.security.sender for m in messages] == [uri("writer-1")] * 2
    with pytest.raises(errors.NotAMemberAtEpoch):
        await (await again.reader()).fetch(1)


async def test_a_newcomer_joins_while_nobody_else_is_online(realm: Realm, cast: Cast, raw: Client) -> None:
    await realm.stream(raw)
    async with realm.agent("ops") as ops:
        await ops.ready()
    alone: Member = await cast("writer-1")
    assert len(alone.group.members) == 2
    await alone.publish(7)
    ops = await cast("ops")
    (message,) = await take(await ops.reader(), 1)
    assert (number_of(message.data), message.security.sender) == (7, uri("writer-1"))


async def test_a_member_that_was_away_while_somebody_joined_seals_for_the_newcomer_at_once(realm: Realm, raw: Client, cast: Cast) -> None:
    await realm.stream(raw)
    async with realm.agent("ops") as ops:
        await ops.ready()
    reader = await cast("reader-1")
    again = await cast("ops", ready=False)
    await again.publish(1)  # waits by itself; sealed in an epoch that the newcomer is in
    (message,) = await take(await reader.reader("r"), 1)
    assert (number_of(message.data), message.security.epoch) == (1, reader.group.epoch)
