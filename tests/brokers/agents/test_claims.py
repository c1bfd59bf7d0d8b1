"""What the demo shows, one claim after the other: agents, a real nats-server, and whoever operates it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from nats.aio.client import Client

from broker_crypto import errors
from broker_crypto.records import Joined, Marked
from tests.support.agents import Cast, Member, Realm, ended, number_of, numbered, take, until
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
