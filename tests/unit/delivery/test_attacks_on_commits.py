"""Commits that are right in everything but one thing: all refuse them alike, and the honest one then counts.

Each attack is signed with the real keys of those who make it. What is refused is named by its rule.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker_crypto.delivery import rules
from broker_crypto.identity import ca, keys
from tests.unit.delivery import attacks_on_commits, attacks_on_leaves
from tests.unit.delivery.scene import Attack, Scene, certified, items_of

ATTACKS = [*attacks_on_commits.ATTACKS, *attacks_on_leaves.ATTACKS]


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


@pytest.fixture(scope="module")
def nist() -> Scene:
    return Scene(suite=2, scheme="p256")


@pytest.mark.parametrize(("reasons", "attack"), ATTACKS, ids=[attack.__name__ for _, attack in ATTACKS])
def test_a_commit_with_one_thing_wrong_is_refused_by_all_alike(scene: Scene, reasons: tuple[str, ...], attack: Attack) -> None:
    verdict = scene.judged(attack(scene))
    assert verdict.kind == "invalid"
    assert verdict.reason in reasons
    assert verdict.chain is scene.chain


@pytest.mark.parametrize("who", ["member", "outside", "back with its key", "replica"])
def test_what_the_attacks_begin_with_counts(scene: Scene, who: str) -> None:
    if who == "back with its key":
        scribe, how = scene.outside(scene.owns["writer-2"]), {"remove": 2}
    else:
        scribe, how = scene.member("writer-1") if who == "member" else scene.outside("writer-1" if who == "replica" else "writer-9"), {}
    verdict = scene.judged(scribe.honest(**how))
    assert (verdict.kind, verdict.reason) == ("commit", "")
    assert verdict.sender == scribe.own.identity


def test_the_same_commit_twice_is_stale(scene: Scene) -> None:
    entry = scene.entry(scene.member("writer-1").honest())
    after = rules.judge(scene.chain, entry, "orders").chain
    again = rules.judge(after, replace(entry, position=entry.position + 1), "orders")
    assert (again.kind, again.chain) == ("stale", after)


def test_a_certificate_that_ends_between_the_signed_time_and_the_brokers_counts() -> None:
    scene = Scene()
    scene.world.clock.advance(90 * 86400 - 10)  # the members' certificates end in 10 s, and 999 ms
    scene.now = scene.world.clock.now_ms()
    record = scene.member("writer-1").honest()
    assert scene.judged(record, broker_ms=scene.now + 40_000).kind == "commit"
    late = scene.member("writer-1", time_ms=scene.now + 20_000).honest()
    verdict = scene.judged(late, broker_ms=scene.now)
    assert (verdict.kind, verdict.reason) == ("invalid", "chain.validity")


def test_a_certificate_that_begins_between_the_signed_time_and_the_brokers_does_not_count() -> None:
    scene = Scene()
    own = attacks_on_leaves.not_valid_yet(scene)
    verdict = scene.judged(scene.outside(own).honest(), broker_ms=scene.now + 40_000)
    assert (verdict.kind, verdict.reason) == ("invalid", "chain.validity")
    assert scene.judged(scene.outside(own, time_ms=scene.now + 20_000).honest(), broker_ms=scene.now).kind == "commit"


def test_groups_of_p256_judge_alike(nist: Scene) -> None:
    assert nist.judged(nist.member("writer-1").honest()).kind == "commit"
    assert nist.judged(nist.outside().honest()).kind == "commit"
    leaves, commits = attacks_on_leaves, attacks_on_commits
    for attack in (leaves.an_external_pub_of_small_order, leaves.a_leaf_with_a_key_of_small_order, commits.a_remove_by_an_admin):
        assert nist.judged(attack(nist)).kind == "invalid"


def test_only_who_signed_is_named_as_the_sender_of_a_commit_that_does_not_count(scene: Scene) -> None:
    """The certificate in a path that does not count says whatever its maker likes."""
    victim = "agent://acme/ops"
    other = ca.found("test CA", keys.generate(), now_ms=scene.now)
    scribe, forged = scene.member("writer-1"), certified(scene, victim, authority=other)
    verdict = scene.judged(scribe.with_info(scribe.say((), scribe.path_with(forged)), private=forged.signature_private))
    assert (verdict.kind, verdict.sender) == ("invalid", "agent://acme/writer-1")
    scribe = scene.outside(forged)
    verdict = scene.judged(scribe.with_info(scribe.say(items_of(scribe), scribe.path_with())))
    assert (verdict.kind, verdict.sender) == ("invalid", None)
    scribe = scene.member("writer-1")
    assert scene.judged(scribe.with_info(scribe.say((), scribe.path_with()), group_info=b"")).sender == scribe.own.identity
