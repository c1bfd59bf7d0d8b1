"""What one record of the group log means, for everybody alike.

The rules, in the order in which they are looked at (docs/groups.md):

 1  a record that is too large, of another fingerprint or kind is passed over unread
 2  before the founding, the first well-formed founding counts; behind it none ever does
 3  another epoch than ours: stale or early
 4  form: canonical, a PublicMessage of this group and the record's epoch, a commit by a member or an external one
 5  every rule of RFC 9420 that needs no secret, the signature first
 6  the authenticated data is CommitData, its time not before the last counted one and near the broker's time
 7  proposals by value and of an allowed kind; a path
 8  the committer's leaf counts by the policy that the commit leaves; a leaf that replaces one has its identity
 9  group_info: of the epoch that follows, signed by the committer's new leaf, naming this very message

Nothing here reads a local setting, a clock or a secret, and nothing changes: the next chain is another value.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from broker_crypto import limits
from broker_crypto.crypto.suites import Suite
from broker_crypto.crypto.suites import suite as suite_of
from broker_crypto.delivery.group_policy import COMMIT_HASH_EXTENSION, EXTENSION, RULES, GroupPolicy, identity_of
from broker_crypto.delivery.log_records import COMMIT, FOUNDING, CommitData, GroupRecord, commit_hash
from broker_crypto.errors import BrokerCryptoError, MalformedInput, PeerError
from broker_crypto.mls import leaf as mls_leaf
from broker_crypto.mls.framing import MLSMessage, PublicMessage, Sender, SenderType
from broker_crypto.mls.group_info import GroupInfo
from broker_crypto.mls.proposals import Commit, ExternalInit, ProposalRef, Remove
from broker_crypto.mls.public import PublicGroup, PublicStaged
from broker_crypto.mls.ratchet_tree import RatchetTree
from broker_crypto.records import LogEntry
from broker_crypto.wire import tls

SUITES = (1, 2, 3)  # suites that groups use


@dataclass(frozen=True, slots=True)
class Chain:
    """What the log says up to one record: equal for every reader of it.

    `info` is the encoded GroupInfo of the head, whose external_pub newcomers use; `paths` the signed time (ms) of the
    last path of each leaf; `began` that of the commit that made the epoch; `time` that of the last counted commit.
    """

    group: str
    public: PublicGroup
    policy: GroupPolicy
    info: bytes = field(repr=False)
    time: int
    began: int
    paths: Mapping[int, int]
    founder: str
    founder_leaf: mls_leaf.LeafNode
    founding_policy: GroupPolicy
    policy_signer: str

    @property
    def epoch(self) -> int:
        return self.public.epoch

    @property
    def external_pub(self) -> bytes:
        """HPKE public key to join with, as the head's signer published it."""
        return _external_pub(GroupInfo.decode(self.info))

    def leaf_of(self, signature_key: bytes) -> int | None:
        """The leaf that has this signature key."""
        return next((i for i, leaf in self.public.tree.leaves() if leaf.signature_key == signature_key), None)


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
    """`kind`: founding, commit, stale, early, invalid, passed. `chain` is the one after this record.

    `reason` names the rule that made a record invalid, `sender` its signer where the signature holds.
    """

    kind: str
    chain: Chain | None
    commit: Counted | None = None
    reason: str = ""
    sender: str | None = None
    hash: bytes = b""


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
    if record.kind != COMMIT:
        return Verdict("passed", chain)
    digest = commit_hash(record.message)
    if record.epoch != chain.epoch:
        return Verdict("stale" if record.epoch < chain.epoch else "early", chain, hash=digest)
    sender: list[str] = []
    try:
        counted, after = _judge_commit(chain, record, entry, sender)
    except BrokerCryptoError as error:
        return Verdict("invalid", chain, reason=_rule(error), sender=next(iter(sender), None), hash=digest)
    return Verdict("commit", after, counted, sender=counted.sender, hash=digest)


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
    tree_data = _exactly(message.extensions, (mls_leaf.RATCHET_TREE, mls_leaf.EXTERNAL_PUB))[0]
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
        founder=founder,
        founder_leaf=leaf,
        founding_policy=policy,
        policy_signer=founder,
    )


def _judge_commit(chain: Chain, record: GroupRecord, entry: LogEntry, sender: list[str]) -> tuple[Counted, Chain]:
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
    _refuse(data.fences is not None, "fences")
    _refuse(data.time < chain.time or abs(data.time - entry.time_ms) > limits.COMMIT_TIME_WINDOW_MS, "time")
    _check_proposals(chain, staged)
    identity = chain.policy.check_leaf(path.leaf_node, data.time)
    sender += [] if sender else [identity]
    _check_replaced(chain, staged, identity)
    external_pub = _check_group_info(record, staged)
    counted = Counted(staged, message, commit_hash(record.message), data, identity, external_pub)
    return counted, _after(chain, record, counted)


def _known_signer(chain: Chain, sender: Sender) -> list[str]:
    """The identity of a member. One who joins is nobody yet: its certificates say what they like until they count."""
    leaf = chain.public.tree.leaf(sender.index) if sender.type is SenderType.MEMBER else None
    return [] if leaf is None else [identity_of(leaf)]


def _after(chain: Chain, record: GroupRecord, counted: Counted) -> Chain:
    gone = set(counted.staged.removed)
    paths = {leaf: time for leaf, time in chain.paths.items() if leaf not in gone}
    paths[counted.staged.committer] = counted.data.time
    return replace(chain, public=counted.staged.next, info=record.group_info, time=counted.data.time, began=counted.data.time, paths=paths)


def _check_proposals(chain: Chain, staged: PublicStaged) -> None:
    """Nothing but a path; or ExternalInit and at most one Remove, of the leaf with the joiner's own signature key."""
    kinds = [item.proposal for item in staged.proposals]
    if not staged.external:
        _refuse(bool(kinds), "proposals")
        return
    path = staged.path
    for proposal in kinds:
        if isinstance(proposal, Remove):
            old = chain.public.tree.leaf(proposal.removed)
            _refuse(path is None or old is None or old.signature_key != path.leaf_node.signature_key, "resync_key")
        else:
            _refuse(not isinstance(proposal, ExternalInit), "proposals")


def _check_replaced(chain: Chain, staged: PublicStaged, identity: str) -> None:
    for index in [*staged.removed, *([] if staged.external else [staged.committer])]:
        old = chain.public.tree.leaf(index)
        _refuse(old is None or identity_of(old) != identity, "identity")


def _check_group_info(record: GroupRecord, staged: PublicStaged) -> bytes:
    info = GroupInfo.decode(record.group_info)
    _, named = _exactly(info.extensions, (mls_leaf.EXTERNAL_PUB, COMMIT_HASH_EXTENSION))
    _refuse(not hmac.compare_digest(named, commit_hash(record.message)), "group_info_names")
    staged.next.check_group_info(info, signer=staged.committer, confirmation_tag=staged.confirmation_tag)
    return _usable_external_pub(staged.next.suite, info)


def _usable_external_pub(suite: Suite, info: GroupInfo) -> bytes:
    public = _external_pub(info)
    suite.check_public(public)
    return public


def _external_pub(info: GroupInfo) -> bytes:
    data = mls_leaf.find_extension(info.extensions, mls_leaf.EXTERNAL_PUB)
    if data is None:
        raise PeerError("no external_pub", rule="external_pub")
    return tls.decode(data, tls.Reader.opaque)  # struct ExternalPub, RFC 9420 section 12.4.3.2


def read_policy(extensions: mls_leaf.Extensions) -> GroupPolicy:
    """The GroupPolicy of a GroupContext that has exactly required_capabilities, naming 0xF0BC, and 0xF0BC."""
    required, policy = _exactly(extensions, (mls_leaf.REQUIRED_CAPABILITIES, EXTENSION))
    _refuse(required != required_capabilities(), "required_capabilities")
    return GroupPolicy.decode(policy)


def required_capabilities() -> bytes:
    """RequiredCapabilities of every group: extension 0xF0BC, X.509 credentials (RFC 9420 section 11.1)."""
    return bytes((2,)) + EXTENSION.to_bytes(2, "big") + bytes((0, 2)) + mls_leaf.X509.to_bytes(2, "big")


def _exactly(extensions: mls_leaf.Extensions, kinds: tuple[int, int]) -> tuple[bytes, bytes]:
    found = {e.type: e.data for e in extensions}
    _refuse(len(extensions) != len(kinds) or set(found) != set(kinds), "extensions")
    return found[kinds[0]], found[kinds[1]]


def _refuse(wrong: bool, rule: str) -> None:
    if wrong:
        raise PeerError("the group log's rules refuse it", rule=rule)
