"""Hash, HMAC, HKDF and MLS's labels, against RFC 5869, another library and the limits."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_crypto.crypto import kdf, suite
from broker_crypto.errors import UsageError
from broker_crypto.wire import tls

THEIRS = {kdf.SHA256: hashes.SHA256(), kdf.SHA384: hashes.SHA384(), kdf.SHA512: hashes.SHA512()}
HASHES = pytest.mark.parametrize("hash_", THEIRS, ids=lambda hash_: hash_.name)


def test_hkdf_gives_the_values_of_rfc_5869() -> None:
    prk = kdf.SHA256.extract(bytes(range(13)), b"\x0b" * 22)
    assert prk.hex() == "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"
    assert kdf.SHA256.expand(prk, bytes(range(0xF0, 0xFA)), 42).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    empty = kdf.SHA256.extract(b"", b"\x0b" * 22)
    assert empty.hex() == "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04"
    assert kdf.SHA256.expand(empty, b"", 42).hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


@HASHES
def test_expand_gives_what_another_library_gives_at_every_length_around_the_blocks(hash_: kdf.Hash) -> None:
    prk, info = bytes(range(hash_.size)), b"info"
    size = hash_.size
    for n in (1, size - 1, size, size + 1, 2 * size - 1, 2 * size, 2 * size + 1, 255 * size - 1, 255 * size):
        assert hash_.expand(prk, info, n) == HKDFExpand(THEIRS[hash_], n, info).derive(prk)


@HASHES
def test_expand_refuses_lengths_that_hkdf_does_not_have(hash_: kdf.Hash) -> None:
    for n in (-1, 0, 255 * hash_.size + 1, 65536, 2**31):
        with pytest.raises(UsageError):
            hash_.expand(bytes(hash_.size), b"", n)


@pytest.mark.parametrize("number", range(1, 8))
def test_expand_with_label_refuses_the_same_lengths(number: int) -> None:
    s = suite(number)
    assert len(s.expand_with_label(bytes(s.nh), "x", b"", 255 * s.nh)) == 255 * s.nh
    for n in (-1, 0, 255 * s.nh + 1, 65536, 2**31):
        with pytest.raises(UsageError):
            s.expand_with_label(bytes(s.nh), "x", b"", n)


def test_a_generation_that_is_no_uint32_is_refused() -> None:
    s = suite(1)
    assert s.derive_tree_secret(bytes(32), "key", 2**32 - 1, 16) != s.derive_tree_secret(bytes(32), "key", 0, 16)
    for generation in (-1, 2**32):
        with pytest.raises(UsageError):
            s.derive_tree_secret(bytes(32), "key", generation, 16)


@settings(deadline=None)
@given(st.text(max_size=100), st.binary(max_size=20000), st.integers(1, 8160))
def test_the_kdf_label_is_the_struct_of_rfc_9420_section_8(label: str, context: bytes, n: int) -> None:
    reader = tls.Reader(kdf.kdf_label(label, context, n))
    assert (reader.u16(), reader.opaque(), reader.opaque()) == (n, b"MLS 1.0 " + label.encode(), context)
    reader.end()


@pytest.mark.parametrize("n", [0, 1, 63, 64, 16383, 16384, 70000])
def test_vectors_are_written_as_the_presentation_language_writes_them(n: int) -> None:
    assert kdf.opaque(bytes(n)) == tls.opaque(bytes(n))


def test_a_vector_of_a_gibibyte_is_refused_and_not_cut() -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return 2**30

    with pytest.raises(UsageError):
        kdf.opaque(Long())


def test_changing_any_input_of_a_derivation_changes_the_output() -> None:
    s = suite(1)
    outputs = {
        s.expand_with_label(secret, label, context, n)[:8]
        for secret in (bytes(32), b"\1" + bytes(31))
        for label in ("a", "b", "ab")
        for context in (b"", b"b", b"\0")
        for n in (8, 9)
    }
    assert len(outputs) == 2 * 3 * 3 * 2


@pytest.mark.parametrize("number", range(1, 8))
def test_a_mac_holds_for_its_own_key_data_and_length_only(number: int) -> None:
    s = suite(number)
    key, data = bytes(range(s.nh)), b"data"
    tag = s.mac(key, data)
    assert len(tag) == s.nh
    assert s.verify_mac(key, data, tag)
    wrong = [b"", tag[:-1], tag + b"\0", bytes([tag[0] ^ 1]) + tag[1:], tag[:-1] + bytes([tag[-1] ^ 1])]
    assert not any(s.verify_mac(key, data, other) for other in wrong)
    assert not s.verify_mac(key, data + b"\0", tag)
    assert not s.verify_mac(key[:-1] + b"\xff", data, tag)
