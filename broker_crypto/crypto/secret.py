"""The one type for long-lived secrets."""

from __future__ import annotations

import hmac
from typing import Any, NoReturn

from broker_crypto.errors import UsageError


class Secret:
    """Bytes that show themselves only when asked.

    No repr, copy, pickle, hash or `==`. `wipe` overwrites our copy; copies that Python or a library made are beyond it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes | bytearray | memoryview) -> None:
        self._value: bytearray | None = bytearray(value)

    def reveal(self) -> bytes:
        """The bytes. Raises UsageError after `wipe`."""
        if self._value is None:
            raise UsageError("a secret is used after it was wiped")
        return bytes(self._value)

    def matches(self, other: bytes) -> bool:
        """Whether the bytes are equal, in constant time. Raises UsageError after `wipe`."""
        return hmac.compare_digest(self.reveal(), other)

    def wipe(self) -> None:
        """Overwrite and forget; a second call does nothing."""
        if self._value is not None:
            self._value[:] = bytes(len(self._value))
            self._value = None

    def __repr__(self) -> str:
        return "<Secret>"

    def __eq__(self, other: object) -> bool:
        raise TypeError("secrets are compared with matches()")

    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a secret is neither pickled nor copied")

    def __copy__(self) -> NoReturn:
        raise TypeError("a secret is neither pickled nor copied")

    def __deepcopy__(self, memo: Any) -> NoReturn:
        raise TypeError("a secret is neither pickled nor copied")
