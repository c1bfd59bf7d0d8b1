"""Searching a broker's files for what was written: shown to work by records that must be there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from broker_crypto.cli.demo_agent import KNOWN, order
from broker_crypto.wire.envelopes import TOPIC_RECORD

CHUNK, OVERLAP = 8 * 1024 * 1024, 4096
_CONTROL = re.compile(rb"control record (\d{6})")
_SHOWN = 32  # bytes


@dataclass(frozen=True, slots=True)
class Found:
    """How many different control records, and how often an order's words, stand in the files."""

    control: int
    orders: int
    example: str


def search(folder: Path) -> Found:
    """Look through every file of `folder`."""
    control: set[bytes] = set()
    orders = 0
    words = order("ops", 0).split(b'"says"')[0].split(b"0")[0]  # how every order begins
    for data in _chunks(folder):
        control.update(_CONTROL.findall(data))
        orders += data.count(words)
    return Found(len(control), orders, order("ops", 0)[: _SHOWN * 3].decode())


def look(folder: Path) -> str:
    """The first bytes of a sealed record as they lie there."""
    for data in _chunks(folder):
        at = data.find(TOPIC_RECORD.marker)
        if at >= 0:
            return data[at : at + _SHOWN].hex(" ")
    return f"nothing that looks like a record ({KNOWN!r} is searched for all the same)"


def _chunks(folder: Path) -> Iterator[bytes]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            before = b""
            while block := file.read(CHUNK):
                yield before + block
                before = block[-OVERLAP:]
