"""PEM of certificates (RFC 7468): text in, DER out. What stands outside the blocks is passed over."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from broker_crypto.errors import MalformedInput

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n(.*?)-----END ([A-Z0-9 ]+)-----", re.DOTALL)


def certificates(data: bytes) -> tuple[bytes, ...]:
    """The certificates of a PEM file in its order, DER.

    Raises MalformedInput for a block of anything else (a private key does not belong beside them), broken base64, or none.
    """
    found = tuple(_certificate(*match.groups()) for match in _BLOCK.finditer(data))
    if not found:
        raise MalformedInput("PEM: no certificate")
    return found


def _certificate(label: bytes, body: bytes, end: bytes) -> bytes:
    if label != b"CERTIFICATE" or end != label:
        raise MalformedInput(f"PEM: a block that is no certificate: {label.decode('ascii')}")
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error:
        raise MalformedInput("PEM: broken base64") from None


def write_certificates(chain: tuple[bytes, ...]) -> bytes:
    """The PEM file of these certificates (DER), in their order."""
    return b"".join(_write(b"CERTIFICATE", der) for der in chain)


def _write(label: bytes, der: bytes) -> bytes:
    text = base64.b64encode(der)
    lines = (text[at : at + 64] for at in range(0, len(text), 64))
    return b"-----BEGIN " + label + b"-----\n" + b"\n".join(lines) + b"\n-----END " + label + b"-----\n"
