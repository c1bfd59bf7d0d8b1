"""The hash tree over records signed together."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_crypto.channels.batch import grow, leaf_hash, root

leaves = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=64)


def plain_root(level: list[bytes]) -> bytes:
    """Merkle by the definition, one level at a time."""
    while len(level) & (len(level) - 1):
        level = [*level, bytes(32)]
    while len(level) > 1:
        level = [sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=True)]
    return level[0]


@given(leaves)
def test_each_path_leads_from_its_leaf_to_the_one_root(given_leaves: list[bytes]) -> None:
    top, paths = grow(list(given_leaves))
    assert top == plain_root(given_leaves)
    assert [root(leaf, index, path) for index, (leaf, path) in enumerate(zip(given_leaves, paths, strict=True))] == [top] * len(paths)
    assert {len(path) for path in paths} == {32 * (len(given_leaves) - 1).bit_length()}


@given(leaves, st.data())
def test_another_leaf_index_or_sibling_leads_elsewhere(given_leaves: list[bytes], data: st.DataObject) -> None:
    top, paths = grow(given_leaves)
    index = data.draw(st.integers(0, len(given_leaves) - 1))
    leaf, path = given_leaves[index], paths[index]
    assert root(sha256(leaf).digest(), index, path) != top
    for level in range(len(path) // 32):
        sibling = path[32 * level : 32 * level + 32]
        changed = path[: 32 * level] + sha256(sibling).digest() + path[32 * level + 32 :]
        assert root(leaf, index, changed) != top
        if level == 0 and sibling != leaf:
            assert root(leaf, index ^ 1, path) != top


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 33, 64])
def test_a_path_has_one_hash_for_each_doubling(count: int) -> None:
    _, paths = grow([bytes((n,)) * 32 for n in range(count)])
    assert len(paths) == count
    assert len(paths[0]) == 32 * (count - 1).bit_length()


def test_a_leaf_is_no_node() -> None:
    left, right = bytes(32), bytes(range(32))
    assert leaf_hash(left, right) != grow([left, right])[0]
