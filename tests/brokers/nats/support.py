"""What the tests of the NATS connector share: members, streams, forgeries, waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from nats.aio.client import Client
from nats.js.api import StreamConfig

from broker_crypto_nats import SecureNats
from tests.support.fixed_group import FixedAgent, FixedGroup, Rule

TEXT_PLACE = 60  # a byte of the ciphertext in a small record


@dataclass
class Side:
    """One member: its agent, its sealing connection, the client's own errors."""

    agent: FixedAgent
    nc: SecureNats
    errors: list[Exception] = field(default_factory=list)


@dataclass
class Pair:
    """Alice writes, Bob reads; `root` is a subject of this test alone, `raw` the broker's view of it."""

    group: FixedGroup
    alice: Side
    bob: Side
    raw: Client
    root: str


async def settle(nc: Client | SecureNats) -> None:
    """Until the server has taken all that was sent before: the client writes the PING of one flush before what is pending."""
    await nc.flush()
    await nc.flush()


Connect = Callable[..., Awaitable[Side]]


def rules_of(root: str, **how: object) -> tuple[Rule, ...]:
    """`orders` sealed below <root>.o, `metrics` plain below <root>.m."""
    return (
        Rule("orders", (f"{root}.o.>",), **how),  # type: ignore[arg-type]
        Rule("metrics", (f"{root}.m.>",), plain=True),
    )


async def stream_of(pair: Pair, **settings: Any) -> str:
    """A stream of its own for a test, over all its subjects."""
    name = "S" + pair.root
    await pair.raw.jetstream().add_stream(StreamConfig(name=name, subjects=[f"{pair.root}.>"], **settings))
    return name


async def written(pair: Pair, count: int, subject: str = "o.x") -> list[bytes]:
    payloads = [b"%d" % at for at in range(count)]
    js = pair.alice.nc.jetstream()
    for payload in payloads:
        await js.publish(f"{pair.root}.{subject}", payload)
    return payloads


async def put_forged(pair: Pair, flip: int = TEXT_PLACE) -> None:
    """A record of Alice with one bit of its ciphertext changed, stored by somebody who is no member."""
    stored = await pair.raw.jetstream().get_last_msg("S" + pair.root, f"{pair.root}.o.x")
    data = bytearray(stored.data or b"")
    data[flip] ^= 1
    await pair.raw.jetstream().publish(f"{pair.root}.o.x", bytes(data))


async def until(done: Any) -> None:
    for _ in range(500):
        if done():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


async def until_settled(pair: Pair, stream: str, durable: str) -> None:
    for _ in range(500):
        info = await pair.raw.jsm().consumer_info(stream, durable)
        if info.num_ack_pending == 0 and info.num_pending == 0:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(info)


async def late_reader(pair: Pair, side: Connect, **how: Any) -> Side:
    """Bob has read one epoch of the log; Alice seals in the second, and the log cannot be read yet."""
    late = await side("bob", upto=1, **how)
    pair.group.next_epoch()
    pair.alice.agent.know()
    late.agent.readable.clear()
    return late
