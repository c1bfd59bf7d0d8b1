"""Marks on opened records: a copy at another position, sequences that are missing. They refuse nothing.

A window a stream and partition remembers the newest sequences with the position at which each was seen. It lives in
memory: a restart forgets it, and so does a stream that many others of the same leaf have pushed out.
"""

from __future__ import annotations

from array import array

from broker_crypto.limits import WINDOW_RECORDS, WINDOWS_PER_LEAF

_UNSEEN = -1
_FIRST_SLOTS = 32
_NOWHERE = -1  # core NATS: a second sight is always another one

Position = tuple[str, int] | None


class Window:
    """The newest sequences of one stream and partition: a ring that doubles until it holds WINDOW_RECORDS."""

    __slots__ = ("_epochs", "_identity", "_positions", "first", "next", "used")

    def __init__(self, sequence: int, position: Position) -> None:
        self._epochs = array("q", [_UNSEEN]) * _FIRST_SLOTS
        self._positions = array("q", [_NOWHERE]) * _FIRST_SLOTS
        self._identity = position[0] if position is not None else ""
        self.first = max(0, sequence + 1 - _FIRST_SLOTS // 2)  # the lowest sequence that a slot stands for
        self.next = sequence  # one more than the highest seen
        self.used = 0

    def see(self, sequence: int, epoch: int, position: Position) -> tuple[bool, int]:
        """(whether this record was seen at another position, sequences missing before it); remembers it."""
        if position is None:
            at = _NOWHERE
        elif position[0] == self._identity:
            at = position[1]
        else:  # the topic was made anew, or the record lies in a second stream: any number that no position has
            at = -2 - (hash(position) & 0x3FFF_FFFF_FFFF_FFFF)
        gap = sequence - self.next
        if gap >= 0:
            self._advance(sequence)
        elif sequence < self.first:
            return False, 0
        slot = sequence % len(self._epochs)
        if self._epochs[slot] == epoch:
            return (at == _NOWHERE or self._positions[slot] != at), 0
        self._epochs[slot] = epoch
        self._positions[slot] = at
        return False, max(gap, 0)

    def _advance(self, sequence: int) -> None:
        """Make `sequence` the newest; slots that it passes stand for sequences not seen."""
        size = len(self._epochs)
        while sequence - self.first >= size and size < WINDOW_RECORDS:
            self._double()
            size = len(self._epochs)
        for passed in range(max(self.next, sequence - size + 1), sequence + 1):
            self._epochs[passed % size] = _UNSEEN
        self.first = max(self.first, sequence - size + 1)
        self.next = sequence + 1

    def _double(self) -> None:
        size = len(self._epochs)
        epochs, positions = array("q", [_UNSEEN]) * (2 * size), array("q", [_NOWHERE]) * (2 * size)
        for sequence in range(self.first, self.next):
            epochs[sequence % (2 * size)] = self._epochs[sequence % size]
            positions[sequence % (2 * size)] = self._positions[sequence % size]
        self._epochs, self._positions = epochs, positions


class Marks:
    """The windows of one reader. `whole`: it reads all records of the topic (each partition), so that gaps mean something."""

    __slots__ = ("_clock", "_leaves", "whole")

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        self._leaves: dict[int, dict[bytes, Window]] = {}
        self._clock = 0

    def see(self, leaf: int, stream: bytes, sequence: int, epoch: int, *, position: Position) -> tuple[bool, int]:
        """(duplicate, gap) of an opened record. `stream` names stream and partition."""
        windows = self._leaves.get(leaf)
        window = windows.get(stream) if windows is not None else None
        if window is None:
            window = self._begin(leaf, stream, Window(sequence, position))
        self._clock += 1
        window.used = self._clock
        duplicate, gap = window.see(sequence, epoch, position)
        return duplicate, gap if self.whole else 0

    def _begin(self, leaf: int, stream: bytes, window: Window) -> Window:
        windows = self._leaves.setdefault(leaf, {})
        if len(windows) >= WINDOWS_PER_LEAF:
            del windows[min(windows, key=lambda name: windows[name].used)]
        windows[stream] = window
        return window

    def forget(self, partition: int | None = None) -> None:
        """Forget a partition (after a rebalance others have read on), or everything."""
        if partition is None:
            self._leaves.clear()
            return
        ending = partition.to_bytes(4, "big", signed=True)
        for windows in self._leaves.values():
            for stream in [stream for stream in windows if stream.endswith(ending)]:
                del windows[stream]
