"""What the demo shows, one claim after the other: agents, a real nats-server, and whoever operates it."""

from __future__ import annotations

import re
import secrets
import shutil
from pathlib import Path

import pytest
from nats.aio.client import Client

from broker_crypto import errors
from broker_crypto.cli.demo_loot import Loot
from broker_crypto.records import Joined, Marked
from broker_crypto_nats.grouplog import NatsGroupLog
from tests.support.agents import Cast, Member, Realm, ended, number_of, numbered, take, together, until, uri
from tests.support.servers import NatsServer


async def refusals(member: Member, subscription, count: int) -> list[errors.RecordRefused]:  # type: ignore[no-untyped-def]
    """The next `count` records, all of them refused."""
    refused = []
    for _ in range(count):
        with pytest.raises(errors.RecordRefused) as caught:
            await subscription.fetch(1, timeout=10)
        await caught.value.message.term()
        refused.append(caught.value)
    return refused


async def test_every_member_reads_everything_with_its_sender_verified(realm: Realm, cast: Cast, raw: Client) -> None:
    await realm.stream(raw)
    ops, writer, reader = await cast.all("ops", "writer-1", "reader-1")
    await ops.publish(*range(100))
    await writer.publish(*range(100, 200))
    for member in (ops, writer, reader):
        messages = await take(await member.reader(), 200)
        assert sorted(number_of(m.data) for m in messages) == list(range(200))
        for message in messages:
            wanted = "ops" if number_of(message.data) < 100 else "writer-1"
            assert message.security.sender == f"agent://acme/{wanted}"
            assert message.security.channel == "mls"
            assert not message.security.duplicate
    assert [type(e) for e in ops.events].count(Joined) == 1


async def test_a_member_killed_in_mid_stream_comes_back_and_loses_nothing(realm: Realm, cast: Cast, raw: Client) -> None:
    await realm.stream(raw)
    writer = await cast("ops")
    reader = realm.process("reader-1")
    async with ended(reader):
        await reader.start()
        await reader.ask("ready")
        await reader.ask("read", ack_wait=1.0)
        leaf = (await reader.ask("ready"))["leaf"]
        for n in range(100):
            await writer.js.publish(f"{realm.root}.o.x", f"ops {n}".encode())
        await reader.kill()
        for n in range(100, 200):
            await writer.js.publish(f"{realm.root}.o.x", f"ops {n}".encode())
        await reader.start()
        back = await reader.ask("ready")
        assert (back["leaf"], back["epoch"]) == (leaf, 1), "it comes back from its own store, without a commit"
        await reader.ask("read", ack_wait=1.0)
        report = await reader.report_of(200)
        assert (report["read"], report["wrong_sender"], report["refused"]) == (200, 0, {})


async def test_who_comes_late_is_told_what_it_may_not_read_and_reads_on_from_its_own_epoch(realm: Realm, cast: Cast, raw: Client) -> None:
    await realm.stream(raw)
    ops = await cast("ops")
    await ops.publish(*range(5))
    late = await cast("reader-1")
    await until(lambda: ops.group.epoch == late.group.epoch)
    await ops.publish(*range(5, 10))
    subscription = await late.reader()
    refused = await refusals(late, subscription, 5)
    assert all(isinstance(error, errors.NotAMemberAtEpoch) for error in refused)
    assert {number_of(m.data) for m in await take(subscription, 5)} == set(range(5, 10))


async def test_a_tampered_a_moved_and_a_replayed_record_are_named_as_such(realm: Realm, cast: Cast, raw: Client) -> None:
    js = await realm.stream(raw)
    ops, reader = await cast.all("ops", "reader-1")
    await ops.publish(1)
    subscription = await reader.reader()
    await take(subscription, 1)
    genuine = await js.get_msg(realm.topic, 1)
    middle = len(genuine.data) // 2
    await js.publish(genuine.subject, genuine.data[:middle] + bytes((genuine.data[middle] ^ 1,)) + genuine.data[middle + 1 :])
    await js.publish(f"{realm.root}.o.elsewhere", genuine.data)
    await js.publish(genuine.subject, genuine.data)
    tampered, moved = await refusals(reader, subscription, 2)
    assert isinstance(tampered, errors.Tampered)
    assert isinstance(moved, errors.Relocated)
    assert tampered.message.data is None
    (replayed,) = await take(subscription, 1)
    assert replayed.security.duplicate
    assert replayed.data == numbered(1)
    assert [(m.topic, m.duplicate) for m in reader.of(Marked)] == [(realm.topic, True)]


def occurrences(folder: Path, pattern: re.Pattern[bytes]) -> int:
    return sum(len(pattern.findall(path.read_bytes())) for path in folder.rglob("*") if path.is_file())


async def test_the_brokers_files_hold_no_plaintext_and_the_search_finds_what_went_in_clear(
    own_realm: Realm, own_cast: Cast, own_raw: Client, server: NatsServer
) -> None:
    realm = own_realm
    await realm.stream(own_raw)
    await own_raw.jetstream().add_stream(name="control", subjects=[f"{realm.root}.p.>"])
    ops, reader = await own_cast.all("ops", "reader-1")
    await ops.publish(*range(50))
    await ops.js.publish(f"{realm.root}.o.x", b"record 000050", headers={"Authorization": "Bearer record 000051"})
    for n in range(50):
        await ops.js.publish(f"{realm.root}.p.x", b"control " + numbered(n))
    assert len(await take(await reader.reader(), 51)) == 51
    server.stop()
    assert occurrences(server.store, re.compile(rb"control record \d{6}")) == 50
    assert occurrences(server.store, re.compile(rb"record \d{6}")) == 50


async def robbed(realm: Realm, raw: Client, *folders: Path) -> Loot:
    """Every key in copies of state folders, and all that follows from them in the group's log."""
    loot, log = Loot(realm.topic), NatsGroupLog(raw)
    for folder in folders:
        await loot.rob(folder / "state.db", realm.folder / "store.key")
    await log.open(realm.topic, create=False)
    loot.follow(await log.read(0, 1000))
    await log.close()
    return loot


async def opened_by(loot: Loot, realm: Realm, raw: Client, first: int, last: int) -> list[int]:
    """The sequences of the stream from `first` to `last` that some key of `loot` opens."""
    found = []
    for number in range(first, last + 1):
        message = await raw.jetstream().get_msg(realm.topic, number)
        assert message.data is not None
        if loot.open(realm.topic, message.subject or "", message.data) is not None:
            found.append(number)
    return found


async def test_the_whole_folder_of_a_removed_member_opens_nothing_that_follows_and_nobody_takes_what_it_seals(
    realm: Realm, cast: Cast, raw: Client
) -> None:
    js = await realm.stream(raw)
    ops, reader = await cast.all("ops", "reader-1")
    before, after = realm.folder / "before", realm.folder / "after"
    async with realm.agent("writer-1") as writer:
        await writer.ready()
        await together(ops, writer, reader)
        await ops.publish(1)
    shutil.copytree(realm.state("writer-1"), before)
    await ops.group.rotate()  # an epoch that no row of the copy knows, but its keys lead into
    await together(ops, reader)
    writer = await cast("writer-1")
    await together(ops, writer)
    await ops.publish(2)
    loot = await robbed(realm, raw, before)
    assert loot.entered == [writer.group.epoch]
    assert await opened_by(loot, realm, raw, 1, 2) == [1, 2], "the control: before the removal it is a member's folder"
    subject = f"{realm.root}.o.x"
    (sealed,) = loot.seal(realm.topic, subject, [numbered(3)], secrets.token_bytes)
    await js.publish(subject, sealed.data)
    subscription = await reader.reader()
    assert [number_of(m.data) for m in await take(subscription, 3)] == [1, 2, 3], "and what it seals is taken"
    await ops.group.remove(uri("writer-1"))
    await until(lambda: writer.group.state == "removed" and reader.group.epoch == ops.group.epoch)
    await ops.publish(4, 5)
    with pytest.raises(errors.NotAMember):
        await writer.publish(6)
    shutil.copytree(realm.state("writer-1"), after)
    loot = await robbed(realm, raw, before, after)
    assert await opened_by(loot, realm, raw, 1, 5) == [1, 2, 3]
    assert max(loot.entered) < ops.group.epoch
    leaked = await robbed(realm, raw, before, after, realm.state("ops"))
    assert await opened_by(leaked, realm, raw, 4, 5) == [4, 5], "the same search finds what one key more would open"
    (sealed,) = loot.seal(realm.topic, subject, [numbered(6)], secrets.token_bytes)
    await js.publish(subject, sealed.data)
    for member, consumer, known in ((reader, subscription, 3), (ops, await ops.reader(), 0)):
        assert [number_of(m.data) for m in await take(consumer, 5 - known)] == list(range(known + 1, 6))
        (refused,) = await refusals(member, consumer, 1)
        assert isinstance(refused, errors.RemovedSender)
        assert refused.fields["position"] == 6


async def test_who_leaves_holds_no_key_of_the_group_and_the_others_go_on(realm: Realm, cast: Cast, raw: Client) -> None:
    await realm.stream(raw)
    ops, writer, reader = await cast.all("ops", "writer-1", "reader-1")
    await ops.publish(1)
    assert len(await robbed(realm, raw, realm.state("writer-1"))) > 0
    epoch = ops.group.epoch
    await writer.group.leave()
    assert writer.group.state == "left"
    with pytest.raises(errors.NotAMember):
        await writer.publish(2)
    assert len(await robbed(realm, raw, realm.state("writer-1"))) == 0
    await until(lambda: ops.group.epoch == reader.group.epoch == epoch + 1, "another takes its leaf out")
    assert {member.identity for member in ops.group.members} == {uri("ops"), uri("reader-1")}
    await ops.publish(3)
    assert [number_of(m.data) for m in await take(await reader.reader(), 2)] == [1, 3]


async def test_a_reader_whose_state_folder_is_deleted_reads_on_with_its_old_key_where_it_was(realm: Realm, cast: Cast, raw: Client) -> None:
    await realm.stream(raw)
    ops = await cast("ops")
    async with realm.agent("reader-1") as reader:
        await reader.ready()
        await together(ops, reader)
        leaf = reader.group.leaf
        await ops.publish(*range(10))
        assert len(await take(await reader.reader("mine"), 10)) == 10
    realm.forget("reader-1")
    again = await cast("reader-1")
    await together(ops, again)
    assert (again.group.leaf, len(again.group.members)) == (leaf, 2)
    await ops.publish(*range(10, 20))
    assert sorted(number_of(m.data) for m in await take(await again.reader("mine"), 10)) == list(range(10, 20))
    assert not again.metrics.value("records_refused_total")
