"""Any part of an honest record changed in any way and signed again by who may sign it: everybody judges it alike, nothing breaks."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker_crypto.delivery.log_records import GroupRecord
from broker_crypto.delivery.membership import LOCKED_OUT, MEMBER, follow
from broker_crypto.delivery.rules import judge
from broker_crypto.errors import BrokerCryptoError, UsageError
from broker_crypto.mls.framing import PublicMessage
from broker_crypto.mls.leaf import LeafNode
from broker_crypto.mls.proposals import Commit
from broker_crypto.mls.public import PublicGroup
from broker_crypto.mls.update_path import UpdatePath
from tests.support.forging import leaf_changed
from tests.support.lies.scene import Scene
from tests.support.lies.scribe import Scribe

SCENE = Scene()
NEWCOMER = SCENE.world.own("writer-9")  # issued once: certificates differ in length, and what is drawn must not depend on it
HIDDEN = {"_encoded"}


@st.composite
def another(draw: st.DrawFn, value: Any) -> Any:
    """`value` with one part of it, however deep, made another."""
    if is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in fields(value) if f.name not in HIDDEN and f.init]
        if names:
            name = draw(st.sampled_from(names))
            return replace(value, **{name: draw(another(getattr(value, name)))})
        return value
    if isinstance(value, bool) or value is None:
        return draw(st.sampled_from([None, False, True, b"", 0])) if value is None else not value
    if isinstance(value, int):
        return draw(st.sampled_from([0, 1, 2, 3, value ^ 1, value + 1, max(0, value - 1), 255, 65535, 2**32 - 1, 2**63 - 1]))
    if isinstance(value, bytes):
        at = draw(st.integers(0, max(0, len(value) - 1)))
        flipped = value[:at] + bytes(b ^ 1 << draw(st.integers(0, 7)) for b in value[at : at + 1]) + value[at + 1 :]
        return draw(st.sampled_from([b"", value[:-1], value + b"\x00", flipped, bytes(len(value)), b"\xff" * len(value), value * 2]))
    if isinstance(value, tuple):
        if not value:
            return value
        at = draw(st.integers(0, len(value) - 1))
        what = draw(st.sampled_from(["drop", "twice", "swap", "inside", "inside", "inside"]))
        if what == "drop":
            return value[:at] + value[at + 1 :]
        if what == "twice":
            return (*value, value[at])
        if what == "swap":
            return (*value[at:], *value[:at])
        return (*value[:at], draw(another(value[at])), *value[at + 1 :])
    return value


def signed_again(scribe: Scribe, message: PublicMessage, *, leaf: bool) -> PublicMessage:
    """The message with its leaf and itself signed by the one who commits."""
    commit = message.content.content
    if not isinstance(commit, Commit):
        return message
    if leaf and isinstance(commit.path, UpdatePath) and isinstance(commit.path.leaf_node, LeafNode):
        index = scribe.public.tree.free_leaf() if scribe.group is None else scribe.group.leaf
        commit = replace(commit, path=leaf_changed(commit.path, scribe.public, index, scribe.own.signature_private))
    return scribe.signed_again(replace(message, content=replace(message.content, content=commit)))


@given(st.data(), st.sampled_from(["member", "outside", "back"]), st.sampled_from(["message", "message", "info", "record"]), st.booleans())
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_changed_and_signed_again_everybody_judges_it_alike(data: st.DataObject, who: str, what: str, leaf: bool) -> None:
    scribe = SCENE.member("writer-2") if who == "member" else SCENE.outside(SCENE.owns["writer-2"] if who == "back" else NEWCOMER)
    made = scribe.write(remove=2) if who == "back" else scribe.write()
    message = made.message
    try:
        if what == "message":
            message = signed_again(scribe, data.draw(another(message)), leaf=leaf)
            record = scribe.record(message, scribe.info(message)).encode()
        elif what == "info":
            record = scribe.record(message, data.draw(another(made.group_info))).encode()
        else:
            record = data.draw(another(GroupRecord.decode(made.record))).encode()
    except (TypeError, ValueError, OverflowError, AttributeError, BrokerCryptoError, AssertionError) as error:
        if isinstance(error, BrokerCryptoError) and not isinstance(error, UsageError):
            raise
        return  # it cannot even be written
    verdict = SCENE.judged(record)
    if verdict.kind != "commit":
        return
    assert verdict.chain is not None
    public = verdict.chain.public
    assert PublicGroup.from_bytes(public.to_bytes()).to_bytes() == public.to_bytes()
    assert public.tree.tree_hash() == PublicGroup.from_bytes(public.to_bytes()).tree.tree_hash()
    for name, member in SCENE.members.items():
        after = follow(member, SCENE.entry(record), "log", {}, {}).next
        assert after.chain == verdict.chain
        assert after.state in (MEMBER, LOCKED_OUT) or name == "writer-2"
        if after.mls is not None:
            assert after.mls.public == public


@pytest.mark.parametrize("who", ["member", "outside"])
def test_no_byte_of_a_commit_can_be_left_out_doubled_or_zeroed(who: str) -> None:
    scribe = SCENE.member("writer-2") if who == "member" else SCENE.outside()
    record = scribe.write().record
    for at in range(0, len(record), 7):
        for changed in (
            record[:at] + record[at + 1 :],
            record[:at] + record[at : at + 1] + record[at:],
            record[:at],
            record[:at] + bytes(len(record) - at),
        ):
            if changed != record:
                verdict = judge(SCENE.chain, SCENE.entry(changed), "orders")
                assert verdict.kind in ("invalid", "passed", "stale", "early")
