"""What a commit may not hold: who joins how, what a member commits, what the authenticated data say."""

from __future__ import annotations

from dataclasses import replace

from broker_crypto import limits
from broker_crypto.delivery import rules
from broker_crypto.delivery.group_policy import EXTENSION
from broker_crypto.delivery.log_records import COMMIT, CommitData, FencedTopic, GroupRecord
from broker_crypto.mls import psk
from broker_crypto.mls.framing import Sender, SenderType
from broker_crypto.mls.leaf import REQUIRED_CAPABILITIES, Extension
from broker_crypto.mls.proposals import Add, ExternalInit, GroupContextExtensions, PreSharedKey, ProposalRef, ReInit, Remove
from broker_crypto.wire import envelopes
from tests.support.forging import commit_in, key_package, leaf_changed, path_in
from tests.support.log_forging import leaf_of
from tests.unit.delivery.scene import Attacks, Scene, committed_with, items_of, joined_with

ATTACKS = Attacks()
breaks = ATTACKS.breaks

# --- who joins ----------------------------------------------------------------------------------------------------------


@breaks("unique_signature_key")
def a_member_that_joins_beside_its_own_leaf(scene: Scene) -> bytes:
    scribe = scene.outside(scene.owns["writer-1"])
    return scribe.with_info(scribe.say(items_of(scene.outside()), scene.outside().path_with(scribe.own)))


@breaks("resync_key")
def a_joiner_that_removes_the_leaf_of_another(scene: Scene) -> bytes:
    return scene.outside().honest(remove=2)


@breaks("resync_key")
def a_joiner_that_removes_the_leaf_of_its_own_identity_with_another_key(scene: Scene) -> bytes:
    return scene.outside("writer-1").honest(remove=1)


@breaks("unique_signature_key")
def a_member_that_comes_back_over_the_leaf_of_another(scene: Scene) -> bytes:
    scribe, other = scene.outside(scene.owns["writer-1"]), scene.outside()
    path = leaf_changed(path_in(other.staged(remove=2)), scene.chain.public, 2, scribe.own.signature_private, **leaf_of(scribe.own))
    return scribe.with_info(scribe.say((*items_of(other), Remove(2)), path))


@breaks("external_remove_once")
def a_joiner_that_removes_two_leaves(scene: Scene) -> bytes:
    scribe = scene.outside(scene.owns["writer-1"])
    return scribe.with_info(scribe.say((*commit_in(scribe.staged(remove=1)).proposals, Remove(2)), path_in(scribe.staged(remove=1))))


@breaks("remove_of_nobody")
def a_joiner_that_removes_a_blank_leaf(scene: Scene) -> bytes:
    return joined_with(scene.outside(), Remove(5))


@breaks("external_init_once")
def a_joiner_with_two_external_inits(scene: Scene) -> bytes:
    scribe = scene.outside()
    init = items_of(scribe)[0]
    assert isinstance(init, ExternalInit)
    return joined_with(scribe, init)


@breaks("external_init_once")
def a_joiner_without_external_init(scene: Scene) -> bytes:
    scribe = scene.outside()
    return scribe.with_info(scribe.say((), scribe.path_with()))


@breaks("proposals")
def a_joiner_with_a_pre_shared_key(scene: Scene) -> bytes:
    return joined_with(scene.outside(), PreSharedKey(psk.ExternalPsk(b"key", bytes(32))))


@breaks("external_proposals")
def a_joiner_that_brings_a_second_one(scene: Scene) -> bytes:
    package = key_package(scene.chain.public, scene.world.own("writer-8").leaf(1), scene.world.random)
    return joined_with(scene.outside(), Add(package))


@breaks("external_proposals")
def a_joiner_that_changes_the_policy(scene: Scene) -> bytes:
    return joined_with(scene.outside(), GroupContextExtensions(scene.chain.public.context.extensions))


@breaks("usable_key")
def an_external_init_of_small_order(scene: Scene) -> bytes:
    scribe = scene.outside()
    return scribe.with_info(scribe.say((ExternalInit(bytes(32)),), scribe.path_with()))


# --- what a member commits ----------------------------------------------------------------------------------------------


@breaks("by_reference")
def a_proposal_by_reference(scene: Scene) -> bytes:
    return committed_with(scene.member("ops"), ProposalRef(bytes(32)))


@breaks("proposals")
def a_remove_by_an_admin(scene: Scene) -> bytes:
    scribe = scene.member("ops")
    staged = scene.group("ops").commit(proposals=(Remove(2),), authenticated_data=CommitData(scene.now).encode(), random=scene.world.random)
    return scribe.with_info(scribe.say((Remove(2),), path_in(staged)))


@breaks("proposals")
def a_policy_changed_by_an_admin(scene: Scene) -> bytes:
    policy = replace(scene.chain.policy, barred=("agent://acme/writer-2",))
    extensions = (Extension(REQUIRED_CAPABILITIES, rules.required_capabilities()), Extension(EXTENSION, policy.encode()))
    return committed_with(scene.member("ops"), GroupContextExtensions(extensions))


@breaks("proposals")
def the_same_policy_set_again_by_an_admin(scene: Scene) -> bytes:
    return committed_with(scene.member("ops"), GroupContextExtensions(scene.chain.public.context.extensions))


@breaks("proposals")
def a_policy_with_higher_rules(scene: Scene) -> bytes:
    extensions = list(scene.chain.public.context.extensions)
    extensions[1] = Extension(EXTENSION, replace(scene.chain.policy, rules=2).encode())
    return committed_with(scene.member("ops"), GroupContextExtensions(tuple(extensions)))


@breaks("proposals")
def a_group_context_without_policy(scene: Scene) -> bytes:
    return committed_with(scene.member("ops"), GroupContextExtensions(()))


@breaks("proposals")
def a_newcomer_added_by_a_member(scene: Scene) -> bytes:
    package = key_package(scene.chain.public, scene.world.own("writer-8").leaf(1), scene.world.random)
    staged = scene.group("ops").commit(
        proposals=(Add(package),), authenticated_data=CommitData(scene.now).encode(), now=scene.now // 1000, random=scene.world.random
    )
    scribe = scene.member("ops")
    return scribe.with_info(scribe.say((Add(package),), path_in(staged)))


@breaks("path")
def a_newcomer_added_without_a_path(scene: Scene) -> bytes:
    package = key_package(scene.chain.public, scene.world.own("writer-8").leaf(1), scene.world.random)
    scribe = scene.member("ops")
    return scribe.with_info(scribe.say((Add(package),), None))


@breaks("path")
def a_pre_shared_key_without_a_path(scene: Scene) -> bytes:
    scribe = scene.member("ops")
    return scribe.with_info(scribe.say((PreSharedKey(psk.ExternalPsk(b"key", bytes(32))),), None))


@breaks("proposals")
def a_pre_shared_key(scene: Scene) -> bytes:
    return committed_with(scene.member("ops"), PreSharedKey(psk.ExternalPsk(b"key", bytes(32))))


@breaks("proposals", "path")
def a_reinit(scene: Scene) -> bytes:
    return committed_with(scene.member("ops"), ReInit(bytes(32), 1, 1, scene.chain.public.context.extensions))


@breaks("path_required")
def nothing_and_no_path(scene: Scene) -> bytes:
    scribe = scene.member("writer-1")
    return scribe.with_info(scribe.say((), None))


@breaks("external_init_inside")
def an_external_init_by_a_member(scene: Scene) -> bytes:
    return committed_with(scene.member("writer-1"), *items_of(scene.outside()))


@breaks("message_signature")
def a_commit_in_the_name_of_another_leaf(scene: Scene) -> bytes:
    scribe = scene.member("writer-1")
    return scribe.with_info(scribe.say((), scribe.path_with(), sender=Sender.member(0)))


@breaks("sender_leaf")
def a_commit_of_a_leaf_that_is_not_there(scene: Scene) -> bytes:
    scribe = scene.member("writer-1")
    return scribe.with_info(scribe.say((), scribe.path_with(), sender=Sender.member(2**32 - 1)))


@breaks("proposal_sender")
def a_commit_of_an_external_sender(scene: Scene) -> bytes:
    scribe = scene.outside()
    return scribe.with_info(scribe.say(items_of(scribe), scribe.path_with(), sender=Sender(SenderType.EXTERNAL, 0)))


@breaks("proposal_sender")
def a_commit_of_a_newcomer_that_only_proposes(scene: Scene) -> bytes:
    scribe = scene.outside()
    return scribe.with_info(scribe.say(items_of(scribe), scribe.path_with(), sender=Sender(SenderType.NEW_MEMBER_PROPOSAL)))


@breaks("form")
def a_proposal_by_itself(scene: Scene) -> bytes:
    scribe = scene.member("ops")
    message = scribe.say((), scribe.path_with())
    alone = replace(message, content=replace(message.content, content=Remove(1)), auth=replace(message.auth, confirmation_tag=None))
    return scribe.with_info(alone)


@breaks("form")
def application_data(scene: Scene) -> bytes:
    scribe = scene.member("ops")
    message = scribe.say((), None)
    alone = replace(message, content=replace(message.content, content=b"data"), auth=replace(message.auth, confirmation_tag=None))
    return scribe.with_info(alone)


@breaks("form")
def a_private_message(scene: Scene) -> bytes:
    staged = scene.group("ops").commit(authenticated_data=CommitData(scene.now).encode(), private=True, random=scene.world.random)
    return GroupRecord(COMMIT, scene.chain.epoch, staged.message, b"").encode()


@breaks("group_id")
def a_commit_of_another_group(scene: Scene) -> bytes:
    scribe = scene.member("ops")
    return scribe.with_info(scribe.say((), scribe.path_with(), group_id=bytes(32)))


@breaks("epoch")
def a_commit_whose_epoch_is_not_the_records(scene: Scene) -> bytes:
    scribe = scene.member("ops")
    return scribe.with_info(scribe.say((), scribe.path_with(), epoch=scene.chain.epoch + 1))


# --- authenticated data -------------------------------------------------------------------------------------------------


def with_data(scene: Scene, data: bytes) -> bytes:
    scribe = scene.member("ops")
    return scribe.with_info(scribe.say((), scribe.path_with(), data=data))


@breaks("malformed_input")
def no_commit_data(scene: Scene) -> bytes:
    return with_data(scene, b"")


@breaks("malformed_input")
def commit_data_with_a_byte_behind(scene: Scene) -> bytes:
    return with_data(scene, CommitData(scene.now).encode() + b"\x00")


@breaks("malformed_input")
def commit_data_of_another_version(scene: Scene) -> bytes:
    return with_data(scene, envelopes.COMMIT_DATA.encode({"version": 2, "time": scene.now, "fences": None}))


@breaks("malformed_input")
def commit_data_with_a_time_before_1970(scene: Scene) -> bytes:
    return with_data(scene, envelopes.COMMIT_DATA.encode({"version": 1, "time": -1, "fences": None}))


@breaks("malformed_input")
def commit_data_in_a_longer_encoding(scene: Scene) -> bytes:
    data = CommitData(scene.now).encode()
    return with_data(scene, data[:10] + b"\x82\x00" + data[11:])


@breaks("malformed_input")
def commit_data_of_another_schema(scene: Scene) -> bytes:
    return with_data(scene, scene.chain.policy.encode())


@breaks("fences")
def an_empty_list_of_fences(scene: Scene) -> bytes:
    return with_data(scene, CommitData(scene.now, ()).encode())


@breaks("fences")
def a_long_list_of_fences(scene: Scene) -> bytes:
    ends = tuple((number, 2**63 - 1) for number in range(20_000))
    return with_data(scene, CommitData(scene.now, (FencedTopic("orders", "id", ends),)).encode())


@breaks("time")
def a_time_before_the_one_that_counted_last(scene: Scene) -> bytes:
    return with_data(scene, CommitData(scene.chain.time - 1).encode())


@breaks("time")
def a_time_more_than_a_minute_ahead_of_the_broker(scene: Scene) -> bytes:
    return with_data(scene, CommitData(scene.now + limits.COMMIT_TIME_WINDOW_MS + 1).encode())


@breaks("time")
def a_time_at_the_end_of_time(scene: Scene) -> bytes:
    return with_data(scene, CommitData(2**63 - 1).encode())
