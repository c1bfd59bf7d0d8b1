"""Diffie-Hellman groups: X25519, X448 (RFC 7748) and the NIST curves P-256, P-384, P-521.

Keys are raw bytes: private keys as RFC 9180 section 7.1.2 serialises them, public keys as RFC 7748 or as uncompressed
points (SEC 1). A public key that is not usable is refused before any use of it, so a result never depends on a group
that the other side chose:

1. the length is that of the group;
2. X25519 and X448: as a number of all its bits 0 < u < p, and u is not of small order, on the curve or its twist;
3. NIST: first byte 4, coordinates below p, on the curve (the cofactor is 1);
4. a shared secret of zeros is refused (RFC 9180 section 7.1.4).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec, x448
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.exceptions import RuntimeError as NaclRuntimeError

from broker_crypto.errors import MalformedInput, UsageError
from broker_crypto.limits import (
    ORDER_P256,
    ORDER_P384,
    ORDER_P521,
    PRIME_X448,
    PRIME_X25519,
    SMALL_ORDER_X448,
    SMALL_ORDER_X25519,
)


class Group(Protocol):
    """What HPKE needs of a group. Sizes in bytes."""

    @property
    def name(self) -> str: ...
    @property
    def private_size(self) -> int: ...
    @property
    def public_size(self) -> int: ...
    def check_public(self, public: bytes) -> None:
        """Raises MalformedInput unless `public` is usable."""
        ...

    def public_of(self, private: bytes) -> bytes:
        """The public key. Raises UsageError for a private key of another length or out of range."""
        ...

    def agree(self, private: bytes, public: bytes) -> bytes:
        """The shared secret. Raises MalformedInput, UsageError."""
        ...


def _check_length(name: str, public: bytes, size: int) -> None:
    if len(public) != size:
        raise MalformedInput("a public key has another length", group=name, expected=size, got=len(public))


def _check_private(name: str, private: bytes, size: int) -> None:
    if len(private) != size:
        raise UsageError("a private key has another length", group=name, expected=size, got=len(private))


def _check_montgomery(name: str, public: bytes, prime: int, small_order: frozenset[int]) -> None:
    u = int.from_bytes(public, "little")
    if u >= prime:
        raise MalformedInput("a public key is not reduced", group=name)
    if u in small_order:
        raise MalformedInput("a public key is of small order", group=name)


def _not_zero(name: str, shared: bytes) -> bytes:
    if hmac.compare_digest(shared, bytes(len(shared))):
        raise MalformedInput("a shared secret is zero", group=name)
    return shared


@dataclass(frozen=True, slots=True, eq=False)
class _X25519:
    name: str = "X25519"
    private_size: int = 32
    public_size: int = 32

    def check_public(self, public: bytes) -> None:
        _check_length(self.name, public, 32)
        _check_montgomery(self.name, public, PRIME_X25519, SMALL_ORDER_X25519)

    def public_of(self, private: bytes) -> bytes:
        _check_private(self.name, private, 32)
        return bytes(crypto_scalarmult_base(private))

    def agree(self, private: bytes, public: bytes) -> bytes:
        _check_private(self.name, private, 32)
        self.check_public(public)
        return self._multiply(private, public)

    def _multiply(self, private: bytes, public: bytes) -> bytes:
        try:
            return _not_zero(self.name, bytes(crypto_scalarmult(private, public)))
        except NaclRuntimeError:  # how the library says zero
            raise MalformedInput("a shared secret is zero", group=self.name) from None


@dataclass(frozen=True, slots=True, eq=False)
class _X448:
    name: str = "X448"
    private_size: int = 56
    public_size: int = 56

    def check_public(self, public: bytes) -> None:
        _check_length(self.name, public, 56)
        _check_montgomery(self.name, public, PRIME_X448, SMALL_ORDER_X448)

    def public_of(self, private: bytes) -> bytes:
        _check_private(self.name, private, 56)
        return x448.X448PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()

    def agree(self, private: bytes, public: bytes) -> bytes:
        _check_private(self.name, private, 56)
        self.check_public(public)
        return self._multiply(private, public)

    def _multiply(self, private: bytes, public: bytes) -> bytes:
        own = x448.X448PrivateKey.from_private_bytes(private)
        try:
            return _not_zero(self.name, own.exchange(x448.X448PublicKey.from_public_bytes(public)))
        except ValueError:  # how the library says zero
            raise MalformedInput("a shared secret is zero", group=self.name) from None


@dataclass(frozen=True, slots=True, eq=False)
class Nist:
    """One NIST curve; `order` is that of its base point, `curve` the library's name of it."""

    name: str
    private_size: int
    order: int
    curve: ec.EllipticCurve = field(repr=False)

    @property
    def public_size(self) -> int:
        return 1 + 2 * self.private_size

    def scalar(self, drawn: bytes) -> bytes | None:
        """A private key from as many random bytes, bits beyond the order's cleared; None where it is out of range."""
        masked = bytes((drawn[0] & 0xFF >> -self.order.bit_length() % 8,)) + drawn[1:]
        return masked if 0 < int.from_bytes(masked, "big") < self.order else None

    def load_public(self, public: bytes) -> ec.EllipticCurvePublicKey:
        """The library's key. Raises MalformedInput unless `public` is an uncompressed point on the curve."""
        _check_length(self.name, public, self.public_size)
        if public[0] != 4:
            raise MalformedInput("a public key is no uncompressed point", group=self.name)
        try:
            return _load_point(self, public)
        except ValueError:
            raise MalformedInput("a public key is not on the curve", group=self.name) from None

    def load_private(self, private: bytes) -> ec.EllipticCurvePrivateKey:
        """The library's key. Raises UsageError unless `private` is a scalar from 1 to order - 1."""
        _check_private(self.name, private, self.private_size)
        scalar = int.from_bytes(private, "big")
        if not 0 < scalar < self.order:
            raise UsageError("a private key is out of range", group=self.name)
        return ec.derive_private_key(scalar, self.curve)

    def check_public(self, public: bytes) -> None:
        self.load_public(public)

    def public_of(self, private: bytes) -> bytes:
        numbers = self.load_private(private).public_key().public_numbers()
        size = self.private_size
        return b"\x04" + numbers.x.to_bytes(size, "big") + numbers.y.to_bytes(size, "big")

    def agree(self, private: bytes, public: bytes) -> bytes:
        return self.load_private(private).exchange(ec.ECDH(), self.load_public(public))


@lru_cache(maxsize=1024)
def _load_point(curve: Nist, public: bytes) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(curve.curve, public)


X25519: Group = _X25519()
X448: Group = _X448()
P256 = Nist("P-256", 32, ORDER_P256, ec.SECP256R1())
P384 = Nist("P-384", 48, ORDER_P384, ec.SECP384R1())
P521 = Nist("P-521", 66, ORDER_P521, ec.SECP521R1())
