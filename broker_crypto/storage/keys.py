"""Key providers: where the key comes from under which a store's data key is sealed. Each answers with 32 bytes.

A key file that others may read is refused rather than mended: whoever could read it may have. Allowed are 0600 or less for
its owner's own process, and 0640 or less where root owns it, which is how secrets are mounted for a group.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from broker_crypto.errors import StoreUnavailable, UsageError
from broker_crypto.records import Random
from broker_crypto.storage.sealing import KEY_BYTES


class FileKey:
    """32 bytes in a file, as `make_key_file` writes it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"FileKey({str(self.path)!r})"

    def key(self) -> bytes:
        """Raises StoreUnavailable where the file cannot be read, UsageError where it has another length or is open to others."""
        try:
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                key = file.read(KEY_BYTES + 1)
        except OSError as error:
            raise StoreUnavailable("the store key cannot be read", path=str(self.path), reason=error.strerror) from None
        allowed = 0o640 if status.st_uid == 0 else 0o600
        if stat.S_IMODE(status.st_mode) & ~allowed & 0o7077:
            raise UsageError("others may read the store key: chmod 600, and consider it known", path=str(self.path))
        if len(key) != KEY_BYTES:
            raise UsageError("a store key file has 32 bytes", path=str(self.path))
        return key


class EnvKey:
    """Base64 of 32 bytes (RFC 4648 section 4, padded) in an environment variable."""

    def __init__(self, variable: str, environ: Mapping[str, str] = os.environ) -> None:
        self.variable = variable
        self._environ = environ

    def __repr__(self) -> str:
        return f"EnvKey({self.variable!r})"

    def key(self) -> bytes:
        """Raises UsageError where the variable is missing or holds something else."""
        text = self._environ.get(self.variable)
        if text is None:
            raise UsageError("the environment has no store key", variable=self.variable)
        try:
            key = base64.b64decode(text.strip(), validate=True)
        except (ValueError, binascii.Error):
            raise UsageError("a store key is base64 of 32 bytes", variable=self.variable) from None
        if len(key) != KEY_BYTES:
            raise UsageError("a store key is base64 of 32 bytes", variable=self.variable)
        return key


def make_key_file(path: str | Path, random: Random = secrets.token_bytes) -> None:
    """A new key in a new file, 0600, on disk when this returns. Raises UsageError where the file exists already."""
    path = Path(path)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError("there is a store key already; a store sealed under it would be lost", path=str(path)) from None
    except OSError as error:
        raise StoreUnavailable("the store key cannot be written", path=str(path), reason=error.strerror) from None
    with open(descriptor, "wb") as file:
        file.write(random(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """What was made, renamed or removed in `folder` outlives a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
