"""Commits that are right in everything but one thing: what an external commit may hold, or their path."""

from __future__ import annotations

from dataclasses import replace

from broker_crypto.mls.framing import PublicMessage
from broker_crypto.mls.leaf import (
    UPDATE,
    Capabilities,
    Credential,
    Extension,
    LeafNode,
)
from broker_crypto.mls.proposals import (
    Add,
    Commit,
    GroupContextExtensions,
    Remove,
    Update,
)
from broker_crypto.mls.treekem import HPKECiphertext
from broker_crypto.mls.validation import Rule
from tests.support.forging import commit_in, join_with, key_package, leaf_changed, path_in, say
from tests.support.members import PRIVATE_EXTENSION, certificate, own_leaf
from tests.unit.mls.scene import LOW_ORDER, OUTSIDE_EXTENSION, Attacks, Scene

ATTACKS = Attacks()
breaks = ATTACKS.breaks

# --- external commits ---------------------------------------------------------------------------------------------------


@breaks(Rule.PATH_REQUIRED)
def external_commit_without_a_path(scene: Scene) -> PublicMessage:
    return join_with(scene.room.follower, scene.mallory, [scene.external_init], None)


@breaks(Rule.EXTERNAL_INIT_ONCE)
def external_commit_without_external_init(scene: Scene) -> PublicMessage:
    return join_with(scene.room.follower, scene.mallory, [], path_in(scene.joining))


@breaks(Rule.EXTERNAL_INIT_ONCE)
def external_commit_with_two_external_inits(scene: Scene) -> PublicMessage:
    return scene.external(scene.external_init)


@breaks(Rule.EXTERNAL_REMOVE_ONCE)
def external_commit_with_two_removes(scene: Scene) -> PublicMessage:
    return scene.external(Remove(2), Remove(3))


@breaks(Rule.EXTERNAL_PROPOSALS)
def external_commit_with_group_extensions(scene: Scene) -> PublicMessage:
    return scene.external(GroupContextExtensions(()))


@breaks(Rule.EXTERNAL_PROPOSALS)
def external_commit_with_an_add(scene: Scene) -> PublicMessage:
    other = own_leaf(scene.room.kem, "other", scene.room.random)
    return scene.external(Add(key_package(scene.room.follower, other, scene.room.random)))


@breaks(Rule.EXTERNAL_PROPOSALS)
def external_commit_with_an_update(scene: Scene) -> PublicMessage:
    leaf = scene.room.follower.tree.leaf(0)
    assert leaf is not None
    return scene.external(Update(leaf))


@breaks(Rule.EXTERNAL_BY_VALUE)
def external_commit_of_a_proposal_by_reference(scene: Scene) -> PublicMessage:
    message, _ = scene.bob.propose(Remove(3), random=scene.room.random)
    return scene.external(scene.propose(message))


@breaks(Rule.UNIQUE_SIGNATURE_KEY)
def external_commit_of_one_who_is_in_already(scene: Scene) -> PublicMessage:
    carol = scene.room.own["carol"]
    path = leaf_changed(path_in(scene.joining), scene.bob.public, 4, carol.signature_private, signature_key=carol.signature_public)
    return join_with(scene.room.follower, carol, [scene.external_init], path)


@breaks(Rule.EXTERNAL_KEY_NEW)
def external_commit_that_keeps_the_key_of_the_leaf_it_removes(scene: Scene) -> PublicMessage:
    carol, own = scene.carol, scene.room.own["carol"]
    old = carol.public.tree.leaf(carol.leaf)
    assert old is not None
    staged = scene.room.joining("carol", remove=carol.leaf)
    path = leaf_changed(path_in(staged), carol.public, carol.leaf, own.signature_private, encryption_key=old.encryption_key)
    return join_with(scene.room.follower, own, commit_in(staged).proposals, path)


# --- the path -----------------------------------------------------------------------------------------------------------


@breaks(Rule.PATH_REQUIRED)
def commit_of_nothing_without_a_path(scene: Scene) -> PublicMessage:
    return say(scene.bob, Commit((), None))


@breaks(Rule.PATH_REQUIRED)
def remove_without_a_path(scene: Scene) -> PublicMessage:
    return say(scene.bob, Commit((Remove(3),), None))


@breaks(Rule.PATH_REQUIRED)
def update_without_a_path(scene: Scene) -> PublicMessage:
    return say(scene.bob, Commit((scene.update_of("carol"),), None))


@breaks(Rule.PATH_REQUIRED)
def group_extensions_without_a_path(scene: Scene) -> PublicMessage:
    return say(scene.bob, Commit((GroupContextExtensions(()),), None))


@breaks(Rule.PATH_LENGTH)
def path_with_a_node_too_few(scene: Scene) -> PublicMessage:
    return say(scene.bob, Commit((), replace(scene.path, nodes=scene.path.nodes[:-1])))


@breaks(Rule.PATH_LENGTH)
def path_with_a_node_too_many(scene: Scene) -> PublicMessage:
    _, key = scene.room.kem.derive_key_pair(bytes(32))
    return say(scene.bob, Commit((), replace(scene.path, nodes=(*scene.path.nodes, replace(scene.path.nodes[0], encryption_key=key)))))


@breaks(Rule.PATH_RECEIVERS)
def path_sealed_to_nobody(scene: Scene) -> PublicMessage:
    return scene.path_nodes(encrypted_path_secret=())


@breaks(Rule.PATH_RECEIVERS)
def path_sealed_to_one_too_many(scene: Scene) -> PublicMessage:
    return scene.path_nodes(encrypted_path_secret=scene.path.nodes[0].encrypted_path_secret * 2)


@breaks(Rule.PATH_PARENT_HASH)
def path_whose_leaf_vouches_for_another(scene: Scene) -> PublicMessage:
    return scene.path_leaf(parent_hash=bytes(32))


@breaks(Rule.PATH_PARENT_HASH)
def path_with_another_key_than_its_leaf_vouches_for(scene: Scene) -> PublicMessage:
    _, key = scene.room.kem.derive_key_pair(bytes(32))
    return scene.path_nodes(encryption_key=key)


@breaks(Rule.PATH_KEY_NEW)
def path_whose_leaf_keeps_its_key(scene: Scene) -> PublicMessage:
    bob = scene.room.follower.tree.leaf(scene.bob.leaf)
    assert bob is not None
    return scene.path_leaf(encryption_key=bob.encryption_key)


@breaks(Rule.PATH_KEY_NEW)
def path_with_a_key_of_the_tree(scene: Scene) -> PublicMessage:
    root = scene.room.follower.tree.parent(scene.room.follower.tree.root)
    assert root is not None
    return scene.path_nodes(encryption_key=root.encryption_key)


@breaks(Rule.UNIQUE_ENCRYPTION_KEY)
def path_with_one_key_twice(scene: Scene) -> PublicMessage:
    draft = leaf_vouching_for(scene, [scene.path.nodes[1].encryption_key] * 2)
    nodes = (replace(scene.path.nodes[0], encryption_key=scene.path.nodes[1].encryption_key), scene.path.nodes[1])
    return say(scene.bob, Commit((), replace(scene.path, leaf_node=draft, nodes=nodes)))


def leaf_vouching_for(scene: Scene, keys: list[bytes]) -> LeafNode:
    """Bob's new leaf with the parent hash of a path of these keys."""
    from broker_crypto.mls.tree_draft import TreeDraft

    parent_hash = TreeDraft(scene.bob.public.tree).set_path(scene.bob.leaf, keys)
    return leaf_changed(scene.path, scene.bob.public, scene.bob.leaf, scene.bob.signature_private, parent_hash=parent_hash).leaf_node


@breaks(Rule.USABLE_KEY)
def path_with_a_key_of_small_order(scene: Scene) -> PublicMessage:
    return scene.path_nodes(encryption_key=LOW_ORDER)


@breaks(Rule.USABLE_KEY)
def path_secret_encapsulated_to_a_point_of_small_order(scene: Scene) -> PublicMessage:
    sealed = scene.path.nodes[0].encrypted_path_secret[0]
    return scene.path_nodes(encrypted_path_secret=(HPKECiphertext(LOW_ORDER, sealed.ciphertext),))


@breaks(Rule.USABLE_KEY)
def path_leaf_with_a_key_of_small_order(scene: Scene) -> PublicMessage:
    return scene.path_leaf(encryption_key=LOW_ORDER)


@breaks(Rule.LEAF_SOURCE)
def path_leaf_made_for_an_update(scene: Scene) -> PublicMessage:
    return scene.path_leaf(source=UPDATE, parent_hash=b"")


@breaks(Rule.LEAF_SIGNATURE)
def path_leaf_of_another_group(scene: Scene) -> PublicMessage:
    leaf = scene.path.leaf_node.signed(scene.bob.suite, scene.bob.signature_private, b"another", scene.bob.leaf)
    return say(scene.bob, Commit((), replace(scene.path, leaf_node=leaf)))


@breaks(Rule.LEAF_SIGNATURE)
def path_leaf_of_another_index(scene: Scene) -> PublicMessage:
    leaf = scene.path.leaf_node.signed(scene.bob.suite, scene.bob.signature_private, scene.bob.public.group_id, 0)
    return say(scene.bob, Commit((), replace(scene.path, leaf_node=leaf)))


@breaks(Rule.LEAF_VERSION)
def path_leaf_without_the_version(scene: Scene) -> PublicMessage:
    return scene.path_leaf(capabilities=replace(scene.path.leaf_node.capabilities, versions=(2,)))


@breaks(Rule.LEAF_SUITE)
def path_leaf_without_the_suite(scene: Scene) -> PublicMessage:
    return scene.path_leaf(capabilities=replace(scene.path.leaf_node.capabilities, cipher_suites=(2, 3)))


@breaks(Rule.LEAF_CREDENTIAL_LISTED)
def path_leaf_that_cannot_read_its_own_credential(scene: Scene) -> PublicMessage:
    return scene.path_leaf(capabilities=replace(scene.path.leaf_node.capabilities, credentials=(2,)))


@breaks(Rule.LEAF_EXTENSIONS_LISTED)
def path_leaf_with_an_extension_that_it_does_not_list(scene: Scene) -> PublicMessage:
    return scene.path_leaf(extensions=(Extension(OUTSIDE_EXTENSION, b""),))


@breaks(Rule.CREDENTIAL_COMMON)
def path_leaf_that_gives_up_reading_the_others(scene: Scene) -> PublicMessage:
    capabilities = Capabilities(cipher_suites=(1,), extensions=(PRIVATE_EXTENSION,), credentials=(2,))
    return scene.path_leaf(
        capabilities=capabilities, credential=Credential.x509([certificate(scene.bob.suite, scene.room.own["bob"].signature_public, "bob")])
    )


@breaks(Rule.UNIQUE_SIGNATURE_KEY)
def path_leaf_with_the_signature_key_of_another(scene: Scene) -> PublicMessage:
    carol = scene.carol
    path = leaf_changed(
        scene.path, scene.bob.public, scene.bob.leaf, carol.signature_private, signature_key=scene.room.own["carol"].signature_public
    )
    return say(scene.bob, Commit((), path))


@breaks(Rule.LEAF_CERTIFICATE_KEY)
def path_leaf_with_the_certificate_of_another(scene: Scene) -> PublicMessage:
    alice = certificate(scene.bob.suite, scene.room.own["alice"].signature_public, "alice")
    return scene.path_leaf(credential=Credential.x509([alice]))


@breaks(Rule.LEAF_CERTIFICATE_KEY)
def path_leaf_with_a_certificate_that_is_none(scene: Scene) -> PublicMessage:
    return scene.path_leaf(credential=Credential.x509([b"certificate"]))


@breaks(Rule.LEAF_CERTIFICATE_KEY)
def path_leaf_with_an_empty_chain(scene: Scene) -> PublicMessage:
    return scene.path_leaf(credential=Credential.x509([]))
