"""A network between agents and a real server that swallows answers, doubles, delays, replays and drops messages, and cuts connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import nats.errors
import pytest
from nats.aio.client import Client

from broker_crypto.records import LockedOut
from tests.support.agents import Cast, Realm, number_of, numbered, take, together, until
from tests.support.nats_proxy import NatsProxy


@pytest.fixture
async def proxy(realm: Realm) -> AsyncIterator[NatsProxy]:
    async with NatsProxy(realm.url) as one:
        yield one


async def test_the_proxy_carries_everything_where_no_fault_is_asked_for(cast: Cast, proxy: NatsProxy, realm: Realm, raw: Client) -> None:
    await realm.stream(raw)
    ops = await cast("ops", url=proxy.url)
    reader = await cast("reader-1", url=proxy.url)
    await together(ops, reader)
    await ops.publish(*range(100))
    assert sorted(number_of(m.data) for m in await take(await reader.reader("r"), 100)) == list(range(100))
    assert not proxy.struck


@pytest.mark.parametrize("kind", ["swallow", "duplicate", "drop", "delay"])
async def test_a_commit_whose_append_meets_a_fault_is_done_once(cast: Cast, proxy: NatsProxy, kind: str) -> None:
    ops = await cast("ops")
    writer = await cast("writer-1", url=proxy.url)
    await together(ops, writer)
    before = ops.group.epoch
    proxy.strike(kind, "_bc.group.", seconds=0.5)
    await asyncio.wait_for(writer.group.rotate(), 20)
    assert proxy.struck[kind] == 1
    await together(ops, writer)
    assert ops.group.epoch == before + 1
    assert not writer.group.intents
    assert not ops.of(LockedOut)
    assert not writer.of(LockedOut)


async def test_commits_that_are_replayed_later_change_nothing(cast: Cast, proxy: NatsProxy) -> None:
    ops = await cast("ops")
    writer = await cast("writer-1", url=proxy.url)
    proxy.strike("replay", "_bc.group.", times=3)
    for _ in range(3):
        await writer.group.rotate()
    await together(ops, writer)
    epoch, position = ops.group.epoch, ops.group.position
    assert proxy.replay_kept() == 3  # each names the sequence that it expected: the server itself refuses it
    await writer.group.rotate()
    await together(ops, writer)
    assert ops.group.epoch == epoch + 1
    assert ops.group.position == position + 1


async def test_connections_cut_again_and_again_lose_nothing(cast: Cast, proxy: NatsProxy, realm: Realm, raw: Client) -> None:
    await realm.stream(raw)
    ops = await cast("ops", url=proxy.url)
    writer = await cast("writer-1", url=proxy.url)
    reader = await cast("reader-1")
    await together(ops, writer, reader)
    rotations = [asyncio.ensure_future(member.group.rotate()) for member in (ops, writer)]
    sent = 0
    for _ in range(5):
        proxy.reset()
        for _ in range(20):
            try:
                await writer.js.publish(f"{realm.root}.o.x", numbered(sent), timeout=1)
            except (nats.errors.Error, TimeoutError, OSError):
                continue  # not known to be stored: sent again under the same number
            sent += 1
    await asyncio.wait_for(asyncio.gather(*rotations), 30)
    await together(ops, writer, reader)
    assert sent > 50
    read: set[int] = set()
    subscription = await reader.reader("r")
    async with asyncio.timeout(30):
        while read < set(range(sent)):
            read |= {number_of(m.data) for m in await take(subscription, 1)}


async def test_an_answer_to_a_publish_that_is_lost_is_a_time_out_and_the_record_opens_once_stored(
    cast: Cast, proxy: NatsProxy, realm: Realm, raw: Client
) -> None:
    await realm.stream(raw)
    ops = await cast("ops", url=proxy.url)
    reader = await cast("reader-1")
    await together(ops, reader)
    proxy.strike("swallow", f"{realm.root}.o.")
    with pytest.raises(nats.errors.TimeoutError):
        await ops.js.publish(f"{realm.root}.o.x", numbered(1), timeout=0.5)
    assert [number_of(m.data) for m in await take(await reader.reader("r"), 1)] == [1]


async def test_a_record_that_the_network_doubles_is_marked_as_a_duplicate(cast: Cast, proxy: NatsProxy, realm: Realm, raw: Client) -> None:
    await realm.stream(raw)
    ops = await cast("ops", url=proxy.url)
    reader = await cast("reader-1")
    await together(ops, reader)
    proxy.strike("duplicate", f"{realm.root}.o.")
    await ops.publish(7)
    first, second = await take(await reader.reader("r"), 2)
    assert (first.security.duplicate, second.security.duplicate) == (False, True)
    assert first.security.record_id == second.security.record_id


async def test_joining_over_a_network_that_drops_every_other_append_ends_well(cast: Cast, proxy: NatsProxy) -> None:
    ops = await cast("ops")
    proxy.strike("drop", "_bc.group.", times=2)
    late = await cast("reader-2", url=proxy.url, ready=False)
    await until(lambda: late.agent.groups and late.group.state == "member", "the third try gets in", 30)
    assert proxy.struck["drop"] == 2
    await together(ops, late)
