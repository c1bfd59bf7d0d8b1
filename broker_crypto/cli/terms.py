"""`broker-crypto group policy`: what a group's own policy says, and making it say what the file does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from broker_crypto import parts, policy
from broker_crypto.cli.changing import Asked, change, fingerprint_of, no_wait_option, without_option, yes_option
from broker_crypto.cli.output import Output, day, machine_readable, policy_option
from broker_crypto.cli.reach import Found, look
from broker_crypto.delivery import deltas, plan
from broker_crypto.delivery.deltas import Delta
from broker_crypto.delivery.group_policy import GroupPolicy
from broker_crypto.errors import PeerError
from broker_crypto.identity.certificate import read_certificate
from broker_crypto.policy.explain import duration
from broker_crypto.records import Anchor


@click.group("policy", no_args_is_help=True)
def command() -> None:
    """The policy that all members of a group judge by.

    \b
    Example:
      broker-crypto group policy show orders
    """


@command.command("show")
@click.argument("group")
@policy_option
@machine_readable
def show(out: Output, policy_file: Path, group: str) -> None:
    """What the group's policy says at the head of its log, and in what the file differs.

    \b
    Example:
      broker-crypto group policy show orders
    """
    loaded = policy.load(policy_file)
    found = asyncio.run(look(loaded, group))
    chain = found.require_chain()
    terms, missing = chain.policy, list(_lines(_difference(found)))
    out.table(("", ""), _rows(terms, chain.epoch))
    if missing:
        out.say("", f"{policy_file} says otherwise; `group policy apply` would change:", *missing)
    out.result({"group": found.name, "epoch": chain.epoch, **_as_object(terms), "differs": missing})


@command.command("apply")
@click.argument("group")
@without_option
@yes_option
@no_wait_option
@policy_option
@machine_readable
def apply(out: Output, policy_file: Path, group: str, **more: Any) -> None:
    """Make the group's policy say what the file does: topics, anchors, roles, key_retention, max_offline. For admins.

    Whom the file has no place for is removed in the same commit. Barred identities and revoked keys are never taken from a file.

    \b
    Example:
      broker-crypto group policy apply orders
    """
    loaded = policy.load(policy_file)
    found = asyncio.run(look(loaded, group))
    found.raise_if_stopped()
    delta = _difference(found)
    out.say(*_lines(delta))
    if found.require_chain().public.suite.number != found.section.suite:
        out.say("the suite of a group is that of its founding; `generation` in the file founds it anew in another")
    delta = replace(delta, without=more["without"])
    change(out, loaded, found, (plan.POLICY, delta), asked=Asked(more["yes"], more["no_wait"]))


def _difference(found: Found) -> Delta:
    return deltas.between(found.require_chain().policy, parts.local_policy(found.section).policy)


def _lines(delta: Delta) -> Iterator[str]:
    """A delta for people, a difference a line."""
    for sign, roles in (("-", delta.drop_roles), ("+", delta.add_roles)):
        yield from (f"{sign} {role} {pattern}" for pattern, role in roles)
    for sign, topics in (("-", delta.drop_topics), ("+", delta.add_topics)):
        yield from (f"{sign} topic {topic}" for topic in topics)
    for sign, anchors in (("-", delta.drop_anchors), ("+", delta.add_anchors)):
        yield from (f"{sign} anchor {_fingerprint(anchor)} for {', '.join(anchor.identities)}" for anchor in anchors)
    for name, value in (("key_retention", delta.key_retention), ("max_offline", delta.max_offline)):
        if value is not None:
            yield f"= {name} {_duration(value)}"


def _rows(terms: GroupPolicy, epoch: int) -> Iterator[tuple[str, str]]:
    yield ("group", f"{terms.group}, at epoch {epoch}")
    yield ("founded", f"{day(terms.time)}, rules {terms.rules}")
    yield ("topics", ", ".join(terms.topics) or "none")
    yield from (("anchor", f"{_fingerprint(anchor)} for {', '.join(anchor.identities)}") for anchor in terms.anchors)
    yield from ((role, pattern) for pattern, role in terms.roles)
    yield from (("barred", identity) for identity in terms.barred)
    yield from (("revoked", fingerprint_of(key)) for key in terms.revoked)
    yield ("key_retention", _duration(terms.key_retention))
    yield ("max_offline", _duration(terms.max_offline))


def _as_object(terms: GroupPolicy) -> dict[str, Any]:
    return {
        "rules": terms.rules,
        "founded": day(terms.time),
        "topics": list(terms.topics),
        "anchors": [{"fingerprint": _fingerprint(one), "identities": list(one.identities)} for one in terms.anchors],
        "roles": [{"identity": pattern, "role": role} for pattern, role in terms.roles],
        "barred": list(terms.barred),
        "revoked": [fingerprint_of(key) for key in terms.revoked],
        "key_retention": _duration(terms.key_retention),
        "max_offline": _duration(terms.max_offline),
    }


def _duration(seconds: int) -> str:
    return {-1: "forever", -2: "broker"}.get(seconds) or duration(seconds)


def _fingerprint(anchor: Anchor) -> str:
    try:
        return fingerprint_of(read_certificate(anchor.certificate).key_hash)
    except PeerError:
        return "(unreadable, speaks for nobody)"
