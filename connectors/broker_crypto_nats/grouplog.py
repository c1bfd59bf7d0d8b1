"""The group log on JetStream: stream `BC_GROUPS`, one subject a group.

A position is a sequence of the stream, which all groups share; a group's own records are therefore not numbered without holes.
What is read comes from the stream's leader, or is read up to what the leader has, so a call sees every record that was
acknowledged before it:

1. `head` and `read` first ask the leader for the last record of the subject (STREAM.MSG.GET, which only the leader answers).
2. A few records are then asked for one by one, from the leader too. More are pulled with a consumer in memory, which may sit
   on a replica that lags: it is waited for until it has given the leader's last record, and its own count must have no hole.
3. Direct gets are not used: any replica answers them, and a lagging one would hide the newest commit.
"""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import nats.errors
from nats.aio.client import Client

from broker_crypto.errors import AppendUnknown, BrokerUnavailable, GroupLogTruncated, GroupTooLarge, LostRace, PolicyConflict
from broker_crypto.records import LogEntry

from .bell import Bell
from .jsapi import DEFAULT_PREFIX, NO_MESSAGE, NO_STREAM, Api, Refused, milliseconds
from .pulling import pull
from .streams import open_groups_stream

STREAM = "BC_GROUPS"
SUBJECT = "_bc.group."

ONE_BY_ONE = 4  # records asked for singly before a consumer is worth its making
PULL_AT_ONCE = 256

_WRONG_SEQUENCE = (10071, 10164)
_TOO_LARGE = 10054
_OTHER_STREAM = 10060
_HEADER_BYTES = 160  # the two headers of an append with their line ends, rounded up


class NatsGroupLog:
    """GroupLog of `broker_crypto.delivery.ports` for one group over one connection, which stays the application's.

    Every call ends within about twice `timeout` seconds, then BrokerUnavailable. An empty log has head 0 (no record has
    position 0); `append` takes `expected=0` for "no record yet".
    """

    def __init__(self, nc: Client, *, replicas: int = 1, timeout: float = 5.0, prefix: str = DEFAULT_PREFIX) -> None:
        self._nc = nc
        self._api = Api(nc, prefix=prefix, timeout=timeout)
        self._replicas = replicas
        self._subject = ""
        self._opened_at = -1  # reconnects of the client when the log was opened
        self._bell: Bell | None = None

    async def open(self, group: str, create: bool) -> str:
        """Create or check the stream; returns its creation time. PolicyConflict names each wrong setting."""
        self._opened_at = self._nc.stats["reconnects"]
        created = await open_groups_stream(self._api, STREAM, [SUBJECT + ">"], replicas=self._replicas, create=create)
        self._subject = SUBJECT + group
        return created

    async def head(self) -> int:
        """Sequence of the group's last record + 1, told by the leader; 0 while there is none.

        BrokerUnavailable after a reconnect, until the log was opened again: it may be another server, another stream.
        """
        last = await self._get({"last_by_subj": self._subject})
        if self._nc.stats["reconnects"] != self._opened_at:
            raise BrokerUnavailable("the connection came back; the log is to be opened again", subject=self._subject)
        return 0 if last is None else last.position + 1

    async def read(self, position: int, limit: int) -> list[LogEntry]:
        """The group's records from `position` on, at most `limit`, up to the last that the leader has now.

        GroupLogTruncated if `position` (or, read from the start, the group's first record) is no longer there.
        """
        last = await self._get({"last_by_subj": self._subject})
        entries: list[LogEntry] = []
        if last is not None and last.position >= position and limit > 0:
            entries = await self._read_to(position, limit, last)
        if not entries or entries[0].position != position:
            await self._check_not_trimmed(position, entries[0].position if entries else None)
        return entries

    async def append(self, record: bytes, expected: int | None) -> int | None:
        """Append one record; returns its position. See `GroupLog.append` for what is raised."""
        if len(record) + _HEADER_BYTES > self._nc.max_payload:
            raise GroupTooLarge(size=len(record), limit=self._nc.max_payload)
        headers = {"Nats-Expected-Stream": STREAM}
        if expected is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(max(0, expected))
        deadline = time.monotonic() + self._api.timeout
        await self._api.connected(deadline)
        try:
            reply = await self._nc.request(self._subject, record, timeout=max(0.05, deadline - time.monotonic()), headers=headers)
        except nats.errors.NoRespondersError as error:
            raise BrokerUnavailable("nobody takes records of the group log", subject=self._subject) from error
        except (nats.errors.ConnectionClosedError, nats.errors.ConnectionDrainingError, nats.errors.OutboundBufferLimitError) as error:
            raise BrokerUnavailable("the connection is closed", subject=self._subject) from error
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise AppendUnknown(subject=self._subject) from error
        return self._acknowledged(reply.data)

    async def changed(self) -> None:
        """Return when there may be more: a record was stored, the connection came back, or some time has passed."""
        if self._bell is None:
            self._bell = Bell(self._api, STREAM, self._subject)
        await self._bell.rung()

    async def close(self) -> None:
        """Take the bell down. The connection stays open."""
        bell, self._bell = self._bell, None
        if bell is not None:
            await bell.close()

    async def _get(self, question: dict[str, Any]) -> LogEntry | None:
        try:
            answer = await self._api.call(f"STREAM.MSG.GET.{STREAM}", question)
        except Refused as refused:
            if refused.number == NO_MESSAGE:
                return None
            raise BrokerUnavailable(f"the group log cannot be read: {refused}", subject=self._subject) from refused
        message = answer["message"]
        return LogEntry(int(message["seq"]), milliseconds(message["time"]), base64.b64decode(message.get("data") or ""))

    async def _read_to(self, position: int, limit: int, last: LogEntry) -> list[LogEntry]:
        if position == last.position:
            return [last]
        entries: list[LogEntry] = []
        while len(entries) < min(limit, ONE_BY_ONE):
            entry = await self._get({"seq": max(1, position), "next_by_subj": self._subject})
            if entry is None or entry.position > last.position:
                return entries
            entries.append(entry)
            position = entry.position + 1
        while len(entries) < limit and position <= last.position:
            wanted = min(limit - len(entries), PULL_AT_ONCE)
            more = await pull(self._api, STREAM, self._subject, position, limit=wanted, last=last.position)
            entries += more
            position = more[-1].position + 1
        return entries

    async def _check_not_trimmed(self, position: int, first: int | None) -> None:
        """What is missing at `position` was trimmed if the stream begins behind it, or lost records before the first left."""
        try:
            state = (await self._api.call(f"STREAM.INFO.{STREAM}", {"deleted_details": True}))["state"]
        except Refused as refused:
            if refused.number == NO_STREAM:
                raise BrokerUnavailable("the stream of the group logs is gone", stream=STREAM) from refused
            raise BrokerUnavailable(f"the group log cannot be looked at: {refused}", stream=STREAM) from refused
        begins = int(state["first_seq"])
        deleted = {int(gone) for gone in state.get("deleted") or () if gone}  # an empty stream says [0]
        lost = position <= 0 and any(first is None or gone < first for gone in deleted)
        if begins > max(1, position) or lost or position in deleted:
            raise GroupLogTruncated(stream=STREAM, position=position, begins=begins)

    def _acknowledged(self, data: bytes) -> int | None:
        try:
            answer = json.loads(data)
            error = answer.get("error")
            if error is None:
                return int(answer["seq"])
            number, description = int(error.get("err_code", 0)), str(error.get("description", ""))
        except (ValueError, TypeError, KeyError, AttributeError) as unreadable:
            raise AppendUnknown(subject=self._subject) from unreadable
        if number in _WRONG_SEQUENCE:
            raise LostRace(subject=self._subject)
        if number == _TOO_LARGE:
            raise GroupTooLarge(limit=description)
        if number == _OTHER_STREAM:
            raise PolicyConflict(f"another stream than {STREAM} takes the group log", subject=self._subject)
        raise BrokerUnavailable(f"the group log was not appended to: {description}", subject=self._subject)
