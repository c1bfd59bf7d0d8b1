"""One switch for each thing that can be wrong with a record of the log: all who read judge it alike, and it changes nothing.

Who reads: the members, one who follows without secrets, and a newcomer who reads from the founding on.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

import broker_crypto
from broker_crypto.delivery import committer
from broker_crypto.delivery.membership import LOCKED_OUT, MEMBER, follow
from broker_crypto.mls.validation import Rule
from tests.support.lies import commits, histories, rights
from tests.support.lies.histories import CROWDED, RULED
from tests.support.lies.reach import NEVER_SAID, ON_COMMITS, OUT_OF_REACH, reasons_in, switches
from tests.support.lies.scene import FOLLOWER, NAMES, Scene, actors_rows, rows
from tests.support.lies.secret import SECRET
from tests.support.lies.switches import Switch
from tests.support.world import World, same_epoch

ROOM = Path(broker_crypto.__file__).parent
DOCS = ROOM.parent / "docs"
STATES = ("joining", "member", "locked_out", "removed", "left", "halted")
ALL = [one for table in ON_COMMITS for one in table]
SCENES: dict[str, Callable[[], Scene]] = {
    "ed25519": Scene,
    "p256": lambda: Scene(suite=2, scheme="p256"),
    "crowded": histories.crowded,
    "ruled": histories.ruled,
}
MADE: dict[str, Scene] = {}


def scene_of(kind: str) -> Scene:
    """Made once: what is refused changes nothing."""
    if kind not in MADE:
        MADE[kind] = SCENES[kind]()
    return MADE[kind]


def on(table: Iterable[Switch[Scene]], *kinds: str) -> list[object]:
    return [pytest.param(kind, one, id=f"{one.name}-{kind}") for one in table for kind in kinds]


# --- each by itself -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "switch"), [*on(ALL, "ed25519", "p256"), *on(CROWDED, "crowded"), *on(RULED, "ruled")])
def test_all_who_read_say_what_is_wrong_nothing_changes_and_the_next_honest_commit_counts(kind: str, switch: Switch[Scene]) -> None:
    scene = scene_of(kind)
    record = switch.write(scene)
    verdict = scene.judged(record)
    assert (verdict.kind, verdict.reason) == (switch.kind, switch.reason)
    assert verdict.chain is scene.chain
    scene.together_after(scene.honest(), record)


@pytest.mark.parametrize("kind", SCENES)
@pytest.mark.parametrize("who", ["member", "outside", "back with its key", "replica"])
def test_what_the_switches_bend_counts_unbent_and_is_entered_by_all(kind: str, who: str) -> None:
    scene = scene_of(kind)
    if who == "member":
        made = scene.member("ops").write()
    elif who == "back with its key":
        made = scene.outside(scene.owns["reader-1"]).write(remove=3)
    else:
        made = scene.outside("writer-1" if who == "replica" else "reader-9").write()
    if kind == "crowded" and who == "replica":
        made = scene.outside("ops").write()  # writer-1's key is full, its identity is not
    verdict = scene.judged(made.record)
    assert (verdict.kind, verdict.reason) == ("commit", "")
    assert verdict.chain is not None
    assert verdict.chain.public == made.group.public
    entry = scene.entry(made.record)
    for name, member in scene.members.items():
        if name != ("ops" if who == "member" else "reader-1" if who == "back with its key" else ""):
            step = follow(member, entry, "log", {}, {})
            assert (step.next.state, step.lock_out) == (MEMBER, None)
            assert step.next.mls is not None
            assert step.next.mls.epoch_authenticator == made.group.epoch_authenticator
            assert not step.next.mend


def test_the_rights_that_the_switches_lack_are_rights_of_others() -> None:
    """A remove by an admin, of one who left by anybody, a policy by an admin, fences by an admin, a leave: all count."""
    plain, crowded = scene_of("ed25519"), scene_of("crowded")
    ops = plain.member("ops")
    fences = commits.CommitData(plain.now, (rights.FencedTopic("orders", "id", ((-1, 5),)),)).encode()
    for record in (
        ops.write(commits.Remove(2)).record,
        ops.write(rights.policy(plain, key_retention=1)).record,
        ops.write(rights.policy(plain, barred=("agent://acme/writer-2",)), commits.Remove(2)).record,
        ops.write(data=fences).record,
    ):
        assert plain.judged(record).kind == "commit"
    assert plain.judged(ops.write(rights.policy(plain, rules=2)).record).kind == "upgrade"
    assert plain.judged(rights.leave(plain)).kind == "leave"
    assert crowded.judged(crowded.member("reader-1").write(commits.Remove(2)).record).kind == "commit"


# --- what only secrets show ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "switch"), on(SECRET, "ed25519", "p256"))
def test_a_lie_that_only_secrets_show_ends_the_epoch_for_all_and_each_says_why_it_is_out(kind: str, switch: Switch[Scene]) -> None:
    scene = scene_of(kind)
    record = switch.write(scene)
    verdict, entry = scene.judged(record), scene.entry(record)
    assert (verdict.kind, verdict.reason) == ("commit", "")
    assert verdict.chain is not None
    assert verdict.chain.epoch == scene.chain.epoch + 1
    outside, one_victim = "external_init" in switch.name, "one_member" in switch.name
    for name, member in scene.readers().items():
        if name == "writer-1" and not outside:
            continue  # its maker has what it staged
        step = follow(member, entry, "log", {}, {})
        assert step.next.chain == verdict.chain
        out = bool(switch.reason) and name != FOLLOWER and (not one_victim or name == "ops")
        assert step.lock_out == (switch.reason if out else None)
        if out:
            assert (step.next.state, step.next.mls, step.epoch) == (LOCKED_OUT, None, None)
            assert step.alarm == ("agent://acme/writer-9" if outside else "agent://acme/writer-1")
        elif name != FOLLOWER:
            assert step.next.mend == (switch.rule == "external_pub")


# --- bits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["member", "outside"])
def test_every_single_bit_flip_of_a_commit_is_judged_alike_changes_nothing_and_the_genuine_one_counts(who: str) -> None:
    scene = scene_of("ed25519")
    honest = scene.honest() if who == "member" else committer.join(scene.chain, scene.world.own("writer-9"), scene.now, scene.world.random)
    readers = [scene.members["writer-2"], scene.readers()[FOLLOWER], scene.newcomer()]
    for bit in range(8 * len(honest.record)):
        flipped = bytearray(honest.record)
        flipped[bit // 8] ^= 1 << bit % 8
        entry, said = scene.entry(bytes(flipped)), set()
        for reader in readers:
            step = follow(reader, entry, "log", {}, {})
            said.add((step.verdict.kind, step.verdict.reason, step.verdict.sender))
            assert (step.moved, step.epoch, step.lock_out) == (False, None, None), bit
            assert replace(step.next, cursor=reader.cursor) == reader, bit
            if bit % 64 == 0:
                assert rows(step.next) == rows(reader)
        assert len(said) == 1, bit
        assert next(iter(said))[0] in ("invalid", "passed", "stale", "early"), bit
    assert scene.judged(honest.record).kind == "commit"
    if who == "member":
        scene.together_after(honest, bytes(flipped))


# --- the whole table ----------------------------------------------------------------------------------------------------


def test_every_rule_of_the_engine_has_a_switch_or_a_reason_why_no_record_can_break_it() -> None:
    broken = {one.rule for one in switches()} | {one.reason for one in switches()}
    rules = {rule.value for rule in Rule}
    assert rules - broken - set(OUT_OF_REACH) == set()
    assert broken & set(OUT_OF_REACH) == set()
    assert set(OUT_OF_REACH) <= rules


def test_every_rule_of_the_log_has_a_switch_or_a_reason_why_no_record_can_break_it() -> None:
    files = [ROOM / "delivery" / name for name in ("rules.py", "rights.py", "group_policy.py", "chain.py", "log_records.py")]
    files += [ROOM / "identity" / name for name in ("profile.py", "certificate.py")]
    said = reasons_in(files)
    assert {"remove_right", "founding_form", "time", "anchor.identity", "certificate.size", "role", "extensions"} <= said
    broken = {one.reason for one in switches()}
    assert said - broken - set(NEVER_SAID) == set()
    assert broken & set(NEVER_SAID) <= {"credential"}  # of a founding
    assert set(NEVER_SAID) <= said


def named_in(page: str) -> set[str]:
    """The rules in the tables of a page: what stands in backticks in a first or second column that holds nothing else."""
    found: set[str] = set()
    for line in (DOCS / page).read_text().splitlines():
        for cell in line.split("|")[1:3] if line.startswith("|") else ():
            if re.fullmatch(r"( *`[a-z_.]+`,?)+ *", cell):
                found |= set(re.findall(r"`([a-z_.]+)`", cell))
    return found


def test_the_pages_name_the_rules_that_have_switches_and_no_others() -> None:
    log = named_in("groups.md") - set(STATES)
    engine, profile = named_in("validation.md"), named_in("certificates.md")
    assert engine == {rule.value for rule in Rule}
    assert {"remove_right", "founding_form", "rate"} <= log
    assert {"anchor.identity", "certificate.size"} <= profile
    broken = {one.reason for one in switches()} | {one.rule for one in switches()}
    assert (log | profile) - broken - set(NEVER_SAID) == set()
    said = {one.reason for one in switches() if one.kind == "invalid"}
    assert {name for name in said - log - profile - engine if not name.startswith("der.")} == {"malformed_input"}


def test_the_reasons_in_the_table_are_names_of_rules_and_none_is_only_malformed() -> None:
    for one in switches():
        assert one.reason or one.kind != "invalid", one.name
        if one.reason in ("malformed_input", "record"):
            assert one.rule != one.reason, one.name


# --- all of it in one log -----------------------------------------------------------------------------------------------


async def test_a_log_full_of_wrong_records_moves_cursors_only_and_all_are_in_one_epoch_behind_it() -> None:
    world = World()
    actors = [world.actor(name) for name in NAMES]
    await world.settle(*actors)
    scene = Scene.__new__(Scene)
    scene.suite, scene.scheme, scene.world, scene.owns, scene.members = 1, "ed25519", world, {}, {}
    scene.take(actors)
    world.broker.max_record *= 2  # a broker may take more than readers do
    log = world.broker.group_log()
    await log.open("orders", create=False)
    for switch in ALL:
        await log.append(switch.write(scene), None)
    before = [(actors_rows(a), rows(a.loop.member), list(a.events), a.view) for a in actors]
    for actor in actors:
        await actor.turn()
    after = [(actors_rows(a), rows(a.loop.member), list(a.events), a.view) for a in actors]
    for was, now in zip(before, after, strict=True):
        assert was[:3] == now[:3]
        assert was[3] is not None
        assert now[3] is not None
        assert set(was[3].epochs) == set(now[3].epochs)
    wrong = [one.kind for one in ALL]
    assert all(a.verdicts[-len(wrong) :] == wrong for a in actors)
    follower, late = world.actor("stranger"), world.actor("reader-9")
    want = asyncio.ensure_future(actors[1].group.rotate())
    await asyncio.sleep(0)
    await world.settle(*actors, follower, late)
    await want
    assert same_epoch(*actors, late)
    assert follower.loop.member.chain == actors[0].loop.member.chain
    assert follower.state == "joining"
    for reader in (follower, late):
        assert [reader.verdicts.count(kind) for kind in ("invalid", "passed")] == [wrong.count(kind) for kind in ("invalid", "passed")]
