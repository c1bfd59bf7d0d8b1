"""A removed member that kept its whole state writes on with its old keys: nobody takes it, now or later, and what it wrote before opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from broker_crypto import errors
from broker_crypto.delivery.deltas import Delta
from broker_crypto.records import Refused
from tests.support.agents import Cast, Member, Realm, nothing_more, number_of, take, together, until, uri
from tests.support.old_state import OldState

WRITER = uri("writer-1")


def skipping(realm: Realm) -> Path:
    """What is refused is passed over and told, so that a reader shows all that it takes."""

    def change(mapping: dict[str, Any]) -> None:
        mapping["topics"][0]["on_failure"] = "skip"

    return realm.policy(change)


async def seen(member: Member, count: int, *, refused: int, durable: str | None = None) -> tuple[list[int], list[tuple[str, int]]]:
    """What a consumer of the whole stream gets from its beginning: numbers, and (code, position) of what is refused."""
    told = len(member.of(Refused))
    consumer = await member.reader(durable)
    numbers = [number_of(message.data) for message in await take(consumer, count)]
    assert await nothing_more(consumer)  # what is refused behind the last of them is met here
    assert len(member.of(Refused)) == told + refused
    await consumer.unsubscribe()
    return numbers, [(event.code, event.position) for event in member.of(Refused)[told:]]


async def stopped(member: Member) -> None:
    await member.nc.close()
    await member.agent.close()


async def test_nothing_of_a_removed_member_is_taken_behind_the_fence_by_any_reader_at_any_time(
    realm: Realm, cast: Cast, raw: Client
) -> None:
    await realm.stream(raw)
    policy = skipping(realm)
    ops, writer, second, reader, late = await cast.all("ops", "writer-1", "writer-2", "reader-1", "reader-2", policy=policy)
    for number in (1, 2, 3):
        await writer.publish(number)
    await second.publish(4)
    await stopped(late)  # a member of the old epoch, which reads nothing of the removal until it comes back
    old = OldState(realm, "writer-1")
    assert await old.publish(raw, 5) == [5]  # in time
    await ops.group.remove(WRITER)
    await together(ops, second, reader)
    await until(lambda: writer.group.state == "removed", "it reads its removal")
    with pytest.raises(errors.NotAMember):
        await writer.publish(6)
    forged = await old.publish(raw, 100, 101)
    replayed = await raw.jetstream().publish(f"{realm.root}.o.x", (await raw.jetstream().get_msg(realm.topic, 1)).data or b"")
    await second.publish(7)
    expected = [1, 2, 3, 4, 5, 7], [("removed_sender", position) for position in (*forged, replayed.seq)]
    assert forged[0] == 6  # the very position of the fence
    for member in (ops, second, reader):
        assert await seen(member, 6, refused=3) == expected
    assert await seen(reader, 6, refused=3) == expected  # a rewind
    assert await seen(reader, 6, refused=3, durable="later") == expected
    late = await cast("reader-2", policy)
    assert await seen(late, 6, refused=3) == expected
    await stopped(reader)
    reader = await cast("reader-1", policy)
    assert await seen(reader, 6, refused=3) == expected
    again = await old.publish(raw, 102)
    await ops.group.rotate()
    await together(ops, second, reader, late)
    assert await seen(late, 6, refused=4) == (expected[0], [*expected[1], ("removed_sender", again[0])])


async def test_a_removed_member_reads_nothing_that_is_sealed_after_its_removal_and_what_was_before_as_ever(
    realm: Realm, cast: Cast, raw: Client
) -> None:
    await realm.stream(raw)
    ops, writer, reader = await cast.all("ops", "writer-1", "reader-1", policy=skipping(realm))
    await ops.publish(1)
    old = OldState(realm, "writer-1")
    await ops.group.remove(WRITER)
    await together(ops, reader)
    await until(lambda: writer.group.state == "removed", "it reads its removal")
    await ops.publish(2)
    await ops.group.rotate()
    await ops.publish(3)
    assert await seen(writer, 1, refused=2) == ([1], [("not_a_member_at_epoch", 2), ("not_a_member_at_epoch", 3)])
    assert await seen(reader, 3, refused=0) == ([1, 2, 3], [])
    sealed = [(await raw.jetstream().get_msg(realm.topic, position)).data or b"" for position in (1, 2, 3)]
    assert await old.opened(sealed) == ["opened", "epoch_not_reached", "epoch_not_reached"]


async def test_an_old_record_of_one_that_may_no_longer_write_is_refused_behind_the_fence_and_it_reads_on(
    realm: Realm, cast: Cast, raw: Client
) -> None:
    await realm.stream(raw)
    ops, writer, reader = await cast.all("ops", "writer-1", "reader-1", policy=skipping(realm))
    await writer.publish(1)
    old = OldState(realm, "writer-1")
    await ops.group.change(Delta(drop_roles=((uri("writer-*"), "writer"),), add_roles=((WRITER, "reader"),)))
    await together(ops, writer, reader)
    with pytest.raises(errors.MayNotWrite):
        await writer.publish(2)
    forged = await old.publish(raw, 100)
    await ops.publish(3)
    for member in (ops, writer, reader):
        assert await seen(member, 2, refused=1) == ([1, 3], [("removed_sender", forged[0])])


async def test_one_that_left_is_fenced_when_it_is_barred_although_no_leaf_of_it_is_there(realm: Realm, cast: Cast, raw: Client) -> None:
    await realm.stream(raw)
    ops, writer, reader = await cast.all("ops", "writer-1", "reader-1", policy=skipping(realm))
    await writer.publish(1)
    old = OldState(realm, "writer-1")
    await writer.group.leave()
    await until(lambda: WRITER not in {member.identity for member in ops.group.members}, "its leaf goes")
    await ops.group.remove(WRITER)
    await together(ops, reader)
    forged = await old.publish(raw, 100)
    await ops.publish(2)
    for member in (ops, reader):
        assert await seen(member, 2, refused=1) == ([1, 2], [("removed_sender", forged[0])])


async def test_a_stream_that_is_made_anew_takes_nothing_of_a_removed_member_at_any_position(realm: Realm, cast: Cast, raw: Client) -> None:
    js = await realm.stream(raw)
    ops, writer, reader = await cast.all("ops", "writer-1", "reader-1", policy=skipping(realm))
    await writer.publish(1, 2, 3)
    old = OldState(realm, "writer-1")
    kept = (await js.get_msg(realm.topic, 1)).data or b""
    await ops.group.remove(WRITER)
    await together(ops, reader)
    await js.delete_stream(realm.topic)
    await realm.stream(raw)
    await js.publish(f"{realm.root}.o.x", kept)
    assert await old.publish(raw, 100) == [2]
    await ops.publish(4)
    assert await seen(reader, 1, refused=2) == ([4], [("removed_sender", 1), ("removed_sender", 2)])


async def test_on_core_nats_a_removed_member_is_refused_from_the_moment_its_removal_is_read(realm: Realm, cast: Cast, raw: Client) -> None:
    ops, _, reader = await cast.all("ops", "writer-1", "reader-1")
    old, subject = OldState(realm, "writer-1"), f"{realm.root}.o.x"
    subscription = await reader.nc.subscribe(subject)
    await reader.nc.flush()
    [before, behind] = await old.records(1, 100)
    await raw.publish(subject, before)
    assert number_of((await subscription.next_msg(timeout=10)).data) == 1
    await ops.group.remove(WRITER)
    await together(ops, reader)
    await raw.publish(subject, behind)
    with pytest.raises(errors.RemovedSender):
        await subscription.next_msg(timeout=10)


async def test_one_that_is_readmitted_writes_again_and_its_old_keys_do_not(realm: Realm, cast: Cast, raw: Client) -> None:
    await realm.stream(raw)
    ops, writer, reader = await cast.all("ops", "writer-1", "reader-1", policy=skipping(realm))
    await writer.publish(1)
    old = OldState(realm, "writer-1")
    await ops.group.remove(WRITER)
    await until(lambda: writer.group.state == "removed", "it reads its removal")
    await ops.group.readmit(WRITER)
    await together(ops, writer, reader)
    await writer.publish(2)
    forged = await old.publish(raw, 100)
    await writer.publish(3)
    for member in (ops, writer, reader):
        assert await seen(member, 3, refused=1) == ([1, 2, 3], [("removed_sender", forged[0])])
