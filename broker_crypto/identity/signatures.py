"""Signatures of certificates: which key makes which, verified by the one verifier of each kind."""

from __future__ import annotations

from typing import Final

from broker_crypto.crypto.dh import P256, P384
from broker_crypto.crypto.signatures import verify_ecdsa, verify_ed25519

_CURVES: Final = {"p256": P256, "p384": P384}
_DIGESTS: Final = {"ecdsa-sha256": "sha256", "ecdsa-sha384": "sha384"}


def verify(scheme: str, public_key: bytes, algorithm: str, *, message: bytes, signature: bytes) -> bool:
    """True if `signature` holds; `scheme` and `algorithm` as in Certificate. An algorithm that the key does not have: False.

    Either hash may stand on either curve. Of an ECDSA signature (r, s) there is a second, (r, n - s): both hold, as CAs make both.
    """
    if scheme == "ed25519" and algorithm == "ed25519":
        return verify_ed25519(public_key, message, signature)
    if scheme in _CURVES and algorithm in _DIGESTS:
        return verify_ecdsa(_CURVES[scheme], public_key, message, signature, digest=_DIGESTS[algorithm])
    return False
