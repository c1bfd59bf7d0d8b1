"""The fakes that ship keep the promises of the real ports, and break them only as told."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_crypto.delivery.ports import GroupLog
from broker_crypto.errors import (
    AppendUnknown,
    BrokerUnavailable,
    GroupLogTruncated,
    GroupTooLarge,
    LostRace,
    PolicyConflict,
    UsageError,
)
from broker_crypto.records import LogEntry, TopicFacts
from broker_crypto.testing import EPOCH_MS, Chaos, FakeClock, MemoryBroker, SeededRandom


def broker(*, nats: bool = True, chaos: Chaos | None = None) -> MemoryBroker:
    return MemoryBroker(FakeClock(), compare_and_set=nats, chaos=chaos)


async def opened(of: MemoryBroker, group: str = "orders") -> GroupLog:
    log = of.group_log()
    await log.open(group, create=True)
    return log


def records(of: MemoryBroker, group: str = "orders") -> list[bytes]:
    return [entry.record for entry in of.entries(group)]


# --- clock and randomness -----------------------------------------------------------------------------------------


def test_time_stands_still_until_it_is_advanced_and_only_the_wall_clock_shifts() -> None:
    clock = FakeClock()
    assert (clock.now_ms(), clock.monotonic()) == (EPOCH_MS, 0.0)
    clock.advance(1.5)
    clock.shift(-60_000)
    assert (clock.now_ms(), clock.monotonic()) == (EPOCH_MS + 1500 - 60_000, 1.5)
    with pytest.raises(UsageError):
        clock.advance(-1)


async def test_sleepers_wake_in_order_when_their_time_has_come_and_not_before() -> None:
    clock, woken = FakeClock(), []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (3, 1, 2, 0)]
    await asyncio.sleep(0.001)
    assert woken == [0]
    tasks[2].cancel()
    clock.advance(2.9)
    await asyncio.sleep(0.001)
    assert woken == [0, 1]
    clock.advance(0.1)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert woken == [0, 1, 3]


def test_the_same_seed_gives_the_same_bytes() -> None:
    one, two, other = SeededRandom(7), SeededRandom(7), SeededRandom(8)
    drawn = [one(n) for n in (0, 1, 32)]
    assert drawn == [two(n) for n in (0, 1, 32)] != [other(n) for n in (0, 1, 32)]
    assert list(map(len, drawn)) == [0, 1, 32]


# --- the log as it should be --------------------------------------------------------------------------------------


@pytest.mark.parametrize("nats", [True, False])
async def test_what_is_appended_is_read_back_in_order_with_the_brokers_time(nats: bool) -> None:
    one = broker(nats=nats)
    log = await opened(one)
    assert await log.head() == 0
    assert await log.read(0, 10) == []
    one.skew_ms = 5
    first = await log.append(b"a", -1)
    assert isinstance(one.clock, FakeClock)
    one.clock.advance(1)
    second = await log.append(b"b", first)
    assert first == (1 if nats else 0)
    entries = [LogEntry(first, EPOCH_MS + 5, b"a"), LogEntry(second or 0, EPOCH_MS + 1005, b"b")]
    assert await log.read(0, 10) == entries
    assert await log.read(0, 1) == entries[:1]
    assert await log.read(first + 1, 10) == entries[1:]
    assert await log.head() == entries[1].position + 1


async def test_logs_share_a_stream_as_on_nats_and_count_for_themselves_as_on_kafka() -> None:
    for nats, positions in ((True, [1, 3]), (False, [0, 1])):
        one = broker(nats=nats)
        orders, payments = await opened(one), await opened(one, "payments")
        await orders.append(b"a", None)
        await payments.append(b"b", None)
        await orders.append(b"c", None)
        assert [entry.position for entry in await orders.read(0, 10)] == positions
        assert records(one, "payments") == [b"b"]


async def test_an_append_that_expects_another_end_loses_on_nats_and_lands_on_kafka() -> None:
    for nats in (True, False):
        one = broker(nats=nats)
        log, other = await opened(one), await opened(one)
        await log.append(b"a", -1)
        if nats:
            with pytest.raises(LostRace):
                await other.append(b"b", -1)
            assert records(one) == [b"a"]
            await other.append(b"b", None)
        else:
            await other.append(b"b", -1)
        assert records(one) == [b"a", b"b"]


async def test_a_log_is_opened_before_it_is_used_and_made_only_when_asked() -> None:
    one = broker()
    log = one.group_log()
    for call in (log.head(), log.read(0, 1), log.append(b"", None), log.changed(), log.open("orders", create=False)):
        with pytest.raises(BrokerUnavailable):
            await call
    identity = await log.open("orders", create=True)
    assert await one.group_log().open("orders", create=False) == identity
    one.wrong_settings = ["deny_delete: false"]
    with pytest.raises(PolicyConflict, match="deny_delete"):
        await one.group_log().open("orders", create=False)
    await log.close()
    with pytest.raises(BrokerUnavailable):
        await log.head()


async def test_changed_wakes_for_an_append_and_waits_again_after() -> None:
    one = broker()
    log = await opened(one)
    waiting = asyncio.ensure_future(log.changed())
    await asyncio.sleep(0.001)
    assert not waiting.done()
    await (await opened(one)).append(b"a", None)
    await asyncio.wait_for(waiting, 5)
    waiting = asyncio.ensure_future(log.changed())
    await asyncio.sleep(0.001)
    assert not waiting.done()
    await log.close()
    await asyncio.wait_for(waiting, 5)


async def test_a_record_that_is_too_large_is_refused() -> None:
    one = MemoryBroker(FakeClock(), max_record=10)
    log = await opened(one)
    with pytest.raises(GroupTooLarge):
        await log.append(bytes(11), None)
    await log.append(bytes(10), None)
    assert records(one) == [bytes(10)]


# --- the log as it should not be ----------------------------------------------------------------------------------


@pytest.fixture
async def two() -> tuple[MemoryBroker, GroupLog]:
    one = broker()
    return one, await opened(one)


async def test_each_fate_of_an_append(two: tuple[MemoryBroker, GroupLog]) -> None:
    one, log = two
    one.fates.extend(["lose_ack", "never", "refuse", "late", "duplicate", "land"])
    for error, landed in (
        (AppendUnknown, [b"0"]),
        (AppendUnknown, [b"0"]),
        (BrokerUnavailable, [b"0"]),
        (AppendUnknown, [b"0"]),
        (None, [b"0", b"4", b"4"]),
        (None, [b"0", b"4", b"4", b"5"]),
    ):
        record = b"%d" % (6 - len(one.fates))
        if error is None:
            await log.append(record, None)
        else:
            with pytest.raises(error):
                await log.append(record, None)
        assert records(one) == landed
    one.land()
    assert records(one) == [b"0", b"4", b"4", b"5", b"3"]


async def test_a_late_append_that_lost_its_race_vanishes_silently(two: tuple[MemoryBroker, GroupLog]) -> None:
    one, log = two
    one.fates.extend(["late", "late"])
    for record in (b"a", b"b"):
        with pytest.raises(AppendUnknown):
            await log.append(record, -1)
    one.land(1)
    assert records(one) == [b"a"]
    one.land()
    assert records(one) == [b"a"]


async def test_a_duplicate_of_an_append_that_expected_an_end_is_refused_as_on_nats(two: tuple[MemoryBroker, GroupLog]) -> None:
    one, log = two
    one.fates.append("duplicate")
    await log.append(b"a", -1)
    assert records(one) == [b"a"]


async def test_a_log_may_lose_its_end_its_beginning_or_itself() -> None:
    for nats in (True, False):
        one = broker(nats=nats)
        log = await opened(one)
        identity = await log.open("orders", create=False)
        positions = [await log.append(b"%d" % n, None) or 0 for n in range(5)]
        one.roll_back("orders", positions[3])
        assert records(one) == [b"0", b"1", b"2"]
        assert await log.append(b"x", positions[2]) == positions[3]
        one.trim("orders", positions[2])
        with pytest.raises(GroupLogTruncated):
            await log.read(positions[1], 10)
        assert [entry.record for entry in await log.read(positions[2], 10)] == [b"2", b"x"]
        one.replace("orders", positions[2], record=b"other", time_ms=7)
        assert one.entries("orders")[0] == LogEntry(positions[2], 7, b"other")
        one.recreate("orders")
        assert await log.open("orders", create=False) != identity
        assert await log.head() == 0
        assert await log.append(b"new", -1) == positions[0]


async def test_a_trimmed_log_does_not_give_its_positions_again() -> None:
    one = broker()
    log = await opened(one)
    last = [await log.append(b"%d" % n, None) or 0 for n in range(3)][-1]
    one.trim("orders", last + 1)
    assert (records(one), await log.head()) == ([], last + 1)
    assert await log.append(b"x", None) == last + 1


async def test_reads_may_be_held_and_the_broker_be_down(two: tuple[MemoryBroker, GroupLog]) -> None:
    one, log = two
    one.reads.clear()
    reading = asyncio.ensure_future(log.read(0, 10))
    await log.append(b"a", None)
    assert not reading.done()
    one.reads.set()
    assert [entry.record for entry in await reading] == [b"a"]
    one.down = True
    for call in (log.head(), log.read(0, 1), log.append(b"b", None), log.open("orders", create=True), one.topics().describe("orders")):
        with pytest.raises(BrokerUnavailable):
            await call
    assert records(one) == [b"a"]


async def test_topics_are_described_as_told() -> None:
    one = broker()
    facts = TopicFacts("orders", "stream-1", {-1: 5}, 3600, False)
    assert await one.topics().describe("orders") == []
    one.describe("orders", facts)
    assert await one.topics().describe("orders") == [facts]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_drawn_faults_repeat_with_their_seed_and_never_lose_what_was_answered(seed: int, nats: bool) -> None:
    async def life() -> tuple[list[bytes], list[str]]:
        chaos = Chaos(SeededRandom(seed), lose_ack=0.15, late=0.15, never=0.1, duplicate=0.1, refuse=0.1)
        one = broker(nats=nats, chaos=chaos)
        outcomes: list[str] = []

        async def member(name: int) -> None:
            log = await opened(one)
            for n in range(10):
                entries = await log.read(0, 1000)
                record = b"%d.%d" % (name, n)
                try:
                    position = await log.append(record, entries[-1].position if entries else -1)
                except (AppendUnknown, LostRace, BrokerUnavailable) as error:
                    outcomes.append(error.code)
                    if type(error) in (LostRace, BrokerUnavailable):
                        never.append(record)
                else:
                    outcomes.append("landed")
                    landed[position or 0] = record

        landed: dict[int, bytes] = {}
        never: list[bytes] = []
        await asyncio.gather(*(member(name) for name in range(3)))
        one.land()
        entries = one.entries("orders")
        assert landed.items() <= {entry.position: entry.record for entry in entries}.items()
        assert not {entry.record for entry in entries} & set(never)
        assert [entry.position for entry in entries] == list(range(nats, nats + len(entries)))
        return [entry.record for entry in entries], outcomes

    once, again = asyncio.run(life()), asyncio.run(life())
    assert once == again
    assert "landed" in once[1]
