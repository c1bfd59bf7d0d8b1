"""AEAD of the suites: what was not sealed exactly so is refused, and tells nothing."""

from __future__ import annotations

import traceback

import pytest

from broker_crypto.crypto import AuthenticationFailed, InvalidTag, suite
from broker_crypto.errors import BrokerCryptoError, UsageError

SUITES = pytest.mark.parametrize("number", range(1, 8))


def test_aes_gcm_gives_the_values_of_its_specification() -> None:
    key, nonce = bytes(16), bytes(12)
    assert suite(1).seal(key, nonce, bytes(16), b"").hex() == "0388dace60b6a392f328c2b971b2fe78ab6e47d42cec13bdf53a67b21257bddf"


def test_chacha20_poly1305_gives_the_value_of_rfc_8439() -> None:
    text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
    key, nonce, aad = bytes(range(0x80, 0xA0)), bytes.fromhex("070000004041424344454647"), bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    sealed = suite(3).seal(key, nonce, text, aad)
    assert sealed[:16].hex() == "d31a8d34648e60db7b86afbc53ef7ec2"
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"


@SUITES
def test_every_bit_of_ciphertext_aad_nonce_and_key_counts(number: int) -> None:
    s = suite(number)
    key, nonce, aad, text = bytes(range(s.nk)), bytes(range(s.nn)), b"aad", b"some text"
    parts = {"key": key, "nonce": nonce, "ciphertext": s.seal(key, nonce, text, aad), "aad": aad}
    assert s.open(**parts) == text
    for name, value in parts.items():
        for bit in range(8 * len(value)):
            changed = bytearray(value)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(AuthenticationFailed):
                s.open(**(parts | {name: bytes(changed)}))


@SUITES
def test_cut_or_longer_ciphertexts_are_refused(number: int) -> None:
    s = suite(number)
    key, nonce = bytes(s.nk), bytes(s.nn)
    sealed = s.seal(key, nonce, b"text", b"")
    for other in [sealed[:n] for n in range(len(sealed))] + [sealed + b"\0", b"\0" + sealed]:
        with pytest.raises(AuthenticationFailed):
            s.open(key, nonce, other, b"")


@SUITES
def test_empty_text_is_sealed_and_opened(number: int) -> None:
    s = suite(number)
    sealed = s.seal(bytes(s.nk), bytes(s.nn), b"", b"")
    assert len(sealed) == 16
    assert s.open(bytes(s.nk), bytes(s.nn), sealed, b"") == b""


@SUITES
def test_keys_and_nonces_of_another_length_are_a_usage_error(number: int) -> None:
    s = suite(number)
    for n in (0, s.nk - 1, s.nk + 1, 16 if s.nk == 32 else 32, 24):
        for call in (s.seal, s.open):
            with pytest.raises(UsageError):
                call(bytes(n), bytes(s.nn), bytes(32), b"")
        with pytest.raises(UsageError):
            s.cipher(bytes(n))
    for n in (0, 8, 11, 13, 16):
        for call in (s.seal, s.open):
            with pytest.raises(UsageError):
                call(bytes(s.nk), bytes(n), bytes(32), b"")


@SUITES
def test_a_kept_cipher_does_what_seal_and_open_do(number: int) -> None:
    s = suite(number)
    cipher = s.cipher(bytes(s.nk))
    sealed = cipher.encrypt(bytes(12), b"text", b"aad")
    assert sealed == s.seal(bytes(s.nk), bytes(12), b"text", b"aad")
    assert cipher.decrypt(bytes(12), sealed, b"aad") == b"text"
    for other in (b"", sealed[:15], sealed[:-1]):
        with pytest.raises(InvalidTag):
            cipher.decrypt(bytes(12), other, b"aad")


def test_the_refusal_is_in_the_tree_and_names_neither_key_nor_text() -> None:
    s = suite(1)
    with pytest.raises(BrokerCryptoError) as caught:
        s.open(b"k" * 16, b"n" * 12, b"c" * 32, b"a")
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(word in shown.replace("\n", "") for word in ("kkkk", "nnnn", "cccc", "6b6b", "6363"))
    assert caught.value.__cause__ is None
