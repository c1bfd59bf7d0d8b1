"""Streams, sequences and batches; who may seal, and what cannot be sealed."""

from __future__ import annotations

import copy
import os
import pickle
import threading
from dataclasses import replace
from typing import Any

import pytest

from broker_crypto.channels import sealing
from broker_crypto.channels.record import Prefix, Rest, read_record
from broker_crypto.channels.topic import TopicChannel, TopicSettings
from broker_crypto.errors import AgentClosed, GroupNotReady, LockedOut, MayNotWrite, NotBuilt, NotThisGroup, PolicyConflict, UsageError
from broker_crypto.limits import MAX_RECORD
from broker_crypto.records import Behind, Header, Place
from tests.support.snapshot import snapshot
from tests.support.topic_world import READER, TOPIC, World, opened, place, sealed


def parts(channel: TopicChannel, count: int, to: Place | None = None) -> list[tuple[Prefix, Rest]]:
    return [read_record(data) for data in sealed(channel, *[b"x"] * count, to=to)]


def used(records: list[tuple[Prefix, Rest]]) -> list[tuple[bytes, int]]:
    """(stream, sequence) of each record."""
    return [(prefix.stream, rest.sequence) for prefix, rest in records]


# --- keys and nonces never meet twice -----------------------------------------------------------------------------


def test_every_sealing_object_draws_its_own_stream() -> None:
    world = World()
    streams = {parts(world.channel(), 1)[0][0].stream for _ in range(50)}
    assert len(streams) == 50


def test_a_sequence_counts_from_0_for_each_partition_and_goes_on_when_the_epoch_changes() -> None:
    world = World()
    channel = world.channel(view=world.view(sealing=world.epochs[0]))
    first = [parts(channel, 3, place(partition=0)), parts(channel, 2, place(partition=1))]
    channel.view = world.view(sealing=world.epochs[1])
    then = [parts(channel, 2, place(partition=0)), parts(channel, 1, place(partition=1)), parts(channel, 1, place(partition=2))]
    assert [[rest.sequence for _, rest in batch] for batch in (*first, *then)] == [[0, 1, 2], [0, 1], [3, 4], [2], [0]]
    assert {prefix.stream for batch in (*first, *then) for prefix, _ in batch} == {first[0][0][0].stream}
    assert [{prefix.epoch for prefix, _ in batch} for batch in (*first, *then)] == [{5}, {5}, {6}, {6}, {6}]


def test_a_view_that_comes_again_with_other_fences_takes_no_sequence_twice() -> None:
    world = World()
    channel = world.channel()
    seen = used(parts(channel, 2))
    for _ in range(3):
        world.epochs = [replace(epoch) for epoch in world.epochs]
        channel.view = world.view()
        seen += used(parts(channel, 2))
    assert len(set(seen)) == len(seen) == 8


def test_threads_that_seal_at_once_share_no_sequence() -> None:
    channel = World().channel()
    channel.seal([])
    seen: list[tuple[bytes, int]] = []
    together = threading.Barrier(4)

    def work() -> None:
        together.wait()
        for _ in range(40):
            seen.extend(used(parts(channel, 3)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == len(seen) == 4 * 40 * 3
    assert sorted(sequence for _, sequence in seen) == list(range(480))


def test_a_stream_is_drawn_anew_before_its_sequences_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MAX_SEQUENCE", 6)
    channel = World().channel()
    seen = [used(parts(channel, 3)) for _ in range(4)]
    assert [[sequence for _, sequence in batch] for batch in seen] == [[0, 1, 2], [3, 4, 5], [0, 1, 2], [3, 4, 5]]
    streams = [{stream for stream, _ in batch} for batch in seen]
    assert streams[0] == streams[1] != streams[2] == streams[3]
    with pytest.raises(UsageError):
        parts(channel, 8)
    assert used(parts(channel, 1))[0][0] not in streams[0] | streams[2]


def test_a_stream_is_drawn_anew_before_too_much_is_sealed_under_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "STREAM_BYTES", 100)
    world = World()
    channel, reader = world.channel(), world.channel(1)
    written = [sealed(channel, bytes(40))[0] for _ in range(5)]
    assert [read_record(data)[1].sequence for data in written] == [0, 1, 0, 1, 0]
    assert len({read_record(data)[0].stream for data in written}) == 3
    assert all(opened(reader, data).payload == bytes(40) for data in written)


def test_a_clock_that_jumped_draws_another_stream_in_which_others_read_on() -> None:
    world = World()
    channel, reader = world.channel(), world.channel(1)
    before = sealed(channel, b"before")[0]
    channel.redraw()
    after = sealed(channel, b"after")[0]
    assert read_record(before)[0].stream != read_record(after)[0].stream
    assert read_record(after)[1].sequence == 0
    assert [opened(reader, data).payload for data in (before, after)] == [b"before", b"after"]


def test_a_forked_child_seals_in_another_stream_even_if_the_lock_was_held() -> None:
    world = World()
    channel = TopicChannel(TopicSettings(TOPIC), os.urandom)
    channel.view = world.view()
    mine = sealed(channel, b"parent")[0]
    source, target = os.pipe()
    with channel._sealer._lock:
        child = os.fork()
        if not child:  # the child: whatever happens here must end here
            try:
                os.write(target, sealed(channel, b"child")[0])
            finally:
                os._exit(0)
    os.close(target)
    with os.fdopen(source, "rb") as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    assert read_record(theirs)[0].stream != read_record(mine)[0].stream
    assert opened(world.channel(1), theirs).payload == b"child"
    assert used([read_record(sealed(channel, b"again")[0])]) == [(read_record(mine)[0].stream, 1)]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_channel_is_neither_copied_nor_pickled(duplicate: Any) -> None:
    with pytest.raises(TypeError, match="same keys and nonces"):
        duplicate(World().channel())


def test_a_source_of_randomness_that_gives_too_little_is_not_used() -> None:
    with pytest.raises(UsageError):
        TopicChannel(TopicSettings(TOPIC), lambda n: bytes(n - 1))


# --- batches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "batches"), [(1, [1]), (64, [64]), (65, [64, 1]), (130, [64, 64, 2])])
def test_one_call_is_signed_together_at_most_64_records(count: int, batches: list[int]) -> None:
    records = parts(World().channel(), count)
    signatures = list(dict.fromkeys(rest.signature for _, rest in records))
    assert [sum(rest.signature == one for _, rest in records) for one in signatures] == batches
    assert [rest.sequence for _, rest in records] == list(range(count))
    assert len(records[0][1].batch_path) == 32 * (batches[0] - 1).bit_length()


def test_signature_batch_bounds_what_is_signed_together() -> None:
    records = parts(World().channel(signature_batch=3), 7)
    assert [len({rest.signature for _, rest in records[at : at + 3]}) for at in (0, 3, 6)] == [1, 1, 1]
    assert len({rest.signature for _, rest in records}) == 3


def test_records_for_several_partitions_and_subjects_are_signed_together() -> None:
    world = World()
    to = [place(partition=partition, subject=subject) for partition in (0, 1) for subject in ("", "orders.b")]
    written = world.channel().seal([(one, str(one).encode(), None) for one in to])
    assert len({read_record(one.data)[1].signature for one in written}) == 1
    reader = world.channel(1)
    assert [opened(reader, one.data, at).payload for one, at in zip(written, to, strict=True)] == [str(one).encode() for one in to]


def test_a_record_signed_alone_grows_by_136_to_143_bytes_and_by_32_for_each_doubling() -> None:
    world = World()
    alone = [len(sealed(world.channel(), bytes(1024))[0]) - 1024 for _ in range(3)]
    assert set(alone) <= set(range(136, 144))
    eight = [len(data) - 1024 for data in sealed(world.channel(), *[bytes(1024)] * 8)]
    assert set(eight) <= set(range(136 + 96, 144 + 97))


def test_nothing_to_seal_is_nothing() -> None:
    assert World().channel().seal([]) == []


# --- who may seal -------------------------------------------------------------------------------------------------


def test_before_the_group_is_joined_a_sender_waits() -> None:
    world = World()
    channel = world.channel(view=world.view(epochs=[]))
    assert channel.ready is False
    with pytest.raises(GroupNotReady) as caught:
        sealed(channel, b"x")
    assert caught.value.retriable
    channel.view = world.view()
    assert channel.ready is True
    assert len(sealed(channel, b"x")) == 1


def test_the_agents_reason_closes_sealing_and_leaves_opening() -> None:
    world = World()
    data = sealed(world.channel(1), b"readable")[0]
    channel = world.channel()
    channel.closed_by = LockedOut(group="orders")
    assert channel.ready is False
    for _ in range(2):
        with pytest.raises(LockedOut):
            sealed(channel, b"x")
    assert opened(channel, data).payload == b"readable"
    channel.view = world.view()
    assert channel.ready is False
    channel.closed_by = None
    assert channel.ready is True
    assert len(sealed(channel, b"x")) == 1


def test_a_reader_may_not_write() -> None:
    channel = World().channel(READER)
    for _ in range(2):
        with pytest.raises(MayNotWrite) as caught:
            sealed(channel, b"x")
    assert caught.value.fields == {"topic": TOPIC, "epoch": 6, "sender": "agent://acme/2"}


def test_a_topic_that_the_groups_policy_does_not_list_is_not_sealed_for() -> None:
    world = World()
    world.epochs[1] = replace(world.epochs[1], topics=frozenset({"invoices"}))
    with pytest.raises(NotThisGroup):
        sealed(world.channel(), b"x")


def test_a_key_that_is_not_the_leafs_is_not_signed_with() -> None:
    world = World()
    channel = world.channel(view=world.view(0, signature_private=world.private[1]))
    with pytest.raises(UsageError):
        sealed(channel, b"x")


# --- what cannot be sealed takes no sequence ------------------------------------------------------------------------

BAD: dict[str, tuple[Place, Any, list[Header] | None]] = {
    "another topic": (Place("invoices", -1, "orders.new"), b"x", None),
    "payload is text": (place(), "text", None),
    "payload is a bytearray": (place(), bytearray(b"x"), None),
    "key is text": (place(key="k"), b"x", None),
    "subject is no text": (place(subject="\ud800"), b"x", None),
    "partition too high": (place(partition=2**31), b"x", None),
    "header name is no text": (place(), b"x", [("\ud800", b"v")]),
    "too large": (place(), bytes(MAX_RECORD + 1), None),
    "too large with its headers": (place(), bytes(MAX_RECORD), [("a", b"b")]),
    "reply subject twice": (place(reply="_INBOX.1"), b"x", [("Nats-Reply-To", b"_INBOX.2")]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_call_with_one_record_that_cannot_be_sealed_seals_nothing(name: str) -> None:
    channel = World().channel()
    sealed(channel, b"one")
    before = snapshot(channel._sealer)
    with pytest.raises(UsageError):
        channel.seal([(place(), b"good", None), BAD[name]])
    assert snapshot(channel._sealer) == before
    assert used(parts(channel, 1))[0][1] == 1


def test_the_largest_record_goes_both_ways() -> None:
    world = World()
    payload = world.random.randbytes(MAX_RECORD)
    assert opened(world.channel(1), sealed(world.channel(), payload)[0]).payload == payload


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"compress": "zstd"}, NotBuilt),
        ({"aliases": ["mirror.orders"]}, NotBuilt),
        ({"signature_batch": 0}, PolicyConflict),
        ({"signature_batch": 65}, PolicyConflict),
        ({"padding": -1}, PolicyConflict),
        ({"plain_fingerprints": frozenset({bytes(7)})}, PolicyConflict),
        ({"plain_fingerprints": frozenset({bytes.fromhex("28071d7b7735b6ba")})}, PolicyConflict),
        ({"headers_sealed": ["Nats-Msg-Id"]}, PolicyConflict),
        ({"headers_sealed": ["Nats-*"]}, PolicyConflict),
    ],
)
def test_settings_that_are_not_built_or_cannot_be_are_refused_by_name(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        World().channel(**settings)


def test_a_closed_channel_seals_and_opens_nothing_and_its_secrets_are_wiped() -> None:
    world = World()
    channel = world.channel()
    (data,) = sealed(channel, b"x")
    opened(channel, data, place(1))
    sealing_epoch, opening_epochs = channel._sealing, list(channel._opener._epochs.values())
    assert sealing_epoch is not None
    assert opening_epochs
    channel.close(AgentClosed())
    for keys in (sealing_epoch.topic_keys, *(epoch.keys for epoch in opening_epochs)):
        with pytest.raises(UsageError, match="wiped"):
            keys.topic_secret.reveal()
    with pytest.raises(AgentClosed):
        sealed(channel, b"y")
    assert isinstance(channel.open([(place(1), data, None)])[0], Behind)
