"""The key in an X.509 credential: the one thing that MLS itself demands of a certificate (RFC 9420 section 5.3).

Only the way to the SubjectPublicKeyInfo is read here, in DER (RFC 5280 section 4.1). Whether the certificate is worth
anything is for the application to say, which reads all of it.
"""

from __future__ import annotations

from broker_crypto.errors import MalformedInput

_SEQUENCE, _VERSION = 0x30, 0xA0
_BEFORE_KEY = 5  # serialNumber, signature, issuer, validity, subject


def _element(data: bytes, start: int, end: int) -> tuple[int, int]:
    """(first byte of the content, one behind the last) of the DER element at `start`. Raises MalformedInput."""
    if end - start < 2:
        raise MalformedInput("a certificate ends too early")
    length, content = data[start + 1], start + 2
    if length >= 0x80:
        octets = length & 0x7F
        length = int.from_bytes(data[content : content + octets], "big")
        content += octets
        if not 1 <= octets <= 3 or length < 0x80 or length.bit_length() <= 8 * (octets - 1):
            raise MalformedInput("a length in a certificate is not DER")
    if length > end - content:
        raise MalformedInput("a certificate ends too early")
    return content, content + length


def subject_public_key_info(certificate: bytes) -> bytes:
    """The subjectPublicKeyInfo of a certificate, as it is encoded. Raises MalformedInput where no way leads to it."""
    if not certificate.startswith(bytes((_SEQUENCE,))):
        raise MalformedInput("a certificate is no sequence")
    start, end = _element(certificate, 0, len(certificate))
    if end != len(certificate):
        raise MalformedInput("bytes behind a certificate")
    place, end = _element(certificate, start, end)
    if certificate[place : place + 1] == bytes((_VERSION,)):
        _, place = _element(certificate, place, end)
    for _ in range(_BEFORE_KEY):
        _, place = _element(certificate, place, end)
    _, behind = _element(certificate, place, end)
    return certificate[place:behind]
