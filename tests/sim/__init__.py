"""Agents in one process, under faults that a seed draws: `make sim SEEDS=n`, `python -m tests.sim --seed N` (CONTRIBUTING.md)."""
