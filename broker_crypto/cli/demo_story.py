"""The story of the demo: what happens in which order, what is asked of the agents, and what must come out of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from broker_crypto.cli.demo_agent import PRODUCERS
from broker_crypto.cli.demo_cast import Actor, prepare
from broker_crypto.cli.demo_partings import leave, lose_state, remove
from broker_crypto.cli.demo_search import Found, look, search
from broker_crypto.cli.demo_stage import ACK_WAIT, CONTROL, READERS, Result, Say, Stage


async def tell(say: Say, folder: Path, records: int) -> Result:
    """Run it all in `folder`; ends what it started, however it ends."""
    import nats

    from broker_crypto_nats.server import LocalServer

    prepare(folder, READERS)
    result = Result()
    cast = {name: Actor(name, folder, say) for name in READERS}
    thief = Actor("checkout", folder / "thief", say, module="demo_thief")
    with LocalServer(folder / "broker", synced=False) as server:
        say(f"a nats-server with JetStream runs at {server.url}")
        plain = await nats.connect(server.url)
        try:
            await _play(Stage(server.url, folder, plain, cast, thief, say, result), records // 2)
        finally:
            await asyncio.gather(*(actor.end() for actor in (*cast.values(), thief)))
            await plain.close()
        held = look(server.store)
    _judge_files(say, result, held, search(server.store))
    return result


async def _play(stage: Stage, each: int) -> None:
    """`each` is how many orders each producer publishes before the partings."""
    await _form(stage)
    await _kill_in_mid_stream(stage, each // 2)
    await _come_late(stage, each - each // 2)
    await _attack(stage)
    await _read_out(stage)
    await lose_state(stage)
    await leave(stage, each // 2 * 2)
    await remove(stage)
    await _end(stage)


async def _form(stage: Stage) -> None:
    js = stage.plain.jetstream()
    await js.add_stream(name="ORDERS", subjects=["orders.>"])
    await js.add_stream(name="CONTROL", subjects=["control.>"])
    for name in ("ops", "checkout", "billing"):
        await stage.cast[name].start(stage.url)
        await stage.cast[name].ask("ready")
        stage.readers.append(name)
    control = await stage.cast["ops"].ask("control", count=CONTROL)
    stage.say(f"{control['count']} control records went out in clear, as the policy says of their topic")


async def _kill_in_mid_stream(stage: Stage, half: int) -> None:
    """Both producers publish while the others read; billing is killed with a third read, and comes back."""
    cast = stage.cast
    for name in stage.readers:
        await cast[name].ask("read", ack_wait=ACK_WAIT)
    stage.say(f"ops and checkout publish {half:,} orders each; ops, checkout and billing read")
    publishing = asyncio.ensure_future(stage.publish(half, *PRODUCERS))
    try:
        await _kill_and_start(stage, half * 2 // 3)
        await publishing
    finally:
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
    rotated = await cast["checkout"].ask("rotate")
    stage.say(f"checkout renewed its keys: epoch {rotated['epoch']}")


async def _kill_and_start(stage: Stage, after: int) -> None:
    billing = stage.cast["billing"]
    await billing.has_read(after)
    await billing.kill()
    stage.say("billing was killed (SIGKILL) in mid-stream")
    await billing.start(stage.url)
    back = await billing.ask("ready")
    await billing.ask("read", ack_wait=ACK_WAIT)
    stage.say(f"billing is back from its own store, in epoch {back['epoch']}, and reads on")


async def _come_late(stage: Stage, rest: int) -> None:
    """Audit joins now. What was written before is not for it."""
    cast = stage.cast
    await cast["audit"].start(stage.url)
    joined = await cast["audit"].ask("ready")
    for name in PRODUCERS:
        await cast[name].reaches(joined["epoch"])
    await cast["audit"].ask("read", ack_wait=ACK_WAIT)
    stage.readers.append("audit")
    stage.say(f"audit came late, in epoch {joined['epoch']}; it reads the topic from its beginning while {rest * 2:,} more are published")
    told = await stage.publish(rest, *PRODUCERS)
    stage.result.records_per_s = sum(a["count"] for a in told) / max(a["seconds"] for a in told)


async def _attack(stage: Stage) -> None:
    """What anybody with access to the broker can do: change a record, move it, send it again."""
    js = stage.plain.jetstream()
    last = await stage.last_position()
    raw = await js.get_msg("ORDERS", last)
    middle = len(raw.data) // 2
    tampered = raw.data[:middle] + bytes((raw.data[middle] ^ 1,)) + raw.data[middle + 1 :]
    await js.publish(raw.subject, tampered)
    await js.publish("orders.elsewhere", raw.data)
    await js.publish(raw.subject, raw.data)
    stage.say("the broker's operator changed one record, moved one to another subject and replayed one")
    added = await stage.cast["ops"].ask("sizes", sequences=list(range(1, last, max(1, last // 200))))
    stage.result.overhead_bytes = sum(added["added"]) / len(added["added"])


async def _read_out(stage: Stage) -> None:
    result = stage.result
    for name in stage.readers:
        report = await stage.read_out(name, refused={"tampered": 1, "relocated": 1})
        result.expect(report["marked"].get("duplicate", 0) > 0, f"{name} was told that one record came twice")
        for code in ("tampered", "relocated"):
            result.expect(report["refused"].get(code, 0) > 0, f"{name} refused the {code} record")
    stage.say("tampered and moved records were refused by all four, the replayed one was marked")


async def _end(stage: Stage) -> None:
    stage.result.epochs = (await stage.cast["ops"].ask("epoch"))["epoch"] + 1
    for name in stage.readers:
        await stage.cast[name].stop()


def _judge_files(say: Say, result: Result, held: str, found: Found) -> None:
    result.plaintext_found_in_broker = found.orders > 0
    result.control_found = found.control
    result.expect(found.control == CONTROL, "the search finds every record of the plain topic")
    result.expect(found.orders == 0, "the broker's files hold no order")
    say("what the broker's files hold of an order, and what a member reads:")
    say(f"  {held}")
    say(f"  {found.example}")
