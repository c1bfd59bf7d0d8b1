"""Hashes, HMAC and HKDF (RFC 5869) of a cipher suite, the byte strings that MLS derives and signs under a label, random bytes."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from broker_crypto.errors import UsageError
from broker_crypto.limits import MAX_EXPAND_BLOCKS, MAX_VECTOR
from broker_crypto.records import Random

_digest = hmac.digest


@dataclass(frozen=True, slots=True, eq=False)
class Hash:
    """One hash function: `name` for hashlib, `size` of its output (Nh), `hpke_id` of HKDF with it (RFC 9180 section 7.2)."""

    name: str
    size: int
    hpke_id: int
    _new: Callable[[bytes], Any] = field(repr=False)

    def hash(self, data: bytes) -> bytes:
        """The digest, Nh bytes."""
        return bytes(self._new(data).digest())

    def mac(self, key: bytes, data: bytes) -> bytes:
        """HMAC, Nh bytes."""
        return _digest(key, data, self.name)

    def extract(self, salt: bytes, ikm: bytes) -> bytes:
        """HKDF-Extract, Nh bytes."""
        return _digest(salt, ikm, self.name)

    def check_length(self, n: int) -> None:
        """Raises UsageError for a length that `expand` does not give."""
        if not 1 <= n <= MAX_EXPAND_BLOCKS * self.size:
            raise UsageError("HKDF gives 1 to 255 blocks", length=n, block=self.size)

    def expand(self, prk: bytes, info: bytes, n: int) -> bytes:
        """HKDF-Expand to `n` bytes. Raises UsageError unless 1 <= n <= 255 * Nh."""
        if n == self.size:
            return _digest(prk, info + b"\x01", self.name)
        self.check_length(n)
        block = out = _digest(prk, info + b"\x01", self.name)
        counter = 1
        while len(out) < n:
            counter += 1
            block = _digest(prk, block + info + bytes((counter,)), self.name)
            out += block
        return out[:n]


SHA256 = Hash("sha256", 32, 1, hashlib.sha256)
SHA384 = Hash("sha384", 48, 2, hashlib.sha384)
SHA512 = Hash("sha512", 64, 3, hashlib.sha512)


def draw(random: Random, n: int) -> bytes:
    """`n` random bytes. Raises UsageError where the source gives another number of them."""
    drawn = random(n)
    if len(drawn) != n:
        raise UsageError("the source of randomness gives another number of bytes", expected=n, got=len(drawn))
    return drawn


def opaque(data: bytes) -> bytes:
    """opaque<V> of RFC 9420 section 2.1.2. Raises UsageError for 2^30 bytes and more."""
    n = len(data)
    if n < 0x40:
        return bytes((n,)) + data
    if n < 0x4000:
        return (n | 0x4000).to_bytes(2, "big") + data
    if n > MAX_VECTOR:
        raise UsageError("a vector is too long", length=n)
    return (n | 0x80000000).to_bytes(4, "big") + data


@lru_cache(maxsize=256)
def mls_label(label: str) -> bytes:
    """The label as MLS writes it: opaque<V> of "MLS 1.0 " and the label (RFC 9420 sections 5.1.2, 5.1.3 and 8)."""
    return opaque(b"MLS 1.0 " + label.encode())


def labelled(label: str, content: bytes) -> bytes:
    """struct SignContent (section 5.1.2) and struct EncryptContext (section 5.1.3)."""
    return mls_label(label) + opaque(content)


def kdf_label(label: str, context: bytes, n: int) -> bytes:
    """struct KDFLabel (section 8); `n` is one that `Hash.check_length` takes."""
    return n.to_bytes(2, "big") + mls_label(label) + opaque(context)
