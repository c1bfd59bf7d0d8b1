"""What all members of an epoch agree on, and what one of them says of it to those outside (RFC 9420 sections 8.1 and 12.4.3)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from broker_crypto.crypto.suites import Suite
from broker_crypto.mls.leaf import Extensions, encode_extensions, find_extension, read_extensions
from broker_crypto.wire import tls


@dataclass(frozen=True, slots=True)
class GroupContext:
    """What all members of an epoch agree on. RFC 9420 section 8.1."""

    version: int
    cipher_suite: int
    group_id: bytes
    epoch: int
    tree_hash: bytes
    confirmed_transcript_hash: bytes
    extensions: Extensions = ()
    _encoded: bytes | None = field(default=None, init=False, repr=False, compare=False)

    def encode(self) -> bytes:
        """As on the wire; made once."""
        if self._encoded is None:
            head = tls.u16(self.version) + tls.u16(self.cipher_suite) + tls.opaque(self.group_id) + tls.u64(self.epoch)
            hashes = tls.opaque(self.tree_hash) + tls.opaque(self.confirmed_transcript_hash)
            object.__setattr__(self, "_encoded", head + hashes + encode_extensions(self.extensions))
        return self._encoded or b""

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next GroupContext."""
        head = reader.u16(), reader.u16(), reader.opaque(), reader.u64()
        return cls(*head, reader.opaque(), reader.opaque(), read_extensions(reader))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """A GroupContext that fills `data`."""
        return tls.decode(data, cls.read)

    def extension(self, kind: int) -> bytes | None:
        """Data of the extension of type `kind`, None where there is none."""
        return find_extension(self.extensions, kind)


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """The state of a group for those who are not in it, signed by the leaf `signer`. RFC 9420 section 12.4.3."""

    group_context: GroupContext
    extensions: Extensions
    confirmation_tag: bytes
    signer: int
    signature: bytes = b""

    def to_be_signed(self) -> bytes:
        """GroupInfoTBS."""
        head = self.group_context.encode() + encode_extensions(self.extensions)
        return head + tls.opaque(self.confirmation_tag) + tls.u32(self.signer)

    def encode(self) -> bytes:
        """As on the wire."""
        return self.to_be_signed() + tls.opaque(self.signature)

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next GroupInfo."""
        return cls(GroupContext.read(reader), read_extensions(reader), reader.opaque(), reader.u32(), reader.opaque())

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """A GroupInfo that fills `data`."""
        return tls.decode(data, cls.read)

    def extension(self, kind: int) -> bytes | None:
        """Data of the extension of type `kind`, None where there is none."""
        return find_extension(self.extensions, kind)

    def signed(self, suite: Suite, private: bytes) -> Self:
        """The same, signed with `private`, the key of the leaf `signer`."""
        return replace(self, signature=suite.sign_with_label(private, "GroupInfoTBS", self.to_be_signed()))

    def signature_holds(self, suite: Suite, public: bytes) -> bool:
        """Whether `public`, the key of the leaf `signer`, made the signature."""
        return suite.verify_with_label(public, "GroupInfoTBS", self.to_be_signed(), self.signature)
