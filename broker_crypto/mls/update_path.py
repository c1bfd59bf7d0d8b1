"""The path of a commit on the wire: new keys and their secrets, sealed to those who must learn them.

Source: RFC 9420 section 7.6.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from broker_crypto.mls.leaf import LeafNode
from broker_crypto.wire import tls


@dataclass(frozen=True, slots=True)
class HPKECiphertext:
    """HPKECiphertext: the encapsulated key and what is sealed under it."""

    kem_output: bytes
    ciphertext: bytes

    def encode(self) -> bytes:
        """As on the wire."""
        return tls.opaque(self.kem_output) + tls.opaque(self.ciphertext)

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next HPKECiphertext."""
        return cls(reader.opaque(), reader.opaque())


@dataclass(frozen=True, slots=True)
class UpdatePathNode:
    """UpdatePathNode: a new key of one parent node, and its path secret for each node of the copath resolution."""

    encryption_key: bytes
    encrypted_path_secret: tuple[HPKECiphertext, ...]

    def encode(self) -> bytes:
        """As on the wire."""
        return tls.opaque(self.encryption_key) + tls.vector(sealed.encode() for sealed in self.encrypted_path_secret)

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next UpdatePathNode."""
        return cls(reader.opaque(), tuple(reader.vector(HPKECiphertext.read)))


@dataclass(frozen=True, slots=True)
class UpdatePath:
    """UpdatePath: the committer's new leaf, and its filtered direct path from the leaf to the root."""

    leaf_node: LeafNode
    nodes: tuple[UpdatePathNode, ...]
    _encoded: bytes | None = field(default=None, init=False, repr=False, compare=False)

    def encode(self) -> bytes:
        """As on the wire; made once, since signature, tag and transcript all cover it."""
        encoded = self._encoded
        if encoded is None:
            encoded = self.leaf_node.encode() + tls.vector(node.encode() for node in self.nodes)
            object.__setattr__(self, "_encoded", encoded)
        return encoded

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next UpdatePath."""
        start = reader.offset
        path = cls(LeafNode.read(reader), tuple(reader.vector(UpdatePathNode.read)))
        object.__setattr__(path, "_encoded", reader.since(start))
        return path

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """An UpdatePath that fills `data`."""
        return tls.decode(data, cls.read)
