"""Groups that live: any order of joins, adds, updates, removals, PSKs, rotations, in public or private messages.

After every commit all members are in one state, each survives being stored, and a newcomer who checks the whole tree
from its GroupInfo sees the same group.
"""

from __future__ import annotations

from random import Random

import pytest

from broker_crypto.mls import joining, psk
from broker_crypto.mls.framing import MLSMessage, PublicMessage
from broker_crypto.mls.group import CannotEnter, Group, StagedCommit
from broker_crypto.mls.leaf import MLS10, Extension, KeyPackage
from broker_crypto.mls.proposals import Add, GroupContextExtensions, PreSharedKey, Proposal, Remove, Update
from broker_crypto.mls.public import PublicGroup
from tests.support.members import PRIVATE_EXTENSION, Room, own_leaf

NOW = 1_800_000_000


class Walk:
    """A group of changing members, driven by one seed."""

    def __init__(self, seed: int, suite: int) -> None:
        self.dice, self.room = Random(seed), Room(suite)
        self.room.found("0")
        self.names = 1
        self.psks = psk.PskSecrets(external={b"shared": b"known to all"})
        self.invited: dict[str, joining.OwnKeyPackage] = {}
        self.done: set[str] = set()

    @property
    def members(self) -> dict[str, Group]:
        return self.room.members

    def somebody(self, *but: str) -> str:
        return self.dice.choice([name for name in self.members if name not in but])

    def new_name(self) -> str:
        self.names += 1
        return str(self.names)

    # --- proposals ------------------------------------------------------------------------------------------------

    def add(self) -> Add:
        name, room = self.new_name(), self.room
        own = room.own[name] = own_leaf(room.kem, name, room.random, x509=self.dice.random() < 0.3)
        encryption_private, leaf = own.fresh(room.kem, room.random)
        init_private, init_key = room.kem.derive_key_pair(room.random(room.kem.nh))
        package = KeyPackage(MLS10, room.kem.number, init_key, leaf).signed(room.kem, own.signature_private)
        self.invited[name] = joining.OwnKeyPackage(package, init_private, encryption_private, own.signature_private)
        return Add(package)

    def shared_key(self) -> PreSharedKey:
        nonce = self.room.random(self.room.kem.nh)
        if self.dice.random() < 0.5:
            return PreSharedKey(psk.ExternalPsk(b"shared", nonce))
        public = self.room.follower
        return PreSharedKey(psk.ResumptionPsk(psk.Usage.APPLICATION, public.group_id, public.epoch, nonce))

    def proposal(self, committer: str, gone: set[int]) -> Proposal | None:
        kind = self.dice.choice(["add", "add", "remove", "psk"])
        if kind == "add" and len(self.members) < 12:
            return self.add()
        if kind == "psk":
            return self.shared_key()
        free = [group.leaf for name, group in self.members.items() if name != committer and group.leaf not in gone]
        if kind == "remove" and len(free) > 1:
            leaf = self.dice.choice(free)
            gone.add(leaf)
            return Remove(leaf)
        return None

    # --- steps ----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        kind = self.dice.choice(["join", "resync", "commit", "commit", "commit", "talk"])
        if kind == "join" and len(self.members) < 12:
            name = self.new_name()
            self.took(name, self.room.joining(name, x509=self.dice.random() < 0.3))
        elif kind == "resync":
            name = self.somebody()
            self.took(name, self.room.joining(name, remove=self.members[name].leaf))
        elif kind == "talk":
            self.talk()
        else:
            self.commit()
        self.check()

    def commit(self) -> None:
        committer, gone, values = self.somebody(), set[int](), []
        references = [self.send(proposer, committer, gone) for proposer in self.some_proposers()]
        for _ in range(self.dice.randrange(3)):
            proposal = self.proposal(committer, gone)
            if proposal is not None:
                values.append(proposal)
        if self.dice.random() < 0.2:
            values.append(GroupContextExtensions((Extension(PRIVATE_EXTENSION, self.room.random(4)),)))
        used = [reference for reference in references if reference is not None]
        kinds = [*map(type, values), *(type(self.members[committer].pending[reference].proposal) for reference in used)]
        needs = not kinds or any(kind in (Remove, Update, GroupContextExtensions) for kind in kinds)
        staged = self.members[committer].commit(
            proposals=values,
            references=used,
            path=needs or self.dice.random() < 0.5,
            private=self.dice.random() < 0.4,
            psks=self.psks,
            now=NOW,
            random=self.room.random,
        )
        self.took(committer, staged)

    def some_proposers(self) -> list[str]:
        return self.dice.sample(sorted(self.members), self.dice.randrange(min(3, len(self.members) + 1)))

    def send(self, proposer: str, committer: str, gone: set[int]) -> bytes | None:
        """`proposer` sends a proposal to all; its reference, None where nothing was sent."""
        group, private = self.members[proposer], self.dice.random() < 0.5
        if proposer != committer and group.leaf not in gone and self.dice.random() < 0.6:
            gone.add(group.leaf)
            message, after = group.propose_update(private=private, random=self.room.random)
        else:
            proposal = self.proposal(committer, gone)
            if proposal is None:
                return None
            message, after = group.propose(proposal, private=private, now=NOW, random=self.room.random)
        (reference,) = after.pending.keys() - group.pending.keys()
        for name, other in self.members.items():
            self.members[name] = after if name == proposer else other.stage(message)
        return reference

    def took(self, committer: str, staged: StagedCommit) -> None:
        """Everybody takes the commit; who is added joins by its Welcome."""
        self.pending = next(iter(self.members.values())).pending
        for name, group in list(self.members.items()):
            if name == committer and staged.current is not None:
                self.members[name] = staged.group
                continue
            try:
                self.members[name] = group.stage(staged.message, psks=self.psks)
            except CannotEnter as error:
                if error.reason != "removed":
                    raise
                del self.members[name]
        self.members[committer] = staged.group
        body = MLSMessage.decode(staged.message).body
        if isinstance(body, PublicMessage):
            self.done.add("public")
        if staged.welcome is not None:
            self.welcome(staged)
        self.follow(staged)

    def welcome(self, staged: StagedCommit) -> None:
        assert staged.welcome is not None
        for name, own in list(self.invited.items()):
            if staged.welcome.entry(own.key_package.ref(self.room.kem)) is not None:
                invitation = joining.Invitation(staged.welcome, psks=self._known(), now=NOW)
                self.members[name] = joining.join(invitation, own)
                self.done.add("welcome")
        self.invited.clear()

    def _known(self) -> psk.PskSecrets:
        """What a newcomer is given beside its Welcome: the shared key, and the resumption key that a PSK may name."""
        return self.psks.joined(psk.PskSecrets(resumption=self.resumption))

    def follow(self, staged: StagedCommit) -> None:
        body = MLSMessage.decode(staged.message).body
        fresh = PublicGroup.from_group_info(staged.group.group_info(ratchet_tree=True))
        if isinstance(body, PublicMessage):
            assert self.room.follower.stage(body, pending=self.pending).next == fresh
        self.room.follower = fresh

    def talk(self) -> None:
        sender = self.somebody()
        message, self.members[sender] = self.members[sender].protect(b"hello", padding=64, random=self.room.random)
        for name, group in self.members.items():
            if name != sender:
                content, self.members[name] = group.unprotect(message)
                assert content.content == b"hello"
        self.done.add("talk")

    def check(self) -> None:
        for name, group in self.members.items():
            stored = group.to_bytes()
            self.members[name] = Group.from_bytes(stored)
            assert self.members[name].to_bytes() == stored
            leaf = group.public.tree.leaf(group.leaf)
            assert leaf is not None
            assert leaf.encryption_key in group.keys
            assert len(group.keys) <= 1 + group.public.tree.size.bit_length()
            for public, private in group.keys.items():
                assert self.room.kem.public_of(private) == public
        self.room.check()

    def run(self, steps: int) -> set[str]:
        for _ in range(steps):
            first = next(iter(self.members.values()))
            self.resumption = {(first.public.group_id, first.epoch): first.resumption_psk}
            self.step()
        return self.done


@pytest.mark.parametrize("seed", range(12))
def test_any_order_of_operations_leaves_all_members_in_one_state(seed: int) -> None:
    assert Walk(seed, suite=1).run(25) == {"public", "welcome", "talk"}


@pytest.mark.parametrize("suite", range(2, 8))
def test_any_order_of_operations_works_in_every_suite(suite: int) -> None:
    Walk(100 + suite, suite).run(12)
