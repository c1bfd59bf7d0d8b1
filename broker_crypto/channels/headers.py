"""Which headers stand outside beside the sealed ones, and which outer ones an application gets (docs/topics.md, Inside)."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import translate
from re import Pattern
from re import compile as compile_pattern
from typing import NamedTuple

from broker_crypto.errors import PolicyConflict
from broker_crypto.records import Header

REPLY = "Nats-Reply-To"  # seals the reply subject of a NATS publish; only ever believed when sealed
COPIED = (
    "traceparent", "tracestate", "content-type", "correlation_id", "reply_to",
    "Nats-*", "ce_*", "__key_schema_id", "__value_schema_id",
)  # fmt: skip
ADDED = ("traceparent", "tracestate", "Nats-*", "Status", "Description")
_FIXED = ("Nats-*", "Status", "Description")  # what a broker itself reads or writes: `sealed` cannot take it out


class Merged(NamedTuple):
    """What the application gets, None for nothing, and how many outer headers differed from their sealed copies."""

    headers: Sequence[Header] | None
    differing: int


class HeaderRules:
    """The `headers` settings of a topic. Names are compared exactly; `*` stands for any characters.

    `plain` adds names to those that are also copied outside, `sealed` takes names out of them. Raises PolicyConflict for
    a `sealed` name that brokers need.
    """

    __slots__ = ("_added", "_copied", "_fixed", "_taken")

    def __init__(self, plain: Sequence[str] = (), sealed: Sequence[str] = ()) -> None:
        self._copied, self._added, self._fixed, self._taken = map(_either, ((*COPIED, *plain), ADDED, _FIXED, sealed))
        for name in sealed:
            if self._fixed.fullmatch(name):
                raise PolicyConflict("a header that brokers read or write cannot be kept inside only", header=name)

    def outside(self, headers: Sequence[Header]) -> list[Header]:
        """Those of an application's headers that are also copied outside, in their order."""
        return [header for header in headers if self._is_copied(header[0])]

    def _is_copied(self, name: str) -> bool:
        if name == REPLY or not self._copied.fullmatch(name):
            return False
        return bool(self._fixed.fullmatch(name)) or not self._taken.fullmatch(name)

    def merge(self, sealed: Sequence[Header] | None, outer: Sequence[Header] | None) -> Merged:
        """Sealed headers, then those outer ones that brokers and tracers add and that are not among the sealed."""
        if not outer:
            return Merged(sealed, 0)
        names = {name.casefold() for name, _ in sealed or ()}
        known = set(sealed or ())
        differing, passed = 0, list(sealed or ())
        for header in outer:
            if header[0].casefold() in names:
                differing += header not in known
            elif header[0] != REPLY and self._added.fullmatch(header[0]):
                passed.append(header)
        return Merged(passed if passed or sealed is not None else None, differing)


def _either(names: Sequence[str]) -> Pattern[str]:
    """One pattern for all names; brackets and question marks are themselves."""
    escaped = [name.replace("[", "[[]").replace("?", "[?]") for name in names]
    return compile_pattern("|".join(translate(name) for name in escaped) or r"(?!)")
