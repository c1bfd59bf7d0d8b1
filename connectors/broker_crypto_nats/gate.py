"""What the parts of one sealing connection share: the client, the agent, and which subjects are whose."""

from __future__ import annotations

from nats.aio.client import Client

from broker_crypto.errors import NoPolicy, NotBuilt

from .acks import Acks
from .front import Channel, Front
from .outgoing import Outbox, check_size

OWN = ("$JS.", "$SRV.", "$SYS.")  # the server's own subjects: always clear, no policy is asked


class Gate:
    """Every message of one connection goes through here. `broker` is the policy's name of it, known once attached."""

    def __init__(self, nc: Client, front: Front) -> None:
        self.nc = nc
        self.front = front
        self.broker = ""
        self.acks = Acks(nc)
        self.outbox = Outbox(nc, front, self.report)
        self._inboxes = ("_INBOX.", nc.new_inbox().rpartition(".")[0] + ".")

    def channel(self, subject: str) -> Channel:
        """The channel of a subject; NoPolicy."""
        return self.front.channel(self.broker, subject)

    def passes(self, subject: str) -> bool:
        """Whether a subject is the server's own."""
        return subject.startswith(OWN)

    def is_inbox(self, subject: str) -> bool:
        """Whether a subject is an inbox: what comes there passes; of ours, only answers to the server's own go there."""
        return subject.startswith(self._inboxes)

    def check(self, subject: str) -> None:
        """NoPolicy for a subject without wildcards that no rule covers; others are looked up message by message."""
        if "*" not in subject and ">" not in subject and not self.passes(subject) and not self.is_inbox(subject):
            self.channel(subject)

    def whole(self, pattern: str | None) -> str | None:
        """The topic whose every record a subscription to `pattern` gets, None if it is only a part of one."""
        if pattern is None or self.passes(pattern) or self.is_inbox(pattern):
            return None
        try:
            topic = self.channel(pattern.replace(">", "x").replace("*", "x")).topic
        except NoPolicy:  # each message says so itself
            return None
        return topic if list(self.front.subjects(topic)) == [pattern] else None

    async def clear(self, subject: str, payload: bytes = b"", reply: str = "", headers: dict[str, str] | None = None) -> None:
        """Publish behind what waits, to the server's own or in answer to it. NotBuilt elsewhere: nothing else goes in clear."""
        if not self.passes(subject) and not self.is_inbox(subject):
            raise NotBuilt("sending in clear", subject=subject)
        if not self.outbox.idle:
            await self.outbox.empty()
        check_size(self.nc, payload, headers)
        await self.nc.publish(subject, payload, reply, headers)

    async def report(self, error: Exception) -> None:
        """To the client's error_cb, as it does with errors that are no caller's."""
        await self.nc._error_cb(error)
