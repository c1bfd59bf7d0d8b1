"""Records of the group log, and the authenticated data of a commit (docs/groups.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from broker_crypto import limits
from broker_crypto.errors import MalformedInput
from broker_crypto.wire import envelopes

FOUNDING, COMMIT, LEAVE = 1, 2, 3
COMMIT_DATA_VERSION = 1


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
        fences = None
        if self.fences is not None:
            fences = [
                {"topic": f.topic, "identity": f.identity, "ends": [{"partition": p, "first_refused": n} for p, n in f.ends]}
                for f in self.fences
            ]
        return envelopes.COMMIT_DATA.encode({"version": COMMIT_DATA_VERSION, "time": self.time, "fences": fences})

    @classmethod
    def decode(cls, data: bytes) -> CommitData:
        """MalformedInput for anything but the canonical encoding."""
        d = envelopes.COMMIT_DATA.decode(data)
        if d["version"] != COMMIT_DATA_VERSION or d["time"] < 0:
            raise MalformedInput("commit data of another version or time", version=d["version"])
        fences = d["fences"]
        if fences is None:
            return cls(d["time"])
        return cls(
            d["time"],
            tuple(FencedTopic(f["topic"], f["identity"], tuple((e["partition"], e["first_refused"]) for e in f["ends"])) for f in fences),
        )


def commit_hash(message: bytes) -> bytes:
    """SHA-256 of a commit's MLSMessage: what its group_info names, and the key of a staged row."""
    return hashlib.sha256(message).digest()


def record_hash(record: bytes) -> bytes:
    """SHA-256 of a log record, as kept in the cursor."""
    return hashlib.sha256(record).digest()


def intervals(numbers: Sequence[tuple[int, int | None]], current: int) -> tuple[tuple[int, int], ...]:
    """Closed (first, last) of intervals whose open end is `current`."""
    return tuple((first, current if last is None else last) for first, last in numbers)
