"""The published schemas: what is in schemas/ is what is written, and every fingerprint that was released still decodes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker_crypto.errors import MalformedInput, UsageError
from broker_crypto.wire import envelopes
from broker_crypto.wire.avro import Codec
from tests.support.avro_values import values

SCHEMAS = Path(__file__).resolve().parents[3] / "schemas"
EVERY = pytest.mark.parametrize("name", envelopes.PUBLISHED)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
STRATEGIES = {name: values(codec.schema) for name, codec in envelopes.PUBLISHED.items()}
BODY_ALONE = {"Headers"}  # written without marker and fingerprint

# A line that is here is never changed: records with this fingerprint lie in brokers and stores.
RELEASED = {
    "TopicRecord": "28071d7b7735b6ba",
    "Headers": "5cb019dacd53285d",
    "GroupRecord": "3bf2a1cb8f54abe8",
    "CommitData": "69d41d8d26dcb847",
    "Leave": "640016d0779e3855",
    "GroupPolicy": "3b6c739134ff7332",
    "EpochRow": "42cd6f7b967dd985",
    "FenceRow": "d8104ed8bbb23368",
    "StagedRow": "eaf79763b5d8efb7",
    "IntentRow": "e7ff812739688896",
    "Delta": "ad79ff5232b7e5e7",
    "CursorRow": "eb66828dc3186ca4",
    "RetentionRow": "585ee8acd05747a8",
    "GroupRow": "c98465c796023d86",
}


def encode(name: str, value: Any) -> bytes:
    codec = envelopes.PUBLISHED[name]
    return codec.encode_body(value) if name in BODY_ALONE else codec.encode(value)


def decode(name: str, data: bytes) -> Any:
    codec = envelopes.PUBLISHED[name]
    return codec.decode_body(data) if name in BODY_ALONE else codec.decode(data)


def test_there_is_one_file_a_schema_and_no_other() -> None:
    assert {path.name for path in SCHEMAS.iterdir()} == {f"{name}.avsc" for name in envelopes.PUBLISHED}


@EVERY
def test_the_file_is_the_schema_that_is_written(name: str) -> None:
    text = (SCHEMAS / f"{name}.avsc").read_text(encoding="utf-8")
    assert text == json.dumps(envelopes.PUBLISHED[name].schema, indent=2) + "\n"


@EVERY
def test_any_avro_tool_can_use_the_file_alone(name: str) -> None:
    parsed = fastavro.parse_schema(json.loads((SCHEMAS / f"{name}.avsc").read_text(encoding="utf-8")))
    fingerprint = fastavro.schema.fingerprint(fastavro.schema.to_parsing_canonical_form(parsed), "CRC-64-AVRO")
    assert bytes.fromhex(fingerprint) == envelopes.PUBLISHED[name].fingerprint


def test_every_fingerprint_is_the_one_that_was_released() -> None:
    assert {name: codec.fingerprint.hex() for name, codec in envelopes.PUBLISHED.items()} == RELEASED
    assert len(set(RELEASED.values())) == len(RELEASED)


@EVERY
def test_names_are_in_one_namespace_and_the_record_bears_the_name_of_its_file(name: str) -> None:
    schema = envelopes.PUBLISHED[name].schema
    record = schema["items"] if name == "Headers" else schema
    assert record["namespace"] == envelopes.NAMESPACE == "broker_crypto"
    assert record["name"] == ("Header" if name == "Headers" else name)


@EVERY
@QUICK
@given(data=st.data())
def test_a_value_comes_back_as_it_was(name: str, data: st.DataObject) -> None:
    value = data.draw(STRATEGIES[name])
    encoded = encode(name, value)
    assert decode(name, encoded) == value
    parsed = fastavro.parse_schema(envelopes.PUBLISHED[name].schema)
    assert fastavro.schemaless_reader(io.BytesIO(encoded[0 if name in BODY_ALONE else 10 :]), parsed, None) == value


@EVERY
@QUICK
@given(data=st.data())
def test_a_changed_cut_or_longer_encoding_is_refused_or_another_value(name: str, data: st.DataObject) -> None:
    value = data.draw(STRATEGIES[name])
    encoded = encode(name, value)
    at = data.draw(st.integers(0, len(encoded) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != encoded[at]))
    for other in (
        encoded[:at] + bytes([byte]) + encoded[at + 1 :],
        encoded[:at] + encoded[at + 1 :],
        encoded[:at] + bytes([byte]) + encoded[at:],
        encoded + bytes([byte]),
        encoded[:at],
    ):
        if other == encoded:
            continue
        try:
            changed = decode(name, other)
        except MalformedInput:
            continue
        assert changed != value
        assert encode(name, changed) == other


def every_change(encoded: bytes) -> list[bytes]:
    """All changes of one byte, all cuts, all bytes appended."""
    changed = [encoded[:i] + bytes([b]) + encoded[i + 1 :] for i in range(len(encoded)) for b in range(256) if b != encoded[i]]
    return changed + [encoded[:n] for n in range(len(encoded))] + [encoded + bytes([b]) for b in range(256)]


SMALL: dict[str, Any] = {
    "TopicRecord": {
        "epoch": 3, "epoch_id": bytes(16), "leaf": 1, "stream": bytes(16), "sequence": 300, "place": b"\1\2\3\4", "flags": 0,
        "ciphertext": b"sealed", "batch_index": 0, "batch_path": b"", "signature": b"signed",
    },
    "Headers": [{"name": "a", "value": b"b"}, {"name": "a", "value": None}],
    "GroupRecord": {"kind": 2, "epoch": 5, "message": b"mls", "group_info": b""},
    "CommitData": {"version": 1, "time": 5, "fences": [{"topic": "t", "identity": "i", "ends": [{"partition": -1, "first_refused": 9}]}]},
    "GroupPolicy": {
        "rules": 1, "group": "g", "topics": ["t"], "time": 1, "anchors": [{"certificate": b"c", "identities": ["i"]}],
        "roles": [{"pattern": "p", "role": "admin"}], "barred": [], "revoked": [], "key_retention": -1, "max_offline": 9,
    },
    "IntentRow": {"id": b"i", "kind": "leave", "asked": 1, "delta": b"", "refused": None},
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_all_changes_of_one_byte_are_refused_or_another_value(name: str) -> None:
    encoded = encode(name, SMALL[name])
    others = every_change(encoded)
    refused = 0
    for other in others:
        try:
            changed = decode(name, other)
        except MalformedInput:
            refused += 1
        else:
            assert changed != SMALL[name]
            assert encode(name, changed) == other
    assert len(others) > 256
    assert refused > len(encoded)


@EVERY
def test_one_record_is_not_taken_for_another(name: str) -> None:
    for other in set(SMALL) - BODY_ALONE - {name}:
        with pytest.raises(MalformedInput):
            envelopes.PUBLISHED[name].decode(encode(other, SMALL[other]))


def test_sealed_headers_are_one_block_in_order_with_duplicates() -> None:
    assert envelopes.HEADERS.encode_body(SMALL["Headers"]) == b"\x04" + b"\x02a\x02\x02b" + b"\x02a\x00" + b"\x00"
    assert envelopes.HEADERS.encode_body([]) == b"\x00"
    assert envelopes.HEADERS.decode_body(b"\x00") == []
    two_blocks = b"\x02" + b"\x02a\x02\x02b" + b"\x02" + b"\x02a\x00" + b"\x00"
    with pytest.raises(MalformedInput):
        envelopes.HEADERS.decode_body(two_blocks)


def test_a_topic_record_has_the_layout_of_the_documentation() -> None:
    encoded = envelopes.TOPIC_RECORD.encode(SMALL["TopicRecord"])
    assert encoded == (
        bytes.fromhex("c301" + "28071d7b7735b6ba")
        + b"\x06" + bytes(16) + b"\x02" + bytes(16) + b"\xd8\x04" + b"\1\2\3\4" + b"\x00"
        + b"\x0csealed" + b"\x00" + b"\x00" + b"\x0csigned"
    )  # fmt: skip


def test_what_a_leave_signs_is_its_encoding_up_to_the_signature() -> None:
    leave = {"group_id": b"g" * 32, "leaf": 7, "leaf_node": b"h" * 32}
    content = envelopes.leave_content(**leave)
    for signature in (b"", b"s", b"s" * 64, b"s" * 200):
        encoded = envelopes.LEAVE.encode(leave | {"signature": signature})
        assert encoded.startswith(content)
        assert Codec("bytes", max_size=1000).decode_body(encoded[len(content) :]) == signature
    assert envelopes.leave_content(**(leave | {"leaf": 8})) != content
    with pytest.raises(UsageError):
        envelopes.leave_content(**(leave | {"leaf_node": b"h" * 31}))
