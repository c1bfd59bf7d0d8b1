"""From an epoch's stream secret to the keys of one sealing object (docs/topics.md, Keys), and the hash of a record's place.

Derivation is ExpandWithLabel of RFC 9420 section 8 in the group's suite; the place hash is SHA-256 in all of them.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from broker_crypto.crypto import Secret, Suite, sign_content, suite
from broker_crypto.errors import UsageError
from broker_crypto.limits import PLACES_PER_PARTITION
from broker_crypto.records import EpochView

BATCH_LABEL = "broker_crypto batch v1"
_PLACE_LABEL = b"broker_crypto place v1"
_NO_KEY = bytes(5)  # keyed 0, then a key of length 0


class SenderKeys(NamedTuple):
    """Keys under which one sealing object seals for one partition."""

    sender_secret: bytes
    key: bytes
    base_nonce: bytes

    def __repr__(self) -> str:
        return "<SenderKeys>"


class Where(NamedTuple):
    """A partition and subject under one place key: the hash of a record without key there, and what a key is hashed behind."""

    unkeyed: bytes
    before_key: bytes

    def place_hash(self, key: bytes | None) -> bytes:
        """The place hash (32 bytes) of a record with this key, or with none."""
        if key is None:
            return self.unkeyed
        return sha256(b"".join((self.before_key, b"\x01", len(key).to_bytes(4, "big"), key))).digest()

    def __repr__(self) -> str:
        return "<Where>"


class TopicKeys:
    """One topic in one epoch: what its sealing objects' keys and its places derive from.

    `places` holds, by partition and subject, what was used last; sealing fills it at once, opening only with records that
    passed every check.
    """

    __slots__ = ("place_key", "places", "suite", "topic_secret")

    def __init__(self, view: EpochView, topic: str) -> None:
        self.suite: Suite = suite(view.suite)
        secret = self.suite.expand_with_label(view.stream_secret, "topic", topic.encode(), self.suite.nh)
        self.topic_secret = Secret(secret)
        self.place_key = self.suite.expand_with_label(secret, "place", b"", 32)
        self.places: dict[int, dict[str, Where]] = {}

    def sender(self, leaf: int, stream: bytes, partition: int) -> SenderKeys:
        """Keys of the sealing object `stream` (16 bytes) of `leaf` for `partition` (int32, -1 where there is none)."""
        topic_secret, derive = self.topic_secret.reveal(), self.suite.expand_with_label
        context = leaf.to_bytes(4, "big") + stream + partition.to_bytes(4, "big", signed=True)
        secret = derive(topic_secret, "sender", context, self.suite.nh)
        return SenderKeys(secret, derive(secret, "key", b"", self.suite.nk), derive(secret, "nonce", b"", self.suite.nn))

    def where(self, partition: int, subject: str) -> Where:
        """The place of a partition and subject, made anew; `remember` keeps it. Raises UsageError for what is neither."""
        try:
            number, name = partition.to_bytes(4, "big", signed=True), subject.encode()
        except (OverflowError, UnicodeEncodeError):
            raise UsageError("a partition is an int32, a subject valid text", partition=partition) from None
        before_key = b"".join((self.place_key, _PLACE_LABEL, number, len(name).to_bytes(4, "big"), name))
        return Where(sha256(before_key + _NO_KEY).digest(), before_key)

    def remember(self, partition: int, subject: str, where: Where) -> None:
        """Keep a place; the oldest of the partition gives way at the limit."""
        places = self.places.setdefault(partition, {})
        if len(places) >= PLACES_PER_PARTITION:
            del places[next(iter(places))]
        places[subject] = where


def signed_bytes(group_id: bytes) -> bytes:
    """What stands before the root of a batch in the bytes that are signed (SignContent of RFC 9420 section 5.1.2)."""
    content = len(group_id).to_bytes(4, "big") + group_id + bytes(32)
    return sign_content(BATCH_LABEL, content)[:-32]
