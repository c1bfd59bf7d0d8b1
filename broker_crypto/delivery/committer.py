"""What an agent writes to the group log: a founding, an external commit, a path commit. Each returns a record and the state it leads to.

Nothing is released here: the caller stores what is returned, then appends, then reads (rule 1 of docs/state.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker_crypto import limits
from broker_crypto.crypto.suites import suite as suite_of
from broker_crypto.delivery import log_records, rules
from broker_crypto.delivery.group_policy import COMMIT_HASH_EXTENSION, EXTENSION, GroupPolicy
from broker_crypto.errors import GroupTooLarge, PeerError
from broker_crypto.identity import profile
from broker_crypto.mls.framing import MLSMessage
from broker_crypto.mls.group import Group, OwnLeaf, StagedCommit
from broker_crypto.mls.leaf import REQUIRED_CAPABILITIES, Capabilities, Credential, Extension, LeafNode
from broker_crypto.mls.proposals import GroupContextExtensions, Proposal, Remove
from broker_crypto.records import Random


@dataclass(frozen=True, slots=True)
class Staged:
    """An own record that waits for its answer in the log, with the state that it leads to.

    `epoch` is the one that the record is written in, `time` its signed time (ms), `appended` how often it was sent.
    """

    hash: bytes
    epoch: int
    time: int
    record: bytes
    next: Group = field(repr=False)
    intents: tuple[bytes, ...] = ()
    appended: int = 0


@dataclass(frozen=True, slots=True)
class Own:
    """What this agent brings: its identity, certificate chain (DER, leaf first) and signature key of one suite."""

    identity: str
    chain: tuple[bytes, ...]
    signature_private: bytes = field(repr=False)
    signature_public: bytes

    def leaf(self, suite: int) -> OwnLeaf:
        """The leaf it brings into a group of `suite`."""
        return OwnLeaf(
            credential=Credential.x509(self.chain),
            signature_private=self.signature_private,
            signature_public=self.signature_public,
            capabilities=Capabilities(cipher_suites=(suite,), extensions=(EXTENSION,), credentials=(2,)),
        )

    def renews(self, leaf: LeafNode | None) -> bool:
        """Whether the certificate is another one than that of the leaf."""
        return leaf is not None and leaf.credential.certificates != self.chain

    def refusal(self, policy: GroupPolicy) -> str | None:
        """The rule by which `policy`, validity aside, does not count this identity with this chain; None where it does."""
        try:
            profile.check_chain(self.chain, policy.anchors, None, frozenset(policy.revoked))
        except PeerError as error:
            return str(error.fields.get("rule", error.code))
        return None if policy.role_of(self.identity) is not None else "role"

    def admitted(self, policy: GroupPolicy) -> bool:
        """Whether `policy`, validity aside, counts this identity with this chain."""
        return self.refusal(policy) is None


@dataclass(frozen=True, slots=True)
class Change:
    """What a commit changes beside the own keys. `time` is signed, in ms; `policy` None leaves the group's as it is."""

    time: int
    policy: GroupPolicy | None = None
    remove: frozenset[int] = frozenset()
    fences: tuple[log_records.FencedTopic, ...] | None = None


def found(own: Own, policy: GroupPolicy, suite: int, random: Random) -> Staged:
    """The founding of a group: GroupInfo of epoch 0 with tree and external_pub. GroupTooLarge beyond the log's limit."""
    group = Group.found(suite_of(suite), random(32), own.leaf(suite), extensions=policy_extensions(policy), random=random)
    message = MLSMessage(group.group_info(ratchet_tree=True, external_pub=True)).encode()
    return _staged(log_records.GroupRecord(log_records.FOUNDING, 0, message, b""), group, (), policy.time)


def join(chain: rules.Chain, own: Own, time_ms: int, random: Random) -> Staged:
    """The external commit that brings `own` in, and removes the leaf that has its signature key already."""
    suite = chain.public.suite.number
    commit = Group.external_commit(
        chain.public,
        chain.external_pub,
        own.leaf(suite),
        remove=chain.leaf_of(own.signature_public),
        authenticated_data=log_records.CommitData(time_ms).encode(),
        random=random,
    )
    return _commit_record(chain.epoch, commit, (), time_ms)


def commit(group: Group, own: Own, change: Change, intents: tuple[bytes, ...], random: Random) -> Staged:
    """A path commit with what `change` says: fresh keys for the own leaf and every node above it."""
    proposals: list[Proposal] = [Remove(leaf) for leaf in sorted(change.remove)]
    if change.policy is not None:
        proposals.append(GroupContextExtensions(policy_extensions(change.policy)))
    data = log_records.CommitData(change.time, change.fences)
    made = group.commit(
        proposals=proposals,
        path=True,
        own=own.leaf(group.public.suite.number) if own.renews(group.public.tree.leaf(group.leaf)) else None,
        authenticated_data=data.encode(),
        random=random,
    )
    return _commit_record(group.public.epoch, made, intents, change.time)


def policy_extensions(policy: GroupPolicy) -> tuple[Extension, ...]:
    """The extensions of a GroupContext with this policy."""
    return (Extension(REQUIRED_CAPABILITIES, rules.required_capabilities()), Extension(EXTENSION, policy.encode()))


def _commit_record(epoch: int, commit: StagedCommit, intents: tuple[bytes, ...], time_ms: int) -> Staged:
    named = Extension(COMMIT_HASH_EXTENSION, log_records.commit_hash(commit.message))
    info = commit.group.group_info(extensions=(named,), external_pub=True)
    return _staged(log_records.GroupRecord(log_records.COMMIT, epoch, commit.message, info.encode()), commit.group, intents, time_ms)


def _staged(record: log_records.GroupRecord, group: Group, intents: tuple[bytes, ...], time_ms: int) -> Staged:
    encoded = record.encode()
    if len(encoded) > limits.MAX_GROUP_RECORD:
        raise GroupTooLarge(size=len(encoded), limit=limits.MAX_GROUP_RECORD)
    return Staged(log_records.commit_hash(record.message), record.epoch, time_ms, encoded, group, intents)
