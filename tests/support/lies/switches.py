"""What a switch is: one thing that is wrong, the rule that names it, and how all who read must judge it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S")


@dataclass(frozen=True)
class Switch(Generic[S]):
    """`write` gives the record, on a scene of kind S. `reason` is what the verdict says, `rule` the rule that is broken.

    They differ where another rule always stands before. `kind` is that of the verdict; "commit" counts, and locks members out.
    """

    name: str
    rule: str
    reason: str
    kind: str
    write: Callable[[S], bytes]


class Switches(Generic[S]):
    """Switches by name, filled by decorators."""

    def __init__(self) -> None:
        self._all: dict[str, Switch[S]] = {}

    def __iter__(self) -> Iterator[Switch[S]]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, one: object) -> bool:
        return one in self._all.values()

    def __getitem__(self, name: str) -> Switch[S]:
        return self._all[name]

    def breaks(
        self, reason: str, *, rule: str | None = None, kind: str = "invalid", name: str | None = None
    ) -> Callable[[Callable[[S], bytes]], Callable[[S], bytes]]:
        """The function writes a record that breaks `rule` (by default the one of that name), and is refused for `reason`."""

        def register(write: Callable[[S], bytes]) -> Callable[[S], bytes]:
            key = name or write.__name__
            assert key not in self._all, key
            self._all[key] = Switch(key, rule or reason, reason, kind, write)
            return write

        return register
