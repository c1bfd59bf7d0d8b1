"""Own commits: what is staged stays until an epoch has ended, whatever is sent counts once, and junk keeps nobody from committing."""

from __future__ import annotations

import asyncio

import pytest

from broker_crypto import errors, limits
from broker_crypto.delivery import plan, state
from broker_crypto.delivery.membership import roster_of
from broker_crypto.delivery.plan import Habits
from broker_crypto.identity import ca, identity, keys
from broker_crypto.mls.ratchet_tree import RatchetTree
from broker_crypto.records import ClockSkew, LogEntry, RosterEntry
from tests.support.world import Actor, World, same_epoch


async def two(world: World, **how: object) -> tuple[Actor, Actor]:
    ops, writer = world.actor("ops", **how), world.actor("writer-1", **how)  # type: ignore[arg-type]
    await world.settle(ops, writer)
    assert same_epoch(ops, writer)
    return ops, writer


async def append(world: World, record: bytes) -> None:
    log = world.broker.group_log()
    await log.open("orders", create=True)
    await log.append(record, None)


async def staged_rows(actor: Actor) -> int:
    async with actor.store.transaction() as tx:
        return len(await tx.scan(state.STAGED, state.prefix("orders")))


class Flooded:
    """A log into which somebody writes junk just before every append. `expected` lists what the appends expected."""

    def __init__(self, world: World) -> None:
        self.world, self.inner = world, world.broker.group_log()
        self.expected: list[int | None] = []

    async def open(self, group: str, create: bool) -> str:
        return await self.inner.open(group, create)

    async def head(self) -> int:
        return await self.inner.head()

    async def read(self, position: int, limit: int) -> list[LogEntry]:
        return await self.inner.read(position, limit)

    async def append(self, record: bytes, expected: int | None) -> int | None:
        await append(self.world, b"junk")
        self.expected.append(expected)
        return await self.inner.append(record, expected)

    async def changed(self) -> None:
        await self.inner.changed()

    async def close(self) -> None:
        await self.inner.close()


async def test_who_loses_three_races_against_junk_appends_without_expecting_anything() -> None:
    world = World()
    ops, writer = await two(world)
    log = Flooded(world)
    writer.loop.use(log)
    want = asyncio.ensure_future(writer.group.rotate())
    await asyncio.sleep(0)
    await world.settle(writer, ops)
    await want
    assert same_epoch(ops, writer)
    assert log.expected[-1] is None
    assert None not in log.expected[:-1]
    assert len(log.expected) == limits.LOST_RACES_BEFORE_BLIND + 1
    assert await staged_rows(writer) == 0


async def test_what_is_staged_outlives_junk_refusals_and_restarts_and_goes_when_an_epoch_ends() -> None:
    world = World()
    ops, writer = await two(world)
    (staged,) = await writer.loop.writer.stage(plan.Due(plan.COMMIT))
    world.broker.skew_ms = 120_000
    await append(world, staged.record)  # refused for its time
    world.broker.skew_ms = 0
    await append(world, b"junk")
    await writer.turn()
    assert [type(e) for e in writer.events].count(ClockSkew) == 1
    assert await staged_rows(writer) == 1
    again = await world.again(writer)
    await again.turn()
    assert await staged_rows(again) == 1
    await append(world, staged.record)  # a copy that lands late counts after all
    await world.settle(again, ops)
    assert same_epoch(again, ops)
    assert again.epoch == 2
    assert await staged_rows(again) == 0


async def test_of_two_staged_commits_the_one_that_counts_settles_its_intents_alone() -> None:
    world = World()
    ops, writer = await two(world)
    first = asyncio.ensure_future(writer.group.rotate())
    await asyncio.sleep(0.01)
    (one,) = writer.loop.memory.intents
    (older,) = await writer.loop.writer.stage(plan.Due(plan.COMMIT, intents=(one,)))
    second = asyncio.ensure_future(writer.group.rotate())
    await asyncio.sleep(0.01)
    (newer,) = await writer.loop.writer.stage(plan.Due(plan.COMMIT, intents=tuple(writer.loop.memory.intents)))
    assert newer is not None
    await append(world, older.record)
    await append(world, newer.record)
    await append(world, older.record)
    await world.settle(writer, ops)
    await asyncio.gather(first, second)
    assert same_epoch(ops, writer)
    assert ops.epoch == 3  # the newer one was stale; what only it had asked for came with the next
    assert ops.verdicts.count("stale") == 2


async def test_a_commit_that_waited_too_long_to_count_is_built_anew_beside_it() -> None:
    world = World()
    ops, writer = await two(world)
    (old,) = await writer.loop.writer.stage(plan.Due(plan.COMMIT))
    world.clock.advance(50)
    want = asyncio.ensure_future(writer.group.rotate())
    await asyncio.sleep(0)
    await world.settle(writer, ops)
    await want
    assert same_epoch(ops, writer)
    assert "invalid" not in ops.verdicts


@pytest.mark.parametrize("skew_s", [-1199, -61, -59, 0, 59, 61, 1199])
async def test_whatever_the_clocks_say_up_to_twenty_minutes_everything_is_done(skew_s: int) -> None:
    world = World()
    ops, writer = await two(world, habits=Habits(jitter=0.5))
    world.broker.skew_ms = skew_s * 1000
    if skew_s < 0:
        world.clock.advance(-skew_s)  # the broker's time goes on from where it was
    for actor in (writer, ops, writer):
        want = asyncio.ensure_future(actor.group.rotate())
        await asyncio.sleep(0)
        for _ in range(4):
            await world.settle(writer, ops)
            world.clock.advance(0.1)
        await want
    assert same_epoch(ops, writer)
    assert ops.epoch == 4


async def test_an_intent_waits_while_the_clock_is_too_far_off_and_is_done_once_it_is_right() -> None:
    world = World()
    ops, writer = await two(world)
    world.broker.skew_ms = 3_600_000
    want = asyncio.ensure_future(writer.group.rotate())
    await asyncio.sleep(0)
    for _ in range(5):
        await writer.turn()
        world.clock.advance(30)
    assert not want.done()
    assert writer.loop.closed_by() is None
    world.clock.shift(3_600_000)
    world.broker.skew_ms = 0
    world.clock.advance(limits.RESYNC_MAX_SECONDS)
    await world.settle(writer, ops)
    await want
    assert same_epoch(ops, writer)


def test_a_key_that_comes_back_under_another_certificate_is_another_sender() -> None:
    world = World()

    async def founded() -> Actor:
        ops = world.actor("ops")
        await world.settle(ops)
        return ops

    ops = asyncio.run(founded())
    chain = ops.loop.member.chain
    assert chain is not None
    tree = chain.public.tree
    entry = roster_of(chain, {}, None)[0]
    known = {0: RosterEntry("agent://acme/somebody-else", entry.signature_key, True, entry.issuers)}
    for before in (None, RatchetTree.decode(chain.public.suite, tree.encode())):
        assert roster_of(chain, known, before)[0] == entry
        assert roster_of(chain, {0: entry}, before)[0] is entry
    assert roster_of(chain, {0: entry}, tree)[0] is entry


async def test_one_that_brings_its_key_under_another_identity_is_refused_and_says_so() -> None:
    world = World()
    ops, writer = await two(world)
    key = keys.generate()
    certificate = ca.issue(world.authority, "agent://acme/writer-7", key.public_key(), now_ms=world.clock.now_ms())
    mine = identity.of((certificate,), key)
    other = ca.issue(world.authority, "agent://acme/writer-8", key.public_key(), now_ms=world.clock.now_ms())
    theirs = identity.of((other,), key)
    owns = [type(ops.own)(who.uri, who.chain, who.signature_private, who.signature_public) for who in (mine, theirs)]
    first, second = world.actor("writer-7", own=owns[0]), world.actor("writer-8", own=owns[1])
    await world.settle(first)
    before = len(world.broker.entries("orders"))
    await world.settle(second)
    assert first.state == "member"
    assert len(world.broker.entries("orders")) == before
    error = second.loop.closed_by()
    assert isinstance(error, errors.GroupNotReady)
    assert "identity" in str(error)
