"""The one edit that a command makes in a policy file: a line under `trust.anchors`. Comments and layout stay as they are."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from broker_crypto.policy import document
from broker_crypto.policy.policy import load


def add_anchor(data: bytes, file: str, certificate: str, identities: Sequence[str]) -> bytes:
    """The file with one more anchor, in front of the first.

    Raises PolicyError with the line to add where the list is not written one anchor a line.
    """
    entry = f"- {{certificate: {json.dumps(certificate)}, identities: {json.dumps(list(identities))}}}"
    raw = document.read(data, file)
    anchors = raw.at(("trust", "anchors"))
    lines = data.decode("utf-8-sig").split("\n")
    first = anchors.value[0].place if anchors is not None and isinstance(anchors.value, tuple) and anchors.value else None
    lead = lines[first.line - 1][: first.column - 1] if first else ""
    if first is None or lead.strip() != "-":
        raise raw.find(("trust", "anchors")).error(f"add this under `trust.anchors` yourself, the file is laid out otherwise: {entry}")
    lines.insert(first.line - 1, lead[: lead.index("-")] + entry)
    return "\n".join(lines).encode()


def replace(path: Path, data: bytes) -> None:
    """Replace a policy file, whole or not at all, if an agent would read the new one. Raises PolicyError, nothing changed."""
    path = path.resolve()
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with fresh.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.chmod(path.stat().st_mode & 0o777)
        load(fresh)
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
