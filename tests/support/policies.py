"""Policy files for tests: written into a folder with everything that they point at."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_crypto import policy
from broker_crypto.errors import PolicyError
from broker_crypto.wire import pem
from tests.support import certificates as make

ANCHORS = """
trust:
  anchors:
    - {certificate: ca.pem, identities: ["agent://acme/"]}
"""
GROUPS = """
groups:
  orders: {roles: {admin: ["agent://acme/ops"], reader: ["agent://acme/*"]}}
"""


def write(folder: Path, text: str, name: str = "policy.yaml") -> Path:
    """A policy file beside the anchor `ca.pem`."""
    (folder / "ca.pem").write_bytes(pem.write_certificates((make.plans(0).root.build(),)))
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, environ: dict[str, str] | None = None, identity: str | None = None) -> policy.Policy:
    return policy.load(write(folder, text), environ or {}, identity=identity)


def wrong(folder: Path, text: str, environ: dict[str, str] | None = None) -> list[PolicyError]:
    """All that is wrong with a file; `load` raises the first of it."""
    path = write(folder, text)
    found = policy.problems(path, environ or {})
    if not found:
        policy.load(path, environ or {})
        return []
    with pytest.raises(PolicyError) as caught:
        policy.load(path, environ or {})
    assert (caught.value.what, caught.value.fields) == (found[0].what, found[0].fields)
    return found
