"""`broker-crypto group rotate`, `remove`, `readmit`, `revoke`, `leave`, `join`: what a member or an admin asks of a group."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from broker_crypto import errors, policy
from broker_crypto.cli.asking import Wish, carry_out
from broker_crypto.cli.output import Command, Output, machine_readable, no, policy_option
from broker_crypto.cli.reach import Found, look
from broker_crypto.delivery import plan, rights
from broker_crypto.delivery.chain import Chain
from broker_crypto.delivery.deltas import Delta
from broker_crypto.delivery.group_policy import ADMIN, GroupPolicy, identity_of, key_of
from broker_crypto.delivery.membership import LEFT
from broker_crypto.delivery.writing import takes_away
from broker_crypto.identity import words
from broker_crypto.wire import names


def no_wait_option(command: Command) -> Command:
    """Adds --no-wait."""
    text = "Print the intent's id and end; the agent that runs on this store, or is started on it next, carries it out."
    return click.option("--no-wait", is_flag=True, help=text)(command)


def yes_option(command: Command) -> Command:
    """Adds --yes."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask before it is done.")(command)


def without_option(command: Command) -> Command:
    """Adds --without TOPIC."""
    text = "A topic whose end is not read, its broker being gone for good: all that they ever wrote there is refused. Repeatable."
    return click.option("--without", multiple=True, metavar="TOPIC", help=text)(command)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command was told beside its subject."""

    yes: bool = True
    no_wait: bool = False


# --- the commands -------------------------------------------------------------------------------------------------------


@click.command("rotate")
@click.argument("group")
@no_wait_option
@policy_option
@machine_readable
def rotate(out: Output, policy_file: Path, group: str, no_wait: bool) -> None:
    """Fresh keys for the own leaf: after a suspected compromise, or just so. Ends when the group's log shows it.

    \b
    Example:
      broker-crypto group rotate orders
    """
    loaded, found = _found(policy_file, group)
    _not_left(found)
    carry_out(out, loaded, found, Wish(plan.ROTATE), no_wait=no_wait)


@click.command("remove")
@click.argument("group")
@click.argument("identity", required=False)
@click.option("--leaf", type=click.IntRange(min=0), help="Only the member at this leaf: its key is revoked, the identity stays.")
@without_option
@yes_option
@no_wait_option
@policy_option
@machine_readable
def remove(out: Output, policy_file: Path, group: str, identity: str | None, **more: Any) -> None:
    """Bar IDENTITY, which takes all its leaves away, or (--leaf) revoke the key of one leaf. For admins.

    From the commit on nobody takes a record of theirs that lies at or behind the ends of the group's topics, also one that was sealed
    with old keys. A barred identity does not come back until `group readmit`.

    \b
    Example:
      broker-crypto group remove orders agent://acme/bob
      broker-crypto group remove orders --leaf 3 --without old-topic
    """
    leaf: int | None = more["leaf"]
    if (identity is None) == (leaf is None):
        raise errors.UsageError("name an identity or, with --leaf, a leaf", group=group)
    loaded, found = _found(policy_file, group)
    chain = _as_admin(found)
    delta = Delta(bar=(_canonical(identity),)) if identity is not None else Delta(revoke=(_key_at(chain, leaf, group),))
    change(out, loaded, found, (plan.REMOVE, replace(delta, without=more["without"])), asked=Asked(more["yes"], more["no_wait"]))


@click.command("revoke")
@click.argument("group")
@click.argument("fingerprint", nargs=-1, required=True)
@without_option
@yes_option
@no_wait_option
@policy_option
@machine_readable
def revoke(out: Output, policy_file: Path, group: str, fingerprint: tuple[str, ...], **more: Any) -> None:
    """Revoke a key, a member's or a CA's: FINGERPRINT in hex, as `trust show` and `group status` print it. For admins.

    Every leaf whose certificate chain holds the key is removed, and none comes back with it.

    \b
    Example:
      broker-crypto group revoke orders "4f1d 03ab ..."
    """
    delta = Delta(revoke=(read_fingerprint(fingerprint),), without=more["without"])
    loaded, found = _found(policy_file, group)
    _as_admin(found)
    change(out, loaded, found, (plan.REMOVE, delta), asked=Asked(more["yes"], more["no_wait"]))


@click.command("readmit")
@click.argument("group")
@click.argument("identity")
@no_wait_option
@policy_option
@machine_readable
def readmit(out: Output, policy_file: Path, group: str, identity: str, no_wait: bool) -> None:
    """Lift the bar of IDENTITY: its agents join again by themselves. Keys that were revoked stay so. For admins.

    \b
    Example:
      broker-crypto group readmit orders agent://acme/bob
    """
    delta = Delta(unbar=(_canonical(identity),))
    loaded, found = _found(policy_file, group)
    policy_now = _as_admin(found).policy
    if identity in policy_now.barred and delta.apply(policy_now).role_of(identity) is None:
        out.say(f"{identity} has no role in the group's policy: until it gets one (`group policy apply`) it stays outside")
    change(out, loaded, found, (plan.POLICY, delta), asked=Asked(no_wait=no_wait))


@click.command("leave")
@click.argument("group")
@yes_option
@no_wait_option
@policy_option
@machine_readable
def leave(out: Output, policy_file: Path, group: str, yes: bool, no_wait: bool) -> None:
    """Leave a group: nothing is sealed from now on, and when the log shows it all keys of the group are erased here.

    What was sealed for this agent can then no longer be opened by it. `group join` ends it. The last member cannot leave.

    \b
    Example:
      broker-crypto group leave orders --yes
    """
    loaded, found = _found(policy_file, group)
    if found.member.state == LEFT:
        _already(out, found, plan.LEAVE, "this agent has left")
        return
    members = {identity_of(leaf) for _, leaf in found.chain.public.tree.leaves()} if found.chain is not None else set()
    if members == {found.identity} and found.chain is not None and len(list(found.chain.public.tree.leaves())) == 1:
        raise errors.LastMember("the last member cannot leave; it just stops", group=found.name)
    out.say(f"{found.identity} leaves {found.name}: it seals nothing from now on, and all keys of the group are erased here")
    if not out.confirmed(yes):
        no()
        return
    carry_out(out, loaded, found, Wish(plan.LEAVE), no_wait=no_wait)


@click.command("join")
@click.argument("group")
@no_wait_option
@policy_option
@machine_readable
def join(out: Output, policy_file: Path, group: str, no_wait: bool) -> None:
    """Come back after `group leave`; ends as a member. What was sealed meanwhile stays closed.

    \b
    Example:
      broker-crypto group join orders
    """
    loaded, found = _found(policy_file, group)
    if found.member.mls is not None:
        _already(out, found, plan.JOIN, "this agent is a member")
        return
    if found.chain is not None and found.chain.policy.role_of(found.identity) is None:
        barred = found.identity in found.chain.policy.barred
        what = "the identity is barred" if barred else "the group's policy gives this identity no role"
        raise errors.NotAMember(what, group=found.name, identity=found.identity)
    carry_out(out, loaded, found, Wish(plan.JOIN), no_wait=no_wait)


COMMANDS = (rotate, remove, readmit, revoke, leave, join)


# --- changes of the policy ----------------------------------------------------------------------------------------------


def change(out: Output, loaded: policy.Policy, found: Found, wanted: tuple[str, Delta], *, asked: Asked) -> None:
    """Say what a change of the group's policy would do, ask, and have it done. `wanted` is the kind of intent and its delta.

    Raises UsageError, GroupError for what no commit could hold.
    """
    (kind, delta), chain = wanted, _as_admin(found)
    _known_topics(delta.without, chain)
    after = _after(chain, delta, found)
    if after is chain.policy:
        _already(out, found, kind, "the group's policy says so already")
        return
    gone = _gone(chain, after, found)
    ends = _say_consequences(out, chain, after, gone, without=delta.without)
    if not out.confirmed(asked.yes):
        no()
        return
    removed = [{"leaf": leaf, "identity": identity} for leaf, identity in gone]
    carry_out(out, loaded, found, Wish(kind, delta.encode(), ends), no_wait=asked.no_wait, removed=removed)


def _after(chain: Chain, delta: Delta, found: Found) -> GroupPolicy:
    try:
        after = delta.apply(chain.policy)
    except errors.MalformedInput as error:
        raise errors.GroupError(f"no group's policy can say that: {error.what}", group=found.name) from None
    if not after.has_admin():
        raise errors.GroupError("nobody would remain who may change the group's policy", group=found.name)
    return after


def _gone(chain: Chain, after: GroupPolicy, found: Found) -> list[tuple[int, str]]:
    """(leaf, identity) of who goes with the change."""
    gone = rights.uncounted(chain.public.tree, after)
    mine = found.member.mls.leaf if found.member.mls is not None else None
    if mine in gone or after.role_of(found.identity) is None:
        raise errors.GroupError("an admin cannot take itself away; another admin does, or `group leave`", group=found.name)
    return [(index, identity_of(leaf)) for index, leaf in chain.public.tree.leaves() if index in gone]


def _say_consequences(
    out: Output, chain: Chain, after: GroupPolicy, gone: list[tuple[int, str]], *, without: tuple[str, ...]
) -> tuple[str, ...]:
    """What the change does to others; the topics whose ends it reads."""
    fenced = bool(gone) or takes_away(chain.policy, after)
    if gone:
        out.say("removed in the same commit:")
        out.table(("leaf", "identity", ""), [(leaf, who, _stays(chain, gone, who)) for leaf, who in gone])
    elif fenced:
        out.say("nobody who is in the group now goes")
    ends = tuple(topic for topic in chain.policy.topics if topic not in without) if fenced else ()
    if ends:
        out.say(f"fenced where they end now, against old keys too: {', '.join(ends)}")
    if fenced and without:
        out.say(f"refused from the first record on, being fenced without an end: {', '.join(without)}")
    return ends


def _stays(chain: Chain, gone: Iterable[tuple[int, str]], identity: str) -> str:
    leaves = {index for index, _ in gone}
    others = [index for index, leaf in chain.public.tree.leaves() if index not in leaves and identity_of(leaf) == identity]
    return f"stays at leaf {', '.join(map(str, others))}" if others else ""


# --- what is asked of whom ----------------------------------------------------------------------------------------------


def _found(policy_file: Path, group: str) -> tuple[policy.Policy, Found]:
    loaded = policy.load(policy_file)
    found = asyncio.run(look(loaded, group))
    found.raise_if_stopped()
    return loaded, found


def _not_left(found: Found) -> None:
    if found.member.state == LEFT:
        raise errors.NotAMember("this agent has left", group=found.name)


def _as_admin(found: Found) -> Chain:
    """The head of a group of which this identity is an admin. Raises GroupError."""
    _not_left(found)
    chain = found.require_chain()
    if chain.policy.role_of(found.identity) != ADMIN:
        raise errors.GroupError("only an admin of the group changes its policy", group=found.name, identity=found.identity)
    return chain


def _already(out: Output, found: Found, kind: str, what: str) -> None:
    epoch = found.chain.epoch if found.chain is not None else None
    out.say(f"{what}: nothing to do")
    out.result({"group": found.name, "kind": kind, "epoch": epoch, "intent": None, "settled": True})


def _canonical(identity: str) -> str:
    if not names.is_identity(identity):
        raise errors.UsageError("no identity in its canonical form", identity=identity)
    return identity


def _key_at(chain: Chain, leaf: int | None, group: str) -> bytes:
    node = chain.public.tree.leaf(leaf) if leaf is not None else None
    if node is None:
        raise errors.UsageError("nobody is at this leaf", group=group, leaf=leaf)
    return key_of(node)


def _known_topics(topics: Iterable[str], chain: Chain) -> None:
    for topic in topics:
        if topic not in chain.policy.topics:
            near = difflib.get_close_matches(topic, chain.policy.topics, 1)
            raise errors.UsageError("no topic of the group", topic=topic, nearest=near[0] if near else None)


def read_fingerprint(given: Iterable[str]) -> bytes:
    """SHA-256 of a SubjectPublicKeyInfo, given in hex: groups, colons or one run. UsageError for anything else."""
    digits = "".join(given).replace(":", "").replace(" ", "").replace("-", "")
    try:
        digest = bytes.fromhex(digits)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise errors.UsageError("a fingerprint to revoke is 64 hex digits; words are only its beginning")
    return digest


def fingerprint_of(digest: bytes) -> str:
    """A fingerprint as `trust show` prints it."""
    return words.hex_groups(digest)
