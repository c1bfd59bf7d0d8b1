"""tree-math.json: the numbers of a full tree (RFC 9420 appendix C)."""

from __future__ import annotations

from broker_crypto.mls import tree_math
from tests.vectors.vectors_path import load


def test_every_node_number_of_every_tree_is_the_published_one() -> None:
    cases, fields = load("tree-math"), 0
    for case in cases:
        leaves, nodes = case["n_leaves"], case["n_nodes"]
        root = tree_math.root(leaves)
        assert (tree_math.width(leaves), root) == (nodes, case["root"])
        fields += 2
        for node in range(nodes):
            leaf = node % 2 == 0
            computed = {
                "left": None if leaf else tree_math.left(node),
                "right": None if leaf else tree_math.right(node),
                "parent": None if node == root else tree_math.parent(node),
                "sibling": None if node == root else tree_math.sibling(node),
            }
            assert computed == {name: case[name][node] for name in computed}
            fields += len(computed)
    assert [case["n_leaves"] for case in cases] == [1 << d for d in range(10)]
    assert (len(cases), fields) == (10, 2 * 10 + 4 * sum(2 * (1 << d) - 1 for d in range(10)))
