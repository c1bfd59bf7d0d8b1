"""Our reader and verdict beside those of `cryptography`: what we take it reads alike, and what it refuses we refuse.

The corpus is made by its builder, a generator of chains that are good or bad in every way which a builder lets one be.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker_crypto.errors import PeerError
from broker_crypto.identity import profile
from broker_crypto.identity.ca import PrivateKey
from broker_crypto.identity.certificate import Certificate, read_certificate
from broker_crypto.records import Anchor
from tests.support import certificates as make

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NOW_MS = int(NOW.timestamp()) * 1000
IDENTITY, PREFIX = "agent://acme/billing", "agent://acme/"
SEEDS = range(300)


@dataclass
class Made:
    certificate: x509.Certificate
    key: PrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def usage(**on: bool) -> x509.KeyUsage:
    return x509.KeyUsage(**{one: on.get(one, False) for one in USAGES})


class Corpus:
    """One chain from one seed: each choice is right most of the time."""

    def __init__(self, seed: int, schemes: tuple[str, ...]) -> None:
        self.random = random.Random(seed)
        self.schemes = schemes

    def rarely(self) -> bool:
        return self.random.random() < 0.03

    def key(self, label: str) -> PrivateKey:
        return make.key(label, self.random.choice(self.schemes))

    def chain(self) -> tuple[list[Made], Made]:
        root = self.certificate("root", None, ca=True)
        chain = [root]
        for level in range(self.random.randrange(3)):
            chain.insert(0, self.certificate(f"middle {level}", chain[0], ca=True))
        chain.insert(0, self.certificate("leaf", chain[0], ca=False))
        return chain[:-1], root

    def certificate(self, label: str, issuer: Made | None, *, ca: bool) -> Made:
        key = self.key(label)
        signer = self.key("stranger") if self.rarely() else issuer.key if issuer else key
        issued_by = name("stranger") if self.rarely() else issuer.certificate.subject if issuer else name(label)
        begins, ends = NOW - timedelta(days=30), NOW + timedelta(days=30)
        if self.rarely():
            begins, ends = self.random.choice([(begins, NOW - timedelta(days=1)), (NOW + timedelta(days=1), ends)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(label))
            .issuer_name(issued_by)
            .public_key(key.public_key())
            .serial_number(self.random.randrange(1, 2**150))
            .not_valid_before(begins)
            .not_valid_after(ends)
        )
        for value, critical in self.extensions(key, issuer, ca=ca):
            builder = builder.add_extension(value, critical)
        return Made(builder.sign(signer, self.hash_of(signer)), key)

    def hash_of(self, signer: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | None:
        if isinstance(signer, Ed25519PrivateKey):
            return None
        return hashes.SHA384() if signer.key_size == 384 else hashes.SHA256()

    def extensions(self, key: PrivateKey, issuer: Made | None, *, ca: bool) -> Iterator[tuple[x509.ExtensionType, bool]]:
        if ca and not self.rarely():
            path_len = 0 if self.rarely() else self.random.choice([None, None, 2])
            yield x509.BasicConstraints(ca=True, path_length=path_len), not self.rarely()
        elif self.rarely():
            yield x509.BasicConstraints(ca=True, path_length=None), True
        if not self.rarely():
            right = "key_cert_sign" if ca else "digital_signature"
            yield usage(**{self.random.choice(["key_agreement", right]) if self.rarely() else right: True}), True
        yield x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False
        above = issuer.key if issuer else key
        yield x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), False
        if not ca:
            yield from self.names()
            yield x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), self.rarely()
        if self.rarely():
            yield x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.4711.1"), b"\x05\x00"), self.random.random() < 0.5

    def names(self) -> Iterator[tuple[x509.ExtensionType, bool]]:
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(IDENTITY)]
        if self.rarely():
            names = [x509.DNSName("billing.acme")]
        if self.rarely():
            names.append(x509.DNSName("billing.acme"))
        if not self.rarely():
            yield x509.SubjectAlternativeName(names), False


@cache
def mixed(seed: int) -> tuple[list[Made], Made]:
    return Corpus(seed, ("ed25519", "p256", "p384")).chain()


def ours(chain: list[Made], root: Made) -> bool:
    try:
        profile.check_chain([one.der for one in chain], [Anchor(root.der, (PREFIX,))], NOW_MS)
    except PeerError:
        return False
    return True


def theirs(chain: list[Made], root: Made) -> bool:
    """What cryptography's path validation says of an ECDSA chain (it knows no Ed25519)."""
    leaf_policy = verification.ExtensionPolicy.permit_all()
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store([root.certificate]))
        .time(NOW)
        .max_chain_depth(3)
        .extension_policies(ee_policy=leaf_policy, ca_policy=verification.ExtensionPolicy.webpki_defaults_ca())
        .build_client_verifier()
    )
    try:
        verifier.verify(chain[0].certificate, [one.certificate for one in chain[1:]])
    except verification.VerificationError:
        return False
    return True


def issued(chain: list[Made], root: Made) -> bool:
    """What cryptography says of names and signatures alone."""
    line = [*chain, root]
    try:
        for subject, issuer in zip(line, line[1:], strict=False):
            subject.certificate.verify_directly_issued_by(issuer.certificate)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def test_no_chain_counts_that_the_other_verifier_refuses() -> None:
    verdicts = []
    for seed in SEEDS:
        chain, root = Corpus(seed, ("p256", "p384") if seed % 3 == 0 else ("p256",)).chain()
        verdicts.append((ours(chain, root), theirs(chain, root)))
    assert (True, False) not in verdicts
    assert verdicts.count((True, True)) > 100
    assert verdicts.count((False, False)) > 30
    assert verdicts.count((False, True)) > 0  # what only our profile asks


def test_no_chain_counts_whose_names_and_signatures_the_other_library_refuses() -> None:
    verdicts = []
    for seed in SEEDS:
        chain, root = mixed(seed)
        verdicts.append((ours(chain, root), issued(chain, root)))
    assert (True, False) not in verdicts
    assert verdicts.count((True, True)) > 50
    assert verdicts.count((False, False)) > 30


def rule_of(one: Made) -> str | None:
    try:
        read_certificate(one.der)
    except PeerError as error:
        return str(error.fields["rule"])
    return None


def same(read: Certificate, other: x509.Certificate) -> None:
    assert read.serial == other.serial_number
    assert read.issuer == other.issuer.public_bytes()
    assert read.subject == other.subject.public_bytes()
    assert read.not_before == int(other.not_valid_before_utc.timestamp()) * 1000
    assert read.not_after == int(other.not_valid_after_utc.timestamp()) * 1000 + 999
    assert read.signed == other.tbs_certificate_bytes
    assert read.signature == other.signature
    key = other.public_key()
    assert read.spki == key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    raw = (
        key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        if isinstance(key, ec.EllipticCurvePublicKey)
        else key.public_bytes_raw()
    )
    assert read.public_key == raw


def test_what_we_read_of_a_certificate_is_what_the_other_library_reads() -> None:
    compared, refused = 0, set()
    for seed in SEEDS:
        chain, root = mixed(seed)
        for one in [*chain, root]:
            if rule_of(one) is None:
                same(read_certificate(one.der), one.certificate)
                compared += 1
            else:
                refused.add(rule_of(one))
    assert compared > 500
    assert refused == {"certificate.critical"}


@pytest.mark.parametrize("seed", range(8))
def test_what_the_other_library_cannot_parse_we_do_not_take(seed: int) -> None:
    chooser = random.Random(seed)
    good = make.plans(0, leaf="p256", ca="p256").leaf.build()
    broken = 0
    for _ in range(300):
        at = chooser.randrange(len(good))
        bent = good[:at] + bytes((chooser.randrange(256),)) + good[at + 1 :]
        try:
            certificate = x509.load_der_x509_certificate(bent)
            certificate.public_key(), certificate.extensions, certificate.issuer, certificate.subject, certificate.not_valid_after_utc
        except Exception:
            broken += 1
            with pytest.raises(PeerError):
                profile.read_chain([bent])
    assert broken
