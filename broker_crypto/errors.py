"""Every error of broker_crypto, by who is to blame. Each class is one reason.

    BrokerCryptoError
      UsageError          ours: a call that cannot be right
        AgentClosed, ForkedState
      PolicyError         ours: the policy file, or what it says against the broker
        PolicyConflict, NoPolicy, NotBuilt
      GroupError          ours: this agent's place in a group
        GroupNotReady, LockedOut, NotAMember, MayNotWrite, NotThisGroup, LogRolledBack, GroupLogTruncated,
        IdentityInUse, UntrustedFounding, UpgradeNeeded, LogClockAhead, GroupTooLarge, LastMember
      RecordRefused       theirs: one record that is not handed out
        NotEncrypted, UnsupportedRecord, MalformedRecord, EpochNotReached, NotAMemberAtEpoch, EpochMissed, KeyExpired,
        UnknownEpoch, Relocated, Tampered, BadSignature, NotAuthorised, RemovedSender,
        SuiteRefused, UnknownSession, KeyConsumed, AlreadyProcessed
      PeerError           theirs: a message of a protocol
        MalformedInput, DirectoryRolledBack
      StateError          ours: the store
        StateLocked, StateVersionError, StateCorrupt, StateRolledBack, Fenced
      StoreUnavailable    the world's
      BrokerUnavailable   the world's
        LostRace, AppendUnknown

Fields are keyword arguments and become attributes. They name topics, positions, epochs, leaves and identities; never a
key, a plaintext or a ciphertext.
"""

from __future__ import annotations

from typing import Any, ClassVar


class BrokerCryptoError(Exception):
    """The root. `code` is a stable word for metrics, `retriable` whether the same call may succeed later, `hint` the cure:
    the class's, or that of one error where more is known of its place.
    """

    code: ClassVar[str] = "error"
    retriable: ClassVar[bool] = False
    hint: str = ""

    def __init__(self, what: str = "", **fields: Any) -> None:
        self.what = what
        self.fields = fields
        for name, value in fields.items():
            setattr(self, name, value)
        super().__init__(what)

    def __str__(self) -> str:
        head = self.what or (self.__doc__ or "").split("\n")[0].rstrip(".")
        place = ", ".join(f"{name}={value!r}" for name, value in self.fields.items() if value is not None)
        cure = f" ({self.hint})" if self.hint else ""
        return f"{head}{': ' if place and head else ''}{place}{cure}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.what, self.fields))


def _rebuild(kind: type[BrokerCryptoError], what: str, fields: dict[str, Any]) -> BrokerCryptoError:
    return kind(what, **fields)


class UsageError(BrokerCryptoError):
    """The call cannot be right."""

    code = "usage"


class AgentClosed(UsageError):
    """The agent is closed; nothing is sealed or opened any more."""

    code = "agent_closed"
    hint = "stop or drain the clients before leaving `async with Agent.open(...)`"


class ForkedState(UsageError):
    """The process forked; the child must not use its parent's agent."""

    code = "forked_state"
    hint = "open the agent in the process that uses it"


class PolicyError(BrokerCryptoError):
    """The policy file is wrong."""

    code = "policy"
    hint = "broker-crypto policy check"


class PolicyConflict(PolicyError):
    """The policy, the broker's settings or the group's own policy contradict each other."""

    code = "policy_conflict"
    hint = ""


class NoPolicy(PolicyError):
    """No rule of the policy covers this; nothing is sent in clear by default."""

    code = "no_policy"
    hint = "add a rule to `topics:`; `broker-crypto policy explain TOPIC` shows which one applies"


class NotBuilt(PolicyError):
    """This version does not have it yet; it is refused rather than passed by unsealed."""

    code = "not_built"
    hint = ""


class GroupError(BrokerCryptoError):
    """This agent's place in a group does not allow it."""

    code = "group"


class GroupNotReady(GroupError):
    """The agent is not a member of the group yet."""

    code, retriable = "group_not_ready", True
    hint = "await agent.ready(topic); see `broker-crypto group status`"


class LockedOut(GroupError):
    """A commit that counts cannot be entered by this member; it is coming back with an external commit."""

    code, retriable = "locked_out", True
    hint = "it mends itself; if it repeats, an admin removes who `broker-crypto group status` names in its alarms"


class NotAMember(GroupError):
    """The agent is no member of this group."""

    code = "not_a_member"
    hint = "`broker-crypto group join` after leaving; else an admin gives the identity a role, or lifts its bar with `group readmit`"


class MayNotWrite(GroupError):
    """The group's policy gives this identity no right to write."""

    code = "may_not_write"
    hint = "an admin gives it the role `writer` in the file and runs `broker-crypto group policy apply`"


class LogRolledBack(GroupError):
    """The group log is not the one that was read before: a record or its identity changed, or it is shorter."""

    code = "log_rolled_back"
    hint = "find out why and make the log whole; then stop the agent and run `broker-crypto group reset`"


class GroupLogTruncated(GroupError):
    """The group log has lost records that must be kept: its founding or what this agent still has to read."""

    code = "group_log_truncated"
    hint = "restore the log, without limits; then stop the agent and run `broker-crypto group reset`"


class IdentityInUse(GroupError):
    """A commit signed by this agent's own key was made by somebody else: a copy of its folder or key is running."""

    code = "identity_in_use"
    hint = "do not restart; find the copy and stop it; if the key was stolen, an admin runs `broker-crypto group revoke`"


class UntrustedFounding(GroupError):
    """The group was founded by somebody this agent's policy file does not trust for it."""

    code = "untrusted_founding"
    hint = "bring this file in line with the founder's, or an admin by this file runs `broker-crypto group policy apply`"


class UpgradeNeeded(GroupError):
    """An admin raised the group's rules beyond what this version knows."""

    code = "upgrade_needed"
    hint = "install a newer broker_crypto"


class LogClockAhead(GroupError):
    """The group log's time is more than 30 min ahead of the local clock."""

    code, retriable = "log_clock_ahead", True
    hint = "set the clock of this machine"


class GroupTooLarge(GroupError):
    """A record of the group log would be larger than the broker takes."""

    code = "group_too_large"
    hint = "raise the broker's record limit (NATS max_payload, Kafka max.message.bytes)"


class LastMember(GroupError):
    """The last member cannot leave; it just stops."""

    code = "last_member"
    hint = "stop the agent; its state folder may go with it"


class RecordRefused(BrokerCryptoError):
    """A record is not handed out. Refusing it changed nothing."""

    code = "record_refused"
    message: Any = None  # the client's message, data None, where a connector has one to give


class NotThisGroup(GroupError, RecordRefused):
    """The group's policy does not list this topic: raised when sealing, returned for a record of such an epoch."""

    code = "not_this_group"
    hint = "an admin adds the topic to the file and runs `broker-crypto group policy apply`"


class NotEncrypted(RecordRefused):
    """The record is no envelope, and the policy refuses plaintext."""

    code = "not_encrypted"
    hint = "`plaintext: accept` on the topic lets unsealed records in"


class UnsupportedRecord(RecordRefused):
    """An envelope of another version, or a flag that this version does not know."""

    code = "unsupported_record"
    hint = "install a newer broker_crypto, or list the fingerprint under `plain_fingerprints`"


class MalformedRecord(RecordRefused):
    """An envelope of ours that is not in its canonical form."""

    code = "malformed_record"


class EpochNotReached(RecordRefused):
    """Sealed in an epoch that the group log does not show."""

    code, retriable = "epoch_not_reached", True


class NotAMemberAtEpoch(RecordRefused):
    """Sealed in an epoch in which this agent was no member."""

    code = "not_a_member_at_epoch"


class EpochMissed(RecordRefused):
    """Sealed in an epoch from which this agent was locked out."""

    code = "epoch_missed"


class KeyExpired(RecordRefused):
    """The epoch's key was erased by `key_retention`. Nobody who erased it can open the record any more."""

    code = "key_expired"
    hint = "lengthen key_retention of the group if records must stay readable"


class UnknownEpoch(RecordRefused):
    """An epoch number that this agent holds under another id."""

    code = "unknown_epoch"


class Relocated(RecordRefused):
    """Sealed for another topic, partition, subject or key."""

    code = "relocated"


class Tampered(RecordRefused):
    """The record was changed, or never sealed by a member."""

    code = "tampered"


class BadSignature(RecordRefused):
    """The signature is not that of the leaf that the record names."""

    code = "bad_signature"


class NotAuthorised(RecordRefused):
    """The sender had no right to write in that epoch."""

    code = "not_authorised"


class RemovedSender(RecordRefused):
    """Written at or behind the position at which its sender was removed."""

    code = "removed_sender"


class SuiteRefused(RecordRefused):
    """A direct message in a suite that the policy does not accept."""

    code = "suite_refused"


class UnknownSession(RecordRefused):
    """A direct message for a session that this agent does not hold."""

    code = "unknown_session"


class KeyConsumed(RecordRefused):
    """A direct message whose key was used and released."""

    code = "key_consumed"


class AlreadyProcessed(RecordRefused):
    """A direct message that was processed and acknowledged before."""

    code = "already_processed"


class PeerError(BrokerCryptoError):
    """A message of a protocol that its rules refuse. `rule` names it (docs/validation.md)."""

    code = "peer"


class MalformedInput(PeerError):
    """Bytes that are not what they should be."""

    code = "malformed_input"


class DirectoryRolledBack(PeerError):
    """The directory shows an older state than it showed before."""

    code = "directory_rolled_back"


class StateError(BrokerCryptoError):
    """The store's content."""

    code = "state"


class StateLocked(StateError):
    """Another process holds this store."""

    code, retriable = "state_locked", True
    hint = "one running agent a store: stop the other one, or give this one its own folder and certificate"


class StateVersionError(StateError):
    """The store was written by a newer version, or is no store of ours."""

    code = "state_version"


class StateCorrupt(StateError):
    """A row is not what was written, or the key is not this store's."""

    code = "state_corrupt"
    hint = "check the store key; else take the folder away and let the agent join anew"


class StateRolledBack(StateError):
    """The store is older than what it wrote elsewhere."""

    code = "state_rolled_back"


class Fenced(StateError):
    """Another process wrote this store meanwhile."""

    code = "fenced"


class StoreUnavailable(BrokerCryptoError):
    """The store cannot be read or written now."""

    code, retriable = "store_unavailable", True


class BrokerUnavailable(BrokerCryptoError):
    """The broker cannot be reached now."""

    code, retriable = "broker_unavailable", True


class LostRace(BrokerUnavailable):
    """The group log has records that this append did not expect."""

    code = "lost_race"


class AppendUnknown(BrokerUnavailable):
    """The append's answer was lost; only reading tells whether it is there."""

    code = "append_unknown"
