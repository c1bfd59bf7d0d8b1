"""Windows of sequences against a memory that forgets nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_crypto.channels import marks
from broker_crypto.channels.marks import Marks, Position

STREAM = bytes(16) + b"\xff\xff\xff\xff"


class Unbounded:
    """What the marks of one stream should be: every record id with the first position it was seen at."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], Position] = {}
        self.next: int | None = None

    def see(self, sequence: int, epoch: int, position: Position) -> tuple[bool, int]:
        gap = 0 if self.next is None else max(0, sequence - self.next)
        self.next = sequence + 1 if self.next is None else max(self.next, sequence + 1)
        if (epoch, sequence) in self.seen:
            return position is None or self.seen[epoch, sequence] != position, gap
        self.seen[epoch, sequence] = position
        return False, gap


positions = st.none() | st.tuples(st.sampled_from(["stream 1", "stream 2"]), st.integers(0, 40))
# Within half of a new window behind the first record, so that nothing that the ring cannot hold is asked for.
near = st.lists(st.tuples(st.integers(100, 600), positions), max_size=120)


@settings(max_examples=300)
@given(near)
def test_within_its_window_a_stream_is_remembered_as_by_a_memory_without_bounds(records: list[tuple[int, Position]]) -> None:
    windows, model = Marks(whole=True), Unbounded()
    for sequence, position in [(110, None), *records]:
        assert windows.see(3, STREAM, sequence, 7, position=position) == model.see(sequence, 7, position)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=60), st.data())
def test_any_sequences_at_all_never_mark_a_record_that_is_new(sequences: list[int], data: st.DataObject) -> None:
    windows = Marks(whole=True)
    for at, sequence in enumerate(dict.fromkeys(sequences)):
        duplicate, gap = windows.see(0, STREAM, sequence, 1, position=("s", at))
        assert not duplicate
        assert 0 <= gap < 2**32
    newest = max(sequences)
    assert windows.see(0, STREAM, newest, 1, position=("s", 10**6)) == (True, 0)
    assert windows.see(0, STREAM, newest, 1, position=("s", list(dict.fromkeys(sequences)).index(newest))) == (False, 0)


def test_the_newest_1024_sequences_are_remembered_and_older_ones_carry_no_mark() -> None:
    windows = Marks(whole=True)
    for sequence in range(3000):
        assert windows.see(0, STREAM, sequence, 1, position=("s", sequence)) == (False, 0)
    for sequence in range(3000 - 1024, 3000):
        assert windows.see(0, STREAM, sequence, 1, position=("s", 10_000 + sequence)) == (True, 0)
    assert windows.see(0, STREAM, 3000 - 1025, 1, position=("s", 20_000)) == (False, 0)


def test_the_same_sequence_in_another_epoch_is_another_record() -> None:
    windows = Marks(whole=True)
    assert windows.see(0, STREAM, 4, 1, position=("s", 1)) == (False, 0)
    assert windows.see(0, STREAM, 4, 2, position=("s", 2)) == (False, 0)


def test_the_same_number_in_a_topic_made_anew_is_another_position() -> None:
    windows = Marks(whole=True)
    windows.see(0, STREAM, 4, 1, position=("made in May", 9))
    assert windows.see(0, STREAM, 4, 1, position=("made in June", 9)) == (True, 0)
    assert windows.see(0, STREAM, 4, 1, position=("made in May", 9)) == (False, 0)


def test_a_gap_counts_what_is_missing_and_what_comes_late_fills_it() -> None:
    windows = Marks(whole=True)
    said = [windows.see(0, STREAM, sequence, 1, position=("s", sequence)) for sequence in (7, 8, 12, 9, 10, 13)]
    assert said == [(False, 0), (False, 0), (False, 3), (False, 0), (False, 0), (False, 0)]


def test_who_reads_a_part_of_the_topic_is_told_of_no_gaps() -> None:
    windows = Marks(whole=False)
    assert [windows.see(0, STREAM, sequence, 1, position=None) for sequence in (7, 12)] == [(False, 0), (False, 0)]


def test_many_streams_of_one_leaf_push_out_its_own_longest_unused_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "WINDOWS_PER_LEAF", 4)
    windows = Marks(whole=True)

    def see(leaf: int, stream: int) -> bool:
        return windows.see(leaf, stream.to_bytes(20, "big"), 0, 1, position=None)[0]

    see(1, 99)
    for stream in (1, 2, 3, 4):
        see(0, stream)
    see(0, 1)  # used again: 2 is now the longest unused
    see(0, 5)
    assert [see(0, stream) for stream in (1, 3, 4, 5)] == [True] * 4
    assert see(0, 2) is False
    assert see(1, 99) is True


def test_a_partition_that_is_assigned_anew_is_forgotten_alone() -> None:
    windows = Marks(whole=True)
    first, second = (bytes(16) + partition.to_bytes(4, "big", signed=True) for partition in (3, 4))
    for stream in (first, second):
        windows.see(0, stream, 5, 1, position=("t", 1))
    windows.forget(3)
    assert windows.see(0, first, 900, 1, position=("t", 2)) == (False, 0)
    assert windows.see(0, second, 7, 1, position=("t", 3)) == (False, 1)
    windows.forget()
    assert windows.see(0, second, 7, 1, position=("t", 4)) == (False, 0)
