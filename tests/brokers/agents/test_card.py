"""The few lines that an application changes, run as they are printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nats.aio.client import Client

from tests.support.servers import NatsServer

ROOT = Path(__file__).resolve().parents[3]
ADDRESS = "nats://127.0.0.1:4222"
CARD = """\
import nats
from broker_crypto import Agent
from broker_crypto_nats import SecureNats

async with Agent.open("policy.yaml") as agent:
    nc = SecureNats(await nats.connect("nats://127.0.0.1:4222"), agent)
    js = nc.jetstream()
    await js.publish("orders.created", b"...")                 # sealed for the group `orders`
    sub = await js.subscribe("orders.>", durable="billing")
    async for msg in sub.messages:
        print(msg.security.sender, msg.data)                    # opened, sender verified
        await msg.ack()
"""


def run(folder: Path, *arguments: str, **more: str) -> str:
    path = os.pathsep.join([str(ROOT), str(ROOT / "connectors")])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "error", **more},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_the_card_works_as_it_is_printed(tmp_path: Path, server: NatsServer, own_nc: Client) -> None:
    """The address alone is another one, since the test's server listens where there is room."""
    js = own_nc.jetstream()
    await js.add_stream(name="orders", subjects=["orders.>"])
    run(tmp_path, "-c", "import sys; from broker_crypto.cli import main; sys.exit(main(['init']))")
    (tmp_path / "card.py").write_text(CARD.replace(ADDRESS, server.url))
    for name in ("alice", "bob"):
        words = f"agent://example/{name} b'...'"
        identity = f"agent://example/{name}"
        printed = run(tmp_path, "-m", "tests.support.sample", "card.py", words, BROKER_CRYPTO_IDENTITY=identity)
        assert printed.splitlines()[-1] == words
    stored = [(await js.get_msg("orders", n)).data for n in (1, 2)]
    assert all(record.startswith(b"\xc3\x01") and b"..." not in record for record in stored)


def test_the_readme_prints_the_card() -> None:
    """All of its lines, in their order; the page adds only the stream, which an application has already."""
    readme = iter((ROOT / "README.md").read_text(encoding="utf-8").splitlines())
    assert all(line in readme for line in CARD.splitlines())
