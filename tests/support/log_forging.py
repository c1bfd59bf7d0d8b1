"""Records of the group log that are right in everything but what a test changes: signed with the real keys of real members.

A `Scribe` writes for one member (or one who joins) at one point of the log. What it writes without a change counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from broker_crypto.delivery import log_records
from broker_crypto.delivery.committer import Own
from broker_crypto.delivery.group_policy import COMMIT_HASH_EXTENSION
from broker_crypto.delivery.log_records import CommitData, GroupRecord, commit_hash
from broker_crypto.delivery.rules import Chain
from broker_crypto.errors import BrokerCryptoError
from broker_crypto.mls.framing import AuthData, FramedContent, MLSMessage, PublicMessage, Sender, SenderType, WireFormat, sign
from broker_crypto.mls.group import Group, OwnLeaf, StagedCommit
from broker_crypto.mls.group_info import GroupInfo
from broker_crypto.mls.leaf import EXTERNAL_PUB, Credential, Extension
from broker_crypto.mls.proposals import Commit, Proposal, ProposalRef
from broker_crypto.mls.update_path import UpdatePath
from broker_crypto.records import Random
from broker_crypto.wire import tls
from tests.support.forging import leaf_changed, path_in

InfoChange = Callable[[GroupInfo], GroupInfo]


def leaf_of(own: Own) -> dict[str, Any]:
    """What a leaf says of who it is."""
    return {"signature_key": own.signature_public, "credential": Credential.x509(own.chain)}


@dataclass
class Scribe:
    """Writes records behind `chain`: as the member `group`, or as `own` that joins where `group` is None."""

    chain: Chain
    own: Own
    time_ms: int
    random: Random
    group: Group | None = None

    def staged(self, *, data: bytes | None = None, remove: int | None = None) -> StagedCommit:
        """An honest commit, not written."""
        data = CommitData(self.time_ms).encode() if data is None else data
        if self.group is not None:
            return self.group.commit(authenticated_data=data, random=self.random)
        leaf = self.own.leaf(self.chain.public.suite.number)
        return Group.external_commit(
            self.chain.public, self.chain.external_pub, leaf, remove=remove, authenticated_data=data, random=self.random
        )

    def honest(self, **how: Any) -> bytes:
        """The record of an honest commit."""
        return self.with_info(MLSMessage.decode(self.staged(**how).message).body)

    # --- the message --------------------------------------------------------------------------------------------------

    def say(
        self,
        items: Sequence[Proposal | ProposalRef],
        path: UpdatePath | None,
        *,
        private: bytes | None = None,
        data: bytes | None = None,
        **changes: Any,
    ) -> PublicMessage:
        """A commit of these parts, signed with `private` (the own key); `changes` replace fields of FramedContent."""
        public = self.chain.public
        sender = Sender(SenderType.NEW_MEMBER_COMMIT) if self.group is None else Sender.member(self.group.leaf)
        data = CommitData(self.time_ms).encode() if data is None else data
        framed = replace(FramedContent(public.group_id, public.epoch, sender, data, Commit(tuple(items), path)), **changes)
        signature = sign(public.suite, private or self.own.signature_private, framed, WireFormat.PUBLIC_MESSAGE, public.context)
        tag = bytes(public.suite.nh) if self.group is not None else None
        return PublicMessage(framed, AuthData(signature, bytes(public.suite.nh)), tag)

    def path_with(self, own: Own | OwnLeaf | None = None, *, index: int | None = None, **leaf: Any) -> UpdatePath:
        """An honest path whose leaf says something else, signed again with the key of `own`."""
        path, own = path_in(self.staged()), own or self.own
        if isinstance(own, Own):
            leaf = {**leaf_of(own), **leaf}
        if index is None:
            index = self.chain.public.tree.free_leaf() if self.group is None else self.group.leaf
        return leaf_changed(path, self.chain.public, index, own.signature_private, **leaf)

    # --- the record ---------------------------------------------------------------------------------------------------

    def info(self, message: PublicMessage, *, private: bytes | None = None, change: InfoChange | None = None) -> GroupInfo:
        """The GroupInfo of the epoch that `message` leads to, changed before it is signed."""
        staged = self.chain.public.stage(message)
        named = commit_hash(MLSMessage(message).encode())
        _, public = staged.next.suite.derive_key_pair(self.random(staged.next.suite.nh))
        extensions = (Extension(EXTERNAL_PUB, tls.opaque(public)), Extension(COMMIT_HASH_EXTENSION, named))
        info = GroupInfo(staged.next.context, extensions, staged.confirmation_tag, staged.committer)
        info = change(info) if change else info
        return info.signed(staged.next.suite, private or self.own.signature_private)

    def with_info(self, message: object, *, private: bytes | None = None, change: InfoChange | None = None, **record: Any) -> bytes:
        """The record of a commit with its GroupInfo (empty where MLS itself refuses the message); `record` replaces fields."""
        assert isinstance(message, PublicMessage)
        try:
            info = self.info(message, private=private, change=change).encode()
        except BrokerCryptoError:
            info = b""
        whole = GroupRecord(log_records.COMMIT, self.chain.epoch, MLSMessage(message).encode(), info)
        return replace(whole, **record).encode()
