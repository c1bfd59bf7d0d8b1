"""What the loop of a group stands on, and whom it tells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from broker_crypto import errors
from broker_crypto.records import Clock, Event, GroupView, Random, TopicFacts
from broker_crypto.storage.port import StateStore


async def nothing_told(topic: str) -> Sequence[TopicFacts]:
    """Where nobody knows a broker. Raises BrokerUnavailable."""
    raise errors.BrokerUnavailable("no broker of the topic is known", topic=topic)


@dataclass(frozen=True, slots=True)
class Services:
    """What the loop stands on. `report(event)` and `publish(view, closed_by)` are called after a transaction has committed.

    `describe(topic)` is what every broker on which a topic of the group lies says of it now; BrokerUnavailable where one is away.
    """

    store: StateStore
    clock: Clock
    random: Random
    report: Callable[[Event], None]
    publish: Callable[[GroupView, errors.BrokerCryptoError | None], None]
    count: Callable[[str], None]  # a commit's verdict
    joined: Callable[[str, float], None]  # an external commit of ours: done or refused, after so many s
    describe: Callable[[str], Awaitable[Sequence[TopicFacts]]] = nothing_told
