"""Storage: what an agent keeps, in transactions that are durable when they end. On disk sealed (sqlite), or in memory for tests."""

from __future__ import annotations

import secrets
from pathlib import Path

from broker_crypto.errors import NotBuilt, UsageError
from broker_crypto.records import Random
from broker_crypto.storage.keys import EnvKey, FileKey, make_key_file
from broker_crypto.storage.memory import MemoryStore
from broker_crypto.storage.port import KeyProvider, StateStore, Transaction, Watch
from broker_crypto.storage.sqlite import Options, SqliteStore, open_alone, open_beside

__all__ = ["EnvKey", "FileKey", "KeyProvider", "MemoryStore", "SqliteStore", "StateStore", "Transaction", "Watch", "make_key_file", "open"]


def open(
    where: str | Path,
    key: KeyProvider | None = None,
    *,
    beside: bool = False,
    create: bool = True,
    watch: Watch | None = None,
    random: Random = secrets.token_bytes,
) -> StateStore:
    """Open a store: a path or `sqlite:PATH`, or `memory:` (which needs no key and ends with the process).

    `beside` opens the store of an agent that may be running, to read and to add rows of kind `intent`. Without `create` a
    store that is not there is StoreUnavailable. Blocks for as long as it takes to read the store once.

    Raises StateLocked (another agent has it), StateVersionError, StateCorrupt (damage, or another key), StoreUnavailable,
    UsageError (no key, a folder or key file that is open to others), NotBuilt for another kind of store.
    """
    scheme, _, rest = str(where).partition(":") if isinstance(where, str) else ("sqlite", ":", str(where))
    if scheme == "memory" and isinstance(where, str):
        if rest or beside:
            raise UsageError("a store in memory has no place, and nothing beside it", where=str(where))
        return MemoryStore()
    if scheme == "vault" and rest:
        raise NotBuilt("stores in Vault", where=str(where))
    path = Path(rest if scheme == "sqlite" and rest else str(where))
    if key is None:
        raise UsageError("a store on disk needs a key", path=str(path))
    options = Options(random, create=create, watch=watch)
    return open_beside(path, key.key(), options) if beside else open_alone(path, key.key(), options)
