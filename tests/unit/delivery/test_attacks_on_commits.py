"""Commits at the edges of what counts: sent twice, at the ends of a certificate's time, and whom a refusal names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker_crypto.delivery import rules
from broker_crypto.identity import ca, keys
from tests.support.lies import leaves
from tests.support.lies.scene import Scene


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


def test_the_same_commit_twice_is_stale(scene: Scene) -> None:
    entry = scene.entry(scene.member("writer-1").write().record)
    after = rules.judge(scene.chain, entry, "orders").chain
    again = rules.judge(after, replace(entry, position=entry.position + 1), "orders")
    assert (again.kind, again.chain) == ("stale", after)


def test_a_certificate_that_ends_between_the_signed_time_and_the_brokers_counts() -> None:
    scene = Scene()
    scene.world.clock.advance(90 * 86400 - 10)  # the members' certificates end in 10 s, and 999 ms
    scene.now = scene.world.clock.now_ms()
    record = scene.member("writer-1").write().record
    assert scene.judged(record, broker_ms=scene.now + 40_000).kind == "commit"
    late = scene.member("writer-1", time_ms=scene.now + 20_000).write().record
    verdict = scene.judged(late, broker_ms=scene.now)
    assert (verdict.kind, verdict.reason) == ("invalid", "chain.validity")


def test_a_certificate_that_begins_between_the_signed_time_and_the_brokers_does_not_count() -> None:
    scene = Scene()
    own = leaves.not_valid_yet(scene)
    verdict = scene.judged(scene.outside(own).write().record, broker_ms=scene.now + 40_000)
    assert (verdict.kind, verdict.reason) == ("invalid", "chain.validity")
    assert scene.judged(scene.outside(own, time_ms=scene.now + 20_000).write().record, broker_ms=scene.now).kind == "commit"


def test_only_who_signed_is_named_as_the_sender_of_a_commit_that_does_not_count(scene: Scene) -> None:
    """The certificate in a path that does not count says whatever its maker likes."""
    victim = "agent://acme/ops"
    other = ca.found("test CA", keys.generate(), now_ms=scene.now)
    forged = scene.certified(victim, authority=other)
    verdict = scene.judged(scene.member("writer-1").write(own=forged.leaf(1)).record)
    assert (verdict.kind, verdict.sender) == ("invalid", "agent://acme/writer-1")
    verdict = scene.judged(scene.outside(forged).write().record)
    assert (verdict.kind, verdict.sender) == ("invalid", None)
    assert scene.judged(scene.member("writer-1").write(encoded_info=lambda _: b"").record).sender == "agent://acme/writer-1"
