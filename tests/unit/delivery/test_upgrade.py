"""A policy of rules above ours: an admin's, whatever its form, stops the reader before it; nobody else's does anything."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from broker_crypto.delivery.group_policy import rules_in
from broker_crypto.delivery.log_records import GroupRecord
from broker_crypto.delivery.membership import follow
from broker_crypto.delivery.rules import judge
from broker_crypto.errors import MalformedInput
from broker_crypto.identity import ca, keys
from broker_crypto.mls.proposals import GroupContextExtensions, Remove
from broker_crypto.records import Anchor
from tests.unit.delivery.written import Log, Written, extensions_of, sets

_BASE = Log()
OTHER = b"\xc3\x01" + bytes(range(8))  # a fingerprint that this version does not know


@pytest.fixture
def log() -> Log:
    """ops, writer-1, writer-2 and reader-1 at leaves 0 to 3."""
    return copy.deepcopy(_BASE)


def asks_for_more(log: Log, written: Written) -> None:
    """Everybody stops before it: nothing changes, not even the cursor."""
    verdict = log.judged(written)
    assert (verdict.kind, verdict.reason, verdict.sender) == ("upgrade", "", "agent://acme/ops")
    for member in log.members.values():
        step = follow(member, log.entry(written.record), "log", {written.hash: log.group("ops")}, {})
        assert step.next is member
        assert (step.moved, step.own, step.epoch) == (False, False, None)


@pytest.mark.parametrize("rules", [2, 3, 2**31 - 1])
def test_a_policy_in_our_form_with_higher_rules_needs_a_newer_version(log: Log, rules: int) -> None:
    asks_for_more(log, log.commit("ops", sets(log.terms(rules=rules))))


@pytest.mark.parametrize("data", [b"\x04", b"\x04and more", b"\xfe\xff\xff\xff\x0f", b"\x80\x01" + bytes(400_000)], ids=len)
def test_a_policy_in_a_form_that_is_not_known_says_its_rules_first(log: Log, data: bytes) -> None:
    asks_for_more(log, log.commit("ops", sets(OTHER + data)))


def test_with_the_rules_may_come_whatever_an_admin_may_do(log: Log) -> None:
    asks_for_more(log, log.commit("ops", sets(OTHER + b"\x04"), Remove(1), fences=()))
    asks_for_more(log, log.commit("ops", sets(OTHER + b"\x04"), own=log.own("ops")))


@pytest.mark.parametrize(
    "data", [b"", b"\x02", b"\x00", b"\x01", b"\x84\x00", b"\x80", b"\xff" * 5, b"\x80\x80\x80\x80\x80\x01"], ids=bytes.hex
)
def test_a_form_that_is_not_known_without_higher_rules_is_malformed(log: Log, data: bytes) -> None:
    assert log.refused(log.commit("ops", sets(OTHER + data))) in ("malformed_input", "policy_rules")


def test_what_does_not_begin_as_every_policy_does_is_malformed(log: Log) -> None:
    for data in (b"", b"\xc3", b"\xc3\x01", b"\xc3\x02" + bytes(8) + b"\x04", b"\x04", OTHER[:9]):
        assert log.refused(log.commit("ops", sets(data))) == "malformed_input"


def test_only_an_admin_makes_others_stop(log: Log) -> None:
    for data in (log.terms(rules=2), OTHER + b"\x04"):
        for name in ("writer-1", "reader-1"):
            assert log.refused(log.commit(name, sets(data))) == "policy_right"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"group": "other"}, "policy_group"),
        ({"time": 1}, "policy_time"),
        ({"barred": ("agent://acme/writer-1",)}, "policy_uncounted"),
        ({"barred": ("agent://acme/ops",)}, "role"),
        ({"max_offline": -2}, "malformed_input"),
    ],
    ids=str,
)
def test_whatever_our_rules_can_tell_must_hold(log: Log, changes: dict[str, object], rule: str) -> None:
    assert log.refused(log.commit("ops", sets(log.terms(rules=2, **changes)))) == rule


def test_what_is_not_of_the_policy_must_hold_in_any_form(log: Log) -> None:
    for data in (log.terms(rules=2), OTHER + b"\x04"):
        required, policy = extensions_of(data if isinstance(data, bytes) else data.encode())
        assert log.refused(log.commit("ops", GroupContextExtensions((policy,)))) == "extensions"
        assert log.refused(log.commit("ops", GroupContextExtensions((replace(required, data=b"\x00\x00\x00"), policy)))) == (
            "required_capabilities"
        )
        written = log.commit("ops", sets(data), time_ms=log.chain.time - 1)
        assert log.refused(written) == "time"
        read = GroupRecord.decode(log.commit("ops", sets(data)).record)
        other = GroupRecord.decode(log.commit("ops", sets(data)).record)
        assert read is not None
        assert other is not None
        assert log.refused(replace(read, group_info=b"").encode()) != ""
        assert log.refused(replace(read, group_info=other.group_info).encode()) == "group_info_names"
        stranger = replace(log.own("ops", of="writer-1"))
        assert log.refused(log.commit("ops", sets(data), own=stranger)) == "identity"


def test_the_old_rules_judge_who_raises_them() -> None:
    """An admin whose certificate has ended, or comes from a CA that only the new policy knows, stops nobody."""
    log = Log(names=("ops", "writer-1"), days=10)
    other = ca.found("other CA", keys.generate(), now_ms=log.now)
    anchors = (*log.policy.anchors, Anchor(other.certificate, ("agent://acme/",)))
    renewed = log.own("ops", authority=other)
    for data in (log.terms(rules=2, anchors=anchors), OTHER + b"\x04"):
        assert log.refused(log.commit("ops", sets(data), own=renewed)) == "anchor.issuer"
    log.counts(log.commit("ops", sets(log.terms(anchors=anchors))))
    for data in (log.terms(rules=2), OTHER + b"\x04"):
        asks_for_more(log, log.commit("ops", sets(data), own=renewed))
    log.now += 11 * 86_400_000
    for data in (log.terms(rules=2), OTHER + b"\x04"):
        assert log.refused(log.commit("ops", sets(data))) == "chain.validity"
    asks_for_more(log, log.commit("ops", sets(OTHER + b"\x04"), own=log.own("ops")))


def test_every_bit_flip_of_a_rise_is_refused_and_stops_nobody(log: Log) -> None:
    record = log.commit("ops", sets(OTHER + b"\x04")).record
    for bit in range(8 * len(record)):
        flipped = bytearray(record)
        flipped[bit // 8] ^= 1 << bit % 8
        assert judge(log.head, log.entry(bytes(flipped)), "orders").kind in ("invalid", "passed", "stale", "early"), bit


def test_a_rise_that_lost_its_race_stops_nobody(log: Log) -> None:
    rise = log.commit("ops", sets(log.terms(rules=2)))
    log.counts(log.commit("writer-1"))
    assert log.judged(rise).kind == "stale"


def test_rules_are_read_from_any_policy() -> None:
    assert rules_in(_BASE.policy.encode()) == 1
    assert rules_in(OTHER + b"\x04\xff") == 2
    assert rules_in(OTHER + b"\x80\x01") == 64
    for data in (OTHER + b"\x84\x00", OTHER + b"\xff\xff\xff\xff\x1f", OTHER + b"\x80", OTHER):
        with pytest.raises(MalformedInput):
            rules_in(data)
