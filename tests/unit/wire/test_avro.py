"""The codec: one encoding a value, and no byte more than that is taken."""

from __future__ import annotations

import io
import traceback
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_crypto.errors import MalformedInput, UsageError
from broker_crypto.wire.avro import Codec


def record(*fields: tuple[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "T", "namespace": "n", "fields": [{"name": name, "type": kind} for name, kind in fields]}


FIXED = {"type": "fixed", "name": "F", "size": 2}
ENUM = {"type": "enum", "name": "E", "symbols": ["a", "b"]}
INTS = {"type": "array", "items": "int"}
SCHEMA = record(
    ("i", "int"), ("l", "long"), ("f", FIXED), ("b", "bytes"), ("s", "string"),
    ("o", ["null", "bytes"]), ("e", ENUM), ("t", "boolean"), ("a", INTS),
)  # fmt: skip
CODEC = Codec(SCHEMA, max_size=10_000)
VALUE: dict[str, Any] = {"i": 1, "l": -2, "f": b"ab", "b": b"xyz", "s": "ß", "o": b"o", "e": "b", "t": True, "a": [7, -7]}
BODY = b"\x02" + b"\x03" + b"ab" + b"\x06xyz" + b"\x04\xc3\x9f" + b"\x02\x02o" + b"\x02" + b"\x01" + b"\x04\x0e\x0d\x00"
PARTS = {
    "i": b"\x02", "l": b"\x03", "f": b"ab", "b": b"\x06xyz", "s": b"\x04\xc3\x9f",
    "o": b"\x02\x02o", "e": b"\x02", "t": b"\x01", "a": b"\x04\x0e\x0d\x00",
}  # fmt: skip


def with_part(name: str, part: bytes) -> bytes:
    return CODEC.marker + b"".join((PARTS | {name: part}).values())


def test_the_bytes_are_those_of_the_specification() -> None:
    assert CODEC.encode(VALUE) == CODEC.marker + BODY
    assert CODEC.decode(CODEC.marker + BODY) == VALUE
    assert CODEC.marker == b"\xc3\x01" + CODEC.fingerprint
    assert CODEC.encode_body(VALUE) == BODY
    assert CODEC.decode_body(BODY) == VALUE


def test_the_fingerprint_is_that_of_the_specification_and_little_endian() -> None:
    """The Avro specification gives 63dd24e7cc258f8a as CRC-64-AVRO of "null"."""
    assert Codec("null", max_size=10).fingerprint.hex() == "8a8f25cce724dd63"


def crc_64_avro(data: bytes) -> int:
    empty = crc = 0xC15D213AA4D7A795
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (empty & -(crc & 1))
    return crc


def test_the_fingerprint_is_taken_over_the_parsing_canonical_form() -> None:
    canonical = b'{"name":"n.T","type":"record","fields":[{"name":"a","type":"long"}]}'
    codec = Codec(record(("a", {"type": "long"})), max_size=10)
    assert codec.fingerprint == crc_64_avro(canonical).to_bytes(8, "little")


NOT_CANONICAL = [
    ("an int in two bytes where one does", "i", b"\x82\x00"),
    ("a long in ten bytes", "l", b"\x83" + b"\x80" * 8 + b"\x00"),
    ("a varint of eleven bytes", "l", b"\x83" + b"\x80" * 9 + b"\x00"),
    ("a varint with a hundred thousand continuation bytes", "l", b"\x83" + b"\x80" * 9000 + b"\x00"),
    ("a varint that does not end", "l", b"\x80" * 9000),
    ("an int beyond 32 bits", "i", b"\x80\x80\x80\x80\x10"),
    ("an int below 32 bits", "i", b"\x81\x80\x80\x80\x10"),
    ("a long beyond 64 bits", "l", b"\xff" * 9 + b"\x02"),
    ("a length that is negative", "b", b"\x01"),
    ("a length that is negative, with bytes", "b", b"\x05xyz"),
    ("a length of 2^62", "b", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01xyz"),
    ("a length in two bytes where one does", "b", b"\x86\x00xyz"),
    ("a string that is no UTF-8", "s", b"\x04\xc3\x28"),
    ("a string with an overlong form", "s", b"\x04\xc1\x9f"),
    ("a string with a surrogate", "s", b"\x06\xed\xa0\x80"),
    ("a string of negative length", "s", b"\x03"),
    ("a branch that there is not", "o", b"\x04\x02o"),
    ("a branch counted from behind", "o", b"\x01\x02o"),
    ("a branch in two bytes", "o", b"\x82\x00\x02o"),
    ("a symbol that there is not", "e", b"\x04"),
    ("a symbol counted from behind", "e", b"\x01"),
    ("a symbol in two bytes", "e", b"\x82\x00"),
    ("a boolean of 2", "t", b"\x02"),
    ("a boolean of 255", "t", b"\xff"),
    ("a block with its size", "a", b"\x03\x04\x0e\x0d\x00"),
    ("two blocks where one does", "a", b"\x02\x0e\x02\x0d\x00"),
    ("a block of more items than there are", "a", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x0e"),
    ("an array without its end", "a", b"\x04\x0e\x0d"),
    ("an end in two bytes", "a", b"\x04\x0e\x0d\x80\x00"),
]


@pytest.mark.parametrize(("what", "name", "part"), NOT_CANONICAL, ids=[case[0] for case in NOT_CANONICAL])
def test_what_is_not_the_canonical_encoding_is_refused(what: str, name: str, part: bytes) -> None:
    with pytest.raises(MalformedInput):
        CODEC.decode(with_part(name, part))


def test_the_library_below_takes_some_of_it_so_the_checks_are_needed() -> None:
    parsed = fastavro.parse_schema(SCHEMA)
    taken = 0
    for _, name, part in NOT_CANONICAL:
        try:
            fastavro.schemaless_reader(io.BytesIO(with_part(name, part)[10:]), parsed, None)
            taken += 1
        except Exception:
            continue
    assert taken >= 8


def test_bytes_behind_a_value_and_missing_bytes_are_refused() -> None:
    good = CODEC.encode(VALUE)
    for n in range(len(good)):
        with pytest.raises(MalformedInput):
            CODEC.decode(good[:n])
    for more in (b"\0", b"\0" * 8, good):
        with pytest.raises(MalformedInput):
            CODEC.decode(good + more)


def test_another_marker_or_fingerprint_is_refused() -> None:
    good = CODEC.encode(VALUE)
    for bit in range(80):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(MalformedInput):
            CODEC.decode(bytes(changed))
    for other in (b"", b"\xc3", b"\xc3\x01", BODY, b"Obj\x01" + good, b"\x00\x00\x00\x00\x01" + BODY):
        with pytest.raises(MalformedInput):
            CODEC.decode(other)


def test_the_size_is_looked_at_first() -> None:
    codec = Codec("bytes", max_size=110)
    assert codec.decode(codec.encode(bytes(98))) == bytes(98)
    with pytest.raises(UsageError, match="too large"):
        codec.encode(bytes(99))
    with pytest.raises(MalformedInput, match="too large"):
        codec.decode(b"x" * 111)
    with pytest.raises(MalformedInput, match="too large"):
        codec.decode_body(b"x" * 111)


NO_FIT = [
    {"i": True}, {"i": 1.5}, {"i": 2**31}, {"i": -(2**31) - 1}, {"i": None}, {"i": "1"}, {"l": 2**63}, {"l": 1.0}, {"f": b"a"},
    {"f": b"abc"}, {"f": "ab"}, {"b": "xyz"}, {"b": None}, {"s": b"s"}, {"s": "\ud800"}, {"s": 1}, {"o": "o"}, {"o": 1}, {"e": "c"},
    {"e": 1}, {"t": 1}, {"t": None}, {"a": [True]}, {"a": [1, None]}, {"a": 1}, {"a": "12"}, {"a": None}, {"x": 1},
]  # fmt: skip


@pytest.mark.parametrize("change", NO_FIT, ids=repr)
def test_a_value_that_does_not_fit_is_a_usage_error(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        CODEC.encode(VALUE | change)


@pytest.mark.parametrize("name", VALUE)
def test_a_field_that_is_missing_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError):
        CODEC.encode({key: value for key, value in VALUE.items() if key != name})


def test_a_refusal_names_no_content() -> None:
    for value in (VALUE | {"i": "the secret"}, VALUE | {"s": "the secret\ud800"}, VALUE | {"f": b"the secret"}):
        with pytest.raises(UsageError) as caught:
            CODEC.encode(value)
        assert "secret" not in "".join(traceback.format_exception_only(caught.value))
        assert caught.value.__context__ is None or caught.value.__suppress_context__
    with pytest.raises(MalformedInput) as refused:
        CODEC.decode(with_part("s", b"\x16the secret\xff"))
    assert "secret" not in str(refused.value)


EMPTY = {"type": "fixed", "name": "Z", "size": 0}
REFUSED_SCHEMAS = [
    ("a record in itself", record(("a", ["null", "T"]))),
    ("a record in itself by its full name", record(("a", {"type": "array", "items": "n.T"}))),
    ("a record in itself through another", record(("a", record(("b", ["null", "T"])) | {"name": "U"}))),
    ("an array of null", {"type": "array", "items": "null"}),
    ("an array of empty records", {"type": "array", "items": {"type": "record", "name": "U", "fields": []}}),
    ("an array of records of nothing", {"type": "array", "items": record(("a", "null"), ("b", EMPTY))}),
    ("an array of a name that takes nothing", record(("a", EMPTY), ("b", {"type": "array", "items": "Z"}))),
    ("a map", {"type": "map", "values": "int"}),
    ("a float", record(("a", "float"))),
    ("a double", record(("a", "double"))),
    ("a logical type", record(("a", {"type": "long", "logicalType": "timestamp-millis"}))),
    ("a decimal", record(("a", {"type": "bytes", "logicalType": "decimal", "precision": 4}))),
    ("a name that is not there", record(("a", "Unknown"))),
    ("a name used before it is there", record(("a", "F"), ("b", FIXED))),
]  # fmt: skip


@pytest.mark.parametrize(("what", "schema"), REFUSED_SCHEMAS, ids=[case[0] for case in REFUSED_SCHEMAS])
def test_a_schema_that_could_cost_memory_or_stack_or_hide_something_is_refused(what: str, schema: Any) -> None:
    with pytest.raises(UsageError):
        Codec(schema, max_size=100)


def test_items_of_at_least_a_byte_and_names_used_again_are_taken() -> None:
    Codec({"type": "array", "items": ["null", "int"]}, max_size=100)
    Codec(record(("a", FIXED), ("b", {"type": "array", "items": "F"}), ("c", {"type": "array", "items": "n.F"})), max_size=100)
    Codec({"type": "array", "items": INTS}, max_size=100)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=60))
def test_whatever_is_decoded_encodes_to_the_same_bytes(body: bytes) -> None:
    try:
        value = CODEC.decode(CODEC.marker + body)
    except MalformedInput:
        return
    assert CODEC.encode(value) == CODEC.marker + body


def test_the_codec_changes_neither_the_schema_nor_the_value() -> None:
    schema, value = record(("a", INTS), ("b", FIXED)), {"a": [1], "b": b"ab"}
    Codec(schema, max_size=100).encode(value)
    assert schema == record(("a", INTS), ("b", FIXED))
    assert value == {"a": [1], "b": b"ab"}
