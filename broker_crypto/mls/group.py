"""A member's group: the public group and the secrets of its epoch, as one value.

1  An operation returns the next value; the one it was called on stays as it is, whatever happens.
2  What can be refused without secrets is refused by the public group, for everybody alike (`PublicGroup.stage`).
3  Then the tags and secrets: membership tag, path secret, its keys, external init, PSKs, confirmation tag. What does not
   fit there is CannotEnter: the epoch has ended for the others all the same.
4  Nothing of the next epoch is handed out before its confirmation tag was checked.
5  Of the epoch before, only private keys that still stand in the tree are carried on.

A commit of one's own is entered by adopting `StagedCommit.group`, once it is known that everybody takes that commit.
Source: RFC 9420 sections 8, 11 and 12.4.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn, Self

from broker_crypto.crypto.suites import Suite
from broker_crypto.errors import MalformedInput, PeerError, UsageError
from broker_crypto.limits import MAX_PENDING
from broker_crypto.mls import committing, group_state, key_schedule, proposal_list, protection, psk, transcript, treekem
from broker_crypto.mls.committing import Committer, Draft, Made
from broker_crypto.mls.framing import (
    AuthData,
    AuthenticatedContent,
    FramedContent,
    MLSMessage,
    PrivateMessage,
    PublicMessage,
    Sender,
    SenderType,
    WireFormat,
    sign,
)
from broker_crypto.mls.group_info import GroupContext, GroupInfo
from broker_crypto.mls.key_schedule import EpochSecrets, NextEpoch
from broker_crypto.mls.leaf import MLS10, UPDATE, Extensions
from broker_crypto.mls.leaf_rules import STRICT, Demands, LeafPolicy
from broker_crypto.mls.own_leaf import OwnLeaf
from broker_crypto.mls.proposal_list import SentProposal
from broker_crypto.mls.proposals import Add, Commit, ExternalInit, PreSharedKey, Proposal, ProposalRef, Remove, Update
from broker_crypto.mls.public import PublicGroup, PublicStaged
from broker_crypto.mls.ratchet_tree import RatchetTree
from broker_crypto.mls.secret_tree import SecretTree
from broker_crypto.mls.treekem import PrivateKeys
from broker_crypto.mls.validation import CannotEnter, Rule, refuse
from broker_crypto.mls.welcome import Welcome
from broker_crypto.records import Random
from broker_crypto.wire import tls

__all__ = ["CannotEnter", "Group", "OwnLeaf", "StagedCommit"]

_NO_PSKS = psk.PskSecrets()


@dataclass(frozen=True, slots=True)
class StagedCommit:
    """A commit of one's own: `message` (an MLSMessage) to send, the `group` that it leads to, a `welcome` for those it adds.

    `current` is the group to keep until the commit has won: after a PrivateMessage its ratchet has moved on, and it must be
    stored before the message is sent. None for one who joins with the commit.
    """

    message: bytes
    group: Group
    welcome: Welcome | None
    current: Group | None


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """One epoch of a group as the member at leaf index `leaf` knows it.

    `keys` are HPKE private keys by public key; `pending` the proposals of this epoch by reference; `updates` (HPKE private,
    signature private) of own Update proposals by their public encryption key.
    """

    public: PublicGroup
    leaf: int
    signature_private: bytes = field(repr=False)
    keys: PrivateKeys = field(repr=False)
    secrets: EpochSecrets = field(repr=False)
    secret_tree: SecretTree = field(repr=False)
    pending: Mapping[bytes, SentProposal] = field(default_factory=dict, repr=False)
    updates: Mapping[bytes, tuple[bytes, bytes]] = field(default_factory=dict, repr=False)

    # --- what it knows ----------------------------------------------------------------------------------------------

    @property
    def suite(self) -> Suite:
        """The group's cipher suite."""
        return self.public.suite

    @property
    def epoch(self) -> int:
        """Number of this epoch."""
        return self.public.epoch

    @property
    def epoch_authenticator(self) -> bytes:
        """Nh bytes that are equal for all members of the epoch (section 8.7)."""
        return self.secrets.epoch_authenticator

    @property
    def resumption_psk(self) -> bytes:
        """The key that later PSK proposals for this epoch stand for (section 8.6); a secret."""
        return self.secrets.resumption_psk

    @property
    def external_public(self) -> bytes:
        """HPKE public key for external commits to this epoch (section 8.3)."""
        return self.secrets.external_key_pair()[1]

    def export(self, label: str, context: bytes, n: int) -> bytes:
        """MLS-Exporter: `n` secret bytes for the application, 1 to 255 * Nh. Raises UsageError (section 8.5)."""
        return self.secrets.export(label, context, n)

    def group_info(self, *, extensions: Extensions = (), ratchet_tree: bool = False, external_pub: bool = True) -> GroupInfo:
        """A signed GroupInfo of this epoch; with the tree and the key to join with where asked (section 12.4.3)."""
        published = committing.published(self.public, self.secrets, ratchet_tree=ratchet_tree, external_pub=external_pub)
        return committing.group_info(self.public, self.secrets, self.leaf, self.signature_private, (*published, *extensions))

    # --- in ---------------------------------------------------------------------------------------------------------

    @classmethod
    def found(
        cls,
        suite: Suite,
        group_id: bytes,
        own: OwnLeaf,
        *,
        extensions: Extensions = (),
        policy: LeafPolicy = STRICT,
        random: Random,
    ) -> Self:
        """A group of one, epoch 0 (section 11). Raises PeerError where the own leaf does not keep the rules of the group."""
        private, leaf = own.fresh(suite, random)
        Demands.of(suite, policy, group_id, extensions).check_leaf(leaf, 0)
        tree = RatchetTree.of_one(suite, leaf)
        context = GroupContext(MLS10, suite.number, group_id, 0, tree.tree_hash(), b"", extensions)
        epoch = key_schedule.found(suite, random(suite.nh))
        interim = transcript.interim(suite, b"", epoch.secrets.confirmation_tag(b""))
        public = PublicGroup(context, tree, interim, policy)
        return cls(public, 0, own.signature_private, {leaf.encryption_key: private}, epoch.secrets, _messages(epoch, tree))

    @classmethod
    def external_commit(
        cls,
        public: PublicGroup,
        external_pub: bytes,
        own: OwnLeaf,
        *,
        remove: int | None = None,
        psks: Sequence[psk.PreSharedKeyId] = (),
        held: psk.PskSecrets = _NO_PSKS,
        authenticated_data: bytes = b"",
        random: Random,
    ) -> StagedCommit:
        """Join from outside; `remove` is the leaf that this member had before (section 12.4.3.2).

        `external_pub` comes from a GroupInfo of this epoch. Raises PeerError where the own leaf does not fit the group,
        MalformedInput for an external_pub that is not usable.
        """
        public.check_open()
        kem_output, init_secret = key_schedule.send_external_init(public.suite, external_pub, random)
        removes = () if remove is None else (Remove(remove),)
        items: tuple[Proposal, ...] = (ExternalInit(kem_output), *removes, *(PreSharedKey(item) for item in psks))
        sender = Sender(SenderType.NEW_MEMBER_COMMIT)
        sent = proposal_list.resolve(items, sender, {})
        draft = Draft(items, sent, own.template(), authenticated_data, held=held)
        committer = Committer(sender, own.signature_private, own.signature_private, init_secret)
        made = committing.make(public, committer, draft, random)
        message = PublicMessage(made.signed.content, made.signed.auth)
        return StagedCommit(MLSMessage(message).encode(), _entered(made, own.signature_private, made.keys), None, None)

    # --- on ---------------------------------------------------------------------------------------------------------

    def commit(
        self,
        *,
        proposals: Sequence[Proposal] = (),
        references: Sequence[bytes] = (),
        path: bool = True,
        own: OwnLeaf | None = None,
        authenticated_data: bytes = b"",
        private: bool = False,
        psks: psk.PskSecrets = _NO_PSKS,
        now: int | None = None,
        resuming: bool = False,
        random: Random,
    ) -> StagedCommit:
        """Commit `proposals` by value and `references` to pending ones, with fresh keys along the own path (section 12.4.1).

        `own` replaces what the own leaf says. `now` (seconds since 1970) is needed to add a key package. `resuming` allows
        reinit and branch keys, in the first commit of a group. Raises PeerError where the proposals may not be committed,
        UsageError where the call cannot be right.
        """
        self.public.check_open()
        _check_now(proposals, now)
        draft = self._draft(proposals, references, own, path=path, psks=psks)
        draft = replace(
            draft,
            authenticated_data=authenticated_data,
            wire_format=WireFormat.PRIVATE_MESSAGE if private else WireFormat.PUBLIC_MESSAGE,
            now=now,
            resuming=resuming,
        )
        leaf_private = self.signature_private if own is None else own.signature_private
        committer = Committer(Sender.member(self.leaf), self.signature_private, leaf_private, self.secrets.init_secret)
        made = committing.make(self.public, committer, draft, random)
        message, current = self._protect(made.signed, random)
        group = _entered(made, leaf_private if path else self.signature_private, {**self.keys, **made.keys})
        welcome = committing.welcome_for(made, group.group_info(ratchet_tree=True), random) if made.changes.added else None
        return StagedCommit(MLSMessage(message).encode(), group, welcome, current)

    def _draft(
        self, proposals: Sequence[Proposal], references: Sequence[bytes], own: OwnLeaf | None, *, path: bool, psks: psk.PskSecrets
    ) -> Draft:
        if own is not None and not path:
            raise UsageError("another leaf comes with a path only")
        for reference in references:
            if reference not in self.pending:
                raise UsageError("no pending proposal has this reference")
        items = (*proposals, *map(ProposalRef, references))
        sent = proposal_list.resolve(items, Sender.member(self.leaf), self.pending)
        template = (own or self._own_leaf()).template() if path else None
        return Draft(items, sent, template, held=self._held(psks))

    def _own_leaf(self) -> OwnLeaf:
        leaf = self.public.tree.leaf(self.leaf)
        if leaf is None:
            raise UsageError("this member is not in the group any more", leaf=self.leaf)
        return OwnLeaf.of(leaf, self.signature_private)

    def _held(self, psks: psk.PskSecrets) -> psk.PskSecrets:
        """`psks` and the resumption key of this epoch."""
        return psks.joined(psk.PskSecrets(resumption={(self.public.group_id, self.epoch): self.resumption_psk}))

    def _protect(self, signed: AuthenticatedContent, random: Random, padding: int = 0) -> tuple[PublicMessage | PrivateMessage, Group]:
        if signed.wire_format is WireFormat.PUBLIC_MESSAGE:
            return protection.public_message(signed, self.secrets, self.public.context), self
        message, tree = protection.seal(signed, self.secrets, self.secret_tree, padding=padding, random=random)
        return message, replace(self, secret_tree=tree)

    def enter(self, staged: PublicStaged, message: PublicMessage, *, psks: psk.PskSecrets = _NO_PSKS) -> Group:
        """The epoch that `staged` leads to, which the public group made of `message`. `psks` as far as the commit names some.

        Raises CannotEnter, whose `reason` says which of what needs secrets does not fit; this group stays as it is.
        """
        if message.authenticated != staged.signed or staged.next.epoch != self.epoch + 1:
            raise UsageError("a staged commit of another message or epoch")
        if not protection.membership_tag_holds(message, self.secrets, self.public.context):
            _cannot(Rule.MEMBERSHIP_TAG, "the membership tag of a commit is wrong", staged)
        return self._enter(staged, psks)

    def _enter(self, staged: PublicStaged, psks: psk.PskSecrets) -> Group:
        own = staged.next.tree.leaf(self.leaf)
        if self.leaf in staged.removed or own is None:
            raise CannotEnter("the commit removes this member", reason="removed", leaf=self.leaf)
        updated = self.updates.get(own.encryption_key)
        keys = self.keys if updated is None else {**self.keys, own.encryption_key: updated[0]}
        learnt, commit_secret = self._open_path(staged, keys)
        init_secret = self._init_secret(staged)
        try:
            psk_secret = psk.gather(self.suite, staged.changes.psks, self._held(psks))
        except PeerError:
            _cannot(Rule.PSK_HELD, "a pre-shared key of the commit is not held", staged)
        epoch = key_schedule.begin(self.suite, init_secret, commit_secret, psk_secret, staged.next.context)
        if not epoch.secrets.confirmation_tag_holds(staged.next.context.confirmed_transcript_hash, staged.confirmation_tag):
            _cannot(Rule.CONFIRMATION_TAG, "the confirmation tag of a commit is wrong", staged)
        held = treekem.held_keys(staged.next.tree, self.leaf, {**keys, **learnt})
        signature_private = self.signature_private if updated is None else updated[1]
        return Group(staged.next, self.leaf, signature_private, held, epoch.secrets, _messages(epoch, staged.next.tree))

    def _open_path(self, staged: PublicStaged, keys: PrivateKeys) -> tuple[PrivateKeys, bytes]:
        if staged.path is None:
            return {}, bytes(self.suite.nh)
        return treekem.open_path(
            staged.next.tree,
            staged.path,
            sender=staged.committer,
            own=self.leaf,
            keys=keys,
            context=staged.provisional.encode(),
            added=frozenset(staged.added),
        )

    def _init_secret(self, staged: PublicStaged) -> bytes:
        external = staged.changes.external_init
        if external is None:
            return self.secrets.init_secret
        try:
            return key_schedule.receive_external_init(self.secrets, external.kem_output)
        except MalformedInput:
            _cannot(Rule.EXTERNAL_INIT, "an external init does not open", staged)

    def stage(self, message: MLSMessage | bytes, *, psks: psk.PskSecrets = _NO_PSKS, now: int | None = None) -> Group:
        """The group behind a handshake of another: a commit leads to the next epoch, a proposal is kept for a later commit.

        Everything that RFC 9420 demands of the message is checked, section 12.4.2; who may be in the group is not:
        applications that judge credentials use `public.stage` and `enter`, and look at what is `introduced` between.
        Raises PeerError, CannotEnter.
        """
        body = (MLSMessage.decode(message) if isinstance(message, bytes) else message).body
        if isinstance(body, PrivateMessage):
            signed, group = self._open(body)
        elif isinstance(body, PublicMessage):
            signed, group = self._check(body), self
        else:
            refuse(Rule.MESSAGE_KIND, "neither a PublicMessage nor a PrivateMessage")
        if isinstance(signed.content.content, bytes):
            refuse(Rule.MESSAGE_KIND, "application data where a handshake belongs")
        if isinstance(signed.content.content, Commit):
            return group._enter(self.public.stage_content(signed, pending=self.pending, now=now), psks)
        reference, sent = self.public.read_proposal(signed)
        if len(self.pending) >= MAX_PENDING:
            refuse(Rule.PENDING_FULL, "too many proposals in one epoch", limit=MAX_PENDING)
        return replace(group, pending={**self.pending, reference: sent})

    def _check(self, message: PublicMessage) -> AuthenticatedContent:
        self.public.check_place(message.content)
        if not protection.membership_tag_holds(message, self.secrets, self.public.context):
            refuse(Rule.MEMBERSHIP_TAG, "the membership tag of a message is wrong", leaf=message.content.sender.index)
        self.public.check_signature(message.authenticated)
        return message.authenticated

    def _open(self, message: PrivateMessage) -> tuple[AuthenticatedContent, Group]:
        signed, tree = protection.open_private(message, self.secrets, self.secret_tree, self.public.context, self._signature_key)
        self.public.check_place(signed.content)
        return signed, replace(self, secret_tree=tree)

    def _signature_key(self, leaf: int) -> bytes | None:
        node = self.public.tree.leaf(leaf)
        return None if node is None else node.signature_key

    # --- proposals and application data -----------------------------------------------------------------------------

    def propose(
        self,
        proposal: Proposal,
        *,
        authenticated_data: bytes = b"",
        private: bool = False,
        now: int | None = None,
        random: Random,
    ) -> tuple[bytes, Group]:
        """(MLSMessage, this group with the proposal pending). Store the group before the message is sent.

        `now` (seconds since 1970) is needed to propose a key package. Raises PeerError for a proposal that breaks a rule.
        """
        _check_now([proposal], now)
        self.public.check_open()
        wire_format = WireFormat.PRIVATE_MESSAGE if private else WireFormat.PUBLIC_MESSAGE
        signed = self._signed(proposal, wire_format, authenticated_data)
        reference, sent = self.public.read_proposal(signed)
        proposal_list.check_alone(self.public.before(), self.public.demands(), sent, now)
        message, group = self._protect(signed, random)
        return MLSMessage(message).encode(), replace(group, pending={**self.pending, reference: sent})

    def propose_update(self, own: OwnLeaf | None = None, *, private: bool = False, random: Random) -> tuple[bytes, Group]:
        """An Update of the own leaf, to what `own` says where it is given; as `propose` (section 12.1.2)."""
        new = own or self._own_leaf()
        secret, public = self.suite.derive_key_pair(random(self.suite.nh))
        leaf = replace(new.template(), encryption_key=public, source=UPDATE)
        leaf = leaf.signed(self.suite, new.signature_private, self.public.group_id, self.leaf)
        message, group = self.propose(Update(leaf), private=private, random=random)
        return message, replace(group, updates={**self.updates, public: (secret, new.signature_private)})

    def protect(self, data: bytes, *, authenticated_data: bytes = b"", padding: int = 0, random: Random) -> tuple[bytes, Group]:
        """Application data as a PrivateMessage (an MLSMessage), and the group to store before it is sent (section 6.3)."""
        self.public.check_open()
        if self.pending:
            raise UsageError("proposals are pending; commit first", count=len(self.pending))
        message, group = self._protect(self._signed(data, WireFormat.PRIVATE_MESSAGE, authenticated_data), random, padding)
        return MLSMessage(message).encode(), group

    def unprotect(self, message: MLSMessage | bytes) -> tuple[FramedContent, Group]:
        """(content, group without its key) of another member's application data. Raises PeerError."""
        body = (MLSMessage.decode(message) if isinstance(message, bytes) else message).body
        if not isinstance(body, PrivateMessage):
            refuse(Rule.MESSAGE_KIND, "application data travels in a PrivateMessage")
        signed, group = self._open(body)
        if not isinstance(signed.content.content, bytes):
            refuse(Rule.MESSAGE_KIND, "a handshake where application data belongs")
        return signed.content, group

    def _signed(self, content: Proposal | bytes, wire_format: WireFormat, authenticated_data: bytes) -> AuthenticatedContent:
        framed = FramedContent(self.public.group_id, self.epoch, Sender.member(self.leaf), authenticated_data, content)
        signature = sign(self.suite, self.signature_private, framed, wire_format, self.public.context)
        return AuthenticatedContent(wire_format, framed, AuthData(signature))

    # --- stored form ------------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """Canonical, versioned, with all secrets in clear; what `from_bytes` reads."""
        return group_state.encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The group that `data` holds. Raises PeerError for other bytes than `to_bytes` writes."""
        group = tls.decode(data, cls._read)
        if not hmac.compare_digest(group.to_bytes(), data):
            raise MalformedInput("a stored group that is not canonical")
        return group

    @classmethod
    def _read(cls, reader: tls.Reader) -> Self:
        group_state.read_version(reader)
        public = PublicGroup.read(reader)
        leaf, signature_private, keys = reader.u32(), reader.opaque(), group_state.read_keys(reader)
        secrets, tree = EpochSecrets.read(reader, public.suite), SecretTree.read(reader, public.suite)
        pending, updates = group_state.read_pending(reader), group_state.read_updates(reader)
        return cls(public, leaf, signature_private, keys, secrets, tree, pending, updates)


def _check_now(proposals: Sequence[Proposal], now: int | None) -> None:
    if now is None and any(isinstance(proposal, Add) for proposal in proposals):
        raise UsageError("to add a key package, its lifetime is held against `now`")


def _messages(epoch: NextEpoch, tree: RatchetTree) -> SecretTree:
    return SecretTree.begin(epoch.secrets.suite, epoch.encryption_secret, tree.size)


def _entered(made: Made, signature_private: bytes, keys: PrivateKeys) -> Group:
    """The group behind a commit of one's own."""
    held = treekem.held_keys(made.public.tree, made.leaf, keys)
    return Group(made.public, made.leaf, signature_private, held, made.epoch.secrets, _messages(made.epoch, made.public.tree))


def _cannot(rule: Rule, what: str, staged: PublicStaged) -> NoReturn:
    raise CannotEnter(what, reason=rule.value, committer=staged.committer)
