"""The ratchet tree: a value whose nodes, hashes and census are shared with the trees made from it.

1  A tree is never changed: `tree_draft.TreeDraft` copies its lists, and its `finish()` gives the next tree.
2  A tree hash is computed when first asked for and kept; a draft forgets only those at and above the nodes it touched.
3  No key stands twice in a finished tree.

Source: RFC 9420 sections 4, 7.1, 7.8, 7.9 and 12.4.3.3, appendix C.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Self

from broker_crypto.crypto.suites import Suite
from broker_crypto.errors import MalformedInput
from broker_crypto.mls import tree_math
from broker_crypto.mls.census import Census
from broker_crypto.mls.leaf import LeafNode
from broker_crypto.mls.validation import Rule, refuse
from broker_crypto.wire import tls

LEAF, PARENT = 1, 2  # NodeType


@dataclass(frozen=True, slots=True)
class ParentNode:
    """ParentNode. `unmerged_leaves` are leaf indices, strictly increasing."""

    encryption_key: bytes
    parent_hash: bytes = b""
    unmerged_leaves: tuple[int, ...] = ()
    _encoded: bytes | None = field(default=None, init=False, repr=False, compare=False)

    def encode(self) -> bytes:
        """As on the wire; made once."""
        encoded = self._encoded
        if encoded is None:
            leaves = tls.vector(tls.u32(leaf) for leaf in self.unmerged_leaves)
            encoded = tls.opaque(self.encryption_key) + tls.opaque(self.parent_hash) + leaves
            object.__setattr__(self, "_encoded", encoded)
        return encoded

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next ParentNode."""
        return cls(reader.opaque(), reader.opaque(), tuple(reader.vector(tls.Reader.u32)))

    def without(self, leaves: Set[int]) -> ParentNode:
        """The same node as it was before `leaves` were added below it."""
        return ParentNode(self.encryption_key, self.parent_hash, tuple(leaf for leaf in self.unmerged_leaves if leaf not in leaves))

    def with_unmerged(self, leaf: int) -> ParentNode:
        """The same node with `leaf` added below it."""
        return ParentNode(self.encryption_key, self.parent_hash, tuple(sorted({*self.unmerged_leaves, leaf})))


Node = LeafNode | ParentNode


def _read_present_node(reader: tls.Reader) -> Node:
    kind = reader.u8()
    if kind == LEAF:
        return LeafNode.read(reader)
    if kind == PARENT:
        return ParentNode.read(reader)
    raise MalformedInput("a node of unknown type", type=kind)


def _read_node(reader: tls.Reader) -> Node | None:
    return reader.optional(_read_present_node)


def _encode_node(node: Node | None) -> bytes:
    if node is None:
        return b"\x00"
    return (b"\x01\x01" if isinstance(node, LeafNode) else b"\x01\x02") + node.encode()


def _census(nodes: list[Node | None]) -> Census:
    census = Census()
    for number, node in enumerate(nodes):
        if isinstance(node, LeafNode):
            census.add_leaf(number, node)
        elif node is not None:
            census.add_key(number, node.encryption_key)
    return census


class RatchetTree:
    """A full tree of `size` leaves (a power of 2). Leaf i is node 2 i; a blank node is None."""

    __slots__ = ("_hashes", "_nodes", "census", "suite")

    def __init__(self, suite: Suite, nodes: list[Node | None], census: Census, hashes: list[bytes | None] | None = None) -> None:
        self.suite = suite
        self.census = census
        self._nodes = nodes
        self._hashes: list[bytes | None] = [None] * len(nodes) if hashes is None else hashes

    @classmethod
    def of_one(cls, suite: Suite, leaf: LeafNode) -> Self:
        """The tree of a new group: one leaf."""
        return cls(suite, [leaf], _census([leaf]))

    @classmethod
    def read(cls, suite: Suite, reader: tls.Reader) -> Self:
        """ratchet_tree of section 12.4.3.3.

        Raises PeerError(rule=tree_form) for an empty tree, one that ends in blanks, or a leaf where a parent belongs,
        and for keys that stand twice. Whether the tree is *valid* is for `tree_rules` to say.
        """
        nodes = reader.vector(_read_node)
        if not nodes or nodes[-1] is None:
            refuse(Rule.TREE_FORM, "a tree that is empty or ends in blank nodes")
        size = 1 << (len(nodes) // 2).bit_length()
        for number, node in enumerate(nodes):
            if node is not None and isinstance(node, LeafNode) != (number & 1 == 0):
                refuse(Rule.TREE_FORM, "a leaf in the place of a parent, or a parent in that of a leaf", node=number)
        nodes.extend([None] * (tree_math.width(size) - len(nodes)))
        return cls(suite, nodes, _census(nodes))

    @classmethod
    def decode(cls, suite: Suite, data: bytes) -> Self:
        """A ratchet_tree that fills `data`."""
        reader = tls.Reader(data)
        tree = cls.read(suite, reader)
        reader.end()
        return tree

    def encode(self) -> bytes:
        """ratchet_tree: as on the wire, without the blank nodes behind the last one that is not."""
        end = len(self._nodes)
        while end and self._nodes[end - 1] is None:
            end -= 1
        return tls.vector([_encode_node(node) for node in self._nodes[:end]])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RatchetTree) and self.suite is other.suite and self._nodes == other._nodes

    __hash__ = None  # type: ignore[assignment]

    @property
    def size(self) -> int:
        """Leaves of the full tree, blank ones too."""
        return (len(self._nodes) + 1) // 2

    @property
    def root(self) -> int:
        """Node number of the root."""
        return len(self._nodes) // 2

    def node(self, number: int) -> Node | None:
        """The node, None where it is blank."""
        return self._nodes[number]

    def leaf(self, index: int) -> LeafNode | None:
        """The leaf of this index, None where it is blank or outside the tree."""
        if not 0 <= index < self.size:
            return None
        node = self._nodes[2 * index]
        return node if isinstance(node, LeafNode) else None

    def parent(self, number: int) -> ParentNode | None:
        """The parent node, None where it is blank."""
        node = self._nodes[number]
        return node if isinstance(node, ParentNode) else None

    def leaves(self) -> Iterator[tuple[int, LeafNode]]:
        """Every occupied leaf with its index, from left to right."""
        for number, node in enumerate(self._nodes[::2]):
            if isinstance(node, LeafNode):
                yield number, node

    def parents(self) -> Iterator[tuple[int, ParentNode]]:
        """Every parent node that is not blank with its node number, from left to right."""
        for number, node in enumerate(self._nodes):
            if isinstance(node, ParentNode):
                yield number, node

    def free_leaf(self) -> int:
        """Index of the leftmost blank leaf, `size` where there is none."""
        leaves = self._nodes[::2]
        return leaves.index(None) if None in leaves else len(leaves)

    def resolution(self, number: int) -> list[int]:
        """Node numbers that together cover the members below `number` (section 4.1.1)."""
        node = self._nodes[number]
        if isinstance(node, ParentNode):
            return [number, *(2 * leaf for leaf in node.unmerged_leaves)]
        if node is not None:
            return [number]
        if number & 1 == 0:
            return []
        return self.resolution(tree_math.left(number)) + self.resolution(tree_math.right(number))

    def is_empty_below(self, number: int) -> bool:
        """Whether the resolution of `number` is empty."""
        if self._nodes[number] is not None:
            return False
        reach = (1 << tree_math.level(number)) - 1
        return not any(self._nodes[number - reach : number + reach + 1])

    def filtered_direct_path(self, leaf: int) -> list[tuple[int, int]]:
        """(ancestor, its child off the path) for the ancestors of `leaf` whose off-path child has members (section 4.1.2)."""
        path, number, root = [], 2 * leaf, self.root
        while number != root:
            off_path, number = tree_math.sibling(number), tree_math.parent(number)
            if not self.is_empty_below(off_path):
                path.append((number, off_path))
        return path

    def tree_hash(self) -> bytes:
        """Tree hash of the root (section 7.8)."""
        return self.hash_of(self.root)

    def hash_of(self, number: int) -> bytes:
        """Tree hash of the subtree at `number`."""
        known = self._hashes[number]
        if known is None:
            known = self._hash(number, self._nodes[number], *self._child_hashes(number))
            self._hashes[number] = known
        return known

    def hash_without(self, number: int, leaves: Sequence[int]) -> bytes:
        """Tree hash of the subtree at `number` with `leaves`, increasing, blank and in no unmerged_leaves (section 7.9)."""
        first, end = tree_math.leaf_span(number)
        below = leaves[bisect_left(leaves, first) : bisect_left(leaves, end)]
        if not below:
            return self.hash_of(number)
        if number & 1 == 0:
            return self._hash(number, None, b"", b"")
        node = self._nodes[number]
        if isinstance(node, ParentNode):
            node = node.without(frozenset(below))
        left, right = self.hash_without(tree_math.left(number), below), self.hash_without(tree_math.right(number), below)
        return self._hash(number, node, left, right)

    def _child_hashes(self, number: int) -> tuple[bytes, bytes]:
        if number & 1 == 0:
            return b"", b""
        return self.hash_of(tree_math.left(number)), self.hash_of(tree_math.right(number))

    def _hash(self, number: int, node: Node | None, left: bytes, right: bytes) -> bytes:
        body = b"\x00" if node is None else b"\x01" + node.encode()
        if number & 1 == 0:
            return self.suite.hash(b"\x01" + (number >> 1).to_bytes(4, "big") + body)
        return self.suite.hash(b"\x02" + body + tls.opaque(left) + tls.opaque(right))

    def parent_hash(self, number: int, off_path: int) -> bytes:
        """Parent hash of the parent node `number` with the copath child `off_path` (section 7.9).

        The node must not be blank, its unmerged leaves in order.
        """
        parent = self.parent(number)
        if parent is None:
            raise ValueError("a blank node has no parent hash")
        sibling = self.hash_without(off_path, parent.unmerged_leaves)
        return self.suite.hash(tls.opaque(parent.encryption_key) + tls.opaque(parent.parent_hash) + tls.opaque(sibling))

    def lists(self) -> tuple[list[Node | None], list[bytes | None]]:
        """Copies of the nodes and of the hashes known so far, for a draft."""
        return self._nodes.copy(), self._hashes.copy()
