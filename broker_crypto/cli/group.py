"""`broker-crypto group`: what a group is, and what can be asked of it, beside a running agent or without one."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click

from broker_crypto import Agent, parts, policy
from broker_crypto.cli.output import Output, day, machine_readable, no, policy_option
from broker_crypto.cli.reach import reached
from broker_crypto.delivery.handle import Group
from broker_crypto.delivery.reading import read_group
from broker_crypto.delivery.state import INTENT, Intent, prefix
from broker_crypto.errors import BrokerUnavailable, GroupError, PolicyError, StateLocked, StoreUnavailable, UsageError
from broker_crypto.records import Member
from broker_crypto.storage.port import StateStore

HEAD_SECONDS = 3.0  # how long `status` tries to reach the broker
SETTLED_SECONDS = 60.0  # how long a command waits for its intent before it says that it goes on waiting


@click.group("group", no_args_is_help=True)
def command() -> None:
    """Groups: what they are and what can be asked of them.

    \b
    Example:
      broker-crypto group status orders
    """


@command.command("list")
@policy_option
@machine_readable
def list_(out: Output, policy_file: Path) -> None:
    """The groups of the policy in which this identity has a role, and where it stands in each.

    \b
    Example:
      broker-crypto group list --policy policy.yaml
    """
    asyncio.run(_list(out, policy.load(policy_file)))


@command.command("status")
@click.argument("group")
@policy_option
@machine_readable
def status(out: Output, policy_file: Path, group: str) -> None:
    """Everything about one group: epoch, members, own place, what is pending, the epoch authenticator to compare by voice.

    \b
    Example:
      broker-crypto group status orders --json
    """
    asyncio.run(_status(out, policy.load(policy_file), group))


@command.command("members")
@click.argument("group")
@policy_option
@machine_readable
def members(out: Output, policy_file: Path, group: str) -> None:
    """Who is in a group.

    \b
    Example:
      broker-crypto group members orders
    """
    asyncio.run(_members(out, policy.load(policy_file), group))


@command.command("rotate")
@click.argument("group")
@click.option("--no-wait", is_flag=True, help="Print the intent's id and end; a running agent carries it out.")
@policy_option
@machine_readable
def rotate(out: Output, policy_file: Path, group: str, no_wait: bool) -> None:
    """Fresh keys for the own leaf: after a suspected compromise, or just so. Ends when the group's log shows it.

    \b
    Example:
      broker-crypto group rotate orders
    """
    asyncio.run(_rotate(out, policy.load(policy_file), group, no_wait=no_wait))


async def _list(out: Output, loaded: policy.Policy) -> None:
    rows: list[dict[str, Any]] = []
    for section in loaded.groups(loaded.agent.identity):
        async with _beside(loaded) as store:
            group = await read_group(store, section.log_name, _own(loaded)) if store else None
        role = section.role(loaded.agent.identity or "")
        epoch = group.epoch if group and group.epoch >= 0 else None
        rows.append({"group": section.name, "log": section.log, "role": role, "state": group.state if group else "new", "epoch": epoch})
    out.table(("group", "role", "state", "epoch"), [(r["group"], r["role"], r["state"], _or_dash(r["epoch"])) for r in rows])
    out.result({"groups": rows})


async def _status(out: Output, loaded: policy.Policy, name: str) -> None:
    group = await _read(loaded, name)
    head = await _head(loaded, name)
    error, age = group.halted, None
    if group.last_commit_ms is not None:
        age = max(0, time.time_ns() // 1_000_000 - group.last_commit_ms) // 1000
    found = {
        "group": group.name,
        "state": group.state,
        "epoch": group.epoch,
        "leaf": group.leaf,
        "authenticator": group.authenticator.hex() if group.authenticator else None,
        "position": group.position,
        "head": head,
        "seconds_since_last_commit": age,
        "pending": list(group.intents),
        "halted": {"code": error.code, "hint": error.hint} if error else None,
        "members": [_member(m) for m in group.members],
    }
    out.table(
        ("", ""),
        [
            ("group", group.name),
            ("state", group.state if error is None else f"{group.state}: {error}"),
            ("epoch", _or_dash(group.epoch if group.epoch >= 0 else None)),
            ("own leaf", _or_dash(group.leaf)),
            ("read up to", f"position {group.position}, the log's end {'is out of reach' if head is None else f'at {head}'}"),
            ("last commit", "-" if age is None else f"{age} s ago"),
            ("pending", ", ".join(group.intents) or "nothing"),
            ("authenticator", _spoken(group.authenticator)),
        ],
    )
    out.say("")
    _table(out, group)
    out.result(found)


async def _members(out: Output, loaded: policy.Policy, name: str) -> None:
    group = await _read(loaded, name)
    _table(out, group)
    out.result({"group": group.name, "epoch": group.epoch, "members": [_member(m) for m in group.members]})


def _table(out: Output, group: Group) -> None:
    rows = [(m.leaf, m.identity, m.role, day(m.last_path_ms), "this agent" if m.leaf == group.leaf else "") for m in group.members]
    out.table(("leaf", "identity", "role", "last fresh keys", ""), rows)


def _member(member: Member) -> dict[str, Any]:
    return {"leaf": member.leaf, "identity": member.identity, "role": member.role, "last_path": day(member.last_path_ms)}


def _spoken(authenticator: bytes | None) -> str:
    if authenticator is None:
        return "-"
    digits = authenticator.hex()
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


async def _read(loaded: policy.Policy, name: str) -> Group:
    section = loaded.group(name)
    async with _beside(loaded) as store:
        if store is None:
            raise UsageError("this agent has kept nothing yet; start it once", group=name)
        return await read_group(store, section.log_name, _own(loaded))


async def _head(loaded: policy.Policy, name: str) -> int | None:
    """The last position of the group's log, 0 or -1 where nothing is; None where its broker is not named or out of reach."""
    section = loaded.group(name)
    broker = loaded.brokers.get(section.log or next(iter(loaded.brokers), ""))
    if broker is None:
        return None
    try:
        async with asyncio.timeout(HEAD_SECONDS), reached(loaded, broker.name) as connection:
            log = connection.group_log(broker.replicas)
            await log.open(section.log_name, create=False)
            head: int = await log.head()
            await log.close()
    except (BrokerUnavailable, PolicyError, TimeoutError):
        return None
    return head - 1


def _own(loaded: policy.Policy) -> str:
    return loaded.require_agent()[0].identity or ""


@asynccontextmanager
async def _beside(loaded: policy.Policy) -> AsyncIterator[StateStore | None]:
    """The agent's store, to read and to ask; None where there is none yet."""
    _, kept = loaded.require_agent()
    if kept.backend == "memory" or kept.path is None or not os.path.exists(kept.path):  # noqa: ASYNC240  a local file, once
        yield None
        return
    store = parts.open_store(kept, beside=True)
    try:
        yield store
    finally:
        await store.close()


async def _rotate(out: Output, loaded: policy.Policy, name: str, *, no_wait: bool) -> None:
    section = loaded.group(name)
    try:
        async with Agent.open(loaded) as agent:
            group = agent.follow(name)
            await agent.ready(timeout=SETTLED_SECONDS)
            await group.rotate()
            epoch = group.epoch
    except StateLocked:
        await _ask_running(out, loaded, section.log_name, no_wait=no_wait)
        return
    out.say(f"done, in epoch {epoch}")
    out.result({"group": section.log_name, "epoch": epoch, "settled": True})


async def _ask_running(out: Output, loaded: policy.Policy, group: str, *, no_wait: bool) -> None:
    """Store an intent beside the running agent, and wait until its row is gone or says why not."""
    async with _beside(loaded) as store:
        if store is None:
            raise StoreUnavailable("the running agent's store is not there", group=group)
        intent = Intent(parts.fresh_id(), "rotate", time.time_ns() // 1_000_000)
        key = prefix(group) + intent.id
        async with store.transaction() as tx:
            await tx.put(INTENT, key, intent.encode())
        settled = False if no_wait else await _settled(out, store, key, group)
        epoch = (await read_group(store, group, _own(loaded))).epoch
    out.say(f"done, in epoch {epoch}" if settled else f"asked of the running agent as {intent.id.hex()}")
    out.result({"group": group, "epoch": epoch, "intent": intent.id.hex(), "settled": settled})
    if not settled and not no_wait:
        no()


async def _settled(out: Output, store: StateStore, key: bytes, group: str) -> bool:
    out.say("an agent runs on this store; it is asked, and this command waits for the group's log to show it")
    deadline = time.monotonic() + SETTLED_SECONDS
    while time.monotonic() < deadline:
        async with store.transaction() as tx:
            row = await tx.get(INTENT, key)
        if row is None:
            return True
        refused = Intent.decode(row).refused
        if refused is not None:
            raise GroupError("the group's log refused it", group=group, reason=refused)
        await asyncio.sleep(0.1)
    return False
