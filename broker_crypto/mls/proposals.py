"""Proposals and commits as they lie on the wire (RFC 9420 sections 12.1 and 12.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Self, TypeAlias

from broker_crypto.errors import MalformedInput
from broker_crypto.mls import psk
from broker_crypto.mls.leaf import Extensions, KeyPackage, LeafNode, encode_extensions, read_extensions
from broker_crypto.mls.update_path import UpdatePath
from broker_crypto.wire import tls

BY_VALUE, BY_REFERENCE = 1, 2  # ProposalOrRefType


@dataclass(frozen=True, slots=True)
class Add:
    """A new member by its key package. RFC 9420 section 12.1.1."""

    kind: ClassVar[int] = 1
    key_package: KeyPackage

    def encode(self) -> bytes:
        return self.key_package.encode()

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        return cls(KeyPackage.read(reader))


@dataclass(frozen=True, slots=True)
class Update:
    """A new leaf node for the sender. RFC 9420 section 12.1.2."""

    kind: ClassVar[int] = 2
    leaf_node: LeafNode

    def encode(self) -> bytes:
        return self.leaf_node.encode()

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        return cls(LeafNode.read(reader))


@dataclass(frozen=True, slots=True)
class Remove:
    """The member at leaf index `removed` goes. RFC 9420 section 12.1.3."""

    kind: ClassVar[int] = 3
    removed: int

    def encode(self) -> bytes:
        return tls.u32(self.removed)

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        return cls(reader.u32())


@dataclass(frozen=True, slots=True)
class PreSharedKey:
    """A pre-shared key enters the key schedule. RFC 9420 section 12.1.4."""

    kind: ClassVar[int] = 4
    psk_id: psk.PreSharedKeyId

    def encode(self) -> bytes:
        return self.psk_id.encode()

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        return cls(psk.read_id(reader))


@dataclass(frozen=True, slots=True)
class ReInit:
    """The group ends and another one with these parameters follows. RFC 9420 section 12.1.5."""

    kind: ClassVar[int] = 5
    group_id: bytes
    version: int
    cipher_suite: int
    extensions: Extensions

    def encode(self) -> bytes:
        head = tls.opaque(self.group_id) + tls.u16(self.version) + tls.u16(self.cipher_suite)
        return head + encode_extensions(self.extensions)

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        return cls(reader.opaque(), reader.u16(), reader.u16(), read_extensions(reader))


@dataclass(frozen=True, slots=True)
class ExternalInit:
    """The init secret of an external commit, encapsulated to external_pub. RFC 9420 section 12.1.6."""

    kind: ClassVar[int] = 6
    kem_output: bytes

    def encode(self) -> bytes:
        return tls.opaque(self.kem_output)

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        return cls(reader.opaque())


@dataclass(frozen=True, slots=True)
class GroupContextExtensions:
    """The extensions of the GroupContext from the next epoch on, as a whole. RFC 9420 section 12.1.7."""

    kind: ClassVar[int] = 7
    extensions: Extensions

    def encode(self) -> bytes:
        return encode_extensions(self.extensions)

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        return cls(read_extensions(reader))


Proposal: TypeAlias = Add | Update | Remove | PreSharedKey | ReInit | ExternalInit | GroupContextExtensions

_READERS: Final[Mapping[int, Callable[[tls.Reader], Proposal]]] = {
    Add.kind: Add.read,
    Update.kind: Update.read,
    Remove.kind: Remove.read,
    PreSharedKey.kind: PreSharedKey.read,
    ReInit.kind: ReInit.read,
    ExternalInit.kind: ExternalInit.read,
    GroupContextExtensions.kind: GroupContextExtensions.read,
}


def encode_proposal(proposal: Proposal) -> bytes:
    """struct Proposal: the type before the body."""
    return tls.u16(proposal.kind) + proposal.encode()


def read_proposal(reader: tls.Reader) -> Proposal:
    """struct Proposal. MalformedInput for a type that this version does not know: its length is unknown too."""
    kind = reader.u16()
    read = _READERS.get(kind)
    if read is None:
        raise MalformedInput("an unknown type of proposal", type=kind)
    return read(reader)


@dataclass(frozen=True, slots=True)
class ProposalRef:
    """ProposalRef of a proposal that was sent before (Nh bytes). RFC 9420 section 5.2."""

    value: bytes


def _encode_or_ref(item: Proposal | ProposalRef) -> bytes:
    if isinstance(item, ProposalRef):
        return tls.u8(BY_REFERENCE) + tls.opaque(item.value)
    return tls.u8(BY_VALUE) + encode_proposal(item)


def _read_or_ref(reader: tls.Reader) -> Proposal | ProposalRef:
    kind = reader.u8()
    if kind == BY_VALUE:
        return read_proposal(reader)
    if kind != BY_REFERENCE:
        raise MalformedInput("neither a proposal nor a reference", type=kind)
    return ProposalRef(reader.opaque())


@dataclass(frozen=True, slots=True)
class Commit:
    """struct Commit: proposals by value or by reference, in the order of the committer, and its path. RFC 9420 section 12.4."""

    proposals: tuple[Proposal | ProposalRef, ...]
    path: UpdatePath | None

    def encode(self) -> bytes:
        path = None if self.path is None else self.path.encode()
        return tls.vector(_encode_or_ref(item) for item in self.proposals) + tls.optional(path)

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        return cls(tuple(reader.vector(_read_or_ref)), reader.optional(UpdatePath.read))
