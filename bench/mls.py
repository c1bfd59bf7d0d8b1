"""MLS groups in suite 1: our engine and the mls-rs binding as members of one group, and what delivery makes of the group log.

Engine: two of ours and two of mls-rs sit side by side in the last four leaves of a group of N, whose tree is the one that
external joins leave behind (bench/grown.py); all credentials are basic, the only kind that the binding knows. In each round
one of either kind commits with a path; the two that receive, ours and theirs, take the very same message from its bytes, one
from the leaf beside, one from the pair beside, which is where a path costs most. They must agree on an exported secret at the end.
The binding has no external commit; `join by Welcome` is what it has instead, with the tree inside, and shows ours beside.

Delivery: a member reads another's commit from the group log with X.509 leaves: the group's rules, certificates and the
GroupInfo on top of the engine, and its roster and keys behind it. mls-rs stands beside it with the figure of the engine; it does
none of that. `stored` adds the rows of one transaction, sealed in SQLite, which hold the whole tree and so grow with N.

One process on one core, sizes and peers in turn within every round, CPU time, medians of the rounds.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import mls_rs_uniffi as mls_rs

from bench import crowd
from bench.grown import Grown, basic_leaf, grow
from bench.history import GROUP, History
from bench.pinning import pinned
from broker_crypto import storage
from broker_crypto.crypto import suite
from broker_crypto.mls import joining
from broker_crypto.mls.framing import MLSMessage, PublicMessage
from broker_crypto.mls.group import Group, StagedCommit
from broker_crypto.mls.leaf import KeyPackage
from broker_crypto.mls.proposals import Add
from broker_crypto.mls.welcome import Welcome

SIZES = (50, 200, 1000)
ROUNDS = 25
WELCOMES = 3
TARGETS = ("commit", "process a commit")
OURS, THEIRS = "broker_crypto", "mls-rs"
SUITE = suite(1)
random = secrets.token_bytes

Times = dict[str, dict[str, list[float]]]  # work: peer: CPU seconds
T = TypeVar("T")


def timed(into: list[float], work: Callable[[], T]) -> T:
    begun = time.process_time()
    result = work()
    into.append(time.process_time() - begun)
    return result


def note(times: Times, work: str, peer: str) -> list[float]:
    return times.setdefault(work, {}).setdefault(peer, [])


class Mixed:
    """A group of N with two members of either kind that are measured."""

    def __init__(self, size: int, times: Times) -> None:
        self.size, self.times = size, times
        grown: Grown = grow(SUITE, b"a group", [basic_leaf(SUITE, f"member {n}", random) for n in range(size - 2)], random)
        first, second = grown.member(size - 4), grown.member(size - 3)
        self.clients = [_client(name) for name in ("theirs 1", "theirs 2")]
        added = first.commit(proposals=[Add(_key_package(client)) for client in self.clients], now=_now(), random=random)
        self.committer, self.receiver = added.group, second.stage(added.message, now=_now())
        welcome = _theirs_of(_welcome_of(added))
        self.their_committer, self.their_receiver = (client.join_group(None, welcome).group for client in self.clients)
        for number in range(4):  # nobody is left unmerged, and everything is warm
            self.round(number, {})

    def round(self, number: int, times: Times | None = None) -> None:
        """Either kind commits once, both take both; who is first changes from round to round."""
        times = self.times if times is None else times
        steps = [self._ours_commits, self._theirs_commits, self._join]
        for step in steps[number % 3 :] + steps[: number % 3]:
            step(times, ours_first=bool(number % 2))

    def _named(self, work: str) -> str:
        return f"{work}, N = {self.size:,}"

    def _ours_commits(self, times: Times, *, ours_first: bool) -> None:
        staged = timed(note(times, self._named("commit"), OURS), lambda: self.committer.commit(random=random))
        self._both_take(staged.message, times, ours_first)
        self.committer = staged.group
        self.their_committer.process_incoming_message(_theirs_of(staged.message))

    def _theirs_commits(self, times: Times, *, ours_first: bool) -> None:
        output, message = timed(note(times, self._named("commit"), THEIRS), lambda: _commit(self.their_committer))
        self.their_committer.process_incoming_message(output.commit_message)
        self._both_take(message, times, ours_first)
        self.committer = self.committer.stage(message)

    def _both_take(self, message: bytes, times: Times, ours_first: bool) -> None:
        def ours() -> None:
            self.receiver = timed(into[OURS], lambda: _enter(self.receiver, message))

        def theirs() -> None:
            timed(into[THEIRS], lambda: self.their_receiver.process_incoming_message(_theirs_of(message)))

        into = {peer: note(times, self._named("process a commit"), peer) for peer in (OURS, THEIRS)}
        for take in (ours, theirs) if ours_first else (theirs, ours):
            take()

    def _join(self, times: Times, *, ours_first: bool) -> None:
        own, external_pub = basic_leaf(SUITE, "newcomer", random), self.receiver.external_public
        public = self.receiver.public
        timed(note(times, self._named("external join"), OURS), lambda: Group.external_commit(public, external_pub, own, random=random))

    def welcome(self) -> None:
        """One of either kind is added, not for good, and joins."""
        own, client = joining.OwnKeyPackage.create(SUITE, basic_leaf(SUITE, "newcomer", random), random=random), _client("theirs 3")
        adds = [Add(own.key_package), Add(_key_package(client))]
        message = _welcome_of(self.committer.commit(proposals=adds, now=_now(), random=random))
        work = self._named("join by Welcome")
        timed(note(self.times, work, OURS), lambda: _join(message, own))
        timed(note(self.times, work, THEIRS), lambda: client.join_group(None, _theirs_of(message)))

    def check(self) -> None:
        """All four are in one epoch."""
        ours = {group.export("bench", b"", 32) for group in (self.committer, self.receiver)}
        theirs = {bytes(group.export_secret(b"bench", b"", 32)) for group in (self.their_committer, self.their_receiver)}
        if len(ours | theirs) != 1:
            raise RuntimeError("the members of one group are not in one epoch")


def _now() -> int:
    return math.ceil(time.time())


def _client(name: str) -> Any:
    config = mls_rs.client_config_default()
    config.use_ratchet_tree_extension = True
    pair = mls_rs.generate_signature_keypair(mls_rs.CipherSuite.CURVE25519_AES128)
    return mls_rs.Client(id=name.encode(), signature_keypair=pair, client_config=config)


def _key_package(client: Any) -> KeyPackage:
    body = MLSMessage.decode(client.generate_key_package_message().to_bytes()).body
    if not isinstance(body, KeyPackage):
        raise TypeError("no key package")
    return body


def _theirs_of(message: bytes) -> Any:
    return mls_rs.Message.from_bytes(message)


def _commit(group: Any) -> tuple[Any, bytes]:
    output = group.commit()
    return output, output.commit_message.to_bytes()


def _enter(group: Group, message: bytes) -> Group:
    body = MLSMessage.decode(message).body
    if not isinstance(body, PublicMessage):
        raise TypeError("no PublicMessage")
    return group.enter(group.public.stage(body), body)


def _welcome_of(staged: StagedCommit) -> bytes:
    if staged.welcome is None:
        raise ValueError("a commit that adds nobody")
    return MLSMessage(staged.welcome).encode()


def _join(message: bytes, own: joining.OwnKeyPackage) -> Group:
    body = MLSMessage.decode(message).body
    if not isinstance(body, Welcome):
        raise TypeError("no Welcome")
    return joining.join(joining.Invitation(body, now=_now()), own)


class Reader:
    """A member that reads the group log, in a group of N; the one who commits sits in the leaf beside."""

    def __init__(self, size: int, times: Times, store: storage.StateStore) -> None:
        self.size, self.times, self.store = size, times, store
        self.history = History(GROUP + str(size)).grow(size)
        self.memory = self.history.memory(size - 1)
        self.own = self.history.owns[size - 1]

    async def round(self) -> None:
        staged = self.history.rotation(self.size - 2)
        entry, now = self.history.entry(staged), self.history.clock.now_ms()
        alone = note(self.times, f"process from the log, N = {self.size:,}", OURS)
        change = timed(alone, lambda: self.memory.follow([entry], "log", self.own, now))
        begun = time.process_time()
        async with self.store.transaction() as tx:
            await self.memory.write(tx, change)
        self.memory.adopt(change)
        note(self.times, f"process from the log, stored, N = {self.size:,}", OURS).append(alone[-1] + time.process_time() - begun)
        self.history.write(staged)
        if self.memory.member.mls is None or self.memory.member.mls.epoch != self.history.current.epoch:
            raise RuntimeError(f"a commit of ours was not entered: {change.verdicts}")


async def measure(folder: Path) -> Times:
    """All rounds; what is timed is not disturbed by the collector."""
    times: Times = {}
    storage.make_key_file(folder / "key")
    store = storage.open(folder / "state.db", storage.FileKey(folder / "key"))
    mixed = [Mixed(size, times) for size in SIZES]
    readers = [Reader(size, times, store) for size in SIZES]
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for number in range(ROUNDS):
            turn = number % len(SIZES)
            for group, reader in [*zip(mixed, readers, strict=True)][turn:] + [*zip(mixed, readers, strict=True)][:turn]:
                gc.collect()
                group.round(number)
                await reader.round()
                if number < WELCOMES:
                    group.welcome()
    finally:
        gc.enable()
        gc.unfreeze()
        await store.close()
    for group in mixed:
        group.check()
    return times


def rows_of(times: Times) -> list[dict[str, Any]]:
    """A row for each kind of work and size, in the order in which they were first done at the smallest size."""
    kinds = list(dict.fromkeys(work.rsplit(", N", 1)[0] for work in times))
    rows = []
    for kind in kinds:
        for size in SIZES:
            taken = times[f"{kind}, N = {size:,}"]
            values = {peer: 1 / statistics.median(seconds) for peer, seconds in taken.items()}
            if kind.startswith("process from the log"):
                values[THEIRS] = 1 / statistics.median(times[f"process a commit, N = {size:,}"][THEIRS])
            targets = [{"of": THEIRS, "at_least": 1.0}] if kind in TARGETS else []
            quietest = {peer: round(min(seconds) * 1000, 3) for peer, seconds in taken.items()}
            rows.append({"work": f"{kind}, N = {size:,}", "values": values, "targets": targets, "quietest_ms": quietest})
    return rows


def growth(rows: list[dict[str, Any]]) -> str:
    """How much more a commit costs to process in the largest group than in the smallest."""
    rates = {row["work"]: row["values"] for row in rows}
    least, most = f"N = {SIZES[0]:,}", f"N = {SIZES[-1]:,}"

    def ratio(kind: str, peer: str) -> str:
        return f"{rates[f'{kind}, {least}'][peer] / rates[f'{kind}, {most}'][peer]:.1f}"

    engine, theirs, log = ratio("process a commit", OURS), ratio("process a commit", THEIRS), ratio("process from the log", OURS)
    expected = math.log2(SIZES[-1]) / math.log2(SIZES[0])
    return (
        f"processing in a group of {SIZES[-1]:,} costs {engine} times what it costs in one of {SIZES[0]}, from the log {log} times; "
        f"mls-rs {theirs}; log N grows {expected:.1f}-fold, N {SIZES[-1] // SIZES[0]}-fold"
    )


def run() -> dict[str, Any]:
    """The table of `python -m bench mls`."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    server_core = cores[0] if len(cores) > 1 else None
    with pinned() as core, tempfile.TemporaryDirectory() as folder:
        rows = rows_of(asyncio.run(measure(Path(folder))))
        notes = [growth(rows), "the mls-rs binding has no external commit, and checks no certificates, rules or GroupInfo"]
        for more, said in (crowd.follow(Path(folder)), crowd.join(Path(folder), server_core)):
            rows += more
            notes += said
    return {
        "title": "MLS groups, suite 1",
        "unit": "operations/s of CPU time",
        "rows": rows,
        "notes": notes,
        "scale": "log",
        "core": core,
        "rounds": ROUNDS,
    }
