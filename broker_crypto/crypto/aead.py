"""AEAD of the cipher suites: AES-GCM and ChaCha20-Poly1305, nonces of 12 bytes, tags of 16."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from broker_crypto.errors import PeerError, UsageError

NONCE_BYTES = 12
TAG_BYTES = 16


class AuthenticationFailed(PeerError):
    """A ciphertext is not what was sealed under this key, nonce and associated data."""

    code = "authentication_failed"


class Cipher(Protocol):
    """One AEAD under one key, for many records. `decrypt` raises InvalidTag."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes: ...
    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes: ...


@dataclass(frozen=True, slots=True, eq=False)
class Aead:
    """One AEAD algorithm: `key_size` (Nk), `hpke_id` (RFC 9180 section 7.3)."""

    name: str
    key_size: int
    hpke_id: int
    _new: Callable[[bytes], Any]

    def cipher(self, key: bytes) -> Cipher:
        """The algorithm under `key`. Raises UsageError unless it has Nk bytes."""
        if len(key) != self.key_size:
            raise UsageError("an AEAD key has another length", algorithm=self.name, expected=self.key_size, got=len(key))
        cipher: Cipher = self._new(key)
        return cipher

    def seal(self, key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """Ciphertext and tag. Raises UsageError for a key or nonce of another length."""
        return self.cipher(key).encrypt(_nonce(nonce), plaintext, aad)

    def open(self, key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
        """The plaintext. Raises AuthenticationFailed; UsageError for a key or nonce of another length."""
        try:
            return self.cipher(key).decrypt(_nonce(nonce), ciphertext, aad)
        except InvalidTag:
            raise AuthenticationFailed from None


def _nonce(nonce: bytes) -> bytes:
    if len(nonce) != NONCE_BYTES:
        raise UsageError("an AEAD nonce has another length", expected=NONCE_BYTES, got=len(nonce))
    return nonce


AES128GCM = Aead("AES-128-GCM", 16, 1, AESGCM)
AES256GCM = Aead("AES-256-GCM", 32, 2, AESGCM)
CHACHA20POLY1305 = Aead("ChaCha20-Poly1305", 32, 3, ChaCha20Poly1305)
