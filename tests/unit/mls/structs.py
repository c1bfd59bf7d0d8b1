"""Hypothesis strategies for every structure that travels, of any valid content; nothing in them is signed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from broker_crypto.mls import framing, proposals, psk
from broker_crypto.mls.group_info import GroupContext, GroupInfo
from broker_crypto.mls.leaf import COMMIT, KEY_PACKAGE, UPDATE, Capabilities, Credential, Extension, KeyPackage, LeafNode, Lifetime
from broker_crypto.mls.update_path import HPKECiphertext, UpdatePath, UpdatePathNode
from broker_crypto.mls.welcome import EncryptedGroupSecrets, GroupSecrets, Welcome
from broker_crypto.wire import tls

octets = st.binary(max_size=80)
u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))


def tuples(items: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, max_size=most).map(tuple)


extensions = st.lists(st.builds(Extension, u16, octets), max_size=3, unique_by=lambda extension: extension.type).map(tuple)
credentials = st.one_of(st.builds(Credential.basic, octets), st.builds(Credential.x509, tuples(octets)))
capabilities = st.builds(Capabilities, *(tuples(u16) for _ in range(5)))
_leaf = (octets, octets, credentials, capabilities)
leaf_nodes = st.one_of(
    st.builds(LeafNode, *_leaf, st.just(KEY_PACKAGE), st.builds(Lifetime, u64, u64), extensions=extensions, signature=octets),
    st.builds(LeafNode, *_leaf, st.just(UPDATE), extensions=extensions, signature=octets),
    st.builds(LeafNode, *_leaf, st.just(COMMIT), parent_hash=octets, extensions=extensions, signature=octets),
)
key_packages = st.builds(KeyPackage, u16, u16, octets, leaf_nodes, extensions, octets)
psk_ids = st.one_of(
    st.builds(psk.ExternalPsk, octets, octets),
    st.builds(psk.ResumptionPsk, st.sampled_from(psk.Usage), octets, u64, octets),
)
proposal = st.one_of(
    st.builds(proposals.Add, key_packages),
    st.builds(proposals.Update, leaf_nodes),
    st.builds(proposals.Remove, u32),
    st.builds(proposals.PreSharedKey, psk_ids),
    st.builds(proposals.ReInit, octets, u16, u16, extensions),
    st.builds(proposals.ExternalInit, octets),
    st.builds(proposals.GroupContextExtensions, extensions),
)
sealed = st.builds(HPKECiphertext, octets, octets)
update_paths = st.builds(UpdatePath, leaf_nodes, tuples(st.builds(UpdatePathNode, octets, tuples(sealed))))
commits = st.builds(
    proposals.Commit, tuples(st.one_of(proposal, st.builds(proposals.ProposalRef, octets))), st.one_of(st.none(), update_paths)
)
senders = st.one_of(
    st.builds(framing.Sender, st.sampled_from([framing.SenderType.MEMBER, framing.SenderType.EXTERNAL]), u32),
    st.sampled_from([framing.Sender(framing.SenderType.NEW_MEMBER_PROPOSAL), framing.Sender(framing.SenderType.NEW_MEMBER_COMMIT)]),
)
framed = st.builds(framing.FramedContent, octets, u64, senders, octets, st.one_of(octets, proposal, commits))


@st.composite
def authenticated(draw: st.DrawFn) -> framing.AuthenticatedContent:
    content = draw(framed)
    tag = draw(octets) if content.content_type is framing.ContentType.COMMIT else None
    return framing.AuthenticatedContent(draw(st.sampled_from(framing.WireFormat)), content, framing.AuthData(draw(octets), tag))


@st.composite
def public_messages(draw: st.DrawFn) -> framing.PublicMessage:
    signed = draw(authenticated())
    tag = draw(octets) if signed.content.sender.type is framing.SenderType.MEMBER else None
    return framing.PublicMessage(signed.content, signed.auth, tag)


private_messages = st.builds(framing.PrivateMessage, octets, u64, st.sampled_from(framing.ContentType), octets, octets, octets)
group_contexts = st.builds(GroupContext, u16, u16, octets, u64, octets, octets, extensions)
group_infos = st.builds(GroupInfo, group_contexts, extensions, octets, u32, octets)
group_secrets = st.builds(GroupSecrets, octets, st.one_of(st.none(), octets), tuples(psk_ids))
welcomes = st.builds(Welcome, u16, tuples(st.builds(EncryptedGroupSecrets, octets, sealed)), octets)
messages = st.builds(framing.MLSMessage, st.one_of(public_messages(), private_messages, welcomes, group_infos, key_packages))

STRUCTS: dict[str, tuple[st.SearchStrategy[Any], Callable[[tls.Reader], Any]]] = {
    "LeafNode": (leaf_nodes, LeafNode.read),
    "KeyPackage": (key_packages, KeyPackage.read),
    "Commit": (commits, proposals.Commit.read),
    "UpdatePath": (update_paths, UpdatePath.read),
    "FramedContent": (framed, framing.FramedContent.read),
    "AuthenticatedContent": (authenticated(), framing.AuthenticatedContent.read),
    "PublicMessage": (public_messages(), framing.PublicMessage.read),
    "PrivateMessage": (private_messages, framing.PrivateMessage.read),
    "GroupContext": (group_contexts, GroupContext.read),
    "GroupInfo": (group_infos, GroupInfo.read),
    "GroupSecrets": (group_secrets, GroupSecrets.read),
    "Welcome": (welcomes, Welcome.read),
    "MLSMessage": (messages, framing.MLSMessage.read),
}
