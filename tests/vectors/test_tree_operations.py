"""tree-operations.json: one proposal applied to a tree (RFC 9420 section 12.1)."""

from __future__ import annotations

from typing import Any

from broker_crypto.crypto import suite
from broker_crypto.mls.proposals import Add, Proposal, Remove, Update, read_proposal
from broker_crypto.mls.ratchet_tree import RatchetTree
from broker_crypto.mls.tree_draft import TreeDraft
from broker_crypto.wire import tls
from tests.vectors.vectors_path import load


def _apply(tree: RatchetTree, proposal: Proposal, sender: int) -> RatchetTree:
    draft = TreeDraft(tree)
    if isinstance(proposal, Add):
        draft.add(proposal.key_package.leaf_node)
    elif isinstance(proposal, Update):
        draft.update(sender, proposal.leaf_node)
    else:
        assert isinstance(proposal, Remove)
        draft.remove(proposal.removed)
    return draft.finish()


def _check(case: dict[str, Any]) -> str:
    kem = suite(case["cipher_suite"])
    before = RatchetTree.decode(kem, bytes.fromhex(case["tree_before"]))
    assert before.encode().hex() == case["tree_before"]
    assert before.tree_hash().hex() == case["tree_hash_before"]
    proposal = tls.decode(bytes.fromhex(case["proposal"]), read_proposal)
    after = _apply(before, proposal, case["proposal_sender"])
    assert after.encode().hex() == case["tree_after"]
    assert after.tree_hash().hex() == case["tree_hash_after"]
    assert before.encode().hex() == case["tree_before"]
    reread = RatchetTree.decode(kem, bytes.fromhex(case["tree_after"]))
    assert reread == after
    assert reread.tree_hash().hex() == case["tree_hash_after"]
    assert reread.census.encryption == after.census.encryption
    assert reread.census.signature == after.census.signature
    return type(proposal).__name__


def test_every_proposal_turns_the_tree_before_into_the_tree_after() -> None:
    cases = load("tree-operations")
    kinds = [_check(case) for case in cases]
    fields = sum(len(case) for case in cases)
    assert set(kinds) == {"Add", "Update", "Remove"}
    assert (len(kinds), fields) == (5, 5 * 7)
