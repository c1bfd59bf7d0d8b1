"""tree-validation.json: resolutions, tree hashes, parent hashes and leaf signatures of a whole tree (RFC 9420 sections 4.1, 7.8, 7.9)."""

from __future__ import annotations

import pytest

from broker_crypto.crypto import suite
from broker_crypto.mls import tree_rules
from broker_crypto.mls.ratchet_tree import RatchetTree
from tests.vectors.vectors_path import load

CASES = load("tree-validation")


@pytest.mark.parametrize("number", range(1, 8))
def test_every_tree_of_the_suite_is_valid_and_hashes_as_published(number: int) -> None:
    cases = [case for case in CASES if case["cipher_suite"] == number]
    fields = 0
    for case in cases:
        group_id = bytes.fromhex(case["group_id"])
        tree = RatchetTree.decode(suite(number), bytes.fromhex(case["tree"]))
        assert tree.encode().hex() == case["tree"]
        assert len(case["resolutions"]) == len(case["tree_hashes"]) == 2 * tree.size - 1
        for node, (resolution, tree_hash) in enumerate(zip(case["resolutions"], case["tree_hashes"], strict=True)):
            assert tree.resolution(node) == resolution
            assert tree.hash_of(node).hex() == tree_hash
            assert tree.is_empty_below(node) == (not resolution)
            fields += 2
        tree_rules.check_tree(tree)
        for index, leaf in tree.leaves():
            assert leaf.signature_holds(tree.suite, group_id, index)
            fields += 1
    occupied = sum(1 for case in cases for node, resolution in enumerate(case["resolutions"]) if resolution and node % 2 == 0)
    assert len(cases) == 14
    assert fields == occupied + 2 * sum(len(case["resolutions"]) for case in cases)


def test_all_published_cases_are_of_suites_1_to_7() -> None:
    assert len(CASES) == 98
    assert {case["cipher_suite"] for case in CASES} == set(range(1, 8))
