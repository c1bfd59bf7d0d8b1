"""A ratchet tree in the making: the leaves that proposals change, and the path that a commit sets.

The draft owns copies of the lists of the tree it was made from; that tree stays as it is. `tree` may be read at any
time; keys are compared once, in `finish`, so that the order in which proposals are applied does not matter.
Source: RFC 9420 sections 7.5 to 7.7, 7.9 and 12.1.
"""

from __future__ import annotations

from collections.abc import Sequence

from broker_crypto.mls import tree_math
from broker_crypto.mls.leaf import LeafNode
from broker_crypto.mls.ratchet_tree import Node, ParentNode, RatchetTree


class TreeDraft:
    """The next tree, not finished."""

    __slots__ = ("_before", "_hashes", "_nodes", "tree")

    def __init__(self, tree: RatchetTree) -> None:
        self._nodes, self._hashes = tree.lists()
        self._before: dict[int, Node | None] = {}
        self.tree = RatchetTree(tree.suite, self._nodes, tree.census, self._hashes)

    def _put(self, number: int, node: Node | None) -> None:
        """Set one node; the hashes at and above it are forgotten by the caller."""
        old = self._nodes[number]
        if old is not node:
            self._before.setdefault(number, old)
            self._nodes[number] = node

    def _blank_path(self, leaf: int) -> None:
        """Blank the ancestors of `leaf`, forget the hashes from the leaf up."""
        self._hashes[2 * leaf] = None
        for number in tree_math.direct_path(2 * leaf, self.tree.size):
            self._put(number, None)
            self._hashes[number] = None

    def update(self, leaf: int, node: LeafNode) -> None:
        """Put another node in an occupied leaf and blank its direct path (section 12.1.2)."""
        self._put(2 * leaf, node)
        self._blank_path(leaf)

    def remove(self, leaf: int) -> None:
        """Blank an occupied leaf and its direct path, and drop the right half of the tree while it is blank (section 12.1.3)."""
        self._put(2 * leaf, None)
        self._blank_path(leaf)
        while len(self._nodes) > 1 and not any(self._nodes[len(self._nodes) // 2 + 1 :]):
            self._halve()

    def _halve(self) -> None:
        root = len(self._nodes) // 2
        self._put(root, None)
        del self._nodes[root:]
        del self._hashes[root:]

    def _double(self) -> None:
        blank = len(self._nodes) + 1
        self._nodes.extend([None] * blank)
        self._hashes.extend([None] * blank)

    def add(self, node: LeafNode) -> int:
        """Put `node` into the leftmost blank leaf and enter it as unmerged above; its index (section 12.1.1)."""
        leaf = self.place(node)
        for number in tree_math.direct_path(2 * leaf, self.tree.size):
            parent = self.tree.parent(number)
            if parent is not None:
                self._put(number, parent.with_unmerged(leaf))
        return leaf

    def place(self, node: LeafNode) -> int:
        """Put the leaf of an external joiner, whose path follows, into the leftmost blank leaf; its index (section 12.4.2)."""
        leaf = self.tree.free_leaf()
        if leaf == self.tree.size:
            self._double()
        self._put(2 * leaf, node)
        self._hashes[2 * leaf] = None
        for number in tree_math.direct_path(2 * leaf, self.tree.size):
            self._hashes[number] = None
        return leaf

    def set_path(self, leaf: int, keys: Sequence[bytes]) -> bytes:
        """Put `keys` on the filtered direct path of `leaf`, blank the rest of the direct path; the parent hash for the leaf.

        As many keys as the filtered direct path has nodes, from the leaf up (section 7.9).
        """
        path = self.tree.filtered_direct_path(leaf)
        self._blank_path(leaf)
        above = b""
        for (number, off_path), key in zip(reversed(path), reversed(keys), strict=True):
            self._put(number, ParentNode(key, above))
            above = self.tree.parent_hash(number, off_path)
        return above

    def set_leaf(self, leaf: int, node: LeafNode) -> None:
        """Put the committer's new node in its leaf, behind `set_path`."""
        self._put(2 * leaf, node)

    def finish(self) -> RatchetTree:
        """The tree. Raises PeerError where a key stands twice in it. The draft is used up."""
        census = self.tree.census.copy()
        changed = [(number, old) for number, old in self._before.items() if self._now(number) is not old]
        for _, old in changed:
            if isinstance(old, LeafNode):
                census.remove_leaf(old)
            elif old is not None:
                census.remove_key(old.encryption_key)
        for number, _ in changed:
            new = self._now(number)
            if isinstance(new, LeafNode):
                census.add_leaf(number, new)
            elif new is not None:
                census.add_key(number, new.encryption_key)
        return RatchetTree(self.tree.suite, self._nodes, census, self._hashes)

    def _now(self, number: int) -> Node | None:
        return self._nodes[number] if number < len(self._nodes) else None
