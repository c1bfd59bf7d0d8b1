"""A strict reader of DER, as much of it as certificates need (ITU-T X.690).

1. Tags of one byte only. 2. Lengths definite and in the fewest bytes (10.1). 3. Nothing behind the last element.
4. INTEGER in the fewest bytes (8.3.2). 5. BOOLEAN is FF where it is there at all (11.1, 11.5). 6. BIT STRING of whole bytes
has no unused bits, a list of named bits no trailing zero (11.2.2). 7. OBJECT IDENTIFIER in the fewest bytes (8.19.2).
8. Times end in Z, have seconds and no fraction (11.7, 11.8).

Everything else is PeerError, whose `rule` begins with "der.": no other exception leaves this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from broker_crypto.errors import PeerError

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OBJECT_IDENTIFIER: Final = 0x06
UTF8_STRING: Final = 0x0C
PRINTABLE_STRING: Final = 0x13
IA5_STRING: Final = 0x16
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31

_OID_MAX: Final = 64  # bytes of an encoded OBJECT IDENTIFIER; those in use have at most 12
_PRINTABLE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 '()+,-./:=?")


def refuse(rule: str, what: str) -> PeerError:
    """The error to raise for a broken rule."""
    return PeerError(f"DER: {what}", rule=f"der.{rule}")


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its tag byte, its content, and all of it as encoded."""

    tag: int
    content: bytes
    encoding: bytes


class Reader:
    """Reads the elements of one buffer front to back."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        """True while an element is left."""
        return self._at < len(self._data)

    def peek(self) -> int | None:
        """The next tag byte, None at the end."""
        return self._data[self._at] if self.more else None

    def next(self) -> Element:
        """The next element. Raises PeerError (rules 1, 2)."""
        data, start = self._data, self._at
        if start >= len(data):
            raise refuse("end", "an element is missing")
        tag = data[start]
        if tag & 0x1F == 0x1F:
            raise refuse("tag", "a tag of more than one byte")
        content = self._length(start + 1)
        begin, end = content
        if end > len(data):
            raise refuse("end", "an element is cut")
        self._at = end
        return Element(tag, data[begin:end], data[start:end])

    def _length(self, at: int) -> tuple[int, int]:
        data = self._data
        if at >= len(data):
            raise refuse("end", "a length is missing")
        first = data[at]
        if first < 0x80:
            return at + 1, at + 1 + first
        count = first & 0x7F
        begin = at + 1 + count
        if count == 0 or count > 4 or begin > len(data):
            raise refuse("length", "an indefinite, cut or huge length")
        length = int.from_bytes(data[at + 1 : begin], "big")
        if length < 0x80 or length >> (8 * (count - 1)) == 0:
            raise refuse("length", "a length in more bytes than needed")
        return begin, begin + length

    def take(self, tag: int) -> Element:
        """The next element, which must have this tag."""
        element = self.next()
        if element.tag != tag:  # tidy: a DER tag says what comes, it authenticates nothing
            raise refuse("tag", f"tag {element.tag:#04x} where {tag:#04x} belongs")
        return element

    def optional(self, tag: int) -> Element | None:
        """The next element if it has this tag, else None and nothing is read."""
        return self.next() if self.peek() == tag else None  # tidy: a DER tag authenticates nothing

    def enter(self, tag: int) -> Reader:
        """A reader of the next element's content, which must have this tag."""
        return Reader(self.take(tag).content)

    def finish(self) -> None:
        """Raises PeerError unless everything was read (rule 3)."""
        if self.more:
            raise refuse("trailing", "bytes behind the last element")


def enter_only(data: bytes, tag: int) -> Reader:
    """A reader of the content of the one element that `data` is."""
    outer = Reader(data)
    inner = outer.enter(tag)
    outer.finish()
    return inner


def integer(content: bytes) -> int:
    """The value of an INTEGER (rule 4)."""
    if not content:
        raise refuse("integer", "an INTEGER without content")
    if len(content) > 1 and ((content[0] == 0 and content[1] < 0x80) or (content[0] == 0xFF and content[1] >= 0x80)):
        raise refuse("integer", "an INTEGER in more bytes than needed")
    return int.from_bytes(content, "big", signed=True)


def true(content: bytes) -> None:
    """Raises PeerError unless a BOOLEAN is TRUE; FALSE is the default of all that we read and is not written (rule 5)."""
    if content != b"\xff":
        raise refuse("boolean", "a BOOLEAN that is not FF")


def bit_string(content: bytes) -> bytes:
    """The bytes of a BIT STRING that holds whole bytes (rule 6)."""
    if not content or content[0] != 0:
        raise refuse("bit_string", "a BIT STRING of bytes with unused bits")
    return content[1:]


def named_bits(content: bytes) -> frozenset[int]:
    """The numbers of the bits set in a BIT STRING with named bits (rule 6)."""
    if not content or content[0] > 7 or len(content) > 3:
        raise refuse("bit_string", "a list of named bits that is cut or too long")
    unused, data = content[0], content[1:]
    if not data:
        if unused:
            raise refuse("bit_string", "unused bits of nothing")
        return frozenset()
    if data[-1] & ((2 << unused) - 1) != 1 << unused:  # the last bit written is 1, those behind it are 0
        raise refuse("bit_string", "a list of named bits that does not end in a one")
    return frozenset(8 * index + bit for index, byte in enumerate(data) for bit in range(8) if byte & (0x80 >> bit))


def object_identifier(content: bytes) -> bytes:
    """The content of an OBJECT IDENTIFIER, checked (rule 7); identifiers are compared in this form."""
    if not content or len(content) > _OID_MAX or content[-1] & 0x80:
        raise refuse("oid", "an OBJECT IDENTIFIER that is empty, cut or huge")
    start = True
    for byte in content:
        if start and byte == 0x80:
            raise refuse("oid", "an OBJECT IDENTIFIER in more bytes than needed")
        start = byte < 0x80
    return content


def text(element: Element) -> str:
    """The text of a UTF8String, PrintableString or IA5String."""
    try:
        if element.tag == UTF8_STRING:
            return element.content.decode("utf-8")
        if element.tag == IA5_STRING or (element.tag == PRINTABLE_STRING and _PRINTABLE.issuperset(element.content)):
            return element.content.decode("ascii")
    except UnicodeDecodeError:
        pass
    raise refuse("string", "text that is no UTF8String, PrintableString or IA5String")


def seconds(element: Element) -> int:
    """A time as seconds since 1970 (rule 8): UTCTime in 1950..2049, GeneralizedTime from 2050 (RFC 5280 section 4.1.2.5)."""
    digits = element.content[:-1]
    if not element.content.endswith(b"Z") or not digits.isdigit():
        raise refuse("time", "a time that is not digits and Z")
    if element.tag == UTC_TIME and len(digits) == 12:
        digits = (b"20" if digits < b"5" else b"19") + digits
    elif element.tag != GENERALIZED_TIME or len(digits) != 14 or digits < b"2050":
        raise refuse("time", "a UTCTime or GeneralizedTime in the wrong form or century")
    return _epoch_seconds(digits.decode("ascii"))


def _epoch_seconds(digits: str) -> int:
    parts = (int(digits[:4]), *(int(digits[at : at + 2]) for at in range(4, 14, 2)))
    year, month, day, hour, minute, second = parts
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        raise refuse("time", "a time that is in no calendar") from None
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
