"""The small CA behind `init` and `trust issue`: one root, leaves beneath it, one URI each. X.509 v3, RFC 5280."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker_crypto.errors import PeerError, UsageError
from broker_crypto.identity import profile
from broker_crypto.identity.certificate import read_certificate
from broker_crypto.records import Anchor
from broker_crypto.wire import names

PrivateKey: TypeAlias = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PublicKey: TypeAlias = Ed25519PublicKey | ec.EllipticCurvePublicKey

BACKDATE = timedelta(minutes=5)  # a machine whose clock is a little slow may use the certificate at once


@dataclass(frozen=True, slots=True)
class Authority:
    """A root: its certificate (DER) and its private key."""

    certificate: bytes
    private_key: PrivateKey = field(repr=False)


def found(name: str, private_key: PrivateKey, *, now_ms: int, days: int = 3650) -> Authority:
    """A new root that signs leaves only (pathLen 0). `name` (1..64 characters) is its common name."""
    if not 1 <= len(name) <= 64:
        raise UsageError("the name of a CA has 1 to 64 characters", name=name)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        _builder(private_key.public_key(), now_ms, days)
        .subject_name(subject)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
    )
    certificate = builder.sign(private_key, _hash(private_key)).public_bytes(Encoding.DER)
    profile.read_anchor(certificate)
    return Authority(certificate, private_key)


def issue(authority: Authority, identity: str, public_key: PublicKey, *, now_ms: int, days: int = 90) -> bytes:
    """A leaf certificate (DER) for `identity` and `public_key` (Ed25519 or P-256), valid for `days`, not beyond its root.

    Raises UsageError for an identity that is not canonical, or where the result would not count in a group.
    """
    if not names.is_identity(identity):
        raise UsageError("not a canonical identity, such as agent://acme/billing", identity=identity)
    own = read_certificate(authority.certificate)
    if not own.not_before <= now_ms <= own.not_after:
        raise UsageError("the CA's own certificate is not valid now")
    root = x509.load_der_x509_certificate(authority.certificate)
    builder = (
        _builder(public_key, now_ms, days, root.not_valid_after_utc)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.rsplit("/", 1)[1][:64])]))
        .issuer_name(root.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(_alt_name(identity), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.private_key.public_key()), critical=False)
    )
    certificate = builder.sign(authority.private_key, _hash(authority.private_key)).public_bytes(Encoding.DER)
    _check(certificate, authority, identity, now_ms)
    return certificate


def renew(authority: Authority, certificate: bytes, *, now_ms: int, days: int = 90) -> bytes:
    """The same identity and key as in `certificate` (DER of a leaf), issued anew."""
    chain = profile.read_chain([certificate])
    key = x509.load_der_x509_certificate(certificate).public_key()
    if not isinstance(key, Ed25519PublicKey | ec.EllipticCurvePublicKey):
        raise UsageError("a leaf key that is not Ed25519 or P-256")
    return issue(authority, chain.uri, key, now_ms=now_ms, days=days)


def request(identity: str, private_key: PrivateKey) -> bytes:
    """A request (PKCS#10, PEM, RFC 2986) for a certificate, signed by its key: what goes to a CA in place of the key."""
    if not names.is_identity(identity):
        raise UsageError("not a canonical identity, such as agent://acme/billing", identity=identity)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(_alt_name(identity), critical=True)
    return builder.sign(private_key, _hash(private_key)).public_bytes(Encoding.PEM)


def read_request(pem: bytes) -> tuple[str, PublicKey]:
    """Identity and key of a request. Raises UsageError for one that is broken, unsigned, or names something else as well."""
    try:
        asked = x509.load_pem_x509_csr(pem)
        alt_names = list(asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise UsageError("not a request in PEM with a subjectAltName") from None
    key = asked.public_key()
    if len(alt_names) != 1 or not isinstance(alt_names[0], x509.UniformResourceIdentifier) or not names.is_identity(alt_names[0].value):
        raise UsageError("a request names exactly one canonical identity, as a URI")
    if not isinstance(key, Ed25519PublicKey | ec.EllipticCurvePublicKey) or not asked.is_signature_valid:
        raise UsageError("a request is signed by its own key, Ed25519 or P-256")
    return alt_names[0].value, key


def _alt_name(identity: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)])


def _check(certificate: bytes, authority: Authority, identity: str, now_ms: int) -> None:
    """What we issue must count: the same code judges it that judges others'."""
    try:
        profile.check_chain([certificate], [Anchor(authority.certificate, (identity.rsplit("/", 1)[0] + "/",))], now_ms)
    except PeerError as error:
        raise UsageError(f"this certificate would not count: {error.what}", identity=identity, rule=error.fields["rule"]) from error


def _builder(key: PublicKey, now_ms: int, days: int, last: datetime | None = None) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(now_ms // 1000, UTC)
    end = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(end if last is None else min(end, last))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _hash(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | None:
    if isinstance(key, Ed25519PrivateKey):
        return None
    return hashes.SHA384() if key.curve.key_size == 384 else hashes.SHA256()


def days_left(certificate: bytes, now_ms: int) -> int:
    """Whole days until it ends; negative once it has."""
    return (read_certificate(certificate).not_after - now_ms) // 86_400_000
