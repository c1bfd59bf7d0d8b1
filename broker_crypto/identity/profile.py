"""When a chain of certificates counts: our closed profile. Every member judges alike, so the verdict is a function of the
chain, the anchors, the time and the revoked keys alone: no clock, no setting, no library's opinion.

The form of each certificate is checked by `certificate`; then, by the name that the error carries:

 1. `chain.length`       1 .. CHAIN_MAX certificates, leaf first
 2. `chain.anchor`       none is self-issued: the anchor is known, it is not sent
 3. `leaf.key`           Ed25519 or P-256
 4. `leaf.not_ca`        basicConstraints absent or empty; neither keyCertSign nor cRLSign
 5. `leaf.key_usage`     digitalSignature
 6. `leaf.alt_name`      exactly one name, a URI
 7. `leaf.identity`      it is a canonical identity (wire/names.py)
 8. `ca.basic_constraints`  critical, a CA
 9. `ca.key_usage`       keyCertSign
10. `ca.path_len`        at least as many as CA certificates stand between it and the leaf
11. `chain.issuer`       each one's issuer is the next one's subject, byte for byte
12. `chain.signature`    each is signed by the next one's key
13. `chain.validity`     all within validity at the time
14. `chain.revoked`      no key of it is revoked
15. `anchor.issuer`, `anchor.signature`, `anchor.identity`  the last is issued by an anchor, which keeps rules 8-10, 13, 14, and
    the identity lies under one of that anchor's prefixes. One anchor for which all this holds is enough.

Rules 1-7 are judged by `read_chain`, the others by `check_chain`. Self-issued certificates count as any other in rule 10.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from broker_crypto.errors import PeerError
from broker_crypto.identity.certificate import CRL_SIGN, DIGITAL_SIGNATURE, KEY_CERT_SIGN, Certificate, read_certificate, refuse
from broker_crypto.identity.signatures import verify
from broker_crypto.limits import CHAIN_MAX
from broker_crypto.records import Anchor
from broker_crypto.wire import names

_URI = 0x86  # uniformResourceIdentifier [6] IA5String


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain whose form is right: the leaf, the CA certificates above it (without the anchor), the leaf's identity."""

    leaf: Certificate
    issuers: tuple[Certificate, ...]
    uri: str

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """All of them, leaf first."""
        return (self.leaf, *self.issuers)

    @property
    def not_after(self) -> int:
        """The last ms at which all of them are valid."""
        return min(certificate.not_after for certificate in self.certificates)


def read_chain(chain: Sequence[bytes]) -> Chain:
    """Read a chain (DER, leaf first, without the anchor) and check its form. Raises PeerError with `rule`."""
    if not 1 <= len(chain) <= CHAIN_MAX:
        raise refuse("chain.length", f"a chain of {len(chain)} certificates; 1 to {CHAIN_MAX} are allowed")
    return _read(tuple(bytes(der) for der in chain))


@lru_cache(maxsize=1024)
def _read(chain: tuple[bytes, ...]) -> Chain:
    leaf, *issuers = (read_certificate(der) for der in chain)
    if any(certificate.self_issued for certificate in (leaf, *issuers)):
        raise refuse("chain.anchor", "a self-issued certificate in the chain; the anchor is not sent")
    return Chain(leaf, tuple(issuers), _identity(leaf))


def _identity(leaf: Certificate) -> str:
    if leaf.scheme not in ("ed25519", "p256"):
        raise refuse("leaf.key", "a leaf key that is not Ed25519 or P-256")
    usage = leaf.key_usage or frozenset()
    if (leaf.basic_constraints is not None and leaf.basic_constraints.ca) or usage & {KEY_CERT_SIGN, CRL_SIGN}:
        raise refuse("leaf.not_ca", "a CA certificate where the leaf belongs")
    if DIGITAL_SIGNATURE not in usage:
        raise refuse("leaf.key_usage", "keyUsage of the leaf lacks digitalSignature")
    alt_names = leaf.alt_names or ()
    if len(alt_names) != 1 or alt_names[0][0] != _URI:
        raise refuse("leaf.alt_name", "subjectAltName of the leaf must be exactly one URI")
    uri = alt_names[0][1].decode("latin-1")
    if not names.is_identity(uri):
        raise refuse("leaf.identity", "the URI is not a canonical identity")
    return uri


def check_chain(chain: Chain | Sequence[bytes], anchors: Iterable[Anchor], time_ms: int | None, revoked: Collection[bytes] = ()) -> str:
    """The identity for which the chain counts at `time_ms` (ms since 1970; None leaves validity aside).

    `revoked` holds SHA-256 of SubjectPublicKeyInfo, 32 bytes each. Raises PeerError, whose `rule` names the first one broken.
    """
    held = chain if isinstance(chain, Chain) else read_chain(chain)
    for depth, issuer in enumerate(held.issuers):
        _check_ca(issuer, depth)
    for subject, issuer in zip(held.certificates, held.issuers, strict=False):
        _check_issued(subject, issuer, "chain")
    for certificate in held.certificates:
        _check_current(certificate, time_ms, revoked)
    _check_anchored(held, anchors, time_ms, revoked)
    return held.uri


def issuer_keys(chain: Chain, anchors: Iterable[Anchor]) -> tuple[bytes, ...]:
    """SHA-256 of each SubjectPublicKeyInfo that vouches for the leaf: its issuers', and of each anchor that issued the last of them.

    Nothing else is judged: an anchor may be revoked, over, or not speak for the identity.
    """
    return tuple(issuer.key_hash for issuer in chain.issuers) + tuple(
        dict.fromkeys(key for anchor in anchors if (key := _anchor_key(chain, anchor.certificate)) is not None)
    )


def _anchor_key(chain: Chain, anchor: bytes) -> bytes | None:
    try:
        certificate = read_anchor(anchor)
        _check_issued(chain.certificates[-1], certificate, "anchor")
    except PeerError:
        return None
    return certificate.key_hash


def read_anchor(der: bytes) -> Certificate:
    """Read a trust anchor. Raises PeerError if its form or rules 8, 9 do not hold."""
    anchor = read_certificate(bytes(der))
    _check_ca(anchor, 0)
    return anchor


def _check_ca(issuer: Certificate, below: int) -> None:
    """Rules 8-10; `below` CA certificates stand between it and the leaf."""
    constraints = issuer.basic_constraints
    if constraints is None or not constraints.critical or not constraints.ca:
        raise refuse("ca.basic_constraints", "an issuer without critical basicConstraints that make it a CA")
    if issuer.key_usage is None or KEY_CERT_SIGN not in issuer.key_usage:
        raise refuse("ca.key_usage", "keyUsage of an issuer lacks keyCertSign")
    if constraints.path_len is not None and constraints.path_len < below:
        raise refuse("ca.path_len", "more CA certificates below an issuer than its pathLen allows")


def _check_issued(subject: Certificate, issuer: Certificate, where: str) -> None:
    """Rules 11, 12."""
    if subject.issuer != issuer.subject:
        raise refuse(f"{where}.issuer", "the issuer's name is not the subject of the certificate above")
    if not _signed(subject.encoding, issuer.scheme, issuer.public_key):
        raise refuse(f"{where}.signature", "the signature is not by the key of the certificate above")


@lru_cache(maxsize=2048)
def _signed(subject: bytes, scheme: str, public_key: bytes) -> bool:
    certificate = read_certificate(subject)
    return verify(scheme, public_key, certificate.algorithm, message=certificate.signed, signature=certificate.signature)


def _check_current(certificate: Certificate, time_ms: int | None, revoked: Collection[bytes]) -> None:
    """Rules 13, 14."""
    if time_ms is not None and not certificate.not_before <= time_ms <= certificate.not_after:
        raise refuse("chain.validity", "not valid at this time")
    if revoked and certificate.key_hash in revoked:
        raise refuse("chain.revoked", "its key is revoked")


def _check_anchored(chain: Chain, anchors: Iterable[Anchor], time_ms: int | None, revoked: Collection[bytes]) -> None:
    """Rule 15: any one anchor will do; the error is that of the anchor that came furthest."""
    best = refuse("anchor.issuer", "no anchor issued it")
    for anchor in anchors:
        try:
            _check_anchor(chain, anchor, time_ms, revoked)
        except PeerError as error:
            best = error if error.fields["rule"] != "anchor.issuer" else best
        else:
            return
    raise best


def _check_anchor(chain: Chain, anchor: Anchor, time_ms: int | None, revoked: Collection[bytes]) -> None:
    certificate = read_anchor(anchor.certificate)
    _check_issued(chain.certificates[-1], certificate, "anchor")
    _check_ca(certificate, len(chain.issuers))
    _check_current(certificate, time_ms, revoked)
    if not any(names.lies_under(chain.uri, prefix) for prefix in anchor.identities):
        raise refuse("anchor.identity", "the anchor does not speak for this identity")
