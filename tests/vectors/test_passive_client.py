"""passive-client-*.json of the MLS working group: every suite, every case, every epoch."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from broker_crypto.crypto import suite as suite_of
from tests.vectors import passive
from tests.vectors.published_keys import signature_private
from tests.vectors.vectors_path import load

SUITES = range(1, 8)


@pytest.mark.parametrize("suite", SUITES)
def test_a_client_joins_by_every_published_welcome(suite: int) -> None:
    cases = [case for case in load("passive-client-welcome") if case["cipher_suite"] == suite]
    assert len(cases) == 8
    assert all(case["epochs"] == [] for case in cases)
    assert sum((passive.run_case(case) for case in cases), passive.Passed()) == passive.Passed(cases=8, authenticators=8)
    # What makes the cases different: PSKs, the tree inside or beside the Welcome.
    assert Counter(bool(case["external_psks"]) for case in cases) == {True: 4, False: 4}
    assert Counter(case["ratchet_tree"] is None for case in cases) == {True: 4, False: 4}


@pytest.mark.parametrize("suite", SUITES)
def test_a_client_follows_every_published_commit(suite: int) -> None:
    cases = [case for case in load("passive-client-handling-commit") if case["cipher_suite"] == suite]
    assert len(cases) == 13
    epochs = sum(len(case["epochs"]) for case in cases)
    proposals = sum(len(epoch["proposals"]) for case in cases for epoch in case["epochs"])
    passed = sum((passive.run_case(case) for case in cases), passive.Passed())
    assert passed == passive.Passed(13, epochs, proposals, 13 + epochs)
    assert epochs >= 13
    assert proposals > 0


def test_every_case_of_both_files_is_of_a_suite_that_was_run() -> None:
    for name, count in (("passive-client-welcome", 56), ("passive-client-handling-commit", 91)):
        cases = load(name)
        assert len(cases) == count
        assert {case["cipher_suite"] for case in cases} == set(SUITES)


def changed(case: dict[str, Any], field: str, epoch: int | None) -> dict[str, Any]:
    """The case with one bit of a published value turned."""
    case = copy.deepcopy(case)
    holder = case if epoch is None else case["epochs"][epoch]
    data = bytearray.fromhex(holder[field])
    data[-1] ^= 1
    holder[field] = data.hex()
    return case


@pytest.mark.parametrize(
    ("field", "epoch"),
    [("initial_epoch_authenticator", None), ("welcome", None), ("init_priv", None), ("commit", 1), ("epoch_authenticator", 1)],
)
def test_the_runner_names_file_case_and_epoch_of_the_first_mismatch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, epoch: int | None
) -> None:
    good = load("passive-client-handling-commit")[0]
    file = tmp_path / "published.json"
    file.write_text(json.dumps([good, changed(good, field, epoch)]))
    assert passive.main([str(file)]) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"{file}: case 1, suite 1, {'joining' if epoch is None else f'epoch {epoch}'}")


def test_the_runner_prints_what_passed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "published.json"
    file.write_text(json.dumps(load("passive-client-handling-commit")[:2]))
    assert passive.main([str(file)]) == 0
    assert f"{file}: 2 cases" in capsys.readouterr().out
    assert passive.main([]) == 2


def test_no_field_of_the_published_files_is_passed_over_and_a_missing_one_stops_the_runner() -> None:
    for name in ("passive-client-welcome", "passive-client-handling-commit"):
        for case in load(name):
            assert set(case) == passive.CASE
            assert passive.unknown_fields(case) == set()
    case = load("passive-client-welcome")[0]
    for field in passive.CASE - {"ratchet_tree"}:
        with pytest.raises(passive.Mismatch):
            passive.run_case({name: value for name, value in case.items() if name != field})


def test_a_field_that_the_format_does_not_know_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "published.json"
    file.write_text(json.dumps([{**load("passive-client-welcome")[0], "remark": "x"}]))
    assert passive.main([str(file)]) == 0
    assert "does not know: remark" in capsys.readouterr().out


def test_a_proposal_that_no_commit_needs_may_be_refused_and_one_that_it_needs_may_not() -> None:
    case = next(case for case in load("passive-client-handling-commit") if case["epochs"][1]["proposals"])
    spare = copy.deepcopy(case)
    spare["epochs"][1]["proposals"].append(changed(case, "commit", 1)["epochs"][1]["commit"])
    assert passive.run_case(spare) == passive.run_case(case)
    lacking = copy.deepcopy(case)
    lacking["epochs"][1]["proposals"].pop()
    with pytest.raises(passive.Mismatch, match="epoch 1: the commit is refused"):
        passive.run_case(lacking)


@pytest.mark.parametrize("suite", [1, 4, 5])
def test_private_keys_may_be_written_in_either_published_form(suite: int) -> None:
    case = next(case for case in load("passive-client-welcome") if case["cipher_suite"] == suite)
    private = signature_private(suite_of(suite), case["signature_priv"])
    other = b"\x00" + private.lstrip(b"\x00") if suite == 5 else private + suite_of(suite).signature_public_of(private)
    assert other != bytes.fromhex(case["signature_priv"])
    assert passive.run_case({**case, "signature_priv": other.hex()}).cases == 1
