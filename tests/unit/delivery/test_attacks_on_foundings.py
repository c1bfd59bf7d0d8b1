"""Foundings that are right in everything but one thing never count; the honest one behind them does."""

from __future__ import annotations

import pytest

from broker_crypto import limits
from broker_crypto.delivery import state
from broker_crypto.delivery.membership import Membership, follow
from broker_crypto.records import LogEntry
from tests.support.lies.foundings import FOUNDINGS, Founder
from tests.support.lies.switches import Switch
from tests.support.world import World


@pytest.fixture(scope="module")
def founder() -> Founder:
    world = World()
    return Founder(world, world.own("ops"))


@pytest.mark.parametrize("switch", FOUNDINGS, ids=lambda switch: switch.name)
def test_a_founding_with_one_thing_wrong_never_counts_and_the_next_one_does(founder: Founder, switch: Switch[Founder]) -> None:
    record = switch.write(founder)
    verdict = founder.judged(record)
    assert (verdict.kind, verdict.reason, verdict.chain) == (switch.kind, switch.reason, None)
    before, entry = Membership("orders"), LogEntry(1, founder.world.clock.now_ms(), record)
    step = follow(before, entry, "log", {}, {})
    assert (step.verdict, step.moved, step.epoch) == (verdict, False, None)
    assert state.encode_member(step.next) == state.encode_member(before)
    after = follow(step.next, LogEntry(2, founder.world.clock.now_ms(), founder.record()), "log", {}, {})
    assert after.verdict.kind == "founding"


def test_what_the_attacks_begin_with_counts(founder: Founder) -> None:
    verdict = founder.judged(founder.record())
    assert verdict.kind == "founding"
    assert verdict.chain is not None
    assert verdict.chain.founder == founder.own.identity
    late = founder.judged(founder.record(), late_ms=limits.COMMIT_TIME_WINDOW_MS)
    assert late.kind == "founding"
    assert founder.judged(founder.record(), late_ms=limits.COMMIT_TIME_WINDOW_MS + 1).reason == "time"
    assert founder.judged(founder.record(), late_ms=-limits.COMMIT_TIME_WINDOW_MS - 1).reason == "time"


def test_a_founder_counts_by_the_time_that_it_signs_not_by_the_brokers() -> None:
    """Its certificate ends 90 days from now, and begins 5 minutes ago."""
    world = World()
    own = world.own("ops")
    world.clock.advance(90 * 86400 - 10)
    founder = Founder(world, own)
    record = founder.record()
    assert founder.judged(record, late_ms=40_000).kind == "founding"
    world.clock.advance(20)
    late = founder.judged(founder.record(), late_ms=-20_000)
    assert (late.kind, late.reason) == ("invalid", "chain.validity")
