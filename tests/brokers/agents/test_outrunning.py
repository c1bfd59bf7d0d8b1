"""Nobody outruns its own removal, on a real broker: one that answers every commit at once with its own, and a flood of junk in the log."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from broker_crypto import limits
from broker_crypto.delivery.loop import GroupLoop
from broker_crypto.parts import SystemClock
from broker_crypto_nats.grouplog import SUBJECT, NatsGroupLog
from tests.support.agents import Cast, Member, Realm, number_of, take, together, until, uri
from tests.support.lies.outrunner import Insider, Outrunners

ATTACKER = uri("writer-1")


async def insider_of(realm: Realm) -> Insider:
    """A member whose agent is gone and whose keys are in other hands."""
    async with realm.agent("writer-1") as member:
        await member.ready()
        loop = member.group._loop
        assert isinstance(loop, GroupLoop)
        return Insider(loop.own, loop.member)


async def read_on(log: NatsGroupLog, insider: Insider) -> None:
    """To the log's end."""
    while True:
        last = insider.member.cursor.last.position if insider.member.cursor else 0
        entries = await log.read(last, 256)
        insider.read(entries)
        if not entries or entries[-1].position == last:
            return


@asynccontextmanager
async def answering(realm: Realm, raw: Client, outrunners: Outrunners) -> AsyncIterator[None]:
    """Hear every record of the log as the broker does, and answer the commits of others at once."""
    log, subject = NatsGroupLog(raw), SUBJECT + realm.topic
    await log.open(realm.topic, create=False)
    turn = asyncio.Lock()

    async def heard(message: Msg) -> None:
        async with turn:
            if outrunners.own(message.data):
                return
            await read_on(log, outrunners.insiders[0])
            for written in outrunners.answers([]):
                await raw.publish(subject, written)

    subscription = await raw.subscribe(subject, cb=heard)
    async with running(lambda stop: pressing(outrunners, log, raw, stop, subject=subject, turn=turn)):
        yield
    await subscription.unsubscribe()


async def pressing(
    outrunners: Outrunners, log: NatsGroupLog, raw: Client, stop: asyncio.Event, *, subject: str, turn: asyncio.Lock
) -> None:
    """Beyond answering: commit by oneself, again and again, as fast as the log says how it went."""
    while not stop.is_set():
        async with turn:
            await read_on(log, outrunners.insiders[0])
            for written in outrunners.answers([]):
                await raw.publish(subject, written)
        await raw.flush()
        await asyncio.sleep(0.005)


async def flooding(raw: Client, subject: str, stop: asyncio.Event, count: Callable[[int], None]) -> None:
    """Junk, some hundreds of records a second."""
    while not stop.is_set():
        for _ in range(25):
            await raw.publish(subject, secrets.token_bytes(40))
        await raw.flush()
        count(25)
        await asyncio.sleep(0.1)


@asynccontextmanager
async def running(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Work until the block ends. It is asked to stop, not cancelled: the NATS client swallows what is cancelled in a publish."""
    stop = asyncio.Event()
    task = asyncio.ensure_future(work(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


def identities(member: Member) -> set[str]:
    return {one.identity for one in member.group.members}


async def stage(realm: Realm, cast: Cast, raw: Client, what: str) -> tuple[Member, Member, Outrunners]:
    await realm.stream(raw)
    ops, reader = await cast("ops"), await cast("reader-1")
    outrunners = Outrunners(SystemClock(), secrets.token_bytes, [await insider_of(realm)], what=what)
    await until(lambda: ATTACKER in identities(ops), "the attacker is in")
    return ops, reader, outrunners


@pytest.mark.parametrize("what", ["", "path_secret", "confirmation_tag"], ids=["honest otherwise", "bad path secrets", "bad tags"])
async def test_who_answers_every_commit_at_once_with_its_own_is_removed_all_the_same(
    realm: Realm, cast: Cast, raw: Client, what: str
) -> None:
    ops, reader, outrunners = await stage(realm, cast, raw, what)
    async with answering(realm, raw, outrunners):
        await asyncio.sleep(0.3)  # it is at it
        await asyncio.wait_for(ops.group.remove(ATTACKER), 60)
        assert ATTACKER not in identities(ops)
    assert outrunners.counted >= limits.RATE_KEY - 1  # its joining was one within these ten seconds, too
    late = await cast("reader-2")
    await together(ops, reader, late, patience=60)
    assert ATTACKER not in identities(late)
    await ops.publish(1)
    assert [number_of(m.data) for m in await take(await late.reader(), 1)] == [1]


async def test_a_removal_comes_through_a_flood_of_junk_and_so_does_a_newcomer(realm: Realm, cast: Cast, raw: Client) -> None:
    ops, reader, outrunners = await stage(realm, cast, raw, "")
    poured: list[int] = []

    async def flood(stop: asyncio.Event) -> None:
        await flooding(raw, SUBJECT + realm.topic, stop, poured.append)

    async with running(flood), answering(realm, raw, outrunners):
        await asyncio.sleep(0.3)
        await asyncio.wait_for(ops.group.remove(ATTACKER), 60)
    async with running(flood):
        late = await cast("reader-2")
        await together(ops, reader, late, patience=60)
    assert sum(poured) > 100
    assert ATTACKER not in identities(late)
    assert late.group.position > sum(poured) / 2
