"""What a client says of itself: credential, capabilities, extensions, leaf node and key package, as on the wire.

These structures only parse and encode; what makes one acceptable is in `validation`. Source: RFC 9420 sections 5.3, 7.2, 10.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Self

from broker_crypto.crypto.suites import Suite
from broker_crypto.errors import MalformedInput, UsageError
from broker_crypto.wire import tls

MLS10 = 1  # ProtocolVersion
BASIC, X509 = 1, 2  # CredentialType
KEY_PACKAGE, UPDATE, COMMIT = 1, 2, 3  # LeafNodeSource

# ExtensionType (RFC 9420 section 17.3)
APPLICATION_ID, RATCHET_TREE, REQUIRED_CAPABILITIES, EXTERNAL_PUB, EXTERNAL_SENDERS = 1, 2, 3, 4, 5
DEFAULT_EXTENSIONS = frozenset((APPLICATION_ID, RATCHET_TREE, REQUIRED_CAPABILITIES, EXTERNAL_PUB, EXTERNAL_SENDERS))
DEFAULT_PROPOSALS = frozenset(range(1, 8))  # add ... group_context_extensions (RFC 9420 section 17.4)

_CACHED_CAPABILITIES = 512  # bytes of the largest Capabilities that is kept decoded: bounds the cache at 1,024 entries


@dataclass(frozen=True, slots=True)
class Extension:
    """Extension: type (uint16) and data."""

    type: int
    data: bytes

    def encode(self) -> bytes:
        """As on the wire."""
        return self.type.to_bytes(2, "big") + tls.opaque(self.data)

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next Extension."""
        return cls(reader.u16(), reader.opaque())


Extensions = tuple[Extension, ...]


def read_extensions(reader: tls.Reader) -> Extensions:
    """Extension extensions<V>. Raises MalformedInput where a type stands twice (section 13.4)."""
    extensions = tuple(reader.vector(Extension.read))
    if not are_distinct(extensions):
        raise MalformedInput("an extension type stands twice in one list")
    return extensions


def are_distinct(extensions: Extensions) -> bool:
    """Whether no type stands twice."""
    return len({extension.type for extension in extensions}) == len(extensions)


def encode_extensions(extensions: Iterable[Extension]) -> bytes:
    """Extension extensions<V>."""
    return tls.vector(extension.encode() for extension in extensions)


def find_extension(extensions: Iterable[Extension], kind: int) -> bytes | None:
    """Data of the extension of type `kind`, None where there is none."""
    for extension in extensions:
        if extension.type == kind:
            return extension.data
    return None


@dataclass(frozen=True, slots=True)
class Credential:
    """Credential: `identity` of a basic one, `certificates` (DER, leaf first) of an X.509 one."""

    type: int
    identity: bytes = b""
    certificates: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.type not in (BASIC, X509):
            raise UsageError("a credential of unknown type", type=self.type)

    @classmethod
    def basic(cls, identity: bytes) -> Self:
        """A basic credential."""
        return cls(BASIC, identity=identity)

    @classmethod
    def x509(cls, certificates: Iterable[bytes]) -> Self:
        """An X.509 credential."""
        return cls(X509, certificates=tuple(certificates))

    def encode(self) -> bytes:
        """As on the wire."""
        if self.type == BASIC:
            return b"\x00\x01" + tls.opaque(self.identity)
        return b"\x00\x02" + tls.vector(tls.opaque(certificate) for certificate in self.certificates)

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next Credential. Raises MalformedInput for a type whose form is not known."""
        kind = reader.u16()
        if kind == BASIC:
            return cls(BASIC, identity=reader.opaque())
        if kind == X509:
            return cls(X509, certificates=tuple(reader.vector(tls.Reader.opaque)))
        raise MalformedInput("a credential of unknown type", type=kind)


def _u16_list(items: Iterable[int]) -> bytes:
    return tls.vector(item.to_bytes(2, "big") for item in items)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Capabilities: what a client supports beyond the defaults, each a list of uint16."""

    versions: tuple[int, ...] = (MLS10,)
    cipher_suites: tuple[int, ...] = ()
    extensions: tuple[int, ...] = ()
    proposals: tuple[int, ...] = ()
    credentials: tuple[int, ...] = (BASIC, X509)

    def encode(self) -> bytes:
        """As on the wire."""
        return b"".join(map(_u16_list, (self.versions, self.cipher_suites, self.extensions, self.proposals, self.credentials)))

    @classmethod
    def read(cls, reader: tls.Reader) -> Capabilities:
        """The next Capabilities."""
        start = reader.offset
        for _ in range(5):
            reader.opaque()
        data = reader.since(start)
        return _known_capabilities(data) if len(data) <= _CACHED_CAPABILITIES else _read_capabilities(data)


def _read_capabilities(data: bytes) -> Capabilities:
    reader = tls.Reader(data)
    return Capabilities(*(tuple(reader.vector(tls.Reader.u16)) for _ in range(5)))


# Members of a group mostly say the same; a tree of a thousand leaves then decodes one.
_known_capabilities = lru_cache(maxsize=1024)(_read_capabilities)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Lifetime: seconds since 1970 between which a key package may be used, both inclusive."""

    not_before: int
    not_after: int

    def encode(self) -> bytes:
        """As on the wire."""
        return tls.u64(self.not_before) + tls.u64(self.not_after)

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next Lifetime."""
        return cls(reader.u64(), reader.u64())


@dataclass(frozen=True, slots=True)
class LeafNode:
    """LeafNode. `lifetime` is there for source KEY_PACKAGE only, `parent_hash` for COMMIT only."""

    encryption_key: bytes
    signature_key: bytes
    credential: Credential
    capabilities: Capabilities
    source: int
    lifetime: Lifetime | None = None
    parent_hash: bytes = b""
    extensions: Extensions = ()
    signature: bytes = b""
    _encoded: bytes | None = field(default=None, init=False, repr=False, compare=False)

    def encode(self) -> bytes:
        """As on the wire; made once."""
        encoded = self._encoded
        if encoded is None:
            encoded = self._content() + tls.opaque(self.signature)
            object.__setattr__(self, "_encoded", encoded)
        return encoded

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next LeafNode."""
        start = reader.offset
        encryption_key, signature_key = reader.opaque(), reader.opaque()
        credential, capabilities, source = Credential.read(reader), Capabilities.read(reader), reader.u8()
        if not KEY_PACKAGE <= source <= COMMIT:
            raise MalformedInput("a leaf node of unknown source", source=source)
        lifetime = Lifetime.read(reader) if source == KEY_PACKAGE else None
        parent_hash = reader.opaque() if source == COMMIT else b""
        extensions, signature = read_extensions(reader), reader.opaque()
        leaf = cls(encryption_key, signature_key, credential, capabilities, source, lifetime, parent_hash, extensions, signature)
        object.__setattr__(leaf, "_encoded", reader.since(start))
        return leaf

    def _content(self) -> bytes:
        head = tls.opaque(self.encryption_key) + tls.opaque(self.signature_key) + self.credential.encode() + self.capabilities.encode()
        detail = b""
        if self.source == KEY_PACKAGE:
            detail = (self.lifetime or Lifetime(0, 0)).encode()
        elif self.source == COMMIT:
            detail = tls.opaque(self.parent_hash)
        return head + tls.u8(self.source) + detail + encode_extensions(self.extensions)

    def to_be_signed(self, group_id: bytes, leaf_index: int) -> bytes:
        """LeafNodeTBS. Group and index count for the sources UPDATE and COMMIT only."""
        encoded = self._encoded
        if encoded is None:
            content = self._content()
        else:
            n = len(self.signature)
            content = encoded[: len(encoded) - n - len(tls.length_prefix(n))]
        if self.source == KEY_PACKAGE:
            return content
        return content + tls.opaque(group_id) + tls.u32(leaf_index)

    def signed(self, suite: Suite, private: bytes, group_id: bytes = b"", leaf_index: int = 0) -> LeafNode:
        """The same leaf, signed with `private`."""
        return replace(self, signature=suite.sign_with_label(private, "LeafNodeTBS", self.to_be_signed(group_id, leaf_index)))

    def signature_holds(self, suite: Suite, group_id: bytes = b"", leaf_index: int = 0) -> bool:
        """Whether the leaf is signed by its own signature key."""
        return suite.verify_with_label(self.signature_key, "LeafNodeTBS", self.to_be_signed(group_id, leaf_index), self.signature)


@dataclass(frozen=True, slots=True)
class KeyPackage:
    """KeyPackage: a leaf to be added and the key that its Welcome is sealed to."""

    version: int
    cipher_suite: int
    init_key: bytes
    leaf_node: LeafNode
    extensions: Extensions = ()
    signature: bytes = b""

    def to_be_signed(self) -> bytes:
        """KeyPackageTBS."""
        head = tls.u16(self.version) + tls.u16(self.cipher_suite) + tls.opaque(self.init_key)
        return head + self.leaf_node.encode() + encode_extensions(self.extensions)

    def encode(self) -> bytes:
        """As on the wire."""
        return self.to_be_signed() + tls.opaque(self.signature)

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next KeyPackage."""
        head = reader.u16(), reader.u16(), reader.opaque(), LeafNode.read(reader)
        return cls(*head, read_extensions(reader), reader.opaque())

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """A KeyPackage that fills `data`."""
        return tls.decode(data, cls.read)

    def signed(self, suite: Suite, private: bytes) -> KeyPackage:
        """The same key package, signed with `private`, the key of its leaf."""
        return replace(self, signature=suite.sign_with_label(private, "KeyPackageTBS", self.to_be_signed()))

    def signature_holds(self, suite: Suite) -> bool:
        """Whether the key package is signed by its leaf's signature key."""
        return suite.verify_with_label(self.leaf_node.signature_key, "KeyPackageTBS", self.to_be_signed(), self.signature)

    def ref(self, suite: Suite) -> bytes:
        """KeyPackageRef, Nh bytes (RFC 9420 section 5.2)."""
        return suite.ref_hash("MLS 1.0 KeyPackage Reference", self.encode())


@dataclass(frozen=True, slots=True)
class RequiredCapabilities:
    """RequiredCapabilities: what every member must support, beyond the defaults (section 11.1)."""

    extensions: tuple[int, ...] = ()
    proposals: tuple[int, ...] = ()
    credentials: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """As extension data."""
        return b"".join(map(_u16_list, (self.extensions, self.proposals, self.credentials)))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """RequiredCapabilities that fill `data`."""
        reader = tls.Reader(data)
        required = cls(*(tuple(reader.vector(tls.Reader.u16)) for _ in range(3)))
        reader.end()
        return required


@dataclass(frozen=True, slots=True)
class ExternalSender:
    """ExternalSender: somebody outside who may send proposals (section 12.1.8.1)."""

    signature_key: bytes
    credential: Credential

    def encode(self) -> bytes:
        """As on the wire."""
        return tls.opaque(self.signature_key) + self.credential.encode()

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next ExternalSender."""
        return cls(reader.opaque(), Credential.read(reader))


def read_external_senders(data: bytes) -> tuple[ExternalSender, ...]:
    """The list in the data of an external_senders extension."""
    return tuple(tls.decode(data, lambda reader: reader.vector(ExternalSender.read)))


def read_external_pub(data: bytes) -> bytes:
    """The HPKE public key in the data of an external_pub extension (section 12.4.3.2)."""
    return tls.decode(data, tls.Reader.opaque)
