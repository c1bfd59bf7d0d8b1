"""Our group and mls-rs (through its Python binding, suite 1) in one group: each takes what the other makes.

The binding shows the exporter of a group and nothing else of its secrets; it has no external commit of its own, so ours
joins from outside, and mls-rs follows.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

import mls_rs_uniffi as mls_rs
import pytest

from broker_crypto.crypto import suite as suite_of
from broker_crypto.errors import PeerError
from broker_crypto.mls import joining
from broker_crypto.mls.framing import MLSMessage
from broker_crypto.mls.group import Group, StagedCommit
from broker_crypto.mls.leaf import KeyPackage
from broker_crypto.mls.proposals import Add, Remove
from broker_crypto.mls.public import PublicGroup
from broker_crypto.mls.welcome import Welcome
from tests.support.members import own_leaf

SUITE = suite_of(1)
random = secrets.token_bytes


def now() -> int:
    return int(time.time())


@dataclass
class Theirs:
    """A member that mls-rs runs."""

    name: str
    tree_inside: bool = True
    group: mls_rs.Group | None = None

    def __post_init__(self) -> None:
        pair = mls_rs.generate_signature_keypair(mls_rs.CipherSuite.CURVE25519_AES128)
        config = mls_rs.client_config_default()
        config.use_ratchet_tree_extension = self.tree_inside
        self.client = mls_rs.Client(id=self.name.encode(), signature_keypair=pair, client_config=config)

    def key_package(self) -> KeyPackage:
        body = MLSMessage.decode(self.client.generate_key_package_message().to_bytes()).body
        assert isinstance(body, KeyPackage)
        return body

    def take(self, message: bytes) -> mls_rs.ReceivedMessage:
        assert self.group is not None
        return self.group.process_incoming_message(mls_rs.Message.from_bytes(message))

    def export(self) -> bytes:
        assert self.group is not None
        return bytes(self.group.export_secret(b"broker_crypto interop", b"context", 32))


@dataclass
class Ours:
    """A member that we run."""

    name: str
    group: Group | None = None
    waiting: joining.OwnKeyPackage | None = None

    def __post_init__(self) -> None:
        self.own = own_leaf(SUITE, self.name, random)

    def key_package(self) -> mls_rs.Message:
        self.waiting = joining.OwnKeyPackage.create(SUITE, self.own, random=random)
        return mls_rs.Message.from_bytes(MLSMessage(self.waiting.key_package).encode())

    def welcomed(self, message: bytes, tree: bytes | None = None) -> None:
        body = MLSMessage.decode(message).body
        assert isinstance(body, Welcome)
        assert self.waiting is not None
        self.group = joining.join(joining.Invitation(body, tree, now=now()), self.waiting)

    def export(self) -> bytes:
        assert self.group is not None
        return self.group.export("broker_crypto interop", b"context", 32)


@dataclass
class Room:
    """Members of both kinds; after every step all that are in it export the same secret."""

    ours: list[Ours] = field(default_factory=list)
    theirs: list[Theirs] = field(default_factory=list)

    def agree(self) -> None:
        exported = {member.export() for member in (*self.ours, *self.theirs) if member.group is not None}
        assert len(exported) == 1
        assert len({member.group.epoch_authenticator for member in self.ours if member.group}) == 1

    def they_commit(self, by: Theirs, output: mls_rs.CommitOutput) -> mls_rs.CommitOutput:
        """A commit of mls-rs reaches everybody, itself too."""
        message = output.commit_message.to_bytes()
        for member in self.theirs:
            if member.group is not None:
                member.take(message)
        for member in self.ours:
            if member.group is not None:
                member.group = member.group.stage(message, now=now())
        return output

    def we_commit(self, by: Ours, staged: StagedCommit) -> StagedCommit:
        """A commit of ours reaches everybody."""
        for member in self.theirs:
            if member.group is not None:
                member.take(staged.message)
        for member in self.ours:
            if member.group is not None and member is not by:
                member.group = member.group.stage(staged.message, now=now())
        by.group = staged.group
        return staged


@pytest.fixture(params=[True, False], ids=["tree inside", "tree beside"])
def they_found(request: pytest.FixtureRequest) -> Room:
    """mls-rs founds the group and adds one of ours."""
    alice, bob = Theirs("alice", tree_inside=request.param), Ours("bob")
    room = Room([bob], [alice])
    alice.group = alice.client.create_group(None)
    output = alice.group.add_members([bob.key_package()])
    alice.group.process_incoming_message(output.commit_message)
    tree = None if request.param else bytes(output.ratchet_tree.bytes)
    bob.welcomed(output.welcome_message.to_bytes(), tree)
    room.agree()
    return room


@pytest.fixture
def we_found() -> Room:
    """We found the group and add one of mls-rs."""
    bob, alice = Ours("bob"), Theirs("alice")
    room = Room([bob], [alice])
    bob.group = Group.found(SUITE, b"a group of ours", bob.own, random=random)
    staged = bob.group.commit(proposals=[Add(alice.key_package())], now=now(), random=random)
    bob.group = staged.group
    assert staged.welcome is not None
    welcome = mls_rs.Message.from_bytes(MLSMessage(staged.welcome).encode())
    alice.group = alice.client.join_group(None, welcome).group
    room.agree()
    return room


@pytest.fixture(params=["they", "we"])
def room(request: pytest.FixtureRequest) -> Room:
    """A group of two, founded by either."""
    if request.param == "we":
        we: Room = request.getfixturevalue("we_found")
        return we
    alice, bob = Theirs("alice"), Ours("bob")
    alice.group = alice.client.create_group(b"a group of theirs")
    output = alice.group.add_members([bob.key_package()])
    alice.group.process_incoming_message(output.commit_message)
    bob.welcomed(output.welcome_message.to_bytes())
    return Room([bob], [alice])


def test_we_join_by_their_welcome_with_the_tree_inside_or_beside(they_found: Room) -> None:
    they_found.agree()


def test_they_join_by_our_welcome(we_found: Room) -> None:
    we_found.agree()


def test_path_commits_in_both_directions_lead_to_one_epoch(room: Room) -> None:
    alice, bob = room.theirs[0], room.ours[0]
    for _ in range(3):
        assert alice.group is not None
        room.they_commit(alice, alice.group.commit())
        room.agree()
        assert bob.group is not None
        room.we_commit(bob, bob.group.commit(random=random))
        room.agree()
    assert bob.group is not None
    assert bob.group.epoch == 7


def test_our_commit_in_a_private_message_is_taken(room: Room) -> None:
    bob = room.ours[0]
    assert bob.group is not None
    room.we_commit(bob, bob.group.commit(private=True, random=random))
    room.agree()


def test_application_messages_go_both_ways_in_and_out_of_order(room: Room) -> None:
    alice, bob = room.theirs[0], room.ours[0]
    assert alice.group is not None
    assert bob.group is not None
    sent = [alice.group.encrypt_application_message(f"from mls-rs {n}".encode()).to_bytes() for n in range(5)]
    for n in (4, 0, 2, 3, 1):
        content, bob.group = bob.group.unprotect(sent[n])
        assert content.content == f"from mls-rs {n}".encode()
        with pytest.raises(PeerError):
            bob.group.unprotect(sent[n])
    ours = []
    for n in range(5):
        message, bob.group = bob.group.protect(f"from us {n}".encode(), padding=64, random=random)
        ours.append(message)
    for n in (3, 4, 0, 1, 2):
        received = alice.take(ours[n])
        assert received.is_application_message()
        assert received.data == f"from us {n}".encode()


def test_they_add_and_remove_and_we_follow(room: Room) -> None:
    alice, bob = room.theirs[0], room.ours[0]
    carol, dave = Theirs("carol"), Ours("dave")
    assert alice.group is not None
    output = room.they_commit(alice, alice.group.add_members([carol.client.generate_key_package_message(), dave.key_package()]))
    carol.group = carol.client.join_group(None, output.welcome_message).group
    dave.welcomed(output.welcome_message.to_bytes())
    room.theirs.append(carol)
    room.ours.append(dave)
    room.agree()
    room.they_commit(carol, carol.group.commit())
    room.agree()
    room.theirs.remove(carol)
    room.they_commit(alice, alice.group.remove_members([carol.client.signing_identity()]))
    room.agree()
    assert bob.group is not None
    assert len(list(bob.group.public.tree.leaves())) == 3


def test_we_add_and_remove_and_they_follow(room: Room) -> None:
    alice, bob = room.theirs[0], room.ours[0]
    carol, dave = Theirs("carol"), Ours("dave")
    dave.key_package()
    assert bob.group is not None
    assert dave.waiting is not None
    adds = [Add(carol.key_package()), Add(dave.waiting.key_package)]
    staged = room.we_commit(bob, bob.group.commit(proposals=adds, now=now(), random=random))
    assert staged.welcome is not None
    welcome = MLSMessage(staged.welcome).encode()
    carol.group = carol.client.join_group(None, mls_rs.Message.from_bytes(welcome)).group
    dave.welcomed(welcome)
    room.theirs.append(carol)
    room.ours.append(dave)
    room.agree()
    assert dave.group is not None
    room.we_commit(dave, dave.group.commit(random=random))
    room.agree()
    gone = next(index for index, leaf in dave.group.public.tree.leaves() if leaf.credential.identity == b"carol")
    room.we_commit(dave, dave.group.commit(proposals=[Remove(gone)], random=random))
    room.theirs.remove(carol)
    room.agree()
    assert alice.group is not None


def test_their_proposals_are_committed_by_us(room: Room) -> None:
    alice, bob, carol = room.theirs[0], room.ours[0], Ours("carol")
    assert alice.group is not None
    assert bob.group is not None
    proposals = [message.to_bytes() for message in alice.group.propose_add_members([carol.key_package()])]
    for message in proposals:
        bob.group = bob.group.stage(message)
    assert len(bob.group.pending) == 1
    staged = room.we_commit(bob, bob.group.commit(references=list(bob.group.pending), now=now(), random=random))
    assert staged.welcome is not None
    carol.welcomed(MLSMessage(staged.welcome).encode())
    room.ours.append(carol)
    room.agree()


@pytest.mark.parametrize("private", [False, True])
def test_our_proposals_are_committed_by_them(room: Room, private: bool) -> None:
    alice, bob = room.theirs[0], room.ours[0]
    assert alice.group is not None
    assert bob.group is not None
    message, bob.group = bob.group.propose_update(private=private, random=random)
    assert alice.take(message).is_received_proposal()
    before = bob.group.public.tree.leaf(bob.group.leaf)
    room.they_commit(alice, alice.group.commit())
    room.agree()
    assert bob.group.public.tree.leaf(bob.group.leaf) != before
    room.we_commit(bob, bob.group.commit(random=random))
    room.agree()


def test_they_follow_our_external_commit_and_our_return_by_another(room: Room) -> None:
    bob, carol = room.ours[0], Ours("carol")
    assert bob.group is not None
    public = PublicGroup.from_group_info(bob.group.group_info(ratchet_tree=True))
    staged = Group.external_commit(public, bob.group.external_public, carol.own, random=random)
    room.we_commit(carol, staged)
    room.ours.append(carol)
    room.agree()
    first = carol.group
    assert first is not None
    public = PublicGroup.from_group_info(bob.group.group_info(ratchet_tree=True))
    back = Group.external_commit(public, bob.group.external_public, carol.own, remove=first.leaf, random=random)
    room.we_commit(carol, back)
    room.agree()
    assert carol.group is not None
    assert carol.group.leaf == first.leaf


def test_a_changed_commit_of_theirs_is_refused_and_the_genuine_one_taken(room: Room) -> None:
    alice, bob = room.theirs[0], room.ours[0]
    assert alice.group is not None
    assert bob.group is not None
    output = alice.group.commit()
    data = output.commit_message.to_bytes()
    before = bob.group.to_bytes()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 0x10
        with pytest.raises(PeerError):
            bob.group.stage(bytes(changed))
    assert bob.group.to_bytes() == before
    room.they_commit(alice, output)
    room.agree()


def test_forty_members_of_both_kinds_stay_one_group() -> None:
    bob = Ours("bob")
    room = Room([bob], [])
    bob.group = Group.found(SUITE, b"large", bob.own, random=random)
    others: list[Theirs | Ours] = [Theirs(f"theirs {n}") if n % 2 else Ours(f"ours {n}") for n in range(39)]
    adds = []
    for member in others:
        if isinstance(member, Ours):
            member.key_package()
            assert member.waiting is not None
            adds.append(Add(member.waiting.key_package))
        else:
            adds.append(Add(member.key_package()))
    staged = room.we_commit(bob, bob.group.commit(proposals=adds, now=now(), random=random))
    assert staged.welcome is not None
    welcome = MLSMessage(staged.welcome).encode()
    for member in others:
        if isinstance(member, Ours):
            member.welcomed(welcome)
            room.ours.append(member)
        else:
            member.group = member.client.join_group(None, mls_rs.Message.from_bytes(welcome)).group
            room.theirs.append(member)
    room.agree()
    for n in (0, 7, 19):
        theirs, ours = room.theirs[n % len(room.theirs)], room.ours[n % len(room.ours)]
        assert theirs.group is not None
        room.they_commit(theirs, theirs.group.commit())
        assert ours.group is not None
        gone = 39 - n
        room.theirs = [member for member in room.theirs if member.name != f"theirs {gone - 1}"]
        room.ours = [member for member in room.ours if member.name != f"ours {gone - 1}"]
        room.we_commit(ours, ours.group.commit(proposals=[Remove(gone)], random=random))
        room.agree()
