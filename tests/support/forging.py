"""Commits that an honest client would not make, properly signed and tagged: what an insider or a newcomer can send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from broker_crypto.mls import protection
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
from broker_crypto.mls.group import Group, StagedCommit
from broker_crypto.mls.leaf import KeyPackage
from broker_crypto.mls.own_leaf import OwnLeaf
from broker_crypto.mls.proposals import Commit, Proposal, ProposalRef
from broker_crypto.mls.public import PublicGroup
from broker_crypto.mls.treekem import UpdatePath
from broker_crypto.records import Random
from tests.support.members import commit_of

EVERYWHERE = 2**63


def commit_in(staged: StagedCommit) -> Commit:
    """The Commit of a staged commit."""
    content = commit_of(staged).content.content
    assert isinstance(content, Commit)
    return content


def path_in(staged: StagedCommit) -> UpdatePath:
    """The path of a staged commit."""
    path = commit_in(staged).path
    assert path is not None
    return path


def say(group: Group, content: Proposal | Commit, *, private: bytes | None = None, **changes: Any) -> PublicMessage:
    """`content` as the member says it, with a right signature and membership tag. `changes` replace fields of FramedContent."""
    framed = FramedContent(group.public.group_id, group.epoch, Sender.member(group.leaf), b"", content)
    framed = replace(framed, **changes)
    signature = sign(group.suite, private or group.signature_private, framed, WireFormat.PUBLIC_MESSAGE, group.public.context)
    tag = bytes(group.suite.nh) if isinstance(content, Commit) else None
    signed = AuthenticatedContent(WireFormat.PUBLIC_MESSAGE, framed, AuthData(signature, tag))
    return protection.public_message(signed, group.secrets, group.public.context)


def say_outside(public: PublicGroup, private: bytes, content: Proposal | Commit, sender: Sender) -> PublicMessage:
    """`content` as somebody outside says it, signed with `private`."""
    framed = FramedContent(public.group_id, public.epoch, sender, b"", content)
    signature = sign(public.suite, private, framed, WireFormat.PUBLIC_MESSAGE, public.context)
    return PublicMessage(framed, AuthData(signature, bytes(public.suite.nh) if isinstance(content, Commit) else None))


def join_with(public: PublicGroup, own: OwnLeaf, items: Sequence[Proposal | ProposalRef], path: UpdatePath | None) -> PublicMessage:
    """An external commit of these parts."""
    return say_outside(public, own.signature_private, Commit(tuple(items), path), Sender(SenderType.NEW_MEMBER_COMMIT))


def leaf_changed(path: UpdatePath, public: PublicGroup, index: int, private: bytes, **changes: Any) -> UpdatePath:
    """The path with fields of its leaf changed and the leaf signed again."""
    leaf = replace(path.leaf_node, signature=b"", **changes)
    return replace(path, leaf_node=leaf.signed(public.suite, private, public.group_id, index))


def key_package(public: PublicGroup, own: OwnLeaf, random: Random, *, leaf: dict[str, Any] | None = None, **changes: Any) -> KeyPackage:
    """A key package of `own`; fields of its leaf and of itself changed before each is signed."""
    suite = public.suite
    _, node = own.fresh(suite, random)
    node = replace(node, signature=b"", **(leaf or {})).signed(suite, own.signature_private)
    _, init_key = suite.derive_key_pair(random(suite.nh))
    return replace(KeyPackage(1, suite.number, init_key, node), **changes).signed(suite, own.signature_private)


def decode_public(message: bytes) -> PublicMessage:
    """The PublicMessage in an MLSMessage."""
    body = MLSMessage.decode(message).body
    assert isinstance(body, PublicMessage)
    return body
