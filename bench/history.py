"""A group log in memory, written by those who have all keys: what its readers have to follow, without the cost of having
every member follow it. Each record is built by delivery as a member builds it, judged as everybody judges it, and counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker_crypto.delivery import committer
from broker_crypto.delivery.chain import Chain
from broker_crypto.delivery.committer import Own, Staged
from broker_crypto.delivery.group_policy import GroupPolicy
from broker_crypto.delivery.membership import MEMBER, Membership, epoch_of
from broker_crypto.delivery.memory import Change, GroupMemory
from broker_crypto.delivery.rules import judge
from broker_crypto.identity import ca, identity, keys
from broker_crypto.mls import treekem
from broker_crypto.mls.group import Group
from broker_crypto.records import Anchor, LogEntry
from broker_crypto.testing import EPOCH_MS, FakeClock, SeededRandom

GROUP = "orders"
BETWEEN = 60.0  # s from commit to commit
ROLES = (("agent://acme/ops", "admin"), ("agent://acme/writer-*", "writer"))


@dataclass
class Authority:
    """Who issues the certificates, and the terms of the group."""

    now_ms: int = EPOCH_MS

    def __post_init__(self) -> None:
        self.root = ca.found("bench CA", keys.generate(), now_ms=self.now_ms)

    def policy(self, group: str = GROUP) -> GroupPolicy:
        anchors = (Anchor(self.root.certificate, ("agent://acme/",)),)
        return GroupPolicy(
            rules=1, group=group, topics=(group,), time=self.now_ms, anchors=anchors, roles=ROLES, barred=(), revoked=(),
            key_retention=7 * 86400, max_offline=90 * 86400,
        )  # fmt: skip

    def own(self, name: str) -> Own:
        key = keys.generate("ed25519")
        certificate = ca.issue(self.root, f"agent://acme/{name}", key.public_key(), now_ms=self.now_ms)
        who = identity.of((certificate,), key)
        return Own(who.uri, who.chain, who.signature_private, who.signature_public)


class History:
    """One group's log. `head` is the state of whoever wrote last; `secret` holds the HPKE private keys of all, by public key."""

    def __init__(self, group: str = GROUP, authority: Authority | None = None, *, between: float = BETWEEN) -> None:
        self.group, self.authority, self.between = group, authority or Authority(), between
        self.clock, self.random = FakeClock(self.authority.now_ms), SeededRandom(group)
        self.entries: list[LogEntry] = []
        self.owns: list[Own] = []  # by leaf
        self.secret: dict[bytes, bytes] = {}
        self.chain: Chain | None = None
        founder = self.authority.own("ops")
        self.owns.append(founder)
        self.head = self.write(committer.found(founder, self.authority.policy(group), 1, self.random))

    @property
    def current(self) -> Chain:
        if self.chain is None:
            raise ValueError("a log without a founding")
        return self.chain

    def entry(self, staged: Staged) -> LogEntry:
        """The next entry of the log."""
        return LogEntry(len(self.entries), staged.time, staged.record)

    def write(self, staged: Staged) -> Group:
        """Let it be the next entry, which must count; the state that it leads to."""
        entry = self.entry(staged)
        verdict = judge(self.chain, entry, self.group)
        if verdict.kind not in ("commit", "founding"):
            raise ValueError(f"a record of ours does not count: {verdict.kind}, {verdict.reason}")
        self.entries.append(entry)
        self.chain, self.head = verdict.chain, staged.next
        self.secret.update(staged.next.keys)
        return staged.next

    def take(self, entry: LogEntry) -> None:
        """The next entry is somebody else's commit."""
        verdict = judge(self.chain, entry, self.group)
        if verdict.commit is None:
            raise ValueError(f"a record of another does not count: {verdict.kind}, {verdict.reason}")
        self.entries.append(entry)
        self.chain, self.head = verdict.chain, self.head.enter(verdict.commit.staged, verdict.commit.message)

    def _time(self) -> int:
        behind = (self.current.time - self.clock.now_ms()) / 1000  # where one with another clock has committed
        self.clock.advance(max(self.between, behind))
        return self.clock.now_ms()

    def join(self) -> None:
        """Somebody joins from outside."""
        own = self.authority.own(f"writer-{len(self.owns)}")
        self.owns.append(own)
        self.write(committer.join(self.current, own, self._time(), self.random))

    def rotate(self, leaf: int) -> None:
        """A member commits fresh keys for its path."""
        self.write(self.rotation(leaf))

    def rotation(self, leaf: int) -> Staged:
        """A member's commit, not written."""
        change = committer.Change(self._time())
        return committer.commit(self.member(leaf), self.owns[leaf], change, (), self.random)

    def grow(self, members: int) -> History:
        """Let so many be in it in the end."""
        while len(self.owns) < members:
            self.join()
        return self

    def member(self, leaf: int) -> Group:
        """The group at the head as the member at `leaf` holds it."""
        public, head = self.head.public, self.head
        private = self.owns[leaf].signature_private
        return Group(public, leaf, private, treekem.held_keys(public.tree, leaf, self.secret), head.secrets, head.secret_tree)

    def memory(self, leaf: int) -> GroupMemory:
        """What delivery keeps of the group for the member at `leaf`."""
        mls, chain = self.member(leaf), self.current
        epoch = epoch_of(chain, mls, {})
        member = Membership(self.group, state=MEMBER, chain=chain, mls=mls, entered=((mls.epoch, None),))
        memory = GroupMemory(member)
        memory.adopt(Change(member, moved=True, epochs={epoch.epoch_id: epoch}))
        return memory
