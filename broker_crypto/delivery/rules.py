"""What one record of the group log means, for everybody alike.

The rules, in the order in which they are looked at (docs/groups.md):

 1  a record that is too large, of another fingerprint or kind is passed over unread
 2  before the founding, the first well-formed founding counts; behind it none ever does
 3  a leave, of whatever epoch, counts if it is of this group, signed by the leaf that it names as that leaf is now
 4  another epoch than ours: stale or early
 5  form: canonical, a PublicMessage of this group and the record's epoch, a commit by a member or an external one
 6  every rule of RFC 9420 that needs no secret, the signature first
 7  the authenticated data is CommitData, its time not before the last counted one and near the broker's time
 8  a path, and proposals by value that its signer may make by the policy that the commit finds (`rights`)
 9  the committer's leaf counts by the policy that the commit leaves; a leaf that replaces one has its identity
10  fences and rate: what its signer may, no admin (`rights`)
11  group_info: of the epoch that follows, signed by the committer's new leaf, naming this very message
12  what holds all this and raises `rules` above ours ends nothing here: whoever reads it needs a newer version

Nothing here reads a local setting, a clock or a secret, and nothing changes: the next chain is another value.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace

from broker_crypto import limits
from broker_crypto.crypto.suites import Suite
from broker_crypto.crypto.suites import suite as suite_of
from broker_crypto.delivery import rights
from broker_crypto.delivery.chain import Chain, Recent, external_pub, with_commit
from broker_crypto.delivery.group_policy import (
    COMMIT_HASH_EXTENSION,
    RULES,
    GroupPolicy,
    exactly,
    identity_of,
    read_policy,
    required_capabilities,
)
from broker_crypto.delivery.log_records import COMMIT, FOUNDING, LEAVE, CommitData, GroupRecord, Leave, commit_hash
from broker_crypto.errors import BrokerCryptoError, MalformedInput, PeerError
from broker_crypto.mls import leaf as mls_leaf
from broker_crypto.mls.framing import MLSMessage, PublicMessage, Sender, SenderType
from broker_crypto.mls.group_info import GroupInfo
from broker_crypto.mls.proposals import Commit, ProposalRef
from broker_crypto.mls.public import PublicGroup, PublicStaged
from broker_crypto.mls.ratchet_tree import RatchetTree
from broker_crypto.records import LogEntry

__all__ = [
    "SUITES",
    "Chain",
    "Counted",
    "Recent",
    "Verdict",
    "judge",
    "read_founding",
    "read_policy",
    "required_capabilities",
    "signed_time",
]

SUITES = (1, 2, 3)  # suites that groups use


@dataclass(frozen=True, slots=True)
class Counted:
    """A commit that counts: what a member needs to enter the epoch that follows."""

    staged: PublicStaged
    message: PublicMessage
    hash: bytes
    data: CommitData
    sender: str
    external_pub: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """`kind`: founding, commit, leave, upgrade, stale, early, invalid, passed. `chain` is the one after this record.

    Of these, founding and commit make an epoch; `leave` changes what the chain says of the leaf `leaver`; `upgrade` is an
    admin's commit that raises `rules` above ours: nothing is known of what it leads to. `reason` names the rule that made a
    record invalid, `sender` its signer where the signature holds.
    """

    kind: str
    chain: Chain | None
    commit: Counted | None = None
    reason: str = ""
    sender: str | None = None
    hash: bytes = b""
    leaver: int | None = None


def judge(chain: Chain | None, entry: LogEntry, group: str) -> Verdict:
    """The verdict on `entry` behind `chain` (None before the founding) in the log of `group`. Never raises for an input."""
    try:
        record = GroupRecord.decode(entry.record)
    except MalformedInput:
        return Verdict("invalid", chain, reason="record")
    if record is None:
        return Verdict("passed", chain)
    if chain is None:
        return _judge_founding(record, entry, group) if record.kind == FOUNDING else Verdict("passed", None)
    if record.kind == LEAVE:
        return _judge_leave(chain, record)
    if record.kind != COMMIT:
        return Verdict("passed", chain)
    digest = commit_hash(record.message)
    if record.epoch != chain.epoch:
        return Verdict("stale" if record.epoch < chain.epoch else "early", chain, hash=digest)
    sender: list[str] = []
    try:
        return _judge_commit(chain, record, entry, sender)
    except BrokerCryptoError as error:
        return Verdict("invalid", chain, reason=_rule(error), sender=next(iter(sender), None), hash=digest)


def _rule(error: BrokerCryptoError) -> str:
    return str(error.fields.get("rule", error.code))


def signed_time(record: bytes) -> int:
    """The signed time (ms) of an own record; MalformedInput where it has none."""
    read = GroupRecord.decode(record)
    message = MLSMessage.decode(read.message).body if read else None
    if isinstance(message, PublicMessage):
        return CommitData.decode(message.content.authenticated_data).time
    if isinstance(message, GroupInfo):
        return read_policy(message.group_context.extensions).time
    raise MalformedInput("no record of ours")


def _judge_founding(record: GroupRecord, entry: LogEntry, group: str) -> Verdict:
    digest = commit_hash(record.message)
    try:
        return Verdict("founding", read_founding(record, entry.time_ms, group), hash=digest)
    except BrokerCryptoError as error:
        return Verdict("invalid", None, reason=_rule(error), hash=digest)


def read_founding(record: GroupRecord, broker_time_ms: int, group: str) -> Chain:
    """A well-formed founding of this log's group; PeerError names what is not. Whose it is decides each reader."""
    message = MLSMessage.decode(record.message).body
    if not isinstance(message, GroupInfo) or record.group_info or record.epoch:
        raise PeerError("a founding is a GroupInfo of epoch 0", rule="founding_form")
    context = message.group_context
    _refuse(context.epoch != 0 or context.confirmed_transcript_hash != b"", "founding_epoch")
    _refuse(context.cipher_suite not in SUITES, "founding_suite")
    _refuse(len(context.group_id) != 32, "founding_group_id")
    tree_data = exactly(message.extensions, (mls_leaf.RATCHET_TREE, mls_leaf.EXTERNAL_PUB))[0]
    policy = read_policy(context.extensions)
    _refuse(policy.rules != RULES, "founding_rules")  # only an admin's commit raises them
    _refuse(policy.group != group, "founding_group")
    _refuse(bool(policy.barred or policy.revoked), "founding_barred")
    _refuse(abs(policy.time - broker_time_ms) > limits.COMMIT_TIME_WINDOW_MS, "time")
    tree = RatchetTree.decode(suite_of(context.cipher_suite), tree_data)
    leaf = tree.leaf(0)
    if leaf is None or tree.size != 1 or message.signer != 0:  # a wider tree shrinks when it is stored, and hashes otherwise then
        raise PeerError("a founding with another tree than one leaf", rule="founding_leaf")
    public = PublicGroup.from_group_info(message, tree)
    founder = policy.check_leaf(leaf, policy.time)
    _usable_external_pub(public.suite, message)
    return Chain(
        group=group,
        public=public,
        policy=policy,
        info=message.encode(),
        time=policy.time,
        began=policy.time,
        paths={0: policy.time},
        joined={0: 0},
        left={},
        recent=(),
        founder=founder,
        founder_leaf=leaf,
        founding_policy=policy,
        policy_signer=founder,
    )


def _judge_leave(chain: Chain, record: GroupRecord) -> Verdict:
    digest = commit_hash(record.message)
    try:
        leave = Leave.decode(record.message)
        _refuse(record.group_info != b"", "leave_form")
        node = rights.check_leave(chain, leave)
    except BrokerCryptoError as error:
        return Verdict("invalid", chain, reason=_rule(error), hash=digest)
    if node is None:
        return Verdict("stale", chain, hash=digest)
    after = replace(chain, left={**chain.left, leave.leaf: leave.leaf_node})
    return Verdict("leave", after, sender=identity_of(node), hash=digest, leaver=leave.leaf)


def _judge_commit(chain: Chain, record: GroupRecord, entry: LogEntry, sender: list[str]) -> Verdict:
    message = MLSMessage.decode(record.message).body
    if not isinstance(message, PublicMessage) or not isinstance(message.content.content, Commit):
        raise PeerError("no commit in a PublicMessage", rule="form")
    _refuse(any(isinstance(p, ProposalRef) for p in message.content.content.proposals), "by_reference")
    _refuse(message.content.epoch != record.epoch, "epoch")
    signed = message.authenticated
    chain.public.check_place(signed.content)
    chain.public.check_signature(signed)
    sender += _known_signer(chain, signed.content.sender)
    staged = chain.public.stage_content(signed, pending={})
    data = CommitData.decode(message.content.authenticated_data)  # behind the signature: decoding costs more than checking it
    path = staged.path
    if path is None:
        raise PeerError("a commit without a path", rule="path")
    _refuse(data.time < chain.time or abs(data.time - entry.time_ms) > limits.COMMIT_TIME_WINDOW_MS, "time")
    terms = rights.check_proposals(chain, staged, data.time)
    identity = terms.check_leaf(path.leaf_node, data.time)
    sender += [] if sender else [identity]
    _check_replaced(chain, staged, identity)
    made = Recent(data.time, rights.signing_key(chain, staged), identity)
    rights.check_signer(chain, made, data)
    published = _check_group_info(record, staged)
    counted = Counted(staged, message, commit_hash(record.message), data, identity, published)
    if terms.policy is None or terms.rules > RULES:
        return Verdict("upgrade", chain, sender=identity, hash=counted.hash)
    return Verdict("commit", _after(chain, record, counted, made, terms.policy), counted, sender=identity, hash=counted.hash)


def _known_signer(chain: Chain, sender: Sender) -> list[str]:
    """The identity of a member. One who joins is nobody yet: its certificates say what they like until they count."""
    leaf = chain.public.tree.leaf(sender.index) if sender.type is SenderType.MEMBER else None
    return [] if leaf is None else [identity_of(leaf)]


def _after(chain: Chain, record: GroupRecord, counted: Counted, made: Recent, policy: GroupPolicy) -> Chain:
    staged, time = counted.staged, counted.data.time
    gone, committer = {*staged.removed}, staged.committer
    joined = {leaf: epoch for leaf, epoch in chain.joined.items() if leaf not in gone}
    if staged.external:
        joined[committer] = staged.next.epoch
    return replace(
        chain,
        public=staged.next,
        policy=policy,
        info=record.group_info,
        time=time,
        began=time,
        paths={**{leaf: at for leaf, at in chain.paths.items() if leaf not in gone}, committer: time},
        joined=joined,
        left={leaf: node for leaf, node in chain.left.items() if leaf not in gone},
        recent=with_commit(chain.recent, made),
        policy_signer=chain.policy_signer if policy is chain.policy else made.identity,
    )


def _check_replaced(chain: Chain, staged: PublicStaged, identity: str) -> None:
    """The committer's own leaf, before and after; a joiner's, where it removes one."""
    for index in staged.removed if staged.external else (staged.committer,):
        old = chain.public.tree.leaf(index)
        _refuse(old is None or identity_of(old) != identity, "identity")


def _check_group_info(record: GroupRecord, staged: PublicStaged) -> bytes:
    info = GroupInfo.decode(record.group_info)
    _, named = exactly(info.extensions, (mls_leaf.EXTERNAL_PUB, COMMIT_HASH_EXTENSION))
    _refuse(not hmac.compare_digest(named, commit_hash(record.message)), "group_info_names")
    staged.next.check_group_info(info, signer=staged.committer, confirmation_tag=staged.confirmation_tag)
    return _usable_external_pub(staged.next.suite, info)


def _usable_external_pub(suite: Suite, info: GroupInfo) -> bytes:
    public = external_pub(info)
    suite.check_public(public)
    return public


def _refuse(wrong: bool, rule: str) -> None:
    if wrong:
        raise PeerError("the group log's rules refuse it", rule=rule)
