"""Rows of a group in the store, and back. One transaction holds state, cursor and keys of one log entry (docs/state.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker_crypto.delivery import log_records, rules
from broker_crypto.delivery.committer import Staged
from broker_crypto.delivery.fences import FenceRow
from broker_crypto.delivery.group_policy import GroupPolicy
from broker_crypto.delivery.membership import Alarm, Cursor, Epoch, Intervals, Membership, Seen
from broker_crypto.delivery.retention import Marks
from broker_crypto.errors import MalformedInput
from broker_crypto.mls.group import Group
from broker_crypto.mls.leaf import LeafNode
from broker_crypto.mls.public import PublicGroup
from broker_crypto.records import RosterEntry
from broker_crypto.wire import envelopes, tls

GROUP, CURSOR, EPOCH, STAGED, INTENT, RETENTION = "group", "cursor", "epoch", "staged", "intent", "retention"
FENCE = "fence"


@dataclass(frozen=True, slots=True)
class Intent:
    """Something wanted: `kind` join, rotate, remove, policy or leave; `refused` is why it ended undone."""

    id: bytes
    kind: str
    asked: int
    delta: bytes = b""
    refused: str | None = None

    def encode(self) -> bytes:
        return envelopes.INTENT_ROW.encode(
            {"id": self.id, "kind": self.kind, "asked": self.asked, "delta": self.delta, "refused": self.refused}
        )

    @classmethod
    def decode(cls, data: bytes) -> Intent:
        return cls(**envelopes.INTENT_ROW.decode(data))


def prefix(group: str) -> bytes:
    """Key prefix of a group's rows (a group's name holds no NUL)."""
    return group.encode() + b"\x00"


def epoch_key(group: str, epoch: Epoch) -> bytes:
    return prefix(group) + epoch.epoch.to_bytes(8, "big") + epoch.epoch_id


def encode_cursor(cursor: Cursor) -> bytes:
    return envelopes.CURSOR_ROW.encode(
        {"log": cursor.log, "last": _seen(cursor.last), "epoch": _seen(cursor.epoch) if cursor.epoch else None}
    )


def decode_cursor(data: bytes) -> Cursor:
    d = envelopes.CURSOR_ROW.decode(data)
    return Cursor(d["log"], Seen(**d["last"]), Seen(**d["epoch"]) if d["epoch"] else None)


def encode_marks(marks: Marks) -> bytes:
    return envelopes.RETENTION_ROW.encode({"known": marks.known, "held_until": marks.held_until})


def decode_marks(data: bytes) -> Marks:
    return Marks(**envelopes.RETENTION_ROW.decode(data))


def _seen(seen: Seen) -> dict[str, Any]:
    return {"position": seen.position, "digest": seen.digest, "time_ms": seen.time_ms}


def encode_member(member: Membership) -> bytes:
    """GroupRow: everything but the cursor, which has a row of its own."""
    return envelopes.GROUP_ROW.encode(
        {
            "group": member.group,
            "state": member.state,
            "halt": member.halt,
            "mend": member.mend,
            "chain": _chain(member.chain) if member.chain else None,
            "public": member.chain.public.to_bytes() if member.chain and member.mls is None else None,
            "member": member.mls.to_bytes() if member.mls else None,
            "entered": _intervals(member.entered),
            "missed": _intervals(member.missed),
            "resyncs": list(member.resyncs),
            "alarms": [{"time": a.time, "epoch": a.epoch, "identity": a.identity, "key": a.key} for a in member.alarms],
        }
    )


def decode_member(data: bytes, cursor: Cursor | None) -> Membership:
    d = envelopes.GROUP_ROW.decode(data)
    mls = Group.from_bytes(d["member"]) if d["member"] is not None else None
    public = mls.public if mls else PublicGroup.from_bytes(d["public"]) if d["public"] is not None else None
    return Membership(
        group=d["group"],
        state=d["state"],
        cursor=cursor,
        chain=_read_chain(d["chain"], public, d["group"]) if d["chain"] and public else None,
        mls=mls,
        entered=tuple((i["first"], i["last"]) for i in d["entered"]),
        missed=tuple((i["first"], i["last"]) for i in d["missed"]),
        resyncs=tuple(d["resyncs"]),
        mend=d["mend"],
        alarms=tuple(Alarm(**a) for a in d["alarms"]),
        halt=d["halt"],
    )


def _intervals(intervals: Intervals) -> list[dict[str, Any]]:
    return [{"first": first, "last": last} for first, last in intervals]


def _chain(chain: rules.Chain) -> dict[str, Any]:
    return {
        "info": chain.info,
        "time": chain.time,
        "began": chain.began,
        "paths": [{"leaf": leaf, "time": time} for leaf, time in sorted(chain.paths.items())],
        "joined": [{"leaf": leaf, "epoch": epoch} for leaf, epoch in sorted(chain.joined.items())],
        "left": [{"leaf": leaf, "leaf_node": node} for leaf, node in sorted(chain.left.items())],
        "recent": [{"time": r.time, "key": r.key, "identity": r.identity} for r in chain.recent],
        "founder": chain.founder,
        "founder_leaf": chain.founder_leaf.encode(),
        "founding_policy": chain.founding_policy.encode(),
        "policy_signer": chain.policy_signer,
    }


def _read_chain(d: Mapping[str, Any], public: PublicGroup, group: str) -> rules.Chain:
    return rules.Chain(
        group=group,
        public=public,
        policy=rules.read_policy(public.context.extensions),
        info=d["info"],
        time=d["time"],
        began=d["began"],
        paths={p["leaf"]: p["time"] for p in d["paths"]},
        joined={j["leaf"]: j["epoch"] for j in d["joined"]},
        left={left["leaf"]: left["leaf_node"] for left in d["left"]},
        recent=tuple(rules.Recent(**r) for r in d["recent"]),
        founder=d["founder"],
        founder_leaf=tls.decode(d["founder_leaf"], LeafNode.read),
        founding_policy=GroupPolicy.decode(d["founding_policy"]),
        policy_signer=d["policy_signer"],
    )


def encode_epoch(epoch: Epoch) -> bytes:
    issuers = {one: at for at, one in enumerate(dict.fromkeys(e.issuers for _, e in sorted(epoch.roster.items())))}
    roster = [
        {"leaf": leaf, "identity": e.identity, "signature_key": e.signature_key, "may_write": e.may_write, "issuers": issuers[e.issuers]}
        for leaf, e in sorted(epoch.roster.items())
    ]
    return envelopes.EPOCH_ROW.encode(
        {
            "epoch": epoch.epoch,
            "epoch_id": epoch.epoch_id,
            "group_id": epoch.group_id,
            "suite": epoch.suite,
            "began": epoch.began,
            "ended": epoch.ended,
            "topics": list(epoch.topics),
            "issuers": [list(one) for one in issuers],
            "roster": roster,
            "stream_secret": epoch.stream_secret,
        }
    )


def decode_epoch(data: bytes) -> Epoch:
    d = envelopes.EPOCH_ROW.decode(data)
    issuers = dict(enumerate(map(tuple, d["issuers"])))
    if not all(r["issuers"] in issuers for r in d["roster"]):
        raise MalformedInput("a roster names issuers that its row does not have", epoch=d["epoch"])
    roster = {r["leaf"]: RosterEntry(r["identity"], r["signature_key"], r["may_write"], issuers[r["issuers"]]) for r in d["roster"]}
    return Epoch(
        epoch=d["epoch"],
        epoch_id=d["epoch_id"],
        group_id=d["group_id"],
        suite=d["suite"],
        began=d["began"],
        ended=d["ended"],
        topics=tuple(d["topics"]),
        roster=roster,
        stream_secret=d["stream_secret"],
    )


def fence_key(group: str, row: FenceRow) -> bytes:
    return prefix(group) + row.epoch.to_bytes(8, "big") + row.commit


def encode_fence(row: FenceRow) -> bytes:
    return envelopes.FENCE_ROW.encode(
        {
            "epoch": row.epoch,
            "time": row.time,
            "commit": row.commit,
            "leaves": [{"leaf": leaf, "since": since} for leaf, since in row.leaves],
            "identities": list(row.identities),
            "keys": list(row.keys),
            "topics": log_records.write_fences(row.topics),
        }
    )


def decode_fence(data: bytes) -> FenceRow:
    d = envelopes.FENCE_ROW.decode(data)
    return FenceRow(
        d["epoch"],
        d["time"],
        d["commit"],
        leaves=tuple((one["leaf"], one["since"]) for one in d["leaves"]),
        identities=tuple(d["identities"]),
        keys=tuple(d["keys"]),
        topics=log_records.read_fences(d["topics"]),
    )


def encode_staged(staged: Staged) -> bytes:
    return envelopes.STAGED_ROW.encode(
        {
            "commit_hash": staged.hash,
            "epoch": staged.epoch,
            "record": staged.record,
            "next": staged.next.to_bytes(),
            "intents": list(staged.intents),
            "appended": staged.appended,
        }
    )


def decode_staged(data: bytes) -> Staged:
    d = envelopes.STAGED_ROW.decode(data)
    group = Group.from_bytes(d["next"])
    return Staged(d["commit_hash"], d["epoch"], rules.signed_time(d["record"]), d["record"], group, tuple(d["intents"]), d["appended"])
