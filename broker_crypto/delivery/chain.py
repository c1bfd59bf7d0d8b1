"""What the group log says up to one record: equal for everybody who reads it, with secrets or without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from broker_crypto import limits
from broker_crypto.delivery.group_policy import GroupPolicy
from broker_crypto.errors import PeerError
from broker_crypto.mls import leaf as mls_leaf
from broker_crypto.mls.group_info import GroupInfo
from broker_crypto.mls.public import PublicGroup
from broker_crypto.wire import tls


@dataclass(frozen=True, slots=True)
class Recent:
    """A commit in force: its signed time (ms), the signature key that made it, the identity of that key."""

    time: int
    key: bytes
    identity: str


@dataclass(frozen=True, slots=True)
class Chain:
    """What the log says up to one record.

    `info` is the encoded GroupInfo of the head, whose external_pub newcomers use; `paths` the signed time (ms) of the
    last path of each leaf; `joined` the number of the epoch in which each leaf's occupant came (a resync is another
    occupant); `left` SHA-256 of the leaf node of each leaf that said it leaves and is still there; `recent` the commits that
    count for the rate, oldest first; `began` the time of the commit that made the epoch; `time` that of the last counted commit.
    """

    group: str
    public: PublicGroup
    policy: GroupPolicy
    info: bytes = field(repr=False)
    time: int
    began: int
    paths: Mapping[int, int]
    joined: Mapping[int, int]
    left: Mapping[int, bytes]
    recent: tuple[Recent, ...]
    founder: str
    founder_leaf: mls_leaf.LeafNode
    founding_policy: GroupPolicy
    policy_signer: str

    @property
    def epoch(self) -> int:
        return self.public.epoch

    @property
    def external_pub(self) -> bytes:
        """HPKE public key to join with, as the head's signer published it."""
        return external_pub(GroupInfo.decode(self.info))

    def leaf_of(self, signature_key: bytes) -> int | None:
        """The leaf that has this signature key."""
        return next((i for i, leaf in self.public.tree.leaves() if leaf.signature_key == signature_key), None)


def external_pub(info: GroupInfo) -> bytes:
    """The key in struct ExternalPub (RFC 9420 section 12.4.3.2). Raises PeerError where there is none."""
    data = mls_leaf.find_extension(info.extensions, mls_leaf.EXTERNAL_PUB)
    if data is None:
        raise PeerError("no external_pub", rule="external_pub")
    return tls.decode(data, tls.Reader.opaque)


def with_commit(recent: tuple[Recent, ...], commit: Recent) -> tuple[Recent, ...]:
    """`recent` and `commit`, without what the rate rule never looks at again.

    Times never go back, so what is older than the window stays so. Of what is in it, the newest RATE_KEY of a key and
    RATE_IDENTITY of an identity say whether the limit is reached, however many there are.
    """
    kept: list[Recent] = []
    keys: dict[bytes, int] = {}
    identities: dict[str, int] = {}
    for one in (commit, *reversed(recent)):
        if one.time <= commit.time - limits.RATE_WINDOW_MS:
            break
        of_key, of_identity = keys.get(one.key, 0), identities.get(one.identity, 0)
        if of_key < limits.RATE_KEY or of_identity < limits.RATE_IDENTITY:
            kept.append(one)
        keys[one.key], identities[one.identity] = of_key + 1, of_identity + 1
    return tuple(reversed(kept))
