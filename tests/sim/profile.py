"""What a seed draws before anything happens: how large, on which kind of broker, and which faults there are."""

from __future__ import annotations

import random
from dataclasses import dataclass

FATES = ("lose_ack", "late", "never", "duplicate", "again", "refuse")
LOG_TROUBLES = ("cut", "regrown", "forked", "made anew", "trimmed", "rewritten")


@dataclass(frozen=True)
class Profile:
    """Chances are in 0..1: of an append's fate, of a failing transaction. `lies`, `copies` ...: whether there are such."""

    compare_and_set: bool
    suite: int
    members: int
    founders: int
    steps: int
    slow: float
    fates: dict[str, float]
    store_fails: float
    crashes: bool
    lies: bool
    copies: bool
    restores: bool
    losses: bool
    outages: bool
    junk: bool
    clocks: bool
    log_trouble: str | None
    rights: bool

    def told(self) -> str:
        """One line of it."""
        faults = ("crashes", "lies", "copies", "restores", "losses", "outages", "junk", "clocks", "rights")
        words = [word for word in faults if getattr(self, word)]
        kind = "compare-and-set" if self.compare_and_set else "append only"
        fates = ", ".join(f"{fate} {chance:.2f}" for fate, chance in self.fates.items())
        return (
            f"{kind}, suite {self.suite}, {self.members} members, {self.founders} founders, {self.steps} steps; "
            f"{' '.join(words) or 'no faults'}; log {self.log_trouble or 'sound'}; "
            f"store fails {self.store_fails:.3f}; {fates or 'no fates'}"
        )


def draw(seed: int) -> Profile:
    """The profile of a seed."""
    dice = random.Random(f"profile {seed}")

    def often(chance: float) -> bool:
        return dice.random() < chance

    members = dice.randint(3, 6)
    return Profile(
        compare_and_set=often(0.5),
        suite=dice.choice((1, 1, 1, 3, 2)),
        members=members,
        founders=dice.choice((1, 1, 2, 2, 3)),
        steps=dice.randint(25, 60),
        slow=dice.choice((0.0, 0.02, 0.1)),
        fates={fate: dice.choice((0.03, 0.1, 0.25)) for fate in FATES if often(0.5)} if often(0.8) else {},
        store_fails=dice.choice((0.0, 0.0, 0.01, 0.05)),
        crashes=often(0.7),
        lies=often(0.35),
        copies=often(0.15),
        restores=often(0.25),
        losses=often(0.25),
        outages=often(0.3),
        junk=often(0.3),
        clocks=often(0.25),
        log_trouble=dice.choice(LOG_TROUBLES) if often(0.2) else None,
        rights=often(0.5),
    )
