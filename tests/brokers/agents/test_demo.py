"""`broker-crypto demo` as a user runs it: what it prints, and that nothing of it is left however it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

PROMISED = {
    "published",
    "read",
    "lost",
    "duplicates",
    "epochs",
    "records_per_s",
    "overhead_bytes",
    "refused",
    "plaintext_found_in_broker",
    "control_found",
    "removed_member_could_read",
    "ok",
}


@asynccontextmanager
async def demo(folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The demo in a process group of its own, its temporary files below `folder`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "import sys; from broker_crypto.cli import main; sys.exit(main())", "demo", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        for number in [process.pid, *running(folder)]:
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                pass
        await process.wait()


def running(folder: Path) -> dict[int, str]:
    """Processes that name the folder in their command line or environment, but for this one: pid -> command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        if command and str(folder).encode() in command + environment:
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


async def gone(folder: Path, patience: float = 20.0) -> None:
    end = asyncio.get_running_loop().time() + patience
    while left := running(folder):
        assert asyncio.get_running_loop().time() < end, left
        await asyncio.sleep(0.05)


async def test_the_demo_keeps_its_promises_and_says_so_in_one_object(tmp_path: Path) -> None:
    async with demo(tmp_path, "--records", "2000", "--json") as process:
        out, _ = await process.communicate()
    told = json.loads(out)
    assert process.returncode == 0, told
    assert told.keys() == PROMISED
    assert told["ok"] is True
    assert (told["published"], told["lost"], told["plaintext_found_in_broker"]) == (2610, 0, False)
    assert told["read"] == {"ops": 2610, "checkout": 2510, "billing": 2610, "audit": 1200}
    early, unread, forged = 1000, 100, 10  # to audit, which came late; to checkout, once removed; to ops and billing, by the thief
    assert told["refused"] == {"tampered": 4, "relocated": 4, "not_a_member_at_epoch": early + unread, "removed_sender": 2 * forged}
    assert told["removed_member_could_read"] is False
    assert told["control_found"] == 100
    assert told["epochs"] == 9
    assert told["records_per_s"] > 0
    assert 100 < told["overhead_bytes"] < 400
    assert running(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


MOMENTS = {"at the start": b"a nats-server with JetStream runs", "in mid-stream": b"ops and checkout publish"}
STARTED = {"at the start": 2, "in mid-stream": 5, "beside the thief": 6}  # the demo, its server and so many agents


@pytest.mark.parametrize("when", MOMENTS)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
async def test_a_demo_that_is_ended_leaves_no_process_behind(tmp_path: Path, how: signal.Signals, when: str) -> None:
    await ended_at(tmp_path, how, MOMENTS[when], STARTED[when])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
async def test_a_demo_that_is_ended_beside_its_thief_leaves_no_process_behind(tmp_path: Path, how: signal.Signals) -> None:
    await ended_at(tmp_path, how, b"a thief copied", STARTED["beside the thief"], "--records", "1000")


async def ended_at(tmp_path: Path, how: signal.Signals, moment: bytes, started: int, *arguments: str) -> None:
    async with demo(tmp_path, *arguments) as process:
        assert process.stdout is not None
        while moment not in (line := await process.stdout.readline()):
            assert line, "it ended by itself"
        assert len(running(tmp_path)) >= started
        process.send_signal(how)
        rest = await asyncio.wait_for(process.stdout.read(), 20)
        await asyncio.wait_for(process.wait(), 20)
        assert b"Traceback" not in rest
        assert process.returncode == (130 if how != signal.SIGKILL else -9)
        await gone(tmp_path)
        if how != signal.SIGKILL:
            assert list(tmp_path.iterdir()) == []
