"""Every rule that a commit can break: each is refused by name, by the follower and by every member, and changes nothing.

An attack gives a message that is right in everything but what its rule is about: signed with the right key, its
membership tag right. After all of them the genuine commit is taken by everybody.
"""

from __future__ import annotations

import pytest

from broker_crypto.errors import PeerError
from broker_crypto.mls.framing import MLSMessage
from broker_crypto.mls.leaf import Extension
from broker_crypto.mls.validation import Rule
from tests.support.members import PRIVATE_EXTENSION
from tests.unit.mls import attacks_on_paths, attacks_on_proposals
from tests.unit.mls.scene import Attack, Scene

ATTACKS = [*attacks_on_proposals.ATTACKS, *attacks_on_paths.ATTACKS]


@pytest.mark.parametrize(("rule", "attack"), ATTACKS, ids=[attack.__name__ for _, attack in ATTACKS])
def test_a_commit_that_breaks_a_rule_is_refused_by_name_and_changes_nothing(rule: Rule, attack: Attack) -> None:
    scene = Scene()
    room, message = scene.room, attack(scene)
    pending, before = scene.pending, room.follower.to_bytes()
    with pytest.raises(PeerError) as refused:
        room.follower.stage(message, pending=pending)
    assert refused.value.rule == rule  # type: ignore[attr-defined]
    assert room.follower.to_bytes() == before
    for group in room.members.values():
        held = group.to_bytes()
        with pytest.raises(PeerError) as refused:
            group.stage(MLSMessage(message))
        assert refused.value.rule in (rule, Rule.MEMBERSHIP_TAG)  # type: ignore[attr-defined]
        assert group.to_bytes() == held
    room.deliver("bob", scene.genuine)


def test_the_attacks_begin_from_messages_that_would_be_taken() -> None:
    scene = Scene()
    scene.room.follower.stage(scene.say())
    scene.room.follower.stage(scene.external())
    scene.room.follower.stage(scene.added())
    scene.room.follower.stage(scene.path_leaf(extensions=(Extension(PRIVATE_EXTENSION, b"new"),)))
    reference = scene.update_of("carol")
    with pytest.raises(PeerError) as refused:
        scene.room.follower.stage(scene.say(reference), pending=scene.pending)
    # the Update is taken; the path was sealed for another tree
    assert refused.value.rule == Rule.PATH_RECEIVERS  # type: ignore[attr-defined]
