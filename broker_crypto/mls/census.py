"""Census of a ratchet tree: which keys stand in it and what its leaves can read, kept up to date node by node.

It answers the uniqueness rules and the credential rule in the time of what changed, not of the whole tree.
Source: RFC 9420 sections 7.3 and 12.4.3.1.
"""

from __future__ import annotations

from broker_crypto.mls.leaf import BASIC, X509, LeafNode
from broker_crypto.mls.validation import Rule, refuse


class Census:
    """Keys and credentials of the occupied nodes of one tree. Node numbers as in `tree_math`."""

    __slots__ = ("encryption", "leaves", "signature", "supported", "used")

    def __init__(self) -> None:
        self.encryption: dict[bytes, int] = {}  # encryption key: node
        self.signature: dict[bytes, int] = {}  # signature key: leaf index
        self.leaves = 0
        self.used = {BASIC: 0, X509: 0}  # credential type: leaves that have it
        self.supported = {BASIC: 0, X509: 0}  # credential type: leaves that can read it

    def copy(self) -> Census:
        """The same, to be changed."""
        other = Census()
        other.encryption, other.signature = self.encryption.copy(), self.signature.copy()
        other.leaves = self.leaves
        other.used, other.supported = self.used.copy(), self.supported.copy()
        return other

    def _count(self, leaf: LeafNode, by: int) -> None:
        self.leaves += by
        self.used[leaf.credential.type] += by
        for kind in self.supported:
            if kind in leaf.capabilities.credentials:
                self.supported[kind] += by

    def add_leaf(self, node: int, leaf: LeafNode) -> None:
        """Enter a leaf. Raises PeerError where one of its keys is there already; the census is then void."""
        other = self.signature.setdefault(leaf.signature_key, node >> 1)
        if other != node >> 1:
            refuse(Rule.UNIQUE_SIGNATURE_KEY, "two leaves have one signature key", leaf=node >> 1, other=other)
        self.add_key(node, leaf.encryption_key)
        self._count(leaf, 1)

    def remove_leaf(self, leaf: LeafNode) -> None:
        """Strike a leaf that is there."""
        del self.signature[leaf.signature_key]
        del self.encryption[leaf.encryption_key]
        self._count(leaf, -1)

    def add_key(self, node: int, key: bytes) -> None:
        """Enter the encryption key of `node`. Raises PeerError where it is there already; the census is then void."""
        other = self.encryption.setdefault(key, node)
        if other != node:
            refuse(Rule.UNIQUE_ENCRYPTION_KEY, "two nodes have one encryption key", node=node, other=other)

    def remove_key(self, key: bytes) -> None:
        """Strike an encryption key that is there."""
        del self.encryption[key]

    def unread_credential(self) -> int | None:
        """A credential type in use that some leaf cannot read, None where there is none (RFC 9420 section 7.3)."""
        for kind, count in self.used.items():
            if count and self.supported[kind] != self.leaves:
                return kind
        return None
