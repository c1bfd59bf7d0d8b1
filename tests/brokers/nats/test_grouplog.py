"""The group log on a real nats-server."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from broker_crypto.errors import AppendUnknown, BrokerUnavailable, GroupLogTruncated, GroupTooLarge, LostRace, PolicyConflict
from broker_crypto_nats.grouplog import STREAM, NatsGroupLog
from broker_crypto_nats.jsapi import Api, milliseconds
from broker_crypto_nats.streams import settings
from tests.brokers.conftest import connect
from tests.support.servers import NatsServer

SUBJECTS = ["_bc.group.>"]


def group() -> str:
    return "g-" + secrets.token_hex(6)


async def opened(nc: Client, name: str | None = None, **how: Any) -> NatsGroupLog:
    log = NatsGroupLog(nc, **how)
    await log.open(name or group(), True)
    return log


async def test_an_empty_log_has_head_0_and_nothing_to_read(nc: Client) -> None:
    log = await opened(nc)
    assert await log.head() == 0
    assert await log.read(0, 10) == []


async def test_what_is_appended_is_read_back_in_order_with_the_brokers_time(nc: Client) -> None:
    log = await opened(nc)
    before = time.time_ns() // 1_000_000
    first = await log.append(b"founding", -1)
    assert first is not None
    second = await log.append(b"commit", first)
    assert second is not None
    entries = await log.read(0, 10)
    assert [(entry.position, entry.record) for entry in entries] == [(first, b"founding"), (second, b"commit")]
    assert await log.head() == second + 1
    assert all(before - 1 <= entry.time_ms <= time.time_ns() // 1_000_000 for entry in entries)


async def test_groups_share_the_stream_and_see_only_their_own_records(nc: Client) -> None:
    one, other = await opened(nc, "team.one-" + secrets.token_hex(4)), await opened(nc)
    await one.append(b"1", None)
    await other.append(b"x", None)
    await one.append(b"2", None)
    assert [entry.record for entry in await one.read(0, 10)] == [b"1", b"2"]
    assert [entry.record for entry in await other.read(0, 10)] == [b"x"]
    mine = await one.read(0, 10)
    assert await one.read(mine[0].position + 1, 10) == mine[1:]


async def test_an_append_that_expected_another_record_loses_the_race(nc: Client) -> None:
    log = await opened(nc)
    first = await log.append(b"a", -1)
    with pytest.raises(LostRace):
        await log.append(b"b", -1)
    with pytest.raises(LostRace):
        await log.append(b"b", 0)
    assert first is not None
    await log.append(b"c", None)
    with pytest.raises(LostRace):
        await log.append(b"d", first)
    assert [entry.record for entry in await log.read(0, 10)] == [b"a", b"c"]


async def test_of_appends_at_once_exactly_one_wins(nc: Client) -> None:
    name = group()
    logs = [await opened(nc, name) for _ in range(8)]
    outcomes = await asyncio.gather(*(log.append(b"%d" % at, -1) for at, log in enumerate(logs)), return_exceptions=True)
    assert sum(isinstance(outcome, int) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, LostRace) for outcome in outcomes) == 7
    assert len(await logs[0].read(0, 10)) == 1


async def test_thousands_of_entries_come_whole_whatever_the_limit_and_the_start(nc: Client) -> None:
    name, noise = group(), group()
    log, other = await opened(nc, name), await opened(nc, noise)
    for at in range(300):
        await asyncio.gather(log._nc.request(f"_bc.group.{name}", b"%d" % at, timeout=5), other.append(b"noise", None))
    await asyncio.gather(*(log.append(b"more", None) for _ in range(1700)))
    everything = await log.read(0, 5000)
    assert len(everything) == 2000
    assert [entry.record for entry in everything[:300]] == [b"%d" % at for at in range(300)]
    walked, position = [], 0
    while len(walked) < len(everything):
        page = await log.read(position, 333)
        walked += page
        position = page[-1].position + 1
    assert walked == everything
    assert await log.read(everything[1500].position, 1) == everything[1500:1501]
    assert await log.read(everything[-1].position, 50) == everything[-1:]
    assert await log.read(everything[-1].position + 1, 50) == []


async def test_both_ways_of_reading_give_the_same_bytes_and_the_same_time(nc: Client) -> None:
    log = await opened(nc)
    for at in range(20):
        await log.append(secrets.token_bytes(at * 50), None)
    pulled = await log.read(0, 20)
    singly = [(await log.read(entry.position, 1))[0] for entry in pulled]
    assert singly == pulled


async def test_no_consumer_stays_behind_after_a_long_read(nc: Client) -> None:
    log = await opened(nc)
    for _ in range(20):
        await log.append(b"x", None)
    others = set((await Api(nc).call(f"CONSUMER.NAMES.{STREAM}", {}))["consumers"] or [])  # of other tests on this server
    await log.read(0, 20)
    for _ in range(100):
        names = set((await Api(nc).call(f"CONSUMER.NAMES.{STREAM}", {}))["consumers"] or []) - others
        if not names:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(names)


async def test_a_record_as_large_as_the_broker_takes_comes_back_and_a_larger_one_is_refused_before_it_is_sent(nc: Client) -> None:
    log = await opened(nc)
    large = secrets.token_bytes(nc.max_payload - 200)
    await log.append(large, None)
    for _ in range(6):
        await log.append(b"small", None)
    assert (await log.read(0, 1))[0].record == large
    assert [len(entry.record) for entry in await log.read(0, 10)] == [len(large)] + [5] * 6
    with pytest.raises(GroupTooLarge):
        await log.append(secrets.token_bytes(nc.max_payload), None)
    assert nc.is_connected


async def test_the_identity_is_when_the_stream_was_made_and_survives_a_restart(server: NatsServer, own_nc: Client) -> None:
    log = NatsGroupLog(own_nc)
    identity = await log.open("orders", True)
    await log.append(b"founding", -1)
    before = await log.read(0, 1)
    server.kill()
    server.start()
    assert await log.open("orders", False) == identity
    assert await log.read(0, 10) == before


async def test_another_stream_of_the_same_name_has_another_identity(server: NatsServer, own_nc: Client) -> None:
    log = NatsGroupLog(own_nc)
    identity = await log.open("orders", True)
    await own_nc.jsm().delete_stream(STREAM)
    assert await log.open("orders", True) != identity


async def test_a_log_that_does_not_exist_is_not_made_by_looking(server: NatsServer, own_nc: Client) -> None:
    with pytest.raises(BrokerUnavailable):
        await NatsGroupLog(own_nc).open("orders", False)
    assert not (await Api(own_nc).call("STREAM.NAMES"))["streams"]


async def test_many_agents_that_create_it_at_once_get_one_stream(server: NatsServer, own_nc: Client) -> None:
    identities = await asyncio.gather(*(NatsGroupLog(own_nc).open(f"g{at}", True) for at in range(10)))
    assert len(set(identities)) == 1


WRONG: list[tuple[str, Any]] = [
    ("storage", "memory"),
    ("retention", "interest"),
    ("discard", "old"),
    ("max_msgs", 10),
    ("max_bytes", 1_000_000),
    ("max_age", 10**12),
    ("max_msgs_per_subject", 5),
    ("max_msg_size", 1000),
    ("max_consumers", 3),
    ("deny_delete", False),
    ("deny_purge", False),
    ("allow_rollup_hdrs", True),
    ("allow_msg_ttl", True),
    ("first_seq", 10),
    ("no_ack", True),
    ("subjects", ["_bc.group.>", "elsewhere"]),
    ("subject_transform", {"src": "_bc.group.>", "dest": "_bc.group.x.>"}),
    ("republish", {"src": "_bc.group.>", "dest": "copies.>"}),
    ("sources", [{"name": "OTHER"}]),
]


@pytest.mark.parametrize(("setting", "value"), WRONG, ids=[name for name, _ in WRONG])
async def test_a_stream_with_a_wrong_setting_is_a_conflict_that_names_it(own_nc: Client, setting: str, value: Any) -> None:
    config = settings(STREAM, SUBJECTS, 1) | {setting: value}
    if setting == "allow_rollup_hdrs":
        config["deny_purge"] = False  # the server takes no rollup where purge is denied
    await Api(own_nc).call(f"STREAM.CREATE.{STREAM}", config)
    with pytest.raises(PolicyConflict, match=setting) as conflict:
        await NatsGroupLog(own_nc).open("orders", True)
    assert any(wrong.startswith(setting) for wrong in conflict.value.fields["settings"])


async def test_all_wrong_settings_are_named_at_once(own_nc: Client) -> None:
    wrong = {"max_msgs": 5, "discard": "old", "deny_delete": False}
    await Api(own_nc).call(f"STREAM.CREATE.{STREAM}", settings(STREAM, SUBJECTS, 1) | wrong)
    with pytest.raises(PolicyConflict, match=r"discard.*deny_delete.*max_msgs"):
        await NatsGroupLog(own_nc).open("orders", False)


async def test_a_stream_that_holds_the_subjects_already_is_a_conflict(own_nc: Client) -> None:
    await Api(own_nc).call("STREAM.CREATE.SQUAT", settings("SQUAT", ["_bc.>"], 1))
    with pytest.raises(PolicyConflict, match="another stream"):
        await NatsGroupLog(own_nc).open("orders", True)


async def test_more_replicas_than_there_are_servers_is_a_conflict(own_nc: Client) -> None:
    with pytest.raises(PolicyConflict, match="num_replicas"):
        await NatsGroupLog(own_nc, replicas=3).open("orders", True)


async def test_fewer_replicas_than_named_is_a_conflict_on_an_existing_stream(nc: Client) -> None:
    await opened(nc)
    with pytest.raises(PolicyConflict, match="at least 3"):
        await NatsGroupLog(nc, replicas=3).open("orders", False)


async def trimmed_stream(nc: Client, *gone: int) -> NatsGroupLog:
    """A log that has lost records, as a stream does that somebody made without the denials."""
    config = settings(STREAM, SUBJECTS, 1) | {"deny_delete": False, "deny_purge": False}
    await Api(nc).call(f"STREAM.CREATE.{STREAM}", config)
    log = NatsGroupLog(nc)
    log._subject = "_bc.group.orders"
    for at in range(8):
        await log.append(b"%d" % at, None)
    for sequence in gone:
        await nc.jsm().delete_msg(STREAM, sequence)
    return log


async def test_reading_what_was_trimmed_away_says_so(own_nc: Client) -> None:
    log = await trimmed_stream(own_nc, 1, 2, 3)
    for position in (0, 1, 3):
        with pytest.raises(GroupLogTruncated):
            await log.read(position, 10)
    assert [entry.position for entry in await log.read(4, 10)] == [4, 5, 6, 7, 8]


async def test_a_founding_that_was_deleted_behind_another_groups_record_is_missed(own_nc: Client) -> None:
    config = settings(STREAM, SUBJECTS, 1) | {"deny_delete": False}
    await Api(own_nc).call(f"STREAM.CREATE.{STREAM}", config)
    await own_nc.request("_bc.group.other", b"x", timeout=5)
    log = NatsGroupLog(own_nc)
    log._subject = "_bc.group.orders"
    await log.append(b"founding", None)
    await log.append(b"commit", None)
    await own_nc.jsm().delete_msg(STREAM, 2)
    with pytest.raises(GroupLogTruncated):
        await log.read(0, 10)
    with pytest.raises(GroupLogTruncated):
        await log.read(2, 10)


async def test_a_purged_log_is_truncated_not_empty(own_nc: Client) -> None:
    log = await trimmed_stream(own_nc)
    await own_nc.jsm().purge_stream(STREAM)
    for position in (0, 8):
        with pytest.raises(GroupLogTruncated):
            await log.read(position, 10)


async def test_nobody_can_delete_or_purge_or_lift_the_denial(own_nc: Client) -> None:
    log = await opened(own_nc, "orders")
    await log.append(b"founding", None)
    with pytest.raises(nats.js.errors.APIError):
        await own_nc.jsm().delete_msg(STREAM, 1)
    with pytest.raises(nats.js.errors.APIError):
        await own_nc.jsm().purge_stream(STREAM)
    with pytest.raises(nats.js.errors.APIError):
        await own_nc.jsm().update_stream(name=STREAM, subjects=SUBJECTS, deny_delete=False, deny_purge=False)
    assert len(await log.read(0, 10)) == 1


async def test_the_bell_rings_after_a_record_is_stored(nc: Client) -> None:
    log = await opened(nc)
    await asyncio.wait_for(log.changed(), 5)  # hung up: may wake for nothing
    waiting = asyncio.create_task(log.changed())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    position = await log.append(b"x", None)
    await asyncio.wait_for(waiting, 5)
    assert await log.head() == (position or 0) + 1
    await log.append(b"y", None)
    await asyncio.wait_for(log.changed(), 5)
    await log.close()


async def test_another_groups_record_does_not_ring(nc: Client) -> None:
    log, other = await opened(nc), await opened(nc)
    await log.changed()
    waiting = asyncio.create_task(log.changed())
    for _ in range(5):
        await other.append(b"x", None)
    await asyncio.sleep(0.1)
    assert not waiting.done()
    waiting.cancel()
    await log.close()


async def test_the_bell_rings_when_the_connection_comes_back(server: NatsServer, own_nc: Client) -> None:
    log, writer = await opened(own_nc, "orders"), await connect(server)
    await log.changed()
    waiting = asyncio.create_task(log.changed())
    await asyncio.sleep(0.05)
    server.kill()
    server.start()
    await asyncio.wait_for(waiting, 20)
    await asyncio.wait_for(log.changed(), 20)  # hung anew
    again = asyncio.create_task(log.changed())
    other = NatsGroupLog(writer)
    await other.open("orders", False)
    await other.append(b"x", None)
    await asyncio.wait_for(again, 20)
    assert len(await log.read(0, 10)) == 1
    await log.close()
    await writer.close()


async def test_no_call_hangs_while_the_broker_is_away_and_all_work_when_it_is_back(server: NatsServer, own_nc: Client) -> None:
    log = await opened(own_nc, "orders", timeout=0.3)
    await log.append(b"founding", None)
    server.stop()
    await asyncio.sleep(0.1)
    for call in (log.head(), log.read(0, 10), log.append(b"x", None), log.open("orders", True), log.changed()):
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(call, 5)
    server.start()
    for _ in range(100):
        try:
            await log.open("orders", False)  # as is to be done after every reconnect
            assert await log.head() == 2
            break
        except BrokerUnavailable:
            await asyncio.sleep(0.05)
    assert [entry.record for entry in await log.read(0, 10)] == [b"founding"]
    await log.append(b"commit", 1)


async def test_an_append_without_an_answer_is_unknown_not_refused(nc: Client) -> None:
    log = await opened(nc, timeout=0.2)
    silent = await nc.subscribe("silent")
    log._subject = "silent"  # somebody is there, and never answers
    with pytest.raises(AppendUnknown):
        await log.append(b"x", None)
    await silent.unsubscribe()


async def test_an_answer_that_is_no_answer_of_jetstream_is_unknown(nc: Client) -> None:
    async def answer(message: Any) -> None:
        await message.respond(b"hello")

    log = await opened(nc, timeout=1)
    talking = await nc.subscribe("talking", cb=answer)
    log._subject = "talking"
    with pytest.raises(AppendUnknown):
        await log.append(b"x", None)
    await talking.unsubscribe()


async def test_a_closed_connection_is_unavailable_at_once(server: NatsServer) -> None:
    connection = await connect(server)
    log = await opened(connection, "orders")
    await connection.close()
    for call in (log.head(), log.append(b"x", None), log.changed(), log.read(0, 1)):
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(call, 2)
    await log.close()


async def test_a_cancelled_read_leaves_the_log_usable(nc: Client) -> None:
    log = await opened(nc)
    for _ in range(50):
        await log.append(b"x" * 1000, None)
    for delay in range(0, 12):
        reading = asyncio.create_task(log.read(0, 50))
        await asyncio.sleep(delay / 2000)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    assert len(await log.read(0, 50)) == 50
    assert len(nc._subs) <= 1  # nothing but the client's own inbox is left


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("2025-11-25T09:12:00Z", 1764061920000),
        ("2025-11-25T09:12:00.1Z", 1764061920100),
        ("2025-11-25T09:12:00.123999999Z", 1764061920123),
        ("2025-11-25T09:12:00.000999Z", 1764061920000),
        ("1970-01-01T00:00:00.001Z", 1),
    ],
)
def test_the_servers_time_is_rounded_down_to_milliseconds(stamp: str, expected: int) -> None:
    assert milliseconds(stamp) == expected
