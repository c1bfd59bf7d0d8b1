"""Certificates built byte by byte, so that any of their parts can be wrong: a DER writer, a signer, chains that are good until bent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker_crypto.identity.ca import PrivateKey
from broker_crypto.records import Anchor

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
NOW_MS = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp()) * 1000
IDENTITY = "agent://acme/billing"
PREFIX = "agent://acme/"

ED25519 = bytes.fromhex("300506032b6570")
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
ECDSA_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")
BASIC_CONSTRAINTS, KEY_USAGE, ALT_NAME = bytes.fromhex("551d13"), bytes.fromhex("551d0f"), bytes.fromhex("551d11")
NAME_CONSTRAINTS, EXTENDED_KEY_USAGE = bytes.fromhex("551d1e"), bytes.fromhex("551d25")


def tlv(tag: int, *content: bytes) -> bytes:
    body = b"".join(content)
    if len(body) < 0x80:
        return bytes((tag, len(body))) + body
    size = (len(body).bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + len(body).to_bytes(size, "big") + body


def integer(value: int) -> bytes:
    return tlv(2, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def oid(content: bytes) -> bytes:
    return tlv(6, content)


def bits(content: bytes, unused: int = 0) -> bytes:
    return tlv(3, bytes((unused,)), content)


def utc(moment: datetime) -> bytes:
    return tlv(0x17, moment.strftime("%y%m%d%H%M%SZ").encode())


def generalized(moment: datetime) -> bytes:
    return tlv(0x18, moment.strftime("%Y%m%d%H%M%SZ").encode())


def name(text: str, tag: int = 0x0C) -> bytes:
    return tlv(0x30, tlv(0x31, tlv(0x30, oid(bytes.fromhex("550403")), tlv(tag, text.encode())))) if text else tlv(0x30)


def extension(kind: bytes, value: bytes, *, critical: bool = False) -> bytes:
    return tlv(0x30, oid(kind), tlv(1, b"\xff") if critical else b"", tlv(4, value))


def basic_constraints(*, ca: bool = True, path_len: int | None = None, critical: bool = True) -> bytes:
    value = tlv(0x30, tlv(1, b"\xff") if ca else b"", b"" if path_len is None else integer(path_len))
    return extension(BASIC_CONSTRAINTS, value, critical=critical)


def key_usage(*numbers: int, critical: bool = True) -> bytes:
    value = sum(0x8000 >> number for number in numbers)
    data = value.to_bytes(2, "big").rstrip(b"\0")
    unused = (data[-1] & -data[-1]).bit_length() - 1 if data else 0
    return extension(KEY_USAGE, bits(data, unused), critical=critical)


def alt_name(*names: tuple[int, bytes], critical: bool = False) -> bytes:
    return extension(ALT_NAME, tlv(0x30, *(tlv(tag, content) for tag, content in names)), critical=critical)


def uri(text: str) -> tuple[int, bytes]:
    return 0x86, text.encode()


def spki(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@cache
def _key(label: str, scheme: str) -> PrivateKey:
    seed = hashlib.sha256(f"{scheme} {label}".encode()).digest()
    if scheme == "ed25519":
        return Ed25519PrivateKey.from_private_bytes(seed)
    return ec.derive_private_key(int.from_bytes(seed[1:]), ec.SECP256R1() if scheme == "p256" else ec.SECP384R1())


def key(label: str, scheme: str = "ed25519") -> PrivateKey:
    """The key of a label and kind: always the same, so that a failure comes again."""
    return _key(label, scheme)


def algorithm_of(signer: PrivateKey) -> bytes:
    if isinstance(signer, ec.EllipticCurvePrivateKey):
        return ECDSA_SHA384 if signer.key_size == 384 else ECDSA_SHA256
    return ED25519


def sign(signer: PrivateKey, data: bytes, algorithm: bytes) -> bytes:
    if isinstance(signer, ec.EllipticCurvePrivateKey):
        return signer.sign(data, ec.ECDSA(hashes.SHA384() if algorithm == ECDSA_SHA384 else hashes.SHA256(), deterministic_signing=True))
    return signer.sign(data)


@dataclass(frozen=True)
class Plan:
    """A certificate to be. `outer` is the second algorithm identifier, None the same as the first."""

    subject: bytes
    issuer: bytes
    key: PrivateKey
    signer: PrivateKey
    extensions: Sequence[bytes]
    version: bytes = b"\xa0\x03\x02\x01\x02"
    serial: bytes = integer(4711)
    algorithm: bytes | None = None
    outer: bytes | None = None
    validity: Sequence[bytes] = (utc(START), utc(END))
    spki: bytes | None = None
    behind_key: bytes = b""
    signature: bytes | None = None

    def body(self) -> bytes:
        algorithm = self.algorithm or algorithm_of(self.signer)
        extensions = tlv(0xA3, tlv(0x30, *self.extensions)) if self.extensions is not None else b""
        return tlv(
            0x30,
            self.version,
            self.serial,
            algorithm,
            self.issuer,
            tlv(0x30, *self.validity),
            self.subject,
            self.spki or spki(self.key),
            self.behind_key,
            extensions,
        )

    def build(self) -> bytes:
        algorithm = self.algorithm or algorithm_of(self.signer)
        body = self.body()
        signature = sign(self.signer, body, algorithm) if self.signature is None else self.signature
        return tlv(0x30, body, self.outer or algorithm, bits(signature))

    def but(self, **changes: Any) -> Plan:
        return replace(self, **changes)


LEAF_EXTENSIONS = (basic_constraints(ca=False), key_usage(0), alt_name(uri(IDENTITY)))
CA_EXTENSIONS = (basic_constraints(), key_usage(5, 6))


@dataclass(frozen=True)
class Plans:
    """Root, intermediates from the top down, leaf: a good chain until one of them is replaced."""

    root: Plan
    middle: tuple[Plan, ...]
    leaf: Plan
    prefixes: tuple[str, ...] = field(default=(PREFIX,))

    def chain(self) -> list[bytes]:
        return [self.leaf.build(), *(plan.build() for plan in reversed(self.middle))]

    def anchor(self) -> Anchor:
        return Anchor(self.root.build(), self.prefixes)


def plans(depth: int = 1, *, leaf: str = "ed25519", ca: str = "ed25519") -> Plans:
    """A good chain with `depth` intermediates."""
    above, signer = name("root"), key("root", ca)
    root = Plan(above, above, signer, signer, CA_EXTENSIONS)
    middle = []
    for level in range(depth):
        subject, own = name(f"middle {level}"), key(f"middle {level}", ca)
        middle.append(Plan(subject, above, own, signer, CA_EXTENSIONS))
        above, signer = subject, own
    return Plans(root, tuple(middle), Plan(name("billing"), above, key("leaf", leaf), signer, LEAF_EXTENSIONS))
