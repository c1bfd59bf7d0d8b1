"""Proposals sent by themselves: who may send which, what becomes of them, and commits that take them up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker_crypto.errors import PeerError, UsageError
from broker_crypto.mls import group as group_module
from broker_crypto.mls import joining, proposal_list, psk
from broker_crypto.mls.framing import MLSMessage, PublicMessage, Sender, SenderType
from broker_crypto.mls.group import Group
from broker_crypto.mls.leaf import EXTERNAL_SENDERS, Extension, ExternalSender, Lifetime
from broker_crypto.mls.proposal_list import SentProposal
from broker_crypto.mls.proposals import Add, ExternalInit, GroupContextExtensions, PreSharedKey, Proposal, ReInit, Remove, Update
from broker_crypto.mls.public import PublicGroup
from broker_crypto.mls.validation import Rule
from broker_crypto.wire import tls
from tests.support.forging import key_package, say, say_outside
from tests.support.members import Room, commit_of, own_leaf


@pytest.fixture
def room() -> Room:
    """Alice, Bob and Carol, and a service that may propose from outside (its key pair is `room.own["service"]`)."""
    room = Room()
    service = room.own["service"] = own_leaf(room.kem, "service", room.random)
    senders = tls.vector([ExternalSender(service.signature_public, service.credential).encode()])
    room.found("alice", extensions=(Extension(EXTERNAL_SENDERS, senders),))
    room.join("bob")
    room.join("carol")
    return room


def from_service(room: Room, proposal: Proposal, index: int = 0) -> PublicMessage:
    return say_outside(room.follower, room.own["service"].signature_private, proposal, Sender(SenderType.EXTERNAL, index))


def all_keep(room: Room, message: PublicMessage) -> bytes:
    for name, group in room.members.items():
        room.members[name] = group.stage(MLSMessage(message))
    return message.authenticated.ref(room.kem)


def test_a_service_outside_may_propose_what_the_group_lets_it(room: Room) -> None:
    added = own_leaf(room.kem, "dave", room.random)
    proposals = [
        Add(key_package(room.follower, added, room.random)),
        Remove(2),
        GroupContextExtensions(room.follower.context.extensions),
        PreSharedKey(psk.ExternalPsk(b"id", bytes(32))),
    ]
    references = [all_keep(room, from_service(room, proposal)) for proposal in proposals]
    held = psk.PskSecrets(external={b"id": b"secret"})
    commit = room.members["bob"].commit(references=references, psks=held, random=room.random)
    message = commit_of(commit)
    staged = room.follower.stage(message, pending=room.members["alice"].pending)
    assert room.members["alice"].enter(staged, message, psks=held).public == staged.next == commit.group.public
    assert [item.sender for item in staged.proposals] == [Sender(SenderType.EXTERNAL, 0)] * 4
    assert [item.leaf.signature_key for item in staged.introduced if item.replaced is None] == [added.signature_public]


def test_what_nobody_outside_may_propose_is_refused(room: Room) -> None:
    leaf = room.follower.tree.leaf(0)
    assert leaf is not None
    alice = room.members["alice"]
    before = alice.to_bytes()
    for proposal in (Update(leaf), ExternalInit(leaf.encryption_key)):
        with pytest.raises(PeerError) as refused:
            alice.stage(MLSMessage(from_service(room, proposal)))
        assert refused.value.rule == Rule.PROPOSAL_SENDER  # type: ignore[attr-defined]
    assert alice.to_bytes() == before


def test_a_sender_outside_that_the_group_does_not_name_is_refused(room: Room) -> None:
    for index in (1, 2**32 - 1):
        with pytest.raises(PeerError) as refused:
            room.members["alice"].stage(MLSMessage(from_service(room, Remove(2), index)))
        assert refused.value.rule == Rule.EXTERNAL_SENDER  # type: ignore[attr-defined]
    room.deliver("bob", room.members["bob"].commit(proposals=[GroupContextExtensions(())], random=room.random))
    with pytest.raises(PeerError) as refused:
        room.members["alice"].stage(MLSMessage(from_service(room, Remove(2))))
    assert refused.value.rule == Rule.EXTERNAL_SENDER  # type: ignore[attr-defined]


def test_a_sender_outside_signs_with_the_key_that_the_group_names(room: Room) -> None:
    other = own_leaf(room.kem, "other", room.random)
    message = say_outside(room.follower, other.signature_private, Remove(2), Sender(SenderType.EXTERNAL, 0))
    with pytest.raises(PeerError) as refused:
        room.members["alice"].stage(MLSMessage(message))
    assert refused.value.rule == Rule.MESSAGE_SIGNATURE  # type: ignore[attr-defined]


def test_a_newcomer_may_propose_to_add_itself_and_nothing_else(room: Room) -> None:
    own = own_leaf(room.kem, "dave", room.random)
    package = key_package(room.follower, own, room.random)
    sender = Sender(SenderType.NEW_MEMBER_PROPOSAL)
    reference = all_keep(room, say_outside(room.follower, own.signature_private, Add(package), sender))
    commit = room.members["carol"].commit(references=[reference], path=False, random=room.random)
    staged = room.follower.stage(commit_of(commit), pending=room.members["alice"].pending)
    assert staged.added == (3,)
    assert commit.welcome is not None
    assert commit.welcome.entry(package.ref(room.kem)) is not None
    other = own_leaf(room.kem, "other", room.random)
    for private, proposal, rule in (
        (own.signature_private, Remove(2), Rule.PROPOSAL_SENDER),
        (other.signature_private, Add(package), Rule.MESSAGE_SIGNATURE),
    ):
        with pytest.raises(PeerError) as refused:
            room.members["alice"].stage(MLSMessage(say_outside(room.follower, private, proposal, sender)))
        assert refused.value.rule == rule  # type: ignore[attr-defined]


def test_a_member_does_not_propose_an_external_init(room: Room) -> None:
    with pytest.raises(PeerError) as refused:
        room.members["alice"].stage(MLSMessage(say(room.members["bob"], ExternalInit(bytes(32)))))
    assert refused.value.rule == Rule.EXTERNAL_INIT_INSIDE  # type: ignore[attr-defined]


def test_a_proposal_that_no_commit_could_hold_is_not_sent_by_an_honest_client(room: Room) -> None:
    for proposal, rule in (
        (Remove(9), Rule.REMOVE_OF_NOBODY),
        (PreSharedKey(psk.ExternalPsk(b"id", b"short")), Rule.PSK_NONCE),
        (ReInit(b"next", 0, 1, ()), Rule.REINIT_VERSION),
    ):
        with pytest.raises(PeerError) as refused:
            room.members["alice"].propose(proposal, random=room.random)
        assert refused.value.rule == rule  # type: ignore[attr-defined]


def test_a_proposal_that_holds_only_beside_another_is_kept_for_the_commit(room: Room) -> None:
    """A required capability goes in the very commit that adds one who lacks it (section 12.3: the new extensions count)."""
    capabilities = room.own["alice"].capabilities
    lacking = key_package(
        room.follower,
        own_leaf(room.kem, "dave", room.random),
        room.random,
        leaf={"capabilities": replace(capabilities, extensions=())},
    )
    demanding = (Extension(0xF0BC, b""),)
    room.deliver("bob", room.members["bob"].commit(proposals=[GroupContextExtensions(demanding)], random=room.random))
    reference = all_keep(room, say(room.members["carol"], Add(lacking)))
    with pytest.raises(PeerError) as refused:
        room.members["bob"].commit(references=[reference], random=room.random)
    assert refused.value.rule == Rule.LEAF_GROUP_EXTENSIONS  # type: ignore[attr-defined]
    commit = room.members["bob"].commit(proposals=[GroupContextExtensions(())], references=[reference], random=room.random)
    assert room.follower.stage(commit_of(commit), pending=room.members["alice"].pending).added == (3,)


def test_proposals_of_an_epoch_that_wait_for_a_commit_are_bounded(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_module, "MAX_PENDING", 2)
    for leaf in (1, 2):
        all_keep(room, from_service(room, Remove(leaf)))
    with pytest.raises(PeerError) as refused:
        room.members["alice"].stage(MLSMessage(from_service(room, Remove(0))))
    assert refused.value.rule == Rule.PENDING_FULL  # type: ignore[attr-defined]


def test_a_message_of_another_kind_is_refused_where_a_handshake_or_data_belongs(room: Room) -> None:
    alice, bob = room.members["alice"], room.members["bob"]
    data, _ = bob.protect(b"data", random=room.random)
    proposal, _ = bob.propose(Remove(2), private=True, random=room.random)
    for call in (
        lambda: alice.stage(data),
        lambda: alice.stage(MLSMessage(bob.group_info())),
        lambda: alice.unprotect(proposal),
        lambda: alice.unprotect(MLSMessage(from_service(room, Remove(2)))),
        lambda: room.follower.stage(from_service(room, Remove(2))),
    ):
        with pytest.raises(PeerError) as refused:
            call()
        assert refused.value.rule == Rule.MESSAGE_KIND  # type: ignore[attr-defined]


def test_an_update_brings_another_key_name_and_signature_key_once_it_is_committed(room: Room) -> None:
    new = own_leaf(room.kem, "carol's new name", room.random)
    message, room.members["carol"] = room.members["carol"].propose_update(new, random=room.random)
    room.members["carol"] = Group.from_bytes(room.members["carol"].to_bytes())
    for name in ("alice", "bob"):
        room.members[name] = room.members[name].stage(message)
    (reference,) = room.members["bob"].pending
    staged = room.deliver("bob", room.members["bob"].commit(references=[reference], random=room.random))
    leaf = room.follower.tree.leaf(2)
    assert leaf is not None
    assert (leaf.credential, leaf.signature_key) == (new.credential, new.signature_public)
    (updated,) = [item for item in staged.introduced if item.index == 2]
    assert updated.replaced is not None
    assert updated.replaced.signature_key == room.own["carol"].signature_public
    assert room.members["carol"].updates == {}
    room.deliver("carol", room.members["carol"].commit(random=room.random))


def test_an_update_that_was_not_committed_leaves_the_old_leaf_as_it_was(room: Room) -> None:
    message, room.members["carol"] = room.members["carol"].propose_update(random=room.random)
    for name in ("alice", "bob"):
        room.members[name] = room.members[name].stage(message)
    room.deliver("bob", room.members["bob"].commit(random=room.random))
    assert room.members["carol"].updates == {}
    room.deliver("carol", room.members["carol"].commit(random=room.random))


def test_a_commit_may_change_what_its_own_leaf_says(room: Room) -> None:
    new = own_leaf(room.kem, "bob", room.random)
    staged = room.deliver("bob", room.members["bob"].commit(own=new, random=room.random))
    (introduced,) = staged.introduced
    assert (introduced.index, introduced.leaf.signature_key) == (1, new.signature_public)
    room.deliver("bob", room.members["bob"].commit(random=room.random))
    with pytest.raises(UsageError):
        room.members["bob"].commit(own=new, path=False, random=room.random)


def test_a_reinit_ends_the_group_and_the_next_one_proves_that_it_follows(room: Room) -> None:
    reinit = ReInit(b"next group", 1, 3, ())
    for name, group in room.members.items():
        assert group.public.reinit is None, name
    room.deliver("bob", room.members["bob"].commit(proposals=[reinit], path=False, random=room.random))
    assert PublicGroup.from_bytes(room.follower.to_bytes()).reinit == reinit
    bob, ended = room.members["bob"], room.follower
    for call in (
        lambda: bob.commit(random=room.random),
        lambda: bob.propose(Remove(0), random=room.random),
        lambda: bob.protect(b"data", random=room.random),
        lambda: Group.external_commit(ended, bob.external_public, room.own["bob"], random=room.random),
    ):
        with pytest.raises(UsageError):
            call()
    forged = say(replace(bob, public=replace(ended, reinit=None)), Remove(0))
    with pytest.raises(PeerError) as refused:
        room.members["alice"].stage(MLSMessage(forged))
    assert refused.value.rule == Rule.GROUP_ENDED  # type: ignore[attr-defined]
    _next_group_follows(room, bob)


def _next_group_follows(room: Room, bob: Group) -> None:
    """Bob begins the group of the ReInit, in suite 3, and adds the others with the resumption key."""
    after = Room(3, random=room.random)
    own = {name: own_leaf(after.kem, name, room.random) for name in ("alice", "bob", "carol")}
    begun = Group.found(after.kem, b"next group", own["bob"], random=room.random)
    invited = {name: _invite(after, own[name]) for name in ("alice", "carol")}
    key = psk.ResumptionPsk(psk.Usage.REINIT, room.follower.group_id, room.follower.epoch, room.random(32))
    held = psk.PskSecrets(resumption={(key.group_id, key.epoch): bob.resumption_psk})
    proposals = [*(Add(package.key_package) for package in invited.values()), PreSharedKey(key)]
    with pytest.raises(PeerError) as refused:
        begun.commit(proposals=proposals, psks=held, now=0, random=room.random)
    assert refused.value.rule == Rule.PSK_USAGE  # type: ignore[attr-defined]
    commit = begun.commit(proposals=proposals, psks=held, now=0, resuming=True, random=room.random)
    assert commit.welcome is not None
    before = joining.Predecessor(room.follower.context, room.follower.tree, room.follower.reinit)
    for name, package in invited.items():
        mine = psk.PskSecrets(resumption={(key.group_id, key.epoch): room.members[name].resumption_psk})
        group = joining.join(joining.Invitation(commit.welcome, psks=mine, before=before), package)
        assert group.epoch_authenticator == commit.group.epoch_authenticator


def _invite(room: Room, own: group_module.OwnLeaf) -> joining.OwnKeyPackage:
    encryption_private, leaf = own.fresh(room.kem, room.random)
    init_private, init_key = room.kem.derive_key_pair(room.random(room.kem.nh))
    package = joining.KeyPackage(1, room.kem.number, init_key, leaf).signed(room.kem, own.signature_private)
    return joining.OwnKeyPackage(package, init_private, encryption_private, own.signature_private)


def test_calls_that_cannot_be_right_are_the_callers_fault(room: Room) -> None:
    bob = room.members["bob"]
    add = Add(key_package(room.follower, own_leaf(room.kem, "dave", room.random), room.random))
    for call in (
        lambda: bob.commit(proposals=[add], random=room.random),
        lambda: bob.propose(add, random=room.random),
        lambda: bob.commit(path=False, random=room.random),
        lambda: bob.commit(proposals=[Remove(2)], path=False, random=room.random),
        lambda: bob.commit(references=[bytes(32)], random=room.random),
    ):
        with pytest.raises(UsageError):
            call()
    _, waiting = bob.propose(Remove(2), random=room.random)
    with pytest.raises(UsageError):
        waiting.protect(b"data", random=room.random)


def test_a_key_package_outside_its_lifetime_is_not_added_by_one_who_knows_the_time(room: Room) -> None:
    own = replace(own_leaf(room.kem, "dave", room.random), lifetime=Lifetime(100, 200))
    add = Add(key_package(room.follower, own, room.random))
    commit = room.members["bob"].commit(proposals=[add], now=150, random=room.random)
    room.follower.stage(commit_of(commit), now=200)
    room.follower.stage(commit_of(commit))
    for call in (
        lambda: room.members["bob"].commit(proposals=[add], now=201, random=room.random),
        lambda: room.members["alice"].stage(commit.message, now=201),
    ):
        with pytest.raises(PeerError) as refused:
            call()
        assert refused.value.rule == Rule.LEAF_LIFETIME  # type: ignore[attr-defined]


def test_more_psks_than_their_index_can_count_are_refused() -> None:
    sender = Sender.member(0)
    sent = [SentProposal(PreSharedKey(psk.ExternalPsk(index.to_bytes(3, "big"), bytes(32))), sender) for index in range(2**16)]
    proposal_list.check_list(sent[1:], sender)
    with pytest.raises(PeerError) as refused:
        proposal_list.check_list(sent, sender)
    assert refused.value.rule == Rule.PSK_COUNT  # type: ignore[attr-defined]
