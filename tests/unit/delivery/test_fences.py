"""What a list in an admin's commit refuses of the records of old epochs, for whom, from which position, and for how long."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker_crypto import errors
from broker_crypto.delivery.deltas import Delta
from broker_crypto.delivery.log_records import CommitData, FencedTopic
from broker_crypto.identity import keys
from broker_crypto.identity.certificate import read_certificate
from broker_crypto.records import Anchor
from tests.support.certificates import plans
from tests.support.lies.scribe import Scribe
from tests.support.world import ROLES, same_epoch
from tests.unit.delivery.play import (
    ANY,
    BARRED,
    FROM_10,
    REMOVED,
    Play,
    below,
    certified,
    gone_before,
    group,
    policy_of,
    rooted,
    rows_of,
    tree_of,
)

# --- positions --------------------------------------------------------------------------------------------------------


async def test_what_a_removed_member_wrote_opens_before_the_fence_and_is_refused_from_it_on_by_everybody() -> None:
    play, [ops, writer, reader] = await group("writer-1", "reader-1")
    data = play.seal(writer)
    kept = play.channel(reader)
    assert play.said(reader, data, 9, 10, channel=kept) == [ANY, ANY]
    await play.commit(ops, delta=BARRED, ends=FROM_10)
    await play.settle("writer-1")
    assert reader.view is not None
    kept.view = reader.view  # what it has derived and verified of this sender stays
    for channel in (kept, play.channel(reader), play.channel(ops)):
        assert play.said(reader, data, 9, 10, 11, 9, None, channel=channel) == [ANY, REMOVED, REMOVED, ANY, REMOVED]


async def test_a_record_that_was_never_written_before_the_removal_is_refused_behind_the_fence() -> None:
    play, [ops, writer, reader] = await group("writer-1", "reader-1")
    await play.commit(ops, delta=BARRED, ends=FROM_10)
    await play.settle("writer-1")
    assert play.said(reader, play.seal(writer), 10) == [REMOVED]


@pytest.mark.parametrize(
    ("ends", "where", "expected"),
    [
        ((), {}, REMOVED),
        ((FencedTopic("orders", "", ()),), {}, REMOVED),
        ((FencedTopic("orders", "stream 1", ()),), {}, REMOVED),
        ((FencedTopic("orders", "stream 1", ((0, 99),)),), {}, REMOVED),
        ((FencedTopic("invoices", "stream 1", ((-1, 99),)),), {}, REMOVED),
        (FROM_10, {"identity": "made anew"}, REMOVED),
        (FROM_10, {}, ANY),
        ((FencedTopic("orders", "stream 1", ((-1, 3), (-1, 99))),), {}, REMOVED),
        ((*FROM_10, FencedTopic("orders", "stream 2", ((-1, 9),))), {"identity": "stream 2"}, ANY),
    ],
    ids=["empty", "no stream", "no ends", "another partition", "another topic", "another stream", "named", "twice", "two streams"],
)
async def test_what_a_list_does_not_name_it_refuses_from_position_0(ends: Any, where: Any, expected: str) -> None:
    play, [ops, writer, reader] = await group("writer-1", "reader-1")
    data = play.seal(writer)
    await play.commit(ops, delta=BARRED, ends=ends)
    await play.settle("writer-1")
    assert play.said(reader, data, 5, **where) == [expected]


async def test_each_partition_has_its_own_end() -> None:
    play, [ops, writer, reader] = await group("writer-1", "reader-1")
    records = [play.seal(writer, partition=partition) for partition in (0, 1, 2)]
    await play.commit(ops, delta=BARRED, ends=(FencedTopic("orders", "stream 1", ((0, 5), (1, 8))),))
    await play.settle("writer-1")
    said = [play.said(reader, data, 4, 5, 7, 8, partition=partition) for partition, data in enumerate(records)]
    assert said == [[ANY, REMOVED, REMOVED, REMOVED], [ANY, ANY, ANY, REMOVED], [REMOVED] * 4]


async def test_null_fences_nobody_and_the_removed_one_stays_readable_everywhere() -> None:
    play, [ops, writer, reader] = await group("writer-1", "reader-1")
    data = play.seal(writer)
    await play.commit(ops, delta=BARRED)
    await play.settle("writer-1")
    assert play.said(reader, data, 0, 10**6, None) == [ANY, ANY, ANY]


async def test_of_two_lists_the_stricter_counts_for_each_position() -> None:
    play, [ops, writer, second, reader] = await group("writer-1", "writer-2", "reader-1")
    data = play.seal(writer)
    early, late = ((-1, 10),), ((-1, 50),)
    await play.commit(ops, delta=BARRED, ends=(FencedTopic("orders", "a", early), FencedTopic("orders", "b", late)))
    await play.settle("writer-1")
    barred = Delta(bar=(second.own.identity,))
    await play.commit(ops, delta=barred, ends=(FencedTopic("orders", "a", late), FencedTopic("orders", "b", early)))
    await play.settle("writer-1", "writer-2")
    for stream in ("a", "b"):
        assert play.said(reader, data, 9, 10, 49, identity=stream) == [ANY, REMOVED, REMOVED]
    assert play.said(reader, play.seal(second), 9, 10, identity="a") == [ANY, ANY]


async def test_a_list_for_another_takes_no_fence_away() -> None:
    play, [ops, writer, second, reader] = await group("writer-1", "writer-2", "reader-1")
    data, other = play.seal(writer), play.seal(second)
    await play.commit(ops, remove=[writer], ends=FROM_10)
    await play.settle("writer-1")
    await play.commit(ops, remove=[second], ends=(FencedTopic("orders", "stream 1", ((-1, 20),)),))
    await play.settle("writer-1", "writer-2")
    assert play.said(reader, data, 9, 10, 20) == [ANY, REMOVED, REMOVED]
    assert play.said(reader, other, 9, 10, 20) == [ANY, ANY, REMOVED]


# --- whom -------------------------------------------------------------------------------------------------------------


async def test_a_removed_leaf_is_fenced_although_its_identity_and_key_are_good_as_ever() -> None:
    play, [ops, writer, reader] = await group("writer-1", "reader-1")
    data = play.seal(writer)
    await play.commit(ops, remove=[writer], ends=FROM_10)
    await play.settle("writer-1")
    assert policy_of(reader).may_write(writer.own.identity)
    assert play.said(reader, data, 9, 10) == [ANY, REMOVED]


async def test_who_may_no_longer_write_is_fenced_and_stays_a_member() -> None:
    play, [ops, writer, reader] = await group("writer-1", "reader-1")
    data = play.seal(writer)
    terms = replace(policy_of(ops), roles=(*ROLES, ("agent://acme/writer-1", "reader")))
    await play.commit(ops, policy=replace(terms, roles=tuple(r for r in terms.roles if r[1] != "writer")), ends=FROM_10)
    await play.settle()
    assert writer.state == "member"
    assert isinstance(writer.closed, errors.MayNotWrite)
    assert play.said(reader, data, 9, 10) == [ANY, REMOVED]
    assert play.said(writer, data, 9, 10) == [ANY, REMOVED]


@pytest.mark.parametrize("how", ["left", "expired", "removed"])
async def test_who_is_gone_already_is_fenced_by_the_list_that_bars_it(how: str) -> None:
    play = Play()
    lasting = certified(play.world, "writer-1", days=1)
    ops, writer, second = await play.enter("ops", "writer-1", "writer-2", owns={"writer-1": lasting})
    data = play.seal(writer)
    await gone_before(play, how, writer, second, ops)
    assert play.said(second, data, 10) == [ANY]
    await play.commit(ops, delta=BARRED, ends=FROM_10)
    await play.settle("writer-1")
    assert play.said(second, data, 9, 10) == [ANY, REMOVED]


async def test_a_list_for_another_fences_who_was_barred_before_without_one() -> None:
    play, [ops, writer, second, reader] = await group("writer-1", "writer-2", "reader-1")
    data = play.seal(writer)
    await play.commit(ops, delta=BARRED)
    await play.settle("writer-1")
    await play.commit(ops, remove=[second], ends=FROM_10)
    await play.settle("writer-1", "writer-2")
    assert play.said(reader, data, 9, 10) == [ANY, REMOVED]


async def test_a_revoked_leaf_key_is_fenced_and_other_keys_of_the_same_identity_are_not() -> None:
    play, [ops, writer, twin, reader] = await group("writer-1", "writer-1+twin", "reader-1")
    old, other = play.seal(writer), play.seal(twin)
    await gone_before(play, "removed", writer, reader, ops)
    leaf_key = read_certificate(writer.own.chain[0]).key_hash
    await play.commit(ops, delta=Delta(revoke=(leaf_key,)), ends=FROM_10)
    await play.settle("writer-1")
    assert play.said(reader, old, 9, 10) == [ANY, REMOVED]
    assert play.said(reader, other, 9, 10) == [ANY, ANY]
    assert same_epoch(ops, twin, reader)


async def test_a_revoked_key_fences_by_the_certificate_that_the_leaf_had_in_that_epoch() -> None:
    play, [ops, writer, reader] = await group("writer-1", "reader-1")
    data, old_key = play.seal(writer), read_certificate(writer.own.chain[0]).key_hash
    writer.loop.renew(certified(play.world, "writer-1"))
    await play.settle()
    assert writer.loop.own.signature_public in {leaf.signature_key for _, leaf in tree_of(ops)}
    renewed = play.seal(writer)
    await play.commit(ops, delta=Delta(revoke=(old_key,)), ends=FROM_10)
    await play.settle()
    assert same_epoch(ops, writer, reader)
    assert play.said(reader, data, 9, 10) == [ANY, REMOVED]
    assert play.said(reader, renewed, 9, 10) == [ANY, ANY]


async def test_a_revoked_issuer_fences_whom_it_certified_and_not_the_same_identity_by_another() -> None:
    play = Play()
    root = await rooted(play)
    middles = {"writer-1": "middle", "writer-1+twin": "sound"}
    owns = {name: below(root, "writer-1", middle=middle) for name, middle in middles.items()}
    ops, writer, twin, reader = await play.enter("ops", "writer-1", "writer-1+twin", "reader-1", owns=owns)
    old, other = play.seal(writer), play.seal(twin)
    await gone_before(play, "removed", writer, reader, ops)
    await play.commit(ops, delta=Delta(revoke=(read_certificate(writer.own.chain[1]).key_hash,)), ends=FROM_10)
    await play.settle("writer-1")
    assert play.said(reader, old, 9, 10) == [ANY, REMOVED]
    assert play.said(reader, other, 9, 10) == [ANY, ANY]


async def test_a_revoked_issuer_fences_no_epoch_in_which_the_same_key_was_certified_by_another() -> None:
    play = Play()
    root = await rooted(play)
    key = keys.generate()
    first, second = (below(root, "writer-1", middle=middle, key=key) for middle in ("middle", "sound"))
    ops, writer, reader = await play.enter("ops", "writer-1", "reader-1", owns={"writer-1": first})
    old = play.seal(writer)
    writer.loop.renew(second)
    await play.settle()
    new = play.seal(writer)
    await play.commit(ops, delta=Delta(revoke=(read_certificate(first.chain[1]).key_hash,)), ends=FROM_10)
    await play.settle()
    assert same_epoch(ops, writer, reader)
    assert play.said(reader, old, 9, 10) == [ANY, REMOVED]
    assert play.said(reader, new, 9, 10) == [ANY, ANY]


async def test_a_revoked_anchor_fences_who_came_by_it_and_not_the_same_identity_by_another() -> None:
    play = Play()
    root = await rooted(play)
    owns = {"writer-1": below(root, "writer-1", middle=None)}
    ops, writer, twin, reader = await play.enter("ops", "writer-1", "writer-1+twin", "reader-1", owns=owns)
    old, other = play.seal(writer), play.seal(twin)
    await gone_before(play, "removed", writer, reader, ops)
    await play.commit(ops, delta=Delta(revoke=(read_certificate(root.build()).key_hash,)), ends=FROM_10)
    await play.settle("writer-1")
    assert play.said(reader, old, 9, 10) == [ANY, REMOVED]
    assert play.said(reader, other, 9, 10) == [ANY, ANY]


async def test_a_list_fences_who_stands_under_an_anchor_that_was_revoked_before_without_one() -> None:
    play = Play()
    root = plans().root
    anchor = Anchor(root.build(), ("agent://other/",))
    terms = play.world.policy
    roles = (*terms.roles, ("agent://other/writer", "writer"))
    play.world.policy = replace(terms, anchors=(*terms.anchors, anchor), roles=roles)
    owns = {"writer": below(root, "writer", middle=None, uri_="agent://other/writer")}
    ops, writer, second, reader = await play.enter("ops", "writer", "writer-2", "reader-1", owns=owns)
    data = play.seal(writer)
    await play.commit(ops, delta=Delta(revoke=(read_certificate(root.build()).key_hash,)))
    await play.settle("writer")
    assert play.said(reader, data, 10) == [ANY]
    await play.commit(ops, remove=[second], ends=FROM_10)
    await play.settle("writer", "writer-2")
    assert play.said(reader, data, 9, 10) == [ANY, REMOVED]


@pytest.mark.parametrize("how", ["dropped", "revoked"])
async def test_an_identity_that_no_anchor_speaks_for_any_more_is_fenced_whatever_role_it_has(how: str) -> None:
    play = Play()
    root = plans().root
    anchor = Anchor(root.build(), ("agent://other/",))
    roles = (*ROLES, ("agent://other/writer", "writer"))
    play.world.policy = replace(play.world.policy, anchors=(*play.world.policy.anchors, anchor), roles=roles)
    owns = {"writer": below(root, "writer", middle=None, uri_="agent://other/writer")}
    ops, writer, reader = await play.enter("ops", "writer", "reader-1", owns=owns)
    data = play.seal(writer)
    await gone_before(play, "removed", writer, reader, ops)
    change = Delta(drop_anchors=(anchor,)) if how == "dropped" else Delta(revoke=(read_certificate(root.build()).key_hash,))
    await play.commit(ops, delta=change, ends=FROM_10)
    await play.settle("writer")
    assert play.said(reader, data, 9, 10) == [ANY, REMOVED]


async def test_an_older_occupant_of_the_same_leaf_is_somebody_else() -> None:
    play, [ops, first, reader] = await group("writer-1", "reader-1")
    old, index = play.seal(first), play.leaf(first)
    await gone_before(play, "removed", first, reader, ops)
    second = play.actors["writer-2"] = play.world.actor("writer-2")
    await play.settle("writer-1")
    assert play.leaf(second) == index
    new = play.seal(second)
    await play.commit(ops, remove=[second], ends=FROM_10)
    await play.settle("writer-1", "writer-2")
    assert play.said(reader, new, 9, 10) == [ANY, REMOVED]
    assert play.said(reader, old, 9, 10) == [ANY, ANY]


async def test_who_came_back_by_a_resync_is_fenced_from_there_on_and_not_before() -> None:
    play, [ops, writer, reader] = await group("writer-1", "reader-1")
    old, index = play.seal(writer), play.leaf(writer)
    again = play.actors["writer-1"] = play.world.actor("writer-1", own=writer.own)  # its store is lost
    await play.settle()
    assert same_epoch(ops, again, reader)
    assert play.leaf(again) == index
    new = play.seal(again)
    await play.commit(ops, remove=[again], ends=FROM_10)
    await play.settle("writer-1")
    assert play.said(reader, new, 9, 10) == [ANY, REMOVED]
    assert play.said(reader, old, 9, 10) == [ANY, ANY]


async def test_an_own_path_makes_no_other_occupant() -> None:
    play, [ops, writer, reader] = await group("writer-1", "reader-1")
    old = play.seal(writer)
    await play.commit(writer)
    await play.settle()
    await play.commit(ops, remove=[writer], ends=FROM_10)
    await play.settle("writer-1")
    assert play.said(reader, old, 9, 10) == [ANY, REMOVED]


async def test_an_admin_that_comes_back_by_an_external_commit_with_a_list_fences_nobody_not_even_itself() -> None:
    play, [ops, reader] = await group("reader-1")
    data = play.seal(ops)
    chain = ops.loop.member.chain
    assert chain is not None
    scribe = Scribe.behind(chain, ops.own, play.world.random, time_ms=play.world.clock.now_ms())
    await play.append(scribe.write(data=CommitData(scribe.time_ms, FROM_10).encode(), remove=play.leaf(ops)).record)
    await play.turn(reader)
    assert reader.epoch > chain.epoch
    assert not reader.loop.memory.fences
    assert play.said(reader, data, 10**6) == [ANY]


async def test_epochs_behind_the_commit_are_not_fenced_for_one_who_is_let_in_again() -> None:
    play, [ops, writer, reader] = await group("writer-1", "reader-1")
    old = play.seal(writer)
    await play.commit(ops, delta=BARRED, ends=FROM_10)
    await play.settle()
    assert writer.state == "removed"
    await play.commit(ops, delta=Delta(unbar=(writer.own.identity,)))
    await play.settle()
    assert same_epoch(ops, writer, reader)
    new = play.seal(writer)
    assert play.said(reader, new, 9, 10, 10**6) == [ANY, ANY, ANY]
    assert play.said(reader, old, 9, 10) == [ANY, REMOVED]


async def test_members_that_remain_are_never_fenced_in_any_of_their_epochs() -> None:
    play, [ops, writer, second, reader] = await group("writer-1", "writer-2", "reader-1")
    records = [play.seal(second), play.seal(ops)]
    await play.commit(second)
    await play.settle()
    records += [play.seal(second), play.seal(ops)]
    await play.commit(ops, delta=BARRED, ends=())
    await play.settle("writer-1")
    assert [play.said(reader, data, 0, 10**6, None) for data in records] == [[ANY] * 3] * 4


async def test_a_list_that_takes_nothing_from_anybody_leaves_no_row() -> None:
    play, [ops, reader] = await group("reader-1")
    await play.commit(ops, ends=())
    await play.settle()
    assert not reader.loop.memory.fences
    assert await rows_of(reader) == 0
