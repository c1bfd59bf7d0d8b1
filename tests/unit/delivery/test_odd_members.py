"""Members with other files and clocks 400 days off read one history with equal authenticators, or stop by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

import pytest

from broker_crypto.delivery.committer import Own
from broker_crypto.delivery.deltas import Delta
from broker_crypto.delivery.group_policy import GroupPolicy
from broker_crypto.delivery.membership import Membership, follow
from broker_crypto.delivery.state import encode_member
from broker_crypto.identity import ca, identity, keys
from broker_crypto.records import Anchor, ClockSkew
from broker_crypto.testing import FakeClock
from tests.support.world import Actor, World, same_epoch

DAYS_400 = 400 * 86_400_000


class Off(FakeClock):
    """The world's clock, but that its wall is so many ms off."""

    def __init__(self, base: FakeClock, off_ms: int) -> None:
        super().__init__()
        self.base, self.off_ms = base, off_ms

    def now_ms(self) -> int:
        return self.base.now_ms() + self.off_ms

    def monotonic(self) -> float:
        return self.base.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self.base.sleep(seconds)


@dataclass(frozen=True)
class Odd:
    """What is odd: the file, the suite in it, the clock before and after it joined, how many days its certificate is valid.

    `state` is what it comes to, `code` why it seals nothing, `says` what that names.
    """

    name: str
    file: Callable[[World], dict[str, Any]] = lambda world: {}
    suite: int = 1
    before_ms: int = 0
    after_ms: int = 0
    state: str = "member"
    code: str | None = None
    says: str = ""
    days: int = 90


def own(world: World, days: int) -> Own:
    key = keys.generate()
    certificate = ca.issue(world.authority, "agent://acme/writer-1", key.public_key(), now_ms=world.clock.now_ms(), days=days)
    who = identity.of((certificate,), key)
    return Own(who.uri, who.chain, who.signature_private, who.signature_public)


def other_anchor(world: World) -> dict[str, Any]:
    other = ca.found("test CA", keys.generate(), now_ms=world.clock.now_ms())
    return {"anchors": (Anchor(other.certificate, ("agent://acme/",)),)}


def of_writers(*others: tuple[str, str]) -> Callable[[World], dict[str, Any]]:
    return lambda world: {"roles": (("agent://acme/writer-*", "writer"), *others)}


ADMIN, OTHER_ADMIN, READERS = ("agent://acme/ops", "admin"), ("agent://acme/other", "admin"), ("agent://acme/reader-*", "reader")
ODD = [
    Odd("another retention and no max_offline", lambda world: {"key_retention": -1, "max_offline": -1}),
    Odd("other topics", lambda world: {"topics": ("invoices",)}),
    Odd("itself as another admin", of_writers(ADMIN, READERS, ("agent://acme/writer-1", "admin"))),
    Odd("somebody barred", lambda world: {"barred": ("agent://acme/reader-1",)}),
    Odd("another suite", suite=2, code="policy_conflict"),
    Odd("no readers", of_writers(ADMIN), code="policy_conflict"),
    Odd("another admin", of_writers(OTHER_ADMIN, READERS), state="halted", code="untrusted_founding"),
    Odd("another anchor", other_anchor, state="halted", code="untrusted_founding"),
    Odd("a clock that was set ahead", after_ms=DAYS_400),
    Odd("a clock that was set back", after_ms=-DAYS_400, state="halted", code="log_clock_ahead"),
    Odd("a clock that is ahead", before_ms=DAYS_400, after_ms=DAYS_400, state="joining", code="group_not_ready", says="time", days=1000),
    Odd(
        "a clock that is ahead of its certificate",
        before_ms=DAYS_400,
        after_ms=DAYS_400,
        state="joining",
        code="group_not_ready",
        says="chain.validity",
    ),
    Odd("a clock that is behind", before_ms=-DAYS_400, after_ms=-DAYS_400, state="halted", code="log_clock_ahead"),
]


async def done(world: World, asked: Coroutine[Any, Any, None], *actors: Actor) -> None:
    """Run what was asked while everybody takes turns."""
    task = asyncio.ensure_future(asked)
    for _ in range(20):
        await asyncio.sleep(0)
        await world.settle(*actors)
        if task.done():
            break
        world.clock.advance(3)
    await asyncio.wait_for(task, 1)


async def life(world: World, honest: list[Actor], *others: Actor) -> Actor:
    """A history with every kind of commit; the one who joined last."""
    ops, writer, reader = honest
    everybody = [*honest, *others]
    await done(world, writer.group.rotate(), *everybody)
    await done(world, ops.group.change(Delta(add_topics=("invoices",), max_offline=30 * 86400)), *everybody)
    late = world.actor("reader-9")
    await world.settle(*everybody, late)
    await done(world, ops.group.remove("agent://acme/writer-2"), *everybody, late)
    await done(world, reader.group.leave(), *everybody, late)
    world.clock.advance(10)
    await world.settle(*everybody, late, rounds=12)
    await done(world, ops.group.rotate(), *everybody, late)
    await world.settle(*everybody, late, rounds=12)
    return late


def followed(world: World) -> Membership:
    """What one makes of the whole log who has no clock and no file."""
    member = Membership("orders")
    for entry in world.broker.entries("orders"):
        member = follow(member, entry, "log", {}, {}).next
    return member


def chain_rows(member: Membership) -> bytes:
    """The encoded rows of what everybody says alike."""
    return encode_member(replace(Membership(member.group), chain=member.chain))


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.name)
async def test_whoever_has_another_file_or_clock_reads_the_same_history_or_stops_by_name(odd: Odd) -> None:
    world = World()
    honest = [world.actor(name) for name in ("ops", "writer-3", "reader-1")]
    doomed = world.actor("writer-2")
    await world.settle(*honest, doomed)
    clock = Off(world.clock, odd.before_ms)
    file: GroupPolicy = replace(world.policy, **odd.file(world))
    strange = world.actor("writer-1", own=own(world, odd.days), policy=file, suite=odd.suite, clock=clock)
    await world.settle(*honest, doomed, strange)
    clock.off_ms = odd.after_ms
    late = await life(world, honest, doomed, strange)
    ops, writer = honest[:2]
    assert same_epoch(ops, writer, late)
    assert {m.identity.rpartition("/")[2] for m in ops.group.members} - {"writer-1"} == {"ops", "writer-3", "reader-9"}
    truth = followed(world)
    assert chain_rows(ops.loop.member) == chain_rows(late.loop.member) == chain_rows(truth)
    assert strange.state == odd.state
    closed = strange.loop.closed_by()
    assert (closed.code if closed else None) == odd.code
    if odd.code != "log_clock_ahead":
        assert chain_rows(strange.loop.member) == chain_rows(truth)
    if odd.state == "member":
        assert same_epoch(ops, strange)
    assert odd.says in str(closed)
    skew = [e.off_ms for e in strange.events if isinstance(e, ClockSkew)]
    assert set(skew) == ({-DAYS_400} if odd.says == "time" else set())


@pytest.mark.parametrize("odd", [one for one in ODD if one.after_ms], ids=lambda odd: odd.name)
async def test_with_the_clock_set_right_all_are_in_one_epoch(odd: Odd) -> None:
    world = World()
    honest = [world.actor(name) for name in ("ops", "writer-3", "reader-1")]
    doomed = world.actor("writer-2")
    await world.settle(*honest, doomed)
    clock = Off(world.clock, odd.before_ms)
    strange = world.actor("writer-1", own=own(world, odd.days), clock=clock)
    await world.settle(*honest, doomed, strange)
    clock.off_ms = odd.after_ms
    late = await life(world, honest, doomed, strange)
    clock.off_ms = 0
    members = [honest[0], honest[1], late, strange]
    for _ in range(100):
        await world.settle(*members)
        if same_epoch(*members):
            break
        world.clock.advance(15)
    assert same_epoch(*members)
    assert strange.loop.closed_by() is None
    assert chain_rows(strange.loop.member) == chain_rows(followed(world))


async def test_two_members_of_opposite_clocks_remove_nobody_and_agree() -> None:
    """By the one's clock all certificates have ended and all have been away too long; by the other's none has begun."""
    world = World()
    clocks = [Off(world.clock, 0), Off(world.clock, 0)]
    honest = [world.actor("ops"), world.actor("reader-1")]
    ahead, behind = (world.actor(name, clock=clock) for name, clock in zip(("writer-1", "writer-2"), clocks, strict=True))
    everybody = [*honest, ahead, behind]
    await world.settle(*everybody)
    assert same_epoch(*everybody)
    clocks[0].off_ms, clocks[1].off_ms = DAYS_400, -DAYS_400
    for _ in range(20):
        world.clock.advance(60)
        await world.settle(*everybody)
    await done(world, honest[0].group.rotate(), *everybody)
    assert len(honest[0].group.members) == 4
    assert same_epoch(*honest, ahead)
    assert behind.loop.member.halt == "log_clock_ahead"
    assert chain_rows(ahead.loop.member) == chain_rows(followed(world))
