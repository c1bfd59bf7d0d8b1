"""Two members of a group, each with a sealing connection; a plain connection beside them sees what the broker sees."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import nats
import pytest
from nats.aio.client import Client

from broker_crypto_nats import SecureNats
from tests.brokers.nats.support import Connect, Pair, Side, rules_of, stream_of
from tests.support.fixed_group import FixedGroup
from tests.support.servers import NatsServer


@pytest.fixture
def root() -> str:
    return "t" + secrets.token_hex(5)


@pytest.fixture
def group() -> FixedGroup:
    return FixedGroup(["alice", "bob", "carol"])


@pytest.fixture
async def side(shared_server: NatsServer, group: FixedGroup, root: str) -> AsyncIterator[Connect]:
    """Makes members with their connections; closes them."""
    made: list[SecureNats] = []

    async def make(name: str, server: NatsServer = shared_server, *, upto: int | None = None, **how: object) -> Side:
        errors: list[Exception] = []

        async def note(error: Exception) -> None:
            errors.append(error)

        agent = group.agent(name, *rules_of(root, **how), upto=upto)
        inner = await nats.connect(server.url, error_cb=note, reconnect_time_wait=0.05, max_reconnect_attempts=-1)
        secure = SecureNats(inner, agent)
        made.append(secure)
        return Side(agent, secure, errors)

    yield make
    for secure in made:
        await secure.close()


@pytest.fixture
async def pair(side: Connect, group: FixedGroup, root: str, nc: Client) -> Pair:
    return Pair(group, await side("alice"), await side("bob"), nc, root)


@pytest.fixture
async def stream(pair: Pair) -> str:
    return await stream_of(pair)
