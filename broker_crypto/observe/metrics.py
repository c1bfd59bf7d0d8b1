"""Metrics: what an agent counts, behind a protocol. `NULL` shows nothing; `MemoryMetrics` keeps the figures in this process.

A caller asks once for a child (a figure with its labels) and keeps it; the hot path then is one method call on the child.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from broker_crypto.errors import UsageError
from broker_crypto.observe.figures import FIGURES, Figure


class Counter(Protocol):
    """Only grows. `n` >= 0."""

    def add(self, n: float = 1, /) -> None: ...


class Gauge(Protocol):
    """The newest value."""

    def set(self, value: float, /) -> None: ...


class Histogram(Protocol):
    """Values by size; durations in s."""

    def observe(self, value: float, /) -> None: ...


class Metrics(Protocol):
    """Gives children. `name` is one of FIGURES, without prefix, `labels` exactly that figure's: UsageError for all else."""

    def counter(self, name: str, /, **labels: str) -> Counter: ...
    def gauge(self, name: str, /, **labels: str) -> Gauge: ...
    def histogram(self, name: str, /, **labels: str) -> Histogram: ...


class _Nothing:
    __slots__ = ()

    def add(self, n: float = 1, /) -> None:
        pass

    def set(self, value: float, /) -> None:
        pass

    def observe(self, value: float, /) -> None:
        pass


_NOTHING = _Nothing()


class NullMetrics:
    """Shows nothing, and still refuses a name or label that is not in the list: a mistake shows before a backend is there."""

    def counter(self, name: str, /, **labels: str) -> Counter:
        checked(name, "counter", labels)
        return _NOTHING

    def gauge(self, name: str, /, **labels: str) -> Gauge:
        checked(name, "gauge", labels)
        return _NOTHING

    def histogram(self, name: str, /, **labels: str) -> Histogram:
        checked(name, "histogram", labels)
        return _NOTHING


NULL: Metrics = NullMetrics()


def checked(name: str, kind: str, labels: Mapping[str, str]) -> Figure:
    """The figure that is meant. UsageError for a name that is not listed, another kind, other labels, a word outside a closed list."""
    figure = FIGURES.get(name)
    if figure is None or figure.kind != kind:
        raise UsageError(f"no such {kind}", name=name)
    if labels.keys() != set(figure.labels):
        raise UsageError("other labels than the figure has", name=name, labels=tuple(labels), expected=figure.labels)
    for label, words in figure.words.items():
        if labels[label] not in words:
            raise UsageError("a word that is not in the label's list", name=name, label=label, word=labels[label])
    return figure


@dataclass(frozen=True, slots=True)
class Sample:
    """One child at one moment. `value` is a counter's or gauge's value, a histogram's sum; `counts`: one a bucket, one above."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float
    counts: tuple[int, ...] = ()


_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


class _Number:
    __slots__ = ("_lock", "value")

    def __init__(self) -> None:
        self._lock = threading.Lock()  # `+=` on an attribute is not atomic, and stores may count from their own thread
        self.value = 0.0

    def add(self, n: float = 1, /) -> None:
        if n < 0:
            raise UsageError("a counter only grows", n=n)
        with self._lock:
            self.value += n

    def set(self, value: float, /) -> None:
        self.value = value

    def sample(self) -> tuple[float, tuple[int, ...]]:
        return self.value, ()


class _Buckets:
    __slots__ = ("_bounds", "_counts", "_lock", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._lock = threading.Lock()
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, /) -> None:
        at = bisect_left(self._bounds, value)  # a bound belongs to its bucket
        with self._lock:
            self._counts[at] += 1
            self._sum += value

    def sample(self) -> tuple[float, tuple[int, ...]]:
        with self._lock:
            return self._sum, tuple(self._counts)


class MemoryMetrics:
    """Keeps every figure in this process: for `status`, for tests, and for an application that exports them its own way."""

    def __init__(self) -> None:
        self._numbers: dict[_Key, _Number] = {}
        self._buckets: dict[_Key, _Buckets] = {}

    def counter(self, name: str, /, **labels: str) -> Counter:
        return self._numbers.setdefault(_key(checked(name, "counter", labels), labels), _Number())

    def gauge(self, name: str, /, **labels: str) -> Gauge:
        return self._numbers.setdefault(_key(checked(name, "gauge", labels), labels), _Number())

    def histogram(self, name: str, /, **labels: str) -> Histogram:
        figure = checked(name, "histogram", labels)
        return self._buckets.setdefault(_key(figure, labels), _Buckets(figure.buckets))

    def samples(self) -> list[Sample]:
        """Every child that was ever asked for, by name and labels."""
        children: list[tuple[_Key, _Number | _Buckets]] = [*self._numbers.items(), *self._buckets.items()]
        return [Sample(name, labels, *child.sample()) for (name, labels), child in sorted(children, key=lambda item: item[0])]

    def value(self, name: str, /, **labels: str) -> float:
        """A child's value: 0 where it was never asked for. Labels left out are summed over; for a histogram the number of observations."""
        if name not in FIGURES:
            raise UsageError("no such figure", name=name)
        wanted = set(labels.items())
        found = [sample for sample in self.samples() if sample.name == name and wanted <= set(sample.labels)]
        return float(sum(sum(sample.counts) if sample.counts else sample.value for sample in found))


def _key(figure: Figure, labels: Mapping[str, str]) -> _Key:
    return figure.name, tuple((label, labels[label]) for label in figure.labels)


class StoreFigures:
    """Turns what a store's watch hears into figures."""

    def __init__(self, metrics: Metrics) -> None:
        self._seconds = metrics.histogram("store_commit_seconds")
        self._errors = metrics.counter("store_errors_total")

    def committed(self, seconds: float, /) -> None:
        self._seconds.observe(seconds)

    def failed(self, error: Exception, /) -> None:
        self._errors.add()
