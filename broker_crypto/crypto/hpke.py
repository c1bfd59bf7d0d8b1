"""HPKE (RFC 9180): DHKEM, base mode, one message or one export a context.

Randomness comes in as an argument, and the exporter is there, which MLS needs for external joins; both are the reason
why this is written on the primitives.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker_crypto.crypto.aead import NONCE_BYTES, Aead
from broker_crypto.crypto.dh import Group, Nist
from broker_crypto.crypto.kdf import Hash, draw
from broker_crypto.errors import UsageError
from broker_crypto.records import Random

_MODE_BASE = b"\x00"


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """LabeledExtract and LabeledExpand of RFC 9180 section 4 under one suite_id."""

    hash: Hash
    suite_id: bytes

    def extract(self, salt: bytes, label: bytes, ikm: bytes) -> bytes:
        return self.hash.extract(salt, b"HPKE-v1" + self.suite_id + label + ikm)

    def expand(self, prk: bytes, label: bytes, info: bytes, n: int) -> bytes:
        self.hash.check_length(n)
        return self.hash.expand(prk, n.to_bytes(2, "big") + b"HPKE-v1" + self.suite_id + label + info, n)


@dataclass(frozen=True, slots=True, eq=False)
class Kem:
    """DHKEM over one group (section 4.1); `hpke_id` of section 7.1."""

    hpke_id: int
    group: Group
    hash: Hash
    _kdf: Labelled = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_kdf", Labelled(self.hash, b"KEM" + self.hpke_id.to_bytes(2, "big")))

    def derive_key_pair(self, ikm: bytes) -> tuple[bytes, bytes]:
        """(private, public) from secret bytes, section 7.1.3."""
        prk = self._kdf.extract(b"", b"dkp_prk", ikm)
        if isinstance(self.group, Nist):
            private = self._candidate(prk, self.group)
        else:
            private = self._kdf.expand(prk, b"sk", b"", self.group.private_size)
        return private, self.group.public_of(private)

    def _candidate(self, prk: bytes, curve: Nist) -> bytes:
        for counter in range(256):
            private = curve.scalar(self._kdf.expand(prk, b"candidate", bytes((counter,)), curve.private_size))
            if private is not None:
                return private
        raise UsageError("no private key can be derived from these bytes", group=curve.name)

    def encap(self, public: bytes, random: Random) -> tuple[bytes, bytes]:
        """(shared secret, kem_output). Raises MalformedInput for a key that is not usable."""
        self.group.check_public(public)
        ephemeral, kem_output = self.derive_key_pair(draw(random, self.group.private_size))
        return self._shared(self.group.agree(ephemeral, public), kem_output + public), kem_output

    def decap(self, private: bytes, kem_output: bytes) -> bytes:
        """The shared secret. Raises MalformedInput for a kem_output that is not usable."""
        agreed = self.group.agree(private, kem_output)
        return self._shared(agreed, kem_output + self.group.public_of(private))

    def _shared(self, agreed: bytes, context: bytes) -> bytes:
        return self._kdf.expand(self._kdf.extract(b"", b"eae_prk", agreed), b"shared_secret", context, self.hash.size)


@dataclass(frozen=True, slots=True, eq=False)
class Hpke:
    """One HPKE suite in base mode."""

    kem: Kem
    hash: Hash
    aead: Aead
    _kdf: Labelled = field(init=False, repr=False)
    _no_psk: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ids = (self.kem.hpke_id, self.hash.hpke_id, self.aead.hpke_id)
        kdf = Labelled(self.hash, b"HPKE" + b"".join(number.to_bytes(2, "big") for number in ids))
        object.__setattr__(self, "_kdf", kdf)
        object.__setattr__(self, "_no_psk", kdf.extract(b"", b"psk_id_hash", b""))

    def _schedule(self, shared: bytes, info: bytes) -> tuple[bytes, bytes]:
        """(secret, key_schedule_context) of section 5.1."""
        context = _MODE_BASE + self._no_psk + self._kdf.extract(b"", b"info_hash", info)
        return self._kdf.extract(shared, b"secret", b""), context

    def _key(self, shared: bytes, info: bytes) -> tuple[bytes, bytes]:
        """(key, nonce) of the first message."""
        secret, context = self._schedule(shared, info)
        key = self._kdf.expand(secret, b"key", context, self.aead.key_size)
        return key, self._kdf.expand(secret, b"base_nonce", context, NONCE_BYTES)

    def _export(self, shared: bytes, info: bytes, exporter_context: bytes, n: int) -> bytes:
        secret, context = self._schedule(shared, info)
        exporter = self._kdf.expand(secret, b"exp", context, self.hash.size)
        return self._kdf.expand(exporter, b"sec", exporter_context, n)

    def seal(self, public: bytes, info: bytes, plaintext: bytes, *, aad: bytes = b"", random: Random) -> tuple[bytes, bytes]:
        """(kem_output, ciphertext), section 6.1. Raises MalformedInput for a key that is not usable."""
        shared, kem_output = self.kem.encap(public, random)
        key, nonce = self._key(shared, info)
        return kem_output, self.aead.seal(key, nonce, plaintext, aad)

    def open(self, private: bytes, kem_output: bytes, info: bytes, ciphertext: bytes, *, aad: bytes = b"") -> bytes:
        """The plaintext. Raises MalformedInput for a kem_output that is not usable, AuthenticationFailed."""
        key, nonce = self._key(self.kem.decap(private, kem_output), info)
        return self.aead.open(key, nonce, ciphertext, aad)

    def send_export(self, public: bytes, info: bytes, exporter_context: bytes, n: int, *, random: Random) -> tuple[bytes, bytes]:
        """(kem_output, secret of `n` bytes), section 6.2. Raises MalformedInput, UsageError."""
        shared, kem_output = self.kem.encap(public, random)
        return kem_output, self._export(shared, info, exporter_context, n)

    def receive_export(self, private: bytes, kem_output: bytes, info: bytes, exporter_context: bytes, n: int) -> bytes:
        """The secret of `n` bytes. Raises MalformedInput, UsageError."""
        return self._export(self.kem.decap(private, kem_output), info, exporter_context, n)
