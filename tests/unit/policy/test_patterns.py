"""Patterns that cover or overlap each other, against all names of a small world."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_crypto.policy import explain, patterns
from broker_crypto.wire.names import glob
from tests.support import policies

TOKENS = st.lists(st.sampled_from(["a", "b", "*", "{x}"]), min_size=0, max_size=3)
SUBJECTS = st.builds(lambda tokens, tail: ".".join([*tokens, *tail]), TOKENS, st.sampled_from([[], [">"]])).filter(bool)
WORLD = [".".join(tokens) for size in (1, 2, 3, 4) for tokens in itertools.product("abc", repeat=size)]
TOPICS = st.text("ab*", min_size=1, max_size=4)
NAMES = ["".join(letters) for size in range(8) for letters in itertools.product("ab", repeat=size)]


def subjects_of(pattern: str) -> set[str]:
    return {subject for subject in WORLD if patterns.match_subject(pattern, subject) is not None}


@given(SUBJECTS, SUBJECTS)
def test_subjects_cover_and_overlap_as_sets_do(one: str, other: str) -> None:
    ours, theirs = subjects_of(one), subjects_of(other)
    assert patterns.subjects_overlap(one, other) is bool(ours & theirs)
    assert patterns.subjects_overlap(other, one) is bool(ours & theirs)
    assert patterns.subject_covers(one, other) is (theirs <= ours)


@given(TOPICS, TOPICS)
def test_topics_cover_and_overlap_as_sets_do(one: str, other: str) -> None:
    ours, theirs = ({name for name in NAMES if glob(pattern, name)} for pattern in (one, other))
    assert patterns.topics_overlap(one, other) is bool(ours & theirs)
    if patterns.topic_covers(one, other):
        assert theirs <= ours


def test_a_topic_pattern_covers_itself_and_what_is_narrower() -> None:
    for wide, narrow in (("*", "a*b"), ("a*", "a*b*"), ("a*b", "a*b"), ("*a*", "ba*c"), ("a", "a")):
        assert patterns.topic_covers(wide, narrow)
    for wide, narrow in (("a*b", "*"), ("a*b*", "a*"), ("a*", "*"), ("a", "b"), ("ab", "a*")):
        assert not patterns.topic_covers(wide, narrow)


def test_long_patterns_are_compared_in_time() -> None:
    assert not patterns.topics_overlap("*a" * 60 + "b", "*c" * 60 + "d")


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=3, max_size=3))
def test_captures_are_the_tokens_in_their_place(tokens: list[str]) -> None:
    assert patterns.match_subject("{one}.x.{two}.*.>", ".".join([tokens[0], "x", tokens[1], "y", tokens[2]])) == {
        "one": tokens[0],
        "two": tokens[1],
    }


RULES = """
topics:
  - {topic: one, subjects: ["a.>", "b.x"], channel: plain}
  - {topic: two, subjects: ["a.b", "b.x"], channel: plain}
  - {topic: three, subjects: ["b.*"], channel: plain}
  - {topic: four, subjects: ["c"], channel: plain}
  - {topic: "k*", channel: plain}
  - {topic: "*k", channel: plain}
  - {topic: kk, channel: plain}
"""


def test_overlaps_and_rules_that_can_never_match_are_found(tmp_path: Path) -> None:
    found = [(pair.first.name, pair.second.name, pair.never) for pair in explain.overlaps(policies.load(tmp_path, RULES))]
    assert found == [
        ("one", "two", True),
        ("one", "three", False),
        ("two", "three", False),
        ("k*", "*k", False),
        ("k*", "kk", True),
        ("*k", "kk", True),
    ]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (59, "59s"), (60, "1m"), (5400, "90m"), (3600, "1h"), (604800, "7d")])
def test_durations_are_shown_as_the_file_writes_them(seconds: int, text: str) -> None:
    assert explain.duration(seconds) == text


def lines(tmp_path: Path, text: str, topic: str, identity: str | None = None) -> str:
    found = policies.load(tmp_path, text)
    return "\n".join(explain.explain(found, found.route(topic), identity))


def test_a_plain_topic_is_said_to_be_readable_by_all(tmp_path: Path) -> None:
    assert lines(tmp_path, "topics:\n  - {topic: m, channel: plain}", "m").startswith("nothing is sealed")


def test_what_a_policy_changes_shows_in_its_plain_words(tmp_path: Path) -> None:
    text = policies.ANCHORS + policies.GROUPS + "topics:\n  - {topic: orders, channel: mls}"
    before = lines(tmp_path, text, "orders")
    changes = {
        "channel: mls, plaintext: accept": "records that are no envelope are handed out too",
        "channel: mls, on_failure: skip": "is counted and passed over",
        "channel: mls, padding: 256": "multiple of 256 bytes",
        "channel: mls, tombstones: refuse": "records without a value are refused",
        "channel: mls, headers: {plain: [x], sealed: [ce_id]}": "+x, -ce_id",
        "channel: mls, compress: zstd": "this version does not have `compress: zstd`",
    }
    for change, line in changes.items():
        assert line not in before
        assert line in lines(tmp_path, text.replace("channel: mls", change), "orders")
    groups = {
        "suite: 3": "ChaCha20",
        "key_retention: forever": "for ever",
        "key_retention: broker": "as long as the broker",
        "max_offline: 3d": "3d",
    }
    for change, line in groups.items():
        assert line not in before
        assert line in lines(tmp_path, text.replace("{roles:", f"{{{change}, roles:"), "orders")


def test_the_own_role_is_said(tmp_path: Path) -> None:
    text = policies.ANCHORS + policies.GROUPS + "topics:\n  - {topic: orders, channel: mls}"
    for name, line in (("ops", "is an admin"), ("x", "is a reader"), ("x/y", "is no member")):
        assert f"agent://acme/{name}, {line}" in lines(tmp_path, text, "orders", f"agent://acme/{name}")


def test_what_is_probably_not_meant_is_warned_of(tmp_path: Path) -> None:
    text = (
        policies.ANCHORS
        + """
brokers: {m: {type: nats, servers: [x]}}
groups:
  orders: {roles: {admin: ["agent://acme/ops"], reader: ["agent://other/x"]}}
  unused: {roles: {admin: ["agent://acme/ops"]}}
topics:
  - {topic: orders, channel: mls, plain_fingerprints: ["0011223344556677"]}
"""
    )
    found = list(explain.warnings(policies.load(tmp_path, text)))
    assert len(found) == 4
    for part in (
        "no anchor speaks for the reader `agent://other/x`",
        "group `unused` has no topic",
        "`plain_fingerprints` has no effect",
        "it is for kafka",
    ):
        assert sum(part in line for line in found) == 1
    assert (
        list(explain.warnings(policies.load(tmp_path, policies.ANCHORS + policies.GROUPS + "topics:\n  - {topic: orders, channel: mls}")))
        == []
    )
