"""The way to the key of a certificate, in real certificates and in broken ones."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from broker_crypto.crypto import suite
from broker_crypto.errors import MalformedInput
from broker_crypto.mls.certificate_key import subject_public_key_info

KEYS = {
    1: ed25519.Ed25519PrivateKey.generate,
    2: lambda: ec.generate_private_key(ec.SECP256R1()),
    4: ed448.Ed448PrivateKey.generate,
    5: lambda: ec.generate_private_key(ec.SECP521R1()),
    7: lambda: ec.generate_private_key(ec.SECP384R1()),
}


def _certificate(number: int) -> tuple[bytes, bytes]:
    """(DER, raw public key) of a self-signed certificate with the scheme of the suite."""
    key = KEYS[number]()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "orders" * 10)])
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), 2**150, datetime(2026, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
    )
    signed = builder.sign(key, hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None)  # type: ignore[arg-type]
    form = (
        (Encoding.X962, PublicFormat.UncompressedPoint) if isinstance(key, ec.EllipticCurvePrivateKey) else (Encoding.Raw, PublicFormat.Raw)
    )
    return signed.public_bytes(Encoding.DER), key.public_key().public_bytes(*form)


@pytest.mark.parametrize("number", KEYS)
def test_the_key_of_a_real_certificate_is_found_as_the_suites_scheme_writes_it(number: int) -> None:
    der, public = _certificate(number)
    assert subject_public_key_info(der) == suite(number).signature_scheme.spki_prefix + public


def test_no_truncated_certificate_and_no_byte_behind_it_leads_to_a_key() -> None:
    der, _ = _certificate(1)
    for end in range(len(der)):
        with pytest.raises(MalformedInput):
            subject_public_key_info(der[:end])
    with pytest.raises(MalformedInput):
        subject_public_key_info(der + b"\x00")


@pytest.mark.parametrize("length", [b"\x80", b"\x81\x7f", b"\x82\x00\xff", b"\x84\x00\x00\x01\x00", b"\x83\xff\xff\xff"])
def test_lengths_that_are_not_der_are_refused(length: bytes) -> None:
    with pytest.raises(MalformedInput):
        subject_public_key_info(b"\x30" + length + bytes(255))
