"""Opens the records of one topic, in this order (docs/topics.md, Opening):

1. decode       NotEncrypted, UnsupportedRecord, MalformedRecord
2. epoch        Relocated, NotThisGroup, KeyExpired, EpochNotReached (or Behind), NotAMemberAtEpoch, EpochMissed, UnknownEpoch
3. place        Relocated
4. AEAD         Tampered
5. signature    BadSignature
6. sender       NotAuthorised, RemovedSender
7. inside       MalformedRecord; UnsupportedRecord for a compressed record; Relocated for another reply subject
8. marks

What was derived or verified on the way is kept only when step 7 is through: a refusal leaves every cache and window as it
was, and nobody but a member who may write can fill them, each only its own part. A sender whose records have passed
before is found by the bytes of the record's prefix; for it steps 2 and 6 need no more than its fences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

from broker_crypto.channels.batch import leaf_hash, root
from broker_crypto.channels.headers import REPLY, HeaderRules
from broker_crypto.channels.inner import unwrap
from broker_crypto.channels.keys import TopicKeys, Where, signed_bytes
from broker_crypto.channels.marks import Marks
from broker_crypto.channels.record import MAGIC, Prefix, Rest, read_prefix, read_rest
from broker_crypto.crypto import InvalidTag
from broker_crypto.errors import (
    BadSignature,
    EpochMissed,
    EpochNotReached,
    KeyExpired,
    MalformedRecord,
    NotAMemberAtEpoch,
    NotAuthorised,
    NotThisGroup,
    RecordRefused,
    Relocated,
    RemovedSender,
    Tampered,
    UnknownEpoch,
    UsageError,
)
from broker_crypto.limits import MAX_RECORD, SENDER_KEYS, VERIFIED_ROOTS
from broker_crypto.records import Behind, EpochView, Fence, GroupView, Header, Opened, Place, RosterEntry, Security

Result = Opened | RecordRefused | Behind
Unopened = tuple[Place, bytes, Sequence[Header] | None]


class OpenEpoch:
    """One epoch of the view, and the topic's keys in it."""

    __slots__ = ("keys", "signed", "view")

    def __init__(self, view: EpochView, topic: str) -> None:
        self.view = view
        self.keys = TopicKeys(view, topic)
        self.signed = signed_bytes(view.group_id)


class Sender:
    """One sealing object in one epoch, for one partition: what steps 4 to 6 and 8 need of it."""

    __slots__ = ("base", "decrypt", "entry", "epoch", "fences", "leaf", "number", "record_ids", "roots", "vouched", "window")

    def __init__(self, epoch: OpenEpoch, topic: str, prefix: Prefix, partition: int, *, roots: dict[bytes, None]) -> None:
        leaf, view = prefix.leaf, epoch.view
        derived = epoch.keys.sender(leaf, prefix.stream, partition)
        self.epoch, self.leaf, self.number = epoch, leaf, view.epoch
        self.decrypt: Callable[[bytes, bytes, bytes], bytes] = epoch.keys.suite.cipher(derived.key).decrypt
        self.base = int.from_bytes(derived.base_nonce, "big")
        self.entry: RosterEntry | None = view.roster.get(leaf)
        self.fences: Sequence[Fence] = view.fences.get(leaf, ())
        self.window = prefix.stream + partition.to_bytes(4, "big", signed=True)
        self.record_ids = _record_ids(topic, prefix.epoch_id, leaf, self.window)
        self.vouched = b"" if self.entry is None else sha256(epoch.signed + self.entry.signature_key).digest()
        self.roots = roots


# Sender, fields, place hash; then what is new: the place, and the bytes of the prefix where the sender is.
Found = tuple[Sender, Rest, bytes, Where | None, bytes | None]


class LeafCache:
    """What is kept for one leaf: where its senders stand in the table, oldest first, and its verified roots."""

    __slots__ = ("roots", "senders")

    def __init__(self) -> None:
        self.senders: dict[tuple[int, bytes], None] = {}
        self.roots: dict[bytes, None] = {}


class Opener:
    """Caches and checks of one topic. What a reader has seen is in its own `Marks`.

    `plain` None refuses what is not sealed; else it holds the fingerprints (8 bytes) of foreign single-object encodings that
    are taken for plaintext too. `drop`: duplicates are not handed out. `headers_differ` counts outer headers that were not
    what their sealed copies say.
    """

    __slots__ = ("_drop", "_epochs", "_headers", "_leaves", "_lengths", "_plain", "_senders", "_view", "headers_differ", "topic")

    def __init__(self, topic: str, *, headers: HeaderRules, plain: frozenset[bytes] | None, drop: bool) -> None:
        self.topic = topic
        self.headers_differ = 0
        self._headers, self._plain, self._drop = headers, plain, drop
        self._view = GroupView(epochs={}, current=-1)
        self._epochs: dict[bytes, OpenEpoch] = {}
        self._senders: dict[int, dict[bytes, Sender]] = {}
        self._lengths: list[int] = []
        self._leaves: dict[int, LeafCache] = {}

    def open(self, item: Unopened, marks: Marks, *, final: bool) -> Result:
        """Open one record. Raises UsageError for one of another topic."""
        place, data, outer = item
        if place.topic != self.topic:
            raise UsageError("a record of another topic", topic=place.topic, expected=self.topic)
        if type(data) is not bytes:
            data = bytes(memoryview(data))
        try:
            found = self._known(place, data) or self._find(place, data, final=final)
            if isinstance(found, Behind):
                return found
            return self._pass(found, place, outer, marks)
        except RecordRefused as refusal:
            if self._plain is not None and _is_plain(data, self._plain):
                return Opened(data, outer, Security("plain"))
            return _placed(refusal, place, data)
        except IndexError:
            return _placed(MalformedRecord("the bytes end too early"), place, data)

    def _known(self, place: Place, data: bytes) -> Found | None:
        """Steps 1 to 3 for a sender whose records have passed before; None where it is not one."""
        senders = self._senders.get(place.partition)
        if senders is not None:
            for length in self._lengths:
                sender = senders.get(data[:length])
                if sender is not None:
                    rest = read_rest(data, length)
                    place_hash, where = _place_hash(sender.epoch.keys, place, rest.place)
                    return sender, rest, place_hash, where, None
        return None

    def _find(self, place: Place, data: bytes, *, final: bool) -> Found | Behind:
        """Steps 1 to 3 for a sender met for the first time."""
        prefix = read_prefix(data)
        rest = read_rest(data, prefix.end)
        epoch = self._epochs.get(prefix.epoch_id) or self._look_up(prefix, final=final)
        if isinstance(epoch, Behind):
            return epoch
        place_hash, where = _place_hash(epoch.keys, place, rest.place)
        leaf = self._leaves.get(prefix.leaf)
        sender = Sender(epoch, self.topic, prefix, place.partition, roots={} if leaf is None else leaf.roots)
        return sender, rest, place_hash, where, data[: prefix.end]

    def _look_up(self, prefix: Prefix, *, final: bool) -> OpenEpoch | Behind:
        """Step 2: the epoch by its id, or why it is not there."""
        view, number, name = self._view, prefix.epoch, prefix.epoch_id
        found = view.epochs.get(name)
        if found is not None:
            if self.topic not in found.topics:
                raise NotThisGroup
            return OpenEpoch(found, self.topic)
        if name in view.other_groups:
            raise Relocated("sealed for another group of this agent")
        if name in view.erased:
            raise KeyExpired
        if number > view.current:
            if final:
                raise EpochNotReached
            return Behind(self.topic, number, name)
        if any(first <= number <= last for first, last in view.absent):
            raise NotAMemberAtEpoch
        if any(first <= number <= last for first, last in view.missed):
            raise EpochMissed
        raise UnknownEpoch(epoch_id=name.hex(), current=number == view.current)

    def _pass(self, found: Found, place: Place, outer: Sequence[Header] | None, marks: Marks) -> Opened:
        """Steps 4 to 8. The caches and windows change at the end, where nothing can fail any more."""
        sender, rest, place_hash, where, stranger = found
        sequence, _, flags, header, ciphertext, index, path, signature = rest
        try:
            plaintext = sender.decrypt((sender.base ^ sequence).to_bytes(12, "big"), ciphertext, header + place_hash)
        except InvalidTag:
            raise Tampered from None
        node = root(leaf_hash(header, ciphertext), index, path)
        signed = b"".join((sender.vouched, node, signature))
        entry = sender.entry
        if entry is None:
            raise BadSignature("the leaf is not in the roster of the epoch")
        verified = signed not in sender.roots
        if verified and not sender.epoch.keys.suite.signature_scheme.verify(
            entry.signature_key, sender.epoch.signed + node, signature, low_s=True
        ):
            raise BadSignature
        if not entry.may_write:
            raise NotAuthorised(sender=entry.identity)
        if sender.fences:
            self._check_fences(sender.fences, place, entry.identity)
        inside, payload = (None, plaintext) if not flags and len(plaintext) <= MAX_RECORD else unwrap(flags, plaintext)
        headers: Sequence[Header] | None = inside
        if place.reply is not None:
            _check_reply(inside, place.reply)
        if outer:
            headers, differing = self._headers.merge(inside, outer)
            self.headers_differ += differing
        if verified or where is not None or stranger is not None:
            self._admit(sender, place, where, prefix=stranger, root=signed if verified else None)
        duplicate, gap = marks.see(sender.leaf, sender.window, sequence, sender.number, position=place.position)
        record_id = sender.record_ids + sequence.to_bytes(4, "big")
        security = tuple.__new__(Security, ("mls", entry.identity, sender.leaf, sender.number, record_id, duplicate, gap))
        return tuple.__new__(Opened, (payload, headers, security, (), None, duplicate and self._drop))

    def _check_fences(self, fences: Sequence[Fence], place: Place, identity: str) -> None:
        """Of several fences the strictest counts; what a fence does not name it refuses from position 0."""
        position = place.position
        for fence in fences:
            ends = None if position is None else fence.ends.get((self.topic, position[0]))
            if position is None or position[1] >= (0 if ends is None else ends.get(place.partition, 0)):
                raise RemovedSender(sender=identity)

    def _admit(self, sender: Sender, place: Place, where: Where | None, *, prefix: bytes | None, root: bytes | None) -> None:
        """Keep what a record that passed has shown; of each leaf the oldest gives way at the limit."""
        leaf = self._leaves.get(sender.leaf)
        if leaf is None:
            leaf = self._leaves[sender.leaf] = LeafCache()
            sender.roots = leaf.roots
        if root is not None:
            if len(leaf.roots) >= VERIFIED_ROOTS:
                del leaf.roots[next(iter(leaf.roots))]
            leaf.roots[root] = None
        if where is not None:
            sender.epoch.keys.remember(place.partition, place.subject, where)
        if prefix is not None:
            self._epochs[sender.epoch.view.epoch_id] = sender.epoch
            if len(leaf.senders) >= SENDER_KEYS:
                partition, oldest = next(iter(leaf.senders))
                del leaf.senders[partition, oldest]
                del self._senders[partition][oldest]
            leaf.senders[place.partition, prefix] = None
            self._senders.setdefault(place.partition, {})[prefix] = sender
            if len(prefix) not in self._lengths:
                self._lengths.append(len(prefix))

    def enter(self, view: GroupView) -> None:
        """Open by this view from now on. What was kept of epochs that are not in it, or are others in it, is dropped."""
        kept: dict[bytes, OpenEpoch] = {}
        for name, epoch in self._epochs.items():
            new = view.epochs.get(name)
            if new is not None and _same_epoch(epoch.view, new):
                epoch.view = new
                kept[name] = epoch
            else:
                epoch.keys.topic_secret.wipe()
        senders: dict[int, dict[bytes, Sender]] = {}
        leaves: dict[int, LeafCache] = {}
        for partition, table in self._senders.items():
            for prefix, sender in table.items():
                if kept.get(sender.epoch.view.epoch_id) is sender.epoch:
                    sender.fences = sender.epoch.view.fences.get(sender.leaf, ())
                    senders.setdefault(partition, {})[prefix] = sender
        for number, leaf in self._leaves.items():
            leaf.senders = {(partition, prefix): None for partition, prefix in leaf.senders if prefix in senders.get(partition, ())}
            if leaf.senders:
                leaves[number] = leaf
        self._lengths = sorted({len(prefix) for table in senders.values() for prefix in table})
        self._view, self._epochs, self._senders, self._leaves = view, kept, senders, leaves


def _place_hash(keys: TopicKeys, place: Place, hint: bytes) -> tuple[bytes, Where | None]:
    """Step 3: (place hash, the place where it is not kept yet)."""
    places = keys.places.get(place.partition)
    where, new = None if places is None else places.get(place.subject), None
    if where is None:
        where = new = keys.where(place.partition, place.subject)
    place_hash = where.unkeyed if place.key is None else where.place_hash(place.key)
    if place_hash[:4] != hint:
        raise Relocated
    return place_hash, new


def _check_reply(headers: Sequence[Header] | None, reply: str) -> None:
    """On core NATS the reply subject outside is the sealed one, or there is neither."""
    sealed = [value or b"" for name, value in headers or () if name == REPLY] or [b""]
    if any(value != reply.encode() for value in sealed):
        raise Relocated("the reply subject is not the sealed one")


def _same_epoch(old: EpochView, new: EpochView) -> bool:
    """Whether only fences differ; the id stands for the secret, which comes from the same exporter."""
    return old is new or (
        (old.epoch, old.suite, old.group_id, old.topics) == (new.epoch, new.suite, new.group_id, new.topics)
        and (old.roster is new.roster or dict(old.roster) == dict(new.roster))
    )


def _record_ids(topic: str, epoch_id: bytes, leaf: int, window: bytes) -> bytes:
    """What stands before the sequence (uint32) in the record ids of one stream and partition: 28 bytes."""
    name = topic.encode()
    parts = (b"broker_crypto record id v1", len(name).to_bytes(4, "big"), name, epoch_id, leaf.to_bytes(4, "big"), window)
    return sha256(b"".join(parts)).digest()[:28]


def _is_plain(data: bytes, fingerprints: frozenset[bytes]) -> bool:
    return data[:2] != MAGIC or data[2:10] in fingerprints


def _placed(refusal: RecordRefused, place: Place, data: bytes) -> RecordRefused:
    """The refusal with where the record lies and what it says of itself; without the frames that hold its content."""
    fields: dict[str, object] = {"topic": place.topic}
    fields |= {"partition": place.partition} if place.partition >= 0 else {"subject": place.subject}
    fields["position"] = None if place.position is None else place.position[1]
    try:
        prefix = read_prefix(data)
        fields |= {"epoch": prefix.epoch, "leaf": prefix.leaf}
    except (RecordRefused, IndexError):
        pass
    return type(refusal)(refusal.what, **fields | refusal.fields)
