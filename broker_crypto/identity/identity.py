"""An agent's identity: its certificate chain and the private key of its leaf."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from broker_crypto.errors import PeerError, UsageError
from broker_crypto.identity import ca, keys, profile
from broker_crypto.identity.certificate import read_certificate
from broker_crypto.records import Anchor
from broker_crypto.wire import pem

SUITES: Final = {"ed25519": (1, 3), "p256": (2,)}  # cipher suites of RFC 9420 section 17.1 that groups use, by leaf key


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an agent is: one key, one running instance.

    `chain` is DER, leaf first, without the anchor. `signature_private` and `signature_public` are raw as in MLS (an Ed25519
    seed and key of 32 bytes; a P-256 scalar of 32 and point of 65). Times are ms since 1970, inclusive, of the leaf alone.
    """

    uri: str
    chain: tuple[bytes, ...] = field(repr=False)
    signature_private: bytes = field(repr=False)
    signature_public: bytes
    scheme: str
    not_before: int
    not_after: int

    @property
    def suites(self) -> tuple[int, ...]:
        """The cipher suites that its key fits."""
        return SUITES[self.scheme]

    @property
    def key_hash(self) -> bytes:
        """SHA-256 of the leaf's SubjectPublicKeyInfo (32 bytes)."""
        return read_certificate(self.chain[0]).key_hash

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise UsageError("an identity holds a private key and is not pickled or copied")


def of(chain: Iterable[bytes], key: ca.PrivateKey) -> Identity:
    """The identity of a chain (DER, leaf first, without the anchor) and its leaf's private key.

    Raises PeerError where the chain has not the form of the profile, UsageError where the key is not the leaf's.
    """
    held = profile.read_chain(tuple(chain))
    public = keys.raw_public(key.public_key())
    if public != held.leaf.public_key:
        raise UsageError("the private key is not that of the certificate", identity=held.uri)
    return Identity(
        uri=held.uri,
        chain=tuple(certificate.encoding for certificate in held.certificates),
        signature_private=keys.raw_private(key),
        signature_public=public,
        scheme=held.leaf.scheme,
        not_before=held.leaf.not_before,
        not_after=held.leaf.not_after,
    )


def load(certificate_path: str | Path, key_path: str | Path, anchors: Iterable[Anchor] = ()) -> Identity:
    """Read an identity from a PEM file of its chain and a PEM file of its private key.

    Of the chain, what stands from a known anchor or a self-issued certificate on is left out: anchors are not sent.
    Raises UsageError (file unreadable, key not the leaf's), PeerError (a chain that cannot count).
    """
    path = Path(certificate_path)
    try:
        chain = pem.certificates(path.read_bytes())
    except OSError as error:
        raise UsageError(f"the certificate cannot be read: {error.strerror}", path=str(path)) from None
    except PeerError as error:
        raise UsageError(f"{error.what}", path=str(path)) from None
    return of(without_anchor(chain, anchors), keys.read(Path(key_path)))


def without_anchor(chain: tuple[bytes, ...], anchors: Iterable[Anchor] = ()) -> tuple[bytes, ...]:
    """The chain up to the first certificate behind the leaf that is an anchor or names itself as its issuer."""
    known = {anchor.certificate for anchor in anchors}
    for depth, der in enumerate(chain):
        if depth and (der in known or read_certificate(der).self_issued):
            return chain[:depth]
    return chain


def generate(
    authority: ca.Authority, identity: str, *, now_ms: int, scheme: str = "ed25519", days: int = 90
) -> tuple[Identity, ca.PrivateKey]:
    """A new key ("ed25519" or "p256") and its certificate by `authority`; `keys.write` keeps the key."""
    if scheme not in keys.SCHEMES:
        raise UsageError("the key of an identity is ed25519 or p256", scheme=scheme)
    key = keys.generate(scheme)
    return of((ca.issue(authority, identity, key.public_key(), now_ms=now_ms, days=days),), key), key
