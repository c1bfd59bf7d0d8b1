"""A few transactions with known contents after each, for tests in which something fails in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from broker_crypto.errors import StoreUnavailable
from broker_crypto.storage import StateStore
from broker_crypto.testing import Crashed

Content = dict[tuple[str, bytes], bytes]
Step = Sequence[tuple[str, str, bytes, bytes]]

STEPS: list[Step] = [
    [("put", "group", b"a", b"1"), ("put", "epoch", b"1", b"x" * 9000)],
    [("get", "group", b"a", b""), ("put", "group", b"a", b"2"), ("delete", "epoch", b"1", b""), ("put", "epoch", b"2", b"y")],
    [("scan", "epoch", b"", b""), ("put", "staged", b"s", b"z" * 5000), ("put", "intent", b"i", b"w")],
    [("delete", "staged", b"s", b""), ("delete", "intent", b"i", b""), ("put", "group", b"a", b"3")],
]

CALLS = 2 * len(STEPS) + sum(map(len, STEPS))  # begin and commit, and what is between


def states() -> list[Content]:
    """The content before the first step, and after each."""
    found: list[Content] = [{}]
    for step in STEPS:
        now = dict(found[-1])
        for name, kind, key, value in step:
            if name == "put":
                now[kind, key] = value
            elif name == "delete":
                now.pop((kind, key))
        found.append(now)
    return found


async def take(store: StateStore, step: Step) -> None:
    async with store.transaction() as tx:
        for name, kind, key, value in step:
            await getattr(tx, name)(*((kind, key, value) if name == "put" else (kind, key)))


async def run(store: StateStore, *, begin: int = 0, ended: Callable[[], None] = lambda: None) -> int:
    """Take the steps from `begin` on until one fails, telling of each that ended well; how many ended well, with those before."""
    done = begin
    try:
        for step in STEPS[begin:]:
            await take(store, step)
            done += 1
            ended()
    except (StoreUnavailable, Crashed):
        pass
    return done
