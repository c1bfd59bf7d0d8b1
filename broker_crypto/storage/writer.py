"""The one thread that touches a database: commits together what waits together, reads in between, erases soon after.

1. Jobs run in the order in which they came. Write sets that stand one behind another share one commit, and with it one fsync.
2. Where a shared commit fails, each of its write sets gets a commit of its own, so that one that cannot be written (a full disk and a
   large row) does not take its neighbours down. Where the database cannot even be locked, all fail alike.
3. An answer is given only when its commit is on disk.
4. Within STORE_ERASE_SECONDS of a commit the log of the database (-wal) is copied back and truncated: with secure_delete this is
   what makes deleted and overwritten rows disappear. A reader in another process holds that up: it is tried again until it works.

A commit whose fsync failed is answered with StoreUnavailable, and nobody knows what the disk has: when the database is opened next
it shows that commit whole or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar

from broker_crypto.errors import BrokerCryptoError, StateCorrupt, StoreUnavailable, UsageError
from broker_crypto.limits import STORE_SHARED_COMMIT
from broker_crypto.storage.eraser import Eraser
from broker_crypto.storage.port import Watch
from broker_crypto.storage.sealing import Sealer

T = TypeVar("T")
Writes: TypeAlias = Mapping[tuple[str, bytes], bytes | None]

_log = logging.getLogger("broker_crypto.storage")


@dataclass(slots=True, eq=False)
class Job(Generic[T]):
    """Something to run in the thread, and who waits for it."""

    run: Callable[[], T]
    done: asyncio.Future[T]


@dataclass(slots=True, eq=False)
class WriteJob:
    """Writes to commit, and who waits for them."""

    writes: Writes
    done: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class EraseJob:
    """Somebody waits until what was deleted is gone."""

    done: asyncio.Future[None]


class _Stop:
    pass


_STOP: Final = _Stop()


class Writer:
    """The thread. `connection` and `sealer` belong to it from here on. `insert_only`: rows that exist are refused (UsageError)."""

    def __init__(
        self, connection: sqlite3.Connection, sealer: Sealer, *, insert_only: bool, busy_seconds: float, watch: Watch | None
    ) -> None:
        self._connection = connection
        self._sealer = sealer
        self._watch = watch
        self._put = "INSERT INTO rows VALUES (?, ?, ?)" if insert_only else "INSERT OR REPLACE INTO rows VALUES (?, ?, ?)"
        self._jobs: queue.SimpleQueue[Job[Any] | WriteJob | EraseJob | _Stop] = queue.SimpleQueue()
        self._kept: Job[Any] | EraseJob | _Stop | None = None
        self._eraser = None if insert_only else Eraser(connection, round(busy_seconds * 1000))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name="broker_crypto store", daemon=True)
        self._thread.start()

    # called in the event loop

    def write(self, writes: Writes) -> asyncio.Future[None]:
        done = self._future()
        self._jobs.put(WriteJob(writes, done))
        return done

    def run(self, job: Callable[[], T]) -> asyncio.Future[T]:
        """Run `job` in the thread, behind all that was asked before."""
        self._loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(Job(job, done))
        return done

    def erase(self) -> asyncio.Future[None]:
        done = self._future()
        self._jobs.put(EraseJob(done))
        return done

    def stop(self) -> None:
        """Finish what was asked, try once more to erase, close the database. Blocks; for a thread of its own."""
        self._jobs.put(_STOP)
        self._thread.join()

    def _future(self) -> asyncio.Future[None]:
        self._loop = asyncio.get_running_loop()
        return self._loop.create_future()

    # the thread

    def _work(self) -> None:
        while True:
            if self._eraser is not None and self._eraser.due():
                self._erase()
            job = self._next()
            if isinstance(job, WriteJob):
                self._commit([job, *self._neighbours()])
            elif isinstance(job, EraseJob):
                self._ask_to_erase(job)
            elif isinstance(job, Job):
                self._answer(job)
            elif isinstance(job, _Stop):
                break
        self._finish()

    def _next(self) -> Job[Any] | WriteJob | EraseJob | _Stop | None:
        if self._kept is not None:
            kept, self._kept = self._kept, None
            return kept
        try:
            return self._jobs.get(timeout=None if self._eraser is None else self._eraser.wait())
        except queue.Empty:
            return None

    def _neighbours(self) -> list[WriteJob]:
        """The write sets that wait already, up to the first other job."""
        found: list[WriteJob] = []
        while self._kept is None and len(found) + 1 < STORE_SHARED_COMMIT:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if isinstance(job, WriteJob):
                found.append(job)
            else:
                self._kept = job
        return found

    def _answer(self, job: Job[Any]) -> None:
        try:
            result = job.run()
        except BaseException as error:  # whoever waits gets it; the thread goes on
            self._fail(job.done, error)
        else:
            self._tell(_resolve, job.done, result)

    def _finish(self) -> None:
        if self._eraser is not None:
            with contextlib.suppress(sqlite3.Error):
                self._eraser.attempt()
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    # commits

    def _commit(self, jobs: Sequence[WriteJob]) -> None:
        began = time.perf_counter()
        errors = self._write_all(jobs)
        seconds = time.perf_counter() - began
        if not all(errors):
            self._committed(seconds)
        for job, error in zip(jobs, errors, strict=True):
            if error is None:
                self._tell(_resolve, job.done, None)
            else:
                self._fail(job.done, error)

    def _write_all(self, jobs: Sequence[WriteJob]) -> list[BaseException | None]:
        """What became of each: None is on disk."""
        together = self._write_together(jobs)
        if together is None or len(jobs) == 1 or isinstance(together, _NoLock):
            return [together] * len(jobs)
        return [self._write_together([job]) for job in jobs]

    def _write_together(self, jobs: Sequence[WriteJob]) -> BaseException | None:
        execute = self._connection.execute
        try:
            execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            return _NoLock(error)
        try:
            for job in jobs:
                for (kind, key), value in job.writes.items():
                    if value is None:
                        execute("DELETE FROM rows WHERE kind = ? AND key = ?", (kind, key))
                    else:
                        execute(self._put, (kind, key, self._sealer.seal(kind, key, value)))
            execute("COMMIT")
        except BaseException as error:  # whoever waits gets it; the thread goes on
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    execute("ROLLBACK")
            return error
        return None

    def _committed(self, seconds: float) -> None:
        if self._eraser is not None:
            self._eraser.dirty()
        if self._watch is not None:
            self._tell(self._watch.committed, seconds)

    # erasing

    def _ask_to_erase(self, job: EraseJob) -> None:
        if self._eraser is None:
            self._tell(_resolve, job.done, None)
            return
        self._eraser.waiting.append(job.done)
        self._erase()

    def _erase(self) -> None:
        eraser = self._eraser
        if eraser is None:
            return
        try:
            gone = eraser.attempt()
        except sqlite3.Error as error:
            waiting, eraser.waiting = eraser.waiting, []
            for done in waiting:
                self._fail(done, error)
            return
        if gone:
            waiting, eraser.waiting = eraser.waiting, []
            for done in waiting:
                self._tell(_resolve, done, None)
        elif eraser.held_up():
            _log.warning("a reader in another process keeps deleted state from being erased; it is tried again until it works")
            self._hear(StoreUnavailable("a reader holds an erasure up"))

    # answers

    def _fail(self, done: asyncio.Future[Any], error: BaseException) -> None:
        typed = as_error(error)
        if isinstance(typed, StoreUnavailable | StateCorrupt):
            self._hear(typed)
        self._tell(_reject, done, typed)

    def _hear(self, error: BrokerCryptoError) -> None:
        if self._watch is not None:
            self._tell(self._watch.failed, error)

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(call, *arguments)


class _NoLock(Exception):
    """The database could not be locked for writing."""


def _resolve(done: asyncio.Future[Any], result: object) -> None:
    if not done.done():
        done.set_result(result)


def _reject(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)


def as_error(error: BaseException) -> BaseException:
    """SQLite's errors as those of the tree. What is not SQLite's stays."""
    if isinstance(error, _NoLock):
        return as_error(error.args[0])
    if isinstance(error, sqlite3.IntegrityError):
        return UsageError("a row that exists already is not written again here")
    if isinstance(error, UnicodeDecodeError):  # from SQLite's own message, which quotes the damage
        return StateCorrupt(kind="header", key=b"pages")
    if not isinstance(error, sqlite3.Error):
        return error
    name = getattr(error, "sqlite_errorname", None)
    if name is not None and name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT")):
        return StateCorrupt(kind="header", key=b"pages", reason=name)
    return StoreUnavailable(reason=name or type(error).__name__)
