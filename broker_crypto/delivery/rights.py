"""What a commit may hold, and who may commit it: the same code for who judges commits and who builds them.

1. One who joins: ExternalInit and at most one Remove, of the leaf with the joiner's own signature key.
2. A member: nothing but a path; Remove; GroupContextExtensions. Anything else is invalid, and so is what stands by reference.
3. Remove by an admin, of any leaf; by any member, of a leaf that left, that has expired or that made no path for max_offline.
4. GroupContextExtensions by an admin: required_capabilities and the group's policy, both well-formed, the group's name and
   the founding's time unchanged, `rules` not lower, an admin left that is not barred.
5. A commit that changes the policy removes every leaf that the new policy, validity aside, does not count. One that raises
   `rules` is the old rules' to judge: its committer's leaf counts by the policy that it finds, too.
6. Fences are listed by admins only.
7. Who is no admin commits at most RATE_KEY times by one key, RATE_IDENTITY times by one identity, in RATE_WINDOW_MS.

Rights are those of the policy that a commit finds. Nothing here reads a clock, a setting or a secret.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from broker_crypto import limits
from broker_crypto.delivery.chain import Chain, Recent
from broker_crypto.delivery.group_policy import ADMIN, RULES, GroupPolicy, identity_of, policy_data, rules_in
from broker_crypto.delivery.log_records import LEAVE, LEAVE_LABEL, CommitData, GroupRecord, Leave, leaf_hash
from broker_crypto.errors import PeerError, UsageError
from broker_crypto.identity import profile
from broker_crypto.mls.leaf import LeafNode
from broker_crypto.mls.proposals import ExternalInit, GroupContextExtensions, Remove
from broker_crypto.mls.public import PublicStaged
from broker_crypto.mls.ratchet_tree import RatchetTree
from broker_crypto.wire import envelopes


@dataclass(frozen=True, slots=True)
class Terms:
    """What a commit leaves: `rules`, and the policy; None where rules above ours write it in a form that is not known here.

    `judges` are the policies by which the committer's leaf must count.
    """

    rules: int
    policy: GroupPolicy | None
    judges: tuple[GroupPolicy, ...]

    def check_leaf(self, leaf: LeafNode, time_ms: int) -> str:
        """The identity of a leaf that counts by all of them. PeerError names the rule."""
        identity, *_ = [policy.check_leaf(leaf, time_ms) for policy in self.judges]
        return identity


# --- whom to remove -----------------------------------------------------------------------------------------------------


def removable(chain: Chain, time_ms: int) -> set[int]:
    """Leaves that any member may remove in a commit of this time (ms): left, expired, or without a path for max_offline."""
    return {index for index, leaf in chain.public.tree.leaves() if _may_go(chain, index, leaf, time_ms)}


def _may_go(chain: Chain, index: int, leaf: LeafNode, time_ms: int) -> bool:
    offline = chain.policy.max_offline
    away = offline >= 0 and time_ms - chain.paths[index] >= offline * 1000
    return index in chain.left or away or has_expired(leaf, time_ms)


def has_expired(leaf: LeafNode, time_ms: int) -> bool:
    """Whether a certificate of the leaf's chain (the anchor is not in it) has ended before `time_ms`."""
    return profile.read_chain(leaf.credential.certificates).not_after < time_ms


def uncounted(tree: RatchetTree, policy: GroupPolicy) -> set[int]:
    """Leaves that `policy`, validity aside, does not count: a commit that leaves it removes them."""
    return {index for index, leaf in tree.leaves() if not _counts(leaf, policy)}


def _counts(leaf: LeafNode, policy: GroupPolicy) -> bool:
    try:
        policy.check_leaf(leaf, None)
    except PeerError:
        return False
    return True


def is_admin(chain: Chain, identity: str) -> bool:
    """Whether the policy in force makes an admin of it."""
    return chain.policy.role_of(identity) == ADMIN


# --- leaving ------------------------------------------------------------------------------------------------------------


def leave_record(chain: Chain, leaf: int, signature_private: bytes) -> bytes:
    """The record that says that the occupant of `leaf` leaves, signed with its key. UsageError for a blank leaf or another's key.

    Who is locked out can write it too: it takes what everybody sees, and the key of the leaf.
    """
    public = chain.public
    node = public.tree.leaf(leaf)
    if node is None or public.suite.signature_public_of(signature_private) != node.signature_key:
        raise UsageError("only the occupant of a leaf can leave", leaf=leaf)
    unsigned = Leave(public.group_id, leaf, leaf_hash(node), b"")
    signed = replace(unsigned, signature=public.suite.sign_with_label(signature_private, LEAVE_LABEL, unsigned.content))
    return GroupRecord(LEAVE, public.epoch, signed.encode(), b"").encode()


def check_leave(chain: Chain, leave: Leave) -> LeafNode | None:
    """The leaf node that leaves; None if it is another one by now, or has said so before. PeerError names the rule."""
    _refuse(leave.group_id != chain.public.group_id, "leave_group")
    node = chain.public.tree.leaf(leave.leaf)
    if node is None or leaf_hash(node) != leave.leaf_node or leave.leaf in chain.left:
        return None
    holds = chain.public.suite.verify_with_label(node.signature_key, LEAVE_LABEL, leave.content, leave.signature, low_s=True)
    _refuse(not holds, "leave_signature")
    return node


# --- what a commit holds ------------------------------------------------------------------------------------------------


def check_proposals(chain: Chain, staged: PublicStaged, time_ms: int) -> Terms:
    """Rules 1 to 5; what the commit leaves. PeerError names the rule."""
    if staged.external:
        _check_joiner(chain, staged)
        return _as_it_is(chain)
    held = [item.proposal for item in staged.proposals]
    _refuse(not all(isinstance(proposal, Remove | GroupContextExtensions) for proposal in held), "proposals")
    signer = chain.public.tree.leaf(staged.committer)
    admin = signer is not None and is_admin(chain, identity_of(signer))
    if not admin:
        leaves = [(index, chain.public.tree.leaf(index)) for index in staged.removed]
        _refuse(any(leaf is None or not _may_go(chain, index, leaf, time_ms) for index, leaf in leaves), "remove_right")
    if not any(isinstance(proposal, GroupContextExtensions) for proposal in held):
        return _as_it_is(chain)
    _refuse(not admin, "policy_right")
    return _check_policy(chain, staged)


def _as_it_is(chain: Chain) -> Terms:
    return Terms(chain.policy.rules, chain.policy, (chain.policy,))


def _check_joiner(chain: Chain, staged: PublicStaged) -> None:
    path = staged.path
    for item in staged.proposals:
        if isinstance(item.proposal, Remove):
            old = chain.public.tree.leaf(item.proposal.removed)
            _refuse(path is None or old is None or old.signature_key != path.leaf_node.signature_key, "resync_key")
        else:
            _refuse(not isinstance(item.proposal, ExternalInit), "proposals")


def _check_policy(chain: Chain, staged: PublicStaged) -> Terms:
    data = policy_data(staged.next.context.extensions)
    rules = rules_in(data)
    _refuse(rules < chain.policy.rules, "policy_rules")
    if rules > RULES and data[:10] != envelopes.GROUP_POLICY.marker:
        return Terms(rules, None, (chain.policy,))
    policy = GroupPolicy.decode(data)
    _refuse(policy.group != chain.policy.group, "policy_group")
    _refuse(policy.time != chain.policy.time, "policy_time")
    _refuse(not policy.has_admin(), "policy_admin")
    _refuse(bool(uncounted(staged.next.tree, policy) - {staged.committer}), "policy_uncounted")  # the committer's leaf: check_leaf
    return Terms(rules, policy, (policy,) if rules == chain.policy.rules else (chain.policy, policy))


# --- what its signer may ------------------------------------------------------------------------------------------------


def signing_key(chain: Chain, staged: PublicStaged) -> bytes:
    """The key that signs the commit: the member's as the commit finds it, the joiner's as it brings it."""
    leaf = (staged.next if staged.external else chain.public).tree.leaf(staged.committer)
    return b"" if leaf is None else leaf.signature_key


def check_signer(chain: Chain, commit: Recent, data: CommitData) -> None:
    """Rules 6 and 7, for a commit of this time, key and identity. PeerError names the rule."""
    if is_admin(chain, commit.identity):
        return
    _refuse(data.fences is not None, "fences")
    _refuse(is_too_many(chain, commit), "rate")


def is_too_many(chain: Chain, commit: Recent) -> bool:
    """Whether as many commits of its key or identity are in force within the window as one who is no admin may make."""
    window = [one for one in chain.recent if one.time > commit.time - limits.RATE_WINDOW_MS]
    of_key = sum(one.key == commit.key for one in window)
    return of_key >= limits.RATE_KEY or sum(one.identity == commit.identity for one in window) >= limits.RATE_IDENTITY


def _refuse(wrong: bool, rule: str) -> None:
    if wrong:
        raise PeerError("the group log's rules refuse it", rule=rule)
