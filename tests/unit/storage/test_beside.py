"""A command beside a running agent: it reads, it adds intents, it can do no harm."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker_crypto import storage
from broker_crypto.errors import StateVersionError, UsageError
from broker_crypto.storage import SqliteStore, StateStore
from tests.unit.storage.conftest import GivenKey
from tests.unit.storage.rows import content, fill

ROWS = {("group", b"orders"): b"state", ("intent", b"1"): b"rotate"}


@pytest.fixture
async def agent(path: Path) -> AsyncIterator[StateStore]:
    store = storage.open(path, GivenKey())
    await fill(store, ROWS)
    yield store
    await store.close()


@pytest.fixture
async def command(agent: StateStore, path: Path) -> AsyncIterator[StateStore]:
    store = storage.open(path, GivenKey(), beside=True)
    yield store
    await store.close()


async def test_a_command_reads_what_the_agent_wrote_as_it_writes_it(agent: StateStore, command: StateStore) -> None:
    assert await content(command) == ROWS
    await fill(agent, {("group", b"orders"): b"newer"})
    assert await content(command) == ROWS | {("group", b"orders"): b"newer"}
    assert isinstance(agent, SqliteStore)
    assert isinstance(command, SqliteStore)
    assert command.store_id == agent.store_id
    assert (agent.beside, command.beside) == (False, True)


async def test_a_block_of_a_command_sees_one_state_of_the_store(agent: StateStore, command: StateStore) -> None:
    async with command.transaction() as tx:
        assert await tx.get("group", b"orders") == b"state"
        await fill(agent, {("group", b"orders"): b"newer", ("epoch", b"1"): b"with it"})
        assert await tx.get("group", b"orders") == b"state"
        assert await tx.scan("epoch") == []
        await tx.put("intent", b"2", b"join")
    assert await content(agent) == ROWS | {("group", b"orders"): b"newer", ("epoch", b"1"): b"with it", ("intent", b"2"): b"join"}


async def test_the_agent_notices_an_intent_once_and_nothing_else(agent: StateStore, command: StateStore) -> None:
    assert not await agent.changed_by_others()
    await fill(agent, {("epoch", b"1"): b"own"})
    await agent.erased()
    await content(command)
    assert not await agent.changed_by_others()
    await fill(command, {("intent", b"2"): b"join"})
    await fill(agent, {("epoch", b"2"): b"own"})
    assert await agent.changed_by_others()
    assert not await agent.changed_by_others()
    assert await content(agent, ["intent"]) == {("intent", b"1"): b"rotate", ("intent", b"2"): b"join"}


async def test_a_command_notices_what_becomes_of_its_intent(agent: StateStore, command: StateStore) -> None:
    await fill(command, {("intent", b"2"): b"join"})
    assert not await command.changed_by_others()
    async with agent.transaction() as tx:
        await tx.delete("intent", b"2")
    assert await command.changed_by_others()
    assert await content(command) == ROWS


async def test_a_command_writes_nothing_but_new_intents(agent: StateStore, command: StateStore) -> None:
    async with command.transaction() as tx:
        calls = [tx.put("group", b"orders", b"x"), tx.put("intents", b"2", b"x"), tx.delete("intent", b"1"), tx.delete("group", b"o")]
        for call in calls:
            with pytest.raises(UsageError):
                await call
    with pytest.raises(UsageError):
        await fill(command, {("intent", b"1"): b"another"})
    with pytest.raises(UsageError):
        await fill(command, {("intent", b"2"): b"new", ("intent", b"1"): b"another"})
    assert await content(agent) == ROWS
    assert not await agent.changed_by_others()


async def test_an_intent_may_be_left_while_no_agent_runs(path: Path) -> None:
    agent = storage.open(path, GivenKey())
    await fill(agent, ROWS)
    await agent.close()
    command = storage.open(path, GivenKey(), beside=True)
    await fill(command, {("intent", b"2"): b"join"})
    agent = storage.open(path, GivenKey())  # the command holds no lock
    assert await content(agent) == ROWS | {("intent", b"2"): b"join"}
    await command.close()
    await agent.close()


async def test_a_command_of_an_older_version_stops_when_the_store_goes_forward(agent: StateStore, command: StateStore) -> None:
    assert isinstance(agent, SqliteStore)
    await agent._writer.run(lambda: agent._rows._connection.execute("PRAGMA user_version = 2").fetchall())
    with pytest.raises(StateVersionError):
        await content(command)
    await agent._writer.run(lambda: agent._rows._connection.execute("PRAGMA user_version = 1").fetchall())
    assert await content(command) == ROWS
