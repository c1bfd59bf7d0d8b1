"""GroupInfos beside a commit that do not belong to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from broker_crypto.delivery.group_policy import COMMIT_HASH_EXTENSION, EXTENSION, GroupPolicy
from broker_crypto.mls.group_info import GroupInfo
from broker_crypto.mls.leaf import EXTERNAL_PUB, RATCHET_TREE, Extension
from broker_crypto.wire import tls
from tests.support.lies.commits import unusable
from tests.support.lies.scene import Scene
from tests.support.lies.switches import Switches

INFOS: Switches[Scene] = Switches()
breaks = INFOS.breaks


def with_info(scene: Scene, change: Callable[[GroupInfo], GroupInfo], **bent: Any) -> bytes:
    """A commit of a member whose GroupInfo is changed before it is signed."""
    return scene.member("writer-1").write(info=change, **bent).record


def published(scene: Scene, change: Callable[[tuple[Extension, ...]], tuple[Extension, ...]]) -> bytes:
    """The same for its extensions: external_pub first, then the commit's hash."""
    return with_info(scene, lambda info: replace(info, extensions=change(info.extensions)))


@breaks("malformed_input", rule="group_info_form")
def no_group_info(scene: Scene) -> bytes:
    return scene.member("writer-1").write(encoded_info=lambda _: b"").record


@breaks("malformed_input", rule="group_info_form")
def a_group_info_with_a_byte_behind(scene: Scene) -> bytes:
    return scene.member("writer-1").write(encoded_info=lambda data: data + b"\x00").record


@breaks("malformed_input", rule="group_info_form")
def a_group_info_with_external_pub_twice(scene: Scene) -> bytes:
    return published(scene, lambda them: (them[0], them[0]))


@breaks("extensions")
def a_group_info_with_an_unknown_extension(scene: Scene) -> bytes:
    return published(scene, lambda them: (*them, Extension(0xF0C0, b"")))


@breaks("extensions")
def a_group_info_with_the_tree(scene: Scene) -> bytes:
    return published(scene, lambda them: (*them, Extension(RATCHET_TREE, scene.chain.public.tree.encode())))


@breaks("extensions", rule="external_pub")
def a_group_info_without_external_pub(scene: Scene) -> bytes:
    return published(scene, lambda them: them[1:])


@breaks("extensions", rule="group_info_names")
def a_group_info_that_names_no_commit(scene: Scene) -> bytes:
    return published(scene, lambda them: them[:1])


@breaks("group_info_names")
def a_group_info_that_names_another_commit(scene: Scene) -> bytes:
    return published(scene, lambda them: (them[0], Extension(COMMIT_HASH_EXTENSION, bytes(32))))


@breaks("group_info_names")
def a_group_info_that_names_half_the_commit(scene: Scene) -> bytes:
    return published(scene, lambda them: (them[0], replace(them[1], data=them[1].data[:16])))


def external_pub(name: str, key: Callable[[Scene], bytes]) -> None:
    breaks("malformed_input", name=name, rule="external_pub")(
        lambda scene: published(scene, lambda them: (Extension(EXTERNAL_PUB, key(scene)), them[1]))
    )


external_pub("an_external_pub_that_is_not_usable", lambda scene: tls.opaque(unusable(scene)))
external_pub("an_external_pub_that_is_not_reduced", lambda scene: tls.opaque(b"\xff" * len(unusable(scene))))
external_pub("an_empty_external_pub", lambda scene: b"\x00")


@breaks("malformed_input", rule="external_pub")
def an_external_pub_with_a_byte_behind(scene: Scene) -> bytes:
    return published(scene, lambda them: (replace(them[0], data=them[0].data + b"\x00"), them[1]))


@breaks("group_info_signature")
def a_group_info_signed_by_another_member(scene: Scene) -> bytes:
    return scene.member("writer-1").write(info_private=scene.owns["writer-2"].signature_private).record


@breaks("group_info_signature")
def a_group_info_signed_with_the_key_that_a_path_replaces(scene: Scene) -> bytes:
    new = scene.certified("agent://acme/writer-1").leaf(scene.suite)
    return scene.member("writer-1").write(own=new, info_private=scene.owns["writer-1"].signature_private).record


@breaks("group_info_signer")
def a_group_info_in_the_name_of_another_member(scene: Scene) -> bytes:
    return with_info(scene, lambda info: replace(info, signer=2), info_private=scene.owns["writer-2"].signature_private)


@breaks("group_info_signer")
def a_group_info_in_the_name_of_a_leaf_that_is_not_there(scene: Scene) -> bytes:
    return with_info(scene, lambda info: replace(info, signer=2**32 - 1))


@breaks("group_info_context")
def a_group_info_of_the_epoch_before(scene: Scene) -> bytes:
    return with_info(scene, lambda info: replace(info, group_context=scene.chain.public.context))


@breaks("group_info_context")
def a_group_info_with_another_policy(scene: Scene) -> bytes:
    def changed(info: GroupInfo) -> GroupInfo:
        required, policy = info.group_context.extensions
        other = replace(GroupPolicy.decode(policy.data), key_retention=1)
        context = replace(info.group_context, extensions=(required, Extension(EXTENSION, other.encode())))
        return replace(info, group_context=context)

    return with_info(scene, changed)


@breaks("group_info_tag")
def a_group_info_with_another_tag(scene: Scene) -> bytes:
    return with_info(scene, lambda info: replace(info, confirmation_tag=bytes(31) + b"\x01"))
