"""`policy check`, `explain`, `schema`: what they print, and their exit codes."""

from __future__ import annotations

from pathlib import Path

from broker_crypto.wire import pem
from tests.support import certificates as make
from tests.support import policies
from tests.unit.cli.conftest import Run

WRONG = "topics:\n  - {topic: a, chanel: plain}\n  - {topic: b, channel: plain, padding: 8}\n"
OVERLAPPING = """
topics:
  - {topic: all, subjects: [">"], channel: plain}
  - {topic: some, subjects: ["a.>"], channel: plain}
  - {topic: s, subjects: ["b"], channel: signal, identity: "agent://acme/x"}
"""


def test_a_file_that_an_agent_reads_is_said_to_be_one(made: Run) -> None:
    ran = made("policy", "check")
    assert (ran.code, ran.out) == (0, "policy.yaml: an agent reads it\n")
    assert made("policy", "check", "--json").json == {"file": "policy.yaml", "ok": True, "problems": [], "notes": []}


def test_everything_wrong_with_a_file_is_a_line_with_its_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(WRONG)
    ran = run("policy", "check", "x.yaml")
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[0].startswith("x.yaml:2:5: `channel` is missing")
    assert lines[1].startswith("x.yaml:2:16: unknown key `chanel` in topics[0]")
    assert lines[1].endswith("did you mean `channel`?")
    assert "2 things are wrong" in lines[-1]
    found = run("policy", "check", "x.yaml", "--json")
    assert found.code == 1
    assert [problem["line"] for problem in found.json["problems"]] == [2, 2]
    assert found.json["problems"][1]["nearest"] == "channel"


def test_a_file_that_is_not_there_is_a_no(run: Run) -> None:
    ran = run("policy", "check", "none.yaml")
    assert ran.code == 1
    assert "none.yaml: the policy file cannot be read" in ran.out


def test_an_anchor_that_could_speak_for_nobody_is_a_problem(run: Run, tmp_path: Path) -> None:
    path = policies.write(tmp_path, policies.ANCHORS)
    (tmp_path / "ca.pem").write_bytes(pem.write_certificates((make.plans(0).leaf.build(),)))
    ran = run("policy", "check", str(path), "--json")
    assert ran.code == 1
    assert [(problem["rule"], problem["line"]) for problem in ran.json["problems"]] == [("ca.basic_constraints", 4)]


def test_overlaps_rules_that_never_match_and_what_is_not_built_are_notes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(OVERLAPPING)
    ran = run("policy", "check", "x.yaml")
    assert ran.code == 0
    for note in (
        "line 4: topic `some` can never match: `all` covers it",
        "line 5: topic `s` can never match: `all` covers it",
        "line 5: this version does not have `channel: signal`",
    ):
        assert note in ran.out


def test_explain_says_which_rule_applies_and_what_follows(made: Run) -> None:
    ran = made("policy", "explain", "orders.created")
    assert ran.code == 0
    assert ran.out.startswith("orders.created: rule `orders` (policy.yaml:")
    assert "- only members of group `orders` read it" in ran.out
    assert "- this agent, agent://acme/alice, is an admin" in ran.out
    told = made("policy", "explain", "orders.created", "--json").json
    assert (told["rule"], told["channel"], told["group"], told["not_built"]) == ("orders", "mls", "orders", [])


def test_explain_says_no_where_no_rule_applies(made: Run) -> None:
    ran = made("policy", "explain", "payments.created")
    assert (ran.code, ran.out) == (1, "payments.created: no rule applies; nothing is sent or opened\n")
    assert made("policy", "explain", "orders.created", "--type", "kafka", "--json").json["error"]["code"] == "no_policy"
    assert made("policy", "explain", "x", "--policy", "none.yaml").code == 2


def test_the_schema_is_json(run: Run) -> None:
    ran = run("policy", "schema")
    assert ran.code == 0
    assert "topics" in ran.json["properties"]
    assert run("policy", "schema", "--json").out == ran.out
