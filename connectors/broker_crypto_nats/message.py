"""A message as the application gets it: opened, with who sent it, and with the names of the client's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nats.aio.msg import Msg

from broker_crypto.errors import BrokerCryptoError, NotBuilt
from broker_crypto.records import Header, Opened, Security

from .outgoing import REPLY

if TYPE_CHECKING:
    from .gate import Gate


def as_dict(headers: Sequence[Header] | None) -> dict[str, str] | None:
    """Headers as nats-py gives them: one text a name, None where there are none."""
    if not headers:
        return None
    return {name: (value or b"").decode(errors="replace") for name, value in headers}


class SecureMsg:
    """`Msg` with `data` opened and `security` of the record. Its repr shows no data.

    A refused record's error carries one as `.message`: `data` None, `error` set, to be acknowledged or terminated by the
    application. `security` None: passed through as it came (the server's own messages, inboxes).
    """

    __slots__ = ("__weakref__", "_gate", "_raw", "_receipt", "data", "error", "headers", "security")

    Ack = Msg.Ack
    Metadata = Msg.Metadata

    def __init__(self, gate: Gate, raw: Msg, opened: Opened | None, error: BrokerCryptoError | None = None) -> None:
        self._gate = gate
        self._raw = raw
        self.error = error
        self._receipt: object | None = None
        self.data: bytes | None
        self.headers: dict[str, str] | None
        self.security: Security | None
        if opened is not None:
            self.data, self.headers, self.security = opened.payload, as_dict(opened.headers), opened.security
            self._receipt = opened.receipt
            if self.headers and raw.reply and self.headers.get(REPLY) == raw.reply:  # ours; `reply` says it
                del self.headers[REPLY]
                self.headers = self.headers or None
        else:
            self.data, self.headers, self.security = (raw.data if error is None else None), raw.headers, None

    @property
    def header(self) -> dict[str, str] | None:
        return self.headers

    @property
    def subject(self) -> str:
        return self._raw.subject

    @property
    def reply(self) -> str:
        return self._raw.reply

    @property
    def sid(self) -> int:
        return self._raw.sid

    @property
    def is_acked(self) -> bool:
        return self._raw.is_acked

    @property
    def metadata(self) -> Msg.Metadata:
        return self._raw.metadata

    async def respond(self, data: bytes) -> None:
        """Answer a request of the server's own subjects. NotBuilt elsewhere: an answer is never sent in clear.

        Sends no headers: the plain client echoes those of the request.
        """
        if not self._gate.passes(self._raw.subject):
            raise NotBuilt("answering a message (request and reply)", subject=self._raw.subject)
        await self._gate.clear(self._raw.reply, data)

    async def ack(self) -> None:
        await self._raw.ack()
        self._acknowledged()

    async def ack_sync(self, timeout: float = 1.0) -> Msg:
        answer = await self._raw.ack_sync(timeout)
        self._acknowledged()
        return answer

    async def nak(self, delay: int | float | None = None) -> None:
        await self._raw.nak(delay)

    async def in_progress(self) -> None:
        await self._raw.in_progress()

    async def term(self) -> None:
        await self._raw.term()
        self._acknowledged()

    def _acknowledged(self) -> None:
        if self._receipt is not None:
            self._gate.front.acknowledged(self._receipt)

    def __repr__(self) -> str:
        size = "none" if self.data is None else f"{len(self.data)} bytes"
        return f"<SecureMsg subject={self.subject!r} reply={self.reply!r} data={size} security={self.security!r}>"
