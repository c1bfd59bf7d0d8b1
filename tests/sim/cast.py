"""Who takes part: one CA, identities with keys made of their names, one policy file for all. Made once a process."""

from __future__ import annotations

import hashlib
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker_crypto import policy
from broker_crypto.identity import ca, identity
from broker_crypto.testing import EPOCH_MS
from broker_crypto.wire import pem

GROUP = "orders"
TOPICS = ("orders", "bills")
NAMES = ("ops", "writer-1", "ops-2", "writer-2", "reader-1", "writer-3", "reader-2", "writer-4")
NEWCOMER = "reader-9"
ROLES = {"admin": ["agent://acme/ops", "agent://acme/ops-*"], "writer": ["agent://acme/writer-*"], "reader": ["agent://acme/reader-*"]}
_FOLDER = tempfile.TemporaryDirectory(prefix="broker-crypto-sim-")


def uri(name: str) -> str:
    return f"agent://acme/{name}"


@cache
def authority() -> ca.Authority:
    made = ca.found("simulator CA", Ed25519PrivateKey.from_private_bytes(_seed("CA")), now_ms=EPOCH_MS)
    (Path(_FOLDER.name) / "ca.pem").write_bytes(pem.write_certificates((made.certificate,)))
    return made


@cache
def identity_of(name: str, suite: int) -> identity.Identity:
    """The same key for the same name, in every run."""
    key: ca.PrivateKey
    if suite == 2:
        key = ec.derive_private_key(int.from_bytes(_seed(name), "big") >> 1 | 1, ec.SECP256R1())
    else:
        key = Ed25519PrivateKey.from_private_bytes(_seed(name))
    certificate = ca.issue(authority(), uri(name), key.public_key(), now_ms=EPOCH_MS, days=3000)
    return identity.of((certificate,), key)


def _seed(name: str) -> bytes:
    return hashlib.sha256(f"simulated {name}".encode()).digest()


@cache
def policy_of(name: str, suite: int) -> policy.Policy:
    authority()
    return policy.Policy.from_mapping(mapping(suite), folder=_FOLDER.name, environ={}, identity=uri(name))


def mapping(suite: int) -> dict[str, Any]:
    """The policy file of everybody."""
    topics = [{"topic": topic, "subjects": [f"{topic}.>"], "channel": "mls", "group": GROUP} for topic in TOPICS]
    return {
        "version": 1,
        "agent": {"identity": uri("ops"), "certificate": "none.pem", "private_key": "none.key"},
        "trust": {"anchors": [{"certificate": "ca.pem", "identities": ["agent://acme/"]}]},
        "state_persistence": {"backend": "memory", "ephemeral": True},
        "defaults": {"epoch_wait": "10s"},
        "groups": {GROUP: {"roles": ROLES, "suite": suite}},
        "topics": topics,
    }
