"""`python -m tests.sim --seed N` plays one seed and prints its history; `--seeds N` plays N of them and prints those that fail."""

from __future__ import annotations

import argparse
import sys
import time

from tests.sim.simulation import Simulation


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one, and print its history")
    parser.add_argument("--seeds", type=int, default=200, help="play so many")
    parser.add_argument("--first", type=int, default=0, help="from this one on")
    given = parser.parse_args()
    if given.seed is not None:
        return replay(given.seed)
    failed = [seed for seed in range(given.first, given.first + given.seeds) if not plays(seed)]
    print(f"{given.seeds} seeds, {len(failed)} failed: {failed}" if failed else f"{given.seeds} seeds, all clean")
    return bool(failed)


def replay(seed: int) -> int:
    sim, error = Simulation(seed), None
    try:
        sim.run()
    except AssertionError as caught:
        error = caught
    print("\n".join(sim.history))
    print(f"seed {seed}: {error or 'clean'}")
    return error is not None


def plays(seed: int) -> bool:
    start = time.process_time()
    try:
        Simulation(seed).run()
    except AssertionError as error:
        print(f"seed {seed}: {error}\n    python -m tests.sim --seed {seed}", flush=True)
        return False
    if time.process_time() - start > 5:
        print(f"seed {seed}: {time.process_time() - start:.1f} s")
    return True


if __name__ == "__main__":
    sys.exit(main())
