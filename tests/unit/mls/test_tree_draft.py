"""Trees made from trees: what is shared and kept up to date is what a tree read afresh computes, and the old tree stays."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_crypto.crypto import suite
from broker_crypto.errors import PeerError
from broker_crypto.mls import tree_math
from broker_crypto.mls.leaf import BASIC, COMMIT, UPDATE, X509, Capabilities, Credential, LeafNode
from broker_crypto.mls.ratchet_tree import RatchetTree
from broker_crypto.mls.tree_draft import TreeDraft
from broker_crypto.mls.validation import Rule

SUITE = suite(1)


def key(number: int, kind: str) -> bytes:
    return f"{kind} {number}".encode().ljust(32, b".")


def leaf(number: int, *, x509: bool = False) -> LeafNode:
    credential = Credential.x509([b"certificate"]) if x509 else Credential.basic(str(number).encode())
    kinds = (BASIC, X509) if number % 3 else (BASIC,)
    return LeafNode(key(number, "hpke"), key(number, "sign"), credential, Capabilities(credentials=kinds), UPDATE)


def same_as_read_afresh(tree: RatchetTree) -> None:
    """Hashes and census are those of the tree read from its encoding; its size is the smallest that holds it."""
    fresh = RatchetTree.decode(SUITE, tree.encode())
    assert fresh == tree
    assert [fresh.hash_of(number) for number in range(2 * tree.size - 1)] == [tree.hash_of(number) for number in range(2 * tree.size - 1)]
    for name in ("encryption", "signature", "leaves", "used", "supported"):
        assert getattr(fresh.census, name) == getattr(tree.census, name)
    last = max(index for index, _ in tree.leaves())
    assert tree.size == 1 << last.bit_length()
    occupied = {index for index, _ in tree.leaves()}
    assert tree.free_leaf() == next(index for index in range(tree.size + 1) if index not in occupied)


Step = tuple[str, int]
STEPS = st.lists(st.tuples(st.sampled_from(["add", "add", "add", "update", "remove", "path", "join"]), st.integers(0, 10**6)), max_size=40)


def apply(tree: RatchetTree, steps: list[Step], number: int) -> RatchetTree:
    """One draft with all steps in it."""
    draft = TreeDraft(tree)
    for place, (kind, choice) in enumerate(steps):
        fresh = leaf(number + place, x509=choice % 5 == 0)
        occupied = [index for index, _ in draft.tree.leaves()]
        chosen = occupied[choice % len(occupied)]
        if kind == "add":
            draft.add(fresh)
        elif kind == "update":
            draft.update(chosen, fresh)
        elif kind == "remove" and len(occupied) > 1:
            draft.remove(chosen)
        elif kind in ("path", "join"):
            chosen = draft.place(fresh) if kind == "join" else chosen
            path = draft.tree.filtered_direct_path(chosen)
            parent_hash = draft.set_path(chosen, [key(number + place, f"node {node}") for node, _ in path])
            draft.set_leaf(chosen, replace(fresh, source=COMMIT, parent_hash=parent_hash))
    return draft.finish()


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(1, 6))
def test_any_steps_in_any_drafts_give_the_tree_that_a_reader_computes(steps: list[Step], together: int) -> None:
    tree = RatchetTree.of_one(SUITE, leaf(0))
    for start in range(0, len(steps), together):
        before, known = tree.encode(), tree.tree_hash()
        after = apply(tree, steps[start : start + together], 1 + start)
        same_as_read_afresh(after)
        assert (tree.encode(), tree.tree_hash()) == (before, known)
        tree = after


def test_a_key_may_move_to_another_leaf_in_one_draft_and_not_stand_at_two() -> None:
    tree = apply(RatchetTree.of_one(SUITE, leaf(0)), [("add", 1), ("add", 1), ("add", 1)], 1)
    draft = TreeDraft(tree)
    draft.update(1, replace(leaf(7), encryption_key=key(2, "hpke"), signature_key=key(2, "sign")))
    draft.update(2, leaf(8))
    same_as_read_afresh(draft.finish())
    for changes, rule in (
        ({"encryption_key": key(2, "hpke")}, "unique_encryption_key"),
        ({"signature_key": key(2, "sign")}, "unique_signature_key"),
    ):
        draft = TreeDraft(tree)
        draft.update(1, replace(leaf(7), **changes))  # type: ignore[arg-type]
        with pytest.raises(PeerError) as refused:
            draft.finish()
        assert refused.value.rule == Rule(rule)  # type: ignore[attr-defined]


@given(st.integers(0, 9), st.data())
def test_the_numbers_of_a_tree_hang_together(depth: int, data: st.DataObject) -> None:
    leaves = 1 << depth
    node = data.draw(st.integers(0, tree_math.width(leaves) - 1))
    path = [node, *tree_math.direct_path(node, leaves)]
    assert path[-1] == tree_math.root(leaves)
    assert len(path) == depth - tree_math.level(node) + 1
    assert [tree_math.parent(below) for below in path[:-1]] == path[1:]
    for below, above, beside in zip(path, path[1:], tree_math.copath(node, leaves), strict=False):
        assert {below, beside} == {tree_math.left(above), tree_math.right(above)}
        assert tree_math.sibling(beside) == below
    first, end = tree_math.leaf_span(node)
    assert [index for index in range(leaves) if tree_math.is_below(2 * index, node)] == list(range(first, end))


@given(st.integers(0, 600), st.integers(0, 600))
def test_the_common_ancestor_of_two_leaves_is_the_lowest_node_above_both(a: int, b: int) -> None:
    above = tree_math.common_ancestor(2 * a, 2 * b)
    paths = [[2 * leaf, *tree_math.direct_path(2 * leaf, 1024)] for leaf in (a, b)]
    assert above == next(node for node in paths[0] if node in paths[1])
