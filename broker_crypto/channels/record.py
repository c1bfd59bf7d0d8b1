"""The topic record on the wire: Avro single-object encoding of `TopicRecord`, written and read by hand.

Only the canonical encoding is read: minimal varints, values in range, nothing behind the end. Three parts, since a reader
knows most prefixes already: `prefix` (marker, epoch, epoch_id, leaf, stream: the same for all records of one sealing
object), the rest of the header (sequence, place hint, flags), then ciphertext, batch and signature.
"""

from __future__ import annotations

from typing import NamedTuple

from broker_crypto.errors import MalformedRecord, NotEncrypted, UnsupportedRecord
from broker_crypto.limits import MAX_BATCH, MAX_LEAF, MAX_SEQUENCE, MAX_TOPIC_RECORD

MAGIC = b"\xc3\x01"
FINGERPRINT = bytes.fromhex("28071d7b7735b6ba")  # CRC-64-AVRO of the schema's canonical form, little-endian
MARKER = MAGIC + FINGERPRINT
COMPRESSED, PADDED, HEADERS = 1, 2, 4
KNOWN_FLAGS = COMPRESSED | PADDED | HEADERS
TAG_BYTES = 16  # AEAD tag of every suite: no ciphertext is shorter

# Length of batch_path as it stands in the record, to the number of hashes; one byte for none and one, two for the others.
_PATH_LENGTHS = {b"\x80\x01": 2, b"\xc0\x01": 3, b"\x80\x02": 4, b"\xc0\x02": 5, b"\x80\x03": 6}


_FLAGS = [bytes((flags << 1,)) for flags in range(KNOWN_FLAGS + 1)]
_INDEXES = [bytes((index << 1,)) for index in range(MAX_BATCH)]


class Prefix(NamedTuple):
    """What all records of one sealing object in one epoch share. `end` is the length of its encoding."""

    epoch: int
    epoch_id: bytes
    leaf: int
    stream: bytes
    end: int


class Rest(NamedTuple):
    """The fields behind the prefix. `header` are the bytes from the marker up to and including the flags."""

    sequence: int
    place: bytes
    flags: int
    header: bytes
    ciphertext: bytes
    batch_index: int
    batch_path: bytes
    signature: bytes


def long(value: int) -> bytes:
    """An Avro int or long, `value` not negative: zigzag, then seven bits a byte, the low ones first."""
    value <<= 1
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:  # lengths and young sequences: no loop
        return bytes((value & 0x7F | 0x80, value >> 7))
    if value < 0x200000:
        return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_long(data: bytes, offset: int) -> tuple[int, int]:
    """(value, offset behind it) of an Avro long. Raises MalformedRecord unless minimal and within 64 bits; IndexError where cut."""
    octet = data[offset]
    value, shift = octet & 0x7F, 7
    while octet >= 0x80:
        offset += 1
        octet = data[offset]
        value |= (octet & 0x7F) << shift
        shift += 7
        if shift > 70:
            raise MalformedRecord("a varint is too long")
    if (shift > 7 and not octet) or value >> 64:
        raise MalformedRecord("a varint is not minimal or beyond 64 bits")
    return (value >> 1) ^ -(value & 1), offset + 1


def write_prefix(epoch: int, epoch_id: bytes, leaf: int, stream: bytes) -> bytes:
    """The bytes from the marker up to and including `stream` (16 bytes, as `epoch_id`)."""
    return b"".join((MARKER, long(epoch), epoch_id, long(leaf), stream))


def write_header(prefix: bytes, sequence: int, place: bytes, flags: int) -> bytes:
    """The bytes from the marker up to and including `flags`. `place` is 4 bytes; `flags` 0..7."""
    return b"".join((prefix, long(sequence), place, _FLAGS[flags]))


def write_batch(sealed: list[tuple[bytes, bytes]], paths: list[bytes], signature: bytes) -> list[bytes]:
    """The records of one batch, from (header, ciphertext), batch_path and their signature; the position is the index."""
    ending = long(len(paths[0])), long(len(signature)) + signature
    return [
        b"".join((header, long(len(ciphertext)), ciphertext, _INDEXES[index], ending[0], path, ending[1]))
        for index, ((header, ciphertext), path) in enumerate(zip(sealed, paths, strict=True))
    ]


def check_marker(data: bytes) -> None:
    """Raises NotEncrypted for what is no single-object encoding, UnsupportedRecord for another schema's or a cut one."""
    if data[:2] != MAGIC:
        raise NotEncrypted
    if data[:10] != MARKER:
        raise UnsupportedRecord("the fingerprint is not that of a schema known here")


def read_prefix(data: bytes) -> Prefix:
    """Decode up to and including the stream. Raises as `check_marker`, MalformedRecord; IndexError where cut."""
    check_marker(data)
    epoch, at = read_long(data, 10)
    leaf, end = read_long(data, at + 16)
    if epoch < 0 or not 0 <= leaf <= MAX_LEAF:
        raise MalformedRecord("epoch or leaf out of range")
    return Prefix(epoch, data[at : at + 16], leaf, data[end : end + 16], end + 16)


def read_rest(data: bytes, at: int) -> Rest:  # tidy: the hot path, one pass without a call for each field
    """Decode what stands behind a prefix that ends at `at`. Raises MalformedRecord, UnsupportedRecord; IndexError where cut."""
    octet = data[at]
    if octet & 0x81:
        sequence, at = read_long(data, at)
        if not 0 <= sequence <= MAX_SEQUENCE:
            raise MalformedRecord("sequence out of range")
    else:
        sequence = octet >> 1
        at += 1
    end = at + 4
    place = data[at:end]
    octet = data[end]
    if octet & 0x81 or octet > KNOWN_FLAGS << 1:
        flags, end = read_long(data, end)
        if not -(2**31) <= flags < 2**31:
            raise MalformedRecord("flags out of range")
    else:
        flags = octet >> 1
        end += 1
    header = data[:end]
    size, at = read_long(data, end)
    if size < TAG_BYTES:
        raise MalformedRecord("a ciphertext shorter than its tag")
    end = at + size
    ciphertext = data[at:end]
    octet = data[end]
    at = end + 1
    length = data[at]
    if length == 0:
        hashes, at = 0, at + 1
    elif length == 0x40:
        hashes, at = 1, at + 1
    else:
        hashes = _PATH_LENGTHS.get(data[at : at + 2], 0)
        at += 2
    if octet & 0x81 or octet >> 1 >= 1 << hashes or (length and not hashes):
        raise MalformedRecord("batch_path is no path of 0 to 6 hashes, or batch_index does not fit it")
    end = at + 32 * hashes
    path = data[at:end]
    size, at = read_long(data, end)
    if size < 1 or at + size != len(data) or len(data) > MAX_TOPIC_RECORD:  # nothing that large ends well
        raise MalformedRecord("the signature is empty or does not end with the record")
    if flags & ~KNOWN_FLAGS:
        raise UnsupportedRecord("a flag that this version does not know", flags=flags)
    return tuple.__new__(Rest, (sequence, place, flags, header, ciphertext, octet >> 1, path, data[at:]))


def read_record(data: bytes) -> tuple[Prefix, Rest]:
    """Decode a whole record, as it is inspected without keys. Raises NotEncrypted, UnsupportedRecord, MalformedRecord."""
    try:
        prefix = read_prefix(data)
        return prefix, read_rest(data, prefix.end)
    except IndexError:
        raise MalformedRecord("the bytes end too early") from None
