"""What cannot be done ends a command with its reason, soon, and leaves nothing asked that nobody expects."""

from __future__ import annotations

import nats

from broker_crypto import Agent
from broker_crypto_nats import SecureNats
from tests.brokers.commands.test_group_commands import ALICE, Shell
from tests.brokers.commands.test_group_commands import shell as shell  # the fixture
from tests.support.servers import NatsServer

BOB = "agent://acme/bob"


def of_bob(shell: Shell, server: NatsServer) -> Shell:
    other = Shell(shell.folder, server.url)
    other.environ["BROKER_CRYPTO_IDENTITY"] = BOB
    return other


async def test_who_is_barred_is_told_so_whether_its_agent_runs_or_not(shell: Shell, server: NatsServer) -> None:
    bob = of_bob(shell, server)
    await shell.answer("group", "rotate", "orders")
    await bob.answer("group", "rotate", "orders")
    await shell.answer("group", "remove", "orders", BOB, "--yes")
    code, out = await bob.run("group", "rotate", "orders")
    assert code == 1, out
    assert "readmit" in out
    assert "still_asked_as" not in out
    assert (await bob.answer("group", "status", "orders"))["pending"] == []
    async with Agent.open(shell.folder / "policy.yaml", identity=BOB) as agent:
        client = SecureNats(await nats.connect(server.url), agent)
        code, out = await bob.run("group", "rotate", "orders")
        assert code == 1, out
        assert "readmit" in out
        assert "still_asked_as" in out
        await client.close()
    assert (await bob.answer("group", "status", "orders"))["pending"] == ["rotate"]


async def test_a_broker_that_went_away_is_exit_code_3_and_nothing_stays_asked(shell: Shell, server: NatsServer) -> None:
    await shell.answer("group", "rotate", "orders")
    server.stop()
    for words in (("remove", "orders", BOB, "--yes"), ("reset", "orders", "--yes"), ("rotate", "orders")):
        code, out = await shell.run("group", *words)
        assert (code, server.url in out) == (3, True), (words, out)
    assert (await shell.answer("group", "status", "orders"))["pending"] == []


async def test_after_a_reset_the_agent_follows_a_log_that_was_made_anew(shell: Shell, server: NatsServer) -> None:
    await shell.answer("group", "rotate", "orders")
    raw = await nats.connect(server.url)
    await raw.jetstream().delete_stream("BC_GROUPS")
    code, out = await shell.run("group", "rotate", "orders")
    assert (code, "group reset" in out) == (1, True), out
    told = await shell.answer("group", "reset", "orders", "--yes")
    assert (told["reset"], told["halted"], told["barred"], told["back"]) == (True, "log_rolled_back", [], [])
    async with Agent.open(shell.folder / "policy.yaml", identity=ALICE) as agent:
        client = SecureNats(raw, agent)
        await agent.ready("orders", 20)
        assert agent.groups["orders"].halted is None
        await client.close()
