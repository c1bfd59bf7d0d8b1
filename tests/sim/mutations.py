"""Changes to the shipped code, each of which a rule of the simulator must catch; their seeds are in `CAUGHT`.

`python -m tests.sim.mutations` looks for the first seed that catches each, and prints the table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from broker_crypto.channels import sealing
from broker_crypto.delivery import comparing, fences, group_policy, membership, memory, writing
from broker_crypto.delivery.membership import Membership, Step
from broker_crypto.delivery.rules import judge
from broker_crypto.errors import LogRolledBack
from broker_crypto.mls import tree_draft
from broker_crypto.records import LogEntry
from broker_crypto.testing import SeededRandom
from tests.sim import life
from tests.sim.cast import GROUP
from tests.sim.rules import Violation
from tests.sim.simulation import Simulation

Mutation = Callable[[], AbstractContextManager[Any]]

# mutation: (seed, the rule that catches it)
CAUGHT: dict[str, tuple[int, str]] = {
    "an_own_commit_is_applied_before_it_is_read_back": (0, "the_chain_is_a_function_of_the_log"),
    "the_answer_of_an_append_is_believed": (3, "every_intent_is_settled_once"),
    "staged_states_are_not_kept": (2, "nobody_is_locked_out_without_cause"),
    "fences_are_ignored": (2, "a_record_opens_or_is_refused_by_name"),
    "a_path_is_sealed_to_keys_of_the_removed_leaf_too": (62, "a_removed_leaf_enters_nothing_behind_its_removal"),
    "bars_are_not_checked": (2, "nobody_barred_or_revoked_is_in"),
    "a_copy_is_never_noticed": (7, "everybody_is_at_the_head_together"),
    "the_record_of_the_own_epoch_is_not_compared": (63, "everybody_is_at_the_head_together"),
    "a_verdict_depends_on_a_secret": (2, "the_chain_is_a_function_of_the_log"),
    "an_own_commit_is_not_judged": (15, "the_chain_is_a_function_of_the_log"),
    "a_stream_id_is_stored_and_used_again": (3, "no_key_and_nonce_twice"),
}


@contextmanager
def an_own_commit_is_applied_before_it_is_read_back() -> Iterator[None]:
    append = writing.Writer.append

    async def hasty(self: writing.Writer, log: Any, made: Any, comparison: Any) -> None:
        await append(self, log, made, comparison)
        staged, member = made[0], self._memory.member
        verdict = judge(member.chain, LogEntry(0, staged.time, staged.record), member.group)
        if member.mls is not None and verdict.kind == "commit":
            self._memory.member = replace(member, chain=verdict.chain, mls=staged.next)

    with mock.patch.object(writing.Writer, "append", hasty):
        yield


@contextmanager
def the_answer_of_an_append_is_believed() -> Iterator[None]:
    append = writing.Writer.append

    async def trusting(self: writing.Writer, log: Any, made: Any, comparison: Any) -> None:
        told: list[int | None] = []
        inner = log.append

        async def heard(record: bytes, expected: int | None) -> int | None:
            told.append(await inner(record, expected))
            return told[-1]

        with mock.patch.object(log, "append", heard):
            await append(self, log, made, comparison)
        if told and told[-1] is not None:
            async with self._services.store.transaction() as tx:
                for intent in made[0].intents:
                    await tx.delete("intent", self._group.encode() + b"\x00" + intent)
            for intent in made[0].intents:
                self._memory.intents.pop(intent, None)

    with mock.patch.object(writing.Writer, "append", trusting):
        yield


@contextmanager
def staged_states_are_not_kept() -> Iterator[None]:
    load = memory.GroupMemory.load

    async def forgetful(self: memory.GroupMemory, store: Any) -> None:
        await load(self, store)
        self.staged.clear()

    with mock.patch.object(memory.GroupMemory, "load", forgetful):
        yield


@contextmanager
def fences_are_ignored() -> Iterator[None]:
    with mock.patch.object(fences, "fences_for", return_value={}):
        yield


@contextmanager
def a_path_is_sealed_to_keys_of_the_removed_leaf_too() -> Iterator[None]:
    """The nodes above a removed leaf are not blanked: what is sealed to them it opens."""

    def remove(self: tree_draft.TreeDraft, leaf: int) -> None:
        self._put(2 * leaf, None)
        while len(self._nodes) > 1 and not any(self._nodes[len(self._nodes) // 2 + 1 :]):
            self._halve()

    with mock.patch.object(tree_draft.TreeDraft, "remove", remove):
        yield


@contextmanager
def bars_are_not_checked() -> Iterator[None]:
    role_of = group_policy.GroupPolicy.role_of

    def lenient(self: group_policy.GroupPolicy, identity: str) -> str | None:
        return role_of(replace(self, barred=()), identity)

    with mock.patch.object(group_policy.GroupPolicy, "role_of", lenient):
        yield


@contextmanager
def a_copy_is_never_noticed() -> Iterator[None]:
    with mock.patch.object(memory, "in_use", return_value=False):
        yield


@contextmanager
def the_record_of_the_own_epoch_is_not_compared() -> Iterator[None]:
    async def nothing(self: comparing.Comparison, log: Any, cursor: Any) -> None:
        """The second comparison."""

    async def first_alone(self: comparing.Comparison, log: Any, identity: str, known: Any) -> None:
        cursor = getattr(known, "cursor", known)
        if cursor is not None:
            if cursor.log != identity:
                raise LogRolledBack(group=GROUP)
            await self._compare(log, cursor.last)

    with mock.patch.object(comparing.Comparison, "epoch", nothing), mock.patch.object(comparing.Comparison, "at_open", first_alone):
        yield


@contextmanager
def a_verdict_depends_on_a_secret() -> Iterator[None]:
    others = membership._others

    def picky(base: Membership, verdict: Any, before: Membership, mls: Any, *, known: Any) -> Step:
        step = others(base, verdict, before, mls, known=known)
        if step.lock_out is None:
            return step
        return Step(replace(before, cursor=base.cursor), replace(verdict, kind="invalid", chain=before.chain, reason="cannot enter"))

    with mock.patch.object(membership, "_others", picky):
        yield


@contextmanager
def an_own_commit_is_not_judged() -> Iterator[None]:
    judged = judge

    def partial(chain: Any, entry: LogEntry, group: str) -> Any:
        verdict = judged(chain, entry, group)
        if verdict.kind == "invalid" and verdict.reason in ("time", "rate"):
            late = judged(chain, replace(entry, time_ms=_signed(entry.record, entry.time_ms)), group)
            if late.kind == "commit" and late.hash in _OWN:
                return late
        return verdict

    stage = writing.Writer.stage

    async def remembered(self: writing.Writer, wanted: Any) -> Any:
        made = await stage(self, wanted)
        _OWN.update(staged.hash for staged in made)
        return made

    _OWN.clear()
    with mock.patch.object(membership, "judge", partial), mock.patch.object(writing.Writer, "stage", remembered):
        yield


_OWN: set[bytes] = set()


def _signed(record: bytes, other: int) -> int:
    from broker_crypto.delivery.rules import signed_time
    from broker_crypto.errors import BrokerCryptoError

    try:
        return signed_time(record)
    except BrokerCryptoError:
        return other


@contextmanager
def a_stream_id_is_stored_and_used_again() -> Iterator[None]:
    kept: dict[tuple[object, str], bytes] = {}
    drawn = sealing.Sealer._drawn

    def stored(self: sealing.Sealer) -> sealing.Stream:
        fresh = drawn(self)
        name = (getattr(self._random, "owner", None), self.topic)
        return sealing.Stream(kept.setdefault(name, fresh.value))

    class Owned(SeededRandom):
        def __init__(self, seed: int | str) -> None:
            super().__init__(seed)
            self.owner = str(seed).rpartition(" ")[0]  # whoever it is, in whatever life

    with mock.patch.object(sealing.Sealer, "_drawn", stored), mock.patch.object(life, "SeededRandom", Owned):
        yield


ALL: tuple[Mutation, ...] = (
    an_own_commit_is_applied_before_it_is_read_back,
    the_answer_of_an_append_is_believed,
    staged_states_are_not_kept,
    fences_are_ignored,
    a_path_is_sealed_to_keys_of_the_removed_leaf_too,
    bars_are_not_checked,
    a_copy_is_never_noticed,
    the_record_of_the_own_epoch_is_not_compared,
    a_verdict_depends_on_a_secret,
    an_own_commit_is_not_judged,
    a_stream_id_is_stored_and_used_again,
)


def caught(mutation: Mutation, seed: int) -> str | None:
    """The rule that catches a mutation at this seed, None for none."""
    with mutation():
        try:
            Simulation(seed).run()
        except Violation as violation:
            return violation.rule
        except AssertionError as error:
            return str(error) or "an assertion"
    return None


def main() -> int:
    for mutation in ALL:
        name = mutation.__name__
        found = next(((seed, rule) for seed in range(300) if (rule := caught(mutation, seed))), None)
        print(f'    "{name}": {found},', flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
