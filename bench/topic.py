"""Topic records of 1 KiB sealed and opened in suite 1: ours, the bare primitives (bench/floor.py) and kafkacrypto.

One process on one core, the three in turn within every round, CPU time, medians of the rounds; nothing is left warm from one
round to the next. Ours goes through `TopicChannel.seal` and `open` as a connector calls them: lists of `batch` records, a
`Place` made for each inside the measured time. The floor gets its records ready-made.

kafkacrypto runs its own value serializer and deserializer (BLAKE2b key derivation, XSalsa20-Poly1305, msgpack); its class
that exchanges keys over Kafka is replaced by an object that holds the keys which that exchange would have left. It signs
nothing and has no batches, so its figure is the same work in every row; of a record with a key it encrypts the key as well,
which ours binds and leaves readable.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
import warnings
from collections.abc import Callable
from threading import Lock
from typing import Any, Protocol

from bench.floor import Floor
from bench.pinning import pinned
from broker_crypto.channels.batch import leaf_hash, root
from broker_crypto.channels.keys import TopicKeys
from broker_crypto.channels.topic import TopicChannel, TopicSettings
from broker_crypto.crypto import suite
from broker_crypto.records import EpochView, GroupView, Opened, Place, RosterEntry

PAYLOAD = 1024
RECORDS = 1920  # a multiple of 64
ROUNDS = 15
BATCHES = (1, 8, 64)
TOPIC, EPOCH, LEAF, PARTITION = "orders", 7, 5, 0

Record = tuple[bytes | None, bytes]  # key, payload


class Peer(Protocol):
    """What is measured: one sender and one reader, new for each round."""

    def seal(self, records: list[Record]) -> list[Any]: ...
    def open(self, records: list[Record], sealed: list[Any]) -> list[bytes]: ...


class Ours:
    """A channel that seals and one that opens, with the same view of one epoch."""

    def __init__(self, rng: random.Random) -> None:
        suite_one = suite(1)
        private, public = suite_one.signature_key_pair(rng.randbytes)
        roster = {leaf: RosterEntry(f"agent://acme/{leaf}", public if leaf == LEAF else rng.randbytes(32), True) for leaf in range(50)}
        view = EpochView(EPOCH, rng.randbytes(16), 1, rng.randbytes(32), rng.randbytes(32), roster, frozenset((TOPIC,)))
        group = GroupView({view.epoch_id: view}, EPOCH, view, LEAF, signature_private=private)
        self.sender, self.reader = (TopicChannel(TopicSettings(TOPIC), rng.randbytes) for _ in range(2))
        self.sender.view = self.reader.view = group
        self.offset = 0

    def seal(self, records: list[Record]) -> list[bytes]:
        return [sealed.data for sealed in self.sender.seal([(Place(TOPIC, PARTITION, "", key), payload, None) for key, payload in records])]

    def open(self, records: list[Record], sealed: list[bytes]) -> list[bytes]:
        items = []
        for (key, _), data in zip(records, sealed, strict=True):
            items.append((Place(TOPIC, PARTITION, "", key, ("identity", self.offset)), data, None))
            self.offset += 1
        return [opened.payload for opened in self.reader.open(items) if isinstance(opened, Opened)]


class Bare:
    """The floor under keys that derive as ours."""

    def __init__(self, rng: random.Random) -> None:
        view = EpochView(EPOCH, rng.randbytes(16), 1, rng.randbytes(32), rng.randbytes(32), {}, frozenset())
        keys, stream = TopicKeys(view, TOPIC), rng.randbytes(16)
        _, key, nonce = keys.sender(LEAF, stream, PARTITION)
        where = EPOCH, view.epoch_id, LEAF, stream, keys.place_key, PARTITION, b"", view.group_id
        self.floor = Floor(key, nonce, rng.randbytes(32), *where)
        self.sequence = 0

    def seal(self, records: list[Record]) -> list[bytes]:
        sealed = self.floor.seal(records, self.sequence)
        self.sequence += len(records)
        return sealed

    def open(self, records: list[Record], sealed: list[bytes]) -> list[bytes]:
        return [self.floor.open(key, data) for (key, _), data in zip(records, sealed, strict=True)]


class Exchanged:
    """Where kafkacrypto's serializers look for keys: those of one topic, known to producer and consumer."""

    def __init__(self, rng: random.Random) -> None:
        from kafkacrypto.keygenerator import KeyGenerator

        index, secret = rng.randbytes(32), rng.randbytes(32)
        self._lock = Lock()
        self._cur_pgens = {TOPIC: index}
        self._pgens, self._cgens = (
            {TOPIC: {index: dict(zip(("key", "value"), KeyGenerator.get_key_value_generators(secret), strict=True))}} for _ in range(2)
        )

    def get_root(self, topic: str) -> str:
        from kafkacrypto.base import KafkaCryptoBase

        self.TOPIC_SEPARATOR = KafkaCryptoBase.DEFAULTS["TOPIC_SEPARATOR"]
        return str(KafkaCryptoBase.get_root(self, topic))


class KafkaCrypto:
    """kafkacrypto's serializers and deserializers, as a Kafka client calls them: for the value, and for a key where there is one."""

    def __init__(self, rng: random.Random) -> None:
        from kafkacrypto.crypto import KafkaCrypto as Theirs

        keys = Exchanged(rng)
        self.key_out, self.key_in = Theirs.Serializer(keys, "key"), Theirs.Deserializer(keys, "key", 0, 1)
        self.value_out, self.value_in = Theirs.Serializer(keys, "value"), Theirs.Deserializer(keys, "value", 0, 1)

    def seal(self, records: list[Record]) -> list[tuple[bytes | None, bytes]]:
        return [(self.key_out.serialize(TOPIC, key), self.value_out.serialize(TOPIC, payload)) for key, payload in records]

    def open(self, records: list[Record], sealed: list[tuple[bytes | None, bytes]]) -> list[bytes]:
        opened = []
        for key, value in sealed:
            if key is not None:
                self.key_in.deserialize(TOPIC, key).getMessage()
            opened.append(self.value_in.deserialize(TOPIC, value).getMessage())
        return opened


def peers() -> dict[str, Callable[[random.Random], Peer]]:
    """Ours first; kafkacrypto where it can be imported (it needs libsodium and a Kafka client)."""
    found: dict[str, Callable[[random.Random], Peer]] = {"broker_crypto": Ours, "floor": Bare}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            KafkaCrypto(random.Random(0))
        found["kafkacrypto"] = KafkaCrypto
    except (ImportError, OSError) as missing:
        print(f"kafkacrypto is not measured: {missing}")
    return found


def timed(peer: Peer, records: list[Record], batch: int) -> tuple[float, float]:
    """(seal, open) in CPU seconds; what comes out is compared."""
    starts = range(0, len(records), batch)
    batches = [records[start : start + batch] for start in starts]
    gc.collect()
    gc.disable()
    begun = time.process_time()
    sealed = [peer.seal(one) for one in batches]
    between = time.process_time()
    opened = [peer.open(one, data) for one, data in zip(batches, sealed, strict=True)]
    ended = time.process_time()
    gc.enable()
    if [payload for one in opened for payload in one] != [payload for _, payload in records]:
        raise RuntimeError("what was opened is not what was sealed")
    return between - begun, ended - between


def measure(rng: random.Random, keyed: bool, batch: int) -> list[dict[str, Any]]:
    """Two rows, seal and open, of one kind of record."""
    records = [(rng.randbytes(16) if keyed else None, rng.randbytes(PAYLOAD)) for _ in range(RECORDS)]
    taken: dict[str, list[tuple[float, float]]] = {}
    names = list(peers().items())
    for round_ in range(ROUNDS):
        for name, make in names[round_ % len(names) :] + names[: round_ % len(names)]:
            taken.setdefault(name, []).append(timed(make(rng), records, batch))
    at_least = 0.65 if batch == 1 else 0.5
    targets = [{"of": "floor", "at_least": at_least}]
    if batch > 1:
        targets.append({"of": "kafkacrypto", "at_least": 1.0})
    ordered = [name for name, _ in names]
    return [
        {
            "work": f"{work}, batch {batch}{', keyed' if keyed else ''}",
            "values": {name: RECORDS / statistics.median(times[which] for times in taken[name]) for name in ordered},
            "targets": targets,
        }
        for which, work in enumerate(("seal", "open"))
    ]


def primitives(rng: random.Random) -> dict[str, float]:
    """CPU microseconds of what a record cannot do without, medians: what is above them is ours, what is below nobody reaches."""
    one, payload, node = suite(1), rng.randbytes(PAYLOAD), rng.randbytes(32)
    private, public = one.signature_key_pair(rng.randbytes)
    sign, verify = one.signer(private), one.signature_scheme.verify
    signed, cipher, header = sign(payload[:98]), one.cipher(rng.randbytes(16)), payload[:85]
    sealed = cipher.encrypt(node[:12], payload, header)
    calls: dict[str, Callable[[], object]] = {
        "Ed25519 sign": lambda: sign(payload[:98]),
        "Ed25519 verify": lambda: verify(public, payload[:98], signed),
        "AES-128-GCM encrypt": lambda: cipher.encrypt(node[:12], payload, header),
        "AES-128-GCM decrypt": lambda: cipher.decrypt(node[:12], sealed, header),
        "SHA-256 of a record": lambda: leaf_hash(header, sealed),
        "SHA-256 of a node": lambda: root(node, 0, node),
    }
    taken = {}
    for name, call in calls.items():
        times = []
        for _ in range(ROUNDS):
            begun = time.process_time()
            for _ in range(400):
                call()
            times.append((time.process_time() - begun) / 400 * 1e6)
        taken[name] = round(statistics.median(times), 2)
    return taken


def least(cost: dict[str, float], batch: int) -> dict[str, float]:
    """CPU microseconds a record of the primitives alone, without a line of Python around them."""
    nodes, shared = (batch - 1).bit_length(), (batch - 1) / batch
    seal = cost["AES-128-GCM encrypt"] + cost["SHA-256 of a record"] + shared * cost["SHA-256 of a node"] + cost["Ed25519 sign"] / batch
    opened = cost["AES-128-GCM decrypt"] + cost["SHA-256 of a record"] + nodes * cost["SHA-256 of a node"] + cost["Ed25519 verify"] / batch
    return {"seal": round(seal, 2), "open": round(opened, 2)}


def run() -> dict[str, Any]:
    """The table of `python -m bench topic`; its JSON also says what the primitives alone cost in the same process."""
    rng = random.Random(1)
    with pinned() as core:
        rows = [row for keyed in (False, True) for batch in BATCHES for row in measure(rng, keyed, batch)]
        cost = primitives(rng)
    return {
        "title": "topic record, 1 KiB, suite 1",
        "unit": "records/s of CPU time",
        "rows": rows,
        "core": core,
        "rounds": ROUNDS,
        "microseconds": {"primitives": cost, "a record, primitives alone": {f"batch {batch}": least(cost, batch) for batch in BATCHES}},
    }
