"""YAML read into a tree that remembers its lines. Our own reading on PyYAML's events, so that nothing is guessed.

1. UTF-8, at most POLICY_MAX bytes, POLICY_DEPTH levels, one document, no directives.
2. No anchors, aliases, tags; no key twice; keys are plain or quoted text.
3. A plain scalar is null (`null`, `~` or nothing), a boolean (`true`, `false`), a whole number, a number, or text: nothing else
   is taken for something that it does not look like (`no`, `012`, `1:30` are text).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)

from broker_crypto.errors import PolicyError
from broker_crypto.limits import POLICY_DEPTH, POLICY_MAX

Scalar: TypeAlias = str | int | float | bool | None
Plain: TypeAlias = "Scalar | list[Plain] | dict[str, Plain]"

_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}")
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_WORDS: Final[dict[str, Scalar]] = {"": None, "~": None, "null": None, "true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in a file; line and column count from 1, 0 where it stands in no file."""

    file: str
    line: int = 0
    column: int = 0

    def error(self, what: str, **fields: object) -> PolicyError:
        """The PolicyError for this place."""
        return PolicyError(what, file=self.file, line=self.line or None, column=self.column or None, **fields)


@dataclass(frozen=True, slots=True)
class Node:
    """One value of the tree. `value` is a scalar, a tuple of nodes, or a mapping of names to (place of the name, node)."""

    value: Scalar | tuple[Node, ...] | Mapping[str, tuple[Place, Node]] = field(repr=False)
    place: Place

    def plain(self) -> Plain:
        """The value without places."""
        if isinstance(self.value, Mapping):
            return {name: node.plain() for name, (_, node) in self.value.items()}
        if isinstance(self.value, tuple):
            return [node.plain() for node in self.value]
        return self.value

    def get(self, name: str) -> Node | None:
        """The node under a name, None where there is none."""
        entry = self.value.get(name) if isinstance(self.value, Mapping) else None
        return None if entry is None else entry[1]

    def find(self, path: Sequence[str | int]) -> Place:
        """The place of what `path` leads to: of the name where the last step is one, else of the nearest thing above."""
        node, place = self, self.place
        for step in path:
            if isinstance(step, str) and isinstance(node.value, Mapping) and step in node.value:
                place, node = node.value[step]
            elif isinstance(step, int) and isinstance(node.value, tuple) and step < len(node.value):
                node = node.value[step]
                place = node.place
            else:
                return place
        return place

    def at(self, path: Sequence[str | int]) -> Node | None:
        """The node that `path` leads to, None where it leads nowhere."""
        node: Node | None = self
        for step in path:
            if node is None:
                return None
            if isinstance(step, str):
                node = node.get(step)
            else:
                node = node.value[step] if isinstance(node.value, tuple) and step < len(node.value) else None
        return node


def read(data: bytes, file: str) -> Node:
    """Read one document. Raises PolicyError with file, line and column."""
    if len(data) > POLICY_MAX:
        raise Place(file).error(f"a policy file has at most {POLICY_MAX} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Place(file, data.count(b"\n", 0, error.start) + 1).error("a policy file is UTF-8") from None
    try:
        return _Composer(yaml.parse(text, Loader=yaml.SafeLoader), file).document()
    except yaml.MarkedYAMLError as error:
        raise _broken(error, text, file) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Place(file, line).error("not YAML: a character that is not allowed") from None
    except (ValueError, OverflowError):  # an escape that is no character; PyYAML does not check
        raise Place(file).error("not YAML: an escape that is no character") from None


def _broken(error: yaml.MarkedYAMLError, text: str, file: str) -> PolicyError:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return Place(file).error(f"not YAML: {error.problem or error.context}")
    line = "".join(text.split("\n")[mark.line : mark.line + 1])
    quoting = "; text with `${` inside `{ }` or `[ ]` is quoted" if "${" in line else ""
    return Place(file, mark.line + 1, mark.column + 1).error(f"not YAML: {error.problem or error.context}{quoting}")


def of(value: object, file: str, depth: int = 0) -> Node:
    """The tree of a Python value, for a policy that stands in no file. Raises PolicyError for other types."""
    place = Place(file)
    if depth > POLICY_DEPTH:
        raise place.error(f"more than {POLICY_DEPTH} levels")
    if isinstance(value, str):
        check_text(value, place)
    if value is None or isinstance(value, str | int | float | bool):
        return Node(value, place)
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return Node({name: (place, of(item, file, depth + 1)) for name, item in value.items()}, place)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return Node(tuple(of(item, file, depth + 1) for item in value), place)
    raise place.error(f"a {type(value).__name__} has no place in a policy")


def check_text(text: str, place: Place) -> None:
    """Raises PolicyError for text with control characters (line feed and tab aside) or halves of surrogate pairs."""
    if _UNPRINTABLE.search(text):
        raise place.error("text with a control character")


class _Composer:
    def __init__(self, events: Iterator[Event], file: str) -> None:
        self._events = events
        self._file = file

    def document(self) -> Node:
        self._expect(StreamStartEvent)
        start = next(self._events)
        if isinstance(start, StreamEndEvent):
            raise Place(self._file, 1, 1).error("the file is empty")
        if isinstance(start, DocumentStartEvent) and (start.version or start.tags):
            raise self._place(start).error("YAML directives are not allowed")
        node = self._node(next(self._events), 1)
        next(self._events)
        end = next(self._events)
        if not isinstance(end, StreamEndEvent):
            raise self._place(end).error("a second document; a policy is one")
        return node

    def _expect(self, kind: type[Event]) -> None:
        event = next(self._events)
        if not isinstance(event, kind):
            raise self._place(event).error("not a YAML document")

    def _place(self, event: Event) -> Place:
        mark = event.start_mark
        return Place(self._file, mark.line + 1, mark.column + 1) if mark else Place(self._file)

    def _node(self, event: Event, depth: int) -> Node:
        place = self._place(event)
        if depth > POLICY_DEPTH:
            raise place.error(f"more than {POLICY_DEPTH} levels")
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None) is not None:
            raise place.error("anchors and aliases are not allowed; write it out")
        if getattr(event, "tag", None) is not None:
            raise place.error("tags are not allowed")
        if isinstance(event, ScalarEvent):
            check_text(event.value, place)
            return Node(_scalar(event), place)
        if isinstance(event, SequenceStartEvent):
            return Node(self._sequence(depth), place)
        if isinstance(event, MappingStartEvent):
            return Node(self._mapping(depth), place)
        raise place.error("not a YAML document")

    def _sequence(self, depth: int) -> tuple[Node, ...]:
        items = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return tuple(items)

    def _mapping(self, depth: int) -> Mapping[str, tuple[Place, Node]]:
        entries: dict[str, tuple[Place, Node]] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(event, ScalarEvent) or not event.value:
                raise key.place.error("a key is text")
            if event.value in entries:
                raise key.place.error("a key twice", key=event.value)
            entries[event.value] = key.place, self._node(next(self._events), depth + 1)
        return entries


def _scalar(event: ScalarEvent) -> Scalar:
    text: str = event.value
    if not event.implicit[0]:  # quoted, or a block
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text
