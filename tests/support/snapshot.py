"""Everything an object holds, as one value that compares: so that a test can say that nothing changed.

Objects of broker_crypto are taken apart field by field, containers with their order. What is not ours (ciphers, locks,
functions, patterns) stands for itself: an exchanged one shows.
"""

from __future__ import annotations

from array import array
from typing import Any

from broker_crypto.crypto import Secret


def snapshot(value: Any, seen: frozenset[int] = frozenset()) -> Any:
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if id(value) in seen:
        return ("again", id(value))
    seen |= {id(value)}
    if isinstance(value, dict):
        return ("dict", tuple((snapshot(key, seen), snapshot(item, seen)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return (type(value).__name__, tuple(snapshot(item, seen) for item in value))
    if isinstance(value, frozenset | set):
        return ("set", frozenset(value))
    if isinstance(value, array):
        return ("array", value.tobytes())
    if isinstance(value, Secret):
        return ("secret", value.reveal())
    if type(value).__module__.startswith("broker_crypto."):
        names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        names += list(getattr(value, "__dict__", ()))
        return (type(value).__name__, tuple((name, snapshot(getattr(value, name, "absent"), seen)) for name in names))
    return ("other", type(value).__name__, id(value))
