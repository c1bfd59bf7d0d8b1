"""The envelopes and stored records: one Avro schema and Codec each, published as schemas/*.avsc.

A type that is used again is printed in full at its first use in each schema, so every schema stands alone. A schema
that was ever released is not changed: its fingerprint is its version (docs/formats.md).
"""

from __future__ import annotations

from typing import Any, Final

from broker_crypto import limits
from broker_crypto.wire.avro import Codec, Schema

NAMESPACE: Final = "broker_crypto"


def _record(name: str, /, **fields: Schema) -> dict[str, Any]:
    listed = [{"name": field, "type": kind} for field, kind in fields.items()]
    return {"type": "record", "name": name, "namespace": NAMESPACE, "fields": listed}


def _inner(name: str, /, **fields: Schema) -> dict[str, Any]:
    """A record inside another one; it is in the outer one's namespace."""
    return {"type": "record", "name": name, "fields": [{"name": field, "type": kind} for field, kind in fields.items()]}


def _fixed(name: str, size: int) -> dict[str, Any]:
    return {"type": "fixed", "name": name, "size": size}


def _enum(name: str, *symbols: str) -> dict[str, Any]:
    return {"type": "enum", "name": name, "symbols": list(symbols)}


def _array(items: Schema) -> dict[str, Any]:
    return {"type": "array", "items": items}


_SHA256 = _fixed("Sha256", 32)
_EPOCH_ID = _fixed("EpochId", 16)
_END = _inner("End", partition="int", first_refused="long")
_FENCED_TOPIC = _inner("FencedTopic", topic="string", identity="string", ends=_array(_END))

# --- records of topics --------------------------------------------------------------------------------------------

TOPIC_RECORD: Final = Codec(
    _record(
        "TopicRecord",
        epoch="long",
        epoch_id=_EPOCH_ID,
        leaf="int",
        stream=_fixed("Stream", 16),
        sequence="long",
        place=_fixed("Place", 4),
        flags="int",
        ciphertext="bytes",
        batch_index="int",
        batch_path="bytes",
        signature="bytes",
    ),
    max_size=limits.MAX_TOPIC_RECORD,
)

# The headers of a record, sealed with it: the body alone, without marker.
HEADERS: Final = Codec(_array(_record("Header", name="string", value=["null", "bytes"])), max_size=limits.MAX_RECORD)

# --- the group log ------------------------------------------------------------------------------------------------

# Its real bound, MAX_GROUP_RECORD, is judged by who reads (passed over) and writes (GroupTooLarge) a group log.
GROUP_RECORD: Final = Codec(_record("GroupRecord", kind="int", epoch="long", message="bytes", group_info="bytes"), max_size=limits.MAX_ROW)

COMMIT_DATA: Final = Codec(
    _record("CommitData", version="int", time="long", fences=["null", _array(_FENCED_TOPIC)]), max_size=limits.MAX_GROUP_RECORD
)

LEAVE: Final = Codec(_record("Leave", group_id="bytes", leaf="int", leaf_node=_SHA256, signature="bytes"), max_size=limits.MAX_LEAVE)

_ANCHOR = _inner("Anchor", certificate="bytes", identities=_array("string"))
_ROLE = _inner("Role", pattern="string", role=_enum("RoleName", "admin", "writer", "reader"))

GROUP_POLICY: Final = Codec(
    _record(
        "GroupPolicy",
        rules="int",
        group="string",
        topics=_array("string"),
        time="long",
        anchors=_array(_ANCHOR),
        roles=_array(_ROLE),
        barred=_array("string"),
        revoked=_array(_SHA256),
        key_retention="long",
        max_offline="long",
    ),
    max_size=limits.MAX_GROUP_POLICY,
)

# --- rows of the store --------------------------------------------------------------------------------------------

# `issuers` is a place in the row's list of issuers, which many leaves share.
_ROSTER_ENTRY = _inner("RosterEntry", leaf="int", identity="string", signature_key="bytes", may_write="boolean", issuers="int")

EPOCH_ROW: Final = Codec(
    _record(
        "EpochRow",
        epoch="long",
        epoch_id=_EPOCH_ID,
        group_id="bytes",
        suite="int",
        began="long",
        ended=["null", "long"],
        topics=_array("string"),
        issuers=_array(_array(_SHA256)),
        roster=_array(_ROSTER_ENTRY),
        stream_secret=["null", "bytes"],
    ),
    max_size=limits.MAX_ROW,
)

FENCE_ROW: Final = Codec(
    _record(
        "FenceRow",
        epoch="long",
        time="long",
        commit=_SHA256,
        leaves=_array(_inner("FencedLeaf", leaf="int", since="long")),
        identities=_array("string"),
        keys=_array("broker_crypto.Sha256"),
        topics=_array(_FENCED_TOPIC),
    ),
    max_size=limits.MAX_ROW,
)

STAGED_ROW: Final = Codec(
    _record("StagedRow", commit_hash=_SHA256, epoch="long", record="bytes", next="bytes", intents=_array("bytes"), appended="int"),
    max_size=limits.MAX_ROW,
)

INTENT_ROW: Final = Codec(
    _record(
        "IntentRow",
        id="bytes",
        kind=_enum("IntentKind", "join", "rotate", "remove", "policy", "leave"),
        asked="long",
        delta="bytes",
        refused=["null", "string"],
    ),
    max_size=limits.MAX_ROW,
)

# What a policy intent wants changed: `IntentRow.delta`.
DELTA: Final = Codec(
    _record(
        "Delta",
        bar=_array("string"),
        unbar=_array("string"),
        revoke=_array(_SHA256),
        add_roles=_array(_ROLE),
        drop_roles=_array("broker_crypto.Role"),
        add_topics=_array("string"),
        drop_topics=_array("string"),
        add_anchors=_array(_ANCHOR),
        drop_anchors=_array("broker_crypto.Anchor"),
        key_retention=["null", "long"],
        max_offline=["null", "long"],
        without=_array("string"),
    ),
    max_size=limits.MAX_GROUP_POLICY,
)

_SEEN = _inner("Seen", position="long", digest=_SHA256, time_ms="long")

# How far a group log was read; a row of its own, since records that do not count move nothing else.
CURSOR_ROW: Final = Codec(_record("CursorRow", log="string", last=_SEEN, epoch=["null", "broker_crypto.Seen"]), max_size=limits.MAX_ROW)

# What erasing must know after a restart, in ms of the local clock; a row of its own, written about once an hour.
RETENTION_ROW: Final = Codec(_record("RetentionRow", known="long", held_until="long"), max_size=limits.MAX_ROW)

_INTERVAL = _inner("Interval", first="long", last=["null", "long"])
_CHAIN = _inner(
    "Chain",
    info="bytes",
    time="long",
    began="long",
    paths=_array(_inner("Path", leaf="int", time="long")),
    joined=_array(_inner("Occupant", leaf="int", epoch="long")),
    left=_array(_inner("Left", leaf="int", leaf_node=_SHA256)),
    recent=_array(_inner("Recent", time="long", key="bytes", identity="string")),
    founder="string",
    founder_leaf="bytes",
    founding_policy="bytes",
    policy_signer="string",
)

# `public` is the follower's state; a member's is part of `member`.
GROUP_ROW: Final = Codec(
    _record(
        "GroupRow",
        group="string",
        state=_enum("GroupState", "joining", "member", "locked_out", "removed", "left", "halted"),
        halt=["null", "string"],
        mend="boolean",
        chain=["null", _CHAIN],
        public=["null", "bytes"],
        member=["null", "bytes"],
        entered=_array(_INTERVAL),
        missed=_array("broker_crypto.Interval"),
        resyncs=_array("long"),
        alarms=_array(_inner("Alarm", time="long", epoch="long", identity="string", key="broker_crypto.Sha256")),
    ),
    max_size=limits.MAX_ROW,
)

# By the name of the file in schemas/.
PUBLISHED: Final[dict[str, Codec]] = {
    "TopicRecord": TOPIC_RECORD,
    "Headers": HEADERS,
    "GroupRecord": GROUP_RECORD,
    "CommitData": COMMIT_DATA,
    "Leave": LEAVE,
    "GroupPolicy": GROUP_POLICY,
    "EpochRow": EPOCH_ROW,
    "FenceRow": FENCE_ROW,
    "StagedRow": STAGED_ROW,
    "IntentRow": INTENT_ROW,
    "Delta": DELTA,
    "CursorRow": CURSOR_ROW,
    "RetentionRow": RETENTION_ROW,
    "GroupRow": GROUP_ROW,
}


def leave_content(*, group_id: bytes, leaf: int, leaf_node: bytes) -> bytes:
    """What a Leave's signature covers: its encoding up to the signature. Raises UsageError."""
    whole = LEAVE.encode({"group_id": group_id, "leaf": leaf, "leaf_node": leaf_node, "signature": b""})
    return whole[:-1]  # an empty signature is one byte, its length
