"""The one builder of commits that our own client would not make.

A `Scribe` writes for one member (or one who joins) at one point of a group. What it writes unbent is an honest commit: the
secrets, tags and the GroupInfo beside it are those that everybody computes. Each part can be bent where it is made, and all
that is made from it follows: a leaf that says something else is hashed into the tree that the GroupInfo is signed over. So a
commit has exactly one thing wrong, and a check that is left out lets it through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from broker_crypto.delivery import log_records
from broker_crypto.delivery.committer import Own, Staged
from broker_crypto.delivery.group_policy import COMMIT_HASH_EXTENSION
from broker_crypto.delivery.log_records import CommitData, GroupRecord, commit_hash
from broker_crypto.delivery.rules import Chain
from broker_crypto.errors import BrokerCryptoError, PeerError
from broker_crypto.mls import key_schedule, protection, transcript, treekem
from broker_crypto.mls.framing import (
    AuthData,
    AuthenticatedContent,
    FramedContent,
    MLSMessage,
    PublicMessage,
    Sender,
    SenderType,
    WireFormat,
    sign,
)
from broker_crypto.mls.group import Group
from broker_crypto.mls.group_info import GroupContext, GroupInfo
from broker_crypto.mls.key_schedule import NextEpoch
from broker_crypto.mls.leaf import COMMIT, EXTERNAL_PUB, Extension, Extensions, LeafNode
from broker_crypto.mls.own_leaf import OwnLeaf
from broker_crypto.mls.proposals import Add, Commit, ExternalInit, GroupContextExtensions, Proposal, ProposalRef, Remove, Update
from broker_crypto.mls.public import PublicGroup
from broker_crypto.mls.ratchet_tree import RatchetTree
from broker_crypto.mls.secret_tree import SecretTree
from broker_crypto.mls.tree_draft import TreeDraft
from broker_crypto.mls.treekem import NewPath
from broker_crypto.mls.update_path import UpdatePath
from broker_crypto.records import Random
from broker_crypto.wire import tls

T = TypeVar("T")
Item = Proposal | ProposalRef


def same(value: T) -> T:
    """Nothing is bent here."""
    return value


def _path(path: UpdatePath) -> UpdatePath | None:
    return path


@dataclass(frozen=True, kw_only=True)
class Bend:
    """Where a record is bent, in the order in which its parts are made. Each function gets what is right and gives what is written.

    `own` is who the new leaf is (its key signs the leaf), `leaf` fields of it, `signed_for` the index that it is signed for. `keys`
    are the public keys of the path from the leaf up, `secrets` what is sealed, `path` what the commit holds. `content` replaces
    fields of FramedContent. `private` signs the message, `info_private` the GroupInfo.
    """

    items: Callable[[tuple[Item, ...]], Sequence[Item]] = same
    own: OwnLeaf | None = None
    leaf: Mapping[str, Any] = field(default_factory=dict)
    signed_for: int | None = None
    signed_leaf: Callable[[LeafNode], LeafNode] = same
    keys: Callable[[list[bytes]], list[bytes]] = same
    secrets: Callable[[NewPath], NewPath] = same
    path: Callable[[UpdatePath], UpdatePath | None] = _path
    data: bytes | None = None
    content: Mapping[str, Any] = field(default_factory=dict)
    private: bytes | None = None
    signature: Callable[[bytes], bytes] = same
    confirmation_tag: Callable[[bytes], bytes] = same
    membership_tag: Callable[[bytes], bytes] = same
    message: Callable[[PublicMessage], PublicMessage] = same
    external_pub: Callable[[bytes], bytes] = same
    info: Callable[[GroupInfo], GroupInfo] = same
    info_private: bytes | None = None
    encoded_info: Callable[[bytes], bytes] = same
    record: Callable[[GroupRecord], GroupRecord] = same


@dataclass(frozen=True)
class Written:
    """A record that was written, and what its writer knows of the epoch that it leads to."""

    scribe: Scribe
    message: PublicMessage
    public: PublicGroup
    epoch: NextEpoch = field(repr=False)
    leaf: int
    signature_private: bytes = field(repr=False)
    keys: Mapping[bytes, bytes] = field(repr=False)
    group_info: GroupInfo
    record: bytes = field(repr=False)

    @property
    def external_pub(self) -> bytes:
        """The key to join with, as published."""
        return tls.decode(self.group_info.extensions[0].data, tls.Reader.opaque)

    @property
    def group(self) -> Group:
        """Where its writer is when the commit counts."""
        tree = self.public.tree
        held = treekem.held_keys(tree, self.leaf, self.keys)
        messages = SecretTree.begin(self.scribe.public.suite, self.epoch.encryption_secret, tree.size)
        return Group(self.public, self.leaf, self.signature_private, held, self.epoch.secrets, messages)

    @property
    def staged(self) -> Staged:
        """As a loop would have stored it before it was sent."""
        digest = commit_hash(MLSMessage(self.message).encode())
        return Staged(digest, self.scribe.public.epoch, self.scribe.time_ms, self.record, self.group)


@dataclass(frozen=True)
class Scribe:
    """Writes commits as the member `group`, or as one who joins by `external_pub` where `group` is None."""

    public: PublicGroup
    own: OwnLeaf
    random: Random = field(repr=False)
    time_ms: int = 0
    group: Group | None = None
    external_pub: bytes = b""

    @classmethod
    def member(cls, group: Group, random: Random, *, time_ms: int = 0) -> Scribe:
        """Who writes as the member that it is."""
        leaf = group.public.tree.leaf(group.leaf)
        assert leaf is not None
        return cls(group.public, OwnLeaf.of(leaf, group.signature_private), random, time_ms, group)

    @classmethod
    def behind(cls, chain: Chain, own: Own, random: Random, *, time_ms: int, group: Group | None = None) -> Scribe:
        """Who writes behind a chain of the group log: as `group`, or as `own` that joins."""
        return cls(chain.public, own.leaf(chain.public.suite.number), random, time_ms, group, chain.external_pub)

    def write(self, *items: Item, remove: int | None = None, external_init: ExternalInit | None = None, **bent: Any) -> Written:
        """A commit of `items` with a path; one who joins removes the leaf `remove`. `bent` are fields of `Bend`."""
        bend, public = Bend(**bent), self.public
        sender, first, init_secret = self._begin(external_init)
        removes = () if remove is None else (Remove(remove),)
        whole = tuple(bend.items((*first, *removes, *items)))
        tree, extensions, added = _applied(public, whole, sender)
        draft = TreeDraft(tree)
        new = self._new_path(draft, bend)
        tree = _finished(draft)
        provisional = replace(public.context, epoch=public.epoch + 1, tree_hash=tree.tree_hash(), extensions=extensions)
        path = bend.path(treekem.seal_path(bend.secrets(new), provisional.encode(), added, self.random))
        data = CommitData(self.time_ms).encode() if bend.data is None else bend.data
        content = replace(FramedContent(public.group_id, public.epoch, sender, data, Commit(whole, path)), **bend.content)
        signature = bend.signature(sign(public.suite, bend.private or self.own.signature_private, content, *self._signed_as))
        signed = AuthenticatedContent(WireFormat.PUBLIC_MESSAGE, content, AuthData(signature, b""))
        confirmed = transcript.confirmed(public.suite, public.interim_transcript_hash, signed)
        context = replace(provisional, confirmed_transcript_hash=confirmed)
        commit_secret = bytes(public.suite.nh) if path is None else new.commit_secret
        epoch = key_schedule.begin(public.suite, init_secret, commit_secret, bytes(public.suite.nh), context)
        tag = bend.confirmation_tag(epoch.secrets.confirmation_tag(confirmed))
        message = bend.message(self._tagged(replace(signed, auth=AuthData(signature, tag)), bend))
        after = PublicGroup(context, tree, transcript.interim(public.suite, confirmed, tag), public.policy)
        return self._written(bend, message, after, epoch, new=new)

    @property
    def _signed_as(self) -> tuple[WireFormat, GroupContext]:
        return WireFormat.PUBLIC_MESSAGE, self.public.context

    def _begin(self, external_init: ExternalInit | None) -> tuple[Sender, tuple[Item, ...], bytes]:
        """(sender, what such a commit begins with, init secret)."""
        if self.group is not None:
            return Sender.member(self.group.leaf), (), self.group.secrets.init_secret
        kem_output, secret = key_schedule.send_external_init(self.public.suite, self.external_pub, self.random)
        return Sender(SenderType.NEW_MEMBER_COMMIT), (external_init or ExternalInit(kem_output),), secret

    def _new_path(self, draft: TreeDraft, bend: Bend) -> NewPath:
        suite, own, public = self.public.suite, bend.own or self.own, self.public
        template = own.template()
        index = draft.place(template) if self.group is None else self.group.leaf
        private, key = suite.derive_key_pair(self.random(suite.nh))
        keys, secrets, publics, secret = {key: private}, {}, [], self.random(suite.nh)
        for number, _ in draft.tree.filtered_direct_path(index):
            secrets[number] = secret
            node_private, node_public = suite.derive_key_pair(suite.derive_secret(secret, "node"))
            keys[node_public] = node_private
            publics.append(node_public)
            secret = suite.derive_secret(secret, "path")
        publics = bend.keys(publics)
        parent_hash = draft.set_path(index, publics)
        said = {"encryption_key": key, "source": COMMIT, "lifetime": None, "parent_hash": parent_hash, **bend.leaf}
        place = index if bend.signed_for is None else bend.signed_for
        leaf = bend.signed_leaf(replace(template, **said).signed(suite, own.signature_private, public.group_id, place))
        draft.set_leaf(index, leaf)
        return NewPath(draft.tree, index, leaf, keys, secrets, secret)

    def _tagged(self, signed: AuthenticatedContent, bend: Bend) -> PublicMessage:
        if self.group is None:
            return PublicMessage(signed.content, signed.auth)
        message = protection.public_message(signed, self.group.secrets, self.public.context)
        return replace(message, membership_tag=bend.membership_tag(message.membership_tag or b""))

    def _written(self, bend: Bend, message: PublicMessage, after: PublicGroup, epoch: NextEpoch, *, new: NewPath) -> Written:
        encoded, private = MLSMessage(message).encode(), (bend.own or self.own).signature_private
        published = (
            Extension(EXTERNAL_PUB, tls.opaque(bend.external_pub(epoch.secrets.external_key_pair()[1]))),
            Extension(COMMIT_HASH_EXTENSION, commit_hash(encoded)),
        )
        info = bend.info(GroupInfo(after.context, published, message.auth.confirmation_tag or b"", new.leaf_index))
        info = info.signed(after.suite, bend.info_private or private)
        record = bend.record(GroupRecord(log_records.COMMIT, self.public.epoch, encoded, bend.encoded_info(info.encode())))
        held = {} if self.group is None else self.group.keys
        return Written(self, message, after, epoch, new.leaf_index, private, {**held, **new.keys}, group_info=info, record=record.encode())

    # --- any message at all -------------------------------------------------------------------------------------------

    def signed_again(self, message: PublicMessage) -> PublicMessage:
        """The message as it says now, signed by who writes here; its tags stay."""
        signature = sign(self.public.suite, self.own.signature_private, message.content, *self._signed_as)
        return replace(message, auth=replace(message.auth, signature=signature))

    def info(self, message: PublicMessage) -> GroupInfo | None:
        """The GroupInfo that belongs to a message, not signed; None where the engine refuses the message."""
        try:
            staged = self.public.stage(message)
        except BrokerCryptoError:
            return None
        _, key = self.public.suite.derive_key_pair(self.random(self.public.suite.nh))
        named = commit_hash(MLSMessage(message).encode())
        published = (Extension(EXTERNAL_PUB, tls.opaque(key)), Extension(COMMIT_HASH_EXTENSION, named))
        return GroupInfo(staged.next.context, published, staged.confirmation_tag, staged.committer)

    def record(self, message: PublicMessage, info: GroupInfo | None) -> GroupRecord:
        """The record of a message, with `info` signed by who writes here."""
        encoded = b"" if info is None else info.signed(self.public.suite, self.own.signature_private).encode()
        return GroupRecord(log_records.COMMIT, self.public.epoch, MLSMessage(message).encode(), encoded)


def _applied(public: PublicGroup, items: Sequence[Item], sender: Sender) -> tuple[RatchetTree, Extensions, frozenset[int]]:
    """(tree, extensions, leaves added) that a list of proposals leads to, however wrong it is."""
    draft, added, extensions = TreeDraft(public.tree), [], public.context.extensions
    for item in items:
        if isinstance(item, Update):
            draft.update(sender.index, item.leaf_node)
        elif isinstance(item, Remove) and draft.tree.leaf(item.removed) is not None:
            draft.remove(item.removed)
        elif isinstance(item, Add):
            added.append(draft.add(item.key_package.leaf_node))
        elif isinstance(item, GroupContextExtensions):
            extensions = item.extensions
    return _finished(draft), extensions, frozenset(added)


def _finished(draft: TreeDraft) -> RatchetTree:
    """The tree; with a key in it twice, one that can be hashed and written all the same."""
    try:
        return draft.finish()
    except PeerError:
        return draft.tree
