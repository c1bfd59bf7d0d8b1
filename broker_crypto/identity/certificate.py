"""One certificate of our closed profile: its form, read strictly (X.509 v3, RFC 5280).

The rules of form, by the name that the error carries:

- `certificate.size`        at most CERTIFICATE_MAX bytes
- `der.*`                   strict DER (der.py)
- `certificate.version`     v3
- `certificate.serial`      1 .. 2^159 - 1
- `certificate.algorithm`   Ed25519, or ECDSA with SHA-256 or SHA-384; no parameters; inside the same as outside
- `certificate.name`        names of UTF8String, PrintableString, IA5String; the issuer's is not empty
- `certificate.validity`    not_before <= not_after
- `certificate.key`         Ed25519, or an uncompressed point on P-256 or P-384
- `certificate.extensions`  some, each once; unique identifiers do not exist
- `certificate.critical`    a critical extension that is none of basicConstraints, keyUsage, subjectAltName
- `certificate.basic_constraints`, `certificate.key_usage`, `certificate.alt_name`   these three, as RFC 5280 writes them
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from broker_crypto.crypto import signatures
from broker_crypto.errors import MalformedInput, PeerError
from broker_crypto.identity import der
from broker_crypto.limits import CERTIFICATE_MAX

_SIGNATURES: Final = {  # AlgorithmIdentifier, all of it: RFC 8410 section 3, RFC 5758 section 3.2
    bytes.fromhex("300506032b6570"): "ed25519",
    bytes.fromhex("300a06082a8648ce3d040302"): "ecdsa-sha256",
    bytes.fromhex("300a06082a8648ce3d040303"): "ecdsa-sha384",
}
_SCHEMES: Final = {signatures.ED25519: "ed25519", signatures.ECDSA_P256: "p256", signatures.ECDSA_P384: "p384"}
_BASIC_CONSTRAINTS: Final = bytes.fromhex("551d13")
_KEY_USAGE: Final = bytes.fromhex("551d0f")
_ALT_NAME: Final = bytes.fromhex("551d11")
_KNOWN: Final = frozenset((_BASIC_CONSTRAINTS, _KEY_USAGE, _ALT_NAME))

DIGITAL_SIGNATURE: Final = 0  # bits of keyUsage, RFC 5280 section 4.2.1.3
KEY_CERT_SIGN: Final = 5
CRL_SIGN: Final = 6


def refuse(rule: str, what: str) -> PeerError:
    """The error to raise for a broken rule."""
    return PeerError(f"certificate: {what}", rule=rule)


@dataclass(frozen=True, slots=True)
class BasicConstraints:
    """basicConstraints: whether it is critical, whether the subject is a CA, pathLen."""

    critical: bool
    ca: bool
    path_len: int | None


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate whose form is right; whether it counts is for `profile`.

    `scheme` is "ed25519", "p256" or "p384", `public_key` the raw key (32 bytes, or an uncompressed point), `spki` its
    SubjectPublicKeyInfo. Times are ms since 1970, both inclusive. `alt_names` are (tag, content), `key_usage` bit numbers.
    """

    encoding: bytes
    signed: bytes
    serial: int
    issuer: bytes
    subject: bytes
    not_before: int
    not_after: int
    spki: bytes
    scheme: str
    public_key: bytes
    algorithm: str
    signature: bytes
    basic_constraints: BasicConstraints | None
    key_usage: frozenset[int] | None
    alt_names: tuple[tuple[int, bytes], ...] | None

    @property
    def key_hash(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo (32 bytes): what a revocation names."""
        return hashlib.sha256(self.spki).digest()

    @property
    def self_issued(self) -> bool:
        """True if it names itself as its issuer."""
        return self.issuer == self.subject


@dataclass(frozen=True, slots=True)
class _Extension:
    critical: bool
    value: bytes


@lru_cache(maxsize=2048)  # a pure function of its bytes; members of a group are read again and again
def read_certificate(data: bytes) -> Certificate:
    """Read one certificate (DER). Raises PeerError, whose `rule` is one of those above."""
    if len(data) > CERTIFICATE_MAX:
        raise refuse("certificate.size", f"more than {CERTIFICATE_MAX} bytes")
    outer = der.enter_only(data, der.SEQUENCE)
    signed = outer.take(der.SEQUENCE)
    algorithm = outer.take(der.SEQUENCE).encoding
    signature = der.bit_string(outer.take(der.BIT_STRING).content)
    outer.finish()
    body = der.Reader(signed.content)
    _version(body)
    serial = _serial(body)
    if body.take(der.SEQUENCE).encoding != algorithm or algorithm not in _SIGNATURES:
        raise refuse("certificate.algorithm", "a signature algorithm that is not in the profile, or two of them")
    issuer = _name(body.take(der.SEQUENCE), empty=False)
    not_before, not_after = _validity(body.enter(der.SEQUENCE))
    subject = _name(body.take(der.SEQUENCE), empty=True)
    spki = body.take(der.SEQUENCE).encoding
    scheme, public_key = _key(spki)
    extensions = _extensions(body)
    return Certificate(
        encoding=data,
        signed=signed.encoding,
        serial=serial,
        issuer=issuer,
        subject=subject,
        not_before=not_before,
        not_after=not_after,
        spki=spki,
        scheme=scheme,
        public_key=public_key,
        algorithm=_SIGNATURES[algorithm],
        signature=signature,
        basic_constraints=_basic_constraints(extensions.get(_BASIC_CONSTRAINTS)),
        key_usage=_key_usage(extensions.get(_KEY_USAGE)),
        alt_names=_alt_names(extensions.get(_ALT_NAME)),
    )


def _version(body: der.Reader) -> None:
    version = body.optional(0xA0)
    if version is None or version.content != b"\x02\x01\x02":
        raise refuse("certificate.version", "not X.509 v3")


def _serial(body: der.Reader) -> int:
    serial = der.integer(body.take(der.INTEGER).content)
    if not 0 < serial < 1 << 159:
        raise refuse("certificate.serial", "a serial number that is not positive or longer than 20 bytes")
    return serial


def _name(element: der.Element, *, empty: bool) -> bytes:
    """The name as encoded (names are compared so). RFC 5280 section 4.1.2.4."""
    names = der.Reader(element.content)
    if not (names.more or empty):
        raise refuse("certificate.name", "no issuer")
    while names.more:
        last = b""
        parts = names.enter(der.SET)
        if not parts.more:
            raise refuse("certificate.name", "an empty part of a name")
        while parts.more:
            part = parts.take(der.SEQUENCE)
            if part.encoding <= last:
                raise refuse("certificate.name", "parts of a name out of order")
            last = part.encoding
            _attribute(der.Reader(part.content))
    return element.encoding


def _attribute(attribute: der.Reader) -> None:
    der.object_identifier(attribute.take(der.OBJECT_IDENTIFIER).content)
    der.text(attribute.next())
    attribute.finish()


def _validity(times: der.Reader) -> tuple[int, int]:
    not_before, not_after = der.seconds(times.next()), der.seconds(times.next())
    times.finish()
    if not_before > not_after:
        raise refuse("certificate.validity", "it ends before it begins")
    return not_before * 1000, not_after * 1000 + 999


def _key(spki: bytes) -> tuple[str, bytes]:
    """RFC 8410 section 4, RFC 5480 section 2; the key must be one under which a signature can hold."""
    try:
        scheme, public_key = signatures.key_of_spki(spki)
        return _SCHEMES[scheme], public_key
    except (MalformedInput, KeyError):
        raise refuse("certificate.key", "a key that is not Ed25519, or an uncompressed point on P-256 or P-384") from None


def _extensions(body: der.Reader) -> dict[bytes, _Extension]:
    found: dict[bytes, _Extension] = {}
    if body.peek() != 0xA3:
        raise refuse("certificate.extensions", "no extensions, or a unique identifier")
    listed = der.enter_only(body.next().content, der.SEQUENCE)
    body.finish()
    while listed.more:
        extension = listed.enter(der.SEQUENCE)
        name = der.object_identifier(extension.take(der.OBJECT_IDENTIFIER).content)
        critical = extension.optional(der.BOOLEAN)
        if critical is not None:
            der.true(critical.content)
        value = extension.take(der.OCTET_STRING).content
        extension.finish()
        if name in found:
            raise refuse("certificate.extensions", "an extension twice")
        if critical is not None and name not in _KNOWN:
            raise refuse("certificate.critical", f"an unknown critical extension ({name.hex()})")
        found[name] = _Extension(critical is not None, value)
    if not found:
        raise refuse("certificate.extensions", "an empty list of extensions")
    return found


def _basic_constraints(extension: _Extension | None) -> BasicConstraints | None:
    """RFC 5280 section 4.2.1.9: cA defaults to FALSE, pathLenConstraint stands only beside TRUE."""
    if extension is None:
        return None
    content = der.enter_only(extension.value, der.SEQUENCE)
    ca = content.optional(der.BOOLEAN)
    if ca is not None:
        der.true(ca.content)
    path_len = content.optional(der.INTEGER)
    content.finish()
    length = None if path_len is None else der.integer(path_len.content)
    if length is not None and (ca is None or not 0 <= length < 256):
        raise refuse("certificate.basic_constraints", "pathLen without a CA, negative or huge")
    return BasicConstraints(extension.critical, ca is not None, length)


def _key_usage(extension: _Extension | None) -> frozenset[int] | None:
    """RFC 5280 section 4.2.1.3: nine named bits, at least one of them set."""
    if extension is None:
        return None
    outer = der.Reader(extension.value)
    bits = der.named_bits(outer.take(der.BIT_STRING).content)
    outer.finish()
    if not bits or max(bits) > 8:
        raise refuse("certificate.key_usage", "no usage, or one that does not exist")
    return bits


def _alt_names(extension: _Extension | None) -> tuple[tuple[int, bytes], ...] | None:
    """RFC 5280 section 4.2.1.6: at least one name, each with a tag of its kind."""
    if extension is None:
        return None
    names = der.enter_only(extension.value, der.SEQUENCE)
    found = []
    while names.more:
        name = names.next()
        if name.tag & 0xC0 != 0x80 or name.tag & 0x1F > 8:
            raise refuse("certificate.alt_name", "a name of no known kind")
        found.append((name.tag, name.content))
    if not found:
        raise refuse("certificate.alt_name", "an empty list of names")
    return tuple(found)
