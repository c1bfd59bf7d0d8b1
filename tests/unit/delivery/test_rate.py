"""How often one key and one identity may commit, and who lists fences: nobody outruns its own removal, admins excepted."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_crypto import limits
from broker_crypto.delivery import rights
from broker_crypto.delivery.chain import Recent, with_commit
from broker_crypto.delivery.log_records import FencedTopic
from broker_crypto.mls.proposals import Remove
from tests.unit.delivery.written import Log, sets

_BASE = Log()
WRITER = "agent://acme/writer-1"
FENCES = (FencedTopic("orders", "id", ((0, 5),)),)


@pytest.fixture
def log() -> Log:
    """ops, writer-1, writer-2 and reader-1 at leaves 0 to 3, nobody having committed within the window."""
    return copy.deepcopy(_BASE)


# --- one key ------------------------------------------------------------------------------------------------------------


def test_the_numbers_belong_to_the_format() -> None:
    assert (limits.RATE_KEY, limits.RATE_IDENTITY, limits.RATE_WINDOW_MS) == (4, 16, 10_000)


def test_a_key_commits_four_times_and_not_a_fifth_time_within_ten_seconds(log: Log) -> None:
    for _ in range(4):
        log.counts(log.commit("writer-1"))
    assert log.refused(log.commit("writer-1")) == "rate"
    log.counts(log.commit("writer-2"))
    log.now += 9_999
    assert log.refused(log.commit("writer-1")) == "rate"
    log.now += 1
    for _ in range(4):
        log.counts(log.commit("writer-1"))
    assert log.refused(log.commit("writer-1")) == "rate"


def test_each_commit_leaves_the_window_by_itself(log: Log) -> None:
    for _ in range(4):
        log.counts(log.commit("writer-1"))
        log.now += 2_500
    for _ in range(6):
        log.counts(log.commit("writer-1"))
        assert log.refused(log.commit("writer-1")) == "rate"
        log.now += 2_500


def test_the_window_is_one_of_signed_times_and_not_of_the_brokers(log: Log) -> None:
    start = log.now
    for _ in range(4):
        log.counts(log.commit("writer-1"))
    log.now += 30_000
    assert log.refused(log.commit("writer-1", time_ms=start + 9_999)) == "rate"
    log.counts(log.commit("writer-1", time_ms=start + 10_000))


def test_what_did_not_count_does_not_count_for_the_rate(log: Log) -> None:
    for _ in range(3):
        log.counts(log.commit("writer-1"))
    for written in (log.remove("writer-1", "writer-2"), log.commit("writer-1", fences=())):
        assert log.take(written).kind == "invalid"
    log.counts(log.commit("writer-1"))
    assert log.refused(log.commit("writer-1")) == "rate"


def test_a_join_is_a_commit_of_the_joiners_key_and_so_is_each_resync(log: Log) -> None:
    log.counts(log.join("writer-3"))
    log.counts(log.join("writer-3", remove=log.leaf("writer-3")))
    log.counts(log.commit("writer-3"))
    log.counts(log.join("writer-3", remove=log.leaf("writer-3")))
    assert log.refused(log.join("writer-3", remove=log.leaf("writer-3"))) == "rate"
    assert log.refused(log.commit("writer-3")) == "rate"


def test_a_key_that_was_removed_is_remembered_when_it_comes_back(log: Log) -> None:
    for _ in range(4):
        log.counts(log.commit("writer-1"))
    log.counts(log.remove("ops", "writer-1"))
    assert log.refused(log.join("writer-1")) == "rate"
    log.now += 10_000
    log.counts(log.join("writer-1"))


def test_the_key_that_signs_a_change_of_keys_is_the_old_one(log: Log) -> None:
    for _ in range(3):
        log.counts(log.commit("writer-1"))
    old = log.owns["writer-1"]
    log.counts(log.commit("writer-1", own=log.own("writer-1")))
    assert Counter(one.key for one in log.chain.recent) == {old.signature_public: 4}
    for _ in range(4):
        log.counts(log.commit("writer-1"))
    assert log.refused(log.commit("writer-1")) == "rate"


# --- one identity -------------------------------------------------------------------------------------------------------


def test_an_identity_commits_sixteen_times_with_whatever_keys(log: Log) -> None:
    for _ in range(4):
        log.counts(log.commit("writer-1"))
    for name in ("a", "b", "c", "d"):
        log.own(name, of="writer-1")
    for name in ("a", "b", "c"):
        log.counts(log.join(name))
        for _ in range(3):
            log.counts(log.commit(name))
        assert log.refused(log.commit(name)) == "rate"
    assert len(log.chain.recent) == 16
    assert log.refused(log.join("d")) == "rate"
    log.counts(log.join("writer-9"))
    log.now += 10_000
    log.counts(log.join("d"))


def test_changing_keys_with_each_commit_outruns_nothing(log: Log) -> None:
    for _ in range(16):
        log.counts(log.commit("writer-1", own=log.own("writer-1")))
    assert log.refused(log.commit("writer-1", own=log.own("writer-1"))) == "rate"


# --- admins, founders -----------------------------------------------------------------------------------------------------


def test_an_admin_commits_as_often_as_it_wants_and_no_more_is_kept_of_it_than_the_rule_needs(log: Log) -> None:
    for _ in range(20):
        log.counts(log.commit("ops"))
    assert len(log.chain.recent) == limits.RATE_IDENTITY
    log.counts(log.join("ops-2"))


def test_who_was_an_admin_has_its_commits_counted_by_the_policy_that_the_next_one_finds(log: Log) -> None:
    log.counts(log.join("ops-2"))
    for _ in range(4):
        log.counts(log.commit("ops"))
    roles = (("agent://acme/ops-2", "admin"), ("agent://acme/*", "writer"))
    log.counts(log.commit("ops-2", sets(log.terms(roles=roles))))
    assert log.refused(log.commit("ops")) == "rate"
    log.counts(log.commit("ops-2", sets(log.terms(roles=(*roles, ("agent://acme/ops", "admin"))))))
    log.counts(log.commit("ops"))


def test_who_becomes_an_admin_is_held_by_the_rate_until_then(log: Log) -> None:
    for _ in range(4):
        log.counts(log.commit("writer-1"))
    assert log.refused(log.commit("writer-1")) == "rate"
    log.counts(log.commit("ops", sets(log.terms(roles=(*log.policy.roles, (WRITER, "admin"))))))
    log.counts(log.commit("writer-1"))


def test_the_founding_is_no_commit() -> None:
    log = Log(names=("writer-1",))
    log.now -= 20_000
    assert (log.now, log.chain.recent) == (log.chain.time, ())
    for _ in range(4):
        log.counts(log.commit("writer-1"))
    assert log.refused(log.commit("writer-1")) == "rate"


def test_an_admin_gets_its_removal_in_against_a_key_that_answers_every_commit(log: Log) -> None:
    """Whoever holds one key wins four rounds; then the removal is the only commit that can count."""
    for _ in range(limits.RATE_KEY):
        removal = log.remove("ops", "writer-1")
        log.counts(log.commit("writer-1"))
        assert log.judged(removal).kind == "stale"
    removal = log.remove("ops", "writer-1")
    assert log.take(log.commit("writer-1")).kind == "invalid"
    log.counts(removal)


# --- what is kept -------------------------------------------------------------------------------------------------------


def test_a_key_is_remembered_behind_many_commits_of_its_identity_for_it_may_come_back_with_another() -> None:
    recent: tuple[Recent, ...] = ()
    for key in (b"a",) * 4 + tuple(bytes((n,)) for n in range(40)):
        recent = with_commit(recent, Recent(1, key, "x"))
    assert rights.is_too_many(replace(_BASE.chain, recent=recent), Recent(1, b"a", "y"))
    assert not rights.is_too_many(replace(_BASE.chain, recent=recent), Recent(1, b"b", "y"))


commits = st.lists(
    st.tuples(st.integers(0, 3_000), st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), st.sampled_from(["x", "y"]), st.booleans()),
    max_size=120,
)


@given(commits)
@settings(max_examples=200, deadline=None)
def test_what_is_forgotten_never_changes_a_verdict(tries: list[tuple[int, bytes, str, bool]]) -> None:
    """Against every commit remembered for ever; `admin` ones are not held."""
    log = _BASE
    time = log.now
    everything: list[Recent] = []
    recent: tuple[Recent, ...] = ()
    for step, key, identity, admin in tries:
        time += step
        one = Recent(time, key, identity)
        window = [other for other in everything if time - 10_000 < other.time <= time]
        too_many = sum(o.key == key for o in window) >= 4 or sum(o.identity == identity for o in window) >= 16
        assert rights.is_too_many(replace(log.chain, recent=recent), one) == too_many
        if admin or not too_many:
            everything.append(one)
            recent = with_commit(recent, one)
            assert list(recent) == sorted(recent, key=lambda o: o.time)
            assert recent[-1] == one
            assert len(recent) <= 2 * limits.RATE_IDENTITY + 5 * limits.RATE_KEY


# --- fences -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fences", [(), FENCES], ids=["an empty list", "a list"])
def test_only_an_admin_lists_fences(log: Log, fences: tuple[FencedTopic, ...]) -> None:
    for name in ("writer-1", "reader-1"):
        assert log.refused(log.commit(name, fences=fences)) == "fences"
    assert log.refused(log.join("writer-3", fences=fences)) == "fences"
    log.counts(log.leave("writer-2"))
    assert log.refused(log.remove("writer-1", "writer-2", fences=fences)) == "fences"
    log.counts(log.join("ops-2", fences=fences))
    log.counts(log.commit("ops", fences=fences))
    verdict = log.counts(log.remove("ops", "writer-2", fences=fences))
    assert verdict.commit is not None
    assert verdict.commit.data.fences == fences


def test_without_a_list_everybodys_commits_count(log: Log) -> None:
    for name in ("ops", "writer-1", "reader-1"):
        log.counts(log.commit(name, fences=None))
    log.counts(log.remove("ops", "writer-2", fences=None))


def test_who_lists_fences_is_an_admin_by_the_policy_that_the_commit_finds(log: Log) -> None:
    log.counts(log.join("ops-2"))
    lowered = log.terms(roles=(("agent://acme/ops-2", "admin"), ("agent://acme/*", "writer")))
    log.counts(log.commit("ops", sets(lowered), fences=FENCES))
    assert log.refused(log.commit("ops", fences=FENCES)) == "fences"
    log.counts(log.commit("ops-2", Remove(0), fences=FENCES))
