"""The rules that a whole ratchet tree must keep, checked by those who were not there when it grew.

Source: RFC 9420 sections 7.1, 7.9.2 and 12.4.3.1.
"""

from __future__ import annotations

from broker_crypto.mls import tree_math
from broker_crypto.mls.leaf import COMMIT, LeafNode
from broker_crypto.mls.leaf_rules import check_usable
from broker_crypto.mls.ratchet_tree import ParentNode, RatchetTree
from broker_crypto.mls.validation import Rule, refuse


def check_tree(tree: RatchetTree) -> None:
    """Every rule that needs the tree alone: unmerged leaves, parent hashes, usable keys of parents. Raises PeerError."""
    for number, parent in tree.parents():
        check_usable(tree.suite, parent.encryption_key, node=number)
    check_unmerged(tree)
    check_parent_hashes(tree)


def check_unmerged(tree: RatchetTree) -> None:
    """Unmerged leaves: increasing, occupied, below their node, and known to every node between (sections 7.1, 12.4.3.1)."""
    for number, parent in tree.parents():
        before = -1
        for leaf in parent.unmerged_leaves:
            if leaf <= before or tree.leaf(leaf) is None or not tree_math.is_below(2 * leaf, number):
                refuse(Rule.UNMERGED_LEAVES, "an unmerged leaf that is out of order, blank or elsewhere", node=number, leaf=leaf)
            before = leaf
            _check_between(tree, number, leaf)


def _check_between(tree: RatchetTree, number: int, leaf: int) -> None:
    below = 2 * leaf
    while (below := tree_math.parent(below)) != number:
        between = tree.parent(below)
        if between is not None and leaf not in between.unmerged_leaves:
            refuse(Rule.UNMERGED_LEAVES, "a node between does not know an unmerged leaf", node=below, leaf=leaf)


def check_parent_hashes(tree: RatchetTree) -> None:
    """Every parent node hangs on a leaf by parent hashes (section 7.9.2). Raises PeerError."""
    for number, parent in tree.parents():
        left, right = tree_math.left(number), tree_math.right(number)
        if not (_vouches(tree, number, parent, left, right) or _vouches(tree, number, parent, right, left)):
            refuse(Rule.PARENT_HASH, "nothing below a parent node vouches for it", node=number)


def _vouches(tree: RatchetTree, number: int, parent: ParentNode, child: int, sibling: int) -> bool:
    """Whether the one node in the resolution of `child` that is not unmerged at `parent` was set together with it."""
    unmerged = {2 * leaf for leaf in parent.unmerged_leaves if tree_math.is_below(2 * leaf, child)}
    resolution = tree.resolution(child)
    merged = [below for below in resolution if below not in unmerged]
    if len(merged) != 1 or len(resolution) != len(unmerged) + 1:
        return False
    node = tree.node(merged[0])
    if isinstance(node, LeafNode) and node.source != COMMIT:
        return False
    return node is not None and node.parent_hash == tree.parent_hash(number, sibling)
