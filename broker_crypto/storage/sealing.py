"""What a row looks like on disk, and how a store's data key is kept.

    sealed row = salt (16 random bytes) || AES-256-GCM(key, zero nonce, value, aad)
    key        = HMAC-SHA256(data key, "row" || salt)
    aad        = store id (16) || v(kind) || v(key) || u32 schema version        v(x) = u32 length || x

Each key is used once, so the nonce may be zero. A row cannot be moved to another key, kind, store or schema version; that it is
the newest of its key is not shown (SECURITY.md). The data key is sealed in the same shape under the provider's key, with
"data key" in place of "row", kind "header", key "data_key".
"""

from __future__ import annotations

import hmac
from typing import Final

from broker_crypto.crypto.aead import AES256GCM, NONCE_BYTES, TAG_BYTES, AuthenticationFailed
from broker_crypto.crypto.secret import Secret
from broker_crypto.errors import StateCorrupt, UsageError
from broker_crypto.records import Random

KEY_BYTES: Final = 32
STORE_ID_BYTES: Final = 16
_SALT_BYTES: Final = 16
_NONCE: Final = bytes(NONCE_BYTES)
_ROW: Final = b"row"
_DATA_KEY: Final = b"data key"
_HEADER: Final = ("header", b"data_key")


class Sealer:
    """Seals and opens the rows of one store at one schema version. `store_id` 16 bytes, `data_key` 32."""

    __slots__ = ("_data_key", "_random", "_tail", "store_id")

    def __init__(self, data_key: Secret, store_id: bytes, version: int, random: Random) -> None:
        self._data_key = data_key
        self._random = random
        self._tail = version.to_bytes(4, "big")
        self.store_id = store_id

    def __repr__(self) -> str:
        return f"<Sealer of store {self.store_id.hex()}>"

    def seal(self, kind: str, key: bytes, value: bytes) -> bytes:
        """The row's value as it lies on disk: 32 bytes longer."""
        return self._seal(_ROW, kind, key, value)

    def open(self, kind: str, key: bytes, sealed: object) -> bytes:
        """The value. Raises StateCorrupt, with kind and key, for anything but what `seal` gave for this place."""
        return self._open(_ROW, kind, key, sealed)

    def at_version(self, version: int) -> Sealer:
        """The same store's rows at another schema version."""
        return Sealer(self._data_key, self.store_id, version, self._random)

    def wrapped(self, provider_key: bytes) -> bytes:
        """The data key, sealed under the provider's key."""
        wrapper = Sealer(_provider_secret(provider_key), self.store_id, int.from_bytes(self._tail, "big"), self._random)
        return wrapper._seal(_DATA_KEY, *_HEADER, self._data_key.reveal())

    def wipe(self) -> None:
        self._data_key.wipe()

    def _seal(self, label: bytes, kind: str, key: bytes, value: bytes) -> bytes:
        salt = self._random(_SALT_BYTES)
        return salt + AES256GCM.seal(self._key(label, salt), _NONCE, value, self._aad(kind, key))

    def _open(self, label: bytes, kind: str, key: bytes, sealed: object) -> bytes:
        if not isinstance(sealed, bytes) or len(sealed) < _SALT_BYTES + TAG_BYTES:
            raise StateCorrupt(kind=kind, key=key)
        salt = sealed[:_SALT_BYTES]
        try:
            return AES256GCM.open(self._key(label, salt), _NONCE, sealed[_SALT_BYTES:], self._aad(kind, key))
        except AuthenticationFailed:
            raise StateCorrupt(kind=kind, key=key) from None

    def _key(self, label: bytes, salt: bytes) -> bytes:
        return hmac.digest(self._data_key.reveal(), label + salt, "sha256")

    def _aad(self, kind: str, key: bytes) -> bytes:
        name = kind.encode()
        return b"".join((self.store_id, len(name).to_bytes(4, "big"), name, len(key).to_bytes(4, "big"), key, self._tail))


def new_sealer(version: int, random: Random) -> Sealer:
    """For a new store: a fresh store id and data key."""
    return Sealer(Secret(random(KEY_BYTES)), random(STORE_ID_BYTES), version, random)


def unwrapped(wrapped: object, provider_key: bytes, store_id: object, version: int, random: Random) -> Sealer:
    """The Sealer of an existing store. Raises StateCorrupt where the key is another or a byte changed."""
    if not isinstance(store_id, bytes) or len(store_id) != STORE_ID_BYTES:
        raise StateCorrupt(kind="header", key=b"store_id")
    wrapper = Sealer(_provider_secret(provider_key), store_id, version, random)
    data_key = wrapper._open(_DATA_KEY, *_HEADER, wrapped)
    if len(data_key) != KEY_BYTES:
        raise StateCorrupt(kind=_HEADER[0], key=_HEADER[1])
    return Sealer(Secret(data_key), store_id, version, random)


def _provider_secret(provider_key: bytes) -> Secret:
    if len(provider_key) != KEY_BYTES:
        raise UsageError("a store key has 32 bytes", got=len(provider_key))
    return Secret(provider_key)
