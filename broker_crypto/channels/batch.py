"""The hash tree over records signed together (RFC 6962's shape: leaves and nodes hashed under different first bytes).

SHA-256 in every suite. A batch is padded to a power of two with leaves of 32 zero bytes, which no record hashes to.
"""

from __future__ import annotations

from hashlib import sha256

HASH_BYTES = 32
_NOTHING = bytes(HASH_BYTES)


def leaf_hash(header: bytes, ciphertext: bytes) -> bytes:
    """What a record puts into the tree. Its place is left out: the AEAD binds it, so a signature is checked without keys."""
    return sha256(b"\x00" + header + ciphertext).digest()


def grow(leaves: list[bytes]) -> tuple[bytes, list[bytes]]:
    """(root, batch_path of each leaf: the sibling hashes from the leaf up) of 1 to 64 leaf hashes."""
    level = leaves + [_NOTHING] * ((1 << (len(leaves) - 1).bit_length()) - len(leaves))
    levels = []
    while len(level) > 1:
        levels.append(level)
        level = [sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
    # From the root down: a node's path is its sibling and then the path of its parent, which both children share.
    paths = [b""]
    for below in reversed(levels):
        paths = [below[i ^ 1] + paths[i >> 1] for i in range(len(below))]
    return level[0], paths[: len(leaves)]


def root(leaf: bytes, index: int, path: bytes) -> bytes:
    """The root that a leaf at `index` and its batch_path lead to."""
    for at in range(0, len(path), HASH_BYTES):
        sibling = path[at : at + HASH_BYTES]
        leaf = sha256(b"\x01" + (sibling + leaf if index & 1 else leaf + sibling)).digest()
        index >>= 1
    return leaf
