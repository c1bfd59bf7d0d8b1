"""Private keys as published vectors hold them: a P-521 (or other NIST) scalar there may lack its leading zero bytes."""

from __future__ import annotations

from broker_crypto.crypto import Suite


def signature_private(suite: Suite, text: str) -> bytes:
    """A signature private key of the full length that the suite calls for, from hex."""
    return _padded(suite, bytes.fromhex(text))


def hpke_private(suite: Suite, text: str) -> bytes:
    """An HPKE private key of the full length that the suite calls for, from hex."""
    return _padded(suite, bytes.fromhex(text))


def _padded(suite: Suite, key: bytes) -> bytes:
    # Only the NIST suites count a private key as a big-endian number; their signature and HPKE keys are of one curve.
    return key.rjust(suite.kem.group.private_size, b"\x00") if suite.number in (2, 5, 7) else key
