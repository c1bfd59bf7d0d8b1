"""Signatures: one verifier a scheme, and what it refuses although some other verifier would take it."""

from __future__ import annotations

import secrets

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_crypto.crypto import signatures, suite
from broker_crypto.crypto.signatures import SCHEMES, Ecdsa, Scheme, verify_ecdsa, verify_ed25519
from broker_crypto.errors import MalformedInput, UsageError
from broker_crypto.limits import SMALL_ORDER_ED25519
from tests.unit.crypto import edwards25519 as ed

ECDSA = [signatures.ECDSA_P256, signatures.ECDSA_P384, signatures.ECDSA_P521]
ALL = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
ALL_ECDSA = pytest.mark.parametrize("scheme", ECDSA, ids=lambda scheme: scheme.name)
MESSAGE = b"a message"
h = bytes.fromhex


def flips(data: bytes) -> list[bytes]:
    return [data[:i] + bytes([data[i] ^ 1 << bit]) + data[i + 1 :] for i in range(len(data)) for bit in range(8)]


# --- every scheme -------------------------------------------------------------------------------------------------


@ALL
def test_a_signature_holds_for_its_message_and_key_only(scheme: Scheme) -> None:
    private, public = scheme.key_pair(secrets.token_bytes)
    signature = scheme.signer(private)(MESSAGE)
    assert scheme.verify(public, MESSAGE, signature)
    assert scheme.verify(public, MESSAGE, signature, low_s=True)
    assert not scheme.verify(public, MESSAGE + b"\0", signature)
    assert not scheme.verify(public, b"", signature)
    assert not scheme.verify(scheme.key_pair(secrets.token_bytes)[1], MESSAGE, signature)


@ALL
def test_every_bit_of_signature_and_key_counts(scheme: Scheme) -> None:
    private, public = scheme.key_pair(secrets.token_bytes)
    signature = scheme.signer(private)(MESSAGE)
    assert not any(scheme.verify(public, MESSAGE, other) for other in flips(signature))
    assert not any(scheme.verify(other, MESSAGE, signature) for other in flips(public)[:: 1 if scheme.public_size == 32 else 5])


@ALL
def test_what_can_be_no_signature_or_key_does_not_hold_and_does_not_raise(scheme: Scheme) -> None:
    private, public = scheme.key_pair(secrets.token_bytes)
    signature = scheme.signer(private)(MESSAGE)
    for other in (b"", signature[:-1], signature + b"\0", b"\0" + signature, bytes(len(signature)), b"\xff" * len(signature)):
        assert not scheme.verify(public, MESSAGE, other)
    for key in (b"", public[:-1], public + b"\0", bytes(len(public)), b"\xff" * len(public)):
        assert not scheme.verify(key, MESSAGE, signature)


@ALL
def test_signing_is_deterministic_and_an_empty_message_is_signed(scheme: Scheme) -> None:
    private, public = scheme.key_pair(secrets.token_bytes)
    sign = scheme.signer(private)
    assert sign(b"") == sign(b"") == scheme.signer(private)(b"")
    assert sign(b"") != sign(b"\0")
    assert scheme.verify(public, b"", sign(b""))


@ALL
def test_private_keys_of_another_length_are_a_usage_error(scheme: Scheme) -> None:
    for n in (0, scheme.private_size - 1, scheme.private_size + 1, 64):
        for call in (scheme.signer, scheme.public_of):
            with pytest.raises(UsageError):
                call(b"\1" * n)


@ALL
def test_usable_public_keys_pass_the_check_and_others_do_not(scheme: Scheme) -> None:
    for _ in range(10):
        scheme.check_public(scheme.key_pair(secrets.token_bytes)[1])
    public = scheme.key_pair(secrets.token_bytes)[1]
    for key in (b"", public[:-1], public + b"\0", b"\xff" * len(public)):
        with pytest.raises(MalformedInput):
            scheme.check_public(key)


@ALL
def test_a_subject_public_key_info_is_the_one_another_library_writes(scheme: Scheme) -> None:
    private, public = scheme.key_pair(secrets.token_bytes)
    if isinstance(scheme, Ecdsa):
        key = scheme.curve.load_private(private).public_key()
    else:
        kinds = {"Ed25519": ed25519.Ed25519PublicKey, "Ed448": ed448.Ed448PublicKey}
        key = kinds[scheme.name].from_public_bytes(public)
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert scheme.spki_prefix + public == spki
    assert signatures.key_of_spki(spki) == (scheme, public)
    for other in (b"", spki[:-1], spki + b"\0", b"\x31" + spki[1:], spki[: len(scheme.spki_prefix)]):
        with pytest.raises(MalformedInput):
            signatures.key_of_spki(other)


def test_a_compressed_point_in_a_subject_public_key_info_is_refused() -> None:
    key = ec.derive_private_key(5, ec.SECP256R1()).public_key()
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    with pytest.raises(MalformedInput):
        signatures.key_of_spki(h("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point)


@pytest.mark.parametrize("number", range(1, 8))
def test_labels_are_signed_as_the_struct_sign_content_of_rfc_9420(number: int) -> None:
    s = suite(number)
    private, public = s.signature_key_pair(secrets.token_bytes)
    signature = s.sign_with_label(private, "LeafNodeTBS", b"content")
    content = b"\x13MLS 1.0 LeafNodeTBS\x07content"
    assert s.signature_scheme.verify(public, content, signature)
    assert s.signer(private)(content) == signature
    assert s.verify_with_label(public, "LeafNodeTBS", b"content", signature)
    for label, other in (("LeafNodeTB", b"content"), ("LeafNodeTBS", b""), ("LeafNodeTBSc", b"ontent")):
        assert not s.verify_with_label(public, label, other, signature)


def test_ed25519_and_ed448_give_the_values_of_rfc_8032() -> None:
    private = h("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = h("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    signature = h(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    assert signatures.ED25519.public_of(private) == public
    assert signatures.ED25519.signer(private)(b"") == signature
    private = h("6c82a562cb808d10d632be89c8513ebf6c929f34ddfa8c9f63c9960ef6e348a3528c8a3fcc2f044e39a3fc5b94492f8f032e7549a20098f95b")
    public = h("5fd7449b59b461fd2ce787ec616ad46a1da1342485a70e1f8a0ea75d80e96778edf124769b46c7061bd6783df1e50f6cd1fa1abeafe8256180")
    assert signatures.ED448.public_of(private) == public
    assert signatures.ED448.signer(private)(b"")[:16] == h("533a37f6bbe457251f023c0d88f976ae")


# --- Ed25519: libsodium's rules -----------------------------------------------------------------------------------

SECRET = 0x1F2E3D4C5B6A798897A6B5C4D3E2F1001122334455667788 * 8
PUBLIC = ed.multiply(SECRET, ed.BASE)
TORSION = ed.torsion()


def by_hand(message: bytes, key: ed.Point = PUBLIC, r: ed.Point | None = None, r_secret: int = 12345) -> tuple[bytes, bytes]:
    """(public, signature) with any point written as A and R."""
    public = ed.encode(key)
    return public, ed.sign(SECRET, public, r or ed.multiply(r_secret, ed.BASE), r_secret, message)


def test_a_signature_made_by_hand_holds() -> None:
    public, signature = by_hand(MESSAGE)
    assert verify_ed25519(public, MESSAGE, signature)


def test_ed25519_refuses_s_from_l_upward() -> None:
    public, signature = by_hand(MESSAGE)
    s = int.from_bytes(signature[32:], "little")
    for k in range(1, 16):
        if s + k * ed.L < 2**256:
            assert not verify_ed25519(public, MESSAGE, signature[:32] + (s + k * ed.L).to_bytes(32, "little"))
    assert s + ed.L < 2**256
    for bit in (0x20, 0x40, 0x80):
        assert not verify_ed25519(public, MESSAGE, signature[:63] + bytes([signature[63] | bit]))


def test_ed25519_is_cofactorless_for_keys_with_a_part_of_small_order() -> None:
    """A = A' + T: the equation without cofactor holds only where T's multiple by the challenge vanishes."""
    for torsion in TORSION[1:]:
        order = next(n for n in (2, 4, 8) if ed.multiply(n, torsion) == ed.IDENTITY)
        for i in range(16):
            message = b"%d" % i
            public, signature = by_hand(message, key=ed.add(PUBLIC, torsion))
            fits = ed.challenge(signature[:32], public, message) % order == 0
            assert verify_ed25519(public, message, signature) == fits


def test_ed25519_refuses_r_with_a_part_of_small_order() -> None:
    """With cofactor the equation would hold."""
    for torsion in TORSION[1:]:
        public, signature = by_hand(MESSAGE, r=ed.add(ed.multiply(12345, ed.BASE), torsion))
        assert not verify_ed25519(public, MESSAGE, signature)


def test_ed25519_refuses_keys_of_small_order_although_the_equation_holds() -> None:
    """A = T, s = r: for T of order n every n-th message fits on average; none may."""
    for torsion in TORSION:
        public = ed.encode(torsion)
        for i in range(32):
            message, r_secret = b"%d" % i, 777
            signature = ed.encode(ed.multiply(r_secret, ed.BASE)) + r_secret.to_bytes(32, "little")
            assert not verify_ed25519(public, message, signature)
        with pytest.raises(MalformedInput):
            signatures.ED25519.check_public(public)


def test_ed25519_refuses_r_of_small_order_although_the_equation_holds() -> None:
    """R = identity, s = challenge * secret."""
    public = ed.encode(PUBLIC)
    r = ed.encode(ed.IDENTITY)
    s = ed.challenge(r, public, MESSAGE) * SECRET % ed.L
    assert ed.multiply(s, ed.BASE) == ed.multiply(ed.challenge(r, public, MESSAGE), PUBLIC)
    assert not verify_ed25519(public, MESSAGE, r + s.to_bytes(32, "little"))
    for torsion in TORSION:
        public, signature = by_hand(MESSAGE, r=torsion, r_secret=0)
        assert not verify_ed25519(public, MESSAGE, signature)


def test_ed25519_refuses_keys_and_r_that_are_not_canonical() -> None:
    """y + p for the few y below 19: of small order or not, no second spelling of a point is taken."""
    for y in range(19):
        for sign in (0, 1):
            encoded = (y + ed.P | sign << 255).to_bytes(32, "little")
            assert not verify_ed25519(encoded, MESSAGE, ed.encode(ed.multiply(5, ed.BASE)) + (5).to_bytes(32, "little"))
            public = ed.encode(PUBLIC)
            s = ed.challenge(encoded, public, MESSAGE) * SECRET % ed.L
            assert not verify_ed25519(public, MESSAGE, encoded + s.to_bytes(32, "little"))
            with pytest.raises(MalformedInput):
                signatures.ED25519.check_public(encoded)


def test_a_negative_zero_x_is_no_key() -> None:
    for y in (1, ed.P - 1):
        encoded = (y | 1 << 255).to_bytes(32, "little")
        assert not verify_ed25519(encoded, MESSAGE, by_hand(MESSAGE)[1])
        with pytest.raises(MalformedInput):
            signatures.ED25519.check_public(encoded)


def test_the_list_of_small_orders_is_that_of_the_eight_points() -> None:
    assert len(TORSION) == 8
    assert {y for _, y in TORSION} == SMALL_ORDER_ED25519
    assert all(ed.multiply(8, point) == ed.IDENTITY for point in TORSION)


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_a_key_passes_the_check_exactly_if_it_is_the_spelling_of_a_point_of_larger_order(encoded: bytes) -> None:
    number = int.from_bytes(encoded, "little")
    y, sign = number & 2**255 - 1, number >> 255
    x = ed.recover_x(y, sign) if y < ed.P else None
    usable = x is not None and ed.multiply(8, (x, y)) != ed.IDENTITY
    try:
        signatures.ED25519.check_public(encoded)
    except MalformedInput:
        assert not usable
    else:
        assert usable


def test_signatures_of_every_length_around_the_right_one_are_refused() -> None:
    public, signature = by_hand(MESSAGE)
    for n in range(130):
        if n != 64:
            assert not verify_ed25519(public, MESSAGE, (signature * 3)[:n])
    # bytes moved between signature and message
    assert not verify_ed25519(public, MESSAGE[1:], signature + MESSAGE[:1])
    assert not verify_ed25519(public, signature[63:] + MESSAGE, signature[:63])


# --- Ed448: OpenSSL's rules, and our own for keys -----------------------------------------------------------------

P448 = 2**448 - 2**224 - 1


def test_ed448_keys_that_are_not_reduced_of_small_order_or_beside_the_curve_are_refused() -> None:
    def on_curve(y: int) -> bool:
        return pow((y * y - 1) * pow(-39081 * y * y - 1, -1, P448), (P448 - 1) // 2, P448) == 1

    for y in range(2, 40):
        for sign in (0, 0x80):
            key = y.to_bytes(56, "little") + bytes([sign])
            if on_curve(y):
                signatures.ED448.check_public(key)
            else:
                with pytest.raises(MalformedInput, match="not on the curve"):
                    signatures.ED448.check_public(key)
            with pytest.raises(MalformedInput, match="not reduced"):
                signatures.ED448.check_public((y + P448).to_bytes(56, "little") + bytes([sign]))
            for high in (1, 2, 0x40):
                with pytest.raises(MalformedInput, match="not reduced"):
                    signatures.ED448.check_public(key[:56] + bytes([sign | high]))
    assert len({on_curve(y) for y in range(2, 40)}) == 2
    for y in (0, 1, P448 - 1):
        for sign in (0, 0x80):
            with pytest.raises(MalformedInput, match="small order"):
                signatures.ED448.check_public(y.to_bytes(56, "little") + bytes([sign]))


def test_ed448_refuses_s_from_the_order_upward() -> None:
    order = 2**446 - 13818066809895115352007386748515426880336692474882178609894547503885
    private, public = signatures.ED448.key_pair(secrets.token_bytes)
    signature = signatures.ED448.signer(private)(MESSAGE)
    s = int.from_bytes(signature[57:], "little")
    assert s < order
    for k in (1, 2, 3):
        assert not signatures.ED448.verify(public, MESSAGE, signature[:57] + (s + k * order).to_bytes(57, "little"))


# --- ECDSA --------------------------------------------------------------------------------------------------------


def integer(n: int, *, width: int | None = None) -> bytes:
    """A DER INTEGER, or with `width` one padded with zeros, which DER does not allow."""
    body = n.to_bytes(width if width is not None else n.bit_length() // 8 + 1, "big", signed=width is None)
    return b"\x02" + bytes([len(body)]) + body


def sequence(body: bytes) -> bytes:
    return b"\x30" + (bytes([len(body)]) if len(body) < 128 else b"\x81" + bytes([len(body)])) + body


@ALL_ECDSA
def test_our_signatures_have_the_low_s_and_the_high_one_holds_only_where_allowed(scheme: Ecdsa) -> None:
    order = scheme.curve.order
    for _ in range(8):
        private, public = scheme.key_pair(secrets.token_bytes)
        r, s = decode_dss_signature(scheme.signer(private)(MESSAGE))
        assert 0 < s <= order // 2
        high = encode_dss_signature(r, order - s)
        assert scheme.verify(public, MESSAGE, high)
        assert not scheme.verify(public, MESSAGE, high, low_s=True)


@ALL_ECDSA
def test_der_that_is_not_the_one_encoding_is_refused(scheme: Ecdsa) -> None:
    private, public = scheme.key_pair(secrets.token_bytes)
    r, s = decode_dss_signature(scheme.signer(private)(MESSAGE))
    size = scheme.private_size
    assert scheme.verify(public, MESSAGE, sequence(integer(r) + integer(s)))
    body = integer(r) + integer(s)
    junk = [
        sequence(integer(r, width=size + 2) + integer(s)),
        sequence(integer(r) + integer(s, width=size + 2)),
        sequence(body) + b"\0",
        sequence(body + b"\0"),
        sequence(body + integer(1)),
        sequence(integer(r)),
        sequence(b""),
        b"\x30\x81" + bytes([len(body)]) + body if len(body) < 128 else b"\x30\x82\0" + bytes([len(body)]) + body,
        b"\x30\x80" + body + b"\0\0",
        b"\x31" + sequence(body)[1:],
        sequence(b"\x03" + body[1:]),
        sequence(integer(r) + b"\x02\x81" + integer(s)[1:]),
        r.to_bytes(size, "big") + s.to_bytes(size, "big"),
    ]
    for other in junk:
        assert not scheme.verify(public, MESSAGE, other), other.hex()


@ALL_ECDSA
def test_r_and_s_out_of_range_are_refused(scheme: Ecdsa) -> None:
    private, public = scheme.key_pair(secrets.token_bytes)
    r, s = decode_dss_signature(scheme.signer(private)(MESSAGE))
    order = scheme.curve.order
    assert scheme.verify(public, MESSAGE, sequence(integer(r) + integer(s)))
    values = [(0, s), (r, 0), (0, 0), (order, s), (r, order), (r + order, s), (r, s + order), (-r, s), (r, -s), (r, s - order), (1, 1)]
    for pair in values:
        assert not scheme.verify(public, MESSAGE, sequence(integer(pair[0]) + integer(pair[1]))), pair


@ALL_ECDSA
def test_another_library_verifies_ours_and_we_verify_its(scheme: Ecdsa) -> None:
    private, public = scheme.key_pair(secrets.token_bytes)
    algorithm = ec.ECDSA({"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}[scheme.digest])
    key = ec.derive_private_key(int.from_bytes(private, "big"), scheme.curve.curve)
    key.public_key().verify(scheme.signer(private)(MESSAGE), MESSAGE, algorithm)
    for _ in range(8):
        assert scheme.verify(public, MESSAGE, key.sign(MESSAGE, algorithm))


def test_a_deterministic_signature_is_that_of_rfc_6979() -> None:
    """RFC 6979 A.2.5: P-256, SHA-256, "sample"; the s there is the high one."""
    private = h("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721")
    r = 0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716
    s = 0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8
    order = signatures.ECDSA_P256.curve.order
    assert decode_dss_signature(signatures.ECDSA_P256.signer(private)(b"sample")) == (r, order - s)


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_a_curve_verifies_with_the_hash_that_is_named_and_no_other(digest: str) -> None:
    """Certificates sign P-256 with SHA-384 and the other way round."""
    algorithm = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
    for scheme in ECDSA:
        private, public = scheme.key_pair(secrets.token_bytes)
        signature = scheme.curve.load_private(private).sign(MESSAGE, ec.ECDSA(algorithm[digest]))
        for named in algorithm:
            assert verify_ecdsa(scheme.curve, public, MESSAGE, signature, digest=named) == (named == digest)


def test_a_key_of_another_curve_does_not_verify() -> None:
    private, public = signatures.ECDSA_P256.key_pair(secrets.token_bytes)
    signature = signatures.ECDSA_P256.signer(private)(MESSAGE)
    for scheme in ECDSA[1:]:
        assert not scheme.verify(public, MESSAGE, signature)
        assert not scheme.verify(scheme.key_pair(secrets.token_bytes)[1], MESSAGE, signature)


def test_ecdsa_keys_beside_the_curve_do_not_verify() -> None:
    private, public = signatures.ECDSA_P256.key_pair(secrets.token_bytes)
    signature = signatures.ECDSA_P256.signer(private)(MESSAGE)
    assert not signatures.ECDSA_P256.verify(public[:-1] + bytes([public[-1] ^ 1]), MESSAGE, signature)
    assert not signatures.ECDSA_P256.verify(bytes([2 + (public[-1] & 1)]) + public[1:33], MESSAGE, signature)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_no_bytes_make_a_verifier_raise(data: bytes) -> None:
    for scheme in SCHEMES:
        public = scheme.public_of((7).to_bytes(scheme.private_size, "big"))
        assert not scheme.verify(public, MESSAGE, data)
        assert not scheme.verify(data, MESSAGE, data)
