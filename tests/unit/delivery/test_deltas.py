"""Differences to a group's policy: what two ask for both holds, and what is so already is done."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_crypto.delivery.deltas import Delta, apply_all, between
from broker_crypto.delivery.group_policy import GroupPolicy
from broker_crypto.errors import MalformedInput, UsageError
from broker_crypto.records import Anchor

ROLES = (("agent://acme/ops", "admin"), ("agent://acme/writer-*", "writer"))
ANCHOR = Anchor(b"a certificate", ("agent://acme/",))
OTHER = Anchor(b"another", ("agent://acme/", "agent://other/"))


def policy(**changes: object) -> GroupPolicy:
    plain = GroupPolicy(1, "orders", ("orders",), 5, (ANCHOR,), ROLES, (), (), 7 * 86400, 90 * 86400)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_what_two_ask_for_at_once_both_holds_in_any_order() -> None:
    one, two = (
        Delta(bar=("agent://acme/writer-1",)),
        Delta(add_roles=(("agent://acme/reader-*", "reader"),), bar=("agent://acme/writer-2",)),
    )
    forth, back = apply_all(policy(), (one, two)), apply_all(policy(), (two, one))
    assert set(forth.barred) == set(back.barred) == {"agent://acme/writer-1", "agent://acme/writer-2"}
    assert set(forth.roles) == set(back.roles) == {*ROLES, ("agent://acme/reader-*", "reader")}


def test_what_is_so_already_gives_the_same_object() -> None:
    held = policy(barred=("agent://acme/writer-1",), revoked=(bytes(32),))
    for delta in (
        Delta(bar=held.barred),
        Delta(revoke=held.revoked),
        Delta(unbar=("agent://acme/x",)),
        Delta(key_retention=7 * 86400),
        Delta(),
    ):
        assert delta.apply(held) is held


def test_a_bar_is_lifted_by_unbar_alone() -> None:
    held = policy(barred=("agent://acme/writer-1", "agent://acme/writer-2"))
    assert Delta(unbar=("agent://acme/writer-1",)).apply(held).barred == ("agent://acme/writer-2",)
    assert apply_all(held, (between(held, policy()),)).barred == held.barred


def test_a_policy_without_an_admin_is_refused() -> None:
    with pytest.raises(MalformedInput, match="admin"):
        Delta(drop_roles=(ROLES[0],)).apply(policy())


def test_differences_lead_from_one_policy_to_what_the_other_says() -> None:
    wanted = policy(
        topics=("orders", "returns"),
        anchors=(OTHER,),
        roles=(ROLES[0], ("agent://acme/r-*", "reader")),
        key_retention=-1,
        max_offline=86400,
    )
    assert between(policy(), wanted).apply(policy()).same_terms(wanted)
    assert between(wanted, policy()).apply(wanted).same_terms(policy())


def test_differences_between_two_groups_are_refused() -> None:
    with pytest.raises(UsageError):
        between(policy(), policy(group="other"))


names = st.lists(st.sampled_from(["agent://acme/a", "agent://acme/b", "agent://acme/c"]), unique=True).map(tuple)


@given(
    bar=names,
    unbar=names,
    topics=names,
    keys=st.lists(st.binary(min_size=32, max_size=32), max_size=2).map(tuple),
    kept=st.none() | st.integers(-2, 10),
)
def test_a_delta_is_read_as_it_was_written_and_holds_once_applied(
    bar: tuple[str, ...], unbar: tuple[str, ...], topics: tuple[str, ...], keys: tuple[bytes, ...], kept: int | None
) -> None:
    delta = Delta(bar=bar, unbar=unbar, add_topics=topics, revoke=keys, add_anchors=(OTHER,), drop_anchors=(ANCHOR,), key_retention=kept)
    assert Delta.decode(delta.encode()) == delta
    once = delta.apply(policy())
    assert set(once.barred) == set(bar)
    assert not set(bar) - set(once.barred)
    assert delta.apply(once) is once
