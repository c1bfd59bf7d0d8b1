"""treekem.json: paths received by every member, and paths of our own received likewise (RFC 9420 sections 7.4 to 7.6, 7.9)."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from broker_crypto.crypto import Suite, suite
from broker_crypto.mls import tree_rules, treekem
from broker_crypto.mls.leaf import MLS10
from broker_crypto.mls.ratchet_tree import RatchetTree
from broker_crypto.mls.tree_draft import TreeDraft
from broker_crypto.mls.treekem import UpdatePath
from broker_crypto.mls.welcome import GroupContext
from tests.vectors.vectors_path import load

CASES = load("treekem")
NOBODY: frozenset[int] = frozenset()


class Case:
    """One published tree with the private keys of its members."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.suite: Suite = suite(case["cipher_suite"])
        self.tree = RatchetTree.decode(self.suite, bytes.fromhex(case["ratchet_tree"]))
        self.group_id, self.epoch = bytes.fromhex(case["group_id"]), case["epoch"]
        self.transcript = bytes.fromhex(case["confirmed_transcript_hash"])
        self.members = {member["index"]: member for member in case["leaves_private"]}
        self.keys = {index: self._keys(member) for index, member in self.members.items()}

    def _keys(self, member: dict[str, Any]) -> dict[bytes, bytes]:
        """Private keys of the member, each shown to fit the tree."""
        leaf = self.tree.leaf(member["index"])
        assert leaf is not None
        private = bytes.fromhex(member["encryption_priv"])
        assert self.suite.public_of(private) == leaf.encryption_key
        assert self.suite.signature_public_of(bytes.fromhex(member["signature_priv"])) == leaf.signature_key
        keys = {leaf.encryption_key: private}
        for entry in member["path_secrets"]:
            secret = self.suite.derive_secret(bytes.fromhex(entry["path_secret"]), "node")
            private, public = self.suite.derive_key_pair(secret)
            parent = self.tree.parent(entry["node"])
            assert parent is not None
            assert parent.encryption_key == public
            keys[public] = private
        return keys

    def context(self, tree: RatchetTree) -> bytes:
        return GroupContext(MLS10, self.suite.number, self.group_id, self.epoch, tree.tree_hash(), self.transcript).encode()

    def receive(self, path: UpdatePath, sender: int, others: list[int]) -> tuple[RatchetTree, dict[int, treekem.PrivateKeys], bytes]:
        """The tree with the path, the keys that each of `others` learns, and the commit secret, the same for all."""
        tree = treekem.apply_path(TreeDraft(self.tree), sender, path, NOBODY)
        tree_rules.check_parent_hashes(tree)
        context, learnt, commit_secrets = self.context(tree), {}, set()
        for own in others:
            learnt[own], secret = treekem.open_path(tree, path, sender=sender, own=own, keys=self.keys[own], context=context, added=NOBODY)
            commit_secrets.add(secret)
        (commit_secret,) = commit_secrets
        return tree, learnt, commit_secret


def _received(case: Case, entry: dict[str, Any]) -> int:
    """A published path is valid, and everybody reads from it what is published; fields compared."""
    sender, path = entry["sender"], UpdatePath.decode(bytes.fromhex(entry["update_path"]))
    assert path.encode().hex() == entry["update_path"]
    others = [leaf for leaf, secret in enumerate(entry["path_secrets"]) if secret is not None]
    assert others == [leaf for leaf in case.members if leaf != sender]
    assert path.leaf_node.signature_holds(case.suite, case.group_id, sender)
    tree, learnt, commit_secret = case.receive(path, sender, others)
    assert tree.tree_hash().hex() == entry["tree_hash_after"]
    assert commit_secret.hex() == entry["commit_secret"]
    for own in others:
        _, public = case.suite.derive_key_pair(case.suite.derive_secret(bytes.fromhex(entry["path_secrets"][own]), "node"))
        assert next(iter(learnt[own])) == public
    return 4 + len(others)


def _sent(case: Case, sender: int) -> None:
    """A path that we make for `sender` is valid, and everybody else arrives at its secret and keys."""
    leaf = case.tree.leaf(sender)
    assert leaf is not None
    private = bytes.fromhex(case.members[sender]["signature_priv"])
    new = treekem.new_path(
        TreeDraft(case.tree), sender, leaf, signature_private=private, group_id=case.group_id, random=secrets.token_bytes
    )
    path = treekem.seal_path(new, case.context(new.tree), NOBODY, secrets.token_bytes)
    assert path.leaf_node.signature_holds(case.suite, case.group_id, sender)
    tree, learnt, commit_secret = case.receive(path, sender, [leaf for leaf in case.members if leaf != sender])
    assert tree == new.tree
    assert commit_secret == new.commit_secret
    for keys in learnt.values():
        assert keys.items() <= new.keys.items()


@pytest.mark.parametrize("number", range(1, 8))
def test_every_member_reads_every_path_of_the_suite_published_or_ours(number: int) -> None:
    cases = [case for case in CASES if case["cipher_suite"] == number]
    fields = paths = 0
    for raw in cases:
        case = Case(raw)
        before = case.tree.encode()
        fields += sum(2 + len(member["path_secrets"]) for member in raw["leaves_private"])
        for entry in raw["update_paths"]:
            fields += _received(case, entry)
            _sent(case, entry["sender"])
            paths += 1
        assert case.tree.encode() == before
    assert (len(cases), paths) == (11, sum(len(case["leaves_private"]) for case in cases))
    assert fields == sum(_fields(case) for case in cases)


def _fields(case: dict[str, Any]) -> int:
    private = sum(2 + len(member["path_secrets"]) for member in case["leaves_private"])
    return private + sum(4 + sum(secret is not None for secret in entry["path_secrets"]) for entry in case["update_paths"])


def test_all_published_cases_are_of_suites_1_to_7() -> None:
    assert len(CASES) == 77
    assert {case["cipher_suite"] for case in CASES} == set(range(1, 8))
