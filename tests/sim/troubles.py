"""What happens in a run before it comes to rest: one step after another, each drawn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from broker_crypto.delivery import state
from broker_crypto.delivery.deltas import Delta
from broker_crypto.delivery.handle import Group
from tests.sim.cast import GROUP, NAMES, uri
from tests.support.lies.secret import LIES, wrong_commit

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.simulation import Simulation


class Troubles:
    """The story of one seed."""

    def __init__(self, sim: Simulation) -> None:
        self.sim, self.dice, self.profile = sim, sim.dice, sim.profile
        self.waiting = list(NAMES[: sim.profile.members])
        if self.dice.random() < 0.3:
            self.dice.shuffle(self.waiting)

    async def happen(self) -> None:
        sim = self.sim
        if self.profile.junk and self.dice.random() < 0.3:
            self.junk()
        for _ in range(self.profile.founders):
            await self.join()
        trouble_at = self.dice.randrange(self.profile.steps) if self.profile.log_trouble else -1
        for step in range(self.profile.steps):
            await sim.wait(self.dice.choice((0.02, 0.2, 0.5, 2.0, 8.0)) * self.dice.uniform(0.5, 1.5))
            if step == trouble_at:
                self.trouble_the_log(self.profile.log_trouble or "")
            await self.step()
        while self.waiting:
            await self.join()

    async def step(self) -> None:
        choices = {
            self.join: 2.0 if self.waiting else 0.0,
            self.rotate: 3.0,
            self.command: 1.0,
            self.publish: 6.0,
            self.crash: 2.0 if self.profile.crashes else 0.0,
            self.crash_soon: 4.0 if self.profile.crashes else 0.0,
            self.restart: 1.0,
            self.lie: 2.0 if self.profile.lies else 0.0,
            self.copy: 1.0 if self.profile.copies and not self.sim.copied else 0.0,
            self.restore: 1.0 if self.profile.restores else 0.0,
            self.lose: 0.7 if self.profile.losses else 0.0,
            self.outage: 2.0 if self.profile.outages else 0.0,
            self.junk: 2.0 if self.profile.junk else 0.0,
            self.shift: 1.0 if self.profile.clocks else 0.0,
            self.remove: 1.5 if self.profile.rights else 0.0,
            self.readmit: 1.0 if self.profile.rights else 0.0,
            self.change: 1.0 if self.profile.rights else 0.0,
            self.leave: 1.0 if self.profile.rights else 0.0,
            self.come_back: 1.0 if self.profile.rights else 0.0,
            self.attack: 3.0 if self.profile.rights else 0.0,
            self.back_up: 2.0 if self.profile.restores else 0.0,
        }
        what = self.dice.choices(list(choices), list(choices.values()))[0]
        done = what()
        if done is not None:
            await done

    def someone(self) -> Node:
        return self.dice.choice(self.sim.nodes)

    async def join(self) -> None:
        if self.waiting:
            await self.sim.add(self.waiting.pop(0)).start()

    def rotate(self) -> None:
        self.someone().rotate()

    def command(self) -> None:
        self.someone().command()

    def publish(self) -> None:
        self.someone().publish(self.dice.choice(("orders", "orders", "bills")), self.dice.randint(1, 4))

    def back_up(self) -> None:
        self.someone().back_up()

    # --- who may what ----------------------------------------------------------------------------------------

    def admin(self) -> Node | None:
        there = [node for node in self.sim.nodes if node.name.startswith("ops") and node.alive]
        return self.dice.choice(there) if there else None

    def remove(self) -> None:
        """An admin removes an identity, or a leaf with its key."""
        admin, other = self.admin(), self.someone()
        if admin is None or other.name in (admin.name, "ops"):
            return
        self.sim.touched.add(other.name)
        leaf = None if other.life is None else other.life.agent.groups[GROUP].leaf
        if leaf is None or self.dice.random() < 0.7:
            admin.ask(f"remove {other.name}", lambda group: group.remove(other.identity))
        else:
            self.sim.touched.update(NAMES)  # the leaf may be somebody else's by the time that it is read
            admin.ask(f"remove leaf {leaf}", lambda group: self._remove_leaf(group, leaf, admin))

    async def _remove_leaf(self, group: Group, leaf: int, admin: Node) -> None:
        if leaf != group.leaf and any(member.leaf == leaf and member.identity != uri("ops") for member in group.members):
            await group.remove(leaf=leaf)

    def readmit(self) -> None:
        admin, other = self.admin(), self.someone()
        if admin is not None:
            admin.ask(f"readmit {other.name}", lambda group: group.readmit(other.identity))

    def change(self) -> None:
        """A writer may read only from now on, or write again."""
        admin, name = self.admin(), self.dice.choice(("writer-1", "writer-2"))
        if admin is None:
            return
        self.sim.touched.update(one for one in NAMES if one.startswith("writer"))
        every = (uri("writer-*"), "writer")
        few = (uri("writer-2" if name == "writer-1" else "writer-1"), "writer")
        reads = (uri("writer-*"), "reader")
        delta = self.dice.choice((Delta(drop_roles=(every,), add_roles=(few, reads)), Delta(add_roles=(every,))))
        admin.ask(f"change who writes: {delta.add_roles}", lambda group: group.change(delta))

    def leave(self) -> None:
        node = self.someone()
        if node.name != "ops":
            self.sim.touched.add(node.name)
            node.ask("leave", lambda group: group.leave())

    def come_back(self) -> None:
        gone = [node for node in self.sim.nodes if node.has_left and node.alive]
        if gone:
            self.dice.choice(gone).ask("join", lambda group: group.join())

    def attack(self) -> None:
        self.someone().attack(self.dice.choice(("orders", "bills")))

    # --- processes --------------------------------------------------------------------------------------------

    async def crash(self) -> None:
        node = self.someone()
        await node.die()
        self._start_later(node)

    def crash_soon(self) -> None:
        """It dies at one of its next calls of store or log."""
        node = self.someone()
        if node.life is not None and node.alive and node.life.crash_in is None:
            node.life.crash_in = self.dice.randint(1, 40)
            if self.dice.random() < 0.7:
                node.rotate()
            self._start_later(node)

    async def restart(self) -> None:
        node = self.someone()
        await node.stop()
        self._start_later(node)

    def _start_later(self, node: Node) -> None:
        after = self.dice.choice((0.01, 1.0, 5.0, 40.0, 100.0)) * self.dice.random()

        async def start() -> None:
            await asyncio.sleep(after)
            for _ in range(100):
                if not node.alive:
                    await node.start()
                    return
                await asyncio.sleep(0.5)

        self.sim.later(start())

    async def lose(self) -> None:
        """Its folder is gone; it comes back with its key."""
        node = self.someone()
        await node.die()
        self.sim.note(node, "loses its store")
        self.sim.ledger.excuse(node.disk.rows, {})
        node.marks.add("lost")
        node.disk.rows.clear()
        self._start_later(node)

    async def restore(self) -> None:
        """An older copy of its folder is put back."""
        node = self.someone()
        if not node.snapshots:
            return
        await node.die()
        rows = self.dice.choice(node.snapshots)
        self.sim.note(node, "gets an older store")
        self.sim.ledger.excuse({**node.disk.rows, **rows}, rows)
        node.marks.add("restored")
        node.disk.rows.clear()
        node.disk.rows.update(rows)
        self._start_later(node)

    async def copy(self) -> None:
        """A copy of its folder is started somewhere else, while it runs."""
        node = self.someone()
        if state.GROUP not in {kind for kind, _ in node.disk.rows}:
            return
        twin = self.sim.add(node.name, f"{node.label} copy")
        self.sim.note(node, "is copied")
        for one in (node, twin):
            one.marks.add("copied")
        self.sim.ledger.excuse(node.disk.rows)
        twin.disk.rows.update(node.disk.rows)
        twin.ever = node.ever
        self.sim.copied.append((node, twin))
        await twin.start()

    # --- the world --------------------------------------------------------------------------------------------

    def outage(self) -> None:
        """One of them, or all, cannot reach the broker for a while."""
        nodes = [self.someone()] if self.dice.random() < 0.7 else list(self.sim.nodes)
        self.sim.note(None, f"no way to the broker for {nodes}")
        for node in nodes:
            node.offline = True

        async def end() -> None:
            await asyncio.sleep(self.dice.choice((1.0, 10.0, 90.0)))
            for node in nodes:
                node.offline = False

        self.sim.later(end())

    def junk(self) -> None:
        """Somebody without keys writes to the log: noise, an old entry again, an entry with a bit flipped."""
        entries = self.sim.broker.entries(GROUP)
        old = (self.dice.choice(entries).record if entries else b"") or b"noise"
        at = self.dice.randrange(len(old))
        flipped = old[:at] + bytes((old[at] ^ 1 << self.dice.randrange(8),)) + old[at + 1 :]
        record = self.dice.choice((b"junk", old, old[:at], flipped, flipped))
        self.sim.note(None, f"somebody writes {len(record)} bytes of junk")
        self._put(record)

    def _put(self, record: bytes) -> None:
        self.sim.broker.opened(GROUP, True)
        self.sim.broker.fates.appendleft("land")
        self.sim.broker.append(GROUP, record, None)

    def shift(self) -> None:
        """Its clock is wrong from now on, as far as an agent makes up for."""
        node = self.someone()
        node.clock.off_ms = self.dice.choice((-600_000, -70_000, -5_000, 0, 5_000, 70_000, 600_000))
        self.sim.note(node, f"has a clock {node.clock.off_ms} ms off")

    def lie(self) -> None:
        """A member writes a commit that is valid for all who have no secrets; it keeps the state that it leads to."""
        liars = [n for n in self.sim.nodes if n.evil] or [self.someone()]
        node = self.dice.choice(liars)
        if node.life is None or not node.alive:
            return
        loop = node.life.loop
        group, chain = loop.member.mls, loop.member.chain
        if group is None or chain is None:
            return
        node.evil = self.sim.lied = True
        node.marks.add("evil")
        lie = self.dice.choice(LIES)
        victim = self.dice.choice([None, *(leaf for leaf, _ in chain.public.tree.leaves())])
        staged = wrong_commit(group, max(self.sim.clock.now_ms(), chain.time), lie, self.sim.random, victim=victim)
        self.sim.note(node, f"lies: {lie}, for {victim}")
        if self.dice.random() < 0.5:
            node.disk.rows[state.STAGED, state.prefix(GROUP) + staged.hash] = state.encode_staged(staged)
            loop.memory.staged[staged.hash] = staged
        self._put(staged.record)

    def trouble_the_log(self, what: str) -> None:
        """The log is another one, for all or for some."""
        sim = self.sim
        sim.log_is_sound = False
        sim.follower(sim.broker)
        entries = sim.broker.entries(GROUP)
        sim.note(None, f"the log is {what}")
        if what == "forked" and len(sim.nodes) > 1:
            other = sim.broker.fork()
            for node in self.dice.sample(sim.nodes, len(sim.nodes) // 2):
                node.broker = other
            sim.broker.wake()
        elif what in ("cut", "regrown") and entries:
            sim.broker.roll_back(GROUP, self.dice.choice(entries[-4:]).position)
        elif what == "made anew":
            sim.broker.recreate(GROUP)
        elif what == "rewritten":
            sim.later(self._rewrite())
        if what in ("cut", "regrown", "made anew"):
            sim.follower(sim.broker).begin_anew()
        if what == "trimmed" and entries:
            sim.broker.trim(GROUP, self.dice.choice(entries).position + 1)

    async def _rewrite(self) -> None:
        """A broker comes back with another record in the place of the commit that made the newest epoch, and all behind it."""
        broker, follower = self.sim.broker, self.sim.follower(self.sim.broker)
        for _ in range(20):
            self._put(b"junk")
            await asyncio.sleep(3.0)  # of the run's own time: what was written is read by then
            follower.follow()
            made = [ended.entry.position for ended in follower.ended.values()]
            there = [entry.position for entry in broker.entries(GROUP)]
            if made and made[-1] in there[:-1]:
                break
        else:
            return
        for node in self.sim.nodes:
            node.offline = True
        broker.wake()
        await asyncio.sleep(8.0)  # of the run's own time: whoever was in a call has ended it, and compares when it is back
        follower.follow()
        made = [ended.entry.position for ended in follower.ended.values()]
        self.sim.note(None, f"the record at {made[-1]} is rewritten")
        self.sim.unaware.append(follower.as_it_was())
        broker.replace(GROUP, made[-1], record=b"rewritten")
        follower.begin_anew()
        for node in self.sim.nodes:
            node.offline = False
