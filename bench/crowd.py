"""Group logs that many read: a newcomer that follows a long one, and agents that all join at once. Loops are those of delivery.

`follow`: the newcomer's loop on a log of 1,000 records in memory, its store in SQLite; it reads to the head and joins. What is
cached of certificates is dropped before each round, as in a process that has just started.
`join`: every loop of 50 runs until all are members of one epoch, in one process; its CPU time is that of all 50 together. On the
memory log everybody hears of everything at once; on nats-server there is the network, and each append is synced to disk.
"""

from __future__ import annotations

import asyncio
import gc
import secrets
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import nats

from bench.history import GROUP, Authority, History
from bench.pinning import pinned
from broker_crypto import errors, storage
from broker_crypto.delivery.committer import Own
from broker_crypto.delivery.loop import GroupLoop
from broker_crypto.delivery.ports import GroupLog
from broker_crypto.delivery.services import Services
from broker_crypto.delivery.trust import LocalPolicy
from broker_crypto.identity import profile
from broker_crypto.parts import SystemClock
from broker_crypto.records import Clock, LogEntry
from broker_crypto.storage.port import StateStore
from broker_crypto.testing import MemoryBroker
from broker_crypto_nats.grouplog import NatsGroupLog
from broker_crypto_nats.server import LocalServer

MEMBERS, RECORDS, SECONDS = 50, 1000, 5.0  # what is followed, and how long it may take
AGENTS = 50
FOLLOWS, JOINS = 7, 1  # rounds
PATIENCE = 60.0  # s

Found = tuple[list[dict[str, Any]], list[str]]  # rows, notes


class Counting:
    """A GroupLog that counts what it is asked, and how often a race was lost."""

    def __init__(self, log: GroupLog, counts: Counter[str]) -> None:
        self._log, self._counts = log, counts
        self.open, self.head, self.read, self.changed, self.close = log.open, log.head, log.read, log.changed, log.close

    async def append(self, record: bytes, expected: int | None) -> int | None:
        self._counts["appends"] += 1
        try:
            return await self._log.append(record, expected)
        except errors.LostRace:
            self._counts["lost races"] += 1
            raise


def looped(own: Own, authority: Authority, store: StateStore, clock: Clock) -> GroupLoop:
    """The loop of one agent, which tells nobody."""
    services = Services(
        store=store,
        clock=clock,
        random=secrets.token_bytes,
        report=lambda event: None,
        publish=lambda view, closed: None,
        count=lambda verdict: None,
        joined=lambda outcome, seconds: None,
    )
    return GroupLoop(GROUP, own, LocalPolicy(1, authority.policy()), services)


# --- following ----------------------------------------------------------------------------------------------------


def follow(folder: Path) -> Found:
    """A newcomer that follows a log of RECORDS at MEMBERS members to its head, and joins."""
    history = History().grow(MEMBERS)
    for number in range(RECORDS - MEMBERS):
        history.rotate(number * 7 % MEMBERS)
    gc.collect()
    taken = []
    for number in range(FOLLOWS):
        place = folder / f"follow-{number}"
        place.mkdir(mode=0o700)
        taken.append(asyncio.run(_follow_once(history, place)))
    cpu, wall = (statistics.median(one[which] for one in taken) for which in range(2))
    row = {
        "work": f"a newcomer follows {RECORDS:,} records, N = {MEMBERS}, and joins",
        "values": {"broker_crypto": RECORDS / cpu},
        "targets": [{"figure": RECORDS / SECONDS}],
        "seconds": {"cpu": cpu, "wall": wall, "cpu of each round": [one[0] for one in taken]},
    }
    return [row], [f"following {RECORDS:,} records took {cpu:.2f} s ({wall:.2f} s by the wall); at most {SECONDS:.0f} s are asked"]


async def _follow_once(history: History, folder: Path) -> tuple[float, float]:
    """Seconds of CPU and by the wall."""
    _forget_certificates()
    storage.make_key_file(folder / "key")
    store = storage.open(folder / "state.db", storage.FileKey(folder / "key"))
    loop = looped(history.authority.own("writer-new"), history.authority, store, history.clock)
    loop.use(await _filled(history.entries, history.clock))
    cpu, wall = time.process_time(), time.perf_counter()
    await loop.load()
    await loop.turn()
    taken = time.process_time() - cpu, time.perf_counter() - wall
    await store.close()
    if loop.member.mls is None or loop.member.mls.epoch != RECORDS:
        raise RuntimeError(f"the newcomer did not get in: {loop.member.state}")
    return taken


def _forget_certificates() -> None:
    for function in (profile._read, profile._signed):
        function.cache_clear()


async def _filled(entries: list[LogEntry], clock: Clock) -> GroupLog:
    """A memory log that holds these."""
    broker = MemoryBroker(clock)
    log = broker.group_log()
    await log.open(GROUP, create=True)
    for entry in entries:
        broker.skew_ms = entry.time_ms - clock.now_ms()
        await log.append(entry.record, None)
    broker.skew_ms = 0
    return log


# --- joining ------------------------------------------------------------------------------------------------------

Taken = tuple[float, float, Counter[str]]  # CPU and wall seconds, counts
Logs = Callable[[], Awaitable[GroupLog]]  # a log for the next agent


def join(folder: Path, server_core: int | None) -> Found:
    """AGENTS agents that start at once, in a group that nobody has founded yet."""
    rows, notes = [], []
    for where, once in (
        ("compare-and-set in memory", lambda: _in_memory(True)),
        ("no compare-and-set, in memory", lambda: _in_memory(False)),
        ("nats-server", lambda: _on_nats(folder, server_core)),
    ):
        taken = sorted((once() for _ in range(JOINS)), key=lambda one: one[0])
        cpu, wall, counts = taken[len(taken) // 2]
        rows.append(
            {
                "work": f"{AGENTS} agents join at once, {where}",
                "values": {"broker_crypto": AGENTS / cpu},
                "targets": [],
                "seconds": {"cpu": cpu, "wall": wall},
                "counts": dict(counts),
            }
        )
        notes.append(
            f"{AGENTS} at once, {where}: {cpu:.1f} s of CPU for all together, {wall:.1f} s by the wall, "
            f"{counts['appends']:,} appends, of which {counts['lost races']:,} lost the race"
        )
    return rows, notes


def _in_memory(compare_and_set: bool) -> Taken:
    async def once() -> Taken:
        broker = MemoryBroker(SystemClock(), compare_and_set=compare_and_set)

        async def log() -> GroupLog:
            return broker.group_log()

        return await _all_join(log)

    return asyncio.run(once())


def _on_nats(folder: Path, server_core: int | None) -> Taken:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        server = LocalServer(Path(place) / "nats")
        with pinned(server_core):
            server.start()
        with server:
            return asyncio.run(_connected(server.url))


async def _connected(url: str) -> Taken:
    async with AsyncExitStack() as stack:

        async def log() -> GroupLog:
            connection = await nats.connect(url)
            stack.push_async_callback(connection.close)
            return NatsGroupLog(connection)

        return await _all_join(log)


async def _all_join(log: Logs) -> Taken:
    clock, counts = SystemClock(), Counter[str]()
    authority = Authority(now_ms=clock.now_ms())
    loops = []
    for number in range(AGENTS):
        loop = looped(authority.own(f"writer-{number}" if number else "ops"), authority, storage.MemoryStore(), clock)
        loop.use(Counting(await log(), counts))
        loops.append(loop)
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    tasks = [asyncio.ensure_future(loop.run()) for loop in loops]
    while not _together(loops):
        if time.perf_counter() - wall > PATIENCE:
            raise RuntimeError(f"not all are in: {Counter(loop.member.state for loop in loops)}")
        await asyncio.sleep(0.01)
    taken = time.process_time() - cpu, time.perf_counter() - wall
    for loop in loops:
        await loop.close()
    await asyncio.gather(*tasks)
    return *taken, counts


def _together(loops: list[GroupLoop]) -> bool:
    """Whether all are members of the epoch that the last of them made."""
    groups = [loop.member.mls for loop in loops]
    return all(group is not None and group.epoch == AGENTS - 1 for group in groups)
