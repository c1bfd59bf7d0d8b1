"""A channel bound to the broker and the policy's rule that it serves: what connectors hold, and where records are counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from broker_crypto.channels.opening import Result, Unopened
from broker_crypto.channels.plain import PlainChannel
from broker_crypto.channels.sealing import Unsealed
from broker_crypto.channels.topic import TopicChannel
from broker_crypto.errors import BrokerCryptoError, RecordRefused, UnknownEpoch
from broker_crypto.observe.metrics import Metrics
from broker_crypto.policy.rules import Rule
from broker_crypto.records import Behind, Event, ForkSuspected, Marked, Refused, Sealed

_SAMPLE = 64  # one call in so many is timed


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who hears of what a channel does. `suspect` is called for an epoch of our number under another id."""

    metrics: Metrics
    broker: str
    rule: str
    report: Callable[[Event], None]
    monotonic: Callable[[], float]
    group: str = ""
    suspect: Callable[[], None] = field(default=lambda: None)


class _Opens(Protocol):
    def open(self, items: Sequence[Unopened], final: bool = False) -> list[Result]: ...
    def forget(self, partition: int | None = None) -> None: ...


class BoundReader:
    """One consumer or subscription: its own marks, the channel's counters."""

    __slots__ = ("_bound", "_inner")

    def __init__(self, bound: BoundChannel, inner: _Opens) -> None:
        self._bound, self._inner = bound, inner

    def open(self, items: Sequence[Unopened], final: bool = False) -> list[Result]:
        """As the channel's `open`."""
        return self._bound.counted(self._inner, items, final)

    def forget(self, partition: int | None = None) -> None:
        """Forget the marks of a partition, or of all."""
        self._inner.forget(partition)


class BoundChannel:
    """`seal` and `open` as the channel's own, counted under the rule's name."""

    __slots__ = (
        "_calls",
        "_forks",
        "_inner",
        "_open_time",
        "_opened",
        "_reader",
        "_seal_time",
        "_sealed",
        "_watcher",
        "channel",
        "rule",
        "topic",
    )

    def __init__(self, inner: TopicChannel | PlainChannel, rule: Rule, watcher: Watcher) -> None:
        plain, metrics = isinstance(inner, PlainChannel), watcher.metrics
        labels = {"broker": watcher.broker, "topic": watcher.rule}
        self.rule, self.topic, self.channel = rule, rule.topic, rule.channel
        self._inner, self._watcher = inner, watcher
        self._sealed = metrics.counter("records_plain_total" if plain else "records_sealed_total", **labels)
        self._opened = metrics.counter("records_plain_total" if plain else "records_opened_total", **labels)
        self._seal_time = metrics.histogram("seal_duration_seconds", topic=watcher.rule)
        self._open_time = metrics.histogram("open_duration_seconds", topic=watcher.rule)
        self._reader: _Opens = inner.reader(whole=False)
        self._calls = 0
        self._forks: set[tuple[int, str]] = set()

    @property
    def ready(self) -> bool:
        """False while a sender has to wait for the group."""
        return self._inner.ready

    @property
    def closed_by(self) -> BrokerCryptoError | None:
        """Why sealing is refused now."""
        return self._inner.closed_by

    def seal(self, items: Sequence[Unsealed]) -> list[Sealed]:
        """Seal (place, payload, headers) in order; one call is signed together. Raises as the channel does."""
        self._calls += 1
        if self._calls % _SAMPLE:
            sealed = self._inner.seal(items)
        else:
            start = self._watcher.monotonic()
            sealed = self._inner.seal(items)
            self._seal_time.observe((self._watcher.monotonic() - start) / max(1, len(items)))
        self._sealed.add(len(sealed))
        return sealed

    def open(self, items: Sequence[Unopened], final: bool = False) -> list[Result]:
        """Open (place, bytes, outer headers), with the marks that all who do not bring a reader of their own share."""
        return self.counted(self._reader, items, final)

    def reader(self, *, whole: bool) -> BoundReader:
        """A reader with its own marks; `whole` where it reads every record of the topic."""
        return BoundReader(self, self._inner.reader(whole=whole))

    def counted(self, reader: _Opens, items: Sequence[Unopened], final: bool) -> list[Result]:
        """Open with `reader`, count and report what came of it."""
        self._calls += 1
        if self._calls % _SAMPLE:
            results = reader.open(items, final)
        else:
            start = self._watcher.monotonic()
            results = reader.open(items, final)
            self._open_time.observe((self._watcher.monotonic() - start) / max(1, len(items)))
        opened = 0
        for item, result in zip(items, results, strict=True):
            if isinstance(result, Behind):
                continue
            if isinstance(result, RecordRefused):
                self._refused(item, result)
                continue
            opened += 1
            security = result.security
            if security.duplicate or security.gap:
                self._marked(duplicate=security.duplicate, gap=security.gap)
        self._opened.add(opened)
        return results

    def _refused(self, item: Unopened, error: RecordRefused) -> None:
        watcher, place = self._watcher, item[0]
        labels = {"broker": watcher.broker, "topic": watcher.rule, "reason": error.code}
        watcher.metrics.counter("records_refused_total", **labels).add(1)
        watcher.report(Refused(watcher.group, watcher.rule, error.code, place.position[1] if place.position else None))
        if isinstance(error, UnknownEpoch) and isinstance(self._inner, TopicChannel):
            self._suspect(self._inner, item[1], error)

    def _suspect(self, inner: TopicChannel, data: bytes, error: UnknownEpoch) -> None:
        """Our number under another id: the cursor is compared; a member's signature on it is an alarm, once a leaf and epoch."""
        epoch = error.fields.get("epoch")
        if not isinstance(epoch, int) or epoch != inner.view.current:
            return
        self._watcher.suspect()
        signer = inner.signer_of(data)
        if signer is not None and (epoch, signer) not in self._forks:
            self._forks.add((epoch, signer))
            self._watcher.report(ForkSuspected(self._watcher.group, epoch, signer))

    def _marked(self, *, duplicate: bool, gap: int) -> None:
        for mark, value in (("duplicate", duplicate), ("gap", gap)):
            if value:
                self._watcher.metrics.counter("records_marked_total", topic=self._watcher.rule, mark=mark).add(1)
        self._watcher.report(Marked(self._watcher.group, self._watcher.rule, duplicate, gap))
