"""The TLS presentation language: what is written is read back, and nothing else is read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_crypto.errors import MalformedInput
from broker_crypto.wire import tls
from broker_crypto.wire.tls import Reader

QUICK = settings(deadline=None)


@pytest.mark.parametrize(
    ("n", "header"),
    [(0, "00"), (63, "3f"), (64, "4040"), (16383, "7fff"), (16384, "80004000"), (2**30 - 1, "bfffffff"), (15293, "7bbd"), (37, "25")],
)
def test_lengths_are_written_in_the_fewest_bytes(n: int, header: str) -> None:
    assert tls.length_prefix(n).hex() == header
    assert tls.decode(bytes.fromhex(header), Reader.length) == n


def test_a_length_of_2_to_the_30_is_not_written() -> None:
    with pytest.raises(ValueError, match="too long"):
        tls.length_prefix(2**30)


@pytest.mark.parametrize("header", ["4000", "403f", "80000000", "8000003f", "80003fff", "c0", "ff", "c000000000000040", "40", "800000", ""])
def test_lengths_that_are_not_minimal_not_defined_or_cut_are_refused(header: str) -> None:
    with pytest.raises(MalformedInput):
        Reader(bytes.fromhex(header)).length()


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 16383, 16384, 20000])
def test_a_vector_comes_back_and_no_cut_of_it(n: int) -> None:
    data = bytes(i % 251 for i in range(n))
    encoded = tls.opaque(data)
    assert tls.decode(encoded, Reader.opaque) == data
    for cut in {0, 1, len(encoded) // 2, len(encoded) - 1}:
        if cut < len(encoded):
            with pytest.raises(MalformedInput):
                tls.decode(encoded[:cut], Reader.opaque)
    with pytest.raises(MalformedInput):
        tls.decode(encoded + b"\0", Reader.opaque)


@QUICK
@given(st.lists(st.binary(max_size=70), max_size=6))
def test_a_vector_of_vectors_comes_back(items: list[bytes]) -> None:
    encoded = tls.vector(map(tls.opaque, items))
    assert tls.decode(encoded, lambda reader: reader.vector(Reader.opaque)) == items


def test_items_do_not_reach_beyond_their_vector() -> None:
    encoded = b"\x03" + b"\x01a" + b"\x02" + b"bc"
    with pytest.raises(MalformedInput):
        Reader(encoded).vector(Reader.opaque)


def test_a_vector_that_ends_within_an_item_is_refused() -> None:
    with pytest.raises(MalformedInput):
        tls.decode(b"\x03abc", lambda reader: reader.vector(Reader.u16))


def test_a_vector_of_empty_items_does_not_run_for_ever() -> None:
    with pytest.raises(MalformedInput):
        Reader(b"\x01a").vector(lambda reader: None)


def test_a_length_beyond_the_data_costs_no_memory() -> None:
    for read in (Reader.opaque, lambda reader: reader.vector(Reader.u8)):
        with pytest.raises(MalformedInput):
            read(Reader(b"\xbf\xff\xff\xffabc"))


def test_integers_are_big_endian_and_as_long_as_they_say() -> None:
    reader = Reader(b"\x01" + b"\x01\x02" + b"\x01\x02\x03\x04" + b"\x01\x02\x03\x04\x05\x06\x07\x08")
    assert (reader.u8(), reader.u16(), reader.u32(), reader.u64()) == (1, 0x102, 0x1020304, 0x102030405060708)
    reader.end()
    for read, n in ((Reader.u8, 1), (Reader.u16, 2), (Reader.u32, 4), (Reader.u64, 8)):
        with pytest.raises(MalformedInput):
            read(Reader(bytes(n - 1)))


@pytest.mark.parametrize(("write", "bits"), [(tls.u8, 8), (tls.u16, 16), (tls.u32, 32), (tls.u64, 64)])
def test_integers_out_of_range_are_not_written(write: object, bits: int) -> None:
    assert write(2**bits - 1) == b"\xff" * (bits // 8)  # type: ignore[operator]
    for value in (-1, 2**bits):
        with pytest.raises(OverflowError):
            write(value)  # type: ignore[operator]


def test_an_optional_value_is_there_or_not_and_nothing_else() -> None:
    read = lambda reader: reader.optional(Reader.u8)  # noqa: E731
    assert tls.decode(tls.optional(None), read) is None
    assert tls.decode(tls.optional(b"\x07"), read) == 7
    for other in (b"\x02\x07", b"\xff", b"\x01", b"", b"\x00\x07"):
        with pytest.raises(MalformedInput):
            tls.decode(other, read)


def test_a_reader_tells_where_it_is_and_what_it_passed() -> None:
    reader = Reader(b"abcdef")
    assert reader.take(2) == b"ab"
    start = reader.offset
    assert reader.take(3) == b"cde"
    assert reader.since(start) == b"cde"
    assert reader.left == 1
    with pytest.raises(MalformedInput):
        reader.end()
    with pytest.raises(MalformedInput):
        reader.take(2)
    assert reader.offset == 5
    assert reader.take(0) == b""
    assert reader.take(1) == b"f"
    reader.end()
