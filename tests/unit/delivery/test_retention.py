"""Keys of ended epochs go when `key_retention` is over: from memory, from the store and from every file of it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker_crypto import errors, limits, storage
from broker_crypto.channels.topic import TopicChannel, TopicSettings
from broker_crypto.delivery import plan, retention, state
from broker_crypto.delivery.membership import Epoch
from broker_crypto.delivery.retention import Jumps, Marks
from broker_crypto.delivery.state import Intent
from broker_crypto.records import KeysErased, RosterEntry
from broker_crypto.storage.memory import MemoryStore
from broker_crypto.testing import Crashed, FaultyStore, Moment, crash_at
from tests.support.lies.secret import wrong_commit
from tests.support.topic_world import opened, refused, sealed
from tests.support.world import Actor, World, same_epoch
from tests.unit.storage.conftest import GivenKey

DAY = 86400
KEPT = 7 * DAY  # what the world's policy says


@pytest.fixture
def world() -> World:
    return World()


async def pair(world: World, **how: object) -> tuple[Actor, Actor]:
    ops, writer = world.actor("ops"), world.actor("writer-1", **how)  # type: ignore[arg-type]
    await world.settle(ops, writer)
    assert same_epoch(ops, writer)
    return ops, writer


async def rotated(world: World, actor: Actor, *others: Actor) -> None:
    intent = Intent(world.random(16), plan.ROTATE, 0)
    async with actor.store.transaction() as tx:
        await tx.put(state.INTENT, state.prefix("orders") + intent.id, intent.encode())
    actor.loop.poke(reload=True)
    await world.settle(actor, *others)
    assert same_epoch(actor, *others)


def channel(world: World, actor: Actor) -> TopicChannel:
    made = TopicChannel(TopicSettings(topic="orders"), world.random)
    show(made, actor)
    return made


def show(shown: TopicChannel, actor: Actor) -> None:
    assert actor.view is not None
    shown.view = actor.view


def held(actor: Actor) -> list[int]:
    assert actor.view is not None
    return sorted(view.epoch for view in actor.view.epochs.values())


def erased_epochs(actor: Actor) -> list[int]:
    return [number for event in actor.events if isinstance(event, KeysErased) for number in event.epochs]


async def told() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def epoch_of(number: int, ended: int | None) -> Epoch:
    roster = {0: RosterEntry("agent://acme/a", b"k", True)}
    return Epoch(number, bytes(16), bytes(32), 1, 0, ended, ("orders",), roster, stream_secret=b"s" * 32)


# --- the decision -------------------------------------------------------------------------------------------------


def test_an_epoch_ends_at_the_signed_time_but_not_before_it_was_known_current_and_not_in_the_future() -> None:
    assert retention.ended_at(500, 400, 600) == 500
    assert retention.ended_at(100, 400, 600) == 400
    assert retention.ended_at(900, 400, 600) == 600
    assert retention.ended_at(100, 900, 600) == 600  # the clock was set back


def test_what_has_not_ended_or_is_kept_forever_is_never_due() -> None:
    epochs = [epoch_of(0, 1000), epoch_of(1, 5000), epoch_of(2, None)]
    for never in (-1, -2):
        assert retention.plan(epochs, never, 0, 10**15) == retention.Plan((), None)
    soon = retention.plan(epochs, 3, 0, 4000)
    assert ([e.epoch for e in soon.due], soon.wait) == ([0], 4.0)
    assert retention.plan(epochs, 3, 0, 3999).due == ()
    assert [e.epoch for e in retention.plan(epochs, 3, 0, 10**15).due] == [0, 1]
    held_up = retention.plan(epochs, 3, 9000, 8999)
    assert (held_up.due, held_up.wait) == ((), 0.001)


def test_what_is_erased_keeps_number_id_suite_and_times_and_nothing_else() -> None:
    whole = epoch_of(3, 7)
    gone = retention.erased(whole)
    assert gone == replace(whole, topics=(), roster={}, stream_secret=None)
    assert state.decode_epoch(state.encode_epoch(gone)) == gone


def test_a_clock_that_creeps_ahead_by_an_hour_has_jumped_and_one_that_lags_has_not() -> None:
    jumps = Jumps(0, 0.0)
    assert not jumps.jumped(limits.RETENTION_JUMP_MS, 0.0)
    assert jumps.jumped(limits.RETENTION_JUMP_MS + 1001, 1.0)
    assert not jumps.jumped(limits.RETENTION_JUMP_MS + 2001, 2.0)
    assert not jumps.jumped(0, 3.0)  # back
    assert jumps.jumped(limits.RETENTION_JUMP_MS + 4001, 4.0)  # and ahead again


def test_a_clock_that_was_set_back_holds_nothing_up_for_longer_than_a_day() -> None:
    marks = Marks(held_until=10**15)
    assert marks.held_at(1000).held_until == 1000 + limits.RETENTION_HOLD_MS
    assert Marks(held_until=5).held_at(1000).held_until == 5


# --- in a group ---------------------------------------------------------------------------------------------------


async def test_a_record_of_an_erased_epoch_is_refused_and_a_reader_of_newer_ones_reads_on(world: World) -> None:
    ops, writer = await pair(world)
    sender, reader = channel(world, ops), channel(world, writer)
    [old] = sealed(sender, b"old")
    assert opened(reader, old).payload == b"old"
    world.clock.advance(60)
    await rotated(world, ops, writer)
    world.clock.advance(60)
    show(sender, ops)
    [new] = sealed(sender, b"new")
    assert held(writer) == [1, 2]
    world.clock.advance(KEPT - 61)
    await world.settle(ops, writer)
    assert held(writer) == [1, 2]
    world.clock.advance(2)
    await writer.turn()
    await told()
    show(reader, writer)
    assert held(writer) == [2]
    assert erased_epochs(writer) == [1]
    assert isinstance(refused(reader, old), errors.KeyExpired)
    assert opened(reader, new).payload == b"new"
    assert opened(channel(world, writer), new).payload == b"new"
    again = await world.again(writer)
    assert held(again) == [2]
    assert isinstance(refused(channel(world, again), old), errors.KeyExpired)
    assert again.loop.memory.epochs == writer.loop.memory.epochs
    assert erased_epochs(writer) == [1]


async def test_the_own_terms_of_the_group_say_how_long_and_forever_is_forever() -> None:
    world = World()
    world.policy = replace(world.policy, key_retention=-1)
    ops, writer = await pair(world)
    await rotated(world, ops, writer)
    world.clock.advance(20 * DAY)
    await world.settle(ops, writer)
    assert held(writer) == [1, 2]
    assert erased_epochs(writer) == []


async def test_epochs_that_were_missed_or_before_the_join_are_told_as_before(world: World) -> None:
    ops, writer = await pair(world)
    assert writer.loop.member.mls is not None
    group = ops.loop.member.mls
    assert group is not None
    victim = writer.loop.member.mls.leaf
    bad = wrong_commit(group, world.clock.now_ms(), "path_secret", world.random, victim=victim)
    log = world.broker.group_log()
    await log.open("orders", create=True)
    await log.append(bad.record, None)
    await writer.turn()
    assert writer.view is not None
    before = (writer.view.absent, writer.view.missed)
    assert before[0]
    assert before[1]
    world.clock.advance(KEPT + DAY)
    await writer.turn()
    assert (writer.view.absent, writer.view.missed) == before
    assert 1 not in held(writer)
    assert held(writer) == [writer.view.current]


async def test_a_member_without_a_broker_erases_and_so_does_one_that_is_halted(world: World) -> None:
    ops, writer = await pair(world)
    await rotated(world, ops, writer)
    writer.loop.use(None)
    await ops.loop._halt(errors.LogRolledBack(group="orders"))
    world.clock.advance(KEPT + 1)
    for actor in (ops, writer):
        await actor.turn()
        assert held(actor) == [2]
    ops.loop.use(None)
    await ops.loop._close_retired()


async def test_a_loop_looks_again_when_the_next_key_is_due(world: World) -> None:
    ops, writer = await pair(world)
    await rotated(world, ops, writer)
    world.clock.advance(KEPT - 5)
    assert 0 < await writer.turn() <= 5
    world.clock.advance(5)
    await writer.turn()
    assert held(writer) == [2]


async def test_a_backdated_commit_ends_no_epoch_before_it_was_known_to_be_current(world: World) -> None:
    ops, writer = await pair(world)
    group, chain = ops.loop.member.mls, ops.loop.member.chain
    assert group is not None
    assert chain is not None
    world.clock.advance(10 * DAY)
    await writer.turn()
    world.broker.skew_ms = -10 * DAY * 1000  # a broker that helps
    log = world.broker.group_log()
    await log.open("orders", create=True)
    await log.append(wrong_commit(group, chain.time, "", world.random).record, None)
    known = world.clock.now_ms()
    world.clock.advance(5)
    await writer.turn()
    assert [e.ended for e in writer.loop.memory.epochs.values() if e.epoch == 1] == [known]
    assert held(writer) == [1, 2]


# --- a clock that jumps -------------------------------------------------------------------------------------------


async def test_after_a_jump_ahead_nothing_is_erased_for_a_day_also_over_restarts(world: World) -> None:
    ops, writer = await pair(world)
    await rotated(world, ops, writer)
    world.clock.shift(20 * DAY * 1000)
    await writer.turn()
    world.clock.advance(DAY / 2)
    await writer.turn()
    assert held(writer) == [1, 2]
    again = await world.again(writer)
    world.clock.advance(DAY / 2 - 2)
    wait = await again.turn()
    assert held(again) == [1, 2]
    assert 0 < wait <= 2
    world.clock.advance(2)
    await again.turn()
    assert held(again) == [2]


async def test_a_jump_that_is_taken_back_within_the_day_costs_no_key(world: World) -> None:
    ops, writer = await pair(world)
    await rotated(world, ops, writer)
    world.clock.shift(20 * DAY * 1000)
    await writer.turn()
    world.clock.shift(-20 * DAY * 1000)
    world.clock.advance(2 * DAY)
    await writer.turn()
    assert held(writer) == [1, 2]
    world.clock.advance(KEPT - 2 * DAY + 1)
    await writer.turn()
    assert held(writer) == [2]


# --- the store ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_crash_at_any_call_erases_whole_and_a_start_erases_the_rest(moment: Moment) -> None:
    point = 0
    while True:
        point += 1
        world = World()
        inner = MemoryStore()
        ops, writer = await pair(world, store=inner)
        for _ in range(3):
            await rotated(world, ops, writer)
        secrets = [e.stream_secret for e in writer.loop.memory.epochs.values() if e.ended is not None]
        world.clock.advance(KEPT + 1)
        faulty = FaultyStore(inner, crash_at(point, moment))
        try:
            victim = await world.again(writer, store=faulty)
            await victim.turn()
            await told()
        except Crashed:
            pass
        else:
            assert point > 8
            break
        async with inner.transaction() as tx:
            left = [state.decode_epoch(value).stream_secret for _, value in await tx.scan(state.EPOCH, b"")]
        assert [one is None for one in left] in ([False] * 4, [True] * 3 + [False]), point
        again = await world.again(writer, store=inner)
        await again.turn()
        await told()
        assert held(again) == [4]
        async with inner.transaction() as tx:
            rows = b"".join(value for _, value in await tx.scan(state.EPOCH, b""))
        assert not [s for s in secrets if s is not None and s in rows]


@pytest.fixture
async def on_disk(tmp_path: Path) -> AsyncIterator[storage.StateStore]:
    (tmp_path / "state").mkdir(mode=0o700)
    store = storage.open(tmp_path / "state" / "state.db", GivenKey())
    yield store
    await store.close()


def raw_rows(path: Path) -> dict[bytes, bytes]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT key, value FROM rows WHERE kind = 'epoch'").fetchall())


def traces(folder: Path, *rows: bytes) -> int:
    files = b"\n".join(file.read_bytes() for file in folder.iterdir())
    return sum(row[at : at + 8] in files for row in rows for at in range(0, len(row) - 7, 8))


async def test_who_takes_the_folder_and_the_key_after_key_retention_opens_nothing_older(
    world: World, on_disk: storage.StateStore, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    ops, writer = await pair(world, store=on_disk)
    sender = channel(world, ops)
    [old] = sealed(sender, b"old")
    [doomed] = [e for e in writer.loop.memory.epochs.values() if e.epoch == 1]
    await rotated(world, ops, writer)
    show(sender, ops)
    [new] = sealed(sender, b"new")
    before = raw_rows(folder / "state.db")
    sealed_row = before[state.epoch_key("orders", doomed)]
    assert traces(folder, sealed_row)  # the search finds what is there
    world.clock.advance(KEPT + 1)
    await writer.turn()
    await on_disk.erased()
    await told()
    assert erased_epochs(writer) == [1]
    stolen = tmp_path / "stolen"
    shutil.copytree(folder, stolen)
    assert traces(stolen, sealed_row) == 0
    assert doomed.stream_secret is not None
    thief = storage.open(stolen / "state.db", GivenKey())
    async with thief.transaction() as tx:
        kinds = (state.GROUP, state.CURSOR, state.EPOCH, state.STAGED, state.INTENT, state.RETENTION)
        plain = b"".join([value for kind in kinds for _, value in await tx.scan(kind)])
    current = next(e.stream_secret for e in writer.loop.memory.epochs.values() if e.epoch == 2)
    assert current is not None
    assert current in plain  # the thief reads every row
    assert doomed.stream_secret not in plain
    taken = await world.again(writer, store=thief)
    reader = channel(world, taken)
    assert isinstance(refused(reader, old), errors.KeyExpired)
    assert opened(reader, new).payload == b"new"
    await thief.close()
