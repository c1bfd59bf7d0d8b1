"""Protecting messages: membership tags of PublicMessages, encryption of PrivateMessages (RFC 9420 sections 6.2 and 6.3).

Opening checks in this order and changes nothing: group and epoch, sender data, the sender's leaf, the generation, the
AEAD, the form of the content, its padding, the signature. Only then the next secret tree is handed out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from broker_crypto.crypto import AuthenticationFailed, Suite
from broker_crypto.errors import MalformedInput, UsageError
from broker_crypto.mls.framing import (
    AuthData,
    AuthenticatedContent,
    ContentType,
    FramedContent,
    PrivateMessage,
    PublicMessage,
    Sender,
    SenderType,
    WireFormat,
    encode_content,
    read_content,
)
from broker_crypto.mls.group_info import GroupContext
from broker_crypto.mls.key_schedule import EpochSecrets
from broker_crypto.mls.secret_tree import MessageKey, RatchetKind, SecretTree
from broker_crypto.mls.validation import Rule, refuse
from broker_crypto.records import Random
from broker_crypto.wire import tls

_GUARD = 4  # bytes of the reuse guard


def public_message(signed: AuthenticatedContent, secrets: EpochSecrets, context: GroupContext) -> PublicMessage:
    """`signed` (whose format is PUBLIC_MESSAGE) as a PublicMessage, with the membership tag where a member sends it."""
    if signed.wire_format is not WireFormat.PUBLIC_MESSAGE or signed.content.content_type is ContentType.APPLICATION:
        raise UsageError("only handshakes signed for a PublicMessage travel in one")
    message = PublicMessage(signed.content, signed.auth)
    if signed.content.sender.type is not SenderType.MEMBER:
        return message
    return PublicMessage(signed.content, signed.auth, secrets.membership_tag(message.tag_input(context)))


def membership_tag_holds(message: PublicMessage, secrets: EpochSecrets, context: GroupContext) -> bool:
    """Whether the tag of a member's message is right; True for the senders outside, who have none."""
    if message.membership_tag is None:
        return message.content.sender.type is not SenderType.MEMBER
    return secrets.membership_tag_holds(message.tag_input(context), message.membership_tag)


@dataclass(frozen=True, slots=True)
class SenderData:
    """Who sent a PrivateMessage and under which key. RFC 9420 section 6.3.2."""

    leaf_index: int  # uint32
    generation: int  # uint32
    reuse_guard: bytes  # 4 bytes

    def encode(self) -> bytes:
        """As on the wire."""
        return struct.pack(">II4s", self.leaf_index, self.generation, self.reuse_guard)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """SenderData that fills `data`."""
        if len(data) != 8 + _GUARD:
            raise MalformedInput("sender data of another length", expected=8 + _GUARD, got=len(data))
        return cls(*struct.unpack(">II4s", data))


def sender_data_key(suite: Suite, sender_data_secret: bytes, ciphertext: bytes) -> MessageKey:
    """Key and nonce of the sender data, from the first Nh bytes of the content's ciphertext."""
    sample = ciphertext[: suite.nh]
    key = suite.expand_with_label(sender_data_secret, "key", sample, suite.nk)
    return MessageKey(key, suite.expand_with_label(sender_data_secret, "nonce", sample, suite.nn))


def _head(message: PrivateMessage) -> bytes:
    return tls.opaque(message.group_id) + tls.u64(message.epoch) + tls.u8(message.content_type)


def _guarded(key: MessageKey, guard: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(key.nonce, guard, strict=False)) + key.nonce[_GUARD:]


def _ratchet(kind: ContentType) -> RatchetKind:
    return RatchetKind.APPLICATION if kind is ContentType.APPLICATION else RatchetKind.HANDSHAKE


def seal(
    signed: AuthenticatedContent, secrets: EpochSecrets, tree: SecretTree, *, padding: int = 0, random: Random
) -> tuple[PrivateMessage, SecretTree]:
    """Encrypt a member's `signed` content (whose format is PRIVATE_MESSAGE) under the next key of its leaf.

    `padding` 0 adds nothing, else the plaintext becomes a multiple of that many bytes. The tree returned must be stored
    before the message is sent: the same generation must not be used twice.
    """
    content, suite = signed.content, tree.suite
    if signed.wire_format is not WireFormat.PRIVATE_MESSAGE or content.sender.type is not SenderType.MEMBER:
        raise UsageError("only content that a member signed for a PrivateMessage travels in one")
    plain = encode_content(content.content) + signed.auth.encode()
    if padding:
        plain += bytes(-len(plain) % padding)
    generation, key, next_tree = tree.take_next(content.sender.index, _ratchet(content.content_type))
    guard = random(_GUARD)
    draft = PrivateMessage(content.group_id, content.epoch, content.content_type, content.authenticated_data, b"", b"")
    aad = _head(draft) + tls.opaque(content.authenticated_data)
    ciphertext = suite.seal(key.key, _guarded(key, guard), plain, aad)
    data_key = sender_data_key(suite, secrets.sender_data_secret, ciphertext)
    sender_data = SenderData(content.sender.index, generation, guard).encode()
    sealed = suite.seal(data_key.key, data_key.nonce, sender_data, _head(draft))
    parts = content.group_id, content.epoch, content.content_type, content.authenticated_data
    return PrivateMessage(*parts, sealed, ciphertext), next_tree


def _open_sender_data(message: PrivateMessage, secrets: EpochSecrets) -> SenderData:
    key = sender_data_key(secrets.suite, secrets.sender_data_secret, message.ciphertext)
    try:
        return SenderData.decode(secrets.suite.open(key.key, key.nonce, message.encrypted_sender_data, _head(message)))
    except AuthenticationFailed:
        refuse(Rule.SENDER_DATA, "the sender data of a message does not open")


def _open_content(message: PrivateMessage, key: MessageKey, sender: SenderData, suite: Suite) -> AuthenticatedContent:
    aad = _head(message) + tls.opaque(message.authenticated_data)
    try:
        plain = suite.open(key.key, _guarded(key, sender.reuse_guard), message.ciphertext, aad)
    except AuthenticationFailed:
        refuse(Rule.CIPHERTEXT, "a message does not open", leaf=sender.leaf_index, generation=sender.generation)
    reader = tls.Reader(plain)
    content = read_content(reader, message.content_type)
    auth = AuthData.read(reader, message.content_type)
    if any(reader.take(reader.left)):
        refuse(Rule.PADDING, "the padding of a message is not all zeros", leaf=sender.leaf_index)
    framed = FramedContent(message.group_id, message.epoch, Sender.member(sender.leaf_index), message.authenticated_data, content)
    return AuthenticatedContent(WireFormat.PRIVATE_MESSAGE, framed, auth)


def open_private(
    message: PrivateMessage, secrets: EpochSecrets, tree: SecretTree, context: GroupContext, key_of: Callable[[int], bytes | None]
) -> tuple[AuthenticatedContent, SecretTree]:
    """The content of `message`, with the signature of its sender checked, and the secret tree without the key used.

    `key_of` gives the signature key of a leaf, None for a blank one or one outside the tree. Raises PeerError with the
    rule group_id, epoch, sender_data, sender_leaf, generation, ciphertext, padding or message_signature; MalformedInput.
    """
    if message.group_id != context.group_id:
        refuse(Rule.GROUP_ID, "a message of another group")
    if message.epoch != context.epoch:
        refuse(Rule.EPOCH, "a message of another epoch", epoch=message.epoch, current=context.epoch)
    sender = _open_sender_data(message, secrets)
    public = key_of(sender.leaf_index)
    if public is None:
        refuse(Rule.SENDER_LEAF, "a message of a blank leaf", leaf=sender.leaf_index)
    key, next_tree = tree.take(sender.leaf_index, _ratchet(message.content_type), sender.generation)
    opened = _open_content(message, key, sender, tree.suite)
    if not opened.signature_holds(tree.suite, public, context):
        refuse(Rule.MESSAGE_SIGNATURE, "the signature of a message is not its sender's", leaf=sender.leaf_index)
    return opened, next_tree
