"""What is asked of a group with a command: beside a running agent, and without one; what is refused, and what is not asked at all."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest

from broker_crypto import Agent, policy
from broker_crypto.cli.init import make
from broker_crypto.cli.reach import beside
from broker_crypto.delivery import plan
from broker_crypto.delivery.deltas import Delta
from broker_crypto.delivery.handle import Group
from broker_crypto.delivery.state import INTENT, Intent, prefix
from broker_crypto.identity.certificate import read_certificate
from broker_crypto.identity.words import hex_groups
from broker_crypto.wire import pem
from broker_crypto_nats import SecureNats
from tests.brokers.commands.test_group_commands import ALICE, Shell
from tests.support.servers import NatsServer

BOB = "agent://acme/bob"
NOWHERE = "nats://127.0.0.1:9"  # the discard port: nobody listens


@pytest.fixture
def alice(tmp_path: Path, server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """An admin's shell, in a folder as `init` makes it."""
    make(tmp_path / "app", "acme")
    monkeypatch.setenv("NATS_URL", server.url)
    return Shell(tmp_path / "app", server.url)


@pytest.fixture
def bob(alice: Shell) -> Shell:
    """A writer's shell in the same folder."""
    shell = Shell(alice.folder, alice.environ["NATS_URL"])
    shell.environ["BROKER_CRYPTO_IDENTITY"] = BOB
    return shell


@asynccontextmanager
async def running(shell: Shell, *, ready: bool = True) -> AsyncIterator[Agent]:
    """An agent of this process on the shell's store, attached to its server."""
    identity = shell.environ["BROKER_CRYPTO_IDENTITY"]
    async with Agent.open(shell.folder / "policy.yaml", identity=identity) as agent:
        client = SecureNats(await nats.connect(shell.environ["NATS_URL"]), agent)
        if ready:
            await agent.ready("orders", 20)
        try:
            yield agent
        finally:
            await client.close()


async def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "it did not come to pass"
        await asyncio.sleep(0.02)


def names(group: Group) -> list[str]:
    return sorted(member.identity for member in group.members)


def change(shell: Shell, old: str, new: str) -> None:
    """Another policy file."""
    path = shell.folder / "policy.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def fingerprint(shell: Shell, name: str) -> str:
    (certificate,) = pem.certificates((shell.folder / "keys" / "acme" / f"{name}.pem").read_bytes())
    return hex_groups(read_certificate(certificate).key_hash)


async def refused(shell: Shell, code: int, *words: str) -> str:
    """What a command says that ends with this exit code."""
    ended, out = await shell.run(*words)
    assert ended == code, out
    return out


async def test_removed_beside_a_running_agent_an_identity_stays_out_until_it_is_readmitted(alice: Shell, bob: Shell) -> None:
    async with running(alice) as admin, running(bob) as member:
        group, theirs = admin.groups["orders"], member.groups["orders"]
        await until(lambda: names(group) == [ALICE, BOB])
        told = await alice.answer("group", "remove", "orders", BOB, "--yes")
        assert told["settled"]
        assert [one["identity"] for one in told["removed"]] == [BOB]
        assert names(group) == [ALICE]
        await until(lambda: theirs.state == "removed")
        assert "barred" in await refused(bob, 1, "group", "join", "orders")
        again = await alice.answer("group", "remove", "orders", BOB, "--yes")
        assert (again["settled"], again["intent"], again["epoch"]) == (True, None, told["epoch"])  # so already: no commit
        assert (await alice.answer("group", "policy", "show", "orders"))["barred"] == [BOB]
    async with running(bob, ready=False) as member:  # started again it stays outside too
        await until(lambda: member.groups["orders"].state == "removed" and member.groups["orders"].lag == 0)
        assert (await alice.answer("group", "readmit", "orders", BOB))["settled"]  # and now without an agent of the admin's
        await until(lambda: member.groups["orders"].state == "member")
        assert names(member.groups["orders"]) == [ALICE, BOB]


async def test_a_leaf_that_is_removed_without_a_running_agent_has_its_key_revoked_and_the_identity_stays(alice: Shell, bob: Shell) -> None:
    await alice.answer("group", "rotate", "orders")
    async with running(bob) as member:
        theirs = member.groups["orders"]
        leaf = theirs.leaf
        told = await alice.answer("group", "remove", "orders", "--leaf", str(leaf), "--yes")
        assert told["removed"] == [{"leaf": leaf, "identity": BOB}]
        await until(lambda: theirs.state == "removed")
        shown = await alice.answer("group", "policy", "show", "orders")
        assert (shown["barred"], shown["revoked"]) == ([], [fingerprint(alice, "bob")])


async def test_a_key_is_revoked_by_the_fingerprint_that_trust_show_prints(alice: Shell, bob: Shell) -> None:
    async with running(alice) as admin, running(bob) as member:
        await until(lambda: names(admin.groups["orders"]) == [ALICE, BOB])
        printed = (await alice.answer("trust", "show", "keys/acme/bob.pem"))["certificates"][0]["fingerprint"]
        told = await alice.answer("group", "revoke", "orders", *printed.split(), "--yes")
        assert told["settled"]
        await until(lambda: member.groups["orders"].state == "removed")
        assert names(admin.groups["orders"]) == [ALICE]
        own = fingerprint(alice, "alice")
        assert "cannot take itself away" in await refused(alice, 1, "group", "revoke", "orders", own, "--yes")


async def test_leave_and_join_with_a_running_agent_and_without_one(alice: Shell, bob: Shell) -> None:
    async with running(alice) as admin:
        group = admin.groups["orders"]
        async with running(bob) as member:
            theirs = member.groups["orders"]
            left = await bob.answer("group", "leave", "orders", "--yes")
            assert left["settled"]
            assert theirs.state == "left"
            await until(lambda: names(group) == [ALICE])  # whoever is there removes the leaf
            assert (await bob.answer("group", "leave", "orders", "--yes"))["intent"] is None
            joined = await bob.answer("group", "join", "orders")
            assert joined["settled"]
            assert theirs.state == "member"
        assert (await bob.answer("group", "leave", "orders", "--yes"))["settled"]
        await until(lambda: names(group) == [ALICE])
        assert (await bob.answer("group", "status", "orders"))["state"] == "left"
        assert "has left" in await refused(bob, 1, "group", "rotate", "orders")
        await bob.answer("group", "join", "orders")
        await until(lambda: names(group) == [ALICE, BOB])
    assert (await bob.answer("group", "status", "orders"))["state"] == "member"


async def test_who_has_left_is_shown_until_somebody_removes_the_leaf(alice: Shell, bob: Shell) -> None:
    await alice.answer("group", "rotate", "orders")
    await bob.answer("group", "rotate", "orders")
    await bob.answer("group", "leave", "orders", "--yes")
    async with running(alice) as admin:
        leaving = admin.groups["orders"].leaving
        if leaving:  # it is removed within 2 s
            assert [one.identity for one in leaving] == [BOB]
            assert [one["identity"] for one in (await alice.answer("group", "status", "orders"))["leaving"]] in ([BOB], [])
        await until(lambda: names(admin.groups["orders"]) == [ALICE])
        assert (await alice.answer("group", "status", "orders"))["leaving"] == []


async def test_the_last_member_cannot_leave_and_says_so(alice: Shell) -> None:
    await alice.answer("group", "rotate", "orders")
    assert "last member" in await refused(alice, 1, "group", "leave", "orders", "--yes")


@pytest.mark.parametrize("runs", [True, False], ids=["beside an agent", "without one"])
async def test_a_changed_file_is_applied_whom_it_has_no_place_for_goes(alice: Shell, bob: Shell, runs: bool) -> None:
    await alice.answer("group", "rotate", "orders")  # an admin's founding
    async with running(bob) as member:
        theirs = member.groups["orders"]
        same = await alice.answer("group", "policy", "apply", "orders", "--yes")
        assert same["intent"] is None
        change(alice, 'writer: ["agent://acme/*"]', 'writer: ["agent://acme/shop-*"]\n    key_retention: 2d')
        shown = await alice.answer("group", "policy", "show", "orders")
        assert shown["differs"] == ["- writer agent://acme/*", "+ writer agent://acme/shop-*", "= key_retention 2d"]
        if runs:
            async with running(alice) as admin:
                told = await alice.answer("group", "policy", "apply", "orders", "--yes")
                assert names(admin.groups["orders"]) == [ALICE]
        else:
            told = await alice.answer("group", "policy", "apply", "orders", "--yes")
        assert [one["identity"] for one in told["removed"]] == [BOB]
        await until(lambda: theirs.state == "removed")
        shown = await alice.answer("group", "policy", "show", "orders")
        assert (shown["differs"], shown["key_retention"], shown["barred"]) == ([], "2d", [])
        assert {(role["identity"], role["role"]) for role in shown["roles"]} == {(ALICE, "admin"), ("agent://acme/shop-*", "writer")}


async def test_no_wait_prints_the_id_of_what_the_agent_then_does(alice: Shell, bob: Shell) -> None:
    async with running(alice) as admin, running(bob) as member:
        await until(lambda: names(admin.groups["orders"]) == [ALICE, BOB])
        told = await alice.answer("group", "remove", "orders", BOB, "--yes", "--no-wait")
        assert (told["settled"], len(bytes.fromhex(told["intent"]))) == (False, 16)
        await until(lambda: names(admin.groups["orders"]) == [ALICE])
        await until(lambda: member.groups["orders"].state == "removed")
        assert not admin.groups["orders"].intents


async def test_what_is_asked_while_no_agent_runs_is_done_by_the_next_one(alice: Shell, bob: Shell) -> None:
    await alice.answer("group", "rotate", "orders")
    await bob.answer("group", "rotate", "orders")
    await alice.answer("group", "remove", "orders", BOB, "--yes", "--no-wait")
    assert (await alice.answer("group", "status", "orders"))["pending"] == ["remove"]
    async with running(alice) as admin:
        await until(lambda: names(admin.groups["orders"]) == [ALICE])


async def test_who_is_no_admin_is_told_so_and_nothing_is_asked(alice: Shell, bob: Shell) -> None:
    await alice.answer("group", "rotate", "orders")
    async with running(bob) as member:
        for words in (["remove", "orders", ALICE, "--yes"], ["readmit", "orders", ALICE], ["revoke", "orders", "00" * 32, "--yes"]):
            assert "only an admin" in await refused(bob, 1, "group", *words)
        await asyncio.sleep(1.2)  # the agent looks for rows of others once a second: it has had its chance to find one
        assert not member.groups["orders"].intents


async def test_a_person_is_asked_and_a_no_changes_nothing(alice: Shell, bob: Shell) -> None:
    await alice.answer("group", "rotate", "orders")
    await bob.answer("group", "rotate", "orders")
    code, out = await alice.run("group", "remove", "orders", BOB, stdin=b"n\n")
    assert (code, "nothing was changed" in out) == (1, True)
    assert BOB in out
    assert "fenced" in out
    code, out = await alice.run("group", "remove", "orders", BOB, "--json", stdin=b"y\n")
    assert (code, "--yes" in out) == (2, True)
    assert (await alice.answer("group", "policy", "show", "orders"))["barred"] == []
    code, out = await alice.run("group", "remove", "orders", BOB, stdin=b"y\n")
    assert (code, "done, in epoch" in out) == (0, True)
    assert (await alice.answer("group", "policy", "show", "orders"))["barred"] == [BOB]


@pytest.mark.parametrize("runs", [True, False], ids=["beside an agent", "without one"])
async def test_a_topic_out_of_reach_ends_the_command_and_the_cure_it_names_works(alice: Shell, bob: Shell, runs: bool) -> None:
    change(alice, "\ngroups:\n  orders:\n", f"\n  far: {{type: nats, servers: [{NOWHERE!r}]}}\n\ngroups:\n  orders:\n    log: main\n")
    await alice.answer("group", "rotate", "orders")
    await bob.answer("group", "rotate", "orders")

    async def ask() -> None:
        out = await refused(alice, 3, "group", "remove", "orders", BOB, "--yes")
        assert "--without orders" in out
        assert (await alice.answer("group", "status", "orders"))["pending"] == []
        told = await alice.answer("group", "remove", "orders", BOB, "--yes", "--without", "orders")
        assert [one["identity"] for one in told["removed"]] == [BOB]
        assert "did you mean `orders`" in await refused(alice, 2, "group", "remove", "orders", "agent://acme/x", "--without", "order")

    if not runs:
        await ask()
        return
    async with Agent.open(alice.folder / "policy.yaml", identity=ALICE) as agent:
        client = SecureNats(await nats.connect(alice.environ["NATS_URL"]), agent, broker="main")
        await agent.ready("orders", 20)
        await ask()
        await client.close()


async def test_a_store_that_is_behind_the_log_is_not_what_policy_show_tells(alice: Shell, bob: Shell) -> None:
    await bob.run("group", "rotate", "orders")
    await alice.answer("group", "rotate", "orders")
    before = await bob.answer("group", "policy", "show", "orders")
    await alice.answer("group", "remove", "orders", "agent://acme/carol", "--yes")
    after = await bob.answer("group", "policy", "show", "orders")
    assert (after["barred"], after["epoch"]) == (["agent://acme/carol"], before["epoch"] + 1)


async def test_reset_says_who_would_be_back_asks_and_the_agent_starts_over(alice: Shell, bob: Shell, server: NatsServer) -> None:
    await alice.answer("group", "rotate", "orders")
    await bob.answer("group", "rotate", "orders")
    kept = alice.folder / "kept"
    server.stop()
    shutil.copytree(server.store, kept)
    server.start()
    await alice.answer("group", "remove", "orders", BOB, "--yes")
    server.stop()
    shutil.rmtree(server.store)
    shutil.copytree(kept, server.store)
    server.start()
    async with running(alice, ready=False) as admin:
        await until(lambda: admin.groups["orders"].halted is not None)
        assert "running" in await refused(alice, 3, "group", "reset", "orders", "--yes")
    assert "group reset" in await refused(alice, 1, "group", "rotate", "orders")
    code, out = await alice.run("group", "reset", "orders", stdin=b"n\n")
    assert code == 1
    assert "log_rolled_back" in out
    assert BOB in out
    async with running(alice, ready=False) as admin:
        await until(lambda: admin.groups["orders"].halted is not None)  # a no, and a start, change nothing
    told: Any = await alice.answer("group", "reset", "orders", "--yes")
    assert (told["barred"], told["back"], told["halted"]) == ([BOB], [BOB], "log_rolled_back")
    assert (await alice.answer("group", "rotate", "orders"))["settled"]
    assert (await alice.answer("group", "status", "orders"))["halted"] is None


async def test_nothing_kept_and_no_log_are_said_and_nothing_is_made(alice: Shell) -> None:
    assert "start it once" in await refused(alice, 2, "group", "status", "orders")
    assert "no founding" in await refused(alice, 1, "group", "remove", "orders", BOB, "--yes")
    await refused(alice, 3, "group", "reset", "orders", "--yes")
    assert not (alice.folder / "state").exists()


async def test_an_intent_that_ended_refused_is_shown_with_its_reason(alice: Shell) -> None:
    """What a command itself would not ask for: that the only admin is none any more."""
    async with running(alice) as admin:
        async with beside(policy.load(alice.folder / "policy.yaml", identity=ALICE)) as store:
            assert store is not None
            intent = Intent(bytes(range(16)), plan.POLICY, 1, Delta(drop_roles=((ALICE, "admin"),)).encode())
            async with store.transaction() as tx:
                await tx.put(INTENT, prefix("orders") + intent.id, intent.encode())
        await until(lambda: admin.groups["orders"].refused)
        status = await alice.answer("group", "status", "orders")
        assert (status["pending"], [(one["intent"], one["kind"]) for one in status["refused"]]) == ([], [(intent.id.hex(), "policy")])
        assert status["refused"][0]["reason"] in (await alice.run("group", "status", "orders"))[1]


async def test_in_a_group_of_a_writers_founding_a_changed_file_is_applied_beside_the_agent_that_runs(alice: Shell, bob: Shell) -> None:
    await bob.answer("group", "rotate", "orders")  # founds: nobody else is there
    async with running(alice):
        change(alice, 'writer: ["agent://acme/*"]', 'writer: ["agent://acme/*"]\n    key_retention: 2d')
        assert (await alice.answer("group", "policy", "apply", "orders", "--yes"))["settled"]
    async with running(alice) as admin:  # by the changed file: an admin has signed what it says
        assert admin.groups["orders"].state == "member"
