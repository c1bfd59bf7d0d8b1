"""What `broker-crypto inspect` shows: the fields that anybody sees, and never a guess."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker_crypto.cli.inspect import describe
from broker_crypto.errors import MalformedRecord, NotEncrypted, UnsupportedRecord
from broker_crypto.wire.envelopes import EPOCH_ROW
from tests.support.world import World

DATA = Path(__file__).parents[2] / "vectors" / "data" / "topic_record.json"


def test_a_topic_record_shows_its_fields_without_keys() -> None:
    case = json.loads(DATA.read_text())["cases"][1]
    for index, record in enumerate(case["records"]):
        fields = describe(bytes.fromhex(record["record"]))
        assert fields["kind"] == "topic record"
        assert (fields["epoch"], fields["leaf"], fields["sequence"]) == (case["epoch"], case["leaf"], record["sequence"])
        assert (fields["batch_index"], fields["stream"]) == (index, case["stream"])
        assert fields["bytes"] == len(record["record"]) // 2


async def test_records_of_a_group_log_show_their_kind_sender_and_signed_time() -> None:
    world = World()
    ops, reader = world.actor("ops"), world.actor("reader-1")
    await world.settle(ops, reader)
    founding, commit = (describe(entry.record) for entry in world.broker.entries("orders"))
    assert (founding["kind"], founding["message"]) == ("founding", "GroupInfo")
    assert (commit["kind"], commit["message"], commit["sender"]) == ("commit", "PublicMessage", "new_member_commit")
    assert commit["signed_time_ms"] == world.clock.now_ms()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", NotEncrypted),
        (b"plain text", NotEncrypted),
        (b"\xc3\x01" + bytes(8), UnsupportedRecord),
        (EPOCH_ROW.marker, UnsupportedRecord),
        (bytes.fromhex("c30128071d7b7735b6ba"), MalformedRecord),
    ],
)
def test_what_is_no_envelope_of_ours_is_named(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        describe(data)
