"""The secret tree: each key once, late keys for a while, nothing far ahead, and the tree before stays as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_crypto.crypto import suite as suite_of
from broker_crypto.errors import MalformedInput, PeerError, UsageError
from broker_crypto.limits import MAX_FORWARD, MAX_GENERATION, MAX_SKIPPED
from broker_crypto.mls.secret_tree import Fork, MessageKey, Opened, Ratchet, RatchetKind, Sealed, SecretTree
from broker_crypto.wire import tls

SUITE = suite_of(1)
ROOT = bytes(range(32))
APPLICATION, HANDSHAKE = RatchetKind.APPLICATION, RatchetKind.HANDSHAKE


def fresh(leaves: int = 8) -> SecretTree:
    return SecretTree.begin(SUITE, ROOT, leaves)


def in_order(leaf: int, kind: RatchetKind, count: int) -> list[MessageKey]:
    tree, keys = fresh(), []
    for generation in range(count):
        key, tree = tree.take(leaf, kind, generation)
        keys.append(key)
    return keys


ORDERED = in_order(5, APPLICATION, 12)


@given(st.permutations(range(12)))
def test_in_every_order_each_generation_gives_its_own_key_exactly_once(order: list[int]) -> None:
    tree = fresh()
    for generation in order:
        key, tree = tree.take(5, APPLICATION, generation)
        assert key == ORDERED[generation]
    for generation in order:
        with pytest.raises(PeerError) as refused:
            tree.take(5, APPLICATION, generation)
        assert refused.value.rule == "generation"


@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from(RatchetKind), st.integers(0, 20)), max_size=25))
def test_the_tree_before_stays_equal_and_storage_gives_the_same_tree(takes: list[tuple[int, RatchetKind, int]]) -> None:
    tree = fresh()
    for leaf, kind, generation in takes:
        before = tree.encode()
        try:
            _, following = tree.take(leaf, kind, generation)
        except PeerError:
            following = tree
        assert tree.encode() == before
        assert tls.decode(following.encode(), lambda reader: SecretTree.read(reader, SUITE)) == following
        tree = following


def test_no_two_ratchets_of_a_tree_share_a_key() -> None:
    tree = fresh()
    keys = {tree.take(leaf, kind, generation)[0].key for leaf in range(8) for kind in RatchetKind for generation in range(3)}
    assert len(keys) == 8 * 2 * 3


def secrets_in(node: Fork | Sealed | Opened) -> set[bytes]:
    if isinstance(node, Sealed):
        return {node.secret}
    if isinstance(node, Fork):
        return secrets_in(node.left) | secrets_in(node.right)
    held = {ratchet.secret for ratchet in node.ratchets}
    return held | {key.key for ratchet in node.ratchets for key in ratchet.skipped.values()}


def test_a_used_key_and_all_secrets_that_lead_to_it_are_gone() -> None:
    expand = SUITE.expand_with_label
    right = expand(ROOT, "tree", b"right", 32)
    left_of_right = expand(right, "tree", b"left", 32)
    leaf = expand(left_of_right, "tree", b"right", 32)
    application = expand(leaf, "application", b"", 32)
    key, tree = fresh().take(5, APPLICATION, 2)
    held = secrets_in(tree.top)
    consumed = {ROOT, right, left_of_right, leaf, application, SUITE.derive_tree_secret(application, "secret", 0, 32), key.key}
    assert not held & consumed
    # What the others need is still there: both other halves, the handshake ratchet, the two passed keys, the next secret.
    assert expand(ROOT, "tree", b"left", 32) in held
    assert expand(leaf, "handshake", b"", 32) in held
    assert {ORDERED[0].key, ORDERED[1].key} <= held
    assert tree.take(5, APPLICATION, 3)[0] == ORDERED[3]


def test_only_what_was_needed_is_opened() -> None:
    _, tree = fresh(1024).take(700, HANDSHAKE, 0)
    # 10 levels down: 10 sealed siblings and one opened leaf with two ratchets.
    assert len(secrets_in(tree.top)) == 10 + 2


def test_a_generation_at_the_forward_limit_opens_and_one_beyond_is_refused() -> None:
    tree = fresh()
    key, following = tree.take(0, APPLICATION, MAX_FORWARD)
    assert following.next_generation(0, APPLICATION) == MAX_FORWARD + 1
    assert key != tree.take(0, APPLICATION, MAX_FORWARD - 1)[0]
    with pytest.raises(PeerError, match="too far ahead"):
        tree.take(0, APPLICATION, MAX_FORWARD + 1)
    with pytest.raises(PeerError, match="too far ahead"):
        tree.take(0, APPLICATION, MAX_GENERATION)


def test_of_many_skipped_keys_the_newest_are_kept() -> None:
    tree = fresh()
    for step in range(1, 4):
        _, tree = tree.take(0, APPLICATION, step * MAX_FORWARD)
    node = tree._descend(0)[-1]
    assert isinstance(node, Opened)
    assert len(node.ratchets[APPLICATION].skipped) == MAX_SKIPPED
    last = 3 * MAX_FORWARD
    tree.take(0, APPLICATION, last - MAX_SKIPPED + 1)
    with pytest.raises(PeerError):
        tree.take(0, APPLICATION, 1)


@pytest.mark.parametrize("leaf", [8, 9, 2**31, 2**32 - 1])
def test_a_leaf_outside_the_tree_is_refused(leaf: int) -> None:
    with pytest.raises(PeerError) as refused:
        fresh().take(leaf, APPLICATION, 0)
    assert refused.value.rule == "sender_leaf"
    with pytest.raises(PeerError):
        fresh(1).take(1, APPLICATION, 0)


def test_a_sender_takes_generation_after_generation() -> None:
    tree = fresh()
    for expected in range(4):
        generation, key, tree = tree.take_next(5, APPLICATION)
        assert generation == expected
        assert key == ORDERED[expected]
    assert tree.take_next(5, HANDSHAKE)[0] == 0


def test_a_ratchet_at_its_end_gives_no_key_and_does_not_begin_again() -> None:
    tree = fresh(1)
    ended = Ratchet(MAX_GENERATION, bytes(32))
    tree = SecretTree(SUITE, 0, Opened((ended, ended)))
    generation, _, tree = tree.take_next(0, APPLICATION)
    assert generation == MAX_GENERATION
    with pytest.raises(UsageError):
        tree.take_next(0, APPLICATION)


def test_secrets_are_not_in_the_repr() -> None:
    key, tree = fresh().take(5, APPLICATION, 3)
    shown = repr(tree) + repr(tree.top) + repr(key) + repr(Sealed(ROOT))
    for secret in (*secrets_in(tree.top), key.key, key.nonce, ROOT):
        assert repr(secret) not in shown
        assert secret.hex() not in shown


@pytest.mark.parametrize("data", [b"\x00\x03", b"\x00\x01\x00\x00", b"\x01\x02", b"\x00\x00"])
def test_a_stored_tree_of_another_form_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        tls.decode(data, lambda reader: SecretTree.read(reader, SUITE))
