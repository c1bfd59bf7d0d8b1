"""What JetStream says of data topics: the streams that hold a topic's subjects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nats.aio.client import Client

from broker_crypto.errors import BrokerUnavailable
from broker_crypto.records import TopicFacts

from .jsapi import DEFAULT_PREFIX, NO_STREAM, Api, Refused


class NatsTopics:
    """Topics of `broker_crypto.delivery.ports`. `subjects` gives the patterns that the policy's topic covers."""

    def __init__(
        self, nc: Client, subjects: Callable[[str], Sequence[str]], *, timeout: float = 5.0, prefix: str = DEFAULT_PREFIX
    ) -> None:
        self._api = Api(nc, prefix=prefix, timeout=timeout)
        self._subjects = subjects

    async def describe(self, topic: str) -> list[TopicFacts]:
        """One entry for each stream that holds one of the topic's subjects, by stream name; empty on core NATS alone.

        The stream's leader answers, as it is now. `compacted` are streams that keep only the last message of each subject
        and that without an age: what lies there is never outlived by a key with an end.
        """
        names: set[str] = set()
        for pattern in self._subjects(topic):
            names.update(await self._holding(pattern))
        facts = [await self._facts(topic, name) for name in sorted(names)]
        return [fact for fact in facts if fact is not None]

    async def _holding(self, pattern: str) -> list[str]:
        found: list[str] = []
        while True:
            try:
                answer = await self._api.call("STREAM.NAMES", {"subject": pattern, "offset": len(found)})
            except Refused as refused:
                raise BrokerUnavailable(f"streams cannot be listed: {refused}", subject=pattern) from refused
            page = [str(name) for name in answer.get("streams") or ()]
            found += page
            if not page or len(found) >= int(answer.get("total", 0)):
                return found

    async def _facts(self, topic: str, name: str) -> TopicFacts | None:
        try:
            info = await self._api.call(f"STREAM.INFO.{name}")
        except Refused as refused:
            if refused.number == NO_STREAM:  # gone since it was listed
                return None
            raise BrokerUnavailable(f"a stream cannot be looked at: {refused}", stream=name) from refused
        return _read_facts(topic, info)


def _read_facts(topic: str, info: dict[str, Any]) -> TopicFacts:
    config = info["config"]
    age_ns = int(config.get("max_age") or 0)
    return TopicFacts(
        topic=topic,
        identity=str(info["created"]),
        ends={-1: int(info["state"]["last_seq"]) + 1},
        retention_s=-(-age_ns // 10**9) if age_ns else None,
        compacted=config.get("max_msgs_per_subject") == 1 and not age_ns,
    )
