"""What is wrong only behind what went before: too many commits, a leave, a bar, a revoked key, a removed member."""

from __future__ import annotations

from dataclasses import replace

from broker_crypto import limits
from broker_crypto.mls.proposals import Remove
from tests.support.lies.rights import key_hash, leave, policy
from tests.support.lies.scene import Scene
from tests.support.lies.switches import Switches

CROWDED: Switches[Scene] = Switches()  # written on the scene `crowded`
RULED: Switches[Scene] = Switches()  # written on the scene `ruled`


def crowded() -> Scene:
    """writer-1 has committed four times within 10 s, four keys of writer-2 sixteen times; writer-2 (leaf 2) said that it leaves."""
    scene = Scene()
    for number in range(2, 5):
        scene.join(f"writer-2/{number}", scene.world.own("writer-2"))
    for name in ("writer-1", "writer-2", *(f"writer-2/{number}" for number in range(2, 5))):
        for _ in range(limits.RATE_KEY - 1):
            scene.rotate(name)
    assert scene.add(leave(scene)).kind == "leave"
    return scene


@CROWDED.breaks("remove_right")
def a_member_that_removes_one_who_left_and_one_who_did_not(scene: Scene) -> bytes:
    return scene.member("reader-1").write(Remove(2), Remove(1)).record


@CROWDED.breaks("rate", rule="rate_key")
def a_fifth_commit_of_one_key(scene: Scene) -> bytes:
    return scene.member("writer-1").write().record


@CROWDED.breaks("rate", rule="rate_key")
def a_key_that_comes_back_from_outside_for_the_fifth_time(scene: Scene) -> bytes:
    return scene.outside(scene.owns["writer-1"]).write(remove=1).record


@CROWDED.breaks("rate", rule="rate_identity")
def a_seventeenth_commit_of_one_identity_by_a_fresh_key(scene: Scene) -> bytes:
    return scene.outside("writer-2").write().record


def ruled() -> Scene:
    """The admin has revoked a key that is not in, barred writer-8, and removed and barred writer-2, whose place writer-7 has now."""
    scene = Scene()
    scene.owns["revoked"] = scene.world.own("writer-6")
    changed = policy(scene, revoked=(key_hash(scene, "revoked"),), barred=("agent://acme/writer-2", "agent://acme/writer-8"))
    staged = scene.member("ops").write(changed, Remove(2)).staged
    assert scene.add(staged.record, {"ops": staged}).kind == "commit"
    del scene.members["writer-2"]
    scene.join("writer-7", scene.world.own("writer-7"))
    return scene


@RULED.breaks("chain.revoked")
def a_joiner_whose_key_is_revoked(scene: Scene) -> bytes:
    return scene.outside(scene.owns["revoked"]).write().record


@RULED.breaks("role", rule="barred")
def a_joiner_whose_identity_is_barred(scene: Scene) -> bytes:
    return scene.outside("writer-8").write().record


@RULED.breaks("resync_key")
def a_removed_member_that_removes_who_has_its_place_now(scene: Scene) -> bytes:
    return scene.outside(scene.owns["writer-2"]).write(remove=2).record


@RULED.breaks("role", rule="barred")
def a_removed_member_that_comes_back_by_itself(scene: Scene) -> bytes:
    return scene.outside(scene.owns["writer-2"]).write().record


@RULED.breaks("message_signature")
def a_removed_member_that_commits_in_its_old_place(scene: Scene) -> bytes:
    old = replace(scene.member("writer-1"), group=replace(scene.group("writer-1"), leaf=2), own=scene.owns["writer-2"].leaf(scene.suite))
    return old.write().record


@RULED.breaks("", rule="second_founding", kind="passed")
def a_founding_behind_a_policy_that_changed(scene: Scene) -> bytes:
    return scene.entries[0].record
