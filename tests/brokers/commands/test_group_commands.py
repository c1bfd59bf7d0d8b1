"""`broker-crypto group` and `inspect` as an operator runs them: without an agent, beside one, with the broker out of reach."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import nats
import pytest

from broker_crypto import Agent
from broker_crypto.cli.init import make
from broker_crypto_nats import SecureNats
from tests.support.servers import NatsServer

ALICE = "agent://acme/alice"


class Shell:
    """Runs commands in one folder, each a process of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.environ = {**os.environ, "NATS_URL": url, "BROKER_CRYPTO_IDENTITY": ALICE}

    async def run(self, *words: str, stdin: bytes = b"") -> tuple[int, str]:
        call = [sys.executable, "-c", "import sys; from broker_crypto.cli import main; sys.exit(main())", *words]
        process = await asyncio.create_subprocess_exec(
            *call, cwd=self.folder, env=self.environ, stdin=-1, stdout=-1, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await asyncio.wait_for(process.communicate(stdin), 60)
        return process.returncode or 0, out.decode()

    async def answer(self, *words: str, stdin: bytes = b"") -> Any:
        code, out = await self.run(*words, "--json", stdin=stdin)
        assert code == 0, out
        return json.loads(out)


@pytest.fixture
def shell(tmp_path: Path, server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> Shell:
    make(tmp_path / "app", "acme")
    monkeypatch.setenv("NATS_URL", server.url)
    return Shell(tmp_path / "app", server.url)


async def test_rotate_without_a_running_agent_connects_by_itself_founds_and_ends_when_the_log_shows_it(shell: Shell) -> None:
    first = await shell.answer("group", "rotate", "orders")
    assert (first["settled"], first["epoch"]) == (True, 1)
    second = await shell.answer("group", "rotate", "orders")
    assert second["epoch"] == 2


async def test_rotate_beside_a_running_agent_is_carried_out_by_it(shell: Shell, server: NatsServer) -> None:
    async with Agent.open(shell.folder / "policy.yaml", identity=ALICE) as agent:
        client = SecureNats(await nats.connect(server.url), agent)
        await agent.ready("orders", 10)
        before = agent.groups["orders"].epoch
        told = await shell.answer("group", "rotate", "orders")
        assert told["settled"]
        assert agent.groups["orders"].epoch == before + 1
        later = await shell.answer("group", "rotate", "orders", "--no-wait")
        assert not later["settled"]
        async with asyncio.timeout(10):
            while agent.groups["orders"].epoch < before + 2:  # noqa: ASYNC110  the agent looks once a second
                await asyncio.sleep(0.05)
        assert not agent.groups["orders"].intents
        await client.close()


async def test_status_members_and_list_say_what_the_agent_knows_and_where_the_log_is(shell: Shell, server: NatsServer) -> None:
    assert (await shell.answer("group", "list"))["groups"] == [
        {"group": "orders", "log": "main", "role": "admin", "state": "new", "epoch": None}
    ]
    async with Agent.open(shell.folder / "policy.yaml", identity=ALICE) as agent:
        client = SecureNats(await nats.connect(server.url), agent)
        await agent.ready("orders", 10)
        status = await shell.answer("group", "status", "orders")
        group = agent.groups["orders"]
        assert group.authenticator is not None
        assert (status["state"], status["epoch"], status["leaf"]) == ("member", group.epoch, group.leaf)
        assert status["authenticator"] == group.authenticator.hex()
        assert status["head"] == status["position"]
        assert status["pending"] == []
        members = await shell.answer("group", "members", "orders")
        assert [(m["identity"], m["role"]) for m in members["members"]] == [(ALICE, "admin")]
        listed = await shell.answer("group", "list")
        assert [(g["group"], g["state"], g["epoch"]) for g in listed["groups"]] == [("orders", "member", group.epoch)]
        await client.close()
    code, out = await shell.run("group", "status", "orders")
    assert code == 0
    assert "out of reach" not in out
    server.stop()
    code, out = await shell.run("group", "status", "orders")
    assert code == 0
    assert "out of reach" in out


async def test_a_broker_out_of_reach_is_exit_code_3_and_names_its_servers(shell: Shell, server: NatsServer) -> None:
    server.stop()
    code, out = await shell.run("group", "rotate", "orders")
    assert code == 3
    assert server.url in out


async def test_a_group_that_the_policy_does_not_have_is_exit_code_2_with_the_nearest_name(shell: Shell) -> None:
    code, out = await shell.run("group", "status", "order")
    assert code == 2
    assert "did you mean `orders`" in out


async def test_inspect_shows_records_of_a_stream_a_file_and_stdin_without_keys(shell: Shell, server: NatsServer, tmp_path: Path) -> None:
    async with Agent.open(shell.folder / "policy.yaml", identity=ALICE) as agent:
        raw = await nats.connect(server.url)
        client = SecureNats(raw, agent)
        js = client.jetstream()
        await js.add_stream(name="ORDERS", subjects=["orders.>"])
        await js.publish("orders.new", b"an order that nobody may see")
        stored = await raw.jetstream().get_msg("ORDERS", 1)
        await client.close()
    assert stored.data is not None
    from_stream = await shell.answer("inspect", "ORDERS@1")
    (tmp_path / "record").write_bytes(stored.data)
    assert await shell.answer("inspect", str(tmp_path / "record")) == from_stream
    assert await shell.answer("inspect", stdin=stored.data) == from_stream
    assert (from_stream["kind"], from_stream["epoch"], from_stream["leaf"]) == ("topic record", 0, 0)
    assert "nobody may see" not in json.dumps(from_stream)
    assert (await shell.answer("inspect", "BC_GROUPS@1"))["kind"] == "founding"
    code, out = await shell.run("inspect", "ORDERS@99")
    assert code == 3
    assert "no such message" in out


async def test_policy_check_compares_with_the_brokers_settings_where_it_is_asked_to(shell: Shell, server: NatsServer) -> None:
    told = await shell.answer("policy", "check", "--brokers")
    assert told["ok"]
    assert any("orders" in note for note in told["notes"])
    await shell.answer("group", "rotate", "orders")
    assert not (await shell.answer("policy", "check", "--brokers"))["notes"]
    raw = await nats.connect(server.url)
    config = (await raw.jetstream().stream_info("BC_GROUPS")).config
    await raw.jetstream().update_stream(config.evolve(max_msgs=1000))
    await raw.jetstream().add_stream(name="ORDERS", subjects=["orders.>"], max_msgs_per_subject=1)
    await raw.close()
    code, out = await shell.run("policy", "check", "--brokers")
    assert code == 1
    assert "max_msgs" in out
    assert "key_retention: forever" in out
    server.stop()
    code, out = await shell.run("policy", "check", "--brokers")
    assert code == 3
