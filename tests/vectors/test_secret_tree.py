"""secret-tree.json of the MLS working group: sender data keys, and both ratchets of every leaf."""

from __future__ import annotations

from collections import Counter

import pytest

from broker_crypto.crypto import suite as suite_of
from broker_crypto.errors import PeerError
from broker_crypto.mls.protection import sender_data_key
from broker_crypto.mls.secret_tree import MessageKey, RatchetKind, SecretTree
from tests.vectors.vectors_path import load


def key_of(entry: dict[str, str], ratchet: str) -> MessageKey:
    return MessageKey(bytes.fromhex(entry[f"{ratchet}_key"]), bytes.fromhex(entry[f"{ratchet}_nonce"]))


def test_sender_data_keys_are_the_published_ones() -> None:
    cases = load("secret-tree")
    for case in cases:
        given = case["sender_data"]
        assert set(given) == {"sender_data_secret", "ciphertext", "key", "nonce"}
        ciphertext = bytes.fromhex(given["ciphertext"])
        key = sender_data_key(suite_of(case["cipher_suite"]), bytes.fromhex(given["sender_data_secret"]), ciphertext)
        assert key == MessageKey(bytes.fromhex(given["key"]), bytes.fromhex(given["nonce"]))
    assert len(cases) == 21


def test_every_leaf_has_the_published_keys_and_gives_each_once() -> None:
    cases, keys = load("secret-tree"), 0
    assert Counter(case["cipher_suite"] for case in cases) == dict.fromkeys(range(1, 8), 3)
    for case in cases:
        assert set(case) == {"cipher_suite", "encryption_secret", "sender_data", "leaves"}
        suite = suite_of(case["cipher_suite"])
        tree = SecretTree.begin(suite, bytes.fromhex(case["encryption_secret"]), len(case["leaves"]))
        for leaf, entries in enumerate(case["leaves"]):
            for entry in entries:
                assert set(entry) == {"generation", "application_key", "application_nonce", "handshake_key", "handshake_nonce"}
                for name, kind in (("application", RatchetKind.APPLICATION), ("handshake", RatchetKind.HANDSHAKE)):
                    key, following = tree.take(leaf, kind, entry["generation"])
                    assert key == key_of(entry, name)
                    with pytest.raises(PeerError, match="used or given up"):
                        following.take(leaf, kind, entry["generation"])
                    tree = following
                    keys += 1
    assert keys == sum(2 * len(entries) for case in cases for entries in case["leaves"])
    assert keys == 7 * 2 * 2 * (1 + 8 + 32)


def test_every_key_is_found_behind_the_last_one_too() -> None:
    for case in load("secret-tree"):
        suite = suite_of(case["cipher_suite"])
        tree = SecretTree.begin(suite, bytes.fromhex(case["encryption_secret"]), len(case["leaves"]))
        for leaf, entries in enumerate(case["leaves"]):
            for entry in reversed(entries):
                key, tree = tree.take(leaf, RatchetKind.APPLICATION, entry["generation"])
                assert key == key_of(entry, "application")
