"""Signatures of certificates: Ed25519 by libsodium's rules, ECDSA over P-256 and P-384 with a strictly read DER signature."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from broker_crypto.errors import PeerError
from broker_crypto.identity import der

_CURVES: Final[dict[str, ec.EllipticCurve]] = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1()}
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {"ecdsa-sha256": hashes.SHA256(), "ecdsa-sha384": hashes.SHA384()}
_ORDERS: Final = {
    "p256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "p384": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
}


def is_point(scheme: str, public_key: bytes) -> bool:
    """True if the bytes are an uncompressed point on the curve."""
    if public_key[:1] != b"\x04":
        return False
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[scheme], public_key)
    except ValueError:
        return False
    return True


def verify(scheme: str, public_key: bytes, algorithm: str, *, message: bytes, signature: bytes) -> bool:
    """True if `signature` holds; `scheme` and `algorithm` as in Certificate. An algorithm that the key does not have: False."""
    if scheme == "ed25519" or algorithm == "ed25519":
        return scheme == algorithm and _ed25519(public_key, message, signature)
    if not _is_ecdsa(scheme, signature):
        return False
    key = ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[scheme], public_key)
    try:
        key.verify(signature, message, ec.ECDSA(_HASHES[algorithm]))
    except InvalidSignature:
        return False
    return True


def _ed25519(public_key: bytes, message: bytes, signature: bytes) -> bool:
    if len(signature) != 64:
        return False
    try:
        crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
        return False
    return True


def _is_ecdsa(scheme: str, signature: bytes) -> bool:
    """True for SEQUENCE {r, s} in DER with 0 < r, s < n: what libraries make of other encodings is no matter."""
    try:
        numbers = der.enter_only(signature, der.SEQUENCE)
        r = der.integer(numbers.take(der.INTEGER).content)
        s = der.integer(numbers.take(der.INTEGER).content)
        numbers.finish()
    except PeerError:
        return False
    return 0 < r < _ORDERS[scheme] and 0 < s < _ORDERS[scheme]
