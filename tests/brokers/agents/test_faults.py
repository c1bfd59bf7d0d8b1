"""A broker that lost or changed the group's log, that cannot hold one, or that somebody else was first on."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from broker_crypto import errors
from broker_crypto.identity import ca, keys
from broker_crypto.records import Halted
from broker_crypto.wire import pem
from broker_crypto_nats.grouplog import STREAM
from broker_crypto_nats.jsapi import Api
from broker_crypto_nats.streams import settings
from tests.support.agents import Cast, Member, Realm, number_of, take, together, until, uri
from tests.support.servers import NatsServer, end, nats_server

SUBJECTS = ["_bc.group.>"]


async def sealed_records(realm: Realm, raw: Client) -> int:
    return (await raw.jetstream().stream_info(realm.topic)).state.messages


async def refuses(member: Member, kind: type[errors.BrokerCryptoError]) -> None:
    """It seals nothing, commits nothing, and says why wherever it is asked."""
    before = await sealed_records(member.realm, member.raw)
    for send in (member.publish(99), member.nc.publish(f"{member.realm.root}.o.x", b"core"), member.ready(5), member.group.rotate()):
        with pytest.raises(kind):
            await asyncio.wait_for(send, 10)
    assert await sealed_records(member.realm, member.raw) == before
    health = member.agent.health()
    assert not health.ok
    assert str(kind(group=member.realm.topic)).split(":")[0] in health.reasons[0]


async def halted(member: Member, kind: type[errors.GroupError]) -> None:
    await until(lambda: member.group.halted is not None, "it halts")
    assert isinstance(member.group.halted, kind)
    assert member.group.state == "halted"
    assert [e.code for e in member.of(Halted)] == [kind.code]
    await refuses(member, kind)


def reconnected(*members: Member) -> bool:
    return all(m.raw.is_connected and m.raw.stats["reconnects"] for m in members)


async def test_a_log_that_was_deleted_and_made_anew_halts_everybody_and_what_was_read_stays_readable(
    own_realm: Realm, own_cast: Cast, own_raw: Client, server: NatsServer
) -> None:
    await own_realm.stream(own_raw)
    ops, reader = await own_cast.all("ops", "reader-1")
    await ops.publish(1)
    await own_raw.jsm().delete_stream(STREAM)
    server.stop()
    server.start()
    await until(lambda: reconnected(ops, reader))
    for member in (ops, reader):
        await halted(member, errors.LogRolledBack)
    assert [number_of(m.data) for m in await take(await reader.reader(), 1)] == [1]


async def test_a_log_that_was_deleted_and_made_anew_is_noticed_by_the_next_commit_without_a_reconnect(
    own_realm: Realm, own_cast: Cast, own_raw: Client
) -> None:
    await own_realm.stream(own_raw)
    ops = await own_cast("ops")
    await own_raw.jsm().delete_stream(STREAM)
    with pytest.raises(errors.LogRolledBack):
        await asyncio.wait_for(ops.group.rotate(), 20)
    await halted(ops, errors.LogRolledBack)


async def test_a_broker_restored_from_a_backup_halts_everybody_and_a_restart_does_not_help(
    own_realm: Realm, own_cast: Cast, own_raw: Client, server: NatsServer, tmp_path: Path
) -> None:
    await own_realm.stream(own_raw)
    ops, writer = await own_cast.all("ops", "writer-1")
    server.stop()
    shutil.copytree(server.store, tmp_path / "backup")
    server.start()
    await until(lambda: reconnected(ops, writer))
    await ops.group.rotate()
    await together(ops, writer)
    server.stop()
    shutil.rmtree(server.store)
    shutil.copytree(tmp_path / "backup", server.store)
    server.start()
    await until(lambda: reconnected(ops, writer))
    for member in (ops, writer):
        await halted(member, errors.LogRolledBack)
    await ops.nc.close()
    await ops.agent.close()
    again = await own_cast("ops", ready=False)
    with pytest.raises(errors.LogRolledBack):
        await again.ready(5)


async def test_a_log_whose_beginning_was_purged_halts_everybody(
    own_realm: Realm, own_cast: Cast, own_raw: Client, server: NatsServer, tmp_path: Path
) -> None:
    """The operator copies the stream before its denials are set, purges the copy and puts it in the place of the true one."""
    await own_realm.stream(own_raw)
    subject = f"_bc.group.{own_realm.topic}"
    api = Api(own_raw)
    await api.call(f"STREAM.CREATE.{STREAM}", settings(STREAM, SUBJECTS, 1) | {"deny_delete": False, "deny_purge": False})
    server.stop()
    shutil.copytree(server.store, tmp_path / "copy")
    server.start()
    await until(lambda: own_raw.is_connected)
    await api.call(f"STREAM.UPDATE.{STREAM}", settings(STREAM, SUBJECTS, 1))
    ops, reader = await own_cast.all("ops", "reader-1")
    records = [(await own_raw.jetstream().get_msg(STREAM, n)).data for n in (1, 2)]
    server.stop()
    shutil.move(server.store, tmp_path / "true")
    shutil.copytree(tmp_path / "copy", server.store)
    server.start()
    async with await nats.connect(server.url) as operator:
        for record in [*records, *records]:
            await operator.jetstream().publish(subject, record)
        await operator.jsm().purge_stream(STREAM, seq=3)
        await Api(operator).call(f"STREAM.UPDATE.{STREAM}", settings(STREAM, SUBJECTS, 1))
    for member in (ops, reader):
        await until(lambda: member.group.halted is not None, "it halts")
        assert isinstance(member.group.halted, errors.GroupLogTruncated), member.group.halted
        await refuses(member, errors.GroupLogTruncated)


async def test_a_stream_that_cannot_hold_group_logs_is_refused_by_name_and_taken_once_it_is_mended(
    own_realm: Realm, own_cast: Cast, own_raw: Client
) -> None:
    await own_realm.stream(own_raw)
    api = Api(own_raw)
    await api.call(f"STREAM.CREATE.{STREAM}", settings(STREAM, SUBJECTS, 1) | {"max_age": 3600 * 10**9, "deny_purge": False})
    ops = await own_cast("ops", ready=False)
    with pytest.raises(errors.PolicyConflict) as caught:
        await ops.ready(10)
    assert any(s.startswith("max_age") for s in caught.value.fields["settings"])
    assert any(s.startswith("deny_purge") for s in caught.value.fields["settings"])
    with pytest.raises(errors.PolicyConflict):
        await ops.publish(1)
    assert "max_age" in ops.agent.health().reasons[0]
    assert await sealed_records(own_realm, own_raw) == 0
    await api.call(f"STREAM.UPDATE.{STREAM}", settings(STREAM, SUBJECTS, 1))
    await until(lambda: ops.agent.health().ok, "it looks again by itself")
    await ops.publish(1)


async def test_a_member_stops_sealing_when_the_streams_settings_no_longer_hold(
    own_realm: Realm, own_cast: Cast, own_raw: Client, server: NatsServer
) -> None:
    await own_realm.stream(own_raw)
    ops, reader = await own_cast.all("ops", "reader-1")
    await ops.publish(1)
    await Api(own_raw).call(f"STREAM.UPDATE.{STREAM}", settings(STREAM, SUBJECTS, 1) | {"max_msgs": 10})
    server.stop()
    server.start()
    await until(lambda: reconnected(ops, reader))
    await until(lambda: "max_msgs" in str(ops.agent.health().reasons))
    with pytest.raises(errors.PolicyConflict, match="max_msgs"):
        await ops.publish(2)
    with pytest.raises(errors.PolicyConflict):
        await ops.group.rotate()
    assert [number_of(m.data) for m in await take(await reader.reader(), 1)] == [1]
    await Api(own_raw).call(f"STREAM.UPDATE.{STREAM}", settings(STREAM, SUBJECTS, 1))
    await until(lambda: ops.agent.health().ok)
    await ops.publish(2)


async def test_fewer_replicas_than_the_policy_names_is_a_conflict(own_realm: Realm, own_cast: Cast) -> None:
    def three(policy):  # type: ignore[no-untyped-def]
        policy["brokers"] = {"main": {"type": "nats", "servers": [own_realm.url], "replicas": 3}}

    ops = await own_cast("ops", own_realm.policy(three), ready=False)
    with pytest.raises(errors.PolicyConflict, match="num_replicas"):
        await ops.ready(10)


@pytest.fixture
async def without_jetstream(tmp_path: Path) -> AsyncIterator[str]:
    """A server whose accounts have no JetStream."""
    server = nats_server(tmp_path / "bare", extra="accounts { APP { users: [{user: app, password: app}] } }\nno_auth_user: app")
    server.start()
    yield server.url
    end(server)


async def test_a_server_without_jetstream_is_named_as_what_is_missing(tmp_path: Path, without_jetstream: str) -> None:
    realm = Realm(tmp_path / "realm", without_jetstream)
    async with realm.agent("ops") as ops:
        with pytest.raises(errors.GroupNotReady, match="JetStream"):
            await ops.ready(2)
        assert "JetStream" in ops.agent.health().reasons[0]


async def squatted(realm: Realm, raw: Client) -> None:
    """Somebody with a CA of its own founds the group first: same name, same topics, other anchors."""
    other = Realm(realm.folder.parent / "squatter", realm.url, root=realm.root)
    async with other.agent("ops") as squatter:
        await squatter.ready()


async def test_a_group_founded_by_somebody_untrusted_is_neither_sealed_for_nor_read(realm: Realm, cast: Cast, raw: Client) -> None:
    await realm.stream(raw)
    await squatted(realm, raw)
    ops = await cast("ops", ready=False)
    with pytest.raises(errors.UntrustedFounding):
        await ops.ready(10)
    await halted(ops, errors.UntrustedFounding)


async def test_a_file_that_differs_from_a_writers_founding_is_cured_by_the_founders_file(realm: Realm, cast: Cast) -> None:
    writer = await cast("writer-1")  # founds after a while, since no admin is there
    differing = realm.policy(lambda m: m["groups"][realm.topic].update(key_retention="1d"))
    async with realm.agent("reader-1", differing) as reader:
        with pytest.raises(errors.UntrustedFounding):
            await reader.ready(10)
        assert [m.identity for m in writer.group.members] == [uri("writer-1")]
    cured = await cast("reader-1")
    await together(writer, cured)


async def test_a_spoiled_row_of_the_group_is_told_at_the_start_and_nobody_joins_anew_in_its_place(realm: Realm, cast: Cast) -> None:
    ops, writer = await cast.all("ops", "writer-1")
    await writer.nc.close()
    await writer.agent.close()
    with closing(sqlite3.connect(realm.state("writer-1") / "state.db")) as database, database:
        (value,) = database.execute("SELECT value FROM rows WHERE kind = 'group'").fetchone()
        spoiled = value[:-1] + bytes((value[-1] ^ 1,))
        database.execute("UPDATE rows SET value = ? WHERE kind = 'group'", (spoiled,))
    epoch = ops.group.epoch
    with pytest.raises(errors.StateCorrupt, match="kind='group'"):
        await cast("writer-1")
    assert ops.group.epoch == epoch


async def test_an_agent_whose_certificate_the_group_does_not_take_says_why_and_writes_nothing(
    realm: Realm, cast: Cast, raw: Client
) -> None:
    await cast("ops")
    other = ca.found("another CA", keys.generate(), now_ms=realm.now_ms())
    (realm.folder / "other.pem").write_bytes(pem.write_certificates((other.certificate,)))
    realm.issue("reader-1", authority=other)
    both = realm.policy(lambda m: m["trust"]["anchors"].append({"certificate": "other.pem", "identities": ["agent://acme/"]}))
    stranger = await cast("reader-1", both, ready=False)
    with pytest.raises(errors.GroupNotReady, match="anchor"):
        await stranger.ready(1)
    info = await raw.jetstream().stream_info(STREAM, subjects_filter=f"_bc.group.{realm.topic}")
    assert info.state.subjects == {f"_bc.group.{realm.topic}": 1}
