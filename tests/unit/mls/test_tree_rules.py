"""Every rule that a group can break when a newcomer looks at it: a forged tree, GroupInfo or GroupContext.

The forger signs the GroupInfo as a member and makes the tree hash fit; only what the rule is about is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from broker_crypto.crypto import suite
from broker_crypto.errors import PeerError
from broker_crypto.mls import tree_rules
from broker_crypto.mls.group import Group
from broker_crypto.mls.group_info import GroupInfo
from broker_crypto.mls.leaf import KEY_PACKAGE, Capabilities, Credential, Extension, LeafNode, Lifetime
from broker_crypto.mls.leaf_rules import LeafPolicy
from broker_crypto.mls.proposals import Add, Remove
from broker_crypto.mls.public import PublicGroup
from broker_crypto.mls.ratchet_tree import Node, ParentNode, RatchetTree
from broker_crypto.mls.validation import Rule
from broker_crypto.wire import tls
from tests.support.forging import key_package
from tests.support.members import PRIVATE_EXTENSION, Room, own_leaf

Nodes = list[Node | None]


class Forger:
    """Alice, Bob, Carol and Dave at leaves 0 to 3, Erin added at 4 and not merged; Bob signs for the forged group."""

    def __init__(self) -> None:
        self.room = room = Room()
        room.found("alice")
        for name in ("bob", "carol", "dave"):
            room.join(name)
        room.deliver("alice", room.members["alice"].commit(random=room.random))
        self.erin = own_leaf(room.kem, "erin", room.random)
        package = key_package(room.follower, self.erin, room.random)
        commit = room.members["bob"].commit(proposals=[Remove(3), Add(package)], path=True, now=0, random=room.random)
        self.bob, self.tree = commit.group, commit.group.public.tree
        self.nodes: Nodes = self.tree.lists()[0]

    def sign(self, info: GroupInfo) -> GroupInfo:
        return info.signed(self.bob.suite, self.bob.signature_private)

    def info(self, nodes: Nodes, **context: object) -> tuple[GroupInfo, bytes]:
        """A signed GroupInfo whose tree hash is that of `nodes`, and the encoded tree."""
        tree = _encode(nodes)
        tree_hash = _tree_of(self.bob, nodes).tree_hash()
        changed = replace(self.bob.public.context, **{"tree_hash": tree_hash, **context})  # type: ignore[arg-type]
        return self.sign(replace(self.bob.group_info(), group_context=changed)), tree

    def leaf(self, index: int, private: bytes | None = None, **changes: object) -> LeafNode:
        """A leaf of the tree, changed and signed again by its member."""
        node = self.nodes[2 * index]
        assert isinstance(node, LeafNode)
        key = private or self.room.own[("alice", "bob", "carol")[index]].signature_private
        leaf = replace(node, signature=b"", **changes)  # type: ignore[arg-type]
        return leaf.signed(self.bob.suite, key, self.bob.public.group_id, index)

    def parent(self, number: int) -> ParentNode:
        node = self.nodes[number]
        assert isinstance(node, ParentNode)
        return node

    def with_node(self, number: int, node: Node | None) -> Nodes:
        return [*self.nodes[:number], node, *self.nodes[number + 1 :]]


def _tree_of(group: Group, nodes: Nodes) -> RatchetTree:
    return RatchetTree(group.suite, nodes, group.public.tree.census)


def _encode(nodes: Nodes) -> bytes:
    kinds = {LeafNode: b"\x01\x01", ParentNode: b"\x01\x02"}
    last = max(number for number, node in enumerate(nodes) if node is not None)
    return tls.vector(b"\x00" if node is None else kinds[type(node)] + node.encode() for node in nodes[: last + 1])


Forgery = Callable[[Forger], Nodes]
FORGERIES: list[tuple[Rule, Forgery]] = []


def breaks(rule: Rule) -> Callable[[Forgery], Forgery]:
    def register(forgery: Forgery) -> Forgery:
        FORGERIES.append((rule, forgery))
        return forgery

    return register


@breaks(Rule.PARENT_HASH)
def a_parent_key_that_nobody_vouches_for(forger: Forger) -> Nodes:
    _, key = suite(1).derive_key_pair(bytes(32))
    return forger.with_node(1, replace(forger.parent(1), encryption_key=key))


@breaks(Rule.PARENT_HASH)
def a_parent_put_where_a_blank_one_was(forger: Forger) -> Nodes:
    assert forger.nodes[5] is None
    _, key = suite(1).derive_key_pair(bytes(32))
    return forger.with_node(5, ParentNode(key))


@breaks(Rule.PARENT_HASH)
def a_parent_that_hangs_on_a_leaf_out_of_a_key_package(forger: Forger) -> Nodes:
    leaf = forger.leaf(1, source=KEY_PACKAGE, parent_hash=b"", lifetime=Lifetime(0, 2**64 - 1))
    return forger.with_node(2, leaf)


@breaks(Rule.PARENT_HASH)
def a_root_whose_sibling_tree_was_changed_since(forger: Forger) -> Nodes:
    return forger.with_node(4, forger.leaf(2, extensions=(Extension(PRIVATE_EXTENSION, b"later"),)))


@breaks(Rule.PARENT_HASH)
def an_unmerged_leaf_that_is_left_out(forger: Forger) -> Nodes:
    root = forger.parent(3)
    assert root.unmerged_leaves == ()
    return forger.with_node(3, replace(root, unmerged_leaves=(2,)))


@breaks(Rule.UNMERGED_LEAVES)
def an_unmerged_leaf_that_is_blank(forger: Forger) -> Nodes:
    return forger.with_node(1, replace(forger.parent(1), unmerged_leaves=(3,)))


@breaks(Rule.UNMERGED_LEAVES)
def an_unmerged_leaf_outside_the_tree(forger: Forger) -> Nodes:
    return forger.with_node(1, replace(forger.parent(1), unmerged_leaves=(2**31,)))


@breaks(Rule.UNMERGED_LEAVES)
def an_unmerged_leaf_below_another_node(forger: Forger) -> Nodes:
    return forger.with_node(1, replace(forger.parent(1), unmerged_leaves=(2,)))


@breaks(Rule.UNMERGED_LEAVES)
def unmerged_leaves_out_of_order(forger: Forger) -> Nodes:
    return forger.with_node(3, replace(forger.parent(3), unmerged_leaves=(1, 0)))


@breaks(Rule.UNMERGED_LEAVES)
def an_unmerged_leaf_twice(forger: Forger) -> Nodes:
    return forger.with_node(1, replace(forger.parent(1), unmerged_leaves=(0, 0)))


@breaks(Rule.UNMERGED_LEAVES)
def an_unmerged_leaf_that_the_node_between_does_not_know(forger: Forger) -> Nodes:
    return forger.with_node(3, replace(forger.parent(3), unmerged_leaves=(0,)))


@breaks(Rule.UNIQUE_ENCRYPTION_KEY)
def a_parent_with_the_key_of_another(forger: Forger) -> Nodes:
    return forger.with_node(1, replace(forger.parent(1), encryption_key=forger.parent(3).encryption_key))


@breaks(Rule.UNIQUE_SIGNATURE_KEY)
def two_leaves_of_one_signer(forger: Forger) -> Nodes:
    bob = forger.room.own["bob"]
    return forger.with_node(4, forger.leaf(2, bob.signature_private, signature_key=bob.signature_public))


@breaks(Rule.USABLE_KEY)
def a_parent_with_a_key_of_small_order(forger: Forger) -> Nodes:
    return forger.with_node(1, replace(forger.parent(1), encryption_key=bytes(32)))


@breaks(Rule.LEAF_SIGNATURE)
def a_leaf_with_another_name_than_it_signed(forger: Forger) -> Nodes:
    bob = forger.nodes[2]
    assert isinstance(bob, LeafNode)
    return forger.with_node(2, replace(bob, credential=Credential.basic(b"alice")))


@breaks(Rule.LEAF_GROUP_EXTENSIONS)
def a_leaf_that_lacks_the_groups_extension(forger: Forger) -> Nodes:
    return forger.with_node(2, forger.leaf(1, capabilities=Capabilities(cipher_suites=(1,))))


@pytest.mark.parametrize(("rule", "forgery"), FORGERIES, ids=[forgery.__name__ for _, forgery in FORGERIES])
def test_a_forged_tree_is_refused_by_name_with_or_without_the_group_info(rule: Rule, forgery: Forgery) -> None:
    forger = Forger()
    extensions = (Extension(PRIVATE_EXTENSION, b""),) if rule is Rule.LEAF_GROUP_EXTENSIONS else ()
    info, tree = forger.info(forgery(forger), extensions=extensions)
    with pytest.raises(PeerError) as refused:
        PublicGroup.from_group_info(info, RatchetTree.decode(forger.bob.suite, tree))
    assert refused.value.rule == rule  # type: ignore[attr-defined]
    inside = forger.sign(replace(info, extensions=(Extension(2, tree),)))
    with pytest.raises(PeerError) as refused:
        PublicGroup.from_group_info(inside)
    assert refused.value.rule == rule  # type: ignore[attr-defined]


def test_the_forger_begins_from_a_group_that_would_be_taken() -> None:
    forger = Forger()
    info, tree = forger.info(forger.nodes)
    assert PublicGroup.from_group_info(info, RatchetTree.decode(forger.bob.suite, tree)).tree == forger.tree
    assert forger.parent(3).unmerged_leaves == ()


def _context(**changes: object) -> Callable[[Forger], GroupInfo]:
    def forge(forger: Forger) -> GroupInfo:
        info = forger.bob.group_info(ratchet_tree=True)
        return forger.sign(replace(info, group_context=replace(info.group_context, **changes)))  # type: ignore[arg-type]

    return forge


def _tree(data: bytes) -> Callable[[Forger], GroupInfo]:
    return lambda forger: forger.sign(replace(forger.bob.group_info(), extensions=(Extension(2, data),)))


INFOS: list[tuple[Rule, str, Callable[[Forger], GroupInfo]]] = [
    (Rule.GROUP_SUITE, "version", _context(version=2)),
    (Rule.GROUP_SUITE, "suite nobody knows", _context(cipher_suite=99)),
    (Rule.TREE_HASH, "tree hash", _context(tree_hash=bytes(32))),
    (Rule.GROUP_INFO_TREE, "no tree", lambda forger: forger.bob.group_info()),
    (Rule.GROUP_INFO_SIGNER, "blank signer", lambda forger: forger.sign(replace(forger.bob.group_info(ratchet_tree=True), signer=5))),
    (Rule.GROUP_INFO_SIGNER, "no signer", lambda forger: forger.sign(replace(forger.bob.group_info(ratchet_tree=True), signer=2**32 - 1))),
    (Rule.GROUP_INFO_SIGNATURE, "other signer", lambda forger: forger.sign(replace(forger.bob.group_info(ratchet_tree=True), signer=0))),
    (Rule.GROUP_INFO_SIGNATURE, "changed tag", lambda forger: replace(forger.bob.group_info(ratchet_tree=True), confirmation_tag=b"")),
    (Rule.TREE_FORM, "empty tree", _tree(b"\x00")),
    (Rule.TREE_FORM, "blank tree", _tree(b"\x01\x00")),
    (Rule.GROUP_EXTENSION_FORM, "extensions", _context(extensions=(Extension(3, b"\x05"),))),
]


@pytest.mark.parametrize(("rule", "forge"), [(rule, forge) for rule, _, forge in INFOS], ids=[name for _, name, _ in INFOS])
def test_a_forged_group_info_is_refused_by_name(rule: Rule, forge: Callable[[Forger], GroupInfo]) -> None:
    with pytest.raises(PeerError) as refused:
        PublicGroup.from_group_info(forge(Forger()))
    assert refused.value.rule == rule  # type: ignore[attr-defined]


def test_a_tree_that_ends_in_blanks_or_mixes_up_leaves_and_parents_is_refused() -> None:
    forger = Forger()
    encoded = [
        b"\x00" if node is None else (b"\x01\x01" if n % 2 == 0 else b"\x01\x02") + node.encode() for n, node in enumerate(forger.nodes)
    ]
    for nodes in ([*encoded[:7], b"\x00"], [encoded[1], encoded[0], encoded[2]], [encoded[0], encoded[2]]):
        with pytest.raises(PeerError) as refused:
            RatchetTree.decode(forger.bob.suite, tls.vector(nodes))
        assert refused.value.rule == Rule.TREE_FORM  # type: ignore[attr-defined]


def test_a_tree_of_another_suite_is_refused() -> None:
    forger = Forger()
    other = RatchetTree.decode(suite(3), forger.tree.encode())
    with pytest.raises(PeerError) as refused:
        PublicGroup.from_group_info(forger.bob.group_info(), other)
    assert refused.value.rule == Rule.GROUP_SUITE  # type: ignore[attr-defined]


def test_lifetimes_count_only_for_one_who_says_what_time_it_is() -> None:
    room = Room()
    room.own["alice"] = replace(own_leaf(room.kem, "alice", room.random), lifetime=Lifetime(100, 200))
    group = Group.found(room.kem, b"group", room.own["alice"], random=room.random)
    info = group.group_info(ratchet_tree=True)
    PublicGroup.from_group_info(info)
    for now in (100, 200):
        PublicGroup.from_group_info(info, now=now)
    for bad in ({"now": 99}, {"now": 201}, {"policy": LeafPolicy(max_lifetime=99)}):
        with pytest.raises(PeerError) as refused:
            PublicGroup.from_group_info(info, **bad)  # type: ignore[arg-type]
        assert refused.value.rule == Rule.LEAF_LIFETIME  # type: ignore[attr-defined]
    assert PublicGroup.from_bytes(PublicGroup.from_group_info(info, policy=LeafPolicy(False, 100)).to_bytes()).policy == LeafPolicy(
        False, 100
    )


def test_a_suite_that_a_leaf_does_not_list_is_a_matter_of_policy() -> None:
    room = Room()
    own = own_leaf(room.kem, "alice", room.random)
    own = replace(own, capabilities=replace(own.capabilities, cipher_suites=(2,)))
    lenient = LeafPolicy(suite_listed=False)
    with pytest.raises(PeerError) as refused:
        Group.found(room.kem, b"group", own, random=room.random)
    assert refused.value.rule == Rule.LEAF_SUITE  # type: ignore[attr-defined]
    group = Group.found(room.kem, b"group", own, policy=lenient, random=room.random)
    info = group.group_info(ratchet_tree=True)
    with pytest.raises(PeerError) as refused:
        PublicGroup.from_group_info(info)
    assert refused.value.rule == Rule.LEAF_SUITE  # type: ignore[attr-defined]
    assert PublicGroup.from_group_info(info, policy=lenient).policy == lenient


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        (Rule.GROUP_INFO_CONTEXT, lambda info: replace(info, group_context=replace(info.group_context, epoch=0))),
        (Rule.GROUP_INFO_SIGNER, lambda info: replace(info, signer=0)),
        (Rule.GROUP_INFO_TAG, lambda info: replace(info, confirmation_tag=bytes(32))),
        (Rule.GROUP_INFO_SIGNATURE, lambda info: replace(info, extensions=())),
    ],
)
def test_a_group_info_of_a_commit_is_of_its_epoch_its_signer_its_tag(rule: Rule, change: Callable[[GroupInfo], GroupInfo]) -> None:
    forger = Forger()
    group, info = forger.bob.public, forger.bob.group_info()
    group.check_group_info(info, signer=1, confirmation_tag=info.confirmation_tag)
    changed = change(info)
    if rule is not Rule.GROUP_INFO_SIGNATURE:
        changed = forger.sign(changed)
    with pytest.raises(PeerError) as refused:
        group.check_group_info(changed, signer=1, confirmation_tag=info.confirmation_tag)
    assert refused.value.rule == rule  # type: ignore[attr-defined]


def test_parent_hashes_hold_in_a_tree_of_any_shape() -> None:
    """Joins, removals and adds in turn leave blanks and unmerged leaves; every tree of it is valid."""
    room = Room()
    room.found("0")
    for number in range(1, 9):
        room.join(str(number))
        tree_rules.check_tree(room.follower.tree)
    for leaf in (6, 3, 1):
        committer = next(name for name, group in room.members.items() if group.leaf == 8)
        room.deliver(committer, room.members[committer].commit(proposals=[Remove(leaf)], random=room.random))
        package = key_package(room.follower, own_leaf(room.kem, f"added {leaf}", room.random), room.random)
        with_path = room.members[committer].commit(proposals=[Add(package)], now=0, random=room.random).group.public.tree
        without = room.members[committer].commit(proposals=[Add(package)], path=False, now=0, random=room.random).group.public.tree
        tree_rules.check_tree(with_path)
        tree_rules.check_tree(without)
        assert {below for _, parent in without.parents() for below in parent.unmerged_leaves} == {leaf}
