"""Who may remove whom, and who may change the policy to what: each right held, and each overstepped, judged alike by all."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from broker_crypto.delivery import rights
from broker_crypto.delivery.group_policy import EXTENSION, GroupPolicy
from broker_crypto.delivery.log_records import CommitData
from broker_crypto.delivery.rules import judge
from broker_crypto.identity import ca, keys
from broker_crypto.identity.certificate import read_certificate
from broker_crypto.mls import psk
from broker_crypto.mls.leaf import APPLICATION_ID, REQUIRED_CAPABILITIES, Extension
from broker_crypto.mls.proposals import Add, GroupContextExtensions, PreSharedKey, ReInit, Remove
from broker_crypto.records import Anchor
from tests.support import certificates as der
from tests.support.forging import key_package
from tests.unit.delivery.written import ROLES, Log, extensions_of, record_of, sets

_BASE = Log()
DAY = 86400


@pytest.fixture
def log() -> Log:
    """ops, writer-1, writer-2 and reader-1 at leaves 0 to 3."""
    return copy.deepcopy(_BASE)


# --- removal by an admin ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [["writer-1"], ["reader-1"], ["writer-2", "reader-1", "writer-1"]], ids=len)
def test_an_admin_removes_whom_it_wants_without_a_bar_or_fence(log: Log, others: list[str]) -> None:
    gone = {log.leaf(other) for other in others}
    verdict = log.counts(log.remove("ops", *others))
    assert verdict.commit is not None
    assert set(verdict.commit.staged.removed) == gone
    assert {i for i, _ in log.chain.public.tree.leaves()} == {0, 1, 2, 3} - gone
    assert log.chain.paths.keys() == log.chain.joined.keys() == {0, 1, 2, 3} - gone


def test_an_admin_removes_another_admin(log: Log) -> None:
    log.counts(log.join("ops-2"))
    log.counts(log.remove("ops-2", "ops"))
    assert [i for i, _ in log.chain.public.tree.leaves()] == [1, 2, 3, 4]


def test_an_admin_cannot_remove_itself(log: Log) -> None:
    log.counts(log.join("ops-2"))
    path = log.commit("ops").record
    assert log.judged(path).kind == "commit"
    with pytest.raises(Exception, match="removes its own sender"):
        log.remove("ops", "ops")


@pytest.mark.parametrize("name", ["writer-1", "reader-1"])
def test_who_is_no_admin_removes_nobody_that_is_there(log: Log, name: str) -> None:
    for other in {"ops", "writer-2", "writer-1", "reader-1"} - {name}:
        assert log.refused(log.remove(name, other)) == "remove_right"


def test_one_who_was_an_admin_removes_nobody_and_one_who_became_one_does(log: Log) -> None:
    roles = (("agent://acme/writer-1", "admin"), ("agent://acme/*", "writer"))
    log.counts(log.commit("ops", sets(log.terms(roles=roles))))
    assert log.refused(log.remove("ops", "reader-1")) == "remove_right"
    log.counts(log.remove("writer-1", "reader-1"))


def test_an_identity_that_fits_several_roles_has_the_rights_of_the_strongest() -> None:
    log = Log(roles=(("agent://acme/*", "reader"), ("agent://acme/writer-1", "admin"), ("agent://acme/writer-*", "writer")))
    log.counts(log.remove("writer-1", "reader-1"))
    assert log.refused(log.remove("writer-2", "ops")) == "remove_right"


def test_a_barred_admin_has_no_rights_while_a_leaf_of_it_is_still_there(log: Log) -> None:
    """No chain of counted commits leads here; the verdict does not rest on that."""
    log.head = replace(log.chain, policy=replace(log.policy, barred=("agent://acme/ops",)))
    assert rights.is_admin(log.chain, "agent://acme/ops") is False


# --- removal by anybody -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["writer-1", "reader-1", "ops"])
def test_any_member_removes_a_leaf_that_left(log: Log, name: str) -> None:
    log.counts(log.leave("writer-2"))
    assert rights.removable(log.chain, log.now) == {2}
    log.counts(log.remove(name, "writer-2"))
    assert log.chain.public.tree.leaf(2) is None
    assert rights.removable(log.chain, log.now) == set()


def test_one_leaf_that_left_lets_nobody_else_be_removed_with_it(log: Log) -> None:
    log.counts(log.leave("writer-2"))
    assert log.refused(log.remove("writer-1", "writer-2", "reader-1")) == "remove_right"
    assert log.refused(log.remove("writer-1", "reader-1", "writer-2")) == "remove_right"


def expiring() -> tuple[Log, int]:
    """writer-2 has a certificate of ten days, of which the last ms is given."""
    log = Log(names=("ops", "writer-1"))
    log.own("writer-2", days=10)
    log.take(log.join("writer-2"))
    return log, read_certificate(log.owns["writer-2"].chain[0]).not_after


@pytest.mark.parametrize(("behind", "rule"), [(0, "remove_right"), (1, "")])
def test_any_member_removes_a_leaf_whose_certificate_has_expired_at_the_commits_time(behind: int, rule: str) -> None:
    log, last = expiring()
    log.now = last + behind
    verdict = log.judged(log.remove("writer-1", "writer-2"))
    assert (verdict.kind, verdict.reason) == ("invalid" if rule else "commit", rule)
    assert rights.removable(log.chain, log.now) == (set() if rule else {2})


@pytest.mark.parametrize("off", [-30_000, 30_000])
def test_expiry_is_judged_at_the_signed_time_and_not_at_the_brokers(off: int) -> None:
    log, last = expiring()
    log.now = last + off
    verdict = log.judged(log.remove("writer-1", "writer-2", time_ms=last if off > 0 else last + 1))
    assert verdict.kind == ("invalid" if off > 0 else "commit")


def test_an_expired_member_stays_until_it_is_removed_and_comes_back_with_a_new_certificate() -> None:
    log, last = expiring()
    log.now = last + 1
    assert log.refused(log.commit("writer-2")) == "chain.validity"
    log.counts(log.commit("writer-1"))
    fresh = log.own("writer-2")
    log.counts(log.commit("writer-2", own=fresh))
    assert log.refused(log.remove("writer-1", "writer-2")) == "remove_right"


@pytest.mark.parametrize(("which", "goes"), [("middle", True), ("root", False)])
def test_an_expired_issuer_in_the_chain_makes_a_leaf_removable_and_an_expired_anchor_does_not(which: str, goes: bool) -> None:
    log = Log(names=("ops", "writer-1"), roles=(*ROLES, (der.IDENTITY, "writer")))
    ends = datetime(2026, 2, 1, tzinfo=UTC)
    plans, short = der.plans(1), (der.utc(der.START), der.utc(ends))
    if which == "middle":
        plans = replace(plans, middle=(plans.middle[0].but(validity=short),))
    else:
        plans = replace(plans, root=plans.root.but(validity=short))
    log.counts(log.commit("ops", sets(log.terms(anchors=(*log.policy.anchors, plans.anchor())))))
    log.holds("billing", plans.chain(), plans.leaf.key)
    log.counts(log.join("billing"))
    log.now = int(ends.timestamp()) * 1000 + 999
    assert log.judged(log.commit("billing")).kind == "commit"
    assert log.refused(log.remove("writer-1", "billing")) == "remove_right"
    log.now += 1
    assert log.refused(log.commit("billing")) == "chain.validity"
    assert log.judged(log.remove("writer-1", "billing")).kind == ("commit" if goes else "invalid")
    assert log.judged(log.remove("ops", "billing")).kind == "commit"


@pytest.mark.parametrize(("short_ms", "rule"), [(1, "remove_right"), (0, "")])
def test_any_member_removes_a_leaf_that_made_no_path_for_max_offline(short_ms: int, rule: str) -> None:
    log = Log(max_offline=DAY)
    log.now += 40_000
    log.counts(log.commit("writer-1"))
    log.now = log.chain.paths[2] + DAY * 1000 - short_ms
    verdict = log.judged(log.remove("writer-1", "writer-2"))
    assert (verdict.kind, verdict.reason) == ("invalid" if rule else "commit", rule)
    assert rights.removable(log.chain, log.now) == ({0} if rule else {0, 2})
    assert log.refused(log.remove("writer-2", "writer-1")) == "remove_right"


def test_a_path_in_time_keeps_a_member_that_is_long_in_the_group() -> None:
    log = Log(max_offline=DAY)
    for _ in range(3):
        log.now += DAY * 1000 - 1
        for name in log.names:
            log.counts(log.commit(name))
        assert rights.removable(log.chain, log.now) == set()
        assert log.refused(log.remove("reader-1", "writer-1")) == "remove_right"


def test_without_max_offline_nobody_is_ever_too_long_away() -> None:
    log = Log(max_offline=-1, days=3000)
    log.now += 2999 * DAY * 1000
    assert rights.removable(log.chain, log.now) == set()
    assert log.refused(log.remove("writer-1", "writer-2")) == "remove_right"


def test_max_offline_is_that_of_the_policy_that_the_commit_finds() -> None:
    log = Log(max_offline=-1)
    log.now += DAY * 1000
    assert log.refused(log.remove("writer-1", "writer-2")) == "remove_right"
    log.counts(log.commit("ops", sets(log.terms(max_offline=DAY)), Remove(3)))
    log.counts(log.remove("writer-1", "writer-2"))


# --- the policy ---------------------------------------------------------------------------------------------------------


def test_an_admin_changes_the_policy_and_what_counts_from_then_on_is_the_new_one(log: Log) -> None:
    changed = log.terms(topics=("orders", "bills"), key_retention=-1, max_offline=-1, revoked=(bytes(32),))
    verdict = log.counts(log.commit("ops", sets(changed)))
    assert verdict.chain is not None
    assert (log.policy, log.chain.policy_signer) == (changed, "agent://acme/ops")
    assert log.chain.founding_policy != changed


def test_who_signs_the_policy_last_is_known_and_other_commits_do_not_change_it(log: Log) -> None:
    log.counts(log.join("ops-2"))
    assert log.chain.policy_signer == "agent://acme/ops"
    log.counts(log.commit("ops-2", sets(log.policy)))
    assert log.chain.policy_signer == "agent://acme/ops-2"
    log.counts(log.commit("ops"))
    log.counts(log.remove("ops", "reader-1"))
    assert log.chain.policy_signer == "agent://acme/ops-2"


@pytest.mark.parametrize("name", ["writer-1", "reader-1"])
def test_who_is_no_admin_sets_no_policy_not_even_the_same_one(log: Log, name: str) -> None:
    assert log.refused(log.commit(name, sets(log.policy))) == "policy_right"
    mine = log.terms(roles=(*log.policy.roles, (f"agent://acme/{name}", "admin")))
    assert log.refused(log.commit(name, sets(mine))) == "policy_right"


def test_a_policy_that_makes_an_admin_gives_no_right_in_the_commit_that_sets_it(log: Log) -> None:
    mine = log.terms(roles=(*log.policy.roles, ("agent://acme/writer-1", "admin")))
    assert log.refused(log.commit("writer-1", sets(mine), Remove(3))) == "remove_right"
    log.counts(log.commit("ops", sets(mine)))
    log.counts(log.commit("writer-1", sets(mine), Remove(3)))


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"group": "orders.g1"}, "policy_group"),
        ({"time": 0}, "policy_time"),
        ({"rules": 0}, "policy_rules"),
        ({"rules": -1}, "policy_rules"),
        ({"roles": (("agent://acme/*", "writer"),)}, "malformed_input"),
        ({"max_offline": -2}, "malformed_input"),
        ({"topics": ("a", "a")}, "malformed_input"),
        ({"barred": ("agent://acme/*",)}, "malformed_input"),
        ({"barred": ("nobody",)}, "malformed_input"),
    ],
    ids=str,
)
def test_what_an_admin_may_not_set(log: Log, changes: dict[str, Any], rule: str) -> None:
    assert log.refused(log.commit("ops", sets(log.terms(**changes)))) == rule


def test_the_policy_and_what_every_leaf_must_support_are_the_only_extensions(log: Log) -> None:
    required, policy = extensions_of(log.policy)
    for extensions in ((), (policy,), (required,), (required, policy, Extension(APPLICATION_ID, b""))):
        assert log.refused(log.commit("ops", GroupContextExtensions(extensions))) == "extensions"
    more = Extension(REQUIRED_CAPABILITIES, bytes((2,)) + EXTENSION.to_bytes(2, "big") + bytes((0, 0)))
    assert log.refused(log.commit("ops", GroupContextExtensions((more, policy)))) == "required_capabilities"
    log.counts(log.commit("ops", GroupContextExtensions((policy, required))))  # their order says nothing


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11])
def test_a_policy_that_is_cut_short_or_longer_is_refused(log: Log, size: int) -> None:
    data = log.policy.encode()
    assert log.refused(log.commit("ops", sets(data[:size]))) == "malformed_input"
    assert log.refused(log.commit("ops", sets(data + bytes(size + 1)))) == "malformed_input"


@pytest.mark.parametrize(
    ("changes", "goes"),
    [
        ({"barred": ("agent://acme/writer-2",)}, [2]),
        ({"barred": ("agent://acme/nobody",)}, []),
        ({"roles": (("agent://acme/ops*", "admin"), ("agent://acme/writer-1", "reader"))}, [2, 3]),
        ({"roles": (("agent://acme/ops", "admin"), ("agent://acme/*", "reader"))}, []),
    ],
    ids=["one barred", "one barred who is not there", "roles taken away", "roles lowered"],
)
def test_leaves_that_the_new_policy_does_not_count_go_with_the_commit(log: Log, changes: dict[str, Any], goes: list[int]) -> None:
    policy = log.terms(**changes)
    assert rights.uncounted(log.chain.public.tree, policy) == set(goes)
    for kept in goes:
        others = [Remove(leaf) for leaf in goes if leaf != kept]
        assert log.refused(log.commit("ops", sets(policy), *others)) == "policy_uncounted"
    log.counts(log.commit("ops", *(Remove(leaf) for leaf in goes), sets(policy)))
    assert rights.uncounted(log.chain.public.tree, policy) == set()


def key_of(certificate: bytes) -> bytes:
    return read_certificate(certificate).key_hash


def test_a_revoked_key_goes_with_the_commit_whether_of_a_leaf_or_of_its_ca(log: Log) -> None:
    mine = log.terms(revoked=(key_of(log.owns["writer-1"].chain[0]),))
    assert log.refused(log.commit("ops", sets(mine))) == "policy_uncounted"
    log.counts(log.commit("ops", sets(mine), Remove(1)))
    log.counts(log.commit("ops", sets(log.policy), Remove(2), Remove(3)))
    all_of_it = log.terms(revoked=(key_of(log.authority.certificate),))
    assert log.refused(log.commit("ops", sets(all_of_it))) == "chain.revoked"


def test_an_anchor_that_goes_takes_the_leaves_below_it_along() -> None:
    log = Log(names=("ops", "writer-1"))
    other = ca.found("other CA", keys.generate(), now_ms=log.now)
    anchors = (*log.policy.anchors, Anchor(other.certificate, ("agent://acme/",)))
    log.own("writer-2", authority=other)
    assert log.refused(log.join("writer-2")) == "anchor.issuer"
    log.counts(log.commit("ops", sets(log.terms(anchors=anchors))))
    log.counts(log.join("writer-2"))
    narrower = (anchors[0], replace(anchors[1], identities=("agent://acme/other/",)))
    for without in (log.terms(anchors=anchors[:1]), log.terms(anchors=narrower)):
        assert rights.uncounted(log.chain.public.tree, without) == {2}
        assert log.refused(log.commit("ops", sets(without))) == "policy_uncounted"
    log.counts(log.commit("ops", sets(log.terms(anchors=anchors[:1])), Remove(2)))


def test_a_leaf_that_has_expired_need_not_go_when_the_policy_changes() -> None:
    log, last = expiring()
    log.now = last + 1
    log.counts(log.commit("ops", sets(log.terms(topics=("bills",)))))
    assert log.chain.public.tree.leaf(2) is not None
    assert log.refused(log.commit("ops", sets(log.terms(barred=("agent://acme/writer-2",))))) == "policy_uncounted"


def test_the_committers_leaf_is_judged_by_the_policy_that_it_leaves(log: Log) -> None:
    assert log.refused(log.commit("ops", sets(log.terms(barred=("agent://acme/ops",))))) == "role"
    roles = (("agent://acme/boss", "admin"), ("agent://acme/writer-*", "writer"), ("agent://acme/reader-*", "reader"))
    assert log.refused(log.commit("ops", sets(log.terms(roles=roles)))) == "role"
    mine = log.terms(revoked=(key_of(log.owns["ops"].chain[0]),))
    assert log.refused(log.commit("ops", sets(mine))) == "chain.revoked"
    fresh = log.own("ops")
    log.counts(log.commit("ops", sets(mine), own=fresh))
    assert log.chain.public.tree.leaf(0).signature_key == fresh.signature_public  # type: ignore[union-attr]


def test_a_leaf_that_only_the_new_policy_counts_comes_in_with_the_commit_that_sets_it(log: Log) -> None:
    other = ca.found("other CA", keys.generate(), now_ms=log.now)
    renewed = log.own("ops", authority=other)
    assert log.refused(log.commit("ops", own=renewed)) == "anchor.issuer"
    anchors = (*log.policy.anchors, Anchor(other.certificate, ("agent://acme/",)))
    log.counts(log.commit("ops", sets(log.terms(anchors=anchors)), own=renewed))


@pytest.mark.parametrize(
    ("roles", "barred", "rule"),
    [
        ((("agent://acme/boss", "admin"), ("agent://acme/*", "writer")), (), ""),
        ((("agent://acme/boss", "admin"), ("agent://acme/*", "writer")), ("agent://acme/boss",), "policy_admin"),
        ((("agent://acme/boss-*", "admin"), ("agent://acme/*", "writer")), ("agent://acme/boss-1",), ""),
        ((("agent://acme/a", "admin"), ("agent://acme/b", "admin"), ("agent://acme/*", "writer")), ("agent://acme/a",), ""),
        ((("agent://acme/a", "admin"), ("agent://acme/*", "writer")), ("agent://acme/a", "agent://acme/b"), "policy_admin"),
        ((("agent://acme/a", "writer"), ("agent://acme/a", "admin"), ("agent://acme/*", "writer")), ("agent://acme/a",), "policy_admin"),
    ],
    ids=str,
)
def test_somebody_who_is_not_barred_can_be_an_admin_afterwards(log: Log, roles: Any, barred: Any, rule: str) -> None:
    verdict = log.judged(log.commit("ops", sets(log.terms(roles=roles, barred=barred))))
    assert (verdict.kind, verdict.reason) == ("invalid" if rule else "commit", rule)


def test_a_bar_keeps_an_identity_out_until_it_is_lifted(log: Log) -> None:
    log.counts(log.commit("ops", sets(log.terms(barred=("agent://acme/writer-2",))), Remove(2)))
    log.own("writer-2")
    assert log.refused(log.join("writer-2")) == "role"
    log.own("again", of="writer-2")
    assert log.refused(log.join("again")) == "role"
    log.counts(log.commit("ops", sets(log.terms(barred=()))))
    log.counts(log.join("writer-2"))


def test_a_revoked_key_cannot_join_and_another_key_of_the_identity_can(log: Log) -> None:
    old = log.owns["writer-2"]
    log.counts(log.commit("ops", sets(log.terms(revoked=(key_of(old.chain[0]),))), Remove(2)))
    assert log.refused(log.join("writer-2")) == "chain.revoked"
    log.own("writer-2")
    log.counts(log.join("writer-2"))


# --- what else ----------------------------------------------------------------------------------------------------------


def test_an_admins_commit_holds_nothing_else(log: Log) -> None:
    package = key_package(log.chain.public, log.own("writer-8").leaf(1), log.random)
    group = log.group("ops")
    data = log.commit("ops")
    assert log.judged(data).kind == "commit"
    for proposal in (PreSharedKey(psk.ExternalPsk(b"key", bytes(32))), ReInit(bytes(32), 1, 1, log.chain.public.context.extensions)):
        held = psk.PskSecrets(external={b"key": bytes(32)}) if isinstance(proposal, PreSharedKey) else psk.PskSecrets()
        with_it = group.commit(proposals=(proposal,), authenticated_data=_data(log), psks=held, random=log.random)
        assert log.refused(_record(log, with_it)) in ("proposals", "path")
    added = group.commit(proposals=(Add(package),), authenticated_data=_data(log), now=log.now // 1000, random=log.random)
    assert log.refused(_record(log, added)) == "proposals"
    mixed = group.commit(proposals=(Remove(1), Add(package)), authenticated_data=_data(log), now=log.now // 1000, random=log.random)
    assert log.refused(_record(log, mixed)) == "proposals"


def test_an_admin_that_joins_removes_nobody_but_its_own_old_leaf(log: Log) -> None:
    assert log.refused(log.join("ops-2", remove=1)) == "resync_key"
    log.own("replica", of="ops")
    assert log.refused(log.join("replica", remove=0)) == "resync_key"
    log.counts(log.leave("writer-1"))
    assert log.refused(log.join("ops-2", remove=1)) == "resync_key"
    log.counts(log.join("ops", remove=0))


def test_a_removal_always_has_a_path(log: Log) -> None:
    with pytest.raises(Exception, match="need a path"):
        log.commit("ops", Remove(1), path=False)


def _data(log: Log) -> bytes:
    return CommitData(log.now).encode()


def _record(log: Log, staged: Any) -> bytes:
    return record_of(log.chain.epoch, staged)


def test_every_bit_flip_of_a_removal_is_refused_alike_and_the_genuine_one_then_counts(log: Log) -> None:
    policy: GroupPolicy = log.terms(barred=("agent://acme/writer-2",))
    written = log.commit("ops", sets(policy), Remove(2), fences=())
    state = log.chain.public.to_bytes()
    follower = log.head
    for bit in range(8 * len(written.record)):
        flipped = bytearray(written.record)
        flipped[bit // 8] ^= 1 << bit % 8
        if bit % 101:
            verdict = judge(follower, log.entry(bytes(flipped)), "orders")
        else:
            verdict = log.judged(bytes(flipped), newcomer=False)
        assert verdict.kind in ("invalid", "passed", "stale", "early"), bit
        assert verdict.chain is follower
    assert log.chain.public.to_bytes() == state
    log.counts(written)
