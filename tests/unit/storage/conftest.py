from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from broker_crypto import storage
from broker_crypto.storage import StateStore

KEY = bytes(range(32))


class GivenKey:
    """A key provider that is handed its key."""

    def __init__(self, key: bytes = KEY) -> None:
        self._key = key

    def key(self) -> bytes:
        return self._key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "agent.db"


@pytest.fixture(params=["sqlite", "memory"])
def opened(request: pytest.FixtureRequest, path: Path) -> Callable[[], StateStore]:
    """Opens the store that a conformance test is about."""
    if request.param == "memory":
        return lambda: storage.open("memory:")
    return lambda: storage.open(path, GivenKey())


@pytest.fixture
async def store(opened: Callable[[], StateStore]) -> AsyncIterator[StateStore]:
    store = opened()
    yield store
    await store.close()
