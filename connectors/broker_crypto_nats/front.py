"""What this connector needs of the agent and of a channel, and what it shows to the agent: nothing else crosses.

`Channel.seal` and `Channel.open` are plain functions; what must wait or be durable travels as a value.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from broker_crypto.delivery.ports import GroupLog, Topics
from broker_crypto.errors import BrokerCryptoError, RecordRefused
from broker_crypto.records import Behind, Decision, Header, Opened, Place, Row, Sealed

Item = tuple[Place, bytes, Sequence[Header] | None]
Result = Opened | BrokerCryptoError | Behind


class Reader(Protocol):
    """Opens for one subscription, which has its own memory of what it has seen."""

    def open(self, items: Sequence[Item], final: bool = False) -> Sequence[Result]: ...


class Channel(Protocol):
    """What a topic's records become. `ready` False: a sender awaits `Front.ready` first."""

    @property
    def topic(self) -> str: ...
    @property
    def ready(self) -> bool: ...
    def seal(self, items: Sequence[Item]) -> list[Sealed]: ...
    def reader(self, *, whole: bool) -> Reader: ...


class Front(Protocol):
    """The agent as a connector sees it."""

    def attach(self, connection: Connection) -> str:
        """Take the connection into use; returns the name that the policy has for its broker."""
        ...

    def detach(self, connection: Connection) -> None: ...

    def channel(self, broker: str, subject: str) -> Channel:
        """The channel of the rule that covers a subject; NoPolicy."""
        ...

    def subjects(self, topic: str) -> Sequence[str]:
        """The patterns of subjects that a topic of the policy covers."""
        ...

    def ready(self, topic: str | None = None, timeout: float | None = None) -> Awaitable[None]:
        """Wait until the topic can be sealed for; GroupNotReady or why it never can."""
        ...

    def catch_up(self, behind: Behind) -> Awaitable[None]:
        """Read the group log to the head that it has now; BrokerUnavailable if it is out of reach."""
        ...

    def seen(self, results: Sequence[Result]) -> None: ...

    def judge(self, error: RecordRefused) -> Decision: ...

    def durable(self, rows: Sequence[Row]) -> Awaitable[None]: ...

    def acknowledged(self, receipt: object) -> None: ...


class Connection(Protocol):
    """What an attached connection gives to the agent."""

    type: str
    broker: str | None

    @property
    def closed(self) -> bool: ...
    def group_log(self, replicas: int = 1) -> GroupLog: ...
    def topics(self) -> Topics: ...
