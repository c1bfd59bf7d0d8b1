"""The secret tree: single-use keys for the messages of every member of one epoch (RFC 9420 section 9).

1  A tree is a value. Taking a key gives the next tree, in which the key and all it was derived from are gone.
2  Secrets are derived when first needed: what nobody used is one secret at the top of its subtree.
3  A key is found once. Keys of passed generations wait for late messages, at most MAX_SKIPPED a ratchet, the newest.
4  A generation more than MAX_FORWARD ahead is refused before anything is derived.

Deleting means that the next tree does not contain the value; the caller drops the tree before it once it adopts the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self, TypeAlias

from broker_crypto.crypto.suites import Suite
from broker_crypto.errors import MalformedInput, UsageError
from broker_crypto.limits import MAX_FORWARD, MAX_GENERATION, MAX_SKIPPED
from broker_crypto.mls.validation import Rule, refuse
from broker_crypto.wire import tls


class RatchetKind(IntEnum):
    """Which of the two ratchets of a leaf: proposals and commits use HANDSHAKE."""

    HANDSHAKE = 0
    APPLICATION = 1


@dataclass(frozen=True, slots=True)
class MessageKey:
    """Key (Nk bytes) and nonce (Nn bytes) of one message; the reuse guard is not in the nonce yet."""

    key: bytes = field(repr=False)
    nonce: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ratchet:
    """One hash ratchet. `secret` is that of `generation`, the next one not passed; `skipped` keys wait for late messages."""

    generation: int
    secret: bytes = field(repr=False)
    skipped: Mapping[int, MessageKey] = field(default_factory=dict, repr=False)

    def _key(self, suite: Suite, secret: bytes, generation: int) -> MessageKey:
        key = suite.derive_tree_secret(secret, "key", generation, suite.nk)
        return MessageKey(key, suite.derive_tree_secret(secret, "nonce", generation, suite.nn))

    def take(self, suite: Suite, generation: int) -> tuple[MessageKey, Ratchet]:
        """The key of `generation` and the ratchet without it. PeerError(rule="generation") if it was used, passed or is too far."""
        if generation < self.generation:
            key = self.skipped.get(generation)
            if key is None:
                refuse(Rule.GENERATION, "the key of a message was used or given up", generation=generation, next=self.generation)
            kept = {number: other for number, other in self.skipped.items() if number != generation}
            return key, Ratchet(self.generation, self.secret, kept)
        if generation - self.generation > MAX_FORWARD or generation > MAX_GENERATION:
            refuse(Rule.GENERATION, "a message is too far ahead", generation=generation, next=self.generation, limit=MAX_FORWARD)
        skipped, secret = dict(self.skipped), self.secret
        for number in range(self.generation, generation):
            skipped[number] = self._key(suite, secret, number)
            secret = suite.derive_tree_secret(secret, "secret", number, suite.nh)
        for number in sorted(skipped)[: max(0, len(skipped) - MAX_SKIPPED)]:
            del skipped[number]
        following = suite.derive_tree_secret(secret, "secret", generation, suite.nh)
        return self._key(suite, secret, generation), Ratchet(generation + 1, following, skipped)

    def encode(self) -> bytes:
        """For storage."""
        keys = (tls.u32(number) + tls.opaque(key.key) + tls.opaque(key.nonce) for number, key in sorted(self.skipped.items()))
        return tls.u64(self.generation) + tls.opaque(self.secret) + tls.vector(keys)

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next one as `encode` wrote it."""
        generation, secret = reader.u64(), reader.opaque()
        return cls(generation, secret, dict(reader.vector(lambda item: (item.u32(), MessageKey(item.opaque(), item.opaque())))))


Leaf: TypeAlias = tuple[Ratchet, Ratchet]


@dataclass(frozen=True, slots=True)
class Fork:
    """An opened parent node: its own secret is gone."""

    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Sealed:
    """A node of which nothing was derived yet: the secret of its whole subtree."""

    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """An opened leaf: its ratchets, by RatchetKind."""

    ratchets: Leaf


Node: TypeAlias = Fork | Sealed | Opened

_SEALED, _FORK, _OPENED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class SecretTree:
    """The secret tree of one epoch, of 2 ** `height` leaves."""

    suite: Suite
    height: int
    top: Node = field(repr=False)

    @classmethod
    def begin(cls, suite: Suite, encryption_secret: bytes, leaves: int) -> Self:
        """The tree of an epoch whose ratchet tree has `leaves` leaves, blank ones included (made a power of 2 if it is none)."""
        return cls(suite, (leaves - 1).bit_length(), Sealed(encryption_secret))

    def next_generation(self, leaf: int, kind: RatchetKind) -> int:
        """The lowest generation of this ratchet that was not passed yet."""
        node = self._descend(leaf)[-1]
        return node.ratchets[kind].generation if isinstance(node, Opened) else 0

    def take(self, leaf: int, kind: RatchetKind, generation: int) -> tuple[MessageKey, SecretTree]:
        """The key of one message and the tree without it.

        Raises PeerError(rule="sender_leaf") for a leaf outside the tree, rule="generation" for a key that was used or
        given up, or one that is more than MAX_FORWARD ahead. This tree stays as it is.
        """
        if leaf >> self.height:
            refuse(Rule.SENDER_LEAF, "a sender outside the tree", leaf=leaf)
        path = self._descend(leaf)
        bottom = path[-1]
        ratchets = bottom.ratchets if isinstance(bottom, Opened) else self._open_leaf(path, leaf)
        key, ratchet = ratchets[kind].take(self.suite, generation)
        node: Node = Opened((ratchet, ratchets[1]) if kind is RatchetKind.HANDSHAKE else (ratchets[0], ratchet))
        return key, SecretTree(self.suite, self.height, self._rebuild(path, leaf, node))

    def take_next(self, leaf: int, kind: RatchetKind) -> tuple[int, MessageKey, SecretTree]:
        """The next unused key of the own leaf, for sending. UsageError where the ratchet is at its end."""
        generation = self.next_generation(leaf, kind)
        if generation > MAX_GENERATION:
            raise UsageError("the ratchet of this epoch has no key left; commit first", generation=generation)
        return generation, *self.take(leaf, kind, generation)

    def _descend(self, leaf: int) -> list[Node]:
        """The opened nodes from the top towards `leaf`; the last one is a leaf or sealed."""
        path = [self.top]
        for bit in range(self.height - 1, -1, -1):
            node = path[-1]
            if not isinstance(node, Fork):
                break
            path.append(node.right if leaf >> bit & 1 else node.left)
        return path

    def _open_leaf(self, path: list[Node], leaf: int) -> Leaf:
        """Open what is sealed above `leaf`, appending to `path` down to its place; its fresh ratchets."""
        node = path.pop()
        secret = node.secret if isinstance(node, Sealed) else b""
        expand, nh = self.suite.expand_with_label, self.suite.nh
        for bit in range(self.height - 1 - len(path), -1, -1):
            left, right = expand(secret, "tree", b"left", nh), expand(secret, "tree", b"right", nh)
            path.append(Fork(Sealed(left), Sealed(right)))
            secret = right if leaf >> bit & 1 else left
        path.append(Sealed(secret))
        return Ratchet(0, expand(secret, "handshake", b"", nh)), Ratchet(0, expand(secret, "application", b"", nh))

    def _rebuild(self, path: list[Node], leaf: int, node: Node) -> Node:
        """The top of a tree in which `node` stands at the end of `path`; the rest is shared."""
        for depth in range(len(path) - 2, -1, -1):
            above = path[depth]
            if isinstance(above, Fork):
                right = leaf >> (self.height - 1 - depth) & 1
                node = Fork(above.left, node) if right else Fork(node, above.right)
        return node

    def encode(self) -> bytes:
        """For storage."""
        return tls.u8(self.height) + _encode_node(self.top)

    @classmethod
    def read(cls, reader: tls.Reader, suite: Suite) -> Self:
        """The next one as `encode` wrote it."""
        height = reader.u8()
        return cls(suite, height, _read_node(reader, height))


def _encode_node(node: Node) -> bytes:
    if isinstance(node, Sealed):
        return tls.u8(_SEALED) + tls.opaque(node.secret)
    if isinstance(node, Fork):
        return tls.u8(_FORK) + _encode_node(node.left) + _encode_node(node.right)
    return tls.u8(_OPENED) + b"".join(ratchet.encode() for ratchet in node.ratchets)


def _read_node(reader: tls.Reader, height: int) -> Node:
    kind = reader.u8()
    if kind == _SEALED:
        return Sealed(reader.opaque())
    if kind == _FORK and height > 0:
        return Fork(_read_node(reader, height - 1), _read_node(reader, height - 1))
    if kind == _OPENED and height == 0:
        return Opened((Ratchet.read(reader), Ratchet.read(reader)))
    raise MalformedInput("a node of a stored secret tree of no known form", kind=kind)
