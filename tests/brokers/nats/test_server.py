"""Starting and stopping a real nats-server."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

import nats
import pytest

from broker_crypto.errors import BrokerUnavailable
from broker_crypto_nats.server import LocalServer


async def test_it_comes_back_on_the_same_port_with_the_same_store_after_a_kill(tmp_path: Path) -> None:
    with LocalServer(tmp_path / "s") as server:
        port = server.port
        nc = await nats.connect(server.url)
        await nc.jetstream().add_stream(name="S", subjects=["s"])
        for _ in range(20):
            await nc.jetstream().publish("s", b"x")
        await nc.close()
        server.kill()
        assert not server.running
        server.start()
        assert server.port == port
        nc = await nats.connect(server.url)
        assert (await nc.jetstream().stream_info("S")).state.messages == 20
        await nc.close()


def test_nothing_of_it_runs_after_stop(tmp_path: Path) -> None:
    server = LocalServer(tmp_path / "s").start()
    process = server._process
    assert process is not None
    server.stop()
    assert process.returncode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    server.stop()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable, match="no_such_setting"):
        LocalServer(tmp_path / "s", extra="no_such_setting: 1").start()


def test_two_servers_at_once_take_two_ports(tmp_path: Path) -> None:
    with LocalServer(tmp_path / "a") as one, LocalServer(tmp_path / "b") as two:
        assert one.port != two.port


def test_every_acknowledged_write_is_on_disk(tmp_path: Path) -> None:
    with LocalServer(tmp_path / "s") as server, urllib.request.urlopen(f"{server.monitoring}/jsz?config=true") as answer:
        assert json.load(answer)["config"]["sync_always"] is True
