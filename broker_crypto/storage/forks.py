"""A forked child shares its parent's file descriptors and locks but none of its threads: it must not touch the store."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable

from broker_crypto.errors import ForkedState

_guards: weakref.WeakSet[ForkGuard] = weakref.WeakSet()


class ForkGuard:
    """Known to be in a child right after the fork. `in_child` then runs once, before any other code of the child."""

    __slots__ = ("__weakref__", "_forked", "_in_child")

    def __init__(self, in_child: Callable[[], None] | None = None) -> None:
        self._in_child = in_child
        self._forked = False
        _guards.add(self)

    @property
    def forked(self) -> bool:
        return self._forked

    def check(self) -> None:
        """Raises ForkedState in a child of the process that made this."""
        if self._forked:
            raise ForkedState

    def poison(self) -> None:
        self._forked = True

    def let_go(self) -> None:
        if self._in_child is not None:
            self._in_child()


def _after_fork() -> None:
    guards = list(_guards)
    for guard in guards:  # all of them first: whatever letting go may raise, none stays usable
        guard.poison()
    for guard in guards:
        with contextlib.suppress(OSError):
            guard.let_go()


os.register_at_fork(after_in_child=_after_fork)
