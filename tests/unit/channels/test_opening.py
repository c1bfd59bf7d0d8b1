"""The order of checks, what each refusal says, and what caches, views and marks do meanwhile."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import pytest

from broker_crypto.channels import opening
from broker_crypto.channels.plain import PlainChannel
from broker_crypto.channels.record import read_record
from broker_crypto.channels.topic import TopicChannel
from broker_crypto.errors import (
    BadSignature,
    EpochMissed,
    EpochNotReached,
    KeyExpired,
    MalformedRecord,
    NotAMemberAtEpoch,
    NotAuthorised,
    NotEncrypted,
    NotThisGroup,
    RecordRefused,
    Relocated,
    RemovedSender,
    Tampered,
    UnknownEpoch,
    UnsupportedRecord,
    UsageError,
)
from broker_crypto.records import Behind, Fence, Opened, Place, RosterEntry, Security
from tests.support.snapshot import snapshot
from tests.support.topic_world import READER, TOPIC, World, opened, place, refused, sealed


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :] if at >= 0 else flip(data, len(data) + at)


# --- what an opened record says -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(1, 8))
def test_every_suite_carries_records_from_one_member_to_another(number: int) -> None:
    world = World(number)
    written = sealed(world.channel(0), b"one", b"two", b"three")
    reader = world.channel(1)
    assert [opened(reader, data).payload for data in reversed(written)] == [b"three", b"two", b"one"]


def test_an_opened_record_says_who_sent_it_and_when() -> None:
    world = World()
    [data] = sealed(world.channel(0), b"payload")
    said = opened(world.channel(1), data, place(3))
    assert said.security._replace(record_id=None) == Security("mls", "agent://acme/0", 0, 6, None, False, 0)
    assert (said.rows, said.receipt, said.drop) == ((), None, False)


def test_a_record_id_is_the_same_for_every_reader_and_position_and_another_for_every_record() -> None:
    world = World()
    channel = world.channel(0)
    written = sealed(channel, b"a", b"b") + sealed(channel, b"c", to=place(subject="orders.x"))
    readers = [world.channel(1), world.channel(2)]
    wheres = [place, place, lambda at: place(at, subject="orders.x")]
    ids = [
        [opened(reader, data, where(at + shift)).security.record_id for at, (data, where) in enumerate(zip(written, wheres, strict=True))]
        for shift, reader in enumerate(readers)
    ]
    assert ids[0] == ids[1]
    assert {len(one or b"") for one in ids[0]} == {32}
    assert len(set(ids[0])) == 3


def test_what_is_opened_or_refused_shows_no_content_in_its_repr() -> None:
    world = World()
    [data] = sealed(world.channel(0), b"the secret payload", headers=[("authorization", b"the secret token")])
    said = opened(world.channel(1), data)
    assert "secret" not in repr(said)
    error = refused(world.channel(1), flip(data, -1))
    assert "secret" not in f"{error!r} {error} {error.fields}"
    assert "secret" not in repr(world.epochs[0]) + repr(world.view()).replace("signature_private", "")
    assert world.private[0].hex() not in repr(world.view())
    assert repr(world.private[0]) not in repr(world.view())


def test_a_refusal_keeps_no_frame_that_holds_plaintext_or_keys() -> None:
    world = World()
    [data] = sealed(world.channel(READER, view=writable(world)), b"plaintext of a reader")
    error = refused(world.channel(1), data)
    assert isinstance(error, NotAuthorised)
    assert error.__traceback__ is error.__context__ is error.__cause__ is None
    gc.collect()
    assert not any(type(one).__name__ == "frame" for one in gc.get_referents(error))


def writable(world: World) -> Any:
    """A view in which the reader believes it may write."""
    roster = {**world.roster, READER: world.roster[READER]._replace(may_write=True)}
    return world.view(READER, sealing=replace(world.epochs[1], roster=roster))


# --- the order of checks ------------------------------------------------------------------------------------------


def test_a_refusal_names_topic_place_position_epoch_and_sender() -> None:
    world = World()
    channel = world.channel(0)
    [on_nats], [on_kafka] = sealed(channel, b"x"), sealed(channel, b"x", to=place(partition=3, subject=""))
    reader = world.channel(1)
    assert refused(reader, flip(on_nats, 60), place(7)).fields == {
        "topic": TOPIC, "subject": "orders.new", "position": 7, "epoch": 6, "leaf": 0,
    }  # fmt: skip
    assert refused(reader, flip(on_kafka, 60), place(8, partition=3, subject="")).fields == {
        "topic": TOPIC, "partition": 3, "position": 8, "epoch": 6, "leaf": 0,
    }  # fmt: skip
    [forbidden] = sealed(world.channel(READER, view=writable(world)), b"x")
    assert refused(reader, forbidden, place(9)).fields["sender"] == "agent://acme/2"
    assert refused(reader, b"hello", place()).fields == {"topic": TOPIC, "subject": "orders.new", "position": None}


def test_an_epoch_is_looked_up_by_its_id_and_each_reason_for_its_absence_has_its_name() -> None:
    world = World()
    unknown, foreign = world.epoch(6), world.epoch(9)
    early, missed, erased, later = world.epoch(2), world.epoch(3), world.epoch(4), world.epoch(7)
    reader = world.channel(1)
    reader.view = world.view(
        1, absent=[(0, 2)], missed=[(3, 3)], erased=frozenset({erased.epoch_id}), other_groups=frozenset({foreign.epoch_id})
    )
    expected = [
        (foreign, Relocated),
        (erased, KeyExpired),
        (later, EpochNotReached),
        (early, NotAMemberAtEpoch),
        (missed, EpochMissed),
        (unknown, UnknownEpoch),
    ]
    for epoch, error in expected:
        [data] = sealed(world.channel(0, view=world.view(0, sealing=epoch)), b"x")
        assert type(refused(reader, data)) is error


def test_a_record_of_a_later_epoch_asks_to_read_on_until_nothing_more_was_there() -> None:
    world = World()
    later = world.epoch(7)
    [data] = sealed(world.channel(0, view=world.view(0, sealing=later)), b"later")
    reader = world.channel(1)
    before = snapshot(reader)
    assert reader.open([(place(), data, None)]) == [Behind(TOPIC, 7, later.epoch_id)]
    assert type(refused(reader, data, final=True)) is EpochNotReached
    assert snapshot(reader) == before
    world.epochs.append(later)
    reader.view = world.view(1)
    assert opened(reader, data).payload == b"later"


def test_before_joining_every_record_asks_to_read_on() -> None:
    world = World()
    [data] = sealed(world.channel(0), b"x")
    newcomer = world.channel(1, view=world.view(1, epochs=[], absent=[]))
    [result] = newcomer.open([(place(), data, None)])
    assert isinstance(result, Behind)


def test_a_fork_says_whether_it_is_of_our_epoch_and_who_signed_it() -> None:
    world = World()
    fork = world.epoch(6)
    [data] = sealed(world.channel(1, view=world.view(1, sealing=fork)), b"x")
    reader = world.channel(0)
    error = refused(reader, data)
    assert isinstance(error, UnknownEpoch)
    assert (error.fields["epoch"], error.fields["epoch_id"], error.fields["current"]) == (6, fork.epoch_id.hex(), True)
    before = snapshot(reader)
    assert reader.signer_of(data) == "agent://acme/1"
    assert reader.signer_of(flip(data, -1)) is None
    assert reader.signer_of(b"no record") is None
    stranger = World(seed=8)
    [theirs] = sealed(stranger.channel(1), b"x")
    assert reader.signer_of(theirs) is None
    assert snapshot(reader) == before
    [old] = sealed(world.channel(1, view=world.view(1, sealing=world.epoch(5))), b"x")
    assert refused(reader, old).fields["current"] is False


def test_a_topic_that_an_epoch_does_not_list_is_not_opened_in_it() -> None:
    world = World()
    [data] = sealed(world.channel(0), b"x")
    unlisted = replace(world.epochs[1], topics=frozenset({"invoices"}))
    reader = world.channel(1, view=world.view(1, epochs=[world.epochs[0], unlisted]))
    error = refused(reader, data)
    assert type(error) is NotThisGroup
    assert isinstance(error, RecordRefused)


@pytest.mark.parametrize(
    "elsewhere",
    [place(subject="orders.other"), place(partition=0), place(key=b""), place(key=b"k"), place(subject="")],
)
def test_a_moved_record_is_named_as_such_with_empty_and_with_full_caches(elsewhere: Place) -> None:
    world = World()
    first, second = sealed(world.channel(0), b"x", b"y")
    reader = world.channel(1)
    before = snapshot(reader)
    assert type(refused(reader, first, elsewhere)) is Relocated
    assert snapshot(reader) == before
    opened(reader, first)
    before = snapshot(reader)
    assert type(refused(reader, second, elsewhere)) is Relocated
    assert snapshot(reader) == before


def test_no_member_can_speak_for_another() -> None:
    world = World()
    impostor = {**world.roster, 0: world.roster[1]}
    [data] = sealed(
        world.channel(0, view=world.view(0, sealing=replace(world.epochs[1], roster=impostor), signature_private=world.private[1])), b"x"
    )
    assert type(refused(world.channel(2), data)) is BadSignature
    stranger = {**world.roster, 9: world.roster[1]}
    view = replace(world.view(1, sealing=replace(world.epochs[1], roster=stranger)), leaf=9)
    [blank] = sealed(world.channel(0, view=view), b"x")
    assert type(refused(world.channel(2), blank)) is BadSignature


def test_a_compressed_record_passes_every_other_check_and_is_unsupported_then() -> None:
    world = World()
    channel = world.channel(0)
    epoch = channel._enter()
    [prepared] = [channel._sealer._prepare(epoch.topic_keys, place(), b"frame", None)]
    [written] = channel._sealer._seal_batch(epoch, [prepared._replace(flags=1)])
    reader = world.channel(1)
    before = snapshot(reader)
    assert type(refused(reader, written.data)) is UnsupportedRecord
    assert type(refused(reader, written.data, place(subject="orders.other"))) is Relocated
    assert type(refused(reader, flip(written.data, 70))) is Tampered
    assert snapshot(reader) == before


def test_a_place_of_another_topic_is_the_callers_fault() -> None:
    with pytest.raises(UsageError):
        World().channel(1).open([(Place("invoices"), b"x", None)])


def test_any_buffer_is_read() -> None:
    world = World()
    [data] = sealed(world.channel(0), b"x")
    reader = world.channel(1)
    assert [opened(reader, kind(data)).payload for kind in (bytearray, memoryview)] == [b"x", b"x"]  # type: ignore[operator]


def test_one_call_answers_each_record_in_its_place() -> None:
    world = World()
    first, second = sealed(world.channel(0), b"1", b"2")
    results = world.channel(1).open(
        [(place(0), first, None), (place(1), b"junk", None), (place(2), flip(second, -1), None), (place(3), second, None)]
    )
    assert [type(one) for one in results] == [Opened, NotEncrypted, BadSignature, Opened]


# --- what is not sealed -------------------------------------------------------------------------------------------

FOREIGN = b"\xc3\x01" + b"12345678" + b"somebody else's"


def test_plaintext_is_refused_unless_the_policy_accepts_it_and_is_then_named_plain() -> None:
    world = World()
    assert [type(refused(world.channel(1), data)) for data in (b"hello", b"", b"\xc3", FOREIGN)] == [
        NotEncrypted, NotEncrypted, NotEncrypted, UnsupportedRecord,
    ]  # fmt: skip
    lenient = world.channel(1, plaintext_accepted=True)
    said = opened(lenient, b"hello", outer=[("a", b"b")])
    assert (said.payload, said.headers, said.security) == (b"hello", [("a", b"b")], Security("plain"))
    assert type(refused(lenient, FOREIGN)) is UnsupportedRecord
    assert type(refused(lenient, b"\xc3\x01")) is UnsupportedRecord


def test_a_foreign_encoding_is_plaintext_only_where_it_is_listed_and_plaintext_is_accepted() -> None:
    world = World()
    listed = frozenset({b"12345678"})
    assert opened(world.channel(1, plaintext_accepted=True, plain_fingerprints=listed), FOREIGN).security.channel == "plain"
    assert type(refused(world.channel(1, plain_fingerprints=listed), FOREIGN)) is UnsupportedRecord


def test_accepting_plaintext_lets_no_broken_record_pass_as_such() -> None:
    world = World()
    [data] = sealed(world.channel(0), b"x")
    lenient = world.channel(1, plaintext_accepted=True, plain_fingerprints=frozenset({b"12345678"}))
    for at in (12, 60, len(data) - 1):
        assert isinstance(refused(lenient, flip(data, at)), RecordRefused)
    assert type(refused(lenient, data[:-1])) is MalformedRecord


# --- fences -------------------------------------------------------------------------------------------------------


def fenced(world: World, *ends: dict[tuple[str, str], dict[int, int]], leaf: int = 0) -> World:
    world.epochs = [replace(epoch, fences={leaf: [Fence(end) for end in ends]}) for epoch in world.epochs]
    return world


def test_a_fence_that_comes_later_refuses_what_is_at_or_behind_it_and_leaves_what_was_before() -> None:
    world = World()
    [first, second] = sealed(world.channel(0), b"1", b"2")
    reader = world.channel(1)
    opened(reader, first, place(10))
    reader.view = fenced(world, {(TOPIC, "stream 1"): {-1: 11}}).view(1)
    assert opened(reader, first, place(10)).payload == b"1"
    before = snapshot(reader)
    error = refused(reader, second, place(11))
    assert (type(error), error.fields["sender"]) == (RemovedSender, "agent://acme/0")
    assert type(refused(reader, second, place(10, identity="made anew"))) is RemovedSender
    assert type(refused(reader, second, place(None))) is RemovedSender
    assert snapshot(reader) == before


def test_of_several_fences_the_strictest_counts_and_what_one_does_not_name_it_refuses_from_0() -> None:
    world = World()
    [data] = sealed(world.channel(0), b"1")
    strict = fenced(world, {(TOPIC, "stream 1"): {-1: 50}}, {(TOPIC, "stream 1"): {-1: 5}})
    reader = strict.channel(1)
    assert [type(reader.open([(place(at), data, None)])[0]) for at in (4, 5, 49)] == [Opened, RemovedSender, RemovedSender]
    reader.view = fenced(world, {(TOPIC, "stream 1"): {-1: 50}}, {}).view(1)
    assert type(refused(reader, data, place(0))) is RemovedSender


def test_who_stays_is_not_fenced() -> None:
    world = World()
    [data] = sealed(world.channel(1), b"1")
    assert opened(fenced(world, {}).channel(0), data, place(10**6)).payload == b"1"


# --- views and caches ---------------------------------------------------------------------------------------------


def test_an_epoch_that_leaves_the_view_takes_its_keys_with_it() -> None:
    world = World()
    sender = world.channel(0, view=world.view(0, sealing=world.epochs[0]))
    [old, again] = sealed(sender, b"old", b"again")
    sender.view = world.view(0)
    [new] = sealed(sender, b"new")
    reader = world.channel(1)
    opened(reader, old), opened(reader, new)
    gone = world.epochs[0].epoch_id
    reader.view = world.view(1, epochs=world.epochs[1:], erased=frozenset({gone}))
    assert list(reader._opener._epochs) == [world.epochs[1].epoch_id]
    assert all(gone not in prefix for table in reader._opener._senders.values() for prefix in table)
    assert type(refused(reader, again)) is KeyExpired
    assert opened(reader, new).payload == b"new"


def test_a_roster_that_changed_under_the_same_id_is_judged_anew() -> None:
    world = World()
    [first, second] = sealed(world.channel(0), b"1", b"2")
    reader = world.channel(1)
    opened(reader, first)
    changed = {**world.roster, 0: RosterEntry("agent://acme/0", world.roster[1].signature_key, True)}
    reader.view = world.view(1, epochs=[replace(epoch, roster=changed) for epoch in world.epochs])
    assert type(refused(reader, second)) is BadSignature
    silenced = {**world.roster, 0: world.roster[0]._replace(may_write=False)}
    reader.view = world.view(1, epochs=[replace(epoch, roster=silenced) for epoch in world.epochs])
    assert type(refused(reader, second)) is NotAuthorised


def sizes(channel: TopicChannel) -> tuple[int, int, int]:
    """(senders, verified roots, places) kept."""
    opener = channel._opener
    senders = sum(map(len, opener._senders.values()))
    assert senders == sum(len(leaf.senders) for leaf in opener._leaves.values())
    places = sum(len(table) for epoch in opener._epochs.values() for table in epoch.keys.places.values())
    return senders, sum(len(leaf.roots) for leaf in opener._leaves.values()), places


def test_each_leaf_fills_only_its_own_bounded_part_of_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "SENDER_KEYS", 4)
    monkeypatch.setattr(opening, "VERIFIED_ROOTS", 5)
    monkeypatch.setattr("broker_crypto.channels.keys.PLACES_PER_PARTITION", 3)
    world = World()
    reader, quiet = world.channel(2), sealed(world.channel(1), b"quiet", b"still here")
    opened(reader, quiet[0])
    busy = world.channel(0)
    for number in range(20):
        busy.redraw()
        there = place(subject=f"orders.{number}")
        opened(reader, sealed(busy, b"x", to=there)[0], there)
    assert sizes(reader) == (4 + 1, 5 + 1, 3)
    assert len(reader._opener._leaves[1].senders) == 1
    assert opened(reader, quiet[1]).payload == b"still here"


def test_a_batch_costs_one_signature_check_and_an_evicted_root_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    checks = []
    scheme = world.suite.signature_scheme
    real = type(scheme).verify
    monkeypatch.setattr(type(scheme), "verify", lambda *args, **more: checks.append(1) or real(*args, **more))
    reader, channel = world.channel(1), world.channel(0)
    batch = sealed(channel, *[b"x"] * 64)
    for data in reversed(batch):
        opened(reader, data)
    assert len(checks) == 1
    monkeypatch.setattr(opening, "VERIFIED_ROOTS", 1)
    opened(reader, sealed(channel, b"another")[0])
    opened(reader, batch[0])
    assert len(checks) == 3


# --- marks --------------------------------------------------------------------------------------------------------


def test_a_copy_at_another_position_is_marked_and_a_redelivery_is_not() -> None:
    world = World()
    [data] = sealed(world.channel(0), b"x")
    reader = world.channel(1)
    said = [opened(reader, data, place(at, identity=identity)).security.duplicate for at, identity in
            ((4, "stream 1"), (4, "stream 1"), (9, "stream 1"), (4, "stream 2"))]  # fmt: skip
    assert said == [False, False, True, True]


def test_on_core_nats_a_second_sight_is_a_copy() -> None:
    world = World()
    [data] = sealed(world.channel(0), b"x")
    reader = world.channel(1)
    assert [opened(reader, data).security.duplicate for _ in range(2)] == [False, True]


def test_each_reader_has_its_own_marks_and_only_one_of_the_whole_topic_sees_gaps() -> None:
    world = World()
    written = sealed(world.channel(0), *[b"x"] * 6)
    channel = world.channel(1)
    whole, part = channel.reader(whole=True), channel.reader(whole=False)
    for at in (0, 1, 4):
        assert opened(whole, written[at], place(at)).security.gap == (2 if at == 4 else 0)
        assert opened(part, written[at], place(at)).security.gap == 0
        assert opened(channel, written[at], place(at)).security.gap == 0
    assert opened(whole, written[4], place(40)).security.duplicate
    whole.forget()
    assert opened(whole, written[5], place(5)).security == opened(part, written[5], place(5)).security


def test_a_gap_is_counted_across_epochs_and_for_each_partition() -> None:
    world = World()
    sender = world.channel(0, view=world.view(0, sealing=world.epochs[0]))
    old = {partition: sealed(sender, *[b"x"] * 3, to=place(partition=partition)) for partition in (0, 1)}
    sender.view = world.view(0)
    new = {partition: sealed(sender, *[b"x"] * 2, to=place(partition=partition)) for partition in (0, 1)}
    reader = world.channel(1).reader(whole=True)
    opened(reader, old[0][0], place(0, partition=0)), opened(reader, old[1][2], place(2, partition=1))
    assert opened(reader, new[0][1], place(4, partition=0)).security.gap == 3
    assert opened(reader, new[1][0], place(3, partition=1)).security.gap == 0


def test_the_policy_may_drop_duplicates_which_are_opened_and_said_to_be_dropped() -> None:
    world = World()
    [data] = sealed(world.channel(0), b"x")
    dropping, marking = world.channel(1, drop_duplicates=True), world.channel(1)
    assert [opened(dropping, data, place(at)).drop for at in (1, 2)] == [False, True]
    assert [opened(marking, data, place(at)).drop for at in (1, 2)] == [False, False]


# --- plain --------------------------------------------------------------------------------------------------------


def test_a_plain_channel_gives_back_what_it_is_given() -> None:
    channel = PlainChannel(TOPIC)
    assert (channel.ready, channel.closed_by) == (True, None)
    headers = [("a", b"1"), ("b", None)]
    assert [tuple(one[:2]) for one in channel.seal([(place(), b"x", headers), (place(), b"y", None)])] == [(b"x", headers), (b"y", ())]
    [result] = channel.reader(whole=True).open([(place(), b"x", headers)])
    assert isinstance(result, Opened)
    assert (result.payload, result.headers, result.security) == (b"x", headers, Security("plain"))


def test_a_record_names_its_sealing_object_without_keys() -> None:
    world = World()
    [data] = sealed(world.channel(1), b"x")
    prefix, rest = read_record(data)
    assert (prefix.epoch, prefix.epoch_id, prefix.leaf, rest.sequence) == (6, world.epochs[1].epoch_id, 1, 0)
