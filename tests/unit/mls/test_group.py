"""A group from its founding on: members and a follower without secrets agree after every commit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker_crypto.errors import PeerError, UsageError
from broker_crypto.mls.group import Group
from broker_crypto.mls.leaf import Credential, Extension
from broker_crypto.mls.proposals import Add, Commit, GroupContextExtensions, Remove
from broker_crypto.mls.public import PublicGroup
from broker_crypto.mls.validation import Rule
from tests.support.forging import key_package, say
from tests.support.members import PRIVATE_EXTENSION, Room, commit_of, own_leaf


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


def test_a_member_alone_may_renew_its_keys_and_be_followed() -> None:
    room = Room()
    room.found("alice")
    staged = room.deliver("alice", room.members["alice"].commit(random=room.random))
    assert staged.path is not None
    assert staged.path.nodes == ()
    room.join("bob")
    room.deliver("bob", room.members["bob"].commit(proposals=[Remove(0)], random=room.random))
    assert [group.leaf for group in room.members.values()] == [1]


def test_a_commit_may_add_again_whom_it_removes() -> None:
    room = Room()
    room.found("alice")
    room.join("bob")
    room.join("carol")
    package = key_package(room.follower, room.own["carol"], room.random)
    commit = room.members["bob"].commit(proposals=[Add(package), Remove(2)], now=0, random=room.random)
    staged = room.follower.stage(commit_of(commit))
    assert (staged.removed, staged.added) == ((2,), (2,))
    assert room.members["alice"].enter(staged, commit_of(commit)).public == commit.group.public


def test_nothing_follows_the_last_epoch() -> None:
    room = Room()
    room.found("alice")
    alice = room.members["alice"]
    last = replace(alice.public, context=replace(alice.public.context, epoch=2**64 - 1))
    with pytest.raises(PeerError) as refused:
        last.stage(say(replace(alice, public=last), Commit((), None)))
    assert refused.value.rule == Rule.EPOCH  # type: ignore[attr-defined]
    with pytest.raises(UsageError):
        replace(alice, public=last).commit(random=room.random)


def test_what_one_would_send_twice_is_refused_before_it_is_signed() -> None:
    room = Room()
    room.found("alice")
    alice, twice = room.members["alice"], (Extension(PRIVATE_EXTENSION, b"1"), Extension(PRIVATE_EXTENSION, b"2"))
    with pytest.raises(PeerError) as refused:
        alice.commit(proposals=[GroupContextExtensions(twice)], random=room.random)
    assert refused.value.rule == Rule.GROUP_EXTENSION_FORM  # type: ignore[attr-defined]
    with pytest.raises(UsageError):
        alice.group_info(extensions=twice)
    with pytest.raises(UsageError):
        own_leaf(room.kem, "bob", room.random, extensions=twice)
    with pytest.raises(UsageError):
        Credential(3)


def test_no_secret_shows_when_a_group_is_printed() -> None:
    room = Room()
    room.found("alice")
    room.join("bob")
    commit = room.members["bob"].commit(random=room.random)
    shown = repr(commit) + repr(room.members["bob"]) + repr(room.own["bob"]) + repr(room.follower)
    secrets = [room.own["bob"].signature_private, *commit.group.keys.values(), commit.group.export("label", b"", 32)]
    secrets += [getattr(commit.group.secrets, name) for name in commit.group.secrets.__slots__ if name != "suite"]
    for secret in secrets:
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown
