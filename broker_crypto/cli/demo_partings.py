"""The second half of the demo: a member that loses its state, one that leaves, and one that is robbed and removed."""

from __future__ import annotations

import asyncio
import shutil

from broker_crypto.cli.demo_cast import copy_of, state_of
from broker_crypto.cli.demo_stage import ACK_WAIT, Stage

MORE = 100  # orders of each producer after each parting
FORGED = 10  # orders that the thief writes, each time


async def lose_state(stage: Stage) -> None:
    """The state folder of billing is deleted: it comes back with its old certificate and key, and reads on."""
    billing = stage.cast["billing"]
    stage.account("billing", await stage.read_out("billing"))
    await stage.acknowledged("billing")  # what came again would be of epochs that it knows no more
    await billing.kill()
    shutil.rmtree(state_of(stage.folder, "billing"))
    await billing.start(stage.url)
    back = await billing.ask("ready")
    for name in ("ops", "checkout", "audit"):
        await stage.cast[name].reaches(back["epoch"])
    await billing.ask("read", ack_wait=ACK_WAIT)
    where = f"leaf {back['leaf']}, in epoch {back['epoch']}"
    stage.say(f"billing's state folder was deleted; with its old key it is back in its own place, {where}, and reads on")
    stage.result.expect(back["members"] == len(stage.readers), "who lost its state is one member as before, not two")
    await stage.publish(MORE, "ops", "checkout")


async def leave(stage: Stage, early: int) -> None:
    """Audit leaves: its keys are gone from its own folder, the next commit of another takes its leaf, the others go on."""
    audit, result = stage.cast["audit"], stage.result
    report = await stage.read_out("audit", refused={"not_a_member_at_epoch": early})
    told, before = report["refused"].get("not_a_member_at_epoch", 0), await stage.cast["ops"].ask("epoch")
    result.expect(told == early, "audit was told of every earlier record that it was no member then")
    stage.account("audit", report)
    left = await audit.ask("leave")
    refusal = (await audit.ask("try_to_publish"))["refusal"]
    await audit.stop()
    stage.readers.remove("audit")
    stage.say(f"audit, which was told of {told:,} orders that it was no member then, left of its own will;")
    stage.say(f"  its folder held {left['before']} keys and secrets of the group and holds {left['after']} now")
    result.expect(left["before"] > 0 and left["after"] == 0, "who has left holds no key of the group any more")
    result.expect(refusal == "not_a_member", "who has left publishes nothing")
    for name in stage.readers:
        await stage.cast[name].reaches(before["epoch"] + 1)
    after = await stage.cast["ops"].ask("epoch")
    result.expect(after["members"] == len(stage.readers), "whoever saw that audit left took its leaf out")
    await stage.publish(MORE, "ops", "checkout")
    stage.say(f"ops, checkout and billing go on in epoch {after['epoch']}")


async def remove(stage: Stage) -> None:
    """A thief copies checkout's folder and does what checkout can; ops removes checkout; the thief tries again."""
    await _be_robbed(stage)
    first = await _read_and_write(stage)
    removal = await stage.last_position() + 1
    after = await stage.cast["ops"].ask("remove", who="checkout")
    stage.readers.remove("checkout")
    stage.say(f"ops removed checkout: epoch {after['epoch']}, {after['members']} members")
    await stage.cast["billing"].reaches(after["epoch"])
    await stage.publish(MORE, "ops")
    await _be_told(stage, after["epoch"])
    await _try_again(stage, removal, after["epoch"], first)


async def _be_robbed(stage: Stage) -> None:
    """The copy is made while checkout is down, so that it is whole; then ops renews its keys, to show that the copy can follow."""
    checkout, ops = stage.cast["checkout"], stage.cast["ops"]
    report = await stage.read_out("checkout")
    stage.account("checkout", report)
    await checkout.stop()
    copy_of(stage.folder, "checkout", stage.folder / "thief")
    shutil.copytree(state_of(stage.folder, "checkout"), stage.folder / "thief" / "before")
    await checkout.start(stage.url)
    await checkout.ask("ready")
    await checkout.ask("read", ack_wait=ACK_WAIT)
    rotated = await ops.ask("rotate")
    await asyncio.gather(*(stage.cast[name].reaches(rotated["epoch"]) for name in stage.readers))


async def _read_and_write(stage: Stage) -> int:
    """With the folder the thief is checkout, until somebody notices: the control of what comes after. Returns from where it read."""
    thief, result = stage.thief, stage.result
    first = await stage.last_position() + 1
    await stage.publish(MORE, "ops")
    last = await stage.last_position()
    await thief.start(stage.url)
    robbed = await thief.ask("rob", state="before")
    opened = await thief.ask("search", first=first, last=last)
    wrote = await thief.ask("write", first=stage.owe("checkout", FORGED), count=FORGED)
    result.published += wrote["count"]
    stage.say(f"a thief copied checkout's whole folder, store key included; with {robbed['keys']} keys and secrets it follows the group")
    into = max(robbed["entered"], default="none")
    stage.say(f"  into epoch {into}, opens {opened['opened']} of {opened['tried']} orders of it, and writes {wrote['count']} as checkout")
    result.expect(bool(robbed["entered"]), "the control: with the keys of a member the log leads into its next epoch")
    result.expect(opened["opened"] == opened["tried"] == MORE, "the control: with the keys of a member every record opens")
    for name in stage.readers:
        await stage.read_out(name)
    return first


async def _be_told(stage: Stage, epoch: int) -> None:
    """Checkout itself, still running: it reads that it was removed, reads nothing more, and publishes nothing."""
    checkout, result = stage.cast["checkout"], stage.result
    await checkout.reaches(epoch)
    report = await stage.read_out("checkout", refused={"not_a_member_at_epoch": MORE})
    told = await checkout.ask("epoch")
    refusal = (await checkout.ask("try_to_publish"))["refusal"]
    result.expect(told["state"] == "removed", "a removed member is told so")
    result.expect(report["refused"].get("not_a_member_at_epoch") == MORE, "a removed member cannot open the records that follow")
    result.expect(refusal == "not_a_member", "a removed member publishes nothing through its agent")
    stage.account("checkout", report)
    await checkout.stop()
    stage.say(f"checkout reads that it is {told['state']}; {MORE} new orders are refused to it, to publish ends in {refusal}")


async def _try_again(stage: Stage, removal: int, removed_in: int, first: int) -> None:
    """The thief, with the folder from before and from after: every key on every record, the shipped agent, and old keys to write with."""
    thief, result = stage.thief, stage.result
    shutil.copytree(state_of(stage.folder, "checkout"), stage.folder / "thief" / "after")
    robbed = await thief.ask("rob", state="after")
    last = await stage.last_position()
    search = await thief.ask("search", first=removal, last=last)
    again = await thief.ask("search", first=first, last=removal - 1)
    agent = await thief.ask("impersonate", first=first, removal=removal, last=last)
    by_agent = agent["opened"].get("after", 0)
    entered = [epoch for epoch in robbed["entered"] if epoch >= removed_in]
    result.removed_member_could_read = bool(search["opened"] or by_agent or entered)
    result.removed_member = f"{search['opened'] + by_agent} of {search['tried']}"
    older = f"{again['opened']} of {again['tried']} older ones do"
    newer = f"{search['opened']} of {search['tried']} new orders open"
    stage.say(f"the thief tries all its {robbed['keys']} keys and secrets: {newer}, {older};")
    stage.say(f"  the shipped agent, run on the stolen folder, opens {by_agent}; to publish ends in {agent['publish']}")
    result.expect(search["tried"] == MORE, "every record behind the removal was tried")
    result.expect(not result.removed_member_could_read, "nobody with the keys of a removed member reads what is sealed behind its removal")
    result.expect(again["opened"] == again["tried"] == MORE, "the control: the same keys still open what is older")
    result.expect(agent["opened"].get("before", 0) == MORE + FORGED, "the control: the same agent still opens what is older")
    result.expect(sum(agent["refused"].values()) == MORE, "the shipped agent refuses to a removed member what is newer")
    result.expect((agent["state"], agent["publish"]) == ("removed", "not_a_member"), "the agent writes nothing for a removed member")
    await _write_again(stage)


async def _write_again(stage: Stage) -> None:
    thief, result = stage.thief, stage.result
    wrote = await thief.ask("write", first=stage.numbers["checkout"], count=FORGED)
    for name in stage.readers:
        report = await stage.read_out(name, refused={"removed_sender": FORGED})
        told = report["refused"].get("removed_sender", 0)
        result.expect(told == wrote["count"], f"{name} refused what was written with a removed member's keys")
        stage.account(name, report)
    await thief.stop()
    stage.say(f"its {wrote['count']} new orders, sealed and signed with checkout's keys, were refused by all: removed_sender")
