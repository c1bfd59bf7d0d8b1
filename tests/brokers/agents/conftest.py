"""A realm of its own for every test, on the shared server or on one of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from nats.aio.client import Client

from tests.support.agents import Cast, Realm, connect
from tests.support.servers import NatsServer


@pytest.fixture
def realm(tmp_path: Path, shared_server: NatsServer) -> Realm:
    """Its group is one of many on the shared server."""
    return Realm(tmp_path / "realm", shared_server.url)


@pytest.fixture
async def cast(realm: Realm) -> AsyncIterator[Cast]:
    async with AsyncExitStack() as stack:
        yield Cast(realm, stack)


@pytest.fixture
def own_realm(tmp_path: Path, server: NatsServer) -> Realm:
    """Its server is its own, to be stopped or spoiled."""
    return Realm(tmp_path / "realm", server.url)


@pytest.fixture
async def own_cast(own_realm: Realm) -> AsyncIterator[Cast]:
    async with AsyncExitStack() as stack:
        yield Cast(own_realm, stack)


@pytest.fixture
async def raw(realm: Realm) -> AsyncIterator[Client]:
    """A plain connection: what the broker's operator sees and does."""
    connection = await connect(realm.url)
    yield connection
    await connection.close()


@pytest.fixture
async def own_raw(own_realm: Realm) -> AsyncIterator[Client]:
    connection = await connect(own_realm.url)
    yield connection
    await connection.close()
