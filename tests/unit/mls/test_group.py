"""A group from its founding on: members and a follower without secrets agree after every commit."""

from __future__ import annotations

import pytest

from broker_crypto.mls.group import Group
from broker_crypto.mls.leaf import Extension
from broker_crypto.mls.proposals import GroupContextExtensions, Remove
from broker_crypto.mls.public import PublicGroup
from tests.support.members import PRIVATE_EXTENSION, Room


@pytest.mark.parametrize("number", range(1, 8))
def test_three_members_found_join_rotate_return_and_remove_and_all_agree_with_a_follower(number: int) -> None:
    room = Room(number)
    room.found("alice")
    room.join("bob")
    room.join("carol")
    room.deliver("bob", room.members["bob"].commit(random=room.random))
    staged = room.join("carol", remove=room.members["carol"].leaf)
    assert (staged.external, staged.removed, staged.committer) == (True, (2,), 2)
    extensions = (Extension(PRIVATE_EXTENSION, b"policy"),)
    room.deliver("carol", room.members["carol"].commit(proposals=[GroupContextExtensions(extensions)], random=room.random))
    assert room.follower.context.extensions == extensions
    staged = room.deliver("alice", room.members["alice"].commit(proposals=[Remove(1)], random=room.random))
    assert staged.removed == (1,)
    assert room.members.keys() == {"alice", "carol"}
    room.join("bob")
    assert room.follower.epoch == 7


def test_a_group_and_its_follower_survive_being_stored_at_any_point() -> None:
    room = Room()
    room.found("alice")
    for name in ("bob", "carol", "dave", "erin"):
        room.join(name)
        for member, group in room.members.items():
            stored = group.to_bytes()
            room.members[member] = Group.from_bytes(stored)
            assert room.members[member].to_bytes() == stored
        stored = room.follower.to_bytes()
        room.follower = PublicGroup.from_bytes(stored)
        assert room.follower.to_bytes() == stored
        room.check()
        room.deliver(name, room.members[name].commit(random=room.random))
    room.deliver("alice", room.members["alice"].commit(proposals=[Remove(3)], random=room.random))
    room.join("frank")
    assert [index for index, _ in room.follower.tree.leaves()] == [0, 1, 2, 3, 4]


def test_a_newcomer_may_begin_with_the_group_info_of_any_epoch() -> None:
    room = Room()
    room.found("alice")
    for name in ("bob", "carol", "dave"):
        room.join(name)
        info = room.members[name].group_info(ratchet_tree=True)
        assert PublicGroup.from_group_info(info) == room.follower
        assert PublicGroup.from_group_info(room.members[name].group_info(), room.follower.tree) == room.follower
        tag = room.members[name].secrets.confirmation_tag(room.follower.context.confirmed_transcript_hash)
        room.follower.check_group_info(info, signer=room.members[name].leaf, confirmation_tag=tag)
