"""Whatever lies in the log, everybody makes the same of it and nothing breaks."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_crypto.delivery.rules import Chain, judge
from broker_crypto.records import LogEntry
from tests.support.lies.reach import reasons_in
from tests.support.world import World

ROOT = Path(__file__).resolve().parents[3]


def history() -> tuple[list[LogEntry], list[Chain]]:
    """A founding, a join and a path commit, and the chain behind each."""
    world = World()

    async def make() -> None:
        ops, writer = world.actor("ops"), world.actor("writer-1")
        await world.settle(ops, writer)
        want = asyncio.ensure_future(writer.group.rotate())
        await asyncio.sleep(0)
        await world.settle(writer, ops)
        await want

    asyncio.run(make())
    entries = world.broker.entries("orders")
    chains: list[Chain] = []
    for entry in entries:
        verdict = judge(chains[-1] if chains else None, entry, "orders")
        assert verdict.chain is not None
        chains.append(verdict.chain)
    return entries, chains


ENTRIES, CHAINS = history()


def changed(entry: LogEntry, record: bytes) -> LogEntry:
    return LogEntry(entry.position, entry.time_ms, record)


def test_every_bit_flip_of_a_founding_is_refused_and_the_genuine_one_then_counts() -> None:
    """Those of commits: test_wrong_commits.py."""
    entry = ENTRIES[0]
    for bit in range(8 * len(entry.record)):
        flipped = bytearray(entry.record)
        flipped[bit // 8] ^= 1 << bit % 8
        verdict = judge(None, changed(entry, bytes(flipped)), "orders")
        assert (verdict.kind in ("invalid", "passed"), verdict.chain) == (True, None), bit
    assert judge(None, entry, "orders").kind == "founding"


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_judged_without_an_exception(junk: bytes) -> None:
    for chain in (None, *CHAINS):
        for record in (junk, ENTRIES[1].record[:10] + junk, ENTRIES[2].record[: len(junk)] + junk):
            assert judge(chain, changed(ENTRIES[1], record), "orders").chain is chain


def test_a_record_of_another_group_does_not_count() -> None:
    assert judge(None, ENTRIES[0], "another").kind == "invalid"


@pytest.mark.parametrize("off", [-60_001, 60_001])
def test_a_signed_time_far_from_the_brokers_does_not_count(off: int) -> None:
    for at in (0, 2):
        entry = ENTRIES[at]
        late = LogEntry(entry.position, entry.time_ms + off, entry.record)
        verdict = judge(CHAINS[at - 1] if at else None, late, "orders")
        assert (verdict.kind, verdict.reason) == ("invalid", "time")
        near = LogEntry(entry.position, entry.time_ms + (off // abs(off)) * 60_000, entry.record)
        assert judge(CHAINS[at - 1] if at else None, near, "orders").kind in ("founding", "commit")


def test_the_page_on_groups_names_every_rule_of_the_log_and_no_other() -> None:
    delivery = ROOT / "broker_crypto" / "delivery"
    given = reasons_in(delivery / f"{name}.py" for name in ("rules", "rights", "chain", "group_policy", "log_records"))
    page = (ROOT / "docs" / "groups.md").read_text(encoding="utf-8")
    table = page[page.index("### Why a record does not count") : page.index("## Committing")]
    named = [name for row in table.splitlines() if row.startswith("| `") for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(given)


def test_a_commit_of_an_earlier_or_later_epoch_is_passed_over() -> None:
    assert judge(CHAINS[2], ENTRIES[1], "orders").kind == "stale"
    assert judge(CHAINS[0], ENTRIES[2], "orders").kind == "early"
    assert judge(CHAINS[0], ENTRIES[0], "orders").kind == "passed"
