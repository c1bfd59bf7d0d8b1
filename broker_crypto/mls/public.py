"""The group as everybody sees it who has no secrets: tree, GroupContext, transcript. It follows commits and judges them.

The recipe of `stage`, in this order, each step named by its rule (docs/validation.md):

1  group, epoch, and that the group has not ended by a ReInit         RFC 9420 sections 6, 12.4.2, 12.4
2  the sender: an occupied leaf, or a newcomer who brings a path       6.1, 12.4.3.2
3  the signature over the content                                      6.1
4  the proposals: known, by whom, each, as a list                      12.1, 12.2
5  the tree that they lead to                                          12.3
6  the path: there where needed, its leaf, its keys, its parent hash   7.3, 7.5, 7.9.2, 12.4.2
7  the credentials of the tree: each can be read by all                7.3

Nothing is changed: `stage` gives the next group. A member checks its tags and secrets on top (`group`).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from typing import Self

from broker_crypto.crypto.suites import Suite
from broker_crypto.crypto.suites import suite as suite_of
from broker_crypto.errors import MalformedInput, UsageError
from broker_crypto.mls import proposal_list, transcript, tree_rules, treekem
from broker_crypto.mls.framing import AuthenticatedContent, FramedContent, PublicMessage, Sender, SenderType
from broker_crypto.mls.group_info import GroupContext, GroupInfo
from broker_crypto.mls.leaf import COMMIT, EXTERNAL_SENDERS, MLS10, RATCHET_TREE, LeafNode, read_external_senders
from broker_crypto.mls.leaf_rules import STRICT, Demands, LeafPolicy, check_source, check_usable
from broker_crypto.mls.proposal_list import Before, Changes, Introduced, Pending, SentProposal
from broker_crypto.mls.proposals import Add, Commit, ReInit
from broker_crypto.mls.ratchet_tree import RatchetTree
from broker_crypto.mls.tree_draft import TreeDraft
from broker_crypto.mls.update_path import UpdatePath
from broker_crypto.mls.validation import Rule, refuse
from broker_crypto.wire import tls

_VERSION = 1  # of the stored form
_LAST_EPOCH = 2**64 - 1  # behind it there is no other


@dataclass(frozen=True, slots=True)
class PublicStaged:
    """A commit that is valid for everybody, and the group that it leads to.

    `committer` is its leaf in the next tree; `removed` and `added` are leaf indices; `introduced` the leaves whose
    credentials are new. `provisional` is the GroupContext that the path is sealed with.
    """

    next: PublicGroup
    signed: AuthenticatedContent
    committer: int
    changes: Changes
    path: UpdatePath | None
    introduced: tuple[Introduced, ...]
    provisional: GroupContext

    @property
    def content(self) -> FramedContent:
        """What the committer signed."""
        return self.signed.content

    @property
    def confirmation_tag(self) -> bytes:
        """The tag that members check against their secrets."""
        return self.signed.auth.confirmation_tag or b""

    @property
    def proposals(self) -> tuple[SentProposal, ...]:
        """The proposals with their senders, in the order of the commit."""
        return self.changes.proposals

    @property
    def added(self) -> tuple[int, ...]:
        """Leaves that Add proposals filled, in their order."""
        return self.changes.added

    @property
    def removed(self) -> tuple[int, ...]:
        """Leaves of the old tree that Remove proposals emptied, in their order."""
        return self.changes.removed

    @property
    def external(self) -> bool:
        """Whether the committer came in with this commit."""
        return self.content.sender.type is SenderType.NEW_MEMBER_COMMIT

    @property
    def authenticated_data(self) -> bytes:
        """What the committer said beside the commit."""
        return self.content.authenticated_data


@dataclass(frozen=True, slots=True)
class PublicGroup:
    """One epoch of a group, public part. `reinit` is the proposal that ended the group, if one did."""

    context: GroupContext
    tree: RatchetTree
    interim_transcript_hash: bytes
    policy: LeafPolicy = STRICT
    reinit: ReInit | None = None

    @property
    def suite(self) -> Suite:
        """The group's cipher suite."""
        return self.tree.suite

    @property
    def epoch(self) -> int:
        """Number of this epoch."""
        return self.context.epoch

    @property
    def group_id(self) -> bytes:
        """The group's id."""
        return self.context.group_id

    # --- in: from a GroupInfo ---------------------------------------------------------------------------------------

    @classmethod
    def from_group_info(
        cls, info: GroupInfo, tree: RatchetTree | None = None, *, policy: LeafPolicy = STRICT, now: int | None = None
    ) -> Self:
        """The group that `info` describes; `tree` where it does not bring its own (that one is passed over then).

        Checks the signature, the tree and every leaf; `now` (seconds since 1970) also their lifetimes. What stays
        unchecked is the confirmation tag, for which nobody outside has the key. Raises PeerError.
        Source: RFC 9420 sections 12.4.3.1 to 12.4.3.3.
        """
        context = info.group_context
        suite = _suite(context)
        if tree is None:
            data = info.extension(RATCHET_TREE)
            if data is None:
                refuse(Rule.GROUP_INFO_TREE, "a GroupInfo without its tree")
            tree = RatchetTree.decode(suite, data)
        elif tree.suite is not suite:
            refuse(Rule.GROUP_SUITE, "a tree of another suite", suite=context.cipher_suite)
        _check_signer(info, tree)
        if tree.tree_hash() != context.tree_hash:
            refuse(Rule.TREE_HASH, "a tree that is not the one of the GroupContext", epoch=context.epoch)
        _check_whole(tree, Demands.of(suite, policy, context.group_id, context.extensions), now)
        return cls(context, tree, transcript.interim(suite, context.confirmed_transcript_hash, info.confirmation_tag), policy)

    def check_group_info(self, info: GroupInfo, *, signer: int, confirmation_tag: bytes) -> None:
        """`info` is of this very epoch, signed by the leaf `signer`, with this tag. Raises PeerError."""
        if info.group_context.encode() != self.context.encode():
            refuse(Rule.GROUP_INFO_CONTEXT, "a GroupInfo of another state", epoch=info.group_context.epoch, current=self.epoch)
        if info.signer != signer:
            refuse(Rule.GROUP_INFO_SIGNER, "a GroupInfo signed by another leaf", signer=info.signer, expected=signer)
        if not hmac.compare_digest(info.confirmation_tag, confirmation_tag):
            refuse(Rule.GROUP_INFO_TAG, "a GroupInfo with another confirmation tag", epoch=self.epoch)
        _check_signer(info, self.tree)

    # --- on: from commit to commit ----------------------------------------------------------------------------------

    def stage(self, message: PublicMessage, *, pending: Pending | None = None, now: int | None = None) -> PublicStaged:
        """What the commit in `message` makes of the group. `pending` are the proposals sent in this epoch, by reference.

        `now` (seconds since 1970) also checks lifetimes of key packages. Raises PeerError whose `rule` names what it breaks.
        """
        signed = message.authenticated
        self.check_place(signed.content)
        self.check_signature(signed)
        return self.stage_content(signed, pending=pending or {}, now=now)

    def stage_content(self, signed: AuthenticatedContent, *, pending: Pending, now: int | None = None) -> PublicStaged:
        """`stage` behind the checks of place and signature, which a PrivateMessage passes when it is opened."""
        content = signed.content
        commit, tag = content.content, signed.auth.confirmation_tag
        if not isinstance(commit, Commit) or tag is None:
            refuse(Rule.MESSAGE_KIND, "only a commit makes a new epoch")
        sent = proposal_list.resolve(commit.proposals, content.sender, pending)
        changes = proposal_list.apply(self.before(), sent, content.sender, now)
        if commit.path is None and changes.path_required:
            refuse(Rule.PATH_REQUIRED, "a commit without the path that its proposals need")
        tree, committer, introduced = changes.tree, content.sender.index, changes.introduced
        if commit.path is not None:
            tree, new = self._apply_path(changes, content.sender, commit.path)
            committer, introduced = new.index, (*introduced, new)
        check_credentials(tree)
        provisional = self.provisional(tree, changes)
        context = replace(provisional, confirmed_transcript_hash=transcript.confirmed(self.suite, self.interim_transcript_hash, signed))
        interim = transcript.interim(self.suite, context.confirmed_transcript_hash, tag)
        after = PublicGroup(context, tree, interim, self.policy, changes.reinit)
        return PublicStaged(after, signed, committer, changes, commit.path, introduced, provisional)

    def check_place(self, content: FramedContent) -> None:
        """A handshake of this group and epoch, from one who may send it. Raises PeerError."""
        if content.group_id != self.group_id:
            refuse(Rule.GROUP_ID, "a message of another group")
        if content.epoch != self.epoch or content.epoch >= _LAST_EPOCH:
            refuse(Rule.EPOCH, "a message of another epoch", epoch=content.epoch, current=self.epoch)
        if self.reinit is not None:
            refuse(Rule.GROUP_ENDED, "a message to a group that a ReInit has ended", epoch=self.epoch)

    def check_open(self) -> None:
        """The group can still be committed to. Raises UsageError."""
        if self.reinit is not None or self.epoch >= _LAST_EPOCH:
            raise UsageError("the group has ended", epoch=self.epoch)

    def check_signature(self, signed: AuthenticatedContent) -> None:
        """The content is signed by its sender. Raises PeerError for a sender who has no key here too (section 6.1)."""
        if not signed.signature_holds(self.suite, self._signature_key(signed.content), self.context):
            refuse(Rule.MESSAGE_SIGNATURE, "the signature of a message is not its sender's", sender=signed.content.sender.type.name)

    def _signature_key(self, content: FramedContent) -> bytes:
        sender, body = content.sender, content.content
        if sender.type is SenderType.MEMBER:
            leaf = self.tree.leaf(sender.index)
            if leaf is None:
                refuse(Rule.SENDER_LEAF, "a message of a blank leaf", leaf=sender.index)
            return leaf.signature_key
        if sender.type is SenderType.NEW_MEMBER_COMMIT:
            if not isinstance(body, Commit) or body.path is None:
                refuse(Rule.PATH_REQUIRED, "an external commit without a path")
            return body.path.leaf_node.signature_key
        if sender.type is SenderType.NEW_MEMBER_PROPOSAL:
            if not isinstance(body, Add):
                refuse(Rule.PROPOSAL_SENDER, "a newcomer may propose an Add only")
            return body.key_package.leaf_node.signature_key
        return self._external_sender_key(sender.index, isinstance(body, Commit | bytes))

    def _external_sender_key(self, index: int, no_proposal: bool) -> bytes:
        if no_proposal:
            refuse(Rule.PROPOSAL_SENDER, "an external sender may send proposals only")
        data = self.context.extension(EXTERNAL_SENDERS)
        senders = () if data is None else read_external_senders(data)
        if index >= len(senders):
            refuse(Rule.EXTERNAL_SENDER, "an external sender that the group does not know", sender=index)
        return senders[index].signature_key

    def read_proposal(self, signed: AuthenticatedContent) -> tuple[bytes, SentProposal]:
        """(ProposalRef, proposal) of a proposal that was sent by itself, to be kept for a later commit.

        Call `check_place` and `check_signature` first. Raises PeerError for a kind that its sender may not propose. What
        it proposes is judged with the commit that holds it, whose other proposals count too (section 12.3).
        """
        proposal = signed.content.content
        if isinstance(proposal, bytes | Commit):
            refuse(Rule.MESSAGE_KIND, "only a proposal can be kept for a later commit")
        proposal_list.check_sender(proposal, signed.content.sender)
        return signed.ref(self.suite), SentProposal(proposal, signed.content.sender, by_reference=True)

    def before(self, *, resuming: bool = False) -> Before:
        """What proposals are applied to; `resuming` while one's own commit begins a group that continues another."""
        return Before(self.tree, self.group_id, self.context.extensions, self.policy, resuming)

    def demands(self) -> Demands:
        """What the group demands of a leaf as it is now."""
        return Demands.of(self.suite, self.policy, self.group_id, self.context.extensions)

    def provisional(self, tree: RatchetTree, changes: Changes) -> GroupContext:
        """The GroupContext of the next epoch, its transcript not known yet (section 12.4.1)."""
        return replace(self.context, epoch=self.epoch + 1, tree_hash=tree.tree_hash(), extensions=changes.extensions)

    def _apply_path(self, changes: Changes, sender: Sender, path: UpdatePath) -> tuple[RatchetTree, Introduced]:
        leaf, keys = path.leaf_node, [path.leaf_node.encryption_key, *(node.encryption_key for node in path.nodes)]
        for key in keys:
            if key in changes.tree.census.encryption:
                refuse(Rule.PATH_KEY_NEW, "a path with a key that stands in the tree", node=changes.tree.census.encryption[key])
        draft = TreeDraft(changes.tree)
        if sender.type is SenderType.NEW_MEMBER_COMMIT:
            replaced = self.tree.leaf(changes.removed[0]) if changes.removed else None
            if replaced is not None and replaced.encryption_key == leaf.encryption_key:
                refuse(Rule.EXTERNAL_KEY_NEW, "an external commit that keeps the key of the leaf it removes", leaf=changes.removed[0])
            index = draft.place(leaf)
        else:
            index, replaced = sender.index, self.tree.leaf(sender.index)
        check_source(leaf, COMMIT, index)
        changes.demands.check_leaf(leaf, index)
        for node in path.nodes:
            check_usable(self.suite, node.encryption_key, committer=index)
            for sealed in node.encrypted_path_secret:
                check_usable(self.suite, sealed.kem_output, committer=index)
        return treekem.apply_path(draft, index, path, frozenset(changes.added)), Introduced(index, leaf, replaced)

    # --- stored form ------------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """Canonical, versioned; what `from_bytes` reads."""
        longest = self.policy.max_lifetime
        policy = tls.u8(self.policy.suite_listed) + tls.optional(None if longest is None else tls.u64(longest))
        ended = tls.optional(None if self.reinit is None else self.reinit.encode())
        return tls.u8(_VERSION) + self.context.encode() + self.tree.encode() + tls.opaque(self.interim_transcript_hash) + policy + ended

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next one as `to_bytes` wrote it. Raises PeerError; nothing but the form is checked again."""
        if reader.u8() != _VERSION:
            raise MalformedInput("a stored group of another version")
        context = GroupContext.read(reader)
        tree, interim = RatchetTree.read(_suite(context), reader), reader.opaque()
        policy = LeafPolicy(_read_flag(reader), reader.optional(tls.Reader.u64))
        return cls(context, tree, interim, policy, reader.optional(ReInit.read))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The group that `data` holds. Raises PeerError for other bytes than `to_bytes` writes."""
        return tls.decode(data, cls.read)


def _read_flag(reader: tls.Reader) -> bool:
    flag = reader.u8()
    if flag > 1:
        raise MalformedInput("a flag that is neither 0 nor 1", flag=flag)
    return flag == 1


def _suite(context: GroupContext) -> Suite:
    if context.version != MLS10:
        refuse(Rule.GROUP_SUITE, "a group of another version", version=context.version)
    try:
        return suite_of(context.cipher_suite)
    except UsageError:
        refuse(Rule.GROUP_SUITE, "a group of an unknown suite", suite=context.cipher_suite)


def _check_signer(info: GroupInfo, tree: RatchetTree) -> None:
    leaf = tree.leaf(info.signer)
    if leaf is None:
        refuse(Rule.GROUP_INFO_SIGNER, "a GroupInfo signed by a blank leaf", signer=info.signer)
    if not info.signature_holds(tree.suite, leaf.signature_key):
        refuse(Rule.GROUP_INFO_SIGNATURE, "a GroupInfo whose signature is not its signer's", signer=info.signer)


def check_credentials(tree: RatchetTree) -> None:
    """Every credential in use can be read by all members. Raises PeerError (section 7.3)."""
    kind = tree.census.unread_credential()
    if kind is not None:
        refuse(Rule.CREDENTIAL_COMMON, "a credential in use that some member cannot read", credential=kind)


def _check_whole(tree: RatchetTree, demands: Demands, now: int | None) -> None:
    tree_rules.check_tree(tree)
    leaf: LeafNode
    for index, leaf in tree.leaves():
        demands.check_leaf(leaf, index, now)
    check_credentials(tree)
