"""Seals the records of one topic: streams, sequences, batches (docs/topics.md, Keys and The record).

1. A key and nonce never meet twice: the stream is drawn when this object is made and whenever a key has been used enough,
   the process forked or a clock jumped; it is never stored, passed in, copied or pickled. Sequences are taken under a lock
   before anything is encrypted and never given back, whatever fails later.
2. What is sealed in one call is signed together, at most `signature_batch` records.
3. All records of a call are checked before the first sequence is taken: a call that raises has sealed nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from threading import Lock
from typing import NamedTuple

from broker_crypto.channels.batch import grow, leaf_hash
from broker_crypto.channels.headers import REPLY, HeaderRules
from broker_crypto.channels.inner import wrap
from broker_crypto.channels.keys import TopicKeys, signed_bytes
from broker_crypto.channels.record import write_batch, write_header, write_prefix
from broker_crypto.errors import GroupError, MayNotWrite, NotThisGroup, UsageError
from broker_crypto.limits import MAX_RECORD, MAX_SEQUENCE, STREAM_BYTES
from broker_crypto.records import EpochView, Header, Place, Random, Sealed

Unsealed = tuple[Place, bytes, Sequence[Header] | None]
STREAM_SIZE = 16


class Numbers:
    """Of one partition in a stream: the next sequence, and the bytes sealed (in all epochs: a bound of those under one key)."""

    __slots__ = ("next", "used")

    def __init__(self) -> None:
        self.next = self.used = 0


class Stream:
    """16 random bytes, and what has been taken of them."""

    __slots__ = ("numbers", "value")

    def __init__(self, value: bytes) -> None:
        self.value = value
        self.numbers: dict[int, Numbers] = {}


class SealingKey:
    """A stream's key for one partition in one epoch."""

    __slots__ = ("base", "encrypt", "numbers")

    def __init__(self, encrypt: Callable[[bytes, bytes, bytes], bytes], base_nonce: bytes, numbers: Numbers) -> None:
        self.encrypt = encrypt
        self.base = int.from_bytes(base_nonce, "big")
        self.numbers = numbers


class Prepared(NamedTuple):
    """One record that may be sealed."""

    partition: int
    place_hash: bytes
    flags: int
    plaintext: bytes
    outside: Sequence[Header]

    def __repr__(self) -> str:
        return "<Prepared>"


class SealingEpoch:
    """One epoch as one leaf seals in it. Raises UsageError for a private key that is not the leaf's."""

    __slots__ = ("keys", "leaf", "prefix", "refusal", "sign", "signed", "stream", "topic_keys", "view")

    def __init__(self, view: EpochView, topic: str, leaf: int, signature_private: bytes) -> None:
        self.view, self.leaf = view, leaf
        self.topic_keys = TopicKeys(view, topic)
        self.signed = signed_bytes(view.group_id)
        self.sign = self.topic_keys.suite.signer(signature_private)
        self.refusal = self._refusal(topic, signature_private)
        self.stream: Stream | None = None
        self.prefix = b""
        self.keys: dict[int, SealingKey] = {}

    def _refusal(self, topic: str, signature_private: bytes) -> GroupError | None:
        """Why this leaf may not seal for the topic here."""
        if topic not in self.view.topics:
            return NotThisGroup(topic=topic, epoch=self.view.epoch)
        entry = self.view.roster.get(self.leaf)
        if entry is None or entry.signature_key != self.topic_keys.suite.signature_public_of(signature_private):
            raise UsageError("the signature key is not that of the leaf in this epoch", leaf=self.leaf, epoch=self.view.epoch)
        return None if entry.may_write else MayNotWrite(topic=topic, epoch=self.view.epoch, sender=entry.identity)

    def begin(self, stream: Stream) -> None:
        """Seal in this stream from now on."""
        self.stream = stream
        self.prefix = write_prefix(self.view.epoch, self.view.epoch_id, self.leaf, stream.value)
        self.keys = {}

    def key(self, partition: int, stream: Stream) -> SealingKey:
        """Derive and keep the stream's key for a partition."""
        derived = self.topic_keys.sender(self.leaf, stream.value, partition)
        numbers = stream.numbers.setdefault(partition, Numbers())
        key = SealingKey(self.topic_keys.suite.cipher(derived.key).encrypt, derived.base_nonce, numbers)
        self.keys[partition] = key
        return key


class Sealer:
    """The sealing object of one topic; `random` gives its streams."""

    __slots__ = ("_batch", "_headers", "_lock", "_padding", "_pid", "_random", "_stream", "topic")

    def __init__(self, topic: str, *, random: Random, headers: HeaderRules, padding: int, signature_batch: int) -> None:
        self.topic = topic
        self._random, self._headers, self._padding, self._batch = random, headers, padding, signature_batch
        self._lock, self._pid = Lock(), os.getpid()
        self._stream = self._drawn()

    def redraw(self) -> None:
        """Seal in a new stream: a clock jumped, so this machine may be one of two copies that go on from a snapshot."""
        with self._lock:
            self._stream = self._drawn()

    def _drawn(self) -> Stream:
        value = self._random(STREAM_SIZE)
        if len(value) != STREAM_SIZE:
            raise UsageError("the source of randomness gives another number of bytes", expected=STREAM_SIZE, got=len(value))
        return Stream(value)

    def seal(self, epoch: SealingEpoch, items: Sequence[Unsealed]) -> list[Sealed]:
        """Seal records in an epoch, in their order. Raises NotThisGroup, MayNotWrite, UsageError."""
        if epoch.refusal is not None:
            raise epoch.refusal.with_traceback(None)
        prepared = [self._prepare(epoch.topic_keys, *item) for item in items]
        if os.getpid() != self._pid:  # forked: the lock may be held by a thread that is not here
            self._lock, self._pid = Lock(), os.getpid()
            self.redraw()
        if len(prepared) <= self._batch:
            return self._seal_batch(epoch, prepared) if prepared else []
        batches = [prepared[start : start + self._batch] for start in range(0, len(prepared), self._batch)]
        return [sealed for batch in batches for sealed in self._seal_batch(epoch, batch)]

    def _prepare(self, keys: TopicKeys, place: Place, payload: bytes, headers: Sequence[Header] | None) -> Prepared:
        topic, partition, subject, key, _, reply = place
        if topic != self.topic:
            raise UsageError("a record of another topic", topic=topic, expected=self.topic)
        if type(payload) is not bytes or not (key is None or type(key) is bytes):
            raise UsageError("payload and key are bytes", topic=topic)
        where = keys.places[partition].get(subject) if partition in keys.places else None
        if where is None:
            where = keys.where(partition, subject)
            keys.remember(partition, subject, where)
        place_hash = where.unkeyed if key is None else where.place_hash(key)
        if headers is None and not reply and not self._padding and len(payload) <= MAX_RECORD:
            return tuple.__new__(Prepared, (partition, place_hash, 0, payload, ()))
        outside = self._headers.outside(headers) if headers else ()
        if reply:
            headers = _with_reply(headers or (), reply)
        flags, plaintext = wrap(payload, headers, self._padding)
        return Prepared(partition, place_hash, flags, plaintext, outside)

    def _take(self, epoch: SealingEpoch, batch: list[Prepared]) -> tuple[bytes, list[tuple[SealingKey, int]]]:
        """(header prefix, key and sequence of each record), under the lock."""
        with self._lock:
            taken = self._number(epoch, batch)
            if taken is None:  # a key is used up: the same records once more, in a new stream
                self._stream = self._drawn()
                taken = self._number(epoch, batch)
            if taken is None:
                raise UsageError("one batch is more than may be sealed under one key")
            return epoch.prefix, taken

    def _number(self, epoch: SealingEpoch, batch: list[Prepared]) -> list[tuple[SealingKey, int]] | None:
        stream = self._stream
        if epoch.stream is not stream:
            epoch.begin(stream)
        keys, taken = epoch.keys, []
        for record in batch:
            key = keys.get(record.partition) or epoch.key(record.partition, stream)
            numbers = key.numbers
            sequence = numbers.next
            numbers.next = sequence + 1
            numbers.used += len(record.plaintext)
            if sequence > MAX_SEQUENCE or numbers.used > STREAM_BYTES:
                return None
            taken.append((key, sequence))
        return taken

    def _seal_batch(self, epoch: SealingEpoch, batch: list[Prepared]) -> list[Sealed]:
        prefix, taken = self._take(epoch, batch)
        parts, leaves = [], []
        for (_, place_hash, flags, plaintext, _), (key, sequence) in zip(batch, taken, strict=True):
            header = write_header(prefix, sequence, place_hash[:4], flags)
            ciphertext = key.encrypt((key.base ^ sequence).to_bytes(12, "big"), plaintext, header + place_hash)
            parts.append((header, ciphertext))
            leaves.append(leaf_hash(header, ciphertext))
        root, paths = grow(leaves)
        written = write_batch(parts, paths, epoch.sign(epoch.signed + root))
        new = tuple.__new__
        return [new(Sealed, (data, record.outside, ())) for data, record in zip(written, batch, strict=True)]


def _with_reply(headers: Sequence[Header], reply: str) -> list[Header]:
    if any(name == REPLY for name, _ in headers):
        raise UsageError("the reply subject stands in the place of a record, not among its headers", header=REPLY)
    return [*headers, (REPLY, reply.encode())]
