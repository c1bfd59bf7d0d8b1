"""The proposals of a commit: found, checked one by one and as a list, and applied to the tree.

The order of the checks: who may send which kind; each by itself; the list; then the tree that they lead to.
Source: RFC 9420 sections 12.1, 12.2, 12.3 and 12.4.3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from broker_crypto.limits import MAX_PSKS
from broker_crypto.mls import psk
from broker_crypto.mls.framing import Sender, SenderType
from broker_crypto.mls.leaf import MLS10, UPDATE, Extensions, LeafNode
from broker_crypto.mls.leaf_rules import Demands, LeafPolicy, check_key_package, check_source, check_usable
from broker_crypto.mls.proposals import (
    Add,
    ExternalInit,
    GroupContextExtensions,
    PreSharedKey,
    Proposal,
    ProposalRef,
    ReInit,
    Remove,
    Update,
)
from broker_crypto.mls.ratchet_tree import RatchetTree
from broker_crypto.mls.tree_draft import TreeDraft
from broker_crypto.mls.validation import Rule, refuse

P = TypeVar("P", bound=Proposal)

_BY_EXTERNAL = (Add, Remove, PreSharedKey, ReInit, GroupContextExtensions)
_IN_EXTERNAL_COMMIT = (ExternalInit, Remove, PreSharedKey)
_PATH_REQUIRED = (Update, Remove, ExternalInit, GroupContextExtensions)


@dataclass(frozen=True, slots=True)
class SentProposal:
    """A proposal with its sender; `by_reference` where a commit names one that was sent before."""

    proposal: Proposal
    sender: Sender
    by_reference: bool = False


Pending = Mapping[bytes, SentProposal]  # by ProposalRef


@dataclass(frozen=True, slots=True)
class Introduced:
    """A leaf that a commit brings in: `replaced` is what the same member had before, None for a newcomer.

    An external commit replaces the leaf that it removes. Whether the new credential may stand, and follow the old one, is
    the application's to say (RFC 9420 section 5.3.1).
    """

    index: int
    leaf: LeafNode
    replaced: LeafNode | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What a list of proposals makes of a group, before the path of its commit."""

    proposals: tuple[SentProposal, ...]
    tree: RatchetTree
    demands: Demands
    extensions: Extensions
    added: tuple[int, ...]
    removed: tuple[int, ...]
    introduced: tuple[Introduced, ...]

    def of(self, kind: type[P]) -> list[P]:
        """The proposals of one kind, in the order of the list."""
        return [sent.proposal for sent in self.proposals if isinstance(sent.proposal, kind)]

    @property
    def psks(self) -> tuple[psk.PreSharedKeyId, ...]:
        """The pre-shared keys that enter the epoch, in order."""
        return tuple(proposal.psk_id for proposal in self.of(PreSharedKey))

    @property
    def reinit(self) -> ReInit | None:
        """The ReInit that ends the group."""
        return next(iter(self.of(ReInit)), None)

    @property
    def external_init(self) -> ExternalInit | None:
        """The ExternalInit of an external commit."""
        return next(iter(self.of(ExternalInit)), None)

    @property
    def path_required(self) -> bool:
        """Whether the commit must bring a path (section 12.4)."""
        return not self.proposals or any(isinstance(sent.proposal, _PATH_REQUIRED) for sent in self.proposals)


def resolve(items: Sequence[Proposal | ProposalRef], committer: Sender, pending: Pending) -> tuple[SentProposal, ...]:
    """The proposals that a commit names. Raises PeerError for a reference that an external commit makes, or that nobody knows."""
    return tuple(_resolve(items, committer, pending))


def _resolve(items: Sequence[Proposal | ProposalRef], committer: Sender, pending: Pending) -> Iterator[SentProposal]:
    for item in items:
        if not isinstance(item, ProposalRef):
            yield SentProposal(item, committer)
            continue
        if committer.type is SenderType.NEW_MEMBER_COMMIT:
            refuse(Rule.EXTERNAL_BY_VALUE, "an external commit names a proposal by reference")
        known = pending.get(item.value)
        if known is None:
            refuse(Rule.PROPOSAL_KNOWN, "a commit names a proposal that was not seen")
        yield SentProposal(known.proposal, known.sender, by_reference=True)


@dataclass(frozen=True, slots=True)
class Before:
    """The group that proposals are applied to: its tree and GroupContext, and what the client demands of leaves.

    `resuming` is true only for whoever begins a group that continues another one (sections 11.2 and 11.3).
    """

    tree: RatchetTree
    group_id: bytes
    extensions: Extensions
    policy: LeafPolicy
    resuming: bool = False


def check_sender(proposal: Proposal, sender: Sender) -> None:
    """The sender may propose this kind (sections 6.1 and 12.1.8). Raises PeerError."""
    if sender.type is SenderType.MEMBER and isinstance(proposal, ExternalInit):
        refuse(Rule.EXTERNAL_INIT_INSIDE, "an ExternalInit by a member", sender=sender.index)
    external = sender.type is SenderType.EXTERNAL and not isinstance(proposal, _BY_EXTERNAL)
    newcomer = sender.type is SenderType.NEW_MEMBER_PROPOSAL and not isinstance(proposal, Add)
    if external or newcomer:
        refuse(Rule.PROPOSAL_SENDER, "a proposal that this kind of sender may not make", kind=proposal.kind, sender=sender.type.name)


def check_alone(before: Before, demands: Demands, sent: SentProposal, now: int | None = None) -> None:
    """One proposal by itself, against the group as it is and the `demands` of the extensions that will hold. Raises PeerError."""
    proposal = sent.proposal
    if isinstance(proposal, Add):
        check_key_package(demands, proposal.key_package, now)
    elif isinstance(proposal, Update):
        _check_update(before, demands, proposal.leaf_node, sent.sender.index)
    elif isinstance(proposal, Remove):
        if before.tree.leaf(proposal.removed) is None:
            refuse(Rule.REMOVE_OF_NOBODY, "a Remove of a leaf that is blank or outside the tree", leaf=proposal.removed)
    elif isinstance(proposal, PreSharedKey):
        _check_psk(before, proposal.psk_id)
    elif isinstance(proposal, ReInit):
        if proposal.version < MLS10:
            refuse(Rule.REINIT_VERSION, "a ReInit to an older version", version=proposal.version)
    elif isinstance(proposal, ExternalInit):
        check_usable(before.tree.suite, proposal.kem_output)
    else:
        Demands.of(before.tree.suite, before.policy, before.group_id, proposal.extensions)


def _check_update(before: Before, demands: Demands, leaf: LeafNode, index: int) -> None:
    old = before.tree.leaf(index)
    if old is None:
        refuse(Rule.SENDER_LEAF, "an Update by a blank leaf", leaf=index)
    check_source(leaf, UPDATE, index)
    if leaf.encryption_key == old.encryption_key:
        refuse(Rule.UPDATE_KEY_NEW, "an Update that keeps the encryption key", leaf=index)
    demands.check_leaf(leaf, index)


def _check_psk(before: Before, psk_id: psk.PreSharedKeyId) -> None:
    if len(psk_id.nonce) != before.tree.suite.nh:
        refuse(Rule.PSK_NONCE, "a pre-shared key with a nonce of another length", got=len(psk_id.nonce))
    if isinstance(psk_id, psk.ResumptionPsk) and psk_id.usage is not psk.Usage.APPLICATION and not before.resuming:
        refuse(Rule.PSK_USAGE, "a resumption key of another use than application", usage=psk_id.usage.name)


def check_list(sent: Sequence[SentProposal], committer: Sender) -> None:
    """The rules of the list, which no single proposal breaks (section 12.2). Raises PeerError."""
    proposals = [item.proposal for item in sent]
    names = [proposal.psk_id for proposal in proposals if isinstance(proposal, PreSharedKey)]
    if len(set(names)) != len(names):
        refuse(Rule.PSK_TWICE, "a pre-shared key stands twice in a commit")
    if len(names) > MAX_PSKS:
        refuse(Rule.PSK_COUNT, "a commit with too many pre-shared keys", got=len(names), limit=MAX_PSKS)
    if committer.type is SenderType.NEW_MEMBER_COMMIT:
        _check_external_list(proposals)
    else:
        _check_member_list(sent, committer.index)


def _check_external_list(proposals: Sequence[Proposal]) -> None:
    for proposal in proposals:
        if not isinstance(proposal, _IN_EXTERNAL_COMMIT):
            refuse(Rule.EXTERNAL_PROPOSALS, "an external commit with a proposal that it may not hold", kind=proposal.kind)
    if sum(isinstance(proposal, ExternalInit) for proposal in proposals) != 1:
        refuse(Rule.EXTERNAL_INIT_ONCE, "an external commit without exactly one ExternalInit")
    if sum(isinstance(proposal, Remove) for proposal in proposals) > 1:
        refuse(Rule.EXTERNAL_REMOVE_ONCE, "an external commit with more than one Remove")


def _check_member_list(sent: Sequence[SentProposal], committer: int) -> None:
    changed: set[int] = set()
    for item in sent:
        proposal, leaf = item.proposal, None
        if isinstance(proposal, Update):
            leaf = item.sender.index
            if leaf == committer:
                refuse(Rule.UPDATE_OF_COMMITTER, "a commit with an Update of its own sender", leaf=leaf)
        elif isinstance(proposal, Remove):
            leaf = proposal.removed
            if leaf == committer:
                refuse(Rule.REMOVE_OF_COMMITTER, "a commit that removes its own sender", leaf=leaf)
        if leaf is not None and leaf in changed:
            refuse(Rule.LEAF_CHANGED_TWICE, "a commit that changes a leaf twice", leaf=leaf)
        if leaf is not None:
            changed.add(leaf)
    kinds = [type(item.proposal) for item in sent]
    if kinds.count(GroupContextExtensions) > 1:
        refuse(Rule.GROUP_EXTENSIONS_TWICE, "a commit that sets the group's extensions twice")
    if ReInit in kinds and len(kinds) > 1:
        refuse(Rule.REINIT_ALONE, "a ReInit beside other proposals")


def apply(before: Before, sent: tuple[SentProposal, ...], committer: Sender, now: int | None = None) -> Changes:
    """Check the proposals of a commit and apply them, in the order of section 12.3. Raises PeerError; `before` stays as it is."""
    for item in sent:
        check_sender(item.proposal, item.sender)
    check_list(sent, committer)
    extensions = next((item.proposal.extensions for item in sent if isinstance(item.proposal, GroupContextExtensions)), before.extensions)
    demands = Demands.of(before.tree.suite, before.policy, before.group_id, extensions)
    for item in sent:
        check_alone(before, demands, item, now)
    tree, added, introduced = _apply_to_tree(before.tree, sent)
    if extensions is not before.extensions:
        for index, leaf in tree.leaves():
            demands.check_supported(leaf, index)
    removed = tuple(item.proposal.removed for item in sent if isinstance(item.proposal, Remove))
    return Changes(sent, tree, demands, extensions, added, removed, introduced)


def _apply_to_tree(tree: RatchetTree, sent: Sequence[SentProposal]) -> tuple[RatchetTree, tuple[int, ...], tuple[Introduced, ...]]:
    if not any(isinstance(item.proposal, Add | Update | Remove) for item in sent):
        return tree, (), ()
    draft, introduced = TreeDraft(tree), []
    for item in sent:
        if isinstance(item.proposal, Update):
            introduced.append(Introduced(item.sender.index, item.proposal.leaf_node, tree.leaf(item.sender.index)))
            draft.update(item.sender.index, item.proposal.leaf_node)
    for item in sent:
        if isinstance(item.proposal, Remove):
            draft.remove(item.proposal.removed)
    added = []
    for item in sent:
        if isinstance(item.proposal, Add):
            leaf = item.proposal.key_package.leaf_node
            added.append(draft.add(leaf))
            introduced.append(Introduced(added[-1], leaf, None))
    return draft.finish(), tuple(added), tuple(introduced)
