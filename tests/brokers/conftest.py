"""Real brokers as fixtures: one nats-server for all tests of a run, and fresh ones for tests that stop or kill theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from tests.support.servers import NatsServer, end, nats_server


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = nats_server(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    end(server)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """One of its own, for a test that stops it or wants an empty store."""
    fresh = nats_server(tmp_path / "nats")
    fresh.start()
    yield fresh
    end(fresh)


@pytest.fixture
async def nc(shared_server: NatsServer) -> AsyncIterator[Client]:
    """A plain connection to the shared server."""
    connection = await nats.connect(shared_server.url)
    yield connection
    await connection.close()


@pytest.fixture
async def own_nc(server: NatsServer) -> AsyncIterator[Client]:
    """A plain connection to the test's own server, quick to come back after a restart."""
    connection = await connect(server)
    yield connection
    if not connection.is_closed:
        await connection.close()


async def connect(server: NatsServer) -> Client:
    async def quiet(error: Exception) -> None:
        """Reconnecting is what these tests are about; its errors are expected."""

    return await nats.connect(server.url, reconnect_time_wait=0.05, max_reconnect_attempts=-1, error_cb=quiet)
