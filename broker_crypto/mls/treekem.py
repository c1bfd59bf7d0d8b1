"""TreeKEM: how a commit gives the group new keys along the path of its sender.

The sender makes the path in two steps, because the secrets are sealed with the tree hash that the keys lead to:
`new_path`, then `seal_path`. The others do likewise: `apply_path` needs no secret, `open_path` does. Private keys are
found by their public key, so that a key which no longer stands in the tree is never used.
Source: RFC 9420 sections 7.4 to 7.6 and 12.4.3.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace

from broker_crypto.crypto.aead import AuthenticationFailed
from broker_crypto.crypto.suites import Suite
from broker_crypto.errors import MalformedInput
from broker_crypto.mls import tree_math
from broker_crypto.mls.leaf import COMMIT, LeafNode
from broker_crypto.mls.ratchet_tree import Node, RatchetTree
from broker_crypto.mls.tree_draft import TreeDraft
from broker_crypto.mls.update_path import HPKECiphertext, UpdatePath, UpdatePathNode
from broker_crypto.mls.validation import CannotEnter, Rule, refuse
from broker_crypto.records import Random

__all__ = ["HPKECiphertext", "NewPath", "UpdatePath", "UpdatePathNode", "apply_path", "climb", "new_path", "open_path", "seal_path"]

PrivateKeys = Mapping[bytes, bytes]  # HPKE public key: private key


@dataclass(frozen=True, slots=True)
class NewPath:
    """A path that its sender has made: the tree with it, and all its secrets."""

    tree: RatchetTree
    leaf_index: int
    leaf_node: LeafNode
    keys: PrivateKeys = field(repr=False)  # of the leaf and of every node of the path
    secrets: Mapping[int, bytes] = field(repr=False)  # node number: path secret, from the leaf up
    commit_secret: bytes = field(repr=False)


def new_path(
    draft: TreeDraft, leaf_index: int, template: LeafNode, *, signature_private: bytes, group_id: bytes, random: Random
) -> NewPath:
    """Draw new keys for `leaf_index` and its filtered direct path, and put them into `draft`, which is used up.

    `template` gives what the leaf says beyond its encryption key, parent hash and signature. Source: section 7.4.
    """
    suite = draft.tree.suite
    leaf_private, leaf_public = suite.derive_key_pair(random(suite.nh))
    keys, secrets, publics = {leaf_public: leaf_private}, {}, []
    secret = random(suite.nh)
    for number, _ in draft.tree.filtered_direct_path(leaf_index):
        secrets[number] = secret
        private, public = _node_key(suite, secret)
        keys[public] = private
        publics.append(public)
        secret = suite.derive_secret(secret, "path")
    parent_hash = draft.set_path(leaf_index, publics)
    leaf = replace(template, encryption_key=leaf_public, source=COMMIT, lifetime=None, parent_hash=parent_hash)
    leaf = leaf.signed(suite, signature_private, group_id, leaf_index)
    draft.set_leaf(leaf_index, leaf)
    return NewPath(draft.finish(), leaf_index, leaf, keys, secrets, secret)


def seal_path(path: NewPath, context: bytes, added: Set[int], random: Random) -> UpdatePath:
    """The path for the others: each secret sealed to its copath resolution without the `added` leaves.

    `context` is the provisional GroupContext, encoded. Source: section 7.6.
    """
    tree, nodes = path.tree, []
    for number, off_path in tree.filtered_direct_path(path.leaf_index):
        secret, sealed = path.secrets[number], []
        for target in receivers(tree, off_path, added):
            key = _key_at(tree, target)
            sealed.append(HPKECiphertext(*tree.suite.encrypt_with_label(key, "UpdatePathNode", context, secret, random)))
        nodes.append(UpdatePathNode(_key_at(tree, number), tuple(sealed)))
    return UpdatePath(path.leaf_node, tuple(nodes))


def receivers(tree: RatchetTree, off_path: int, added: Set[int]) -> list[int]:
    """Node numbers that a path secret is sealed to: the resolution of the copath node without leaves added by the same commit."""
    resolution = tree.resolution(off_path)
    return [number for number in resolution if number & 1 or number >> 1 not in added] if added else resolution


def apply_path(draft: TreeDraft, leaf_index: int, path: UpdatePath, added: Set[int]) -> RatchetTree:
    """Merge a received path into `draft`, which is used up; no secret is needed.

    Raises PeerError for a path of another length than the filtered direct path, other than one ciphertext for each
    receiver, keys that are not new, or a parent hash of the leaf that is not that of this path. Source: sections 7.5, 7.9.2, 12.4.2.
    """
    expected = draft.tree.filtered_direct_path(leaf_index)
    if len(path.nodes) != len(expected):
        refuse(Rule.PATH_LENGTH, "a path of another length", leaf=leaf_index, expected=len(expected), got=len(path.nodes))
    for (_, off_path), node in zip(expected, path.nodes, strict=True):
        sealed, wanted = len(node.encrypted_path_secret), len(receivers(draft.tree, off_path, added))
        if sealed != wanted:
            refuse(Rule.PATH_RECEIVERS, "a path secret sealed to others than the resolution", leaf=leaf_index, expected=wanted, got=sealed)
    parent_hash = draft.set_path(leaf_index, [node.encryption_key for node in path.nodes])
    if path.leaf_node.parent_hash != parent_hash:
        refuse(Rule.PATH_PARENT_HASH, "the leaf of a path does not vouch for it", leaf=leaf_index)
    draft.set_leaf(leaf_index, path.leaf_node)
    return draft.finish()


def open_path(
    tree: RatchetTree, path: UpdatePath, *, sender: int, own: int, keys: PrivateKeys, context: bytes, added: Set[int]
) -> tuple[PrivateKeys, bytes]:
    """(private keys of the path, commit_secret) for the member at leaf `own`; `tree` holds the path of leaf `sender` already.

    Raises CannotEnter(reason="path_secret") where no held key opens it, "path_key" where what it opens to leads to other
    public keys than the path shows. Source: section 7.5.
    """
    for (number, off_path), node in zip(tree.filtered_direct_path(sender), path.nodes, strict=True):
        if not tree_math.is_below(2 * own, off_path):
            continue
        for target, sealed in zip(receivers(tree, off_path, added), node.encrypted_path_secret, strict=True):
            private = keys.get(_key_at(tree, target)) if tree_math.is_below(2 * own, target) else None
            if private is not None:
                return climb(tree, sender, number, _unseal(tree.suite, private, context, sealed))
    raise CannotEnter("no held key opens a secret of the path", reason="path_secret", leaf=sender)


def _unseal(suite: Suite, private: bytes, context: bytes, sealed: HPKECiphertext) -> bytes:
    try:
        secret = suite.decrypt_with_label(private, "UpdatePathNode", context, sealed.kem_output, sealed.ciphertext)
    except (AuthenticationFailed, MalformedInput) as error:
        raise CannotEnter("a secret of the path does not open", reason="path_secret") from error
    if len(secret) != suite.nh:
        raise CannotEnter("a secret of the path has another length", reason="path_secret")
    return secret


def climb(tree: RatchetTree, sender: int, start: int, secret: bytes) -> tuple[PrivateKeys, bytes]:
    """(private keys, commit_secret) of the path of `sender` from node `start` up, whose path secret is `secret`.

    Raises CannotEnter(reason="path_key") where a key derived is not the one in the tree. Source: section 7.4.
    """
    suite, keys = tree.suite, {}
    for number, _ in tree.filtered_direct_path(sender):
        if not tree_math.is_below(start, number):
            continue
        private, public = _node_key(suite, secret)
        if public != _key_at(tree, number):
            raise CannotEnter("a secret of the path leads to another key", reason="path_key", node=number)
        keys[public] = private
        secret = suite.derive_secret(secret, "path")
    return keys, secret


def held_keys(tree: RatchetTree, own: int, keys: PrivateKeys) -> PrivateKeys:
    """Those of `keys` that belong to the leaf `own` or a node above it; the others are to be forgotten."""
    numbers = [2 * own, *tree_math.direct_path(2 * own, tree.size)]
    publics = [node.encryption_key for number in numbers if (node := tree.node(number)) is not None]
    return {public: keys[public] for public in publics if public in keys}


def _node_key(suite: Suite, path_secret: bytes) -> tuple[bytes, bytes]:
    return suite.derive_key_pair(suite.derive_secret(path_secret, "node"))


def _key_at(tree: RatchetTree, number: int) -> bytes:
    node: Node | None = tree.node(number)
    if node is None:
        raise ValueError("a blank node has no key")
    return node.encryption_key
