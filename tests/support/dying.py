"""Processes that use a store and die. Run by `python -m tests.support.dying PLAN FOLDER`; prints one JSON object.

Each death has a process of its own, forked before any thread or store is there. What it was told of (a block that ended) goes
through a pipe, which outlives it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

from broker_crypto import storage
from broker_crypto.errors import ForkedState, StoreUnavailable
from broker_crypto.storage import SqliteStore, StateStore, schema
from broker_crypto.testing import FaultyStore, Hook, Moment, fail_at, kill_at
from tests.support.store_steps import CALLS, STEPS, run

KEY = bytes(range(32))
TASKS = 20

Told = Callable[[bytes], object]


class GivenKey:
    def key(self) -> bytes:
        return KEY


def opened(folder: Path) -> StateStore:
    return storage.open(folder / "agent.db", GivenKey())


def in_a_child(life: Callable[[Told], None], after: Callable[[int, int], None] = lambda pid, pipe: None) -> tuple[int, bytes]:
    """Fork, live, die: the exit code (negative: the signal) and what the child told."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        try:
            life(lambda data: os.write(writing, data))
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(99)
    os.close(writing)
    after(pid, reading)
    told = b""
    while data := os.read(reading, 65536):
        told += data
    os.close(reading)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), told


async def steps(folder: Path, told: Told, hook: Hook) -> None:
    store = FaultyStore(opened(folder), hook)
    await run(store, ended=lambda: told(b"."))
    await store.erased()
    await store.close()


def around_calls(folder: Path) -> dict[str, object]:
    """SIGKILL before and after each call of the store."""
    found: dict[str, object] = {}
    moments: tuple[Moment, Moment] = ("before", "after")
    for n in range(1, CALLS + 3):
        for moment in moments:
            place = folder / f"{n}-{moment}"
            hook = kill_at(n, moment)
            code, told = in_a_child(lambda told, place=place, hook=hook: asyncio.run(steps(place, told, hook)))
            found[place.name] = {"code": code, "ended": len(told)}
    return found


def at_statements(folder: Path) -> dict[str, object]:
    """SIGKILL before each statement that SQLite runs, from making the store to closing it."""
    connect = schema.connect
    count = 0

    def life(told: Told, place: Path, last: int) -> None:
        def counting(path: Path, busy_seconds: float) -> sqlite3.Connection:
            connection = connect(path, busy_seconds)
            connection.set_trace_callback(statement)
            return connection

        def statement(sql: str) -> None:
            nonlocal count
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)

        schema.connect = counting
        asyncio.run(steps(place, told, fail_at(0)))

    found: dict[str, object] = {}
    n = 0
    while True:
        n += 1
        place = folder / str(n)
        code, told = in_a_child(lambda told, place=place, n=n: life(told, place, n))
        found[place.name] = {"code": code, "ended": len(told)}
        if code != -signal.SIGKILL:
            return found


def in_writes(folder: Path) -> dict[str, object]:
    """The kernel kills in the middle of a write that would make a file longer than a limit."""

    def life(told: Told, place: Path, limit: int) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        asyncio.run(steps(place, told, fail_at(0)))

    found: dict[str, object] = {}
    for limit in range(0, 200_000, 1500):
        place = folder / str(limit)
        code, told = in_a_child(lambda told, place=place, limit=limit: life(told, place, limit))
        found[place.name] = {"code": code, "ended": len(told)}
        if code != -signal.SIGXFSZ:
            break
    return found


def full_disk(folder: Path) -> dict[str, object]:
    """No file may grow beyond a limit until the store has failed; then there is room, and it goes on from there."""

    async def use(told: Told, place: Path, limit: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        done = -1  # steps that ended well before there was room again; -1: not even opened
        try:
            store = opened(place)
            done = await run(store)
        except StoreUnavailable:
            pass
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        told(b"%d" % done)
        if done < 0:
            store = opened(place)
        assert await run(store, begin=max(done, 0)) == len(STEPS)
        await store.erased()
        await store.close()

    found: dict[str, object] = {}
    for limit in range(0, 200_000, 1500):
        place = folder / str(limit)
        code, told = in_a_child(lambda told, place=place, limit=limit: asyncio.run(use(told, place, limit)))
        found[place.name] = {"code": code, "ended": int(told)}
        if int(told) == len(STEPS):
            break
    return found


async def load(folder: Path, told: Told) -> None:
    """Tasks that each count in two rows at once, for ever."""
    store = opened(folder)

    async def count(task: int) -> None:
        key = b"%02d" % task
        while True:
            async with store.transaction() as tx:
                number = int(await tx.get("group", key) or b"0") + 1
                await tx.put("group", key, b"%d" % number)
                await tx.put("epoch", key, b"%d" % number + bytes(number % 3000))
                if number % 5 == 0:
                    await tx.delete("staged", key)
                else:
                    await tx.put("staged", key, b"%d" % number)
            told(b"%d %d\n" % (task, number))
            if number % 17 == 0:
                await store.erased()

    await asyncio.gather(*(count(task) for task in range(TASKS)))


def under_load(folder: Path) -> dict[str, object]:
    """SIGKILL at a random moment, again and again on the same store. Prints, round for round, the newest count that each task told."""
    draw = random.Random(99)
    rounds = []
    for n in range(int(os.environ.get("BROKER_CRYPTO_KILLS", "25"))):
        heard = b""

        def kill(pid: int, pipe: int) -> None:
            nonlocal heard
            lines = draw.randrange(400)
            while heard.count(b"\n") < lines:
                heard += os.read(pipe, 65536)
            for _ in range(draw.randrange(3000)):
                pass
            os.kill(pid, signal.SIGKILL)

        code, told = in_a_child(lambda told: asyncio.run(load(folder, told)), kill)
        newest: dict[int, int] = {}
        for line in (heard + told).splitlines():
            task, number = line.split()
            newest[int(task)] = int(number)
        rounds.append({"code": code, "newest": newest, "found": asyncio.run(counts(folder)), "round": n})
    return {"rounds": rounds}


async def counts(folder: Path) -> dict[int, int]:
    """What each task's rows say; an AssertionError where they disagree."""
    store = opened(folder)
    found: dict[int, int] = {}
    async with store.transaction() as tx:
        groups, epochs, staged = dict(await tx.scan("group")), dict(await tx.scan("epoch")), dict(await tx.scan("staged"))
    await store.close()
    assert groups.keys() == epochs.keys()
    for key, value in groups.items():
        number = int(value)
        assert epochs[key] == value + bytes(number % 3000)
        assert staged.get(key) == (None if number % 5 == 0 else value)
        found[int(key)] = number
    return found


def forks(folder: Path) -> dict[str, object]:
    """Forks while the store's thread is committing; the children are refused, end as any process does, and hold nothing up."""
    loop = asyncio.new_event_loop()
    store = opened(folder)
    assert isinstance(store, SqliteStore)

    async def write(n: int) -> None:
        async with store.transaction() as tx:
            await tx.put("group", b"%d" % n, bytes(20000))

    async def begin(tasks: list[asyncio.Task[None]], n: int) -> None:
        tasks.extend(asyncio.ensure_future(write(n * 40 + m)) for m in range(40))
        await asyncio.sleep(0.002)

    codes = []
    tasks: list[asyncio.Task[None]] = []
    for n in range(10):
        loop.run_until_complete(begin(tasks, n))
        pid = os.fork()
        if not pid:
            os.close(2)  # what is left pending is said there
            try:
                store.check()
            except ForkedState:
                sys.exit(7)
            sys.exit(8)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    loop.run_until_complete(asyncio.gather(*tasks))
    loop.run_until_complete(store.close())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    return {"codes": codes}


PLANS: dict[str, Callable[[Path], dict[str, object]]] = {
    plan.__name__: plan for plan in (around_calls, at_statements, in_writes, full_disk, under_load, forks)
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(PLANS[sys.argv[1]](Path(sys.argv[2]))))
