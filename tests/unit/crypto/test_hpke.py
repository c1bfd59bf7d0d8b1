"""HPKE: the values of RFC 9180 appendix A, another library, and what must not open."""

from __future__ import annotations

import secrets

import pytest
from cryptography.hazmat.primitives import hpke as theirs
from cryptography.hazmat.primitives.asymmetric import ec, x25519

from broker_crypto.crypto import AuthenticationFailed, Suite, suite
from broker_crypto.errors import MalformedInput, UsageError

SUITES = pytest.mark.parametrize("number", range(1, 8))
INFO, AAD, TEXT = b"Ode on a Grecian Urn", b"Count-0", b"Beauty is truth, truth beauty"

# RFC 9180 A.1.1, A.3.1, A.2.1, A.6.1 by the number of the suite: ikmE, ikmR, skRm, enc, ct of sequence 0, exports for "", 00, "TestContext"
RFC_9180 = {
    1: (
        "7268600d403fce431561aef583ee1613527cff655c1343f29812e66706df3234",
        "6db9df30aa07dd42ee5e8181afdb977e538f5e1fec8a06223f33f7013e525037",
        "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8",
        "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431",
        "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
        "3853fe2b4035195a573ffc53856e77058e15d9ea064de3e59f4961d0095250ee",
        "2e8f0b54673c7029649d4eb9d5e33bf1872cf76d623ff164ac185da9e88c21a5",
        "e9e43065102c3836401bed8c3c3c75ae46be1639869391d62c61f1ec7af54931",
    ),
    2: (
        "4270e54ffd08d79d5928020af4686d8f6b7d35dbe470265f1f5aa22816ce860e",
        "668b37171f1072f3cf12ea8a236a45df23fc13b82af3609ad1e354f6ef817550",
        "f3ce7fdae57e1a310d87f1ebbde6f328be0a99cdbcadf4d6589cf29de4b8ffd2",
        "04a92719c6195d5085104f469a8b9814d5838ff72b60501e2c4466e5e67b325ac98536d7b61a1af4b78e5b7f951c0900be863c403ce65c9bfcb9382657222d18c4",
        "5ad590bb8baa577f8619db35a36311226a896e7342a6d836d8b7bcd2f20b6c7f9076ac232e3ab2523f39513434",
        "5e9bc3d236e1911d95e65b576a8a86d478fb827e8bdfe77b741b289890490d4d",
        "6cff87658931bda83dc857e6353efe4987a201b849658d9b047aab4cf216e796",
        "d8f1ea7942adbba7412c6d431c62d01371ea476b823eb697e1f6e6cae1dab85a",
    ),
    3: (
        "909a9b35d3dc4713a5e72a4da274b55d3d3821a37e5d099e74a647db583a904b",
        "1ac01f181fdf9f352797655161c58b75c656a6cc2716dcb66372da835542e1df",
        "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb",
        "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a",
        "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
        "4bbd6243b8bb54cec311fac9df81841b6fd61f56538a775e7c80a9f40160606e",
        "8c1df14732580e5501b00f82b10a1647b40713191b7c1240ac80e2b68808ba69",
        "5acb09211139c43b3090489a9da433e8a30ee7188ba8b0a9a1ccf0c229283e53",
    ),
    5: (
        "7f06ab8215105fc46aceeb2e3dc5028b44364f960426eb0d8e4026c2f8b5d7e7a986688f1591abf5ab753c357a5d6f04"
        "40414b4ed4ede71317772ac98d9239f70904",
        "2ad954bbe39b7122529f7dde780bff626cd97f850d0784a432784e69d86eccaade43b6c10a8ffdb94bf943c6da479db1"
        "37914ec835a7e715e36e45e29b587bab3bf1",
        "01462680369ae375e4b3791070a7458ed527842f6a98a79ff5e0d4cbde83c27196a3916956655523a6a2556a7af62c5c"
        "adabe2ef9da3760bb21e005202f7b2462847",
        "040138b385ca16bb0d5fa0c0665fbbd7e69e3ee29f63991d3e9b5fa740aab8900aaeed46ed73a49055758425a0ce36507c54b29cc5b85a5cee6bae0cf1c21f27"
        "31ece2013dc3fb7c8d21654bb161b463962ca19e8c654ff24c94dd2898de12051f1ed0692237fb02b2f8d1dc1c73e9b366b529eb436e98a996ee522aef863dd5"
        "739d2f29b0",
        "170f8beddfe949b75ef9c387e201baf4132fa7374593dfafa90768788b7b2b200aafcc6d80ea4c795a7c5b841a",
        "05e2e5bd9f0c30832b80a279ff211cc65eceb0d97001524085d609ead60d0412",
        "fca69744bb537f5b7a1596dbf34eaa8d84bf2e3ee7f1a155d41bd3624aa92b63",
        "f389beaac6fcf6c0d9376e20f97e364f0609a88f1bc76d7328e9104df8477013",
    ),
}


@pytest.mark.parametrize("number", RFC_9180)
def test_the_suite_gives_the_values_of_rfc_9180(number: int) -> None:
    ikm_e, ikm_r, sk, enc, ct, *exports = map(bytes.fromhex, RFC_9180[number])
    s = suite(number)
    private, public = s.derive_key_pair(ikm_r)
    assert private == sk
    assert s.hpke.seal(public, INFO, TEXT, aad=AAD, random=lambda n: ikm_e) == (enc, ct)
    assert s.hpke.open(sk, enc, INFO, ct, aad=AAD) == TEXT
    for context, value in zip((b"", b"\0", b"TestContext"), exports, strict=True):
        assert s.export_send(public, INFO, context, 32, lambda n: ikm_e) == (enc, value)
        assert s.export_receive(sk, enc, INFO, context, 32) == value


KEM, KDF, AEAD = theirs.KEM, theirs.KDF, theirs.AEAD
THEIR_SUITES = {
    1: theirs.Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM),
    2: theirs.Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_128_GCM),
    3: theirs.Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305),
    5: theirs.Suite(KEM.P521, KDF.HKDF_SHA512, AEAD.AES_256_GCM),
    7: theirs.Suite(KEM.P384, KDF.HKDF_SHA384, AEAD.AES_256_GCM),
}


def their_keys(s: Suite, private: bytes, public: bytes) -> tuple[object, object]:
    if s.number in (1, 3):
        return x25519.X25519PrivateKey.from_private_bytes(private), x25519.X25519PublicKey.from_public_bytes(public)
    curve = s.kem.group.curve  # type: ignore[attr-defined]
    return ec.derive_private_key(int.from_bytes(private, "big"), curve), ec.EllipticCurvePublicKey.from_encoded_point(curve, public)


@pytest.mark.parametrize("number", THEIR_SUITES)
@pytest.mark.parametrize("n", [0, 1, 32, 5000])
def test_another_library_opens_what_we_seal_and_we_open_what_it_seals(number: int, n: int) -> None:
    s, their = suite(number), THEIR_SUITES[number]
    private, public = s.derive_key_pair(secrets.token_bytes(32))
    their_private, their_public = their_keys(s, private, public)
    text = secrets.token_bytes(n)
    kem_output, ciphertext = s.hpke.seal(public, INFO, text, random=secrets.token_bytes)
    assert their.decrypt(kem_output + ciphertext, their_private, INFO) == text
    sealed = their.encrypt(text, their_public, INFO)
    cut = s.kem.group.public_size
    assert s.hpke.open(private, sealed[:cut], INFO, sealed[cut:]) == text


@SUITES
def test_label_and_context_are_the_struct_encrypt_context_of_rfc_9420(number: int) -> None:
    s = suite(number)
    private, public = s.derive_key_pair(b"seed")
    kem_output, ciphertext = s.encrypt_with_label(public, "UpdatePathNode", b"context", TEXT, secrets.token_bytes)
    info = b"\x16MLS 1.0 UpdatePathNode\x07context"
    assert s.hpke.open(private, kem_output, info, ciphertext) == TEXT


@SUITES
def test_another_label_context_key_or_message_does_not_open(number: int) -> None:
    s = suite(number)
    private, public = s.derive_key_pair(b"seed")
    other_private, other_public = s.derive_key_pair(b"other seed")
    kem_output, ciphertext = s.encrypt_with_label(public, "label", b"context", TEXT, secrets.token_bytes)
    good = (private, "label", b"context", kem_output, ciphertext)
    assert s.decrypt_with_label(*good) == TEXT
    changes = [
        {0: other_private}, {1: "labe"}, {1: "label\0"}, {2: b""}, {2: b"context\0"}, {3: other_public}, {4: b""},
        {4: ciphertext[:-1]}, {4: ciphertext + b"\0"}, {4: bytes(len(ciphertext))}, {1: "labelc", 2: b"ontext"},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(AuthenticationFailed):
            s.decrypt_with_label(*(change.get(i, part) for i, part in enumerate(good)))  # type: ignore[arg-type]


@SUITES
def test_every_bit_of_a_kem_output_counts(number: int) -> None:
    s = suite(number)
    private, public = s.derive_key_pair(b"seed")
    kem_output, ciphertext = s.encrypt_with_label(public, "label", b"", TEXT, secrets.token_bytes)
    for bit in range(0, 8 * len(kem_output), 7 if number > 3 else 1):
        changed = bytearray(kem_output)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((AuthenticationFailed, MalformedInput)):
            s.decrypt_with_label(private, "label", b"", bytes(changed), ciphertext)


@SUITES
def test_both_ends_export_the_same_secret_and_everything_in_it_counts(number: int) -> None:
    s = suite(number)
    private, public = s.derive_key_pair(b"seed")
    kem_output, secret = s.export_send(public, b"info", b"context", s.nh, secrets.token_bytes)
    assert s.export_receive(private, kem_output, b"info", b"context", s.nh) == secret
    assert len(secret) == s.nh
    others = [
        s.export_receive(private, kem_output, b"inf", b"context", s.nh),
        s.export_receive(private, kem_output, b"info", b"", s.nh),
        s.export_receive(s.derive_key_pair(b"other")[0], kem_output, b"info", b"context", s.nh),
        s.export_receive(private, kem_output, b"info", b"context", s.nh - 1),
        s.export_send(public, b"info", b"context", s.nh, secrets.token_bytes)[1],
    ]
    assert len({secret[: s.nh - 1], *(other[: s.nh - 1] for other in others)}) == len(others) + 1


@SUITES
def test_an_export_has_the_lengths_that_hkdf_has(number: int) -> None:
    s = suite(number)
    private, public = s.derive_key_pair(b"seed")
    kem_output, longest = s.export_send(public, b"", b"", 255 * s.nh, secrets.token_bytes)
    assert s.export_receive(private, kem_output, b"", b"", 255 * s.nh) == longest
    for n in (-1, 0, 255 * s.nh + 1, 65536):
        with pytest.raises(UsageError):
            s.export_send(public, b"", b"", n, secrets.token_bytes)
        with pytest.raises(UsageError):
            s.export_receive(private, kem_output, b"", b"", n)


@SUITES
def test_the_ephemeral_key_comes_from_the_randomness_given_and_from_all_of_it(number: int) -> None:
    s = suite(number)
    _, public = s.derive_key_pair(b"seed")
    asked: list[int] = []

    def seeded(n: int, last: int = 0) -> bytes:
        asked.append(n)
        return bytes(n - 1) + bytes([last])

    first = s.encrypt_with_label(public, "label", b"", TEXT, seeded)
    assert s.encrypt_with_label(public, "label", b"", TEXT, seeded) == first
    assert s.encrypt_with_label(public, "label", b"", TEXT, lambda n: seeded(n, 1)) != first
    assert set(asked) == {s.kem.group.private_size}
    assert len(asked) == 3


@SUITES
@pytest.mark.parametrize("given", [b"", b"x"])
def test_a_source_of_randomness_that_gives_less_is_a_usage_error(number: int, given: bytes) -> None:
    s = suite(number)
    _, public = s.derive_key_pair(b"seed")
    for call in (
        lambda: s.encrypt_with_label(public, "label", b"", TEXT, lambda n: given),
        lambda: s.export_send(public, b"", b"", 32, lambda n: given),
        lambda: s.signature_key_pair(lambda n: given),
    ):
        with pytest.raises(UsageError):
            call()


@SUITES
def test_derived_key_pairs_are_usable_and_differ(number: int) -> None:
    s = suite(number)
    pairs = [s.derive_key_pair(bytes([i]) * s.nh) for i in range(20)] + [s.derive_key_pair(b"")]
    for private, public in pairs:
        s.check_public(public)
        assert s.public_of(private) == public
        assert len(private) == s.kem.group.private_size
    assert len({public for _, public in pairs}) == 21


def test_a_candidate_out_of_range_is_passed_over_and_256_of_them_are_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    s = suite(2)
    good, _ = s.derive_key_pair(b"seed")
    curve = type(s.kem.group)
    real, seen = curve.scalar, []  # type: ignore[attr-defined]

    def refuse_first(self: object, drawn: bytes) -> bytes | None:
        seen.append(drawn)
        return real(self, drawn) if len(seen) > 2 else None

    monkeypatch.setattr(curve, "scalar", refuse_first)
    private, public = s.derive_key_pair(b"seed")
    assert seen[0] == good
    assert private == seen[2] != good
    assert s.public_of(private) == public
    monkeypatch.setattr(curve, "scalar", lambda self, drawn: None)
    with pytest.raises(UsageError):
        s.derive_key_pair(b"seed")
