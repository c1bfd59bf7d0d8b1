"""Leaves, certificates and paths that do not count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from broker_crypto.delivery.committer import Own
from broker_crypto.delivery.group_policy import EXTENSION
from broker_crypto.identity import ca, keys
from broker_crypto.mls.leaf import Capabilities, Credential, Extension, Lifetime
from broker_crypto.mls.own_leaf import OwnLeaf
from broker_crypto.mls.update_path import HPKECiphertext, UpdatePath
from tests.support.lies.commits import leaf_of, unusable
from tests.support.lies.scene import Scene
from tests.support.lies.switches import Switches

ALWAYS = Lifetime(0, 2**64 - 1)
LEAVES: Switches[Scene] = Switches()
breaks = LEAVES.breaks

# --- what a leaf says ---------------------------------------------------------------------------------------------------


def capabilities(scene: Scene, **lists: tuple[int, ...]) -> Capabilities:
    return replace(Capabilities(cipher_suites=(scene.suite,), extensions=(EXTENSION,), credentials=(2,)), **lists)


def lacking(reason: str, name: str, **lists: tuple[int, ...]) -> None:
    """A leaf of a member, and one of a joiner, that lacks something."""
    breaks(reason, name=f"a_member_whose_leaf_lacks_{name}")(
        lambda scene: scene.member("writer-1").write(leaf={"capabilities": capabilities(scene, **lists)}).record
    )
    breaks(reason, name=f"a_joiner_whose_leaf_lacks_{name}")(
        lambda scene: scene.outside().write(leaf={"capabilities": capabilities(scene, **lists)}).record
    )


lacking("leaf_suite", "the_suite", cipher_suites=(7,))
lacking("leaf_group_extensions", "the_policy_extension", extensions=())
lacking("leaf_credential_listed", "x509", credentials=(1,))
lacking("leaf_version", "the_version", versions=(2,))


def by_writer(scene: Scene, **leaf: object) -> bytes:
    """A path of a member whose leaf says something else."""
    return scene.member("writer-1").write(leaf=leaf).record


@breaks("leaf_extensions_listed")
def a_leaf_with_an_extension_that_it_does_not_list(scene: Scene) -> bytes:
    return by_writer(scene, extensions=(Extension(0xF0C0, b""),))


@breaks("leaf_source")
def a_leaf_made_for_a_key_package(scene: Scene) -> bytes:
    return scene.member("writer-1").write(leaf={"source": 1, "parent_hash": b"", "lifetime": ALWAYS}).record


@breaks("leaf_source")
def a_leaf_made_for_an_update(scene: Scene) -> bytes:
    return scene.member("writer-1").write(leaf={"source": 2, "parent_hash": b""}).record


@breaks("leaf_signature")
def a_leaf_signed_for_another_place(scene: Scene) -> bytes:
    return scene.member("writer-1").write(signed_for=2).record


@breaks("leaf_signature")
def a_joiner_whose_leaf_is_signed_for_another_place(scene: Scene) -> bytes:
    return scene.outside().write(signed_for=2).record


@breaks("usable_key")
def a_leaf_with_a_key_that_is_not_usable(scene: Scene) -> bytes:
    return by_writer(scene, encryption_key=unusable(scene))


@breaks("path_key_new")
def a_path_that_keeps_the_key_of_its_leaf(scene: Scene) -> bytes:
    return by_writer(scene, encryption_key=leaf_of(scene, 1).encryption_key)


@breaks("path_parent_hash")
def a_leaf_that_does_not_vouch_for_its_path(scene: Scene) -> bytes:
    return by_writer(scene, parent_hash=bytes(32))


@breaks("leaf_certificate_key")
def a_leaf_whose_key_is_not_the_certificates(scene: Scene) -> bytes:
    return by_writer(scene, credential=Credential.x509(scene.owns["writer-2"].chain))


@breaks("leaf_certificate_key")
def a_certificate_of_another_kind_of_key(scene: Scene) -> bytes:
    other = scene.certified("agent://acme/writer-1", scheme="p256" if scene.scheme == "ed25519" else "ed25519")
    return by_writer(scene, credential=Credential.x509(other.chain))


@breaks("leaf_certificate_key")
def a_chain_of_nothing(scene: Scene) -> bytes:
    return by_writer(scene, credential=Credential.x509(()))


@breaks("chain.length")
def a_chain_of_five(scene: Scene) -> bytes:
    return by_writer(scene, credential=Credential.x509(scene.owns["writer-1"].chain * 5))


@breaks("chain.anchor")
def a_chain_with_the_anchor_in_it(scene: Scene) -> bytes:
    return by_writer(scene, credential=Credential.x509((*scene.owns["writer-1"].chain, scene.world.authority.certificate)))


@breaks("leaf_credential_listed")
def a_basic_credential(scene: Scene) -> bytes:
    return by_writer(scene, credential=Credential.basic(b"agent://acme/writer-1"))


@breaks("leaf_required_capabilities")
def a_leaf_that_knows_basic_credentials_only(scene: Scene) -> bytes:
    lists = capabilities(scene, credentials=(1,))
    return by_writer(scene, credential=Credential.basic(b"agent://acme/writer-1"), capabilities=lists)


@breaks("credential_common", rule="credential_common")
def a_basic_credential_that_the_others_cannot_read(scene: Scene) -> bytes:
    lists = capabilities(scene, credentials=(1, 2))
    return by_writer(scene, credential=Credential.basic(b"agent://acme/writer-1"), capabilities=lists)


# --- whether it counts --------------------------------------------------------------------------------------------------


def as_another(scene: Scene, name: str, own: Own) -> bytes:
    """A path of a member that becomes `own`."""
    return scene.member(name).write(own=leaf_for(scene, own)).record


def leaf_for(scene: Scene, own: Own) -> OwnLeaf:
    return own.leaf(scene.suite)


def both(reason: str, own: Callable[[Scene], Own]) -> None:
    """A joiner with this certificate, and a member (writer-1) that brings it in."""
    breaks(reason, name=f"a_joiner_{own.__name__}")(lambda scene: scene.outside(own(scene)).write().record)
    breaks(reason, name=f"a_member_{own.__name__}")(lambda scene: as_another(scene, "writer-1", own(scene)))


def certified_by_another_ca(scene: Scene) -> Own:
    other = ca.found("test CA", keys.generate(), now_ms=scene.now)
    return scene.certified("agent://acme/writer-1", authority=other)


def certified_by_a_ca_of_the_same_key_and_another_name(scene: Scene) -> Own:
    other = ca.found("other CA", scene.world.authority.private_key, now_ms=scene.now)
    return scene.certified("agent://acme/writer-1", authority=other)


def outside_the_prefix_of_the_anchor(scene: Scene) -> Own:
    return scene.certified("agent://acme2/writer-1")


def without_a_role(scene: Scene) -> Own:
    return scene.certified("agent://acme/stranger")


def not_valid_yet(scene: Scene) -> Own:
    return scene.certified("agent://acme/writer-1", at=5 * 60_000 + 2_000)


def expired(scene: Scene) -> Own:
    return scene.certified("agent://acme/writer-1", at=-5_000, days=0)


both("anchor.signature", certified_by_another_ca)
both("anchor.issuer", certified_by_a_ca_of_the_same_key_and_another_name)
both("anchor.identity", outside_the_prefix_of_the_anchor)
both("role", without_a_role)
both("chain.validity", not_valid_yet)
both("chain.validity", expired)


@breaks("identity")
def a_member_that_becomes_another_identity_with_a_role(scene: Scene) -> bytes:
    return as_another(scene, "writer-1", scene.certified("agent://acme/ops"))


@breaks("identity")
def a_member_that_becomes_a_reader(scene: Scene) -> bytes:
    return as_another(scene, "writer-1", scene.certified("agent://acme/reader-7"))


# --- the path -----------------------------------------------------------------------------------------------------------


def bent(scene: Scene, change: Callable[[UpdatePath], UpdatePath]) -> bytes:
    """A path that is changed before the commit is signed."""
    return scene.member("writer-1").write(path=change).record


def first_sealed(path: UpdatePath, *sealed: HPKECiphertext) -> UpdatePath:
    """The path with other ciphertexts at its lowest node."""
    return replace(path, nodes=(replace(path.nodes[0], encrypted_path_secret=sealed), *path.nodes[1:]))


@breaks("path_length")
def a_path_with_a_node_too_many(scene: Scene) -> bytes:
    return bent(scene, lambda path: replace(path, nodes=(*path.nodes, path.nodes[-1])))


@breaks("path_length")
def a_path_with_a_node_too_few(scene: Scene) -> bytes:
    return bent(scene, lambda path: replace(path, nodes=path.nodes[1:]))


@breaks("path_receivers")
def a_path_secret_for_nobody(scene: Scene) -> bytes:
    return bent(scene, first_sealed)


@breaks("path_receivers")
def a_path_secret_for_one_too_many(scene: Scene) -> bytes:
    return bent(scene, lambda path: first_sealed(path, *path.nodes[0].encrypted_path_secret * 2))


@breaks("unique_encryption_key")
def a_path_with_one_key_twice(scene: Scene) -> bytes:
    return scene.member("writer-1").write(keys=lambda them: [them[0]] * len(them)).record


@breaks("path_key_new")
def a_path_with_the_key_of_another_member(scene: Scene) -> bytes:
    return scene.member("writer-1").write(keys=lambda them: [leaf_of(scene, 3).encryption_key, *them[1:]]).record


@breaks("usable_key")
def a_path_with_a_key_that_is_not_usable(scene: Scene) -> bytes:
    return scene.member("writer-1").write(keys=lambda them: [unusable(scene), *them[1:]]).record


@breaks("usable_key")
def a_path_secret_sealed_to_a_point_that_is_not_usable(scene: Scene) -> bytes:
    return bent(scene, lambda path: first_sealed(path, replace(path.nodes[0].encrypted_path_secret[0], kem_output=unusable(scene))))
