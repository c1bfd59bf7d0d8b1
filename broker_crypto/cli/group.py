"""`broker-crypto group`: what a group is, and what can be asked of it, beside a running agent or without one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from broker_crypto import policy
from broker_crypto.cli import changing, resetting, terms
from broker_crypto.cli.changing import fingerprint_of
from broker_crypto.cli.output import Output, day, machine_readable, policy_option
from broker_crypto.cli.reach import beside, head_of, kept, own_identity
from broker_crypto.delivery.handle import Group
from broker_crypto.delivery.reading import read_group
from broker_crypto.records import Member

ALARMS = 3  # newest ones that a table shows


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
    """Everything about one group: epoch, members, own place, what is pending, alarms, the epoch authenticator.

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


async def _list(out: Output, loaded: policy.Policy) -> None:
    rows: list[dict[str, Any]] = []
    for section in loaded.groups(loaded.agent.identity):
        async with beside(loaded) as store:
            group = await read_group(store, section.log_name, own_identity(loaded)) if store else None
        role = section.role(loaded.agent.identity or "")
        epoch = group.epoch if group and group.epoch >= 0 else None
        rows.append({"group": section.name, "log": section.log, "role": role, "state": group.state if group else "new", "epoch": epoch})
    out.table(("group", "role", "state", "epoch"), [(r["group"], r["role"], r["state"], _or_dash(r["epoch"])) for r in rows])
    out.result({"groups": rows})


async def _status(out: Output, loaded: policy.Policy, name: str) -> None:
    group = await kept(loaded, name)
    head = await head_of(loaded, name)
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
        "refused": [{"intent": i.id.hex(), "kind": i.kind, "reason": i.refused} for i in group.refused],
        "leaving": [_member(m) for m in group.leaving],
        "halted": {"code": error.code, "hint": error.hint} if error else None,
        "alarms": [{"time": day(a.time), "epoch": a.epoch, "identity": a.identity, "key": fingerprint_of(a.key)} for a in group.alarms],
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
            *(("refused", f"{i.kind}, asked as {i.id.hex()}: {i.refused}") for i in group.refused),
            *_alarms(group),
        ],
    )
    out.say("")
    _table(out, group)
    out.result(found)


async def _members(out: Output, loaded: policy.Policy, name: str) -> None:
    group = await kept(loaded, name)
    _table(out, group)
    out.result({"group": group.name, "epoch": group.epoch, "members": [_member(m) for m in group.members]})


def _alarms(group: Group) -> Iterator[tuple[str, str]]:
    """Who locked this agent out, the newest first."""
    for alarm in list(reversed(group.alarms))[:ALARMS]:
        yield "alarm", f"{day(alarm.time)}: locked out of epoch {alarm.epoch} by {alarm.identity}, key {fingerprint_of(alarm.key)}"


def _table(out: Output, group: Group) -> None:
    notes: dict[int | None, str] = {m.leaf: "has left" for m in group.leaving}
    notes[group.leaf] = "this agent"
    rows = [(m.leaf, m.identity, m.role, day(m.last_path_ms), notes.get(m.leaf, "")) for m in group.members]
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


for _one in (*changing.COMMANDS, resetting.reset, terms.command):
    command.add_command(_one)
