"""What can be wrong with a topic record: one switch for each check of docs/topics.md, in the order of opening."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from broker_crypto import errors, limits
from broker_crypto.records import Place
from tests.support import certificates as der
from tests.support.lies.topic_records import HERE, MUTE, OTHER, RecordScene, flipped, longer, moved, write

Refusal = type[errors.RecordRefused]


@dataclass(frozen=True)
class WrongRecord:
    """`bent` says what is wrong (fields of RecordBend), `step` of opening finds it, `error` and what it says name it.

    `at` is where it is read. `suites`: where it can be written at all.
    """

    name: str
    step: int
    error: Refusal
    bent: Mapping[str, Any]
    what: str = ""
    at: Place = HERE
    suites: tuple[int, ...] = (1, 2)

    def write(self, scene: RecordScene, **more: Any) -> bytes:
        return write(scene, **{**self.bent, **more})


RECORDS: list[WrongRecord] = []


def wrong(step: int, error: Refusal, name: str, *, what: str = "", at: Place = HERE, suites: tuple[int, ...] = (1, 2), **bent: Any) -> None:
    """`step` of opening refuses it with `error`, which says `what`."""
    RECORDS.append(WrongRecord(name, step, error, bent, what, at, suites))


def malformed(name: str, what: str, **bent: Any) -> None:
    wrong(1, errors.MalformedRecord, name, what=what, **bent)


def spelled(name: str, value: int) -> dict[str, Any]:
    return {"spelled": {name: longer(value)}}


def cut(size: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:size]


# 1. decode
FOREIGN = "the fingerprint is not that of a schema known here"
wrong(1, errors.NotEncrypted, "no marker", encoded=lambda data: b"\x00" + data[1:])
wrong(1, errors.NotEncrypted, "nothing", encoded=cut(0))
wrong(1, errors.NotEncrypted, "half a marker", encoded=cut(1))
wrong(1, errors.UnsupportedRecord, "another schema", what=FOREIGN, encoded=lambda data: data[:9] + flipped(data[9:10]) + data[10:])
wrong(1, errors.UnsupportedRecord, "half a fingerprint", what=FOREIGN, encoded=cut(9))
wrong(1, errors.UnsupportedRecord, "a flag to come", what="a flag that this version does not know", fields={"flags": 8})
RANGE = "epoch or leaf out of range"
malformed("an epoch below 0", RANGE, fields={"epoch": -1})
malformed("a leaf below 0", RANGE, fields={"leaf": -1}, sealing_leaf=0)
malformed("a leaf beyond int", RANGE, fields={"leaf": limits.MAX_LEAF + 1})
malformed("a sequence below 0", "sequence out of range", fields={"sequence": -1})
malformed("a sequence beyond 32 bits", "sequence out of range", fields={"sequence": limits.MAX_SEQUENCE + 1})
malformed("flags beyond int", "flags out of range", fields={"flags": 2**31})
LONG = "a varint is not minimal or beyond 64 bits"
malformed("an epoch in a longer encoding", LONG, **spelled("epoch", 6))
malformed("a leaf in a longer encoding", LONG, **spelled("leaf", 0))
malformed("a sequence in a longer encoding", LONG, **spelled("sequence", 0))
malformed("flags in a longer encoding", LONG, **spelled("flags", 0))
malformed("an epoch beyond 64 bits", LONG, spelled={"epoch": b"\xff" * 9 + b"\x7f"})
malformed("an epoch of eleven bytes", "a varint is too long", spelled={"epoch": b"\xff" * 10 + b"\x01"})
malformed("a ciphertext shorter than its tag", "a ciphertext shorter than its tag", ciphertext=cut(15))
malformed("a ciphertext of a negative length", "a ciphertext shorter than its tag", spelled={"size": b"\x01"})
PATH = "batch_path is no path of 0 to 6 hashes, or batch_index does not fit it"
malformed("a path of seven hashes", PATH, batch=(0, bytes(7 * 32)))
malformed("a path of half a hash", PATH, batch=(0, bytes(16)))
malformed("an index beyond the batch", PATH, batch=(2, bytes(32)))
malformed("an index where there is no batch", PATH, batch=(1, b""))
malformed("an index below 0", PATH, spelled={"index": b"\x01"})
malformed("an index in a longer encoding", PATH, **spelled("index", 0))
malformed("a path length in a longer encoding", PATH, **spelled("path", 0))
END = "the signature is empty or does not end with the record"
malformed("no signature", END, signature=cut(0))
malformed("a byte behind the record", END, encoded=lambda data: data + b"\x00")
malformed("a record without its last byte", END, encoded=cut(-1))
malformed("a record of a marker", "the bytes end too early", encoded=cut(10))
malformed("a record cut in its ciphertext", "the bytes end too early", encoded=cut(70))

# 2. epoch
wrong(2, errors.Relocated, "an epoch of another group", what="sealed for another group of this agent", epoch="foreign")
wrong(2, errors.NotThisGroup, "an epoch that does not list the topic", epoch="unlisted")
wrong(2, errors.KeyExpired, "an epoch whose keys are erased", epoch="erased")
wrong(2, errors.EpochNotReached, "an epoch to come", epoch="later")
wrong(2, errors.NotAMemberAtEpoch, "an epoch before this member", epoch="early")
wrong(2, errors.EpochMissed, "an epoch from which this member was locked out", epoch="missed")
wrong(2, errors.UnknownEpoch, "another epoch of our number", epoch="unknown")

# 3. place
wrong(3, errors.Relocated, "another subject", sealed_for=moved(subject="orders.other"))
wrong(3, errors.Relocated, "another partition", sealed_for=moved(partition=0))
wrong(3, errors.Relocated, "a key where there was none", at=moved(key=b""))
wrong(3, errors.Relocated, "another key", sealed_for=moved(key=b"one"), at=moved(key=b"other"))
wrong(3, errors.Relocated, "a hint that is not that of its place", hint=flipped)

# 4. AEAD
wrong(4, errors.Tampered, "a ciphertext changed and signed again", ciphertext=flipped)
wrong(4, errors.Tampered, "a place that only the hint fits", sealed_for=moved(subject="orders.other"), hinted_for=HERE)
wrong(4, errors.Tampered, "the keys of another leaf", sealing_leaf=OTHER)

# 5. signature
wrong(5, errors.BadSignature, "signed by another member", signed_by=OTHER)
wrong(5, errors.BadSignature, "a signature changed", signature=flipped)
wrong(5, errors.BadSignature, "a signature of one byte", signature=cut(1))
wrong(5, errors.BadSignature, "signed for another group", signed_group=bytes(32))
wrong(5, errors.BadSignature, "signed under another label", label="broker_crypto leave v1")
wrong(5, errors.BadSignature, "a path that leads to another root", batch=(0, bytes(32)), said_batch=(0, bytes(31) + b"\x01"))
wrong(5, errors.BadSignature, "another index in the batch", batch=(0, bytes(32)), said_batch=(1, bytes(32)))
wrong(5, errors.BadSignature, "a leaf that is not there", what="the leaf is not in the roster of the epoch", fields={"leaf": 9})


def _small_order(signature: bytes) -> bytes:
    """An R of small order, which libsodium takes from nobody."""
    return bytes((1,)) + bytes(31) + signature[32:]


def _malleated(signature: bytes) -> bytes:
    """The other ECDSA signature of the same content: s becomes n - s."""
    size = signature[3]
    r, s = signature[2 : 4 + size], signature[6 + size :]
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    return der.tlv(0x30, r, der.integer(order - int.from_bytes(s, "big")))


wrong(5, errors.BadSignature, "a point of small order", signature=_small_order, suites=(1,))
wrong(5, errors.BadSignature, "the other signature of the same content", signature=_malleated, suites=(2,))

# 6. sender
wrong(6, errors.NotAuthorised, "a reader that writes", fields={"leaf": MUTE})
wrong(6, errors.RemovedSender, "at the fence", epoch="fenced", at=moved(position=("stream 1", 11)))
wrong(6, errors.RemovedSender, "behind the fence", epoch="fenced", at=moved(position=("stream 1", 2**63)))
wrong(6, errors.RemovedSender, "in a stream that the fence does not name", epoch="fenced", at=moved(position=("stream 2", 0)))
wrong(6, errors.RemovedSender, "where nothing has a position", epoch="fenced", at=moved(position=None))

# 7. inside
PADDING = "the padding is not 80 and zeros"
HEADERS_CUT = "the sealed headers end too early"


def inside(name: str, what: str, flags: int, plaintext: bytes) -> None:
    wrong(7, errors.MalformedRecord, name, what=what, fields={"flags": flags}, plaintext=plaintext)


def sealed_headers(block: bytes) -> bytes:
    return len(block).to_bytes(4, "big") + block + b"payload"


inside("padding of nothing", PADDING, 2, b"")
inside("padding without its 80", PADDING, 2, b"payload" + bytes(8))
inside("padding that does not end in zeros", PADDING, 2, b"payload\x80\x00\x01")
inside("headers without their length", HEADERS_CUT, 4, b"\x00\x00")
inside("headers longer than the record", HEADERS_CUT, 4, b"\x00\x00\x01\x00")
inside("headers shorter than they say", HEADERS_CUT, 4, b"\x00\x00\x01\x00\x00")
inside("headers that end in a name", "a sealed header ends too early", 4, sealed_headers(b"\x02\x08ab"))
inside("headers that end before a value", HEADERS_CUT, 4, sealed_headers(b"\x02\x02a"))
inside("a header count that cannot be", "a header block with a count that cannot be", 4, sealed_headers(b"\x01\x02a\x00\x00"))
inside("a header value of an unknown type", "a header value of an unknown type", 4, sealed_headers(b"\x02\x02a\x04\x00"))
inside("headers in two blocks", "more than one block of headers", 4, sealed_headers(b"\x02\x02a\x00\x02\x02b\x00\x00"))
inside("a header name that is no text", "a header name is not UTF-8", 4, sealed_headers(b"\x02\x02\xff\x00\x00"))
inside("a byte behind the headers", "bytes behind the sealed headers", 4, sealed_headers(b"\x02\x02a\x00\x00\x00"))
inside("a header length in a longer encoding", LONG, 4, sealed_headers(b"\x82\x00\x02a\x00\x00"))
inside("more than a record may hold", "headers and payload are more than a record may hold", 0, bytes(limits.MAX_RECORD + 1))
inside(
    "more than a padded record may hold", "headers and payload are more than a record may hold", 2, bytes(limits.MAX_RECORD + 1) + b"\x80"
)
wrong(
    7,
    errors.UnsupportedRecord,
    "a compressed record",
    what="the record is compressed, which this version does not read",
    fields={"flags": 1},
)
REPLY = "the reply subject is not the sealed one"
wrong(7, errors.Relocated, "a reply subject that is not sealed", what=REPLY, at=moved(reply="reply.to"))
wrong(
    7,
    errors.Relocated,
    "another reply subject than the sealed one",
    what=REPLY,
    at=moved(reply="reply.to"),
    fields={"flags": 4},
    plaintext=sealed_headers(b"\x02\x1aNats-Reply-To\x02\x0aother\x00"),
)
