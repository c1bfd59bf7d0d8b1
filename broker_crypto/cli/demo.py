"""`broker-crypto demo`: four agents and a real broker, from nothing to a table, in less than a minute."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from pathlib import Path

import click

from broker_crypto.cli.demo_story import Result, tell
from broker_crypto.cli.output import Output, machine_readable, no
from broker_crypto.errors import NotBuilt


@click.command("demo")
@click.option("--broker", type=click.Choice(["nats", "kafka"]), default="nats", show_default=True, help="Which kind of broker to start.")
@click.option("--records", type=click.IntRange(1000, 1_000_000), default=20_000, show_default=True, help="Orders that are published.")
@machine_readable
def command(out: Output, broker: str, records: int) -> None:
    """Show the whole thing on a real broker, started for it on this machine and ended with it.

    Four agents, each a process of its own, form a group; one is killed in mid-stream, one comes late, records are tampered
    with, moved and replayed, and the broker's files are searched for what was written.

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
    """SIGTERM ends the demo as Ctrl-C does: whatever was started is ended first."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await tell(out.say, folder, records)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _show(out: Output, result: Result) -> None:
    out.say("")
    rows: list[tuple[str, str]] = [("published", f"{result.published:,}")]
    rows += [(f"read by {name}", f"{count:,}") for name, count in result.read.items()]
    rows += [
        ("lost", str(result.lost)),
        ("duplicates", f"{result.duplicates:,}"),
        ("epochs", str(result.epochs)),
        ("records/s, sealed and acknowledged", f"{result.records_per_s:,.0f}"),
        ("bytes added a record", f"{result.overhead_bytes:.0f}"),
        *((f"refused: {code}", f"{count:,}") for code, count in sorted(result.refused.items())),
        ("orders found in the broker's files", "some" if result.plaintext_found_in_broker else "none"),
        ("control records found there", f"{result.control_found} of {result.control}"),
    ]
    out.table(("", ""), rows)
    for fault in result.faults:
        out.say(f"NOT AS PROMISED: {fault}")
