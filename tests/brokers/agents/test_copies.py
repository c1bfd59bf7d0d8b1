"""A state folder that was copied and runs twice: exactly one of the two stops, and says why."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress

import pytest
from nats.aio.client import Client

from broker_crypto import errors
from broker_crypto.records import Halted, LockedOut
from tests.support.agents import Cast, Member, Realm, number_of, take, together, until


async def running_copy(realm: Realm, cast: Cast, name: str) -> Member:
    """A second agent on a copy of the folder of `name`."""
    shutil.copytree(realm.state(name), realm.folder / "copy" / "acme" / name)
    policy = realm.policy(lambda m: m["state_persistence"].__setitem__("path", "copy/{agent_id}/state.db"))
    return await cast(name, policy)


def in_use(member: Member) -> bool:
    return isinstance(member.group.halted, errors.IdentityInUse)


@pytest.mark.parametrize("both", [False, True], ids=["the copy commits", "both commit at once"])
async def test_of_a_copied_state_folder_exactly_one_ends_in_identity_in_use(realm: Realm, cast: Cast, raw: Client, both: bool) -> None:
    await realm.stream(raw)
    ops = await cast("ops")
    first = await cast("writer-1")
    await first.nc.close()
    await first.agent.close()
    writer = await cast("writer-1")  # nothing to read at its start: it counts as at the head at once
    await together(ops, writer)
    copy = await running_copy(realm, cast, "writer-1")
    await together(ops, writer, copy)

    async def rotate(member: Member) -> None:
        with suppress(errors.GroupError):
            await asyncio.wait_for(member.group.rotate(), 20)

    await asyncio.gather(*(rotate(member) for member in ((writer, copy) if both else (copy,))))
    await until(lambda: in_use(writer) or in_use(copy), "one stops")
    [stopped] = [member for member in (writer, copy) if in_use(member)]
    [alive] = [member for member in (writer, copy) if not in_use(member)]
    assert both or stopped is writer
    await together(ops, alive)
    assert [e.code for e in stopped.of(Halted)] == ["identity_in_use"]
    assert not stopped.of(LockedOut)
    assert "do not restart" in stopped.agent.health().reasons[0]
    with pytest.raises(errors.IdentityInUse):
        await stopped.publish(1)
    await alive.publish(2)
    await asyncio.wait_for(ops.group.rotate(), 20)
    await together(ops, alive)
    await alive.publish(3)
    assert [number_of(m.data) for m in await take(await ops.reader(), 2)] == [2, 3]
    assert in_use(stopped)
    assert not in_use(alive)
