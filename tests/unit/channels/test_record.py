"""The hand-written codec against fastavro: the same bytes for every canonical record, and nothing beyond them."""

from __future__ import annotations

import io
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker_crypto.channels import inner, record
from broker_crypto.errors import MalformedRecord, NotEncrypted, RecordRefused, UnsupportedRecord
from broker_crypto.records import Header
from broker_crypto.wire.envelopes import HEADERS, TOPIC_RECORD

SCHEMA = parse_schema(TOPIC_RECORD.schema)
HEADERS_SCHEMA = parse_schema(HEADERS.schema)
FIELDS = ("epoch", "epoch_id", "leaf", "stream", "sequence", "place", "flags", "ciphertext", "batch_index", "batch_path", "signature")


def number(bits: int) -> st.SearchStrategy[int]:
    """Numbers of every length of varint, not only those near the ends."""
    return st.integers(0, bits).flatmap(lambda n: st.integers(0, 2**n - 1))


@st.composite
def batches(draw: st.DrawFn) -> list[dict[str, Any]]:
    """The records of one batch, all canonical: as many as the path allows, at their own positions."""
    hashes = draw(st.integers(0, 6))
    common = {
        "epoch": draw(number(63)),
        "epoch_id": draw(st.binary(min_size=16, max_size=16)),
        "leaf": draw(number(31)),
        "stream": draw(st.binary(min_size=16, max_size=16)),
    }
    signature = draw(st.binary(min_size=1, max_size=200))
    one = st.fixed_dictionaries(
        {
            "sequence": number(32),
            "place": st.binary(min_size=4, max_size=4),
            "flags": st.integers(0, 7),
            "ciphertext": st.binary(min_size=16, max_size=300),
            "batch_path": st.binary(min_size=32 * hashes, max_size=32 * hashes),
        }
    )
    several = draw(st.lists(one, min_size=1, max_size=min(2**hashes, 5)))
    return [{**common, **fields, "batch_index": index, "signature": signature} for index, fields in enumerate(several)]


def by_fastavro(value: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    schemaless_writer(out, SCHEMA, value)
    return record.MARKER + out.getvalue()


def by_hand(batch: list[dict[str, Any]]) -> list[bytes]:
    """Through the functions that sealing calls."""
    first = batch[0]
    prefix = record.write_prefix(first["epoch"], first["epoch_id"], first["leaf"], first["stream"])
    headers = [record.write_header(prefix, one["sequence"], one["place"], one["flags"]) for one in batch]
    parts = [(header, one["ciphertext"]) for header, one in zip(headers, batch, strict=True)]
    return record.write_batch(parts, [one["batch_path"] for one in batch], first["signature"])


def fields_of(data: bytes) -> dict[str, Any]:
    prefix, rest = record.read_record(data)
    assert data.startswith(rest.header)
    values = (*prefix[:4], *rest[:3], *rest[4:])
    return dict(zip(FIELDS, values, strict=True))


def test_marker_and_fingerprint_are_those_of_the_published_schema() -> None:
    assert TOPIC_RECORD.marker == record.MARKER


@given(batches())
def test_every_canonical_record_is_written_and_read_as_fastavro_does(batch: list[dict[str, Any]]) -> None:
    written = by_hand(batch)
    assert written == [by_fastavro(one) for one in batch]
    assert [fields_of(data) for data in written] == batch


def is_canonical(value: dict[str, Any], left: bytes, again: bytes, data: bytes) -> bool:
    """docs/topics.md, The record, said another way than the codec says it."""
    hashes, rest = divmod(len(value["batch_path"]), 32)
    return (
        not left
        and again == data
        and 0 <= value["epoch"] < 2**63
        and 0 <= value["leaf"] < 2**31
        and 0 <= value["sequence"] < 2**32
        and len(value["ciphertext"]) >= 16
        and rest == 0
        and hashes <= 6
        and 0 <= value["batch_index"] < 2**hashes
        and len(value["signature"]) > 0
    )


def judge(data: bytes) -> type[RecordRefused] | None:
    """What the codec ought to say, by way of fastavro."""
    if data[:2] != b"\xc3\x01":
        return NotEncrypted
    if data[:10] != record.MARKER:
        return UnsupportedRecord
    stream = io.BytesIO(data[10:])
    try:
        value = schemaless_reader(stream, SCHEMA, None)
        left = stream.read()
        again = by_fastavro(value)
    except Exception:  # fastavro says "not readable" and "not writable" in many ways
        return MalformedRecord
    if not is_canonical(value, left, again, data):
        return MalformedRecord
    return None if value["flags"] in range(8) else UnsupportedRecord


def check(data: bytes) -> type[RecordRefused] | None:
    expected = judge(data)
    if expected is None:
        record.read_record(data)
    else:
        with pytest.raises(RecordRefused) as caught:
            record.read_record(data)
        assert type(caught.value) is expected
    return expected


def spoil(data: bytes, how: str, at: int, octet: int) -> bytes:
    at %= len(data)
    if how == "flip":
        return data[:at] + bytes((data[at] ^ (1 << octet % 8),)) + data[at + 1 :]
    if how == "set":
        return data[:at] + bytes((octet,)) + data[at + 1 :]
    if how == "insert":
        return data[:at] + bytes((octet,)) + data[at:]
    if how == "lengthen":  # a varint that ends here goes on: the same number in more bytes
        return data[:at] + bytes((data[at] | 0x80, 0)) + data[at + 1 :]
    if how == "remove":
        return data[:at] + data[at + 1 :]
    return data[:at] if how == "cut" else data + bytes((octet,))


HOW = ("flip", "set", "insert", "lengthen", "remove", "cut", "append")


@settings(max_examples=600)
@given(batches(), st.sampled_from(HOW), st.integers(0, 2**16), st.integers(0, 255))
def test_what_is_spoiled_is_judged_as_by_decoding_and_encoding_again(batch: list[dict[str, Any]], how: str, at: int, octet: int) -> None:
    check(spoil(by_fastavro(batch[-1]), how, at, octet))


wild = st.fixed_dictionaries(
    {
        "epoch": st.integers(-(2**63), 2**63 - 1) | number(63),
        "epoch_id": st.binary(min_size=16, max_size=16),
        "leaf": st.integers(-(2**31), 2**31 - 1) | number(31),
        "stream": st.binary(min_size=16, max_size=16),
        "sequence": st.integers(-(2**34), 2**34) | number(32),
        "place": st.binary(min_size=4, max_size=4),
        "flags": st.integers(-(2**31), 2**31 - 1) | st.integers(-2, 16),
        "ciphertext": st.binary(max_size=40),
        "batch_index": st.integers(-2, 70) | st.integers(-(2**31), 2**31 - 1),
        "batch_path": st.binary(max_size=70) | st.integers(0, 9).map(lambda n: bytes(32 * n)),
        "signature": st.binary(max_size=70),
    }
)


@settings(max_examples=400)
@given(wild)
@example({"epoch": 2**63 - 1, "epoch_id": bytes(16), "leaf": 2**31 - 1, "stream": bytes(16), "sequence": 2**32 - 1, "place": bytes(4),
          "flags": 7, "ciphertext": bytes(16), "batch_index": 63, "batch_path": bytes(192), "signature": b"s"})  # fmt: skip
def test_values_that_avro_can_hold_and_a_record_cannot_are_refused(value: dict[str, Any]) -> None:
    check(by_fastavro(value))


@given(st.binary(max_size=120))
def test_any_bytes_are_judged_as_by_fastavro(data: bytes) -> None:
    check(data)
    check(b"\xc3\x01" + data)
    check(record.MARKER + data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sequence", 2**32), ("sequence", -1), ("leaf", -1), ("epoch", -1), ("ciphertext", bytes(15)), ("signature", b""),
        ("batch_index", 8), ("batch_index", -1), ("batch_path", bytes(95)), ("batch_path", bytes(224)), ("flags", 8), ("flags", -1),
    ],
)  # fmt: skip
def test_what_fastavro_writes_and_reads_back_beyond_the_range_is_refused(field: str, value: int | bytes) -> None:
    good = {
        "epoch": 7, "epoch_id": bytes(16), "leaf": 5, "stream": bytes(16), "sequence": 9, "place": bytes(4), "flags": 0,
        "ciphertext": bytes(20), "batch_index": 3, "batch_path": bytes(96), "signature": bytes(64),
    }  # fmt: skip
    assert check(by_fastavro(good)) is None
    data = by_fastavro({**good, field: value})
    assert schemaless_reader(io.BytesIO(data[10:]), SCHEMA, None)[field] == value
    assert check(data) is (UnsupportedRecord if field == "flags" else MalformedRecord)


# --- sealed headers -----------------------------------------------------------------------------------------------

headers = st.lists(st.tuples(st.text(max_size=40), st.none() | st.binary(max_size=200)), max_size=70)


def avro_headers(given_headers: list[Header]) -> bytes:
    out = io.BytesIO()
    schemaless_writer(out, HEADERS_SCHEMA, [{"name": name, "value": value} for name, value in given_headers])
    return out.getvalue()


def readable_headers(data: bytes) -> list[Header] | None:
    """What fastavro reads, None for what is not the one encoding of it."""
    stream = io.BytesIO(data)
    try:
        found: list[Header] = [(one["name"], one["value"]) for one in schemaless_reader(stream, HEADERS_SCHEMA, None)]
        return found if not stream.read() and avro_headers(found) == data else None
    except Exception:  # fastavro says "not readable" in many ways
        return None


@given(headers)
def test_sealed_headers_are_written_and_read_as_fastavro_does(given_headers: list[Header]) -> None:
    assert inner.write_headers(given_headers) == avro_headers(given_headers)
    assert inner.read_headers(avro_headers(given_headers)) == given_headers


@settings(max_examples=400)
@given(headers, st.sampled_from(HOW), st.integers(0, 2**16), st.integers(0, 255))
@example([("a", b"b")], "set", 0, 0x01)  # a block with a negative count, and no length behind it
@example([], "append", 0, 0x00)
def test_spoiled_headers_are_judged_as_by_decoding_and_encoding_again(given_headers: list[Header], how: str, at: int, octet: int) -> None:
    data = spoil(avro_headers(given_headers), how, at, octet)
    expected = readable_headers(data)
    if expected is None:
        with pytest.raises(MalformedRecord):
            inner.read_headers(data)
    else:
        assert inner.read_headers(data) == expected


# --- padding ------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300), headers | st.none(), st.integers(0, 300))
def test_what_is_wrapped_is_unwrapped_and_padded_to_the_step(payload: bytes, given_headers: list[Header] | None, step: int) -> None:
    flags, plaintext = inner.wrap(payload, given_headers, step)
    assert flags == (4 if given_headers is not None else 0) | (2 if step else 0)
    assert not step or len(plaintext) % step == 0
    assert flags or plaintext is payload
    assert inner.unwrap(flags, plaintext) == (given_headers, payload)


@given(st.binary(max_size=40))
def test_padding_is_80_and_zeros_and_nothing_else(plaintext: bytes) -> None:
    end = plaintext.rfind(b"\x80")
    if end >= 0 and not any(plaintext[end + 1 :]):
        assert inner.unwrap(2, plaintext) == (None, plaintext[:end])
    else:
        with pytest.raises(MalformedRecord):
            inner.unwrap(2, plaintext)


def test_a_compressed_record_is_unsupported_and_bad_padding_comes_first() -> None:
    with pytest.raises(UnsupportedRecord):
        inner.unwrap(1, b"anything")
    with pytest.raises(UnsupportedRecord):
        inner.unwrap(3, b"anything\x80")
    with pytest.raises(MalformedRecord):
        inner.unwrap(3, b"anything")


def test_a_record_beyond_the_limit_of_the_format_is_refused_before_it_is_decrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    value: dict[str, Any] = {
        "epoch": 1, "epoch_id": bytes(16), "leaf": 1, "stream": bytes(16), "sequence": 1, "place": bytes(4), "flags": 2,
        "ciphertext": bytes(32), "batch_index": 0, "batch_path": b"", "signature": b"signed",
    }  # fmt: skip
    data = TOPIC_RECORD.encode(value)
    monkeypatch.setattr(record, "MAX_TOPIC_RECORD", len(data))
    record.read_record(data)
    monkeypatch.setattr(record, "MAX_TOPIC_RECORD", len(data) - 1)
    with pytest.raises(MalformedRecord):
        record.read_record(data)
