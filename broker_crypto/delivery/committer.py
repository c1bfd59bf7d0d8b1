"""What an agent writes to the group log: founding, joining, rotating. Each returns a record and the state it leads to.

Nothing is released here: the caller stores what is returned, then appends, then reads (rule 1 of docs/state.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker_crypto import limits
from broker_crypto.crypto.suites import suite as suite_of
from broker_crypto.delivery import log_records, rules
from broker_crypto.delivery.group_policy import COMMIT_HASH_EXTENSION, EXTENSION, GroupPolicy
from broker_crypto.errors import GroupTooLarge
from broker_crypto.mls.framing import MLSMessage
from broker_crypto.mls.group import Group, OwnLeaf, StagedCommit
from broker_crypto.mls.leaf import REQUIRED_CAPABILITIES, Capabilities, Credential, Extension
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


def found(own: Own, policy: GroupPolicy, suite: int, random: Random) -> Staged:
    """The founding of a group: GroupInfo of epoch 0 with tree and external_pub. GroupTooLarge beyond the log's limit."""
    extensions = (Extension(REQUIRED_CAPABILITIES, rules.required_capabilities()), Extension(EXTENSION, policy.encode()))
    group = Group.found(suite_of(suite), random(32), own.leaf(suite), extensions=extensions, random=random)
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


def rotate(group: Group, time_ms: int, intents: tuple[bytes, ...], random: Random) -> Staged:
    """A path commit: fresh keys for the own leaf and every node above it."""
    commit = group.commit(path=True, authenticated_data=log_records.CommitData(time_ms).encode(), random=random)
    return _commit_record(group.public.epoch, commit, intents, time_ms)


def _commit_record(epoch: int, commit: StagedCommit, intents: tuple[bytes, ...], time_ms: int) -> Staged:
    named = Extension(COMMIT_HASH_EXTENSION, log_records.commit_hash(commit.message))
    info = commit.group.group_info(extensions=(named,), external_pub=True)
    return _staged(log_records.GroupRecord(log_records.COMMIT, epoch, commit.message, info.encode()), commit.group, intents, time_ms)


def _staged(record: log_records.GroupRecord, group: Group, intents: tuple[bytes, ...], time_ms: int) -> Staged:
    encoded = record.encode()
    if len(encoded) > limits.MAX_GROUP_RECORD:
        raise GroupTooLarge(size=len(encoded), limit=limits.MAX_GROUP_RECORD)
    return Staged(log_records.commit_hash(record.message), record.epoch, time_ms, encoded, group, intents)
