"""Records of the group log, the authenticated data of a commit, and what a leave says (docs/groups.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker_crypto import limits
from broker_crypto.errors import MalformedInput
from broker_crypto.mls.leaf import LeafNode
from broker_crypto.wire import envelopes

FOUNDING, COMMIT, LEAVE = 1, 2, 3
COMMIT_DATA_VERSION = 1
LEAVE_LABEL = "broker_crypto leave v1"


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """One record: `message` is an MLSMessage, `group_info` a GroupInfo (commits only, else empty).

    `epoch` is the epoch that the message was written in (0 for a founding).
    """

    kind: int
    epoch: int
    message: bytes
    group_info: bytes

    def encode(self) -> bytes:
        return envelopes.GROUP_RECORD.encode(
            {"kind": self.kind, "epoch": self.epoch, "message": self.message, "group_info": self.group_info}
        )

    @classmethod
    def decode(cls, data: bytes) -> GroupRecord | None:
        """None for what is passed over unread: too large, another fingerprint, another kind. MalformedInput if not canonical."""
        if len(data) > limits.MAX_GROUP_RECORD or data[:10] != envelopes.GROUP_RECORD.marker:
            return None
        d = envelopes.GROUP_RECORD.decode(data)
        record = cls(d["kind"], d["epoch"], d["message"], d["group_info"])
        return record if record.kind in (FOUNDING, COMMIT, LEAVE) else None


@dataclass(frozen=True, slots=True)
class FencedTopic:
    """First refused position of every partition of one topic, as it was when the commit was built."""

    topic: str
    identity: str
    ends: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class CommitData:
    """The authenticated data of a commit: its signed time in ms, and fences (None fences nobody)."""

    time: int
    fences: tuple[FencedTopic, ...] | None = None

    def encode(self) -> bytes:
        fences = None if self.fences is None else write_fences(self.fences)
        return envelopes.COMMIT_DATA.encode({"version": COMMIT_DATA_VERSION, "time": self.time, "fences": fences})

    @classmethod
    def decode(cls, data: bytes) -> CommitData:
        """MalformedInput for anything but the canonical encoding."""
        d = envelopes.COMMIT_DATA.decode(data)
        if d["version"] != COMMIT_DATA_VERSION or d["time"] < 0:
            raise MalformedInput("commit data of another version or time", version=d["version"])
        return cls(d["time"], None if d["fences"] is None else read_fences(d["fences"]))


def write_fences(fences: Iterable[FencedTopic]) -> list[dict[str, Any]]:
    """As the Avro value of an array of FencedTopic."""
    return [{"topic": f.topic, "identity": f.identity, "ends": [{"partition": p, "first_refused": n} for p, n in f.ends]} for f in fences]


def read_fences(fences: Iterable[Mapping[str, Any]]) -> tuple[FencedTopic, ...]:
    """Back from the Avro value."""
    return tuple(FencedTopic(f["topic"], f["identity"], tuple((e["partition"], e["first_refused"]) for e in f["ends"])) for f in fences)


@dataclass(frozen=True, slots=True)
class Leave:
    """The message of a leave: which occupant of which leaf goes, signed with that leaf's key (SignWithLabel, LEAVE_LABEL).

    `leaf_node` is SHA-256 of the leaf node: a path, or another occupant, and this leave speaks of nobody any more.
    """

    group_id: bytes
    leaf: int
    leaf_node: bytes
    signature: bytes

    @property
    def content(self) -> bytes:
        """What is signed: the encoding up to the signature."""
        return envelopes.leave_content(group_id=self.group_id, leaf=self.leaf, leaf_node=self.leaf_node)

    def encode(self) -> bytes:
        return envelopes.LEAVE.encode(
            {"group_id": self.group_id, "leaf": self.leaf, "leaf_node": self.leaf_node, "signature": self.signature}
        )

    @classmethod
    def decode(cls, data: bytes) -> Leave:
        """MalformedInput for anything but the canonical encoding."""
        d = envelopes.LEAVE.decode(data)
        return cls(d["group_id"], d["leaf"], d["leaf_node"], d["signature"])


def leaf_hash(node: LeafNode) -> bytes:
    """SHA-256 of a leaf node as it stands in the tree: names one occupant with one path."""
    return hashlib.sha256(node.encode()).digest()


def commit_hash(message: bytes) -> bytes:
    """SHA-256 of a commit's MLSMessage: what its group_info names, and the key of a staged row."""
    return hashlib.sha256(message).digest()


def record_hash(record: bytes) -> bytes:
    """SHA-256 of a log record, as kept in the cursor."""
    return hashlib.sha256(record).digest()


def intervals(numbers: Sequence[tuple[int, int | None]], current: int) -> tuple[tuple[int, int], ...]:
    """Closed (first, last) of intervals whose open end is `current`."""
    return tuple((first, current if last is None else last) for first, last in numbers)
