"""One core for what is measured, so that a scheduler's moves are no part of a figure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def pinned(core: int | None = None) -> Iterator[int | None]:
    """Keep this process (and what it starts meanwhile) on one core: `core`, or the last that it may use. None where a system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    before = os.sched_getaffinity(0)
    chosen = max(before) if core is None else core
    os.sched_setaffinity(0, {chosen})
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, before)
