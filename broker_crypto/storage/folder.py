"""The state folder: its modes, its files, and the lock that keeps a second agent out.

Modes. A missing folder is made 0700, files are made 0600. Files with looser modes are tightened. A folder with a looser mode is
tightened where it is ours and holds nothing but the store; otherwise it is refused, because taking rights away from a folder
that others use breaks them.

The lock is an flock on the folder itself: a file could be deleted and made again beside its holder. It ends with the process,
however that ends. File systems that cannot lock a folder (NFS) cannot keep a store.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from broker_crypto.errors import StateLocked, StoreUnavailable, UsageError

PID_FILE = "agent.pid"
_FOLDER_MODE = 0o700
_FILE_MODE = 0o600


def prepare(database: Path) -> None:
    """Make the folder of `database`, or check it and its files, as the head of this file says.

    Raises UsageError for a folder that is open to others, StoreUnavailable where the file system refuses.
    """
    folder = database.parent
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        if stat.S_IMODE(folder.stat().st_mode) & 0o077:
            _tighten(folder, database)
        for path in files(database):
            with contextlib.suppress(FileNotFoundError):
                if stat.S_IMODE(path.stat().st_mode) & 0o077:
                    path.chmod(_FILE_MODE)
    except OSError as error:
        raise unavailable("the state folder cannot be used", folder, error) from None


def files(database: Path) -> list[Path]:
    """Every file that a store may have, there or not."""
    names = [database, staging(database)]
    return [path.with_name(path.name + end) for path in names for end in ("", "-wal", "-shm", "-journal")] + [database.parent / PID_FILE]


def staging(database: Path) -> Path:
    """Where a new database is built before it takes its name."""
    return database.with_name(database.name + ".new")


def unavailable(what: str, path: Path, error: OSError) -> StoreUnavailable:
    """The world's refusal as an error of the tree."""
    return StoreUnavailable(what, path=str(path), reason=error.strerror)


def _tighten(folder: Path, database: Path) -> None:
    ours = {path.name for path in files(database)}
    if folder.stat().st_uid != os.geteuid() or any(name not in ours for name in os.listdir(folder)):
        raise UsageError("others may look into the state folder: chmod 700, or give the store a folder of its own", path=str(folder))
    folder.chmod(_FOLDER_MODE)


class FolderLock:
    """Held from construction to `release`. Raises StateLocked, with the holder's pid where it is known."""

    def __init__(self, folder: Path) -> None:
        self._pid_file = folder / PID_FILE
        try:
            self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise unavailable("the state folder cannot be used", folder, error) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise StateLocked(path=str(folder), pid=_read_pid(self._pid_file)) from None
        except OSError as error:
            os.close(self._descriptor)
            raise unavailable("this file system cannot lock a folder", folder, error) from None
        with contextlib.suppress(OSError):  # the number is a courtesy, the lock is what holds
            descriptor = os.open(self._pid_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE_MODE)
            os.write(descriptor, b"%d\n" % os.getpid())
            os.close(descriptor)

    def release(self) -> None:
        """Let the next agent in; a second call does nothing."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                self._pid_file.unlink()
            self._close()

    def abandon(self) -> None:
        """In a forked child: close our copy, which leaves the parent's lock where it is."""
        if self._descriptor >= 0:
            self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1  # the number may be somebody else's soon
        os.close(descriptor)


def _read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
