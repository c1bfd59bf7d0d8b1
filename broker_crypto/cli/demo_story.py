"""The story of the demo: what happens in which order, what is asked of the agents, and what must come out of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker_crypto.cli.demo_agent import PRODUCERS
from broker_crypto.cli.demo_cast import Actor, prepare
from broker_crypto.cli.demo_search import Found, look, search

CONTROL = 100  # records of the topic that the policy says is plain
ACK_WAIT = 3.0  # s until the broker gives a killed reader's records again
READERS = ("ops", "checkout", "billing", "audit")
Say = Callable[[str], None]


@dataclass(slots=True)
class Result:
    """What came out, all of it from the agents' own reports but for the search of the broker's files."""

    published: int = 0
    read: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    duplicates: int = 0
    epochs: int = 0
    records_per_s: float = 0.0
    overhead_bytes: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)
    plaintext_found_in_broker: bool = True
    control_found: int = 0
    control: int = CONTROL
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.faults

    def as_object(self) -> dict[str, Any]:
        return {
            "published": self.published,
            "read": self.read,
            "lost": self.lost,
            "duplicates": self.duplicates,
            "epochs": self.epochs,
            "records_per_s": round(self.records_per_s, 1),
            "overhead_bytes": round(self.overhead_bytes, 1),
            "refused": dict(self.refused),
            "plaintext_found_in_broker": self.plaintext_found_in_broker,
            "control_found": self.control_found,
            "ok": self.ok,
        }

    def expect(self, holds: bool, promise: str) -> None:
        if not holds:
            self.faults.append(promise)


async def tell(say: Say, folder: Path, records: int) -> Result:
    """Run it all in `folder`; ends what it started, however it ends."""
    import nats

    from broker_crypto_nats.server import LocalServer

    prepare(folder, READERS)
    result = Result()
    cast = {name: Actor(name, folder, say) for name in READERS}
    with LocalServer(folder / "broker", synced=False) as server:
        say(f"a nats-server with JetStream runs at {server.url}")
        plain = await nats.connect(server.url)
        try:
            await _play(say, Stage(server.url, plain, cast, records // 2, result))
        finally:
            await asyncio.gather(*(actor.end() for actor in cast.values()))
            await plain.close()
        held = look(server.store)
    _judge_files(say, result, held, search(server.store))
    return result


@dataclass(slots=True)
class Stage:
    """Where the story plays. `each` is how many orders each producer publishes in all."""

    url: str
    plain: Any
    cast: dict[str, Actor]
    each: int
    result: Result
    sample: str = ""


async def _play(say: Say, stage: Stage) -> None:
    await _form(say, stage)
    await _kill_in_mid_stream(say, stage)
    late_from = await _come_late(say, stage)
    await _attack(say, stage)
    await _read_out(say, stage, late_from)


async def _form(say: Say, stage: Stage) -> None:
    js = stage.plain.jetstream()
    await js.add_stream(name="ORDERS", subjects=["orders.>"])
    await js.add_stream(name="CONTROL", subjects=["control.>"])
    for name in ("ops", "checkout", "billing"):
        await stage.cast[name].start(stage.url)
        await stage.cast[name].ask("ready")
    control = await stage.cast["ops"].ask("control", count=CONTROL)
    say(f"{control['count']} control records went out in clear, as the policy says of their topic")


async def _kill_in_mid_stream(say: Say, stage: Stage) -> None:
    """Both producers publish while the others read; billing is killed with a third read, and comes back."""
    cast, half = stage.cast, stage.each // 2
    for name in ("ops", "checkout", "billing"):
        await cast[name].ask("read", ack_wait=ACK_WAIT)
    say(f"ops and checkout publish {half:,} orders each; ops, checkout and billing read")
    publishing = asyncio.gather(*(cast[name].ask("publish", first=0, count=half) for name in PRODUCERS))
    try:
        await _kill_and_start(say, stage, half * 2 // 3)
        told = await publishing
    finally:
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
    stage.result.published += sum(answer["count"] for answer in told)
    rotated = await cast["checkout"].ask("rotate")
    say(f"checkout renewed its keys: epoch {rotated['epoch']}")


async def _kill_and_start(say: Say, stage: Stage, after: int) -> None:
    cast = stage.cast
    await cast["billing"].has_read(after)
    await cast["billing"].kill()
    say("billing was killed (SIGKILL) in mid-stream")
    await cast["billing"].start(stage.url)
    back = await cast["billing"].ask("ready")
    await cast["billing"].ask("read", ack_wait=ACK_WAIT)
    say(f"billing is back from its own store, in epoch {back['epoch']}, and reads on")


async def _come_late(say: Say, stage: Stage) -> int:
    """Audit joins now. What was written before is not for it; returns the first number that is."""
    cast, half = stage.cast, stage.each // 2
    await cast["audit"].start(stage.url)
    joined = await cast["audit"].ask("ready")
    for name in PRODUCERS:
        await cast[name].reaches(joined["epoch"])
    await cast["audit"].ask("read", ack_wait=ACK_WAIT)
    rest = stage.each - half
    say(f"audit came late, in epoch {joined['epoch']}; it reads the topic from its beginning while {rest * 2:,} more are published")
    told = await asyncio.gather(*(cast[name].ask("publish", first=half, count=rest) for name in PRODUCERS))
    stage.result.published += sum(answer["count"] for answer in told)
    stage.result.records_per_s = sum(a["count"] for a in told) / max(a["seconds"] for a in told)
    stage.result.epochs = (await cast["ops"].ask("epoch"))["epoch"] + 1
    return half


async def _attack(say: Say, stage: Stage) -> None:
    """What anybody with access to the broker can do: change a record, move it, send it again."""
    js = stage.plain.jetstream()
    last = (await js.stream_info("ORDERS")).state.last_seq
    raw = await js.get_msg("ORDERS", last)
    stage.sample = raw.data[:64].hex(" ")
    middle = len(raw.data) // 2
    tampered = raw.data[:middle] + bytes((raw.data[middle] ^ 1,)) + raw.data[middle + 1 :]
    await js.publish(raw.subject, tampered)
    await js.publish("orders.elsewhere", raw.data)
    await js.publish(raw.subject, raw.data)
    say("the broker's operator changed one record, moved one to another subject and replayed one")
    added = await stage.cast["ops"].ask("sizes", sequences=list(range(1, last, max(1, last // 200))))
    stage.result.overhead_bytes = sum(added["added"]) / len(added["added"])


async def _read_out(say: Say, stage: Stage, late_from: int) -> None:
    whole = dict.fromkeys(("ops", "checkout", "billing"), stage.each * 2) | {"audit": (stage.each - late_from) * 2}
    result = stage.result
    for name, count in whole.items():
        report = await stage.cast[name].reads_out(count)
        first = late_from if name == "audit" else 0
        wanted = {(p, n) for p in PRODUCERS for n in range(first, stage.each)}
        read = {(p, n) for p in PRODUCERS for n in report["numbers"][p]}
        result.read[name] = report["unique"]
        result.lost += len(wanted - read)
        result.duplicates += report["total"] - report["unique"]
        result.refused.update(report["refused"])
        result.expect(not wanted - read, f"{name} read everything it may read")
        result.expect(not read - wanted, f"{name} read nothing that it may not read")
        result.expect(report["wrong_sender"] == 0, f"every order that {name} read named its true sender")
        result.expect(report["marked"].get("duplicate", 0) > 0, f"{name} was told that one record came twice")
        for code in ("tampered", "relocated"):
            result.expect(report["refused"].get(code, 0) > 0, f"{name} refused the {code} record")
    late = result.refused["not_a_member_at_epoch"]
    result.expect(late == late_from * 2, "audit was told of every earlier record that it was no member then")
    say(f"tampered and moved records were refused by all four, the replayed one was marked, {late:,} early ones were refused to audit")
    for actor in stage.cast.values():
        await actor.stop()


def _judge_files(say: Say, result: Result, held: str, found: Found) -> None:
    result.plaintext_found_in_broker = found.orders > 0
    result.control_found = found.control
    result.expect(found.control == CONTROL, "the search finds every record of the plain topic")
    result.expect(found.orders == 0, "the broker's files hold no order")
    say("what the broker's files hold of an order, and what a member reads:")
    say(f"  {held}")
    say(f"  {found.example}")
