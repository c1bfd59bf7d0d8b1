"""Avro single-object encoding, canonical: C3 01, the CRC-64-AVRO fingerprint of the schema (little-endian), the body.

Avro can be written in more ways than one (longer varints, blocks of arrays, negative indexes), and a library that reads
it takes bytes that nobody should write. What is accepted here:

1. at most `max_size` bytes, looked at before anything else;
2. the fingerprint of the schema;
3. a value whose every part fits its type (an int has 32 bits, a field is there, no other is);
4. nothing behind it;
5. the bytes that encoding the value gives again, and no others.

A schema that could make a few bytes cost much memory or stack is no schema for this codec: no type may contain itself,
and no array may have items of no bytes. Nor is one with floats, maps or logical types.
"""

from __future__ import annotations

import io
from typing import Any, TypeAlias

from fastavro import parse_schema, schemaless_reader, schemaless_writer, validate
from fastavro.schema import fingerprint, to_parsing_canonical_form

from broker_crypto.errors import MalformedInput, UsageError

Schema: TypeAlias = "dict[str, Any] | list[Any] | str"

MARKER = b"\xc3\x01"
MARKER_BYTES = 10  # with the fingerprint


class Codec:
    """Encodes and decodes values of one schema. `max_size` in bytes bounds what is decoded and what is encoded."""

    __slots__ = ("_parsed", "fingerprint", "marker", "max_size", "schema")

    def __init__(self, schema: Schema, *, max_size: int) -> None:
        _smallest(schema, "", {}, ())
        self.schema = schema
        self.max_size = max_size
        self._parsed = parse_schema(schema)
        self.fingerprint = bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))  # little-endian hex
        self.marker = MARKER + self.fingerprint

    def encode(self, value: Any) -> bytes:
        """Marker, fingerprint and body. Raises UsageError for a value that does not fit the schema or `max_size`."""
        return self._write(value, self.marker)

    def decode(self, data: bytes) -> Any:
        """The value. Raises MalformedInput for anything but what `encode` gives."""
        self._check_size(data)
        if data[:MARKER_BYTES] != self.marker:
            raise MalformedInput("another marker or fingerprint", expected=self.fingerprint.hex())
        return self._read(data, MARKER_BYTES)

    def encode_body(self, value: Any) -> bytes:
        """The body alone. Raises UsageError as `encode`."""
        return self._write(value, b"")

    def decode_body(self, data: bytes) -> Any:
        """The value of a body. Raises MalformedInput for anything but what `encode_body` gives."""
        self._check_size(data)
        return self._read(data, 0)

    def _check_size(self, data: bytes) -> None:
        if len(data) > self.max_size:
            raise MalformedInput("an Avro value is too large", size=len(data), limit=self.max_size)

    def _write(self, value: Any, head: bytes) -> bytes:
        stream = io.BytesIO()
        stream.write(head)
        try:
            fits = validate(value, self._parsed, raise_errors=False, strict=True)
            if fits:
                schemaless_writer(stream, self._parsed, value, strict=True)
        except Exception as error:  # the library raises many kinds, and some name the value
            raise UsageError("a value does not fit its Avro schema", cause=type(error).__name__) from None
        if not fits:
            raise UsageError("a value does not fit its Avro schema")
        data = stream.getvalue()
        if len(data) > self.max_size:
            raise UsageError("an Avro value is too large", size=len(data), limit=self.max_size)
        return data

    def _read(self, data: bytes, offset: int) -> Any:
        stream = io.BytesIO(data)
        stream.seek(offset)
        try:
            value = schemaless_reader(stream, self._parsed, None)
        except Exception as error:  # EOFError, ValueError, IndexError, OverflowError, UnicodeDecodeError, ...
            raise MalformedInput("no Avro value of this schema", cause=type(error).__name__) from None
        if stream.tell() != len(data):
            raise MalformedInput("bytes behind an Avro value", left=len(data) - stream.tell())
        try:
            same = self._write(value, data[:offset]) == data
        except UsageError:
            same = False
        if not same:
            raise MalformedInput("an Avro value in another than its canonical form")
        return value


def _smallest(schema: Schema, namespace: str, known: dict[str, int], inside: tuple[str, ...]) -> int:
    """The fewest bytes that a value takes. Raises UsageError for a schema that this codec refuses."""
    if isinstance(schema, list):
        return 1 + min(_smallest(branch, namespace, known, inside) for branch in schema)
    if isinstance(schema, str):
        return _smallest_named(schema, namespace, known, inside)
    kind = schema["type"]
    if "logicalType" in schema:
        raise UsageError("an Avro logical type, which the fingerprint does not cover", name=schema["logicalType"])
    if kind == "array":
        if _smallest(schema["items"], namespace, known, inside) == 0:
            raise UsageError("an Avro array of items that take no bytes")
        return 1
    if kind not in ("record", "fixed", "enum"):
        return _smallest(kind, namespace, known, inside)
    namespace = schema.get("namespace", namespace)
    name = f"{namespace}.{schema['name']}"
    if kind == "record":
        inner = (*inside, name)
        known[name] = sum(_smallest(field["type"], namespace, known, inner) for field in schema["fields"])
    else:
        known[name] = int(schema["size"]) if kind == "fixed" else 1
    return known[name]


_PRIMITIVES = {"null": 0, "boolean": 1, "int": 1, "long": 1, "bytes": 1, "string": 1}


def _smallest_named(name: str, namespace: str, known: dict[str, int], inside: tuple[str, ...]) -> int:
    if name in _PRIMITIVES:
        return _PRIMITIVES[name]
    full = name if "." in name else f"{namespace}.{name}"
    if full in inside:
        raise UsageError("an Avro type that contains itself", name=full)
    if full not in known:
        raise UsageError("an Avro type that this codec does not take", name=full)
    return known[full]
