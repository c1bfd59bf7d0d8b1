"""Topic records that no channel seals: right in everything but one thing, sealed and signed over what they say.

The builder does not use the product's own: it writes the format of docs/topics.md once more, with a place to bend for each part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from broker_crypto.channels.keys import TopicKeys
from broker_crypto.channels.record import MARKER
from broker_crypto.records import EpochView, Fence, GroupView, Place
from tests.support.lies.scribe import same
from tests.support.topic_world import TOPIC, World, place

WRITER, OTHER, MUTE = 0, 1, 2  # leaves of the world: the last may only read
HERE = place(10)
FENCED_FROM = 11


def zigzag(value: int) -> bytes:
    """An Avro int or long of whatever size and sign."""
    number = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def longer(value: int) -> bytes:
    """The same number in a byte more than it needs."""
    written = zigzag(value)
    return written[:-1] + bytes((written[-1] | 0x80, 0))


def v(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


class RecordScene:
    """Epochs of every kind, the view of one who reads, and who writes in them.

    `current` and `fenced` (from FENCED_FROM on for the writer) are held, and `unlisted`, whose policy does not know the topic;
    `later` is not read yet, `early` and `missed` are epochs without this reader, `erased` one whose keys are gone, `unknown` one
    of a number that is held under another id, `foreign` one of another group of this agent.
    """

    def __init__(self, number: int = 1) -> None:
        self.world = World(number)
        ends: Mapping[tuple[str, str], Mapping[int, int]] = {(TOPIC, "stream 1"): {-1: FENCED_FROM}}
        epoch = self.world.epoch
        self.epochs: dict[str, EpochView] = {
            "current": epoch(6),
            "fenced": epoch(5, fences={WRITER: [Fence(ends)]}),
            "unlisted": epoch(4, topics=frozenset({"invoices"})),
            "erased": epoch(3),
            "missed": epoch(2),
            "early": epoch(1),
            "later": epoch(7),
            "unknown": epoch(6),
            "foreign": epoch(6, group_id=bytes(32)),
        }

    def view(self, leaf: int) -> GroupView:
        held = [self.epochs[name] for name in ("unlisted", "fenced", "current")]
        return self.world.view(
            leaf,
            epochs=held,
            absent=[(0, 1)],
            missed=[(2, 2)],
            erased=frozenset({self.epochs["erased"].epoch_id}),
            other_groups=frozenset({self.epochs["foreign"].epoch_id}),
        )

    def channel(self, leaf: int, **settings: Any) -> Any:
        return self.world.channel(leaf, view=self.view(leaf), **settings)


@dataclass(frozen=True, kw_only=True)
class RecordBend:
    """Where a record is bent, in the order in which it is made.

    `fields` of the header, and `spelled` their raw encodings, are sealed and signed as they stand. `sealed_for` is the place
    that is sealed, `hinted_for` (the same) the one whose hash stands in the record, as `hint` leaves it; `sealing_leaf` whose
    keys seal. `signed_group`, `signed_by` and `label` are what the signature is over and by whom; `batch` (index, path) leads
    to the root that is signed, `said_batch` is what the record says.
    """

    epoch: str = "current"
    fields: Mapping[str, Any] = field(default_factory=dict)
    spelled: Mapping[str, bytes] = field(default_factory=dict)
    sealed_for: Place | None = None
    hinted_for: Place | None = None
    hint: Callable[[bytes], bytes] = same
    sealing_leaf: int | None = None
    plaintext: bytes = b"payload"
    ciphertext: Callable[[bytes], bytes] = same
    batch: tuple[int, bytes] = (0, b"")
    said_batch: tuple[int, bytes] | None = None
    signed_group: bytes | None = None
    label: str = "broker_crypto batch v1"
    signed_by: int | None = None
    signature: Callable[[bytes], bytes] = same
    encoded: Callable[[bytes], bytes] = same


def write(scene: RecordScene, **bent: Any) -> bytes:
    """One record; unbent it opens. `bent` are fields of `RecordBend`."""
    bend = RecordBend(**bent)
    view, world = scene.epochs[bend.epoch], scene.world
    where, keys = bend.sealed_for or HERE, TopicKeys(view, TOPIC)
    place_hash = _place_hash(keys.place_key, where)
    said = {"epoch": view.epoch, "leaf": WRITER, "stream": world.random.randbytes(16), "sequence": 0, "flags": 0, **bend.fields}
    derived = keys.sender(said["leaf"] % 2**32 if bend.sealing_leaf is None else bend.sealing_leaf, said["stream"], where.partition)
    hint = _place_hash(keys.place_key, bend.hinted_for or where)[:4]
    header = _header(view, said, bend.spelled, bend.hint(hint))
    nonce = (int.from_bytes(derived.base_nonce, "big") ^ said["sequence"] % 2**64).to_bytes(len(derived.base_nonce), "big")
    ciphertext = bend.ciphertext(keys.suite.cipher(derived.key).encrypt(nonce, bend.plaintext, header + place_hash))
    root = _root(sha256(b"\x00" + header + ciphertext).digest(), *bend.batch)
    signer = world.private[said["leaf"] % len(world.private) if bend.signed_by is None else bend.signed_by]
    signed = v(view.group_id if bend.signed_group is None else bend.signed_group) + root
    signature = bend.signature(keys.suite.sign_with_label(signer, bend.label, signed))
    index, path = bend.said_batch or bend.batch
    parts = {"size": len(ciphertext), "index": index, "path": len(path), "end": len(signature)}
    number = {name: bend.spelled.get(name, zigzag(value)) for name, value in parts.items()}
    behind = number["size"] + ciphertext + number["index"] + number["path"] + path + number["end"] + signature
    return bend.encoded(header + behind)


def _header(view: EpochView, said: Mapping[str, Any], spelled: Mapping[str, bytes], hint: bytes) -> bytes:
    number = {name: spelled.get(name, zigzag(said[name])) for name in ("epoch", "leaf", "sequence", "flags")}
    return b"".join((MARKER, number["epoch"], view.epoch_id, number["leaf"], said["stream"], number["sequence"], hint, number["flags"]))


def _place_hash(place_key: bytes, where: Place) -> bytes:
    keyed = b"\x00" + v(b"") if where.key is None else b"\x01" + v(where.key)
    number = where.partition.to_bytes(4, "big", signed=True)
    return sha256(place_key + b"broker_crypto place v1" + number + v(where.subject.encode()) + keyed).digest()


def _root(leaf: bytes, index: int, path: bytes) -> bytes:
    for at in range(0, len(path), 32):
        sibling = path[at : at + 32]
        leaf = sha256(b"\x01" + (sibling + leaf if index & 1 else leaf + sibling)).digest()
        index >>= 1
    return leaf


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes((data[-1] ^ 1,))


def moved(**changes: Any) -> Place:
    """Another place than the one where records are read."""
    return HERE._replace(**changes)
