"""Ports of delivery: what a broker must give. Connectors fill them; `broker_crypto.testing` has them in memory."""

from __future__ import annotations

from typing import Protocol

from broker_crypto.records import LogEntry, TopicFacts


class GroupLog(Protocol):
    """An append-only log per group on a broker (one instance a group and agent).

    Every call may raise BrokerUnavailable. `append` raises LostRace when `expected` is not met, AppendUnknown when the
    answer was lost, GroupTooLarge when the broker cannot take the record.
    """

    async def open(self, group: str, create: bool) -> str:
        """Create or check the log with its settings; returns its identity. PolicyConflict names each wrong setting.

        With `create` False a log that does not exist is BrokerUnavailable.
        """
        ...

    async def head(self) -> int:
        """The first position not yet written (0 for an empty log), by a read no older than this call.

        Every entry of this group that was acknowledged before the call lies below it. BrokerUnavailable where the connection
        was lost since `open`: the log is opened, checked and compared anew.
        """
        ...

    async def read(self, position: int, limit: int) -> list[LogEntry]:
        """This group's entries from `position` on, at most `limit`, in order; position 0 is the log's beginning.

        GroupLogTruncated if entries at or behind `position` were trimmed away. Positions may have holes (other groups'
        records on a shared stream), entries are never skipped.
        """
        ...

    async def append(self, record: bytes, expected: int | None) -> int | None:
        """Append; `expected` is the position of the group's last record that was read, -1 for a log read to be empty
        (None: unconditional).

        Returns the position where the broker tells it. The answer decides nothing: reading does.
        """
        ...

    async def changed(self) -> None:
        """Return when there may be more to read; may wake for nothing."""
        ...

    async def close(self) -> None: ...


class Topics(Protocol):
    """What the broker says of data topics."""

    async def describe(self, topic: str) -> list[TopicFacts]:
        """One entry per Kafka topic, or per stream that holds one of its subjects; empty if it does not exist."""
        ...
