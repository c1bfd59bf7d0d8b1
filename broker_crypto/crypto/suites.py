"""The cipher suites of RFC 9420 section 17.1: one value a suite, with every function that MLS and topics use of it."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Any

from broker_crypto.crypto.aead import AES128GCM, AES256GCM, CHACHA20POLY1305, NONCE_BYTES, Aead, Cipher
from broker_crypto.crypto.dh import P256, P384, P521, X448, X25519
from broker_crypto.crypto.hpke import Hpke, Kem
from broker_crypto.crypto.kdf import SHA256, SHA384, SHA512, Hash, kdf_label, labelled, opaque
from broker_crypto.crypto.signatures import ECDSA_P256, ECDSA_P384, ECDSA_P521, ED448, ED25519, Scheme, Signer
from broker_crypto.errors import UsageError
from broker_crypto.records import Random


@dataclass(frozen=True, slots=True, eq=False)
class Suite:
    """One cipher suite; there is one object of each, so suites compare by identity.

    `nh`, `nk`, `nn` are the sizes in bytes of the hash, the AEAD key and the nonce; `signature_scheme` says how leaves sign.
    """

    number: int
    name: str
    kdf: Hash
    aead: Aead
    kem: Kem
    signature_scheme: Scheme
    hpke: Hpke = field(init=False, repr=False)
    nh: int = field(init=False, repr=False)
    nk: int = field(init=False, repr=False)
    nn: int = field(init=False, repr=False, default=NONCE_BYTES)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hpke", Hpke(self.kem, self.kdf, self.aead))
        object.__setattr__(self, "nh", self.kdf.size)
        object.__setattr__(self, "nk", self.aead.key_size)

    def __reduce__(self) -> tuple[Any, ...]:
        return suite, (self.number,)

    # --- hash, MAC and derivation (sections 5.1, 5.2, 8) ----------------------------------------------------------

    def hash(self, data: bytes) -> bytes:
        """The digest, Nh bytes."""
        return self.kdf.hash(data)

    def mac(self, key: bytes, data: bytes) -> bytes:
        """HMAC, Nh bytes."""
        return self.kdf.mac(key, data)

    def verify_mac(self, key: bytes, data: bytes, tag: bytes) -> bool:
        """Whether `tag` is the MAC, in constant time."""
        return hmac.compare_digest(self.kdf.mac(key, data), tag)

    def extract(self, salt: bytes, ikm: bytes) -> bytes:
        """KDF.Extract, Nh bytes."""
        return self.kdf.extract(salt, ikm)

    def expand(self, prk: bytes, info: bytes, n: int) -> bytes:
        """KDF.Expand to `n` bytes. Raises UsageError unless 1 <= n <= 255 * Nh."""
        return self.kdf.expand(prk, info, n)

    def expand_with_label(self, secret: bytes, label: str, context: bytes, n: int) -> bytes:
        """Derive `n` bytes from `secret` under an MLS label (section 8). Raises UsageError unless 1 <= n <= 255 * Nh."""
        self.kdf.check_length(n)
        return self.kdf.expand(secret, kdf_label(label, context, n), n)

    def derive_secret(self, secret: bytes, label: str) -> bytes:
        """DeriveSecret: Nh bytes (section 8)."""
        return self.kdf.expand(secret, kdf_label(label, b"", self.nh), self.nh)

    def derive_tree_secret(self, secret: bytes, label: str, generation: int, n: int) -> bytes:
        """DeriveTreeSecret: `n` bytes for a uint32 generation (section 9). Raises UsageError for either out of range."""
        if not 0 <= generation < 2**32:
            raise UsageError("a generation is a uint32", generation=generation)
        return self.expand_with_label(secret, label, generation.to_bytes(4, "big"), n)

    def ref_hash(self, label: str, value: bytes) -> bytes:
        """RefHash (section 5.2); `label` in full, such as "MLS 1.0 KeyPackage Reference"."""
        return self.kdf.hash(opaque(label.encode()) + opaque(value))

    # --- AEAD -----------------------------------------------------------------------------------------------------

    def cipher(self, key: bytes) -> Cipher:
        """The AEAD under one key, to be kept for many records; its `decrypt` raises crypto.InvalidTag. Raises UsageError."""
        return self.aead.cipher(key)

    def seal(self, key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """Ciphertext and tag. Raises UsageError for a key or nonce of another length."""
        return self.aead.seal(key, nonce, plaintext, aad)

    def open(self, key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
        """The plaintext. Raises AuthenticationFailed; UsageError for a key or nonce of another length."""
        return self.aead.open(key, nonce, ciphertext, aad)

    # --- HPKE (section 5.1.3, RFC 9180) ---------------------------------------------------------------------------

    def derive_key_pair(self, ikm: bytes) -> tuple[bytes, bytes]:
        """KEM.DeriveKeyPair: (private, public)."""
        return self.kem.derive_key_pair(ikm)

    def public_of(self, private: bytes) -> bytes:
        """The HPKE public key of a private one. Raises UsageError for one of another length or out of range."""
        return self.kem.group.public_of(private)

    def check_public(self, public: bytes) -> None:
        """Raises MalformedInput unless `public` is a usable HPKE public key (rules in crypto/dh.py)."""
        self.kem.group.check_public(public)

    def encrypt_with_label(self, public: bytes, label: str, context: bytes, plaintext: bytes, random: Random) -> tuple[bytes, bytes]:
        """(kem_output, ciphertext). Raises MalformedInput for a public key that is not usable."""
        return self.hpke.seal(public, labelled(label, context), plaintext, random=random)

    def decrypt_with_label(self, private: bytes, label: str, context: bytes, kem_output: bytes, ciphertext: bytes) -> bytes:
        """The plaintext. Raises AuthenticationFailed; MalformedInput for a kem_output that is not usable."""
        return self.hpke.open(private, kem_output, labelled(label, context), ciphertext)

    def export_send(self, public: bytes, info: bytes, exporter_context: bytes, n: int, random: Random) -> tuple[bytes, bytes]:
        """HPKE export to `public`: (kem_output, secret of `n` bytes). Raises MalformedInput, UsageError."""
        return self.hpke.send_export(public, info, exporter_context, n, random=random)

    def export_receive(self, private: bytes, kem_output: bytes, info: bytes, exporter_context: bytes, n: int) -> bytes:
        """The receiver's side of `export_send`. Raises MalformedInput, UsageError."""
        return self.hpke.receive_export(private, kem_output, info, exporter_context, n)

    # --- signatures (section 5.1.2) -------------------------------------------------------------------------------

    def signature_key_pair(self, random: Random) -> tuple[bytes, bytes]:
        """(private, public)."""
        return self.signature_scheme.key_pair(random)

    def signature_public_of(self, private: bytes) -> bytes:
        """The signature public key. Raises UsageError for a private key of another length or out of range."""
        return self.signature_scheme.public_of(private)

    def signer(self, private: bytes) -> Signer:
        """A function from `sign_content` bytes to a signature, for many signatures of one key. Raises UsageError."""
        return self.signature_scheme.signer(private)

    def sign_with_label(self, private: bytes, label: str, content: bytes) -> bytes:
        """SignWithLabel. Raises UsageError for a private key of another length or out of range."""
        return self.signature_scheme.signer(private)(labelled(label, content))

    def verify_with_label(self, public: bytes, label: str, content: bytes, signature: bytes, *, low_s: bool = False) -> bool:
        """VerifyWithLabel; False for a key that is not usable. `low_s` refuses ECDSA's second form (s > n / 2)."""
        return self.signature_scheme.verify(public, labelled(label, content), signature, low_s=low_s)


sign_content = labelled

_X25519 = Kem(0x0020, X25519, SHA256)
_X448 = Kem(0x0021, X448, SHA512)
_SUITES = {
    number: Suite(number, name, kdf, aead, kem, scheme)
    for number, name, kem, aead, kdf, scheme in (
        (1, "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519", _X25519, AES128GCM, SHA256, ED25519),
        (2, "MLS_128_DHKEMP256_AES128GCM_SHA256_P256", Kem(0x0010, P256, SHA256), AES128GCM, SHA256, ECDSA_P256),
        (3, "MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519", _X25519, CHACHA20POLY1305, SHA256, ED25519),
        (4, "MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448", _X448, AES256GCM, SHA512, ED448),
        (5, "MLS_256_DHKEMP521_AES256GCM_SHA512_P521", Kem(0x0012, P521, SHA512), AES256GCM, SHA512, ECDSA_P521),
        (6, "MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448", _X448, CHACHA20POLY1305, SHA512, ED448),
        (7, "MLS_256_DHKEMP384_AES256GCM_SHA384_P384", Kem(0x0011, P384, SHA384), AES256GCM, SHA384, ECDSA_P384),
    )
}


def suite(number: int) -> Suite:
    """The suite of this number, 1 to 7. Raises UsageError for another one."""
    found = _SUITES.get(number)
    if found is None:
        raise UsageError("no cipher suite of RFC 9420 has this number", suite=number)
    return found
