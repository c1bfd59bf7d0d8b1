"""A leave in the log: whose counts, from when until when, and what is kept of it."""

from __future__ import annotations

import asyncio
import copy
import hashlib
from dataclasses import replace

import pytest

from broker_crypto.crypto.suites import suite as suite_of
from broker_crypto.delivery import rights, state
from broker_crypto.delivery.log_records import LEAVE, LEAVE_LABEL, GroupRecord, Leave
from broker_crypto.delivery.membership import Membership, follow
from broker_crypto.delivery.memory import GroupMemory
from broker_crypto.delivery.rules import judge
from broker_crypto.errors import UsageError
from broker_crypto.limits import MAX_LEAVE, ORDER_P256
from broker_crypto.mls.proposals import Remove
from broker_crypto.storage.memory import MemoryStore
from broker_crypto.wire import envelopes
from tests.unit.delivery.written import Log, sets

_BASE = Log()


@pytest.fixture
def log() -> Log:
    """ops, writer-1, writer-2 and reader-1 at leaves 0 to 3."""
    return copy.deepcopy(_BASE)


def leave_in(record: bytes) -> tuple[GroupRecord, Leave]:
    read = GroupRecord.decode(record)
    assert read is not None
    return read, Leave.decode(read.message)


def signed(log: Log, name: str, *, label: str = LEAVE_LABEL, **changes: object) -> bytes:
    """A leave that says something else, signed with the key of `name`."""
    read, leave = leave_in(log.leave(name).record)
    leave = replace(leave, **changes)  # type: ignore[arg-type]
    signature = suite_of(log.suite).sign_with_label(log.owns[name].signature_private, label, leave.content)
    return replace(read, message=replace(leave, signature=signature).encode()).encode()


# --- that it counts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ops", "writer-1", "reader-1"])
def test_a_member_leaves_and_no_epoch_moves(log: Log, name: str) -> None:
    before, leaf = log.chain, log.leaf(name)
    node = before.public.tree.leaf(leaf)
    assert node is not None
    verdict = log.counts(log.leave(name))
    assert (verdict.kind, verdict.sender, verdict.leaver) == ("leave", log.owns[name].identity, leaf)
    assert log.chain == replace(before, left={leaf: hashlib.sha256(node.encode()).digest()})
    assert {member.cursor.epoch for member in log.members.values() if member.cursor} == {log.members["ops"].cursor.epoch}  # type: ignore[union-attr]
    assert all(member.mls is not None for member in log.members.values())


def test_what_is_signed_are_the_bytes_up_to_the_signature_under_a_label_of_its_own(log: Log) -> None:
    read, leave = leave_in(log.leave("writer-1").record)
    assert (read.kind, read.epoch, read.group_info) == (LEAVE, log.chain.epoch, b"")
    assert read.message == leave.content + bytes((len(leave.signature) << 1 & 0x7F | 0x80, len(leave.signature) >> 6)) + leave.signature
    key = log.owns["writer-1"].signature_public
    assert suite_of(1).verify_with_label(key, "broker_crypto leave v1", leave.content, leave.signature)


def test_several_leave_and_one_commit_takes_them_all_out(log: Log) -> None:
    for name in ("writer-1", "reader-1"):
        log.counts(log.leave(name))
    assert log.chain.left.keys() == {1, 3}
    log.counts(log.remove("writer-2", "writer-1", "reader-1"))
    assert log.chain.left == {}


@pytest.mark.parametrize("epoch", [0, 1, 10**6, 2**63 - 1, -1])
def test_the_epoch_that_a_leave_names_is_not_compared(log: Log, epoch: int) -> None:
    read, _ = leave_in(log.leave("writer-1").record)
    assert log.judged(replace(read, epoch=epoch).encode()).kind == "leave"


def test_a_leave_counts_in_a_later_epoch_than_it_was_written_in_while_its_leaf_is_the_same(log: Log) -> None:
    leave = log.leave("writer-1")
    log.counts(log.commit("ops"))
    log.counts(log.remove("ops", "writer-2"))
    log.counts(log.join("writer-3"))
    log.counts(log.leave("reader-1"))
    log.counts(leave)
    log.counts(log.commit("ops"))
    assert log.chain.left.keys() == {1, 3}
    log.counts(log.remove("writer-3", "writer-1"))
    assert log.chain.left.keys() == {3}


def test_a_path_that_was_on_its_way_when_its_maker_left_takes_nothing_back(log: Log) -> None:
    """The leaver has erased its state by then: nobody would be behind the leaf."""
    leave = log.leave("writer-1")
    log.counts(leave)
    log.counts(log.commit("writer-1"))
    assert log.chain.left.keys() == {1}
    assert log.take(log.leave("writer-1")).kind == "stale"
    log.counts(log.remove("writer-2", "writer-1"))
    assert log.chain.left == {}


def test_a_resync_by_the_same_key_takes_it_back(log: Log) -> None:
    leave = log.leave("writer-1")
    log.counts(leave)
    log.counts(log.join("writer-1", remove=1))
    assert (log.leaf("writer-1"), log.chain.left) == (1, {})
    assert log.refused(log.remove("writer-2", "writer-1")) == "remove_right"
    assert log.judged(leave).kind == "stale"


def test_somebody_else_at_the_same_place_has_not_left(log: Log) -> None:
    leave = log.leave("writer-1")
    log.counts(leave)
    log.counts(log.remove("writer-2", "writer-1"))
    log.counts(log.join("writer-3"))
    assert log.leaf("writer-3") == 1
    assert log.judged(leave).kind == "stale"
    assert log.refused(log.remove("writer-2", "writer-3")) == "remove_right"


def test_the_same_leave_twice_is_stale(log: Log) -> None:
    leave = log.leave("writer-1")
    log.counts(leave)
    assert log.judged(leave).kind == "stale"
    assert log.take(log.leave("writer-1")).kind == "stale"
    assert log.chain.left.keys() == {1}


def test_who_is_locked_out_leaves_as_well(log: Log) -> None:
    """It needs what everybody sees, and its key."""
    assert rights.leave_record(log.chain, 1, log.owns["writer-1"].signature_private) == log.leave("writer-1").record
    for leaf in (0, 9):
        with pytest.raises(UsageError):
            rights.leave_record(log.chain, leaf, log.owns["writer-1"].signature_private)


def test_a_leave_lasts_through_a_change_of_policy_and_of_admins(log: Log) -> None:
    log.counts(log.leave("writer-1"))
    log.counts(log.commit("ops", sets(log.terms(topics=("bills",)))))
    log.counts(log.remove("reader-1", "writer-1"))


# --- that it does not ---------------------------------------------------------------------------------------------------


def test_nobody_leaves_for_another(log: Log) -> None:
    _, victim = leave_in(log.leave("writer-2").record)
    assert log.refused(signed(log, "writer-1", leaf=victim.leaf, leaf_node=victim.leaf_node)) == "leave_signature"
    assert log.refused(signed(log, "ops", leaf=victim.leaf, leaf_node=victim.leaf_node)) == "leave_signature"
    assert log.judged(signed(log, "writer-1", leaf=victim.leaf)).kind == "stale"
    assert log.judged(signed(log, "writer-1", leaf_node=victim.leaf_node)).kind == "stale"


@pytest.mark.parametrize("leaf", [-1, 4, 9, 2**31 - 1, -(2**31)])
def test_a_leaf_that_nobody_has_leaves_nothing(log: Log, leaf: int) -> None:
    assert log.judged(signed(log, "writer-1", leaf=leaf)).kind == "stale"


def test_a_leave_of_another_group_or_label_does_not_count(log: Log) -> None:
    assert log.refused(signed(log, "writer-1", group_id=bytes(32))) == "leave_group"
    for label in ("broker_crypto leave v2", "broker_crypto batch v1", ""):
        assert log.refused(signed(log, "writer-1", label=label)) == "leave_signature"
    other = Log(seed=2)
    other.owns["writer-1"] = log.owns["writer-1"]
    assert log.refused(replace(other.leave("writer-2"), by=None)) == "leave_group"


def test_a_leave_holds_nothing_else(log: Log) -> None:
    read, leave = leave_in(log.leave("writer-1").record)
    assert log.refused(replace(read, group_info=b"x").encode()) == "leave_form"
    for message in (b"", leave.content, leave.encode() + b"\x00", log.policy.encode(), bytes(MAX_LEAVE + 1)):
        assert log.refused(replace(read, message=message).encode()) == "malformed_input"
    longer = envelopes.LEAVE.encode(
        {"group_id": leave.group_id, "leaf": 1, "leaf_node": leave.leaf_node, "signature": bytes(MAX_LEAVE - 100)}
    )
    assert log.refused(replace(read, message=longer).encode()) == "leave_signature"


def test_before_a_founding_there_is_nobody_to_leave(log: Log) -> None:
    entry = log.entry(log.leave("writer-1").record)
    assert judge(None, entry, "orders").kind == "passed"


@pytest.mark.parametrize("suite", [1, 2])
def test_every_bit_flip_of_a_leave_is_refused_alike_and_the_genuine_one_then_counts(suite: int) -> None:
    log = Log(names=("ops", "writer-1"), suite=suite)
    written = log.leave("writer-1")
    before = log.head
    for bit in range(8 * len(written.record)):
        flipped = bytearray(written.record)
        flipped[bit // 8] ^= 1 << bit % 8
        verdict = log.judged(bytes(flipped), newcomer=bit % 97 == 0)
        if verdict.kind == "leave":  # the epoch of a leave is its writer's, and nobody's business
            read, _ = leave_in(bytes(flipped))
            assert replace(read, epoch=log.chain.epoch).encode() == written.record
            continue
        assert verdict.kind in ("invalid", "passed", "stale"), bit
        assert log.head is before
    log.counts(written)


def test_a_signature_has_one_form_only() -> None:
    log = Log(names=("ops", "writer-1"), suite=2)
    read, leave = leave_in(log.leave("writer-1").record)
    at = 4 + leave.signature[3]
    r, s = leave.signature[:at], int.from_bytes(leave.signature[at + 2 :])
    high = (ORDER_P256 - s).to_bytes(33)
    flipped = bytearray(r + b"\x02\x21" + high)
    flipped[1] = len(flipped) - 2
    assert log.refused(replace(read, message=replace(leave, signature=bytes(flipped)).encode()).encode()) == "leave_signature"
    log.counts(log.leave("writer-1"))


# --- what is kept -------------------------------------------------------------------------------------------------------


def test_a_leave_that_counts_is_stored_though_no_epoch_moved(log: Log) -> None:
    async def live() -> None:
        store = MemoryStore()
        memory = GroupMemory(log.members["writer-2"])
        for written in (log.leave("writer-1"), log.leave("reader-1")):
            entry = log.entry(written.record)
            change = memory.follow([entry], "log", log.owns["writer-2"], log.now)
            assert (change.moved, change.verdicts) == (False, ["leave"])
            async with store.transaction() as tx:
                await memory.write(tx, change)
            memory.adopt(change)
            log.take(written)
            started = GroupMemory(Membership("orders"))
            await started.load(store)
            assert started.member.chain is not None
            assert started.member.chain.left == memory.member.chain.left == log.chain.left  # type: ignore[union-attr]
            assert state.encode_member(started.member) == state.encode_member(memory.member)

    asyncio.run(live())
    assert log.chain.left.keys() == {1, 3}


def test_who_reads_a_leave_in_any_state_keeps_its_state(log: Log) -> None:
    entry = log.entry(log.leave("writer-1").record)
    for member in (log.members["ops"], replace(log.members["ops"], halt="x", state="halted"), Membership("orders", chain=log.chain)):
        after = follow(member, entry, "log", {}, {}).next
        assert after == replace(member, chain=after.chain, cursor=after.cursor)
        assert after.chain is not None
        assert after.chain.left.keys() == {1}


# --- occupants ----------------------------------------------------------------------------------------------------------


def test_an_occupant_is_known_by_the_epoch_in_which_it_came(log: Log) -> None:
    assert log.chain.joined == {0: 0, 1: 1, 2: 2, 3: 3}
    log.counts(log.commit("writer-1"))
    log.counts(log.commit("writer-2", own=log.own("writer-2")))
    assert log.chain.joined == {0: 0, 1: 1, 2: 2, 3: 3}
    log.counts(log.join("writer-1", remove=1))
    assert log.chain.joined == {0: 0, 1: 6, 2: 2, 3: 3}
    log.counts(log.commit("ops", Remove(2), Remove(3)))
    assert log.chain.joined == {0: 0, 1: 6}
    log.counts(log.join("writer-3"))
    assert log.chain.joined == {0: 0, 1: 6, 2: 8}
