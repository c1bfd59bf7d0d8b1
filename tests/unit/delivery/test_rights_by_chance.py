"""Random lives of a group, judged by a second, simpler book of the rules: both say the same of every record, from wherever one starts.

The book keeps what the documentation says in its own words: who is where, since when, with which certificate; who left; who
committed when. Nothing in it is taken from the code that judges.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from broker_crypto.delivery.group_policy import GroupPolicy
from broker_crypto.delivery.membership import Membership, follow
from broker_crypto.delivery.rules import Chain, Verdict, judge
from broker_crypto.identity.certificate import read_certificate
from broker_crypto.mls.proposals import Proposal, Remove
from tests.unit.delivery.test_histories import of_chain
from tests.unit.delivery.written import ROLES, Log, Written, again, sets

SECOND, DAY = 1000, 86_400_000
NAMES = ("ops-1", "ops-2", "writer-1", "writer-1b", "writer-2", "reader-1")
ONE_ADMIN = (("agent://acme/ops-1", "admin"), ("agent://acme/*", "writer"))
FEW = (("agent://acme/ops-*", "admin"), ("agent://acme/writer-1", "writer"))


@dataclass
class Occupant:
    """Who is at one leaf: by which name, since which epoch, when it made its last path, until when its certificate holds."""

    name: str
    since: int
    path: int
    ends: int


@dataclass
class Book:
    """The second book."""

    log: Log
    leaves: dict[int, Occupant] = field(default_factory=dict)
    left: set[int] = field(default_factory=set)
    commits: list[tuple[int, bytes, str]] = field(default_factory=list)

    @staticmethod
    def identity(name: str) -> str:
        return "agent://acme/" + name.removesuffix("b")

    def role(self, policy: GroupPolicy, name: str) -> str | None:
        identity = self.identity(name)
        if identity in policy.barred:
            return None
        roles = {r for p, r in policy.roles if p == identity or (p.endswith("*") and identity.startswith(p[:-1]))}
        return next((r for r in ("admin", "writer", "reader") if r in roles), None)

    def held_up(self, key: bytes, name: str, now: int) -> bool:
        recent = [one for one in self.commits if now - 10 * SECOND < one[0] <= now]
        return sum(k == key for _, k, _ in recent) >= 4 or sum(i == self.identity(name) for _, _, i in recent) >= 16

    def free(self, leaf: int, now: int) -> bool:
        one, away = self.leaves[leaf], self.log.policy.max_offline
        return leaf in self.left or one.ends < now or (away != -1 and now - one.path >= away * SECOND)

    def allows(self, name: str, leaf: int | None, *, removed: set[int], policy: GroupPolicy | None, fences: bool, ends: int) -> bool:
        """A commit of now, by the occupant of `leaf` or one who joins; `ends` is when the certificate that it brings does."""
        log = self.log
        after = policy or log.policy
        admin = self.role(log.policy, name) == "admin"
        if self.role(after, name) is None or ends < log.now or (fences and not admin):
            return False
        if not admin and self.held_up(self.key_of(name, leaf), name, log.now):
            return False
        if leaf is None:
            return True
        if not admin and (policy is not None or not all(self.free(other, log.now) for other in removed)):
            return False
        if policy is None:
            return True
        admins = [p for p, r in policy.roles if r == "admin" and (p.endswith("*") or p not in policy.barred)]
        stay = [one for other, one in self.leaves.items() if other not in removed | {leaf}]
        return bool(admins) and all(self.role(policy, one.name) for one in stay)

    def key_of(self, name: str, leaf: int | None) -> bytes:
        """The key that signs: the one in the tree, or the joiner's."""
        node = None if leaf is None else self.log.chain.public.tree.leaf(leaf)
        return self.log.owns[name].signature_public if node is None else node.signature_key

    def enter(self, name: str, leaf: int | None, key: bytes, *, removed: set[int], ends: int) -> None:
        """A commit that counted."""
        for gone in removed:
            del self.leaves[gone]
        epoch = self.log.chain.epoch
        at = self.log.leaf(name)
        since = epoch if leaf is None else self.leaves[leaf].since
        self.leaves[at] = Occupant(name, since, self.log.now, ends)
        self.left -= removed
        self.commits.append((self.log.now, key, self.identity(name)))

    def says_what_the_chain_says(self) -> None:
        chain = self.log.chain
        assert {i for i, _ in chain.public.tree.leaves()} == self.leaves.keys()
        assert chain.joined == {i: one.since for i, one in self.leaves.items()}
        assert chain.paths == {i: one.path for i, one in self.leaves.items()}
        assert chain.left.keys() == self.left


class Life:
    """One group, to which chance does what it likes."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.log = Log(names=("ops-1",), roles=ROLES, max_offline=self.draw.choice([-1, 3 * 86400]), seed=seed, suite=1 + seed % 3)
        self.book = Book(self.log)
        self.book.leaves[0] = Occupant("ops-1", 0, self.log.chain.time, self.ends("ops-1"))
        self.said: list[tuple[object, ...]] = [of_chain(self.log.head)]
        self.seen: Counter[str] = Counter()

    def ends(self, name: str) -> int:
        return read_certificate(self.log.owns[name].chain[0]).not_after

    def step(self) -> None:
        self.log.now += self.draw.choice([0, 0, 0, 0, 1 * SECOND, 3 * SECOND, 11 * SECOND, DAY])
        inside = [name for name in NAMES if name in self.log.members and self.log.members[name].mls is not None]
        what = self.draw.choices([self.commit, self.hurry, self.join, self.leave], [12, 1, 4, 2])[0]
        what(inside)
        self.book.says_what_the_chain_says()

    def commit(self, inside: list[str]) -> None:
        if not inside:
            return
        log, name = self.log, self.draw.choice(inside)
        leaf = log.members[name].mls.leaf  # type: ignore[union-attr]
        others = [other for other in self.book.leaves if other != leaf]
        removed = set(self.draw.sample(others, min(len(others), self.draw.choice([0, 0, 0, 1, 1, 2]))))
        policy = self.policy() if self.draw.random() < 0.3 else None
        fences = () if self.draw.random() < 0.15 else None
        before, own = log.owns[name], None
        if self.draw.random() < 0.3:
            own = log.own(name, of=name.removesuffix("b"), days=self.draw.choice([1, 20]))
        allowed = self.book.allows(name, leaf, removed=removed, policy=policy, fences=fences is not None, ends=self.ends(name))
        key = self.book.key_of(name, leaf)
        proposals: list[Proposal] = [Remove(other) for other in removed]
        proposals += [] if policy is None else [sets(policy)]
        verdict = self.write(log.commit(name, *proposals, fences=fences, own=own), "commit" if allowed else "invalid")
        if verdict.kind == "commit":
            self.book.enter(name, leaf, key, removed=removed, ends=self.ends(name))
        else:
            log.owns[name] = before

    def hurry(self, inside: list[str]) -> None:
        """One commits as fast as it can."""
        if not inside:
            return
        name = self.draw.choice(inside)
        leaf = self.log.leaf(name)
        for _ in range(5):
            key = self.book.key_of(name, leaf)
            allowed = self.book.allows(name, leaf, removed=set(), policy=None, fences=False, ends=self.ends(name))
            if self.write(self.log.commit(name), "commit" if allowed else "invalid").kind == "commit":
                self.book.enter(name, leaf, key, removed=set(), ends=self.ends(name))

    def policy(self) -> GroupPolicy:
        barred = tuple(sorted({Book.identity(name) for name in NAMES if self.draw.random() < 0.15}))
        roles = self.draw.choice([ROLES, ROLES, ONE_ADMIN, FEW])
        return self.log.terms(barred=barred, roles=roles, max_offline=self.draw.choice([-1, 0, 86400, 3 * 86400]))

    def join(self, inside: list[str]) -> None:
        log, name = self.log, self.draw.choice(NAMES)
        if name not in log.owns or (name not in inside and self.draw.random() < 0.5):
            log.own(name, of=name.removesuffix("b"), days=self.draw.choice([2, 20]))
        at = log.chain.leaf_of(log.owns[name].signature_public)
        removed = set() if at is None else {at}
        fences = () if self.draw.random() < 0.1 else None
        key = log.owns[name].signature_public
        allowed = self.book.allows(name, None, removed=removed, policy=None, fences=fences is not None, ends=self.ends(name))
        verdict = self.write(log.join(name, remove=at, fences=fences), "commit" if allowed else "invalid")
        if verdict.kind == "commit":
            self.book.enter(name, None, key, removed=removed, ends=self.ends(name))

    def leave(self, inside: list[str]) -> None:
        if not inside:
            return
        name = self.draw.choice(inside)
        leaf = self.log.leaf(name)
        self.write(self.log.leave(name), "stale" if leaf in self.book.left else "leave")
        self.book.left.add(leaf)

    def write(self, written: Written, kind: str) -> Verdict:
        verdict = self.log.take(written)
        assert verdict.kind == kind, (verdict.kind, verdict.reason, verdict.sender)
        self.seen[verdict.reason or verdict.kind] += 1
        self.said.append(of_chain(self.log.head))
        return verdict

    def read_again(self) -> None:
        """From the founding; from the founding, stored and read before each record; from any record on."""
        entries = self.log.entries
        plain: Chain | None = None
        stored = Membership("orders")
        starts: list[Chain | None] = []
        for entry, said in zip(entries, self.said, strict=True):
            starts.append(plain)
            plain = judge(plain, entry, "orders").chain
            stored = follow(Membership("orders", chain=again(stored.chain)), entry, "log", {}, {}).next
            assert of_chain(plain) == of_chain(stored.chain) == said
        for start in self.draw.sample(range(1, len(entries)), 3):
            chain = again(starts[start])
            for entry in entries[start:]:
                chain = judge(chain, entry, "orders").chain
            assert of_chain(chain) == self.said[-1]


def test_two_books_of_the_rules_agree_on_every_record_of_random_lives() -> None:
    seen: Counter[str] = Counter()
    for seed in range(16):
        life = Life(seed)
        for _ in range(70):
            life.step()
        life.read_again()
        seen += life.seen
    often = {"commit", "leave", "stale", "remove_right", "policy_right", "policy_uncounted", "fences", "rate", "role", "chain.validity"}
    assert all(seen[what] >= 4 for what in often), seen
    assert set(seen) <= often | {"policy_admin"}, seen
