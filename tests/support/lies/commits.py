"""What a commit may not hold: who joins how, what a member commits, what the authenticated data say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from broker_crypto import limits
from broker_crypto.delivery.log_records import COMMIT, CommitData, GroupRecord
from broker_crypto.mls import psk
from broker_crypto.mls.framing import MLSMessage, PublicMessage, Sender, SenderType
from broker_crypto.mls.leaf import REQUIRED_CAPABILITIES, UPDATE, Extension, LeafNode
from broker_crypto.mls.proposals import Add, ExternalInit, GroupContextExtensions, PreSharedKey, ProposalRef, ReInit, Remove, Update
from broker_crypto.wire import envelopes
from tests.support.forging import key_package
from tests.support.lies.scene import Scene
from tests.support.lies.scribe import Item
from tests.support.lies.switches import Switches

COMMITS: Switches[Scene] = Switches()
breaks = COMMITS.breaks

# --- who joins ----------------------------------------------------------------------------------------------------------


@breaks("unique_signature_key")
def a_member_that_joins_beside_its_own_leaf(scene: Scene) -> bytes:
    return scene.outside(scene.owns["writer-1"]).write().record


@breaks("resync_key")
def a_joiner_that_removes_the_leaf_of_another(scene: Scene) -> bytes:
    return scene.outside().write(remove=2).record


@breaks("resync_key")
def a_joiner_that_removes_the_leaf_of_its_own_identity_with_another_key(scene: Scene) -> bytes:
    return scene.outside("writer-1").write(remove=1).record


@breaks("unique_signature_key")
def a_member_that_comes_back_over_the_leaf_of_another(scene: Scene) -> bytes:
    return scene.outside(scene.owns["writer-1"]).write(remove=2).record


@breaks("external_remove_once")
def a_joiner_that_removes_two_leaves(scene: Scene) -> bytes:
    return scene.outside(scene.owns["writer-1"]).write(Remove(2), remove=1).record


@breaks("remove_of_nobody")
def a_joiner_that_removes_a_blank_leaf(scene: Scene) -> bytes:
    return scene.outside().write(remove=5).record


@breaks("external_init_once")
def a_joiner_with_two_external_inits(scene: Scene) -> bytes:
    return scene.outside().write(items=lambda items: (*items, *items)).record


@breaks("external_init_once")
def a_joiner_without_external_init(scene: Scene) -> bytes:
    return scene.outside().write(items=lambda _: ()).record


@breaks("external_proposals")
def a_joiner_that_brings_a_second_one(scene: Scene) -> bytes:
    return scene.outside().write(added(scene)).record


@breaks("external_proposals")
def a_joiner_that_changes_the_policy(scene: Scene) -> bytes:
    return scene.outside().write(GroupContextExtensions(scene.chain.public.context.extensions)).record


@breaks("usable_key")
def an_external_init_of_small_order(scene: Scene) -> bytes:
    return scene.outside().write(external_init=ExternalInit(unusable(scene))).record


@breaks("usable_key")
def an_external_init_with_a_short_kem_output(scene: Scene) -> bytes:
    return scene.outside().write(external_init=ExternalInit(b"\x09")).record


@breaks("external_key_new")
def a_member_that_comes_back_with_the_key_of_its_leaf(scene: Scene) -> bytes:
    old = leaf_of(scene, 1)
    return scene.outside(scene.owns["writer-1"]).write(remove=1, leaf={"encryption_key": old.encryption_key}).record


@breaks("path_required", rule="path_required")
def a_joiner_without_a_path(scene: Scene) -> bytes:
    return scene.outside().write(path=lambda _: None).record


# --- what a member commits ----------------------------------------------------------------------------------------------


def unusable(scene: Scene) -> bytes:
    """No public key of the suite: of small order, or not on the curve."""
    return bytes(len(leaf_of(scene, 0).encryption_key))


def leaf_of(scene: Scene, index: int) -> LeafNode:
    """The leaf that stands at `index`."""
    leaf = scene.chain.public.tree.leaf(index)
    assert leaf is not None
    return leaf


def added(scene: Scene, *, leaf: dict[str, object] | None = None, **changes: object) -> Add:
    """An Add of one outside; fields of its leaf and of its key package changed."""
    own = scene.world.own("writer-8", scheme=scene.scheme).leaf(scene.suite)
    return Add(key_package(scene.chain.public, own, scene.world.random, leaf=leaf, **changes))


def by_ops(scene: Scene, *items: Item, **bent: Any) -> bytes:
    """A commit of the admin."""
    return scene.member("ops").write(*items, **bent).record


@breaks("by_reference", rule="proposal_known")
def a_proposal_by_reference(scene: Scene) -> bytes:
    return by_ops(scene, ProposalRef(bytes(scene.chain.public.suite.nh)))


@breaks("by_reference", rule="external_by_value")
def a_proposal_by_reference_of_one_who_joins(scene: Scene) -> bytes:
    return scene.outside().write(ProposalRef(bytes(scene.chain.public.suite.nh))).record


def package(reason: str, name: str, *, leaf: dict[str, object] | None = None, **changes: object) -> None:
    breaks(reason, name=name)(lambda scene: by_ops(scene, added(scene, leaf=leaf, **changes)))


package("key_package_version", "a_newcomer_with_a_key_package_of_another_version", version=2)
package("key_package_suite", "a_newcomer_with_a_key_package_of_another_suite", cipher_suite=7)
package("leaf_source", "a_newcomer_whose_leaf_was_made_for_a_commit", leaf={"source": 3, "lifetime": None, "parent_hash": b""})


@breaks("key_package_signature")
def a_newcomer_whose_key_package_another_has_signed(scene: Scene) -> bytes:
    one, other = added(scene).key_package, added(scene).key_package
    return by_ops(scene, Add(replace(one, signature=other.signature)))


@breaks("key_package_init_key")
def a_newcomer_whose_init_key_is_its_leafs(scene: Scene) -> bytes:
    own = scene.world.own("writer-8", scheme=scene.scheme).leaf(scene.suite)
    _, leaf = own.fresh(scene.chain.public.suite, scene.world.random)
    made = key_package(
        scene.chain.public, own, scene.world.random, leaf={"encryption_key": leaf.encryption_key}, init_key=leaf.encryption_key
    )
    return by_ops(scene, Add(made))


@breaks("unique_signature_key")
def a_member_added_again(scene: Scene) -> bytes:
    own = scene.owns["writer-1"].leaf(scene.suite)
    return by_ops(scene, Add(key_package(scene.chain.public, own, scene.world.random)))


@breaks("path_required")
def nothing_and_no_path(scene: Scene) -> bytes:
    return scene.member("writer-1").write(path=lambda _: None).record


@breaks("path_required")
def a_remove_without_a_path(scene: Scene) -> bytes:
    return by_ops(scene, Remove(2), path=lambda _: None)


@breaks("external_init_inside")
def an_external_init_by_a_member(scene: Scene) -> bytes:
    return scene.member("writer-1").write(ExternalInit(leaf_of(scene, 0).encryption_key)).record


@breaks("update_of_committer")
def an_update_of_the_committer(scene: Scene) -> bytes:
    scribe = scene.member("writer-1")
    _, key = scene.chain.public.suite.derive_key_pair(scene.world.random(32))
    leaf = replace(scribe.own.template(), encryption_key=key, source=UPDATE)
    return scribe.write(Update(leaf.signed(scene.chain.public.suite, scribe.own.signature_private, scene.chain.public.group_id, 1))).record


@breaks("remove_of_committer")
def a_remove_of_the_committer(scene: Scene) -> bytes:
    return by_ops(scene, items=lambda _: (Remove(0),))


@breaks("remove_of_nobody")
def a_remove_of_a_leaf_outside_the_tree(scene: Scene) -> bytes:
    return by_ops(scene, Remove(2**32 - 1))


@breaks("leaf_changed_twice")
def a_leaf_removed_twice(scene: Scene) -> bytes:
    return by_ops(scene, Remove(2), Remove(2))


def named_psk(scene: Scene, name: bytes = b"key") -> PreSharedKey:
    return PreSharedKey(psk.ExternalPsk(name, bytes(scene.chain.public.suite.nh)))


@breaks("psk_nonce")
def a_pre_shared_key_with_a_short_nonce(scene: Scene) -> bytes:
    return by_ops(scene, PreSharedKey(psk.ExternalPsk(b"key", bytes(8))))


@breaks("psk_usage")
def a_pre_shared_key_of_a_branch(scene: Scene) -> bytes:
    nonce = bytes(scene.chain.public.suite.nh)
    return by_ops(scene, PreSharedKey(psk.ResumptionPsk(psk.Usage.BRANCH, scene.chain.public.group_id, 0, nonce)))


@breaks("psk_twice")
def a_pre_shared_key_that_stands_twice(scene: Scene) -> bytes:
    return by_ops(scene, named_psk(scene), named_psk(scene))


def reinit(scene: Scene, version: int = 1) -> ReInit:
    return ReInit(bytes(32), version, scene.suite, scene.chain.public.context.extensions)


@breaks("reinit_version")
def a_reinit_to_an_older_version(scene: Scene) -> bytes:
    return by_ops(scene, reinit(scene, version=0))


@breaks("reinit_alone")
def a_reinit_beside_another_proposal(scene: Scene) -> bytes:
    return by_ops(scene, reinit(scene), Remove(2))


@breaks("group_extensions_twice")
def a_policy_set_twice(scene: Scene) -> bytes:
    same = GroupContextExtensions(scene.chain.public.context.extensions)
    return by_ops(scene, same, same)


@breaks("group_extension_form")
def capabilities_that_cannot_be_read(scene: Scene) -> bytes:
    _, policy = scene.chain.public.context.extensions
    return by_ops(scene, GroupContextExtensions((Extension(REQUIRED_CAPABILITIES, b"\xff"), policy)))


@breaks("leaf_group_extensions")
def a_group_extension_that_nobody_supports(scene: Scene) -> bytes:
    return by_ops(scene, GroupContextExtensions((*scene.chain.public.context.extensions, Extension(0xF0FF, b""))))


# --- the message --------------------------------------------------------------------------------------------------------


@breaks("message_signature")
def a_commit_in_the_name_of_another_leaf(scene: Scene) -> bytes:
    return scene.member("writer-1").write(content={"sender": Sender.member(0)}).record


@breaks("message_signature")
def a_commit_signed_by_a_key_that_is_not_there(scene: Scene) -> bytes:
    return scene.member("writer-1").write(private=scene.world.own("writer-1", scheme=scene.scheme).signature_private).record


@breaks("sender_leaf")
def a_commit_of_a_leaf_that_is_not_there(scene: Scene) -> bytes:
    return scene.member("writer-1").write(content={"sender": Sender.member(2**32 - 1)}).record


@breaks("proposal_sender")
def a_commit_of_an_external_sender(scene: Scene) -> bytes:
    return scene.outside().write(content={"sender": Sender(SenderType.EXTERNAL, 0)}).record


@breaks("proposal_sender")
def a_commit_of_a_newcomer_that_only_proposes(scene: Scene) -> bytes:
    return scene.outside().write(content={"sender": Sender(SenderType.NEW_MEMBER_PROPOSAL)}).record


def alone(scene: Scene, content: object) -> bytes:
    """Something that is no commit, where a commit belongs."""

    def other(message: PublicMessage) -> PublicMessage:
        auth = replace(message.auth, confirmation_tag=None)
        return replace(message, content=replace(message.content, content=content), auth=auth)  # type: ignore[arg-type]

    return by_ops(scene, message=other)


@breaks("form", rule="message_kind")
def a_proposal_by_itself(scene: Scene) -> bytes:
    return alone(scene, Remove(1))


@breaks("form", rule="message_kind")
def application_data(scene: Scene) -> bytes:
    return alone(scene, b"data")


@breaks("form")
def a_private_message(scene: Scene) -> bytes:
    staged = scene.group("ops").commit(authenticated_data=CommitData(scene.now).encode(), private=True, random=scene.world.random)
    return GroupRecord(COMMIT, scene.chain.epoch, staged.message, b"").encode()


@breaks("form")
def a_group_info_where_a_commit_belongs(scene: Scene) -> bytes:
    message = MLSMessage(scene.group("ops").group_info(ratchet_tree=True)).encode()
    return GroupRecord(COMMIT, scene.chain.epoch, message, b"").encode()


@breaks("group_id")
def a_commit_of_another_group(scene: Scene) -> bytes:
    return by_ops(scene, content={"group_id": bytes(32)})


@breaks("epoch")
def a_commit_whose_epoch_is_not_the_records(scene: Scene) -> bytes:
    return by_ops(scene, content={"epoch": scene.chain.epoch + 1})


# --- authenticated data -------------------------------------------------------------------------------------------------


def data(name: str, reason: str, made: bytes) -> None:
    breaks(reason, name=name, rule="commit_data")(lambda scene: by_ops(scene, data=made))


def commit_data(**fields: object) -> bytes:
    return envelopes.COMMIT_DATA.encode({"version": 1, "time": 0, "fences": None, **fields})


data("no_commit_data", "malformed_input", b"")
data("commit_data_of_another_version", "malformed_input", commit_data(version=2))
data("commit_data_with_a_time_before_1970", "malformed_input", commit_data(time=-1))
data("commit_data_with_a_byte_behind", "malformed_input", commit_data() + b"\x00")


@breaks("malformed_input", rule="commit_data")
def commit_data_in_a_longer_encoding(scene: Scene) -> bytes:
    made = CommitData(scene.now).encode()
    return by_ops(scene, data=made[:10] + b"\x82\x00" + made[11:])


@breaks("malformed_input", rule="commit_data")
def commit_data_of_another_schema(scene: Scene) -> bytes:
    return by_ops(scene, data=scene.chain.policy.encode())


@breaks("time")
def a_time_before_the_one_that_counted_last(scene: Scene) -> bytes:
    return by_ops(scene, data=CommitData(scene.chain.time - 1).encode())


@breaks("time")
def a_time_more_than_a_minute_ahead_of_the_broker(scene: Scene) -> bytes:
    return by_ops(scene, data=CommitData(scene.now + limits.COMMIT_TIME_WINDOW_MS + 1).encode())


@breaks("time")
def a_time_at_the_end_of_time(scene: Scene) -> bytes:
    return by_ops(scene, data=CommitData(2**63 - 1).encode())


# --- the record ---------------------------------------------------------------------------------------------------------


@breaks("record", rule="canonical")
def a_record_with_a_byte_behind(scene: Scene) -> bytes:
    return by_ops(scene) + b"\x00"


@breaks("", rule="fingerprint", kind="passed")
def a_record_of_another_schema(scene: Scene) -> bytes:
    whole = by_ops(scene)
    return whole[:2] + bytes((whole[2] ^ 1,)) + whole[3:]


@breaks("", rule="size", kind="passed")
def a_record_that_is_too_large(scene: Scene) -> bytes:
    return by_ops(scene, record=lambda whole: replace(whole, group_info=bytes(limits.MAX_GROUP_RECORD)))


@breaks("", rule="kind", kind="passed")
def a_record_of_a_kind_to_come(scene: Scene) -> bytes:
    return by_ops(scene, record=lambda whole: replace(whole, kind=4))


@breaks("", rule="second_founding", kind="passed")
def a_founding_behind_the_founding(scene: Scene) -> bytes:
    return scene.entries[0].record


@breaks("", rule="stale", kind="stale")
def a_commit_of_the_epoch_before(scene: Scene) -> bytes:
    return by_ops(scene, record=lambda whole: replace(whole, epoch=scene.chain.epoch - 1))


@breaks("", rule="early", kind="early")
def a_commit_of_the_epoch_to_come(scene: Scene) -> bytes:
    return by_ops(scene, record=lambda whole: replace(whole, epoch=scene.chain.epoch + 1))
