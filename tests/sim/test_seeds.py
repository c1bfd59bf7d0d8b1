"""Runs of the simulator, each from its seed alone: `python -m tests.sim --seed N` plays one and prints its history."""

from __future__ import annotations

import pytest

from tests.sim import mutations
from tests.sim.simulation import Simulation

SEEDS = 200
KEPT = (1999, 2095, 3882)  # each found a fault once


@pytest.mark.parametrize("seed", [*range(SEEDS), *KEPT])
def test_whatever_a_seed_draws_everything_that_must_hold_does(seed: int) -> None:
    Simulation(seed).run()


def test_a_seed_plays_the_same_run_each_time() -> None:
    for seed in (3, 8):
        first, second = Simulation(seed), Simulation(seed)
        first.run()
        second.run()
        assert first.history == second.history
        assert len(first.history) > 50


@pytest.mark.parametrize("mutation", mutations.ALL, ids=lambda mutation: mutation.__name__)
def test_a_change_for_the_worse_is_caught_by_a_rule(mutation: mutations.Mutation) -> None:
    seed, rule = mutations.CAUGHT[mutation.__name__]
    assert seed < SEEDS  # without the change it is clean
    assert mutations.caught(mutation, seed) == rule
