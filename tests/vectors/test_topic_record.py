"""Our vectors of the topic record: everything that a file says is compared, and how much that was is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.vectors import topic

FILE = Path(__file__).parent / "data" / "topic_record.json"

CASES = 15
RECORDS = 114
COMPRESSED = 5  # of RECORDS
OPENS, NEGATIVE = 13, 513  # of 20 and 543
REFUSED = {
    "NotEncrypted": 5, "UnsupportedRecord": 11, "MalformedRecord": 73, "EpochNotReached": 2, "NotAMemberAtEpoch": 2, "EpochMissed": 1,
    "KeyExpired": 2, "UnknownEpoch": 18, "Relocated": 60, "Tampered": 130, "BadSignature": 177, "NotAuthorised": 8, "RemovedSender": 24,
}  # fmt: skip


def test_every_field_of_every_vector_is_compared_and_only_compression_and_aliases_are_left_out() -> None:
    data = json.loads(FILE.read_bytes())
    records = sum(len(case["records"]) for case in data["cases"])
    assert (len(data["cases"]), records, len(data["opens"]), len(data["negative"])) == (CASES, RECORDS, 20, 543)
    report = topic.run(FILE)
    counted = report.compared
    assert counted["cases"] == CASES
    for value in ("epoch_id", "stream_secret", "topic_secret", "place_key", "signature_public"):
        assert counted[value] == CASES
    for value in ("sender_secret", "key", "base_nonce"):
        assert counted[value] == sum(len(case["senders"]) for case in data["cases"]) == 18
    assert counted["place_hash"] == RECORDS
    assert counted["inner"] == RECORDS - COMPRESSED
    # Every batch is sealed twice, from what is prepared and through the channel; one holds flags, which the channel sets for a topic.
    both = RECORDS + RECORDS - 14
    for value in ("header", "ciphertext", "leaf_hash", "root", "batch_path", "signature"):
        assert counted[value] == both
    signed_by_edwards = sum(len(case["records"]) for case in data["cases"] if case["suite"] in (1, 3, 4, 6))
    assert counted["record"] == counted["signature as given"] == 2 * signed_by_edwards - 14
    # Opened: what was sealed here, and what the file holds with empty and with full caches, twice each.
    readable = RECORDS - COMPRESSED
    assert counted["opened payload"] == counted["opened headers"] == counted["opened sender"] == both - COMPRESSED + 4 * readable
    assert (counted["opens"], counted["negative"]) == (OPENS, NEGATIVE)
    assert {name.removeprefix("refused "): n for name, n in counted.items() if name.startswith("refused ")} == REFUSED
    assert counted["error"] == counted["caches and windows"] == counted["untouched record opens"] == 2 * NEGATIVE
    assert sum(report.left_out.values()) == len(report.names_left_out) == 20 - OPENS + 543 - NEGATIVE + COMPRESSED
    assert set(report.left_out) == {"compress", "aliases"}


def one_case() -> dict[str, Any]:
    """A batch of 8 with two entries that open and two that are refused."""
    data: dict[str, Any] = json.loads(FILE.read_bytes())
    name = "s1-kafka-8"
    data["cases"] = [case for case in data["cases"] if case["name"] == name]
    for part in ("opens", "negative"):
        data[part] = [entry for entry in data[part] if entry["case"] == name][:2]
    return data


def test_a_part_of_the_file_runs_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "part.json"
    file.write_text(json.dumps(one_case()))
    assert topic.run(file).compared["record"] == 16


def change_case(value: str) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        case = data["cases"][0]
        case[value] = ("0" if case[value][0] != "0" else "1") + case[value][1:]

    return change


def change_record(value: str) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        entry = data["cases"][0]["records"][3]
        entry[value] = entry[value][:-1] + ("0" if entry[value][-1] != "0" else "1")

    return change


def change_error(data: dict[str, Any]) -> None:
    data["negative"][0]["error"] = "KeyExpired"


def change_opened(data: dict[str, Any]) -> None:
    data["opens"][0]["payload"] += "00"


@pytest.mark.parametrize(
    "change",
    [
        *map(change_case, ("epoch_id", "stream_secret", "topic_secret", "place_key", "signature_public", "root", "signature")),
        *map(change_record, ("payload", "place_hash", "header", "leaf_hash", "record")),
        change_error,
        change_opened,
    ],
)
def test_a_file_with_one_value_changed_is_found_out(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    data = one_case()
    change(data)
    file = tmp_path / "changed.json"
    file.write_text(json.dumps(data))
    with pytest.raises(topic.Differs):
        topic.run(file)


def test_the_command_says_what_was_compared_and_left_out_and_fails_where_a_value_differs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = one_case()
    data["opens"] += [entry for entry in json.loads(FILE.read_bytes())["opens"] if entry["name"] == "mirrored, with the alias"]
    good, changed = tmp_path / "good.json", tmp_path / "changed.json"
    good.write_text(json.dumps(data))
    change_error(data)
    changed.write_text(json.dumps(data))
    assert topic.main([str(good)]) == 0
    said = capsys.readouterr().out
    assert "      2 negative\n" in said
    assert "      1 left out, needing aliases, which is not built" in said
    assert "left out: s1-nats-3: mirrored, with the alias" in said
    assert topic.main([str(good), str(changed)]) == 1
    assert topic.main([]) == 2
