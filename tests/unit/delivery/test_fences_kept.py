"""Who takes a fence over when it is read, how long it is kept, and how the ends of topics are read for one."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from broker_crypto import errors
from broker_crypto.delivery import fences, state
from broker_crypto.delivery.deltas import Delta
from broker_crypto.delivery.log_records import FencedTopic
from broker_crypto.records import EpochView, TopicFacts
from broker_crypto.storage.memory import MemoryStore
from broker_crypto.testing import Crashed, FaultyStore, Moment, crash_at
from tests.support.lies.secret import wrong_commit
from tests.support.world import Actor, same_epoch
from tests.unit.delivery.play import (
    ANY,
    BARRED,
    DAY,
    FROM_10,
    REMOVED,
    gone_before,
    group,
    policy_of,
    rows_of,
)

# --- who reads it -----------------------------------------------------------------------------------------------------


async def test_one_that_is_removed_itself_refuses_what_is_fenced_later() -> None:
    play, [ops, writer, second] = await group("writer-1", "writer-2")
    data = play.seal(writer)
    await play.commit(ops, delta=Delta(bar=(second.own.identity,)))
    await play.settle()
    assert second.state == "removed"
    await play.commit(ops, delta=BARRED, ends=FROM_10)
    await play.settle("writer-1")
    assert second.state == "removed"
    assert play.said(second, data, 9, 10) == [ANY, REMOVED]


async def test_a_member_refuses_its_own_old_records_behind_the_list_that_removes_it() -> None:
    play, [ops, writer] = await group("writer-1")
    data = play.seal(writer)
    await play.commit(ops, delta=BARRED, ends=FROM_10)
    await play.settle()
    assert writer.state == "removed"
    assert play.said(writer, data, 9, 10) == [ANY, REMOVED]


async def test_one_that_is_locked_out_takes_the_fence_that_it_reads_meanwhile() -> None:
    play, [ops, writer, victim] = await group("writer-1", "writer-2")
    data = play.seal(writer)
    chain, mls = writer.loop.member.chain, writer.loop.member.mls
    assert chain is not None
    assert mls is not None
    lie = wrong_commit(mls, chain.time, "path_secret", play.world.random, victim=play.leaf(victim))
    await play.append(lie.record)
    await play.turn(ops)
    await play.commit(ops, delta=BARRED, ends=FROM_10)
    cursor = victim.loop.member.cursor
    assert cursor is not None
    entries = [entry for entry in play.world.broker.entries("orders") if entry.position > cursor.last.position]
    change = victim.loop.memory.follow(entries, "log", victim.own, play.world.clock.now_ms())
    assert change.verdicts == ["locked_out", "commit"]
    assert (change.member.state, len(change.fences)) == ("locked_out", 1)
    await play.settle("writer-1")
    assert play.said(victim, data, 9, 10) == [ANY, REMOVED]


async def test_a_list_that_is_read_in_one_go_with_the_epochs_it_speaks_of_fences_them_too() -> None:
    play, [ops, reader] = await group("reader-1")
    writer = play.actors["writer-1"] = play.world.actor("writer-1")
    await play.settle("reader-1")
    data = play.seal(writer)
    roles = tuple(pair for pair in policy_of(ops).roles if pair[1] != "writer")
    await play.commit(ops, policy=replace(policy_of(ops), roles=(*roles, (writer.own.identity, "reader"))), ends=FROM_10)
    await play.turn(reader)
    assert reader.epoch == writer.epoch + 1
    assert play.said(reader, data, 9, 10) == [ANY, REMOVED]


async def test_a_fence_is_kept_over_a_restart_and_every_rewind_says_the_same() -> None:
    play, [ops, writer, reader] = await group("writer-1", "reader-1")
    data = play.seal(writer)
    await play.commit(ops, delta=BARRED, ends=FROM_10)
    await play.settle("writer-1")
    again = await play.world.again(reader)
    positions = (12, 9, 10, 9, 12, 0)
    expected = [REMOVED, ANY, REMOVED, ANY, REMOVED, ANY]
    assert play.said(reader, data, *positions) == expected
    assert play.said(again, data, *positions) == expected
    await play.commit(ops)
    await play.turn(ops, again)
    assert same_epoch(ops, again)
    assert play.said(again, data, *positions) == expected


async def test_who_joins_later_holds_no_row_for_epochs_it_never_had() -> None:
    play, [ops, writer] = await group("writer-1")
    await play.commit(ops, delta=BARRED, ends=FROM_10)
    await play.settle("writer-1")
    [late] = [play.world.actor("reader-2")]
    await play.world.settle(late, ops)
    assert same_epoch(ops, late)
    assert not late.loop.memory.fences
    assert await rows_of(late) == 0


def views_of(actor: Actor) -> dict[int, EpochView]:
    assert actor.view is not None
    return {view.epoch: view for view in actor.view.epochs.values()}


async def test_views_that_a_fence_says_nothing_of_stay_the_same_objects() -> None:
    play, [ops, first, reader] = await group("writer-1", "reader-1")
    await gone_before(play, "removed", first, reader, ops)
    second = play.actors["writer-2"] = play.world.actor("writer-2")
    await play.settle("writer-1")
    before = views_of(reader)
    await play.commit(ops, remove=[second], ends=FROM_10)
    await play.settle("writer-1", "writer-2")
    after = views_of(reader)
    assert [number for number, view in after.items() if view.fences] == [max(before)]
    assert all(after[number] is view for number, view in before.items() if number != max(before))


# --- how long ---------------------------------------------------------------------------------------------------------


async def test_a_fence_goes_with_the_last_key_of_the_epochs_it_speaks_of() -> None:
    play, [ops, writer, reader] = await group("writer-1", "reader-1")
    data = play.seal(writer)
    play.world.clock.advance(DAY)
    await play.commit(ops)
    await play.settle()
    play.world.clock.advance(DAY)
    await play.commit(ops, delta=BARRED, ends=FROM_10)
    await play.settle("writer-1")
    play.world.clock.advance(6 * DAY + 5)
    await play.turn(reader)
    assert play.said(reader, data, 9) == ["key_expired"]
    assert (len(reader.loop.memory.fences), await rows_of(reader)) == (1, 1)
    play.world.clock.advance(DAY)
    await play.turn(reader)
    assert (len(reader.loop.memory.fences), await rows_of(reader)) == (0, 0)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_crash_at_any_call_leaves_the_fence_with_its_epoch_or_neither(moment: Moment) -> None:
    point = 0
    while True:
        point += 1
        play, [ops, writer, reader] = await group("writer-1", "reader-1")
        data = play.seal(writer)
        before = reader.epoch
        await play.commit(ops, delta=BARRED, ends=FROM_10)
        inner = reader.store
        assert isinstance(inner, MemoryStore)
        try:
            victim = await play.world.again(reader, store=FaultyStore(inner, crash_at(point, moment)))
            await victim.loop.turn()
        except Crashed:
            pass
        else:
            break
        again = await play.world.again(reader, store=inner)
        moved = again.epoch > before
        assert len(again.loop.memory.fences) == int(moved), point
        assert play.said(again, data, 9, 10) == [ANY, REMOVED if moved else ANY]
        await again.loop.turn()
        assert play.said(again, data, 9, 10) == [ANY, REMOVED]
    assert point > 3


async def test_a_crash_while_keys_are_erased_leaves_no_fence_without_keys_after_the_next_start() -> None:
    for point in range(1, 12):
        play, [ops, writer, reader] = await group("writer-1", "reader-1")
        await play.commit(ops, delta=BARRED, ends=FROM_10)
        await play.settle("writer-1")
        play.world.clock.advance(7 * DAY + 5)
        inner = reader.store
        with contextlib.suppress(Crashed):
            victim = await play.world.again(reader, store=FaultyStore(inner, crash_at(point, "before")))
            await victim.loop.turn()
        again = await play.world.again(reader, store=inner)
        await again.loop.turn()
        assert (len(again.loop.memory.fences), await rows_of(again)) == (0, 0), point


async def test_who_has_left_keeps_no_fence() -> None:
    play, [ops, writer, second] = await group("writer-1", "writer-2")
    await play.commit(ops, delta=BARRED, ends=FROM_10)
    await play.settle("writer-1")
    assert await rows_of(second) == 1
    asked = asyncio.ensure_future(second.group.leave())
    for _ in range(20):
        await asyncio.sleep(0)
        await play.turn(second)
    await asked
    assert (len(second.loop.memory.fences), await rows_of(second)) == (0, 0)


async def test_a_fence_says_nothing_of_a_group_that_is_founded_anew_later() -> None:
    play, [ops, writer, reader] = await group("writer-1", "reader-1")
    await play.commit(ops, delta=BARRED, ends=FROM_10)
    await play.settle("writer-1")
    [row] = reader.loop.memory.fences.values()
    epochs = list(reader.loop.memory.epochs.values())
    assert [row.speaks_of(epoch.epoch, epoch.began) for epoch in epochs] == [epoch.epoch <= row.epoch for epoch in epochs]
    assert not any(row.speaks_of(epoch.epoch, row.time + 1) for epoch in epochs)


async def test_a_row_is_what_was_written() -> None:
    play, [ops, writer, reader] = await group("writer-1", "reader-1")
    await play.commit(ops, delta=BARRED, ends=(*FROM_10, FencedTopic("invoices", "", ())))
    await play.settle("writer-1")
    [row] = reader.loop.memory.fences.values()
    assert state.decode_fence(state.encode_fence(row)) == row
    assert (row.epoch, row.topics) == (reader.epoch - 1, (*FROM_10, FencedTopic("invoices", "", ())))


# --- reading the ends ---------------------------------------------------------------------------------------------------


def facts(topic: str, identity: str, ends: dict[int, int]) -> TopicFacts:
    return TopicFacts(topic, identity, ends, None, False)


async def test_the_ends_are_those_of_every_stream_and_a_topic_without_one_has_an_empty_entry() -> None:
    told = {"a": [facts("a", "1", {-1: 5}), facts("a", "2", {-1: 9})], "b": [], "c": [facts("c", "k", {1: 4, 0: 3})]}

    async def describe(topic: str) -> list[TopicFacts]:
        return told[topic]

    assert await fences.read_ends(describe, ("a", "b", "c")) == (
        FencedTopic("a", "1", ((-1, 5),)),
        FencedTopic("a", "2", ((-1, 9),)),
        FencedTopic("b", "", ()),
        FencedTopic("c", "k", ((0, 3), (1, 4))),
    )
    assert await fences.read_ends(describe, ("a", "b", "c"), {"a", "c"}) == (FencedTopic("b", "", ()),)


@pytest.mark.parametrize("fault", [errors.BrokerUnavailable("away"), errors.NoPolicy("unknown"), None], ids=["away", "unknown", "silent"])
async def test_a_topic_whose_ends_cannot_be_read_is_named_unless_it_is_left_out(
    fault: errors.BrokerCryptoError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fences.limits, "ENDS_SECONDS", 0.05)

    async def describe(topic: str) -> list[TopicFacts]:
        if topic == "lost":
            if fault is not None:
                raise fault
            await asyncio.sleep(3600)
        return [facts(topic, "1", {-1: 5})]

    with pytest.raises(errors.BrokerUnavailable) as raised:
        await fences.read_ends(describe, ("orders", "lost"))
    assert raised.value.fields["topic"] == "lost"
    assert await fences.read_ends(describe, ("orders", "lost"), ["lost"]) == (FencedTopic("orders", "1", ((-1, 5),)),)
