"""The group log on three replicas."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_crypto.errors import AppendUnknown, BrokerUnavailable, LostRace, PolicyConflict
from broker_crypto_nats.grouplog import STREAM, NatsGroupLog
from broker_crypto_nats.jsapi import Api
from tests.brokers.conftest import connect
from tests.support.servers import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path) as running:
        yield running


async def test_what_was_acknowledged_is_read_at_once_from_every_server_and_survives_the_leader(cluster: Cluster) -> None:
    connections = [await connect(server) for server in cluster.servers]
    logs = [NatsGroupLog(connection, replicas=3, timeout=3) for connection in connections]
    assert len({await log.open("orders", True) for log in logs}) == 1
    last = -1
    for at in range(60):
        last = await logs[at % 3].append(b"%d" % at, last) or 0
        reader = logs[(at + 1) % 3]
        assert await reader.head() == last + 1
        assert [entry.record for entry in await reader.read(0, 1000)] == [b"%d" % seen for seen in range(at + 1)]
    before = await logs[0].read(0, 1000)
    info = await Api(connections[0]).call(f"STREAM.INFO.{STREAM}")
    leader = int(info["cluster"]["leader"][1:])
    cluster.servers[leader].kill()
    rest = [log for at, log in enumerate(logs) if at != leader]
    position = await appended(rest[0], b"after", last)
    assert [entry.record for entry in await rest[1].read(position, 10)] == [b"after"]
    assert (await rest[1].read(0, 1000))[:60] == before
    cluster.servers[leader].start()
    back = await found(logs[leader], position)
    assert back == await rest[0].read(0, 1000)
    assert await logs[leader].open("orders", False) == info["created"]
    for connection in connections:
        await connection.close()


async def appended(log: NatsGroupLog, record: bytes, expected: int) -> int:
    """Append until it is there: while a new leader is found, answers are lost and calls find nobody."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            return await log.append(record, expected) or 0
        except LostRace:  # the append before was stored, and its answer lost
            [entry] = await log.read(expected + 1, 1)
            assert entry.record == record
            return entry.position
        except (AppendUnknown, BrokerUnavailable):
            await asyncio.sleep(0.1)
    raise AssertionError("no leader came")


async def found(log: NatsGroupLog, position: int) -> list[object]:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            await log.open("orders", False)  # as is to be done after every reconnect
            if await log.head() > position:
                return list(await log.read(0, 1000))
        except BrokerUnavailable:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError("the server that came back shows nothing")


async def test_more_replicas_than_the_cluster_has_servers_is_a_conflict(cluster: Cluster) -> None:
    connection = await connect(cluster.servers[0])
    with pytest.raises(PolicyConflict, match="num_replicas"):
        await NatsGroupLog(connection, replicas=5, timeout=5).open("orders", True)
    await connection.close()
