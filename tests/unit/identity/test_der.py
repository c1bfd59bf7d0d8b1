"""The DER reader takes the one encoding of each value, and answers anything else with PeerError."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_crypto.errors import PeerError
from broker_crypto.identity import der
from broker_crypto.identity.certificate import read_certificate
from broker_crypto.identity.profile import read_chain
from tests.support import certificates as make
from tests.support.certificates import tlv


def refused(work: Callable[[], object]) -> str:
    with pytest.raises(PeerError) as caught:
        work()
    assert caught.value.rule.startswith("der.")
    return caught.value.rule


@given(st.integers(0, 30), st.binary(max_size=70_000))
def test_an_element_reads_back_as_it_was_written(tag: int, content: bytes) -> None:
    reader = der.Reader(tlv(tag, content) + b"more")
    element = reader.next()
    assert (element.tag, element.content, element.encoding) == (tag, content, tlv(tag, content))
    assert reader.more


@given(st.binary(max_size=300))
def test_lengths_have_one_encoding(content: bytes) -> None:
    longer = bytes((4, 0x84)) + len(content).to_bytes(4, "big") + content
    assert refused(lambda: der.Reader(longer).next()) == "der.length"


@pytest.mark.parametrize(
    ("rule", "data"),
    [
        *(("der.end", data) for data in ("", "30", "300302", "04820100")),
        *(
            ("der.length", data)
            for data in ("3080", "30800000", "308100", "30817f", "30820080", "3081", "30ff", "3085000000000100", "30850100000000")
        ),
        *(("der.tag", data) for data in ("1f0100", "1f81000100", "bf0100", "ff")),
    ],
)
def test_a_cut_or_indefinite_or_padded_element_is_refused(rule: str, data: str) -> None:
    assert refused(lambda: der.Reader(bytes.fromhex(data)).next()) == rule


def test_nothing_may_stand_behind_the_last_element() -> None:
    assert refused(lambda: der.enter_only(tlv(0x30) + b"\0", der.SEQUENCE)) == "der.trailing"


def test_another_tag_than_expected_is_refused_and_an_optional_one_left_alone() -> None:
    reader = der.Reader(tlv(2, b"\1"))
    assert reader.optional(der.BOOLEAN) is None
    assert refused(lambda: der.Reader(tlv(2, b"\1")).take(der.BOOLEAN)) == "der.tag"
    assert reader.take(der.INTEGER).content == b"\1"


@given(st.integers(-(2**200), 2**200))
def test_integers_read_back(value: int) -> None:
    content = make.integer(value)[2:]
    if value < 0 and len(content) > 1 and content[0] == 0xFF and content[1] >= 0x80:
        content = content[1:]
    assert der.integer(content) == value


@pytest.mark.parametrize("content", [b"", b"\x00\x00", b"\x00\x7f", b"\xff\x80", b"\xff\xff"])
def test_an_integer_in_more_bytes_than_needed_is_refused(content: bytes) -> None:
    assert refused(lambda: der.integer(content)) == "der.integer"


@pytest.mark.parametrize("content", [b"", b"\x00", b"\x01", b"\xfe", b"\xff\xff"])
def test_a_boolean_is_ff(content: bytes) -> None:
    der.true(b"\xff")
    assert refused(lambda: der.true(content)) == "der.boolean"


def test_a_bit_string_of_bytes_has_no_unused_bits() -> None:
    assert der.bit_string(b"\0ab") == b"ab"
    for content in (b"", b"\1a"):
        assert refused(lambda content=content: der.bit_string(content)) == "der.bit_string"


@given(st.frozensets(st.integers(0, 15)))
def test_named_bits_read_back(numbers: frozenset[int]) -> None:
    content = make.key_usage(*numbers)[2 + 5 + 3 + 2 + 2 :]
    assert der.named_bits(content) == numbers


@pytest.mark.parametrize("content", ["", "01", "0100", "0780" + "00", "0680", "08ff", "000100", "0000", "00010203"])
def test_named_bits_that_do_not_end_in_a_one_are_refused(content: str) -> None:
    assert refused(lambda: der.named_bits(bytes.fromhex(content))) == "der.bit_string"


@pytest.mark.parametrize("content", ["", "80", "8001", "2a8000", "2a80", "2a" * 65])
def test_an_object_identifier_in_more_bytes_than_needed_or_cut_is_refused(content: str) -> None:
    assert refused(lambda: der.object_identifier(bytes.fromhex(content))) == "der.oid"


@given(st.datetimes(datetime(1950, 1, 1), datetime(2049, 12, 31, 23, 59, 59)))
def test_times_up_to_2049_are_utc_times(moment: datetime) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    assert der.seconds(der.Reader(make.utc(moment)).next()) == int(moment.timestamp())
    assert refused(lambda: der.seconds(der.Reader(make.generalized(moment)).next())) == "der.time"


@given(st.datetimes(datetime(2050, 1, 1), datetime(9999, 12, 31, 23, 59, 59)))
def test_times_from_2050_on_are_generalized_times(moment: datetime) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    assert der.seconds(der.Reader(make.generalized(moment)).next()) == int(moment.timestamp())


@pytest.mark.parametrize(
    "text", ["260101000000", "2601010000Z", "260230000000Z", "261301000000Z", "260101000060Z", "260101000000+0000", "26010100000 Z", ""]
)
def test_a_time_in_another_form_or_in_no_calendar_is_refused(text: str) -> None:
    assert refused(lambda: der.seconds(der.Reader(tlv(0x17, text.encode())).next())) == "der.time"


@pytest.mark.parametrize("element", [tlv(0x13, b"a_b"), tlv(0x16, b"\xe4"), tlv(0x0C, b"\xff"), tlv(0x14, b"T61"), tlv(0x1E, b"\0a")])
def test_text_of_another_kind_or_with_other_characters_is_refused(element: bytes) -> None:
    assert refused(lambda: der.text(der.Reader(element).next())) == "der.string"


def everything(data: bytes) -> None:
    """Every function of the reader on the same bytes."""
    for function in (der.integer, der.true, der.bit_string, der.named_bits, der.object_identifier, read_certificate):
        try:
            function(data)
        except PeerError:
            pass
    try:
        reader = der.Reader(data)
        while reader.more:
            element = reader.next()
            for function in (der.text, der.seconds):
                try:
                    function(element)
                except PeerError:
                    pass
    except PeerError:
        pass


@given(st.binary(max_size=200))
def test_whatever_the_bytes_nothing_but_a_peer_error_comes_out(data: bytes) -> None:
    everything(data)


GOOD = make.plans(0).leaf.build()


@given(st.data())
def test_a_certificate_bent_anywhere_gives_nothing_but_a_peer_error(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(GOOD)))
    cut = data.draw(st.integers(0, 12))
    bent = GOOD[:at] + data.draw(st.binary(max_size=12)) + GOOD[at + cut :]
    everything(bent)
    try:
        read_chain([bent])
    except PeerError:
        pass
