"""Private keys as vectors hold them: NIST scalars may lack leading zero bytes, Edwards keys may bring their public half along."""

from __future__ import annotations

from broker_crypto.crypto import Suite

_NIST = (2, 5, 7)  # a private key is a big-endian number here; signature and HPKE keys are of one curve
_SEED = {1: 32, 3: 32, 4: 57, 6: 57}


def signature_private(suite: Suite, text: str) -> bytes:
    """A signature private key in the form that the suite calls for, from hex."""
    key = bytes.fromhex(text)
    if suite.number in _NIST:
        return _scalar(suite, key)
    seed = _SEED[suite.number]
    return key[:seed] if len(key) == 2 * seed else key


def hpke_private(suite: Suite, text: str) -> bytes:
    """An HPKE private key in the form that the suite calls for, from hex."""
    key = bytes.fromhex(text)
    return _scalar(suite, key) if suite.number in _NIST else key


def _scalar(suite: Suite, key: bytes) -> bytes:
    return key.lstrip(b"\x00").rjust(suite.kem.group.private_size, b"\x00")
