"""Signatures: Ed25519, Ed448 (RFC 8032) and ECDSA on P-256, P-384 and P-521.

- Ed25519 has one verifier, libsodium's: s < L, the key canonical, neither key nor R of small order. Everything that is
  verified with Ed25519 is verified here, so that all members judge a signature alike.
- Ed448 follows OpenSSL.
- ECDSA signatures are DER, in their one encoding, 0 < r, s < n. Ours have s <= n / 2 (of the two signatures that a
  third party can make from one, only this one) and are deterministic (RFC 6979); `low_s=True` demands s <= n / 2.

Private keys are raw: the seed, or the scalar, big-endian and as long as the order. Public keys are raw, or uncompressed points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

from broker_crypto.crypto.dh import P256, P384, P521, Nist
from broker_crypto.crypto.kdf import draw
from broker_crypto.errors import MalformedInput, UsageError
from broker_crypto.limits import PRIME_ED25519, PRIME_X448, SMALL_ORDER_ED448, SMALL_ORDER_ED25519
from broker_crypto.records import Random

Signer = Callable[[bytes], bytes]

_DIGESTS: dict[str, hashes.HashAlgorithm] = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}


class Scheme(Protocol):
    """One signature scheme. `number` of TLS's SignatureScheme; sizes in bytes; `spki_prefix` is what stands before the
    public key in its DER SubjectPublicKeyInfo."""

    @property
    def name(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def private_size(self) -> int: ...
    @property
    def public_size(self) -> int: ...
    @property
    def spki_prefix(self) -> bytes: ...
    def key_pair(self, random: Random) -> tuple[bytes, bytes]:
        """(private, public)."""
        ...

    def public_of(self, private: bytes) -> bytes:
        """The public key. Raises UsageError for a private key of another length or out of range."""
        ...

    def check_public(self, public: bytes) -> None:
        """Raises MalformedInput unless `public` is the one spelling of a point that is not of small order."""
        ...

    def signer(self, private: bytes) -> Signer:
        """A function that signs messages; the key is expanded once. Raises UsageError as `public_of`."""
        ...

    def verify(self, public: bytes, message: bytes, signature: bytes, *, low_s: bool = False) -> bool:
        """Whether the signature holds; False for whatever cannot be one, key included. `low_s` concerns ECDSA only."""
        ...


def _check_private(name: str, private: bytes, size: int) -> None:
    if len(private) != size:
        raise UsageError("a private key has another length", scheme=name, expected=size, got=len(private))


def _check_public(name: str, public: bytes, size: int) -> None:
    if len(public) != size:
        raise MalformedInput("a public key has another length", scheme=name, expected=size, got=len(public))


def verify_ed25519(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether an Ed25519 signature holds, by libsodium's rules. `public` 32 bytes, `signature` 64, else False."""
    if len(public) != 32 or len(signature) != 64:
        return False
    try:
        crypto_sign_open(signature + message, public)
    except BadSignatureError:
        return False
    return True


@dataclass(frozen=True, slots=True, eq=False)
class _Ed25519:
    name: str = "Ed25519"
    number: int = 0x0807
    private_size: int = 32
    public_size: int = 32
    spki_prefix: bytes = bytes.fromhex("302a300506032b6570032100")

    def key_pair(self, random: Random) -> tuple[bytes, bytes]:
        private = draw(random, 32)
        return private, self.public_of(private)

    def public_of(self, private: bytes) -> bytes:
        _check_private(self.name, private, 32)
        return bytes(crypto_sign_seed_keypair(private)[0])

    def check_public(self, public: bytes) -> None:
        _check_public(self.name, public, 32)
        number = int.from_bytes(public, "little")
        y = number & ((1 << 255) - 1)
        if y >= PRIME_ED25519:
            raise MalformedInput("a public key is not reduced", scheme=self.name)
        if y in SMALL_ORDER_ED25519:
            raise MalformedInput("a public key is of small order", scheme=self.name)
        if not _on_edwards25519(y):
            raise MalformedInput("a public key is not on the curve", scheme=self.name)

    def signer(self, private: bytes) -> Signer:
        _check_private(self.name, private, 32)
        expanded = crypto_sign_seed_keypair(private)[1]

        def sign(message: bytes) -> bytes:
            return bytes(crypto_sign(message, expanded)[:64])

        return sign

    def verify(self, public: bytes, message: bytes, signature: bytes, *, low_s: bool = False) -> bool:
        return verify_ed25519(public, message, signature)


def _on_edwards25519(y: int) -> bool:
    """Whether an x exists with -x^2 + y^2 = 1 + d x^2 y^2; both signs of x are points then (x = 0 is of small order)."""
    p = PRIME_ED25519
    d = -121665 * pow(121666, -1, p) % p
    square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
    return pow(square, (p - 1) // 2, p) == 1


def _on_edwards448(y: int) -> bool:
    """The same for x^2 + y^2 = 1 + d x^2 y^2 (RFC 8032 section 5.2)."""
    p = PRIME_X448
    square = (y * y - 1) * pow(-39081 * y * y - 1, -1, p) % p
    return pow(square, (p - 1) // 2, p) == 1


@dataclass(frozen=True, slots=True, eq=False)
class _Ed448:
    name: str = "Ed448"
    number: int = 0x0808
    private_size: int = 57
    public_size: int = 57
    spki_prefix: bytes = bytes.fromhex("3043300506032b6571033a00")

    def key_pair(self, random: Random) -> tuple[bytes, bytes]:
        private = draw(random, 57)
        return private, self.public_of(private)

    def public_of(self, private: bytes) -> bytes:
        _check_private(self.name, private, 57)
        return ed448.Ed448PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()

    def check_public(self, public: bytes) -> None:
        """The library itself looks at the length alone."""
        _check_public(self.name, public, 57)
        y = int.from_bytes(public, "little") & ((1 << 455) - 1)
        if y >= PRIME_X448:
            raise MalformedInput("a public key is not reduced", scheme=self.name)
        if y in SMALL_ORDER_ED448:
            raise MalformedInput("a public key is of small order", scheme=self.name)
        if not _on_edwards448(y):
            raise MalformedInput("a public key is not on the curve", scheme=self.name)

    def signer(self, private: bytes) -> Signer:
        _check_private(self.name, private, 57)
        return ed448.Ed448PrivateKey.from_private_bytes(private).sign

    def verify(self, public: bytes, message: bytes, signature: bytes, *, low_s: bool = False) -> bool:
        try:
            ed448.Ed448PublicKey.from_public_bytes(public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True, eq=False)
class Ecdsa:
    """ECDSA on one curve with one hash."""

    name: str
    number: int
    curve: Nist
    digest: str
    spki_prefix: bytes

    @property
    def private_size(self) -> int:
        return self.curve.private_size

    @property
    def public_size(self) -> int:
        return self.curve.public_size

    def key_pair(self, random: Random) -> tuple[bytes, bytes]:
        for _ in range(256):
            private = self.curve.scalar(draw(random, self.private_size))
            if private is not None:
                return private, self.public_of(private)
        raise UsageError("the source of randomness gives no private key", scheme=self.name)

    def public_of(self, private: bytes) -> bytes:
        return self.curve.public_of(private)

    def check_public(self, public: bytes) -> None:
        self.curve.check_public(public)

    def signer(self, private: bytes) -> Signer:
        key = self.curve.load_private(private)
        algorithm = ec.ECDSA(_DIGESTS[self.digest], deterministic_signing=True)
        order = self.curve.order

        def sign(message: bytes) -> bytes:
            r, s = decode_dss_signature(key.sign(message, algorithm))
            return encode_dss_signature(r, min(s, order - s))

        return sign

    def verify(self, public: bytes, message: bytes, signature: bytes, *, low_s: bool = False) -> bool:
        return verify_ecdsa(self.curve, public, message, signature, digest=self.digest, low_s=low_s)


def verify_ecdsa(curve: Nist, public: bytes, message: bytes, signature: bytes, *, digest: str, low_s: bool = False) -> bool:
    """Whether an ECDSA signature (DER) holds under a point of `curve`; `digest` is "sha256", "sha384" or "sha512".

    False for whatever cannot be a signature or a key, and with `low_s` for s > n / 2.
    """
    try:
        r, s = decode_dss_signature(signature)
        key = curve.load_public(public)
    except (ValueError, MalformedInput):
        return False
    highest = curve.order // 2 if low_s else curve.order - 1
    if not (0 < r < curve.order and 0 < s <= highest and encode_dss_signature(r, s) == signature):
        return False
    try:
        key.verify(signature, message, ec.ECDSA(_DIGESTS[digest]))
    except InvalidSignature:
        return False
    return True


ED25519: Scheme = _Ed25519()
ED448: Scheme = _Ed448()
ECDSA_P256 = Ecdsa("ECDSA-P256-SHA256", 0x0403, P256, "sha256", bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200"))
ECDSA_P384 = Ecdsa("ECDSA-P384-SHA384", 0x0503, P384, "sha384", bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200"))
ECDSA_P521 = Ecdsa("ECDSA-P521-SHA512", 0x0603, P521, "sha512", bytes.fromhex("30819b301006072a8648ce3d020106052b8104002303818600"))
SCHEMES: tuple[Scheme, ...] = (ED25519, ED448, ECDSA_P256, ECDSA_P384, ECDSA_P521)


def key_of_spki(spki: bytes) -> tuple[Scheme, bytes]:
    """(scheme, raw public key) of a DER SubjectPublicKeyInfo in its one encoding. Raises MalformedInput for any other bytes."""
    for scheme in SCHEMES:
        if spki.startswith(scheme.spki_prefix) and len(spki) == len(scheme.spki_prefix) + scheme.public_size:
            public = spki[len(scheme.spki_prefix) :]
            scheme.check_public(public)
            return scheme, public
    raise MalformedInput("no SubjectPublicKeyInfo of a scheme in use")
