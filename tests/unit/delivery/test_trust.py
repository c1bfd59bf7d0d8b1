"""Whom this agent follows and for whom it seals is decided by its own file; the file may only refuse more."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from broker_crypto import errors
from broker_crypto.delivery.rules import Chain
from broker_crypto.delivery.trust import LocalPolicy, conflict, trusts
from broker_crypto.identity import ca, keys
from broker_crypto.records import Anchor
from broker_crypto.testing import EPOCH_MS
from tests.support.world import ROLES, World

OTHER = ca.found("another CA", keys.generate(), now_ms=EPOCH_MS)


async def founded(by: str, *, wait: float = 0) -> tuple[World, Chain]:
    world = World()
    actor = world.actor(by)
    await actor.turn()
    world.clock.advance(wait)
    await world.settle(actor)
    chain = actor.loop.member.chain
    assert chain is not None
    return world, chain


@pytest.mark.parametrize(
    ("founder", "changes", "trusted"),
    [
        ("ops", {}, True),
        ("ops", {"topics": ("orders", "more")}, True),
        ("ops", {"roles": (("agent://acme/ops", "admin"),)}, True),
        ("ops", {"roles": (("agent://acme/ops", "writer"), ("agent://acme/boss", "admin"))}, False),
        ("writer-1", {}, True),
        ("writer-1", {"roles": tuple(reversed(ROLES))}, True),
        ("writer-1", {"topics": ("orders", "more")}, False),
        ("writer-1", {"key_retention": -1}, False),
        ("writer-1", {"max_offline": -1}, False),
        ("writer-1", {"roles": (*ROLES, ("agent://acme/x", "reader"))}, False),
    ],
)
async def test_a_founding_is_trusted_if_an_admin_of_the_file_made_it_or_it_says_what_the_file_says(
    founder: str, changes: dict[str, object], trusted: bool
) -> None:
    world, chain = await founded(founder, wait=3)
    assert trusts(LocalPolicy(1, replace(world.policy, **changes)), chain) is trusted  # type: ignore[arg-type]


async def test_a_founder_under_another_anchor_is_never_trusted() -> None:
    world, chain = await founded("ops")
    prefix = ("agent://acme/",)
    for anchors in ((Anchor(OTHER.certificate, prefix),), (), (Anchor(world.authority.certificate, ("agent://acme/writers/",)),)):
        assert not trusts(LocalPolicy(1, replace(world.policy, anchors=anchors)), chain)
    assert not trusts(LocalPolicy(2, world.policy), (await founded("writer-1", wait=3))[1])


def local(world: World, suite: int = 1, **changes: object) -> LocalPolicy:
    return LocalPolicy(suite, replace(world.policy, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("group", "file", "word"),
    [
        ({}, {}, None),
        ({}, {"suite": 3}, "suite"),
        ({}, {"roles": (*ROLES, ("agent://acme/more-*", "reader"))}, None),
        ({}, {"roles": (("agent://acme/*", "reader"), ("agent://acme/ops", "admin"))}, None),
        ({}, {"roles": ROLES[:2]}, "lets in"),
        ({}, {"roles": (*ROLES[:2], ("agent://acme/reader-1", "reader"))}, "lets in"),
        ({"roles": (*ROLES, ("agent://acme/a/*", "reader"))}, {}, "lets in"),
        ({"roles": (*ROLES, ("agent://acme/*-1", "reader"))}, {"roles": (*ROLES, ("agent://acme/*", "reader"))}, None),
        ({"roles": (*ROLES, ("agent://acme/*", "reader"))}, {"roles": (*ROLES, ("agent://acme/*-1", "reader"))}, "lets in"),
        ({"anchors": "more"}, {}, "anchor"),
        ({}, {"anchors": "more"}, None),
        ({}, {"anchors": "narrower"}, "anchor"),
        ({"anchors": "narrower"}, {}, None),
    ],
)
async def test_for_a_group_that_allows_more_than_the_file_nothing_is_sealed(
    group: dict[str, object], file: dict[str, object], word: str | None
) -> None:
    world, chain = await founded("ops")
    own = world.policy.anchors[0]
    anchors = {
        "more": (own, Anchor(OTHER.certificate, ("agent://acme/",))),
        "narrower": (Anchor(own.certificate, ("agent://acme/a/", "agent://acme/b/")),),
    }

    def meant(changes: dict[str, object]) -> dict[str, object]:
        return {name: anchors[value] if name == "anchors" else value for name, value in changes.items()}  # type: ignore[index]

    chain = replace(chain, policy=replace(chain.policy, **meant(group)))  # type: ignore[arg-type]
    found = conflict(local(world, **meant(file)), chain)  # type: ignore[arg-type]
    assert (found is None) == (word is None)
    assert found is None or word in found.what  # type: ignore[operator]


async def test_a_member_whose_file_is_stricter_follows_rotates_and_reads_and_seals_nothing() -> None:
    world = World()
    ops, writer = world.actor("ops"), world.actor("writer-1")
    await world.settle(ops, writer)
    stricter = world.terms(roles=ROLES[:2])
    strict = world.actor("writer-1", own=writer.own, store=writer.store, policy=stricter)
    await strict.loop.load()
    assert isinstance(strict.closed, errors.PolicyConflict)
    assert strict.closed is strict.loop.conflict()
    assert strict.view is not None
    assert strict.view.epochs
    want = asyncio.ensure_future(strict.group.rotate())
    await asyncio.sleep(0)
    await world.settle(strict, ops)
    await want
    assert (strict.state, strict.epoch) == ("member", 2)
    assert isinstance(strict.loop.closed_by(), errors.PolicyConflict)
