"""Commits that are right in everything but one thing: their place, their sender, their proposals."""

from __future__ import annotations

from dataclasses import replace

from broker_crypto.mls import psk
from broker_crypto.mls.framing import PublicMessage, Sender, SenderType
from broker_crypto.mls.leaf import (
    EXTERNAL_SENDERS,
    KEY_PACKAGE,
    REQUIRED_CAPABILITIES,
    UPDATE,
    Credential,
    Extension,
    Lifetime,
    RequiredCapabilities,
)
from broker_crypto.mls.proposals import (
    Add,
    Commit,
    ExternalInit,
    GroupContextExtensions,
    PreSharedKey,
    ProposalRef,
    ReInit,
    Remove,
    Update,
)
from broker_crypto.mls.validation import Rule
from tests.support.forging import commit_in, join_with, key_package, path_in, say, say_outside
from tests.support.members import PRIVATE_EXTENSION, certificate
from tests.unit.mls.scene import LOW_ORDER, OUTSIDE_EXTENSION, Attacks, Scene

ATTACKS = Attacks()
breaks = ATTACKS.breaks

# --- place, sender, signature -------------------------------------------------------------------------------------------


@breaks(Rule.GROUP_ID)
def commit_of_another_group(scene: Scene) -> PublicMessage:
    return scene.say(group_id=b"another")


@breaks(Rule.EPOCH)
def commit_of_the_epoch_before(scene: Scene) -> PublicMessage:
    return scene.say(epoch=scene.bob.epoch - 1)


@breaks(Rule.EPOCH)
def commit_of_the_epoch_after(scene: Scene) -> PublicMessage:
    return scene.say(epoch=scene.bob.epoch + 1)


@breaks(Rule.SENDER_LEAF)
def commit_of_a_blank_leaf(scene: Scene) -> PublicMessage:
    return scene.say(sender=Sender.member(9))


@breaks(Rule.MESSAGE_SIGNATURE)
def commit_in_the_name_of_another(scene: Scene) -> PublicMessage:
    return scene.say(sender=Sender.member(scene.carol.leaf))


@breaks(Rule.MESSAGE_SIGNATURE)
def external_commit_signed_by_another_key(scene: Scene) -> PublicMessage:
    commit = commit_in(scene.joining)
    return say_outside(scene.room.follower, scene.service.signature_private, commit, Sender(SenderType.NEW_MEMBER_COMMIT))


@breaks(Rule.PROPOSAL_SENDER)
def commit_of_an_external_sender(scene: Scene) -> PublicMessage:
    commit = Commit((), scene.path)
    return say_outside(scene.room.follower, scene.service.signature_private, commit, Sender(SenderType.EXTERNAL, 0))


@breaks(Rule.PROPOSAL_SENDER)
def commit_of_a_newcomer_that_is_no_external_commit(scene: Scene) -> PublicMessage:
    commit = Commit((), scene.path)
    return say_outside(scene.room.follower, scene.mallory.signature_private, commit, Sender(SenderType.NEW_MEMBER_PROPOSAL))


# --- proposals by themselves --------------------------------------------------------------------------------------------


@breaks(Rule.PROPOSAL_KNOWN)
def commit_of_a_proposal_that_nobody_saw(scene: Scene) -> PublicMessage:
    return scene.say(ProposalRef(bytes(32)))


@breaks(Rule.REMOVE_OF_NOBODY)
def remove_of_a_leaf_outside_the_tree(scene: Scene) -> PublicMessage:
    return scene.say(Remove(4))


@breaks(Rule.REMOVE_OF_NOBODY)
def remove_of_the_largest_index(scene: Scene) -> PublicMessage:
    return scene.say(Remove(2**32 - 1))


@breaks(Rule.PSK_NONCE)
def psk_with_a_short_nonce(scene: Scene) -> PublicMessage:
    return scene.say(PreSharedKey(psk.ExternalPsk(b"id", bytes(31))))


@breaks(Rule.PSK_USAGE)
def psk_that_begins_a_branch(scene: Scene) -> PublicMessage:
    return scene.say(PreSharedKey(psk.ResumptionPsk(psk.Usage.BRANCH, b"group", 1, bytes(32))))


@breaks(Rule.PSK_USAGE)
def psk_that_ends_a_reinit(scene: Scene) -> PublicMessage:
    return scene.say(PreSharedKey(psk.ResumptionPsk(psk.Usage.REINIT, b"group", 1, bytes(32))))


@breaks(Rule.REINIT_VERSION)
def reinit_to_an_older_version(scene: Scene) -> PublicMessage:
    return scene.say(ReInit(b"next", 0, 1, ()))


@breaks(Rule.GROUP_EXTENSION_FORM)
def required_capabilities_with_bytes_behind(scene: Scene) -> PublicMessage:
    return scene.say(GroupContextExtensions((Extension(REQUIRED_CAPABILITIES, bytes(4)),)))


@breaks(Rule.GROUP_EXTENSION_FORM)
def external_senders_that_are_none(scene: Scene) -> PublicMessage:
    return scene.say(GroupContextExtensions((Extension(EXTERNAL_SENDERS, b"\x01\x00"),)))


@breaks(Rule.USABLE_KEY)
def external_init_of_small_order(scene: Scene) -> PublicMessage:
    return join_with(scene.room.follower, scene.mallory, [ExternalInit(LOW_ORDER)], path_in(scene.joining))


# --- key packages -------------------------------------------------------------------------------------------------------


@breaks(Rule.KEY_PACKAGE_VERSION)
def add_of_another_version(scene: Scene) -> PublicMessage:
    return scene.added(version=2)


@breaks(Rule.KEY_PACKAGE_SUITE)
def add_of_another_suite(scene: Scene) -> PublicMessage:
    return scene.added(cipher_suite=3)


@breaks(Rule.KEY_PACKAGE_INIT_KEY)
def add_whose_init_key_is_its_leaf_key(scene: Scene) -> PublicMessage:
    _, key = scene.room.kem.derive_key_pair(bytes(32))
    return scene.added(leaf={"encryption_key": key}, init_key=key)


@breaks(Rule.KEY_PACKAGE_SIGNATURE)
def add_whose_key_package_was_changed(scene: Scene) -> PublicMessage:
    package = key_package(scene.room.follower, scene.mallory, scene.room.random)
    return scene.say(Add(replace(package, extensions=(Extension(0x0A0A, b""),))))


@breaks(Rule.USABLE_KEY)
def add_with_an_init_key_of_small_order(scene: Scene) -> PublicMessage:
    return scene.added(init_key=LOW_ORDER)


@breaks(Rule.USABLE_KEY)
def add_with_a_leaf_key_of_small_order(scene: Scene) -> PublicMessage:
    return scene.added(leaf={"encryption_key": LOW_ORDER})


@breaks(Rule.LEAF_SOURCE)
def add_of_a_leaf_made_for_a_commit(scene: Scene) -> PublicMessage:
    return scene.added(leaf={"source": 3, "lifetime": None})


@breaks(Rule.LEAF_SIGNATURE)
def add_of_a_leaf_that_another_signed(scene: Scene) -> PublicMessage:
    package = key_package(scene.room.follower, scene.mallory, scene.room.random)
    leaf = replace(package.leaf_node, credential=Credential.basic(b"alice"))
    return scene.say(Add(replace(package, leaf_node=leaf).signed(scene.room.kem, scene.mallory.signature_private)))


@breaks(Rule.UNIQUE_SIGNATURE_KEY)
def add_of_one_who_is_in_already(scene: Scene) -> PublicMessage:
    package = key_package(scene.room.follower, scene.room.own["carol"], scene.room.random)
    return scene.say(Add(package))


@breaks(Rule.UNIQUE_SIGNATURE_KEY)
def add_of_one_client_twice(scene: Scene) -> PublicMessage:
    first = key_package(scene.room.follower, scene.mallory, scene.room.random)
    return scene.say(Add(first), Add(key_package(scene.room.follower, scene.mallory, scene.room.random)))


@breaks(Rule.UNIQUE_ENCRYPTION_KEY)
def add_with_the_encryption_key_of_a_member(scene: Scene) -> PublicMessage:
    carol = scene.room.follower.tree.leaf(scene.carol.leaf)
    assert carol is not None
    return scene.added(leaf={"encryption_key": carol.encryption_key})


@breaks(Rule.UNIQUE_ENCRYPTION_KEY)
def add_with_the_encryption_key_of_a_parent_node(scene: Scene) -> PublicMessage:
    parent = scene.room.follower.tree.parent(3)
    assert parent is not None
    return scene.added(leaf={"encryption_key": parent.encryption_key})


@breaks(Rule.CREDENTIAL_COMMON)
def add_of_one_who_cannot_read_the_others(scene: Scene) -> PublicMessage:
    capabilities = replace(scene.mallory.capabilities, credentials=(2,))
    return scene.added(
        leaf={
            "capabilities": capabilities,
            "credential": Credential.x509([certificate(scene.bob.suite, scene.mallory.signature_public, "mallory")]),
        }
    )


# --- updates ------------------------------------------------------------------------------------------------------------


@breaks(Rule.UPDATE_KEY_NEW)
def update_that_keeps_its_key(scene: Scene) -> PublicMessage:
    carol = scene.room.follower.tree.leaf(scene.carol.leaf)
    assert carol is not None
    return scene.say(scene.update_of("carol", encryption_key=carol.encryption_key))


@breaks(Rule.LEAF_SOURCE)
def update_with_a_leaf_made_for_a_key_package(scene: Scene) -> PublicMessage:
    return scene.say(scene.update_of("carol", source=KEY_PACKAGE, lifetime=Lifetime(0, 2**64 - 1)))


@breaks(Rule.LEAF_SIGNATURE)
def update_signed_for_another_leaf(scene: Scene) -> PublicMessage:
    carol = scene.room.members["carol"]
    old = carol.public.tree.leaf(carol.leaf)
    assert old is not None
    _, public = scene.room.kem.derive_key_pair(scene.room.random(32))
    leaf = replace(old, encryption_key=public, source=UPDATE, lifetime=None, parent_hash=b"")
    leaf = leaf.signed(carol.suite, carol.signature_private, carol.public.group_id, carol.leaf + 1)
    return scene.say(scene.propose(say(carol, Update(leaf))))


@breaks(Rule.UNIQUE_ENCRYPTION_KEY)
def update_to_the_key_of_another(scene: Scene) -> PublicMessage:
    alice = scene.room.follower.tree.leaf(0)
    assert alice is not None
    return scene.say(scene.update_of("carol", encryption_key=alice.encryption_key))


@breaks(Rule.UPDATE_OF_COMMITTER)
def update_by_value(scene: Scene) -> PublicMessage:
    leaf = scene.room.follower.tree.leaf(scene.bob.leaf)
    assert leaf is not None
    return scene.say(Update(leaf))


@breaks(Rule.UPDATE_OF_COMMITTER)
def update_of_the_committer_by_reference(scene: Scene) -> PublicMessage:
    return scene.say(scene.update_of("bob"))


# --- lists of proposals -------------------------------------------------------------------------------------------------


@breaks(Rule.REMOVE_OF_COMMITTER)
def remove_of_the_committer(scene: Scene) -> PublicMessage:
    return scene.say(Remove(scene.bob.leaf))


@breaks(Rule.LEAF_CHANGED_TWICE)
def two_removes_of_one_leaf(scene: Scene) -> PublicMessage:
    return scene.say(Remove(3), Remove(3))


@breaks(Rule.LEAF_CHANGED_TWICE)
def update_and_remove_of_one_leaf(scene: Scene) -> PublicMessage:
    return scene.say(scene.update_of("carol"), Remove(scene.carol.leaf))


@breaks(Rule.LEAF_CHANGED_TWICE)
def two_updates_of_one_leaf(scene: Scene) -> PublicMessage:
    return scene.say(scene.update_of("carol"), scene.update_of("carol"))


@breaks(Rule.PSK_TWICE)
def one_psk_twice(scene: Scene) -> PublicMessage:
    proposal = PreSharedKey(psk.ExternalPsk(b"id", bytes(32)))
    return scene.say(proposal, proposal)


@breaks(Rule.PSK_TWICE)
def one_psk_twice_in_an_external_commit(scene: Scene) -> PublicMessage:
    proposal = PreSharedKey(psk.ExternalPsk(b"id", bytes(32)))
    return scene.external(proposal, proposal)


@breaks(Rule.GROUP_EXTENSIONS_TWICE)
def group_extensions_twice(scene: Scene) -> PublicMessage:
    return scene.say(GroupContextExtensions(()), GroupContextExtensions(()))


@breaks(Rule.REINIT_ALONE)
def reinit_beside_a_remove(scene: Scene) -> PublicMessage:
    return scene.say(ReInit(b"next", 1, 1, ()), Remove(3))


@breaks(Rule.REINIT_ALONE)
def two_reinits(scene: Scene) -> PublicMessage:
    return scene.say(ReInit(b"next", 1, 1, ()), ReInit(b"other", 1, 1, ()))


@breaks(Rule.EXTERNAL_INIT_INSIDE)
def external_init_of_a_member(scene: Scene) -> PublicMessage:
    return scene.say(scene.external_init)


@breaks(Rule.LEAF_GROUP_EXTENSIONS)
def group_extension_that_nobody_supports(scene: Scene) -> PublicMessage:
    return scene.say(GroupContextExtensions((Extension(OUTSIDE_EXTENSION, b""),)))


@breaks(Rule.LEAF_REQUIRED_CAPABILITIES)
def required_capability_that_nobody_has(scene: Scene) -> PublicMessage:
    required = RequiredCapabilities(extensions=(OUTSIDE_EXTENSION,)).encode()
    return scene.say(GroupContextExtensions((Extension(REQUIRED_CAPABILITIES, required),)))


@breaks(Rule.LEAF_REQUIRED_CAPABILITIES)
def required_proposal_that_an_added_member_lacks(scene: Scene) -> PublicMessage:
    required = RequiredCapabilities(extensions=(PRIVATE_EXTENSION,), credentials=(1,)).encode()
    package = key_package(
        scene.room.follower, scene.mallory, scene.room.random, leaf={"capabilities": replace(scene.mallory.capabilities, extensions=())}
    )
    return scene.say(GroupContextExtensions((Extension(REQUIRED_CAPABILITIES, required),)), Add(package))
