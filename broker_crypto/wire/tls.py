"""TLS presentation language as MLS and Noise use it: integers, vectors with a variable-size length, optional values.

A length is written in the fewest bytes (RFC 9420 section 2.1.2); a longer one is refused. Structures are decoded by a
`Reader` and must end where their bytes end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from broker_crypto.errors import MalformedInput

T = TypeVar("T")


def u8(value: int) -> bytes:
    """uint8."""
    return value.to_bytes(1, "big")


def u16(value: int) -> bytes:
    """uint16, big-endian."""
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    """uint32, big-endian."""
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    """uint64, big-endian."""
    return value.to_bytes(8, "big")


def length_prefix(n: int) -> bytes:
    """The variable-size length of RFC 9420 section 2.1.2, 0 <= n < 2^30; ValueError beyond."""
    if n < 0x40:
        return bytes((n,))
    if n < 0x4000:
        return (n | 0x4000).to_bytes(2, "big")
    if n < 0x40000000:
        return (n | 0x80000000).to_bytes(4, "big")
    raise ValueError("vector too long")


def opaque(data: bytes) -> bytes:
    """opaque<V>."""
    return length_prefix(len(data)) + data


def vector(items: Iterable[bytes]) -> bytes:
    """T items<V>, each already encoded."""
    return opaque(b"".join(items))


def optional(item: bytes | None) -> bytes:
    """optional<T>, the value already encoded."""
    return b"\x00" if item is None else b"\x01" + item


class Reader:
    """Reads one buffer front to back. Every method raises MalformedInput where the bytes end too early or are not minimal."""

    __slots__ = ("_data", "_end", "_offset")

    def __init__(self, data: bytes, offset: int = 0, end: int | None = None) -> None:
        self._data = data
        self._offset = offset
        self._end = len(data) if end is None else end

    @property
    def offset(self) -> int:
        """Position of the next byte in the buffer."""
        return self._offset

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return self._end - self._offset

    def take(self, n: int) -> bytes:
        """The next `n` bytes."""
        start = self._offset
        if n > self._end - start:
            raise MalformedInput("the bytes end too early", needed=n, left=self._end - start)
        self._offset = start + n
        return self._data[start : start + n]

    def since(self, offset: int) -> bytes:
        """The bytes from `offset` up to here, as they came."""
        return self._data[offset : self._offset]

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "big")

    def length(self) -> int:
        """A variable-size length, minimal."""
        first = self.u8()
        if first < 0x40:
            return first
        prefix = first >> 6
        if prefix == 3:
            raise MalformedInput("a vector length begins with the bits 11")
        more = (1 << prefix) - 1
        n = (first & 0x3F) << 8 * more | int.from_bytes(self.take(more), "big")
        if n < (0x40, 0x4000)[prefix - 1]:
            raise MalformedInput("a vector length is not minimal")
        return n

    def opaque(self) -> bytes:
        """opaque<V>."""
        return self.take(self.length())

    def vector(self, read: Callable[[Reader], T]) -> list[T]:
        """T items<V>, each read by `read`."""
        n = self.length()
        if n > self.left:
            raise MalformedInput("the bytes end too early", needed=n, left=self.left)
        inner = Reader(self._data, self._offset, self._offset + n)
        self._offset += n
        items: list[T] = []
        while inner.left:
            before = inner.offset
            items.append(read(inner))
            if inner.offset == before:
                raise MalformedInput("a vector of empty items")
        return items

    def optional(self, read: Callable[[Reader], T]) -> T | None:
        """optional<T>: 0 or 1 before it, nothing else."""
        present = self.u8()
        if present > 1:
            raise MalformedInput("an optional value that is neither present nor absent", octet=present)
        return read(self) if present else None

    def end(self) -> None:
        """Nothing may follow."""
        if self._offset != self._end:
            raise MalformedInput("bytes behind the end", left=self.left)


def decode(data: bytes, read: Callable[[Reader], T]) -> T:
    """Read one structure that fills `data`."""
    reader = Reader(data)
    value = read(reader)
    reader.end()
    return value
