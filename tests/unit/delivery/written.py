"""A group log that a test writes record by record, with the real states of real members, and everybody who reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from broker_crypto.crypto.suites import suite as suite_of
from broker_crypto.delivery import rules, state
from broker_crypto.delivery.committer import Own
from broker_crypto.delivery.group_policy import COMMIT_HASH_EXTENSION, EXTENSION, GroupPolicy
from broker_crypto.delivery.log_records import COMMIT, FOUNDING, CommitData, FencedTopic, GroupRecord, commit_hash
from broker_crypto.delivery.membership import Membership, follow
from broker_crypto.delivery.rights import leave_record
from broker_crypto.delivery.rules import Chain, Verdict, judge
from broker_crypto.identity import ca, identity, keys
from broker_crypto.mls.framing import MLSMessage
from broker_crypto.mls.group import Group, StagedCommit
from broker_crypto.mls.leaf import REQUIRED_CAPABILITIES, Extension, Extensions
from broker_crypto.mls.proposals import GroupContextExtensions, Proposal, Remove
from broker_crypto.records import Anchor, LogEntry
from broker_crypto.testing import EPOCH_MS, SeededRandom
from tests.unit.delivery.test_histories import of_chain

ROLES = (("agent://acme/ops*", "admin"), ("agent://acme/writer-*", "writer"), ("agent://acme/reader-*", "reader"))


def extensions_of(policy: GroupPolicy | bytes) -> Extensions:
    """What every GroupContext holds, with this policy."""
    data = policy if isinstance(policy, bytes) else policy.encode()
    return Extension(REQUIRED_CAPABILITIES, rules.required_capabilities()), Extension(EXTENSION, data)


def sets(policy: GroupPolicy | bytes) -> GroupContextExtensions:
    return GroupContextExtensions(extensions_of(policy))


def record_of(epoch: int, commit: StagedCommit) -> bytes:
    """The record of a commit as its maker writes it."""
    named = Extension(COMMIT_HASH_EXTENSION, commit_hash(commit.message))
    info = commit.group.group_info(extensions=(named,), external_pub=True)
    return GroupRecord(COMMIT, epoch, commit.message, info.encode()).encode()


@dataclass(frozen=True)
class Written:
    """One record, not in the log yet, and the state that its maker would be in."""

    record: bytes
    by: str | None = None
    next: Group | None = field(default=None, repr=False)

    @property
    def hash(self) -> bytes:
        read = GroupRecord.decode(self.record)
        assert read is not None
        return hashlib.sha256(read.message).digest()


@dataclass
class Log:
    """The log of one group with its members by name, founded by the first of `names`, joined by the others in their order.

    `now` is the time of what is written and of the broker, in ms; it moves only where a test says so, 20 s behind each join.
    """

    names: tuple[str, ...] = ("ops", "writer-1", "writer-2", "reader-1")
    suite: int = 1
    roles: tuple[tuple[str, str], ...] = ROLES
    days: int = 90
    max_offline: int = 90 * 86400
    seed: int = 1

    def __post_init__(self) -> None:
        self.random = SeededRandom(self.seed)
        self.scheme = "p256" if self.suite == 2 else "ed25519"
        self.authority = ca.found("test CA", keys.generate(), now_ms=EPOCH_MS)
        self.now = EPOCH_MS
        self.owns: dict[str, Own] = {}
        self.members: dict[str, Membership] = {}
        self.entries: list[LogEntry] = []
        self.head: Chain | None = None
        first, *others = self.names
        self.own(first)
        self.take(self.founding(first))
        for name in others:
            self.now += 20_000
            self.take(self.join(name))
        self.now += 20_000

    @property
    def chain(self) -> Chain:
        assert self.head is not None
        return self.head

    @property
    def policy(self) -> GroupPolicy:
        return self.chain.policy

    def terms(self, **changes: Any) -> GroupPolicy:
        """The policy as founded, or the one of now with changes."""
        if self.head is not None:
            return replace(self.policy, **changes)
        anchors = (Anchor(self.authority.certificate, ("agent://acme/",)),)
        return GroupPolicy(
            1, "orders", ("orders",), self.now, anchors, self.roles, (), (), key_retention=86400, max_offline=self.max_offline
        )

    def own(self, name: str, *, of: str | None = None, days: int | None = None, authority: ca.Authority | None = None) -> Own:
        """A new key and certificate for the agent `of` (its own name), valid from now on; what `name` brings from now on."""
        key = keys.generate(self.scheme)
        issuer, days = authority or self.authority, self.days if days is None else days
        certificate = ca.issue(issuer, f"agent://acme/{of or name}", key.public_key(), now_ms=self.now, days=days)
        return self.holds(name, (certificate,), key)

    def holds(self, name: str, chain: Sequence[bytes], key: ca.PrivateKey) -> Own:
        """What `name` brings from now on: this chain and key."""
        who = identity.of(chain, key)
        self.owns[name] = Own(who.uri, who.chain, who.signature_private, who.signature_public)
        self.members.setdefault(name, Membership("orders", chain=self.head))
        return self.owns[name]

    def leaf(self, name: str) -> int:
        """Where its present key is."""
        leaf = self.chain.leaf_of(self.owns[name].signature_public)
        assert leaf is not None
        return leaf

    def group(self, name: str) -> Group:
        group = self.members[name].mls
        assert group is not None
        return group

    # --- what is written ------------------------------------------------------------------------------------------------

    def founding(self, name: str) -> Written:
        policy = self.terms()
        group = Group.found(
            suite_of(self.suite), self.random(32), self.owns[name].leaf(self.suite), extensions=extensions_of(policy), random=self.random
        )
        message = MLSMessage(group.group_info(ratchet_tree=True, external_pub=True)).encode()
        return Written(GroupRecord(FOUNDING, 0, message, b"").encode(), name, group)

    def commit(
        self,
        name: str,
        *proposals: Proposal,
        time_ms: int | None = None,
        fences: Sequence[FencedTopic] | None = None,
        own: Own | None = None,
        path: bool = True,
    ) -> Written:
        """A member's commit of these proposals; `own` is a new key or certificate that it brings."""
        data = CommitData(self.now if time_ms is None else time_ms, None if fences is None else tuple(fences)).encode()
        brings = None if own is None else own.leaf(self.suite)
        group = self.group(name)
        staged = group.commit(proposals=proposals, authenticated_data=data, own=brings, path=path, random=self.random)
        return Written(record_of(group.epoch, staged), name, staged.group)

    def remove(self, name: str, *others: str, **how: Any) -> Written:
        """A commit that removes the leaves of these."""
        return self.commit(name, *(Remove(self.leaf(other)) for other in others), **how)

    def join(self, name: str, *, remove: int | None = None, fences: Sequence[FencedTopic] | None = None) -> Written:
        """The external commit of one who joins with what it has, or a new key."""
        own = self.owns.get(name) or self.own(name)
        staged = Group.external_commit(
            self.chain.public,
            self.chain.external_pub,
            own.leaf(self.suite),
            remove=remove,
            authenticated_data=CommitData(self.now, None if fences is None else tuple(fences)).encode(),
            random=self.random,
        )
        return Written(record_of(self.chain.epoch, staged), name, staged.group)

    def leave(self, name: str) -> Written:
        return Written(leave_record(self.chain, self.leaf(name), self.owns[name].signature_private), name)

    # --- who reads it ---------------------------------------------------------------------------------------------------

    def entry(self, record: bytes) -> LogEntry:
        return LogEntry(len(self.entries) + 1, self.now, record)

    def judged(self, written: Written | bytes, *, newcomer: bool = True) -> Verdict:
        """The verdict of a follower; that of who was started on its rows, of every member, and of a newcomer is the same."""
        written = written if isinstance(written, Written) else Written(written)
        entry = self.entry(written.record)
        verdict = judge(self.head, entry, "orders")
        said = (verdict.kind, verdict.reason, verdict.sender, verdict.leaver, of_chain(verdict.chain))
        if verdict.kind in ("invalid", "passed", "stale", "early", "upgrade"):
            assert verdict.chain is self.head
        others = [judge(again(self.head), entry, "orders")]
        others += [follow(member, entry, "log", {}, {}).verdict for member in self.members.values() if member.chain is not None]
        if newcomer:
            chain: Chain | None = None
            for one in self.entries:
                chain = judge(chain, one, "orders").chain
            others.append(judge(chain, entry, "orders"))
        for other in others:
            assert (other.kind, other.reason, other.sender, other.leaver, of_chain(other.chain)) == said
        return verdict

    def take(self, written: Written | bytes) -> Verdict:
        """Append it; everybody reads on. Its verdict, which nobody is asked for twice."""
        written = written if isinstance(written, Written) else Written(written)
        entry = self.entry(written.record)
        verdict = judge(self.head, entry, "orders")
        self.entries.append(entry)
        self.head = verdict.chain
        for name, member in self.members.items():
            mine = {written.hash: written.next} if name == written.by and written.next is not None else {}
            after = follow(member, entry, "log", mine, {}).next
            assert of_chain(after.chain) == of_chain(self.head)
            self.members[name] = after
        return verdict

    def counts(self, written: Written) -> Verdict:
        """Judged alike by all as a commit or leave that counts, and taken."""
        verdict = self.judged(written)
        assert verdict.kind in ("commit", "leave"), verdict.reason
        self.take(written)
        return verdict

    def refused(self, written: Written | bytes) -> str:
        """Judged alike by all as invalid; the rule."""
        verdict = self.judged(written)
        assert (verdict.kind, verdict.chain) == ("invalid", self.head)
        return verdict.reason


def again(chain: Chain | None) -> Chain | None:
    """A chain as it is read from its row."""
    if chain is None:
        return None
    row = state.encode_member(Membership("orders", chain=chain))
    return state.decode_member(row, None).chain
