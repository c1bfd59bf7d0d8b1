"""What a member brings for its leaf: who it is, with which key it signs, what it can do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from broker_crypto.crypto.suites import Suite
from broker_crypto.errors import UsageError
from broker_crypto.mls.leaf import COMMIT, KEY_PACKAGE, Capabilities, Credential, Extensions, LeafNode, Lifetime, are_distinct
from broker_crypto.records import Random

_ALWAYS = Lifetime(0, 2**64 - 1)


@dataclass(frozen=True, slots=True)
class OwnLeaf:
    """Credential, signature key pair (raw, of the group's suite), capabilities and extensions of a leaf of one's own.

    The capabilities must list the suite, the type of the credential and every extension that is no default one
    (RFC 9420 section 7.2). `lifetime` counts where the leaf is made for a key package or for founding a group.
    """

    credential: Credential
    signature_private: bytes = field(repr=False)
    signature_public: bytes
    capabilities: Capabilities
    extensions: Extensions = ()
    lifetime: Lifetime = _ALWAYS

    def __post_init__(self) -> None:
        if not are_distinct(self.extensions):
            raise UsageError("an extension type stands twice in an own leaf")

    @classmethod
    def of(cls, leaf: LeafNode, signature_private: bytes) -> Self:
        """What stands in `leaf` already, with the private key of its signature key."""
        return cls(leaf.credential, signature_private, leaf.signature_key, leaf.capabilities, leaf.extensions)

    def template(self) -> LeafNode:
        """A leaf for a commit, its encryption key, parent hash and signature still to come."""
        return LeafNode(b"", self.signature_public, self.credential, self.capabilities, COMMIT, extensions=self.extensions)

    def fresh(self, suite: Suite, random: Random) -> tuple[bytes, LeafNode]:
        """(private encryption key, signed leaf) for a key package or for founding a group."""
        private, public = suite.derive_key_pair(random(suite.nh))
        fields = self.signature_public, self.credential, self.capabilities
        leaf = LeafNode(public, *fields, KEY_PACKAGE, lifetime=self.lifetime, extensions=self.extensions)
        return private, leaf.signed(suite, self.signature_private)
