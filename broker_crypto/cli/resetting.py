"""`broker-crypto group reset`: starting a group over that halted for its log."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from broker_crypto import parts, policy
from broker_crypto.cli.changing import fingerprint_of, yes_option
from broker_crypto.cli.output import Output, machine_readable, no, policy_option
from broker_crypto.cli.reach import log_broker, reached
from broker_crypto.delivery import resetting
from broker_crypto.delivery.chain import Chain
from broker_crypto.delivery.reading import read_member
from broker_crypto.errors import BrokerUnavailable, GroupLogTruncated, PolicyError, StoreUnavailable, UsageError
from broker_crypto.storage.port import StateStore

CUT = "the log has lost its beginning: make it whole, or away with it, first; an agent that starts over from it would halt again"


@click.command("reset")
@click.argument("group")
@yes_option
@policy_option
@machine_readable
def reset(out: Output, policy_file: Path, group: str, yes: bool) -> None:
    """Start a group over from the log that is there now, after it halted: LogRolledBack, GroupLogTruncated.

    Find out first why the log is another one. What was kept of it is dropped, and what was asked of the group; epochs that were read
    stay readable until `key_retention`. No agent may run on the store meanwhile: stop it, and start it again afterwards.

    \b
    Example:
      broker-crypto group reset orders
    """
    if not asyncio.run(_reset(out, policy.load(policy_file), group, yes=yes)):
        no()


async def _reset(out: Output, loaded: policy.Policy, name: str, *, yes: bool) -> bool:
    section = loaded.group(name)
    store = _locked(loaded)
    try:
        old = await read_member(store, section.log_name)
        if old.chain is None and old.cursor is None:
            raise UsageError("nothing is kept of this group", group=name)
        new = await _log_now(loaded, name)
        lost = resetting.lost(old.chain, new.chain)
        out.say(f"{section.log_name}: {old.halt or 'not halted'}, epoch {old.chain.epoch if old.chain else '-'} is kept")
        out.say(f"the log now: {new.what}")
        _say_lost(out, lost, new)
        if not out.confirmed(yes):
            return False
        await _drop(store, section.log_name)
    finally:
        await store.close()
    out.say("done: the agent follows the log that is there when it is started")
    out.result(
        {
            "group": section.log_name,
            "reset": True,
            "halted": old.halt,
            "log": new.what,
            "barred": list(lost.barred),
            "revoked": [fingerprint_of(key) for key in lost.revoked],
            "back": list(lost.back),
        }
    )
    return True


def _locked(loaded: policy.Policy) -> StateStore:
    """The store, with its lock. StateLocked while an agent runs on it, StoreUnavailable where there is none."""
    _, kept = loaded.require_agent()
    if kept.path is None or not Path(kept.path).exists():
        raise StoreUnavailable("there is no store", path=kept.path)
    return parts.open_store(kept)


async def _drop(store: StateStore, group: str) -> None:
    await resetting.reset(store, group, time.time_ns() // 1_000_000)


@dataclass(frozen=True, slots=True)
class _Log:
    """The log that is there now: what it says, and the same for people."""

    chain: Chain | None
    what: str


async def _log_now(loaded: policy.Policy, name: str) -> _Log:
    """Raises BrokerUnavailable where its broker is out of reach, GroupLogTruncated where it cannot be read from the founding."""
    section = loaded.group(name)
    broker = log_broker(loaded, section)
    if broker is None:
        raise PolicyError("the policy names no broker that holds the group's log", group=name)
    async with reached(loaded, broker.name) as connection:
        log: Any = connection.group_log(broker.replicas)
        try:
            chain = await resetting.chain_of(log, section.log_name)
        except GroupLogTruncated as error:
            error.hint = CUT
            raise
        except BrokerUnavailable as error:
            return _Log(None, f"not there ({error.what}): the agent makes it anew")
        finally:
            await log.close()
    if chain is None:
        return _Log(None, "no founding: the group is founded anew")
    return _Log(chain, f"epoch {chain.epoch}, {len(list(chain.public.tree.leaves()))} members, founded by {chain.founder}")


def _say_lost(out: Output, lost: resetting.Lost, new: _Log) -> None:
    rows = [("no longer barred", identity) for identity in lost.barred]
    rows += [("no longer revoked", fingerprint_of(key)) for key in lost.revoked]
    rows += [("a member there, removed or barred here", identity) for identity in lost.back]
    if not rows:
        out.say("nobody whom the old state keeps out would be back")
        return
    out.table(("", ""), rows)
    if lost.back or (new.chain is None and (lost.barred or lost.revoked)):
        out.say("whom the group is to be without must be removed again afterwards: `group remove`, `group revoke`")
