"""Leaves, paths and GroupInfos that do not count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from broker_crypto.delivery.committer import Own
from broker_crypto.delivery.group_policy import COMMIT_HASH_EXTENSION, EXTENSION
from broker_crypto.delivery.rules import read_policy
from broker_crypto.identity import ca, keys
from broker_crypto.mls.group_info import GroupInfo
from broker_crypto.mls.leaf import EXTERNAL_PUB, RATCHET_TREE, Capabilities, Credential, Extension
from broker_crypto.wire import tls
from tests.unit.delivery.scene import Attacks, Scene, certified, committed_with, items_of, joined_with

ATTACKS = Attacks()
breaks = ATTACKS.breaks

# --- the leaf -----------------------------------------------------------------------------------------------------------


def capabilities(**lists: tuple[int, ...]) -> Capabilities:
    return replace(Capabilities(cipher_suites=(1,), extensions=(EXTENSION,), credentials=(2,)), **lists)


def lacking(name: str, **lists: tuple[int, ...]) -> None:
    def inside(scene: Scene) -> bytes:
        return committed_with(scene.member("writer-1"), capabilities=capabilities(**lists))

    def outside(scene: Scene) -> bytes:
        return joined_with(scene.outside(), capabilities=capabilities(**lists))

    for attack, where in ((inside, "a_member"), (outside, "a_joiner")):
        attack.__name__ = f"{where}_whose_leaf_lacks_{name}"
        breaks("leaf_suite", "leaf_group_extensions", "leaf_credential_listed", "leaf_version")(attack)


lacking("the_suite", cipher_suites=(2, 3))
lacking("the_policy_extension", extensions=())
lacking("x509", credentials=(1,))
lacking("the_version", versions=(2,))


@breaks("leaf_extensions_listed")
def a_leaf_with_an_extension_that_it_does_not_list(scene: Scene) -> bytes:
    return committed_with(scene.member("writer-1"), extensions=(Extension(0xF0C0, b""),))


@breaks("leaf_source")
def a_leaf_made_for_a_key_package(scene: Scene) -> bytes:
    return committed_with(scene.member("writer-1"), source=1)


@breaks("leaf_signature", "path_parent_hash")
def a_leaf_signed_for_another_index(scene: Scene) -> bytes:
    scribe = scene.member("writer-1")
    return scribe.with_info(scribe.say((), scribe.path_with(index=2)))


@breaks("usable_key")
def a_leaf_with_a_key_of_small_order(scene: Scene) -> bytes:
    return committed_with(scene.member("writer-1"), encryption_key=bytes(32))


@breaks("path_key_new")
def a_path_that_keeps_the_key_of_its_leaf(scene: Scene) -> bytes:
    old = scene.chain.public.tree.leaf(1)
    assert old is not None
    return committed_with(scene.member("writer-1"), encryption_key=old.encryption_key)


@breaks("path_parent_hash")
def a_leaf_that_does_not_vouch_for_its_path(scene: Scene) -> bytes:
    return committed_with(scene.member("writer-1"), parent_hash=bytes(32))


def both(own: Callable[[Scene], Own], *reasons: str) -> None:
    """A joiner with this certificate, and a member (writer-1) that brings it in."""

    def joiner(scene: Scene) -> bytes:
        scribe = scene.outside(own(scene))
        return scribe.with_info(scribe.say(items_of(scribe), scribe.path_with()))

    def member(scene: Scene) -> bytes:
        scribe, new = scene.member("writer-1"), own(scene)
        return scribe.with_info(scribe.say((), scribe.path_with(new)), private=new.signature_private)

    for attack in (joiner, member):
        attack.__name__ = f"{attack.__name__}_{own.__name__}"
        breaks(*reasons)(attack)


def certified_by_another_ca(scene: Scene) -> Own:
    other = ca.found("test CA", keys.generate(), now_ms=scene.now)
    return certified(scene, "agent://acme/writer-1", authority=other)


def certified_by_a_ca_of_the_same_key_and_another_name(scene: Scene) -> Own:
    other = ca.found("other CA", scene.world.authority.private_key, now_ms=scene.now)
    return certified(scene, "agent://acme/writer-1", authority=other)


def outside_the_prefix_of_the_anchor(scene: Scene) -> Own:
    return certified(scene, "agent://acme2/writer-1")


def without_a_role(scene: Scene) -> Own:
    return certified(scene, "agent://acme/stranger")


def not_valid_yet(scene: Scene) -> Own:
    return certified(scene, "agent://acme/writer-1", at=5 * 60_000 + 2_000)


both(certified_by_another_ca, "anchor.signature")
both(certified_by_a_ca_of_the_same_key_and_another_name, "anchor.issuer")
both(outside_the_prefix_of_the_anchor, "anchor.identity")
both(without_a_role, "role")
both(not_valid_yet, "chain.validity")


@breaks("identity")
def a_member_that_becomes_another_identity_with_a_role(scene: Scene) -> bytes:
    scribe, new = scene.member("writer-1"), certified(scene, "agent://acme/ops")
    return scribe.with_info(scribe.say((), scribe.path_with(new)), private=new.signature_private)


@breaks("leaf_certificate_key")
def a_leaf_whose_key_is_not_the_certificates(scene: Scene) -> bytes:
    other = scene.owns["writer-2"]
    return committed_with(scene.member("writer-1"), credential=Credential.x509(other.chain))


@breaks("leaf_certificate_key")
def a_p256_certificate_in_a_group_of_ed25519(scene: Scene) -> bytes:
    own = certified(scene, "agent://acme/writer-1", scheme="p256")
    return committed_with(scene.member("writer-1"), credential=Credential.x509(own.chain))


@breaks("chain.anchor", "chain.length")
def a_chain_with_the_anchor_in_it(scene: Scene) -> bytes:
    chain = (*scene.owns["writer-1"].chain, scene.world.authority.certificate)
    return committed_with(scene.member("writer-1"), credential=Credential.x509(chain))


@breaks("chain.length")
def a_chain_of_five(scene: Scene) -> bytes:
    chain = scene.owns["writer-1"].chain * 5
    return committed_with(scene.member("writer-1"), credential=Credential.x509(chain))


@breaks("leaf_certificate_key")
def a_chain_of_nothing(scene: Scene) -> bytes:
    return committed_with(scene.member("writer-1"), credential=Credential.x509(()))


@breaks("leaf_credential_listed")
def a_basic_credential(scene: Scene) -> bytes:
    return committed_with(scene.member("writer-1"), credential=Credential.basic(b"agent://acme/writer-1"))


@breaks("credential", "credential_common", "malformed_input")
def a_basic_credential_that_the_leaf_lists(scene: Scene) -> bytes:
    lists = capabilities(credentials=(1, 2))
    return committed_with(scene.member("writer-1"), credential=Credential.basic(b"agent://acme/writer-1"), capabilities=lists)


# --- the path -----------------------------------------------------------------------------------------------------------


@breaks("path_length")
def a_path_with_a_node_too_many(scene: Scene) -> bytes:
    scribe = scene.member("writer-1")
    path = scribe.path_with()
    return scribe.with_info(scribe.say((), replace(path, nodes=(*path.nodes, path.nodes[-1]))))


@breaks("path_receivers")
def a_path_secret_for_nobody(scene: Scene) -> bytes:
    scribe = scene.member("writer-1")
    path = scribe.path_with()
    nodes = (replace(path.nodes[0], encrypted_path_secret=()), *path.nodes[1:])
    return scribe.with_info(scribe.say((), replace(path, nodes=nodes)))


@breaks("unique_encryption_key", "path_parent_hash")
def a_path_with_one_key_twice(scene: Scene) -> bytes:
    scribe = scene.member("writer-1")
    path = scribe.path_with()
    nodes = (path.nodes[0], replace(path.nodes[1], encryption_key=path.nodes[0].encryption_key))
    return scribe.with_info(scribe.say((), replace(path, nodes=nodes)))


@breaks("usable_key")
def a_path_secret_sealed_to_a_point_of_small_order(scene: Scene) -> bytes:
    scribe = scene.member("writer-1")
    path = scribe.path_with()
    sealed = replace(path.nodes[0].encrypted_path_secret[0], kem_output=bytes(32))
    nodes = (replace(path.nodes[0], encrypted_path_secret=(sealed,)), *path.nodes[1:])
    return scribe.with_info(scribe.say((), replace(path, nodes=nodes)))


# --- group_info ---------------------------------------------------------------------------------------------------------


def with_info(scene: Scene, change: Callable[[GroupInfo], GroupInfo], **how: object) -> bytes:
    scribe = scene.member("writer-1")
    return scribe.with_info(scribe.say((), scribe.path_with()), change=change, **how)  # type: ignore[arg-type]


def with_extensions(scene: Scene, change: Callable[[tuple[Extension, ...]], tuple[Extension, ...]]) -> bytes:
    return with_info(scene, lambda info: replace(info, extensions=change(info.extensions)))


@breaks("malformed_input")
def no_group_info(scene: Scene) -> bytes:
    scribe = scene.member("writer-1")
    return scribe.with_info(scribe.say((), scribe.path_with()), group_info=b"")


@breaks("malformed_input")
def a_group_info_with_a_byte_behind(scene: Scene) -> bytes:
    scribe = scene.member("writer-1")
    message = scribe.say((), scribe.path_with())
    return scribe.with_info(message, group_info=scribe.info(message).encode() + b"\x00")


@breaks("extensions")
def a_group_info_with_an_unknown_extension(scene: Scene) -> bytes:
    return with_extensions(scene, lambda them: (*them, Extension(0xF0C0, b"")))


@breaks("extensions")
def a_group_info_with_the_tree(scene: Scene) -> bytes:
    return with_extensions(scene, lambda them: (*them, Extension(RATCHET_TREE, scene.chain.public.tree.encode())))


@breaks("extensions")
def a_group_info_without_external_pub(scene: Scene) -> bytes:
    return with_extensions(scene, lambda them: them[1:])


@breaks("extensions")
def a_group_info_that_names_no_commit(scene: Scene) -> bytes:
    return with_extensions(scene, lambda them: them[:1])


@breaks("group_info_names")
def a_group_info_that_names_another_commit(scene: Scene) -> bytes:
    return with_extensions(scene, lambda them: (them[0], Extension(COMMIT_HASH_EXTENSION, bytes(32))))


@breaks("group_info_names")
def a_group_info_that_names_half_the_commit(scene: Scene) -> bytes:
    return with_extensions(scene, lambda them: (them[0], replace(them[1], data=them[1].data[:16])))


@breaks("malformed_input")
def an_external_pub_of_small_order(scene: Scene) -> bytes:
    return with_extensions(scene, lambda them: (Extension(EXTERNAL_PUB, tls.opaque(bytes(32))), them[1]))


@breaks("malformed_input")
def an_external_pub_that_is_not_reduced(scene: Scene) -> bytes:
    return with_extensions(scene, lambda them: (Extension(EXTERNAL_PUB, tls.opaque(b"\xff" * 32)), them[1]))


@breaks("malformed_input")
def an_external_pub_with_a_byte_behind(scene: Scene) -> bytes:
    return with_extensions(scene, lambda them: (replace(them[0], data=them[0].data + b"\x00"), them[1]))


@breaks("malformed_input")
def an_empty_external_pub(scene: Scene) -> bytes:
    return with_extensions(scene, lambda them: (Extension(EXTERNAL_PUB, b"\x00"), them[1]))


@breaks("group_info_signature")
def a_group_info_signed_by_another_member(scene: Scene) -> bytes:
    return with_info(scene, lambda info: info, private=scene.owns["writer-2"].signature_private)


@breaks("group_info_signer")
def a_group_info_in_the_name_of_another_member(scene: Scene) -> bytes:
    return with_info(scene, lambda info: replace(info, signer=2), private=scene.owns["writer-2"].signature_private)


@breaks("group_info_context")
def a_group_info_of_the_epoch_before(scene: Scene) -> bytes:
    return with_info(scene, lambda info: replace(info, group_context=scene.chain.public.context))


@breaks("group_info_context")
def a_group_info_with_another_policy(scene: Scene) -> bytes:
    def changed(info: GroupInfo) -> GroupInfo:
        first, second = info.group_context.extensions
        policy = replace(read_policy((first, second)), key_retention=1)
        context = replace(info.group_context, extensions=(first, Extension(second.type, policy.encode())))
        return replace(info, group_context=context)

    return with_info(scene, changed)


@breaks("group_info_tag")
def a_group_info_with_another_tag(scene: Scene) -> bytes:
    return with_info(scene, lambda info: replace(info, confirmation_tag=bytes(31) + b"\x01"))
