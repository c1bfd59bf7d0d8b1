"""Whatever an insider signs: a commit, a tree, a GroupInfo with any bytes changed is refused by a PeerError or is valid.

The bytes are changed before they are signed, so that nothing but the engine's own checks stands in the way.
"""

from __future__ import annotations

from random import Random

import pytest

from broker_crypto.errors import MalformedInput, PeerError
from broker_crypto.mls import psk
from broker_crypto.mls.framing import MLSMessage
from broker_crypto.mls.group import Group
from broker_crypto.mls.group_info import GroupInfo
from broker_crypto.mls.leaf import RATCHET_TREE, Extension
from broker_crypto.mls.proposals import Add, Commit, GroupContextExtensions, PreSharedKey, Proposal, Remove
from broker_crypto.mls.public import PublicGroup
from broker_crypto.wire import tls
from tests.support.forging import commit_in, key_package, say
from tests.support.members import PRIVATE_EXTENSION, Room, own_leaf

SECRETS = psk.PskSecrets(external={b"id": b"secret"})


def changed(dice: Random, data: bytes) -> bytes:
    """The bytes with one thing done to them: a bit, a byte, a piece cut out, doubled or put in."""
    out, place = bytearray(data), dice.randrange(len(data))
    match dice.randrange(5):
        case 0:
            out[place] ^= 1 << dice.randrange(8)
        case 1:
            out[place] = dice.choice([0, 1, 2, 3, 0x40, 0x7F, 0x80, 0xFF])
        case 2:
            del out[place : place + dice.randrange(1, 40)]
        case 3:
            out[place:place] = out[place : place + dice.randrange(1, 40)]
        case _:
            other = dice.randrange(len(data))
            out[place : place + 4] = data[other : other + 4]
    return bytes(out)


def scene() -> Room:
    room = Room()
    room.found("alice")
    for name in ("bob", "carol", "dave", "erin"):
        room.join(name)
    return room


def commits(room: Room) -> list[Commit]:
    bob, follower = room.members["bob"], room.follower
    add = Add(key_package(follower, own_leaf(room.kem, "frank", room.random, x509=True), room.random))
    lists: list[list[Proposal]] = [
        [],
        [add, Remove(3)],
        [GroupContextExtensions((Extension(PRIVATE_EXTENSION, b"policy"),)), PreSharedKey(psk.ExternalPsk(b"id", bytes(32)))],
    ]
    return [commit_in(bob.commit(proposals=items, psks=SECRETS, now=0, random=room.random)) for items in lists]


def test_a_commit_with_any_bytes_changed_and_signed_again_is_refused_or_valid() -> None:
    room, dice = scene(), Random(1)
    bob, alice = room.members["bob"], room.members["alice"]
    before, genuine = alice.to_bytes(), commits(room)
    taken = refused = 0
    for _ in range(1500):
        data = changed(dice, dice.choice(genuine).encode())
        try:
            commit = tls.decode(data, Commit.read)
            message = say(bob, commit)
            room.follower.stage(message)
            taken += 1
            alice.stage(MLSMessage(message), psks=SECRETS)
            pytest.fail("a commit with a false confirmation tag was entered")
        except PeerError as error:
            refused += not isinstance(error, MalformedInput)
    assert alice.to_bytes() == before
    assert refused > 300
    assert taken > 10, "changed ciphertexts are valid for everybody who has no secrets"


def test_a_tree_with_any_bytes_changed_is_refused_whatever_the_group_info_says() -> None:
    room, dice = scene(), Random(2)
    bob = room.members["bob"]
    tree = bob.public.tree.encode()
    for _ in range(1500):
        data = changed(dice, tree)
        if data == tree:
            continue
        info = GroupInfo(bob.public.context, (Extension(RATCHET_TREE, data),), bytes(32), bob.leaf)
        with pytest.raises(PeerError):
            PublicGroup.from_group_info(info.signed(bob.suite, bob.signature_private))


def test_a_group_info_with_any_bytes_changed_and_signed_again_is_refused_or_describes_a_valid_group() -> None:
    room, dice = scene(), Random(3)
    bob, taken = room.members["bob"], 0
    genuine = bob.group_info(ratchet_tree=True).encode()
    for _ in range(1500):
        try:
            info = GroupInfo.decode(changed(dice, genuine)).signed(bob.suite, bob.signature_private)
            public = PublicGroup.from_group_info(info)
        except PeerError:
            continue
        taken += 1
        assert public.tree == bob.public.tree
    assert taken < 400


def test_stored_groups_with_any_bytes_changed_are_refused_or_read_as_another_group() -> None:
    """The store seals its rows; this is about no other error than PeerError coming out of a broken one."""
    room, dice = scene(), Random(4)
    stored = room.members["bob"].to_bytes()
    for _ in range(1500):
        data = changed(dice, stored)
        try:
            group = Group.from_bytes(data)
        except PeerError:
            continue
        assert group.to_bytes() == data
