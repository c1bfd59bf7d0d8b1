"""One member signs a commit that others cannot enter, on a real broker: its epoch is lost, the group is not."""

from __future__ import annotations

import secrets
import time

import pytest
from nats.aio.client import Client

from broker_crypto import errors
from broker_crypto.delivery.loop import GroupLoop
from broker_crypto.records import LockedOut
from broker_crypto_nats.grouplog import NatsGroupLog
from tests.support.agents import Cast, Member, Realm, number_of, take, together, until, uri
from tests.support.lies.secret import wrong_commit

LIAR = 1  # leaf of writer-1


def loop_of(member: Member) -> GroupLoop:
    loop = member.group._loop
    assert isinstance(loop, GroupLoop)
    return loop


async def strike(member: Member, raw: Client, lie: str, victim: int | None = None) -> None:
    """The member puts a commit with this lie in it on the log, and holds what it leads to."""
    loop = loop_of(member)
    assert loop.member.mls is not None
    staged = wrong_commit(loop.member.mls, time.time_ns() // 1_000_000, lie, secrets.token_bytes, victim=victim)
    loop.memory.staged[staged.hash] = staged
    log = NatsGroupLog(raw)
    await log.open(member.realm.topic, create=False)
    await log.append(staged.record, None)


async def mended(*members: Member) -> None:
    await until(lambda: not any(loop_of(m).member.mend for m in members), "external_pub is that of the epoch again")
    await together(*members)


async def five(cast: Cast) -> list[Member]:
    return await cast.all("ops", "writer-1", "reader-0", "reader-1", "reader-2")


@pytest.mark.parametrize("lie", ["membership_tag", "confirmation_tag", "path_secret"])
async def test_after_a_commit_that_nobody_can_enter_everybody_is_in_one_epoch_again(
    realm: Realm, cast: Cast, raw: Client, lie: str
) -> None:
    await realm.stream(raw)
    members = await five(cast)
    ops, liar, reader, *_ = members
    epoch = ops.group.epoch
    await ops.publish(1)
    await strike(liar, raw, lie)
    honest = [m for m in members if m is not liar]
    await until(lambda: all(m.of(LockedOut) for m in honest), "everybody but the liar is locked out")
    await mended(*members)
    reasons = {"path_secret": {"path_secret", "path_key"}}.get(lie, {lie})
    for member in honest:
        (event,) = member.of(LockedOut)
        assert (event.epoch, event.suspect) == (epoch + 1, uri("writer-1"))
        assert event.reason in reasons
        assert member.metrics.value("group_commits_total", verdict="locked_out") == 1
    await ops.publish(2)
    await liar.publish(3)
    assert {number_of(m.data) for m in await take(await reader.reader(), 3)} == {1, 2, 3}


async def test_a_bad_path_secret_locks_out_its_victim_alone_and_what_was_sealed_meanwhile_is_named_so(
    realm: Realm, cast: Cast, raw: Client
) -> None:
    await realm.stream(raw)
    others = await cast.all("ops", "writer-1", "reader-0", "reader-1")
    async with realm.agent("reader-2") as victim:
        await victim.ready()
        await together(*others, victim)
        assert victim.group.leaf == 4
    liar = others[LIAR]
    epoch = liar.group.epoch
    await strike(liar, raw, "path_secret", victim=4)
    await until(lambda: all(m.group.epoch == epoch + 1 for m in others))
    await liar.publish(1)
    victim = await cast("reader-2")
    await together(*others, victim)
    assert [len(m.of(LockedOut)) for m in (*others, victim)] == [0, 0, 0, 0, 1]
    assert victim.group.epoch == epoch + 2
    with pytest.raises(errors.EpochMissed) as caught:
        await (await victim.reader("all")).fetch(1)
    await caught.value.message.term()
    await liar.publish(2)
    assert [number_of(m.data) for m in await take(await victim.reader("all"), 1)] == [2]


async def test_after_a_false_external_pub_the_head_is_mended_and_a_newcomer_gets_in(realm: Realm, cast: Cast, raw: Client) -> None:
    members = await five(cast)
    liar = members[LIAR]
    epoch = liar.group.epoch
    await strike(liar, raw, "external_pub")
    await until(lambda: all(m.group.epoch > epoch for m in members))
    await mended(*members)
    assert not any(m.of(LockedOut) for m in members)
    late = await cast("reader-9")
    await mended(*members, late)


async def test_a_newcomer_that_meets_a_false_external_pub_is_in_one_epoch_with_everybody(realm: Realm, cast: Cast, raw: Client) -> None:
    members = await five(cast)
    await strike(members[LIAR], raw, "external_pub")
    late = await cast("reader-9")
    await mended(*members, late)
