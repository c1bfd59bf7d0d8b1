"""Frozen types that cross rooms: types only, no behaviour beyond reading a field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol, TypeAlias

Header: TypeAlias = tuple[str, bytes | None]


class Place(NamedTuple):
    """Where a record lies or goes: Kafka's partition and key, or a NATS subject.

    `topic` is the policy's name of the topic. `partition` is -1 on NATS, `subject` "" on Kafka. `position` is
    (identity of the topic, offset or stream sequence) when opening, None on core NATS and when sealing. `reply` when
    sealing: the reply subject of a NATS publish ("" or None where there is none), sealed with the record; when opening on
    core NATS: the outer reply subject ("" for none), which must be the sealed one; None: not compared.
    """

    # One a record read or written: a tuple is built four times as fast as a frozen dataclass.
    topic: str
    partition: int = -1
    subject: str = ""
    key: bytes | None = None
    position: tuple[str, int] | None = None
    reply: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One write of the store that must be durable before what it belongs to is released. `value` None deletes."""

    kind: str
    key: bytes
    value: bytes | None = field(repr=False)


class Security(NamedTuple):
    """What is known of an opened record. Plain: sender None, channel "plain".

    `record_id` (32 bytes) names what was sealed, wherever a copy of it lies: the same in every agent and after every
    rewind. `duplicate`: it was seen at another position. `gap`: records of its sender missing before it.
    """

    channel: str
    sender: str | None = None
    leaf: int | None = None
    epoch: int | None = None
    record_id: bytes | None = None
    duplicate: bool = False
    gap: int = 0


class Sealed(NamedTuple):
    """One record to publish: `data` in place of the payload, `headers` that go outside."""

    data: bytes
    headers: Sequence[Header] = ()
    rows: Sequence[Row] = ()


class Opened(NamedTuple):
    """One record that may be handed out.

    `headers` are those the application gets, None where there are none: the sealed ones, and of the outer ones what
    brokers and tracers add. `drop`: a duplicate that the policy's `duplicates: drop` keeps from the application; it is
    acknowledged like one that was handed out.
    """

    payload: bytes
    headers: Sequence[Header] | None
    security: Security
    rows: Sequence[Row] = ()
    receipt: object | None = None
    drop: bool = False

    def __repr__(self) -> str:
        return f"Opened(<{len(self.payload)} bytes>, {self.security!r}, drop={self.drop})"


@dataclass(frozen=True, slots=True)
class Behind:
    """The record's epoch is not in what was read of the group log: read on, then open again with `final=True`."""

    topic: str
    epoch: int
    epoch_id: bytes


class RosterEntry(NamedTuple):
    """One leaf of an epoch: identity (URI), signature public key as in the LeafNode, right to write by that epoch's policy.

    `issuers` are SHA-256 of the SubjectPublicKeyInfos above the leaf's: of its chain, and of the anchors that it ends at.
    """

    identity: str
    signature_key: bytes
    may_write: bool
    issuers: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Fence:
    """First refused positions of one occupant of a leaf, worked out for one epoch's roster (docs/topics.md, Fences).

    `ends` maps (topic, identity of the topic) to {partition: first refused position}. What has no entry is refused from 0.
    """

    ends: Mapping[tuple[str, str], Mapping[int, int]]


@dataclass(frozen=True, slots=True)
class EpochView:
    """What a topic channel reads of an epoch. Built by delivery, never changed."""

    epoch: int
    epoch_id: bytes
    suite: int
    group_id: bytes
    stream_secret: bytes = field(repr=False)
    roster: Mapping[int, RosterEntry]
    topics: frozenset[str]
    fences: Mapping[int, Sequence[Fence]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GroupView:
    """All that a topic channel knows of its group; replaced as a whole after a transaction has committed.

    `epochs` by epoch_id (16 bytes); `current` is the newest epoch number read from the log; `sealing` the view to seal
    in, None while the agent may not; `leaf` the own leaf there and `signature_private` the private key of that leaf.
    Intervals are (first, last) epoch numbers, inclusive.
    `erased` and `other_groups` are epoch ids (of erased epochs, of other groups that this agent holds or held).
    """

    epochs: Mapping[bytes, EpochView]
    current: int
    sealing: EpochView | None = None
    leaf: int | None = None
    absent: Sequence[tuple[int, int]] = ()
    missed: Sequence[tuple[int, int]] = ()
    erased: frozenset[bytes] = frozenset()
    other_groups: frozenset[bytes] = frozenset()
    signature_private: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One record of a group log. `position` as the broker counts, `time_ms` the broker's time of it."""

    position: int
    time_ms: int
    record: bytes


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What a broker says of one Kafka topic, or of one stream that holds a subject of the topic.

    `ends` maps a partition (-1 on NATS) to the first position not written yet; `retention_s` None is no limit.
    """

    topic: str
    identity: str
    ends: Mapping[int, int]
    retention_s: int | None
    compacted: bool


@dataclass(frozen=True, slots=True)
class Member:
    """One leaf of a group as shown to applications. `last_path_ms` is the signed time of its last path commit."""

    leaf: int
    identity: str
    role: str
    last_path_ms: int


@dataclass(frozen=True, slots=True)
class Anchor:
    """A CA certificate (DER) that is trusted, and the prefixes (each ends in `/`) of the identities it speaks for."""

    certificate: bytes
    identities: tuple[str, ...]


class Decision(StrEnum):
    """What a connector does with a refused record: the words of `on_failure` in the policy."""

    RAISE = "raise"
    SKIP = "skip"
    DEAD_LETTER = "dead-letter"
    PAUSE = "pause"


class Clock(Protocol):
    """Wall clock in ms since 1970 and a monotonic clock in s. Tests bring their own."""

    def now_ms(self) -> int: ...
    def monotonic(self) -> float: ...


class Random(Protocol):
    """Source of random bytes; `secrets.token_bytes` in the product, seeded in the simulator."""

    def __call__(self, n: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Event:
    """Something an application or operator may want to know, as it happens. `group` is the log's full name."""

    group: str


@dataclass(frozen=True, slots=True)
class Joined(Event):
    """This agent is a member: `founded` if it made the group, `again` if it was one before."""

    epoch: int
    leaf: int
    founded: bool
    again: bool


@dataclass(frozen=True, slots=True)
class EpochChanged(Event):
    """A commit by `committer` began this epoch."""

    epoch: int
    committer: str


@dataclass(frozen=True, slots=True)
class MemberJoined(Event):
    """A leaf that was not there in the epoch before."""

    epoch: int
    leaf: int
    identity: str


@dataclass(frozen=True, slots=True)
class MemberLeft(Event):
    """A leaf that is gone."""

    epoch: int
    leaf: int
    identity: str


@dataclass(frozen=True, slots=True)
class LockedOut(Event):
    """A commit that counts could not be entered; `reason` says at what, `suspect` is whom the docs say to look at."""

    epoch: int
    reason: str
    suspect: str


@dataclass(frozen=True, slots=True)
class Halted(Event):
    """Following stopped; `code` is that of the error that sealing raises now."""

    code: str


@dataclass(frozen=True, slots=True)
class KeysErased(Event):
    """The keys of these epochs are gone from the store and its files: `key_retention` was over."""

    epochs: Sequence[int]


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """A record was refused: the rule's topic, the error's code, the position as the broker counts."""

    topic: str
    code: str
    position: int | None


@dataclass(frozen=True, slots=True)
class Marked(Event):
    """A record opened with a mark: a duplicate, or records missing before it."""

    topic: str
    duplicate: bool
    gap: int


@dataclass(frozen=True, slots=True)
class ForkSuspected(Event):
    """A record signed by a leaf of ours in an epoch of our number under another id."""

    epoch: int
    signer: str


@dataclass(frozen=True, slots=True)
class ClockSkew(Event):
    """Own commits do not count because this machine's clock is off by about `off_ms` against the broker's."""

    off_ms: int


@dataclass(frozen=True, slots=True)
class CertificateExpiring(Event):
    """The agent's own certificate ends at `not_after_ms` (ms since 1970). `group` is empty."""

    not_after_ms: int
