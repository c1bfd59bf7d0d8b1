"""`broker-crypto init`: everything that a first application needs, in one folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import click

from broker_crypto import policy
from broker_crypto.cli.output import Output, machine_readable
from broker_crypto.errors import UsageError
from broker_crypto.identity import ca, generate, keys, words
from broker_crypto.identity.certificate import read_certificate
from broker_crypto.storage.keys import make_key_file
from broker_crypto.wire import pem
from broker_crypto.wire.names import is_prefix

MADE = ("ca", "trust", "keys", "policy.yaml")  # the policy last: where it is, the rest is
POLICY = """\
# Made by `broker-crypto init`. What each key does: docs/policy.md; `broker-crypto policy explain orders.new` in plain words.
version: 1

agent:                                    # one file for many: BROKER_CRYPTO_IDENTITY, or Agent.open(..., identity=...)
  identity: "${{BROKER_CRYPTO_IDENTITY:-agent://{authority}/alice}}"
  certificate: "keys/{{agent_id}}.pem"      # {{agent_id}} is what stands behind `//`
  private_key: "keys/{{agent_id}}.key"

trust:
  anchors:                                # an anchor speaks only for identities under its prefixes
    - {{certificate: trust/ca.pem, identities: ["agent://{authority}/"]}}

state_persistence:
  backend: sqlite
  path: "state/{{agent_id}}/state.db"
  key: {{provider: file, path: keys/store.key}}

brokers:
  main: {{type: nats, servers: ["${{NATS_URL:-nats://127.0.0.1:4222}}"]}}

groups:
  orders:
    roles:
      admin: ["agent://{authority}/alice"]
      writer: ["agent://{authority}/*"]       # `*` does not cross `/`
{suite}
topics:                                   # the first that matches counts; what none matches is refused
  - topic: orders
    subjects: ["orders.>"]
    channel: mls
    group: orders
"""
P256 = """
crypto:
  algorithms: {signing: ecdsa-p256, key_agreement: p-256}
"""


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option("--authority", default="example", show_default=True, help="The part of identities between `//` and the next `/`.")
@click.option("--scheme", type=click.Choice(keys.SCHEMES), default="ed25519", show_default=True, help="Kind of the keys.")
@machine_readable
def command(out: Output, folder: Path, authority: str, scheme: str) -> None:
    """Make a small CA, two identities, a store key and a policy that works at once, in FOLDER (default: here).

    Nothing that exists is written over.

    \b
    Example:
      broker-crypto init demo --authority acme
    """
    if not is_prefix(f"agent://{authority}/"):
        raise UsageError("an authority is of [a-z0-9._-]", authority=authority)
    found = [name for name in MADE if (folder / name).exists()]
    if found:
        raise UsageError("init makes everything anew and writes nothing over", exists=", ".join(str(folder / name) for name in found))
    root = make(folder, authority, scheme)
    digest = read_certificate(root).key_hash
    out.say(f"made in {folder.absolute()}:")
    out.table(("", ""), [(name, WHAT[name].format(authority=authority)) for name in MADE])
    out.say(
        f"the CA's key is {words.spoken(digest)}", "next: start a NATS server with JetStream, then run an application with this policy.yaml"
    )
    out.result(
        {
            "folder": str(folder.absolute()),
            "policy": str((folder / "policy.yaml").absolute()),
            "identities": [f"agent://{authority}/{name}" for name in NAMES],
            "ca": digest,
        }
    )


NAMES = ("alice", "bob")
WHAT = {
    "ca": "the CA with its private key: keep it off the machines that run agents",
    "trust": "the CA's certificate, for everybody",
    "keys": "certificates and private keys of agent://{authority}/alice and /bob, the key of their stores",
    "policy.yaml": "one topic, `orders`, as a group",
}


def make(folder: Path, authority: str, scheme: str = "ed25519") -> bytes:
    """Make it all; the CA's certificate (DER). What is there when this fails half-way is not moved into place."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".init-", dir=folder))
    try:
        root = _fill(fresh, authority, scheme)
        policy.load(fresh / "policy.yaml", {})
        for name in MADE:
            os.rename(fresh / name, folder / name)
        if not (folder / ".gitignore").exists():
            (folder / ".gitignore").write_text("ca/\nkeys/\nstate/\n")
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return root


def _fill(folder: Path, authority: str, scheme: str) -> bytes:
    now_ms = time.time_ns() // 1_000_000
    root_key = keys.generate(scheme)
    root = ca.found(f"{authority} CA"[:64], root_key, now_ms=now_ms)
    keys.write(folder / "ca" / "ca.key", root_key)
    certificate = pem.write_certificates((root.certificate,))
    for copy in (folder / "ca" / "ca.pem", folder / "trust" / "ca.pem"):
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(certificate)
    for name in NAMES:
        identity, key = generate(root, f"agent://{authority}/{name}", now_ms=now_ms, scheme=scheme)
        keys.write(folder / "keys" / authority / f"{name}.key", key)
        (folder / "keys" / authority / f"{name}.pem").write_bytes(pem.write_certificates(identity.chain))
    make_key_file(folder / "keys" / "store.key")
    (folder / "policy.yaml").write_text(POLICY.format(authority=authority, suite=P256 if scheme == "p256" else ""))
    return root.certificate
