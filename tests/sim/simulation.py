"""One run: agents of one seed live through what it draws, and come to rest; every rule is looked at on the way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from broker_crypto import errors, records
from broker_crypto.delivery.group_policy import identity_of, key_of
from broker_crypto.delivery.membership import LEFT, MEMBER, Seen
from broker_crypto.mls.group import Group
from broker_crypto.records import Behind, Event, Opened
from broker_crypto.testing import FakeClock, SeededRandom
from tests.sim import clockwork, profile, rules
from tests.sim.broker import Published, SimBroker, Truth
from tests.sim.cast import GROUP, NEWCOMER
from tests.sim.ledger import Ended, Follower, Ledger, Said
from tests.sim.life import Life
from tests.sim.node import Node, Reading
from tests.sim.troubles import Troubles

REST = 2500.0  # s for everything to come to rest: two resync waits at their longest, and what was on its way
LANDED = 100.0  # s after which no append is on its way any more


class Simulation:
    """`faulty`: faults are still drawn. `log_is_sound`: nobody was ever shown another log than the others."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.profile = profile.draw(seed)
        self.rules = rules
        self.dice = random.Random(f"story {seed}")
        self.random = SeededRandom(f"commands {seed}")
        self.clock = FakeClock()
        self.ledger = Ledger()
        self.history: list[str] = []
        self.broker = SimBroker(self.clock, compare_and_set=self.profile.compare_and_set)
        self.followers: dict[SimBroker, Follower] = {}
        self.unaware: list[Follower] = []  # followers of a log that was rewritten behind them
        self.nodes: list[Node] = []
        self.copied: list[tuple[Node, Node]] = []
        self.faulty = True
        self.log_is_sound = True
        self.touched: set[str] = set()  # names of those whose leaf or right to write somebody wanted away
        self.lied = False
        self.authenticators: dict[bytes, bytes] = {}
        self.epoch_ids: dict[int, bytes] = {}
        self.secrets: dict[tuple[bytes, int], list[Group]] = {}
        self._number = 0
        self._later: list[asyncio.Task[None]] = []

    # --- what is known ----------------------------------------------------------------------------------------

    def follower(self, broker: SimBroker) -> Follower:
        if broker not in self.followers:
            self.followers[broker] = Follower(broker)
        follower = self.followers[broker]
        follower.follow()
        return follower

    def said(self, seen: Seen) -> list[Said]:
        """All that was ever said at this record, in any log."""
        return [one for follower in self._followed() for one in follower.said.get(seen, ())]

    def _followed(self) -> Iterator[Follower]:
        for broker in {self.broker: None, **{node.broker: None for node in self.nodes}}:
            yield self.follower(broker)
        for follower in self.unaware:
            follower.follow()
            yield follower

    def ended(self) -> list[Ended]:
        """The commits that ended an epoch in any log."""
        found = {name: one for follower in self._followed() for name, one in follower.ended.items()}
        return list(found.values())

    def living(self) -> list[Node]:
        return [node for node in self.nodes if node.alive]

    def was_member(self, node: Node, truth: Truth) -> bool | None:
        """Whether the node's key was in the tree of the record's epoch; None where there were several logs."""
        if not self.log_is_sound:
            return None
        chain = self.follower(node.broker).epochs.get(truth.epoch)
        return chain is not None and chain.leaf_of(node.key) is not None

    def is_clean(self, node: Node) -> bool:
        return not node.marks and not self.lied and self.log_is_sound

    def allowed(self, node: Node, record: Published, was_member: bool | None) -> set[type[errors.RecordRefused]]:
        """The errors that the docs allow for a record that was sealed by a member."""
        allowed: set[type[errors.RecordRefused]] = set()
        if not was_member or node.has_left or node.member.state == LEFT or node.marks & {"lost", "restored", "copied", "evil"}:
            allowed.add(errors.NotAMemberAtEpoch)
        if self.lied or node.marks:
            allowed.add(errors.EpochMissed)
        if not self.log_is_sound:
            allowed |= {errors.EpochNotReached, errors.UnknownEpoch, errors.EpochMissed, errors.NotAMemberAtEpoch}
        return allowed

    def may_be_refused(self, node: Node) -> bool:
        """Whether the group's policy gives the node no right to write, or may have done so, or it wanted to leave."""
        return node.name.startswith("reader") or node.touched

    def is_out(self, node: Node) -> bool:
        """Whether the node has left, or the head of its log does not admit it."""
        chain = self.follower(node.broker).chain
        if node.member.state == LEFT:
            return node.touched
        if chain is None or node.life is None:
            return False
        return node.identity in chain.policy.barred or not node.life.loop.own.admitted(chain.policy)

    def should_be_settled(self, node: Node) -> bool:
        return node.alive and node.member.halt is None and not self.is_out(node)

    def fenced(self, node: Node, record: Published) -> bool:
        """Whether a commit that this node has read refuses the record where it stands, by a model of its own."""
        truth, position = record.truth, record.place.position
        chain, follower = node.member.chain, self.follower(node.broker)
        if chain is None or position is None:
            return False
        sealed_in = follower.epochs.get(truth.epoch)
        leaf = None if sealed_in is None else sealed_in.public.tree.leaf(truth.leaf)
        if leaf is None:
            return False
        for ended in follower.ended.values():
            fences = ended.commit.data.fences
            if fences is None or ended.after.epoch > chain.epoch or truth.epoch > ended.before.epoch:
                continue
            removed = () if ended.commit.staged.external else ended.commit.staged.removed
            gone = truth.leaf in removed and ended.before.joined[truth.leaf] <= truth.epoch
            revoked = key_of(leaf) in set(ended.after.policy.revoked) - set(ended.before.policy.revoked)
            if not (gone or revoked or not ended.after.policy.may_write(identity_of(leaf))):
                continue
            ends = [dict(one.ends) for one in fences if (one.topic, one.identity) == (record.place.topic, position[0])]
            if position[1] >= min((end.get(record.place.partition, 0) for end in ends), default=0):
                return True
        return False

    def erased(self, life: Life) -> set[int]:
        return {epoch.epoch for epoch in life.loop.memory.epochs.values() if epoch.stream_secret is None}

    def next_number(self) -> int:
        self._number += 1
        return self._number

    # --- what happens -----------------------------------------------------------------------------------------

    def note(self, node: Node | None, text: str) -> None:
        self.history.append(f"{self.clock.monotonic():9.3f} {node.label if node else '-':12} {text}")

    def check(self, rule: Callable[..., None], *args: Any, **more: Any) -> None:
        """Look at a rule; the first that does not hold ends the run."""
        try:
            rule(self, *args, **more)
        except rules.Violation:
            raise
        except AssertionError as error:
            self.broken = rules.Violation(rule.__name__, str(error))
            self.note(None, f"VIOLATION {self.broken}")
            raise self.broken from error

    broken: rules.Violation | None = None

    def observe(self, life: Life) -> None:
        """Before each call of a process: what it holds now."""
        if self.broken or GROUP not in life.agent._running:
            return
        loop = life.loop
        if not loop._loaded:
            return
        member = loop.member
        if member is not life.seen:
            life.seen = member
            life.node.has_left |= member.state == LEFT
            if member.mls is not None:
                self.secrets.setdefault((member.mls.public.context.encode(), member.mls.leaf), [member.mls])
            self.check(rules.the_chain_is_a_function_of_the_log, life)
            self.check(rules.memory_never_precedes_the_store, life)
            self.check(rules.an_epoch_has_one_authenticator, life)
            self.check(rules.nobody_barred_or_revoked_is_in, life)
        view = life.agent._running[GROUP].view
        if view is not life.seen_view and view.current >= 0:
            life.seen_view = view
            if view.sealing is not None:
                life.node.held = [*life.node.held[-3:], (view, life.node.label)]
            self.check(rules.each_epoch_is_held_missed_or_anothers, life, view)

    def heard(self, life: Life, event: Event) -> None:
        if not isinstance(event, records.Refused | records.Marked):
            self.note(life.node, f"{event}")
        if isinstance(event, records.LockedOut):
            self.check(rules.nobody_is_locked_out_without_cause, life.node, event)
        elif isinstance(event, records.Halted):
            self.check(rules.halts_have_a_cause, life.node, event.code)

    def sealed(self, node: Node, life: Life, truth: Truth) -> None:
        self.check(rules.nothing_is_sealed_in_an_epoch_that_the_log_does_not_show, node, truth.epoch, truth.epoch_id)
        self.check(rules.no_key_and_nonce_twice)

    def delivered(self, node: Node, life: Life, reading: Reading, record: Published, result: Any) -> None:
        if not isinstance(result, Opened | Behind):
            self.note(node, f"refuses record {record.truth.number} of epoch {record.truth.epoch}: {result.code}")
        self.check(rules.a_record_opens_or_is_refused_by_name, node, record, result)
        if isinstance(result, Opened):
            self.check(rules.a_duplicate_is_marked_and_nothing_else, reading, record, result)

    # --- the run ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """All of it. Raises Violation."""
        self.note(None, f"seed {self.seed}: {self.profile.told()}")
        with self.ledger.watching():
            clockwork.run(self._live(), self.clock)

    async def _live(self) -> None:
        try:
            await Troubles(self).happen()
            await self._come_to_rest()
        finally:
            for node in self.nodes:
                await node.die()
                if node.life is not None:
                    await node.life.ended()

    def add(self, name: str, label: str | None = None) -> Node:
        node = Node(self, name, label or name, self.broker)
        self.nodes.append(node)
        return node

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Let it happen beside the story."""
        self._later.append(asyncio.ensure_future(work))

    async def wait(self, seconds: float) -> None:
        """Time passes; whatever was found meanwhile ends the run."""
        await asyncio.sleep(seconds)
        self.raise_if_broken()

    def raise_if_broken(self) -> None:
        if self.broken is not None:
            raise self.broken
        for node in self.living():
            node.has_left |= node.member.state == LEFT
            if node.life is not None:
                self.check(rules.a_process_ends_only_when_told, node.life)

    async def _come_to_rest(self) -> None:
        self.note(None, "no faults from here on")
        for work in self._later:
            work.cancel()
        self.faulty = False
        for node in self.nodes:
            node.offline = False
            await node.start()
        await self.wait(LANDED if any(n.broker.flying for n in self.nodes) else 1.0)
        await self._rest()
        for node in self.living():
            node.publish("orders", 2)
        await self.wait(5.0)
        await self._rest()
        await self._look_at_all()
        await self._newcomer_alone()
        await self._look_at_all()

    async def _copies_meet(self) -> None:
        for original, copy in self.copied:
            running = [n for n in (original, copy) if n.alive and n.member.halt is None and n.member.state == MEMBER]
            if len(running) == 2 and original.broker is copy.broker:
                await self.wait(65.0)  # both count as live
                running[0].rotate()
                await self.wait(10.0)
                await self._rest()

    async def _rest(self) -> None:
        """Until nothing is to be done any more."""
        end = self.clock.monotonic() + REST
        while not self._at_rest():
            if self.clock.monotonic() > end:
                self.check(rules.everybody_is_at_the_head_together)
                self.check(rules.everything_comes_to_rest)
            await self.wait(0.5)

    def _at_rest(self) -> bool:
        try:
            rules.everybody_is_at_the_head_together(self)
        except AssertionError:
            return False
        return not any(rules.unfinished(node) for node in self.living())

    async def _look_at_all(self) -> None:
        await self._copies_meet()
        for rule in (
            rules.everybody_is_at_the_head_together,
            rules.every_intent_is_settled_once,
            rules.every_record_is_opened_by_who_was_a_member,
            rules.a_removed_leaf_enters_nothing_behind_its_removal,
            rules.one_of_two_copies_stops,
            rules.no_key_and_nonce_twice,
        ):
            self.check(rule)

    async def _newcomer_alone(self) -> None:
        others = self.living()
        for node in others:
            await node.stop()
        newcomer = self.add(NEWCOMER)
        await newcomer.start()
        for _ in range(240):
            await self.wait(0.5)
            if newcomer.member.state == "member" and not rules.unfinished(newcomer):
                break
        if self.profile.log_trouble != "trimmed":
            self.check(rules.a_newcomer_alone_gets_in, newcomer)
        for node in others:
            await node.start()
        await self._rest()
