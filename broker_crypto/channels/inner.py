"""What is inside the AEAD: sealed headers before the payload, padding behind it (docs/topics.md, Inside).

    plaintext = pad(headers || payload), each only where its flag is set; without flags it is the payload as it is.

Compression (flag 1), between the two, is not built: nothing is written with it, and a record that comes with it is
`UnsupportedRecord`, after every check that does not need its content.
"""

from __future__ import annotations

from collections.abc import Sequence

from broker_crypto.channels.record import COMPRESSED, HEADERS, PADDED, long, read_long
from broker_crypto.errors import MalformedRecord, UnsupportedRecord, UsageError
from broker_crypto.limits import MAX_RECORD
from broker_crypto.records import Header


def wrap(payload: bytes, headers: Sequence[Header] | None, padding: int) -> tuple[int, bytes]:
    """(flags, plaintext). `headers` None: none are sealed. `padding`: the step in bytes, 0 for none.

    Raises UsageError for headers and payload beyond 16 MiB.
    """
    flags = 0
    if headers is not None:
        flags = HEADERS
        written = write_headers(headers)
        payload = b"".join((len(written).to_bytes(4, "big"), written, payload))
    if len(payload) > MAX_RECORD:
        raise UsageError("headers and payload are more than a record may hold", size=len(payload), limit=MAX_RECORD)
    if padding:
        flags |= PADDED
        payload = payload + b"\x80" + bytes(-(len(payload) + 1) % padding)
    return flags, payload


def unwrap(flags: int, plaintext: bytes) -> tuple[list[Header] | None, bytes]:
    """(headers, or None where none were sealed; payload). Raises MalformedRecord; UnsupportedRecord for a compressed one."""
    if flags & PADDED:
        plaintext = _unpad(plaintext)
    if flags & COMPRESSED:
        raise UnsupportedRecord("the record is compressed, which this version does not read")
    if len(plaintext) > MAX_RECORD:
        raise MalformedRecord("headers and payload are more than a record may hold", size=len(plaintext), limit=MAX_RECORD)
    if not flags & HEADERS:
        return None, plaintext
    size = int.from_bytes(plaintext[:4], "big")
    end = 4 + size
    if len(plaintext) < max(end, 4):
        raise MalformedRecord("the sealed headers end too early")
    return read_headers(plaintext[4:end]), plaintext[end:]


def _unpad(plaintext: bytes) -> bytes:
    kept = plaintext.rstrip(b"\x00")
    if not kept.endswith(b"\x80"):
        raise MalformedRecord("the padding is not 80 and zeros")
    return kept[:-1]


def write_headers(headers: Sequence[Header]) -> bytes:
    """Avro `array<Header>` in one block; order and duplicates stay. Raises UsageError for a name that is no text."""
    if not headers:
        return b"\x00"
    parts = [long(len(headers))]
    for name, value in headers:
        try:
            octets = name.encode()
        except UnicodeEncodeError:
            raise UsageError("a header name is not valid text") from None
        parts += (long(len(octets)), octets)
        parts += (b"\x00",) if value is None else (b"\x02", long(len(value)), value)
    parts.append(b"\x00")
    return b"".join(parts)


def read_headers(data: bytes) -> list[Header]:
    """Decode what `write_headers` gives, and nothing else. Raises MalformedRecord."""
    try:
        count, at = read_long(data, 0)
        headers: list[Header] = []
        if count < 0 or count > len(data):
            raise MalformedRecord("a header block with a count that cannot be")
        for _ in range(count):
            octets, at = _read_bytes(data, at)
            branch = data[at]
            if branch not in (0, 2):
                raise MalformedRecord("a header value of an unknown type")
            value, at = _read_bytes(data, at + 1) if branch else (None, at + 1)
            headers.append((octets.decode(), value))
        if count and data[at] != 0:
            raise MalformedRecord("more than one block of headers")
    except IndexError:
        raise MalformedRecord("the sealed headers end too early") from None
    except UnicodeDecodeError:
        raise MalformedRecord("a header name is not UTF-8") from None
    if at + bool(count) != len(data):
        raise MalformedRecord("bytes behind the sealed headers")
    return headers


def _read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = read_long(data, at)
    end = at + size
    if size < 0 or end > len(data):
        raise MalformedRecord("a sealed header ends too early")
    return data[at:end], end
