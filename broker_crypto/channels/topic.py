"""The channel of a topic that is an MLS group: lists of records sealed and opened, without await or I/O (docs/topics.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from broker_crypto.channels.batch import leaf_hash, root
from broker_crypto.channels.headers import HeaderRules
from broker_crypto.channels.keys import signed_bytes
from broker_crypto.channels.marks import Marks
from broker_crypto.channels.opening import Opener, Result, Unopened
from broker_crypto.channels.record import FINGERPRINT, read_record
from broker_crypto.channels.sealing import Sealer, SealingEpoch, Unsealed
from broker_crypto.crypto import suite
from broker_crypto.errors import BrokerCryptoError, GroupNotReady, NotBuilt, PolicyConflict, RecordRefused
from broker_crypto.limits import MAX_BATCH, MAX_RECORD
from broker_crypto.records import GroupView, Random, Sealed


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """What the policy file says of one topic.

    `plaintext_accepted` lets unsealed records in; `plain_fingerprints` are the CRC-64-AVRO fingerprints (8 bytes, as on the
    wire) of foreign single-object encodings that count as unsealed. `drop_duplicates` is `duplicates: drop`.
    `signature_batch` 1..64. `padding` in bytes, 0 for none. `headers_plain` adds names to those copied outside,
    `headers_sealed` takes names out of them.
    """

    topic: str
    plaintext_accepted: bool = False
    plain_fingerprints: frozenset[bytes] = frozenset()
    drop_duplicates: bool = False
    signature_batch: int = MAX_BATCH
    padding: int = 0
    compress: str = "none"
    aliases: Sequence[str] = ()
    headers_plain: Sequence[str] = ()
    headers_sealed: Sequence[str] = ()

    def check(self) -> None:
        """Raises NotBuilt for what this version has not, PolicyConflict for what cannot be."""
        if self.compress != "none":
            raise NotBuilt("compressed records", topic=self.topic, key="compress")
        if self.aliases:
            raise NotBuilt("records mirrored from other topics", topic=self.topic, key="aliases")
        if not 1 <= self.signature_batch <= MAX_BATCH or not 0 <= self.padding <= MAX_RECORD:
            raise PolicyConflict("signature_batch is 1 to 64, padding 0 to 16 MiB", topic=self.topic)
        if FINGERPRINT in self.plain_fingerprints or any(len(one) != 8 for one in self.plain_fingerprints):
            raise PolicyConflict("plain_fingerprints are of 8 bytes and not that of sealed records", topic=self.topic)


class TopicReader:
    """One consumer or subscription of a topic, with its own memory of what it has seen.

    `open` as `TopicChannel.open`. `whole`: it reads every record of the topic (Kafka: of the partitions it has), so that
    `security.gap` means something; else gap is 0.
    """

    __slots__ = ("_marks", "_opener")

    def __init__(self, opener: Opener, *, whole: bool) -> None:
        self._opener = opener
        self._marks = Marks(whole=whole)

    def open(self, items: Sequence[Unopened], final: bool = False) -> list[Result]:
        """A result for each record, in order: `Opened`, a `RecordRefused` (returned, not raised) or `Behind`."""
        one, marks = self._opener.open, self._marks
        return [one(item, marks, final=final) for item in items]

    def forget(self, partition: int | None = None) -> None:
        """Forget what was seen of a partition that is assigned anew, or of all."""
        self._marks.forget(partition)


class TopicChannel:
    """Seals and opens the records of one topic.

    It reads `view` and its settings, nothing else. The agent assigns `view` as a whole after a transaction has committed,
    and `closed_by` with the error that sealing raises while this agent may not seal. `ready` is False while a sender has
    to wait. Neither copied nor pickled: a copy would seal under the same keys and nonces.
    """

    __slots__ = ("_closed_by", "_opener", "_reader", "_sealer", "_sealing", "_view", "ready", "settings")

    def __init__(self, settings: TopicSettings, random: Random) -> None:
        settings.check()
        headers = HeaderRules(settings.headers_plain, settings.headers_sealed)
        self.settings = settings
        self._sealer = Sealer(
            settings.topic, random=random, headers=headers, padding=settings.padding, signature_batch=settings.signature_batch
        )
        self._opener = Opener(
            settings.topic,
            headers=headers,
            plain=settings.plain_fingerprints if settings.plaintext_accepted else None,
            drop=settings.drop_duplicates,
        )
        self._reader = TopicReader(self._opener, whole=False)
        self._sealing: SealingEpoch | None = None
        self._closed_by: BrokerCryptoError | None = None
        self.view = GroupView(epochs={}, current=-1)

    @property
    def topic(self) -> str:
        """The policy's name of the topic, as it stands in every place."""
        return self.settings.topic

    @property
    def view(self) -> GroupView:
        """What this channel knows of its group."""
        return self._view

    @view.setter
    def view(self, view: GroupView) -> None:
        self._opener.enter(view)
        sealing = self._sealing
        if sealing is not None and (sealing.view is not view.sealing or sealing.leaf != view.leaf):
            self._sealing = None
        self._view = view
        self.ready = self._closed_by is None and view.sealing is not None

    @property
    def closed_by(self) -> BrokerCryptoError | None:
        """Why this agent does not seal; None where it may."""
        return self._closed_by

    @closed_by.setter
    def closed_by(self, error: BrokerCryptoError | None) -> None:
        self._closed_by = error
        self.ready = error is None and self._view.sealing is not None

    @property
    def headers_differ(self) -> int:
        """How many outer headers of opened records were not what their sealed copies say."""
        return self._opener.headers_differ

    def seal(self, items: Sequence[Unsealed]) -> list[Sealed]:
        """Seal (place, payload, headers or None) for the group, in order; one call is signed together.

        Raises `closed_by`, GroupNotReady, MayNotWrite, NotThisGroup, and UsageError for what no record can hold. Nothing is
        sealed then.
        """
        if self._closed_by is not None:
            raise self._closed_by.with_traceback(None)
        epoch = self._sealing
        if epoch is None:
            epoch = self._sealing = self._enter()
        return self._sealer.seal(epoch, items)

    def _enter(self) -> SealingEpoch:
        view = self._view
        if view.sealing is None or view.leaf is None or view.signature_private is None:
            raise GroupNotReady(topic=self.settings.topic)
        return SealingEpoch(view.sealing, self.settings.topic, view.leaf, view.signature_private)

    def open(self, items: Sequence[Unopened], final: bool = False) -> list[Result]:
        """Open (place, bytes, outer headers or None). A result each: `Opened`, a `RecordRefused` (returned, not raised) or `Behind`.

        `final`: the group log was read to its head after the records came, so `Behind` becomes EpochNotReached. Raises
        UsageError for a place of another topic.
        """
        return self._reader.open(items, final)

    def reader(self, *, whole: bool) -> TopicReader:
        """A reader with its own marks, for one consumer or subscription; keys and verified roots are shared."""
        return TopicReader(self._opener, whole=whole)

    def close(self, error: BrokerCryptoError) -> None:
        """Seal and open nothing any more: sealing raises `error`, every epoch is forgotten, its secrets are wiped."""
        sealing = self._sealing
        self.closed_by = error
        self.view = GroupView(epochs={}, current=-1)
        if sealing is not None:
            sealing.topic_keys.topic_secret.wipe()

    def redraw(self) -> None:
        """Seal in a new stream: the wall clock jumped against the monotonic one."""
        self._sealer.redraw()

    def signer_of(self, data: bytes) -> str | None:
        """The member that signed a record of an epoch number that is held under another id, by the roster held; else None.

        It needs none of the other epoch's keys, and costs a signature check: for alarms, not for every record.
        """
        try:
            prefix, rest = read_record(data)
        except RecordRefused:
            return None
        for view in self._view.epochs.values():
            entry = view.roster.get(prefix.leaf) if view.epoch == prefix.epoch else None
            if entry is not None:
                signed = signed_bytes(view.group_id) + root(leaf_hash(rest.header, rest.ciphertext), rest.batch_index, rest.batch_path)
                scheme = suite(view.suite).signature_scheme
                return entry.identity if scheme.verify(entry.signature_key, signed, rest.signature, low_s=True) else None
        return None

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a channel is neither pickled nor copied: two would seal under the same keys and nonces")

    def __copy__(self) -> NoReturn:
        raise TypeError("a channel is neither pickled nor copied: two would seal under the same keys and nonces")

    def __deepcopy__(self, memo: Any) -> NoReturn:
        raise TypeError("a channel is neither pickled nor copied: two would seal under the same keys and nonces")
