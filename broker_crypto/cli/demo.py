"""`broker-crypto demo`: four agents and a real broker, from nothing to a table, in less than a minute."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from pathlib import Path

import click

from broker_crypto.cli.demo_stage import Result
from broker_crypto.cli.demo_story import tell
from broker_crypto.cli.output import Output, machine_readable, no
from broker_crypto.errors import NotBuilt


@click.command("demo")
@click.option("--broker", type=click.Choice(["nats", "kafka"]), default="nats", show_default=True, help="Which kind of broker to start.")
@click.option("--records", type=click.IntRange(1000, 1_000_000), default=20_000, show_default=True, help="Orders that are published.")
@machine_readable
def command(out: Output, broker: str, records: int) -> None:
    """Show the whole thing on a real broker, started for it on this machine and ended with it.

    Four agents, each a process of its own, form a group; one is killed in mid-stream, one comes late, records are tampered
    with, moved and replayed; one loses its state folder, one leaves, one is robbed and removed, and whoever robbed it tries
    every key; and the broker's files are searched for what was written.

    \b
    Example:
      broker-crypto demo --records 5000 --json
    """
    if broker != "nats":
        raise NotBuilt("the demo on Kafka comes with the Kafka connector", broker=broker)
    with tempfile.TemporaryDirectory(prefix="broker-crypto-demo-") as folder:
        result = asyncio.run(_interruptible(out, Path(folder), records))
    _show(out, result)
    out.result(result.as_object())
    if not result.ok:
        no()


async def _interruptible(out: Output, folder: Path, records: int) -> Result:
    """Ctrl-C and SIGTERM end the demo: whatever was started is ended first.

    A cancellation may be lost in a library below (asyncio.wait_for of Python 3.11 returns a result that comes with it), so it
    is said again until it is heard.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    telling, stopping = asyncio.ensure_future(tell(out.say, folder, records)), asyncio.ensure_future(stop.wait())
    await asyncio.wait((telling, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    while not telling.done():
        telling.cancel()
        await asyncio.wait((telling,), timeout=2)
    if stop.is_set():
        await asyncio.gather(telling, return_exceptions=True)
        raise KeyboardInterrupt
    return await telling


def _show(out: Output, result: Result) -> None:
    out.say("")
    rows: list[tuple[str, str]] = [("published", f"{result.published:,}")]
    rows += [(f"read by {name}", f"{count:,}") for name, count in result.as_object()["read"].items()]
    rows += [
        ("lost", str(result.lost)),
        ("duplicates", f"{result.duplicates:,}"),
        ("epochs", str(result.epochs)),
        ("records/s, sealed and acknowledged", f"{result.records_per_s:,.0f}"),
        ("bytes added a record", f"{result.overhead_bytes:.0f}"),
        *((f"refused: {code}", f"{count:,}") for code, count in sorted(result.refused.items())),
        ("new orders open to who was removed", result.removed_member),
        ("orders found in the broker's files", "some" if result.plaintext_found_in_broker else "none"),
        ("control records found there", f"{result.control_found} of {result.control}"),
    ]
    out.table(("", ""), rows)
    for fault in result.faults:
        out.say(f"NOT AS PROMISED: {fault}")
