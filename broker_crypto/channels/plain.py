"""The channel of a topic whose policy says `plain`: records pass as they are. Said, never assumed."""

from __future__ import annotations

from collections.abc import Sequence

from broker_crypto.channels.opening import Result, Unopened
from broker_crypto.channels.sealing import Unsealed
from broker_crypto.records import Opened, Sealed, Security

_PLAIN = Security("plain")


class PlainChannel:
    """Gives every record back as it came, payload and headers. Opened records say so: sender None, channel "plain"."""

    __slots__ = ("topic",)
    ready = True
    closed_by = None

    def __init__(self, topic: str) -> None:
        self.topic = topic

    def seal(self, items: Sequence[Unsealed]) -> list[Sealed]:
        """(place, payload, headers) to the same bytes and headers."""
        return [Sealed(payload, headers or ()) for _, payload, headers in items]

    def open(self, items: Sequence[Unopened], final: bool = False) -> list[Result]:
        """(place, bytes, headers) to the same bytes and headers."""
        return [Opened(data, headers, _PLAIN) for _, data, headers in items]

    def reader(self, *, whole: bool) -> PlainChannel:
        """Itself: there is nothing to remember."""
        return self

    def forget(self, partition: int | None = None) -> None:
        """Nothing is remembered."""
