"""Node numbers of a full, array-based ratchet tree. Leaf i is node 2 i; a tree of n leaves (a power of 2) has 2 n - 1 nodes.

Source: RFC 9420 appendix C. Every function is defined for nodes inside the tree only; the caller checks.
"""

from __future__ import annotations


def level(node: int) -> int:
    """Height of `node`: 0 for a leaf."""
    return (~node & (node + 1)).bit_length() - 1


def root(leaves: int) -> int:
    """The root of a full tree of `leaves` leaves."""
    return leaves - 1


def width(leaves: int) -> int:
    """Nodes of a full tree of `leaves` leaves."""
    return 2 * leaves - 1


def left(node: int) -> int:
    """Left child of a parent node."""
    return node ^ (1 << (level(node) - 1))


def right(node: int) -> int:
    """Right child of a parent node."""
    return node ^ (3 << (level(node) - 1))


def parent(node: int) -> int:
    """Parent of a node that is not the root."""
    k = level(node)
    return (node | (1 << k)) & ~(1 << (k + 1))


def sibling(node: int) -> int:
    """The other child of the node's parent."""
    return node ^ (2 << level(node))


def direct_path(node: int, leaves: int) -> list[int]:
    """Ancestors of `node`, from its parent to the root."""
    path = []
    top = leaves - 1
    while node != top:
        node = parent(node)
        path.append(node)
    return path


def copath(node: int, leaves: int) -> list[int]:
    """Sibling of `node` and of each of its ancestors but the root, in the order of `direct_path`."""
    path = []
    top = leaves - 1
    while node != top:
        path.append(sibling(node))
        node = parent(node)
    return path


def leaf_span(node: int) -> tuple[int, int]:
    """Leaves below `node` as (first, one behind the last) leaf index."""
    k = level(node)
    first = (node - (1 << k) + 1) >> 1
    return first, first + (1 << k)


def is_below(node: int, ancestor: int) -> bool:
    """Whether `node` is `ancestor` or lies below it."""
    return abs(node - ancestor) < 1 << level(ancestor)


def common_ancestor(a: int, b: int) -> int:
    """The lowest node that is above, or equal to, both leaf nodes `a` and `b`."""
    if a == b:
        return a
    k = (a ^ b).bit_length()
    return (a >> k << k) + (1 << (k - 1)) - 1
