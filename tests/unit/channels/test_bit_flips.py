"""Every single-bit flip of one record ends in a typed error, changes nothing, and the genuine one then opens."""

from __future__ import annotations

from collections import Counter

import pytest

from broker_crypto.channels.record import read_record
from broker_crypto.errors import (
    BadSignature,
    EpochNotReached,
    MalformedRecord,
    NotAMemberAtEpoch,
    NotEncrypted,
    RecordRefused,
    Relocated,
    Tampered,
    UnknownEpoch,
    UnsupportedRecord,
)
from tests.support.snapshot import snapshot
from tests.support.topic_world import World, opened, place, sealed

HEADERS = [("authorization", b"Bearer x"), ("traceparent", b"00-1-2-03")]
HERE = place(17, key=b"k")


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("caches", ["empty", "full"])
def test_every_single_bit_flip_of_a_record_is_refused_and_changes_nothing(number: int, caches: str) -> None:
    world = World(number)
    records = sealed(world.channel(0, padding=32), b"five", b"records", b"signed", b"in one", b"batch", headers=HEADERS, to=place(key=b"k"))
    genuine = records[2]
    reader = world.channel(1)
    if caches == "full":
        for at, data in enumerate(records[:2] + records[3:]):
            opened(reader, data, place(at, key=b"k"))
    before, refusals = snapshot(reader), Counter[type[RecordRefused]]()
    for bit in range(8 * len(genuine)):
        flipped = bytearray(genuine)
        flipped[bit // 8] ^= 1 << bit % 8
        [result] = reader.open([(HERE, bytes(flipped), HEADERS[1:])], final=True)
        assert isinstance(result, RecordRefused), (bit, result)
        assert type(result) is not RecordRefused
        assert (result.fields["topic"], result.fields["position"]) == ("orders", 17)
        refusals[type(result)] += 1
        if bit % 64 == 0 or caches == "empty":
            assert snapshot(reader) == before, bit
    assert snapshot(reader) == before
    assert sum(refusals.values()) == 8 * len(genuine)
    said = opened(reader, genuine, HERE)
    assert (said.payload, said.headers, said.security.duplicate) == (b"signed", HEADERS, False)
    assert snapshot(reader) != before

    _, rest = read_record(genuine)
    by_header = {NotEncrypted, UnsupportedRecord, MalformedRecord, EpochNotReached, NotAMemberAtEpoch, UnknownEpoch}
    assert set(refusals) <= by_header | {Relocated, Tampered, BadSignature}
    assert refusals[NotEncrypted] == 16
    assert refusals[Relocated] == 32
    assert refusals[Tampered] >= 8 * (len(rest.ciphertext) + 16)
    # DER's own lengths and integers apart, whatever is flipped in path or signature is a signature that does not hold.
    assert refusals[BadSignature] >= 8 * (len(rest.batch_path) + len(rest.signature))


def test_a_snapshot_sees_what_a_single_opened_record_changes() -> None:
    world = World()
    first, second = sealed(world.channel(), b"1", b"2")
    reader = world.channel(1)
    seen = [snapshot(reader)]
    for at, data in enumerate((first, second)):
        opened(reader, data, place(at))
        seen.append(snapshot(reader))
    assert len({repr(one) for one in seen}) == 3
