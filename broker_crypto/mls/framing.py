"""Framed messages: what is said, who says it, and the signature over it (RFC 9420 section 6)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Self, TypeAlias

from broker_crypto.crypto.suites import Suite
from broker_crypto.errors import MalformedInput, UsageError
from broker_crypto.mls.group_info import GroupContext, GroupInfo
from broker_crypto.mls.leaf import MLS10, KeyPackage
from broker_crypto.mls.proposals import Commit, Proposal, encode_proposal, read_proposal
from broker_crypto.mls.welcome import Welcome
from broker_crypto.wire import tls


class WireFormat(IntEnum):
    """RFC 9420 section 17.2."""

    PUBLIC_MESSAGE = 1
    PRIVATE_MESSAGE = 2
    WELCOME = 3
    GROUP_INFO = 4
    KEY_PACKAGE = 5


class ContentType(IntEnum):
    """RFC 9420 section 6."""

    APPLICATION = 1
    PROPOSAL = 2
    COMMIT = 3


class SenderType(IntEnum):
    """RFC 9420 section 6."""

    MEMBER = 1
    EXTERNAL = 2
    NEW_MEMBER_PROPOSAL = 3
    NEW_MEMBER_COMMIT = 4


_INDEXED = frozenset((SenderType.MEMBER, SenderType.EXTERNAL))
_SENDER_TYPES = {int(kind): kind for kind in SenderType}
_CONTENT_TYPES = {int(kind): kind for kind in ContentType}
_WIRE_FORMATS = {int(kind): kind for kind in WireFormat}


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends. `index` is the leaf index of a member, the place in external_senders of an external one, else 0."""

    type: SenderType
    index: int = 0

    @classmethod
    def member(cls, leaf: int) -> Self:
        """The member at leaf index `leaf`."""
        return cls(SenderType.MEMBER, leaf)

    def encode(self) -> bytes:
        """As on the wire."""
        return tls.u8(self.type) + (tls.u32(self.index) if self.type in _INDEXED else b"")

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next Sender."""
        kind = reader.u8()
        if kind not in _SENDER_TYPES:
            raise MalformedInput("an unknown type of sender", type=kind)
        return cls(_SENDER_TYPES[kind], reader.u32() if kind in _INDEXED else 0)


Content: TypeAlias = bytes | Proposal | Commit


def content_type_of(content: Content) -> ContentType:
    """ContentType of application data (bytes), a proposal or a commit."""
    if isinstance(content, bytes):
        return ContentType.APPLICATION
    return ContentType.COMMIT if isinstance(content, Commit) else ContentType.PROPOSAL


def encode_content(content: Content) -> bytes:
    """The content without its type."""
    if isinstance(content, bytes):
        return tls.opaque(content)
    return content.encode() if isinstance(content, Commit) else encode_proposal(content)


def read_content_type(reader: tls.Reader) -> ContentType:
    """The next ContentType."""
    kind = reader.u8()
    if kind not in _CONTENT_TYPES:
        raise MalformedInput("an unknown type of content", type=kind)
    return _CONTENT_TYPES[kind]


def read_content(reader: tls.Reader, kind: ContentType) -> Content:
    """The next content of type `kind`."""
    if kind is ContentType.APPLICATION:
        return reader.opaque()
    return Commit.read(reader) if kind is ContentType.COMMIT else read_proposal(reader)


@dataclass(frozen=True, slots=True)
class FramedContent:
    """struct FramedContent. `content` is application data (bytes), a Proposal or a Commit."""

    group_id: bytes
    epoch: int
    sender: Sender
    authenticated_data: bytes
    content: Content

    @property
    def content_type(self) -> ContentType:
        """What `content` is."""
        return content_type_of(self.content)

    def encode(self) -> bytes:
        """As on the wire."""
        head = tls.opaque(self.group_id) + tls.u64(self.epoch) + self.sender.encode() + tls.opaque(self.authenticated_data)
        return head + tls.u8(self.content_type) + encode_content(self.content)

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next FramedContent."""
        head = reader.opaque(), reader.u64(), Sender.read(reader), reader.opaque()
        return cls(*head, read_content(reader, read_content_type(reader)))

    def to_be_signed(self, wire_format: WireFormat, context: GroupContext) -> bytes:
        """FramedContentTBS. `context` counts for members and for new_member_commit only."""
        head = tls.u16(MLS10) + tls.u16(wire_format) + self.encode()
        inside = self.sender.type in (SenderType.MEMBER, SenderType.NEW_MEMBER_COMMIT)
        return head + context.encode() if inside else head


@dataclass(frozen=True, slots=True)
class AuthData:
    """struct FramedContentAuthData. `confirmation_tag` is there for a commit only."""

    signature: bytes
    confirmation_tag: bytes | None = None

    def encode(self) -> bytes:
        """As on the wire."""
        tag = b"" if self.confirmation_tag is None else tls.opaque(self.confirmation_tag)
        return tls.opaque(self.signature) + tag

    @classmethod
    def read(cls, reader: tls.Reader, kind: ContentType) -> Self:
        """The next FramedContentAuthData, for content of type `kind`."""
        return cls(reader.opaque(), reader.opaque() if kind is ContentType.COMMIT else None)


@dataclass(frozen=True, slots=True)
class AuthenticatedContent:
    """struct AuthenticatedContent: the content with its signature, and the format that it travels in."""

    wire_format: WireFormat
    content: FramedContent
    auth: AuthData

    def encode(self) -> bytes:
        """As hashed for references and transcripts."""
        return tls.u16(self.wire_format) + self.content.encode() + self.auth.encode()

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next AuthenticatedContent."""
        wire_format = _read_wire_format(reader)
        content = FramedContent.read(reader)
        return cls(wire_format, content, AuthData.read(reader, content.content_type))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """An AuthenticatedContent that fills `data`."""
        return tls.decode(data, cls.read)

    def signature_holds(self, suite: Suite, public: bytes, context: GroupContext) -> bool:
        """Whether `public` made the signature in the epoch of `context`."""
        signed = self.content.to_be_signed(self.wire_format, context)
        return suite.verify_with_label(public, "FramedContentTBS", signed, self.auth.signature)

    def ref(self, suite: Suite) -> bytes:
        """ProposalRef of a message that carries a proposal, Nh bytes. RFC 9420 section 5.2."""
        return suite.ref_hash("MLS 1.0 Proposal Reference", self.encode())


def sign(suite: Suite, private: bytes, content: FramedContent, wire_format: WireFormat, context: GroupContext) -> bytes:
    """The signature over `content` as it will travel. UsageError for application data in a PublicMessage (section 6)."""
    if wire_format is WireFormat.PUBLIC_MESSAGE and content.content_type is ContentType.APPLICATION:
        raise UsageError("application data must not travel in a PublicMessage")
    return suite.sign_with_label(private, "FramedContentTBS", content.to_be_signed(wire_format, context))


@dataclass(frozen=True, slots=True)
class PublicMessage:
    """struct PublicMessage: signed, not encrypted. `membership_tag` is there for a member only."""

    content: FramedContent
    auth: AuthData
    membership_tag: bytes | None = None

    def encode(self) -> bytes:
        """As on the wire."""
        tag = b"" if self.membership_tag is None else tls.opaque(self.membership_tag)
        return self.content.encode() + self.auth.encode() + tag

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next PublicMessage."""
        content = FramedContent.read(reader)
        auth = AuthData.read(reader, content.content_type)
        return cls(content, auth, reader.opaque() if content.sender.type is SenderType.MEMBER else None)

    @property
    def authenticated(self) -> AuthenticatedContent:
        """What is authenticated: the content, its signature and the format."""
        return AuthenticatedContent(WireFormat.PUBLIC_MESSAGE, self.content, self.auth)

    def tag_input(self, context: GroupContext) -> bytes:
        """AuthenticatedContentTBM: what membership_tag covers. RFC 9420 section 6.2."""
        return self.content.to_be_signed(WireFormat.PUBLIC_MESSAGE, context) + self.auth.encode()


@dataclass(frozen=True, slots=True)
class PrivateMessage:
    """struct PrivateMessage: content and sender encrypted for the members of `epoch`. RFC 9420 section 6.3."""

    group_id: bytes
    epoch: int
    content_type: ContentType
    authenticated_data: bytes
    encrypted_sender_data: bytes
    ciphertext: bytes

    def encode(self) -> bytes:
        """As on the wire."""
        head = tls.opaque(self.group_id) + tls.u64(self.epoch) + tls.u8(self.content_type) + tls.opaque(self.authenticated_data)
        return head + tls.opaque(self.encrypted_sender_data) + tls.opaque(self.ciphertext)

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next PrivateMessage."""
        head = reader.opaque(), reader.u64(), read_content_type(reader)
        return cls(*head, reader.opaque(), reader.opaque(), reader.opaque())


Body: TypeAlias = PublicMessage | PrivateMessage | Welcome | GroupInfo | KeyPackage

_FORMATS: dict[type[Body], WireFormat] = {
    PublicMessage: WireFormat.PUBLIC_MESSAGE,
    PrivateMessage: WireFormat.PRIVATE_MESSAGE,
    Welcome: WireFormat.WELCOME,
    GroupInfo: WireFormat.GROUP_INFO,
    KeyPackage: WireFormat.KEY_PACKAGE,
}


def _read_wire_format(reader: tls.Reader) -> WireFormat:
    kind = reader.u16()
    if kind not in _WIRE_FORMATS:
        raise MalformedInput("an unknown wire format", wire_format=kind)
    return _WIRE_FORMATS[kind]


def _read_body(reader: tls.Reader, wire_format: WireFormat) -> Body:
    if wire_format is WireFormat.PUBLIC_MESSAGE:
        return PublicMessage.read(reader)
    if wire_format is WireFormat.PRIVATE_MESSAGE:
        return PrivateMessage.read(reader)
    if wire_format is WireFormat.WELCOME:
        return Welcome.read(reader)
    return GroupInfo.read(reader) if wire_format is WireFormat.GROUP_INFO else KeyPackage.read(reader)


@dataclass(frozen=True, slots=True)
class MLSMessage:
    """struct MLSMessage: one message of any kind with its version and format before it. RFC 9420 section 6."""

    body: Body

    @property
    def wire_format(self) -> WireFormat:
        """The format that the kind of `body` calls for."""
        return _FORMATS[type(self.body)]

    def encode(self) -> bytes:
        """As on the wire."""
        return tls.u16(MLS10) + tls.u16(self.wire_format) + self.body.encode()

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next MLSMessage. MalformedInput for another version than mls10 or an unknown format."""
        version = reader.u16()
        if version != MLS10:
            raise MalformedInput("a message of another protocol version", version=version)
        return cls(_read_body(reader, _read_wire_format(reader)))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """An MLSMessage that fills `data`."""
        return tls.decode(data, cls.read)
