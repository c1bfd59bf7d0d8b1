"""What is asked of a group with a command: what it says before it asks, and how it waits for the answer."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from broker_crypto import errors, policy
from broker_crypto.cli import asking, changing, terms
from broker_crypto.cli.asking import Wish
from broker_crypto.cli.init import make
from broker_crypto.cli.output import Output
from broker_crypto.cli.reach import Found
from broker_crypto.delivery import plan, state
from broker_crypto.delivery.deltas import Delta
from broker_crypto.delivery.membership import LEFT, REMOVED, Membership, halted
from broker_crypto.policy.rules import GroupSection
from broker_crypto.records import Anchor, TopicFacts
from tests.support.world import Actor, World
from tests.unit.cli.conftest import Run

BOB = "agent://acme/bob"
DIGEST = bytes(range(32))


def section(world: World) -> GroupSection:
    """What a file says of the world's group."""
    said = world.policy
    return GroupSection("orders", None, 0, said.topics, said.anchors, said.roles, 1, said.key_retention, said.max_offline)


def found_by(world: World, actor: Actor) -> Found:
    return Found(section(world), actor.own.identity, actor.loop.member, actor.loop.member.chain)


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def ops(world: World) -> Actor:
    ops, writer = world.actor("ops"), world.actor("writer-1")
    await world.settle(ops, writer)
    return ops


# --- waiting --------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "SETTLED_SECONDS", 2.5)
    monkeypatch.setattr(asking, "HOPELESS_SECONDS", 0.0)


async def rows(actor: Actor) -> list[state.Intent]:
    async with actor.store.transaction() as tx:
        return [state.Intent.decode(value) for _, value in await tx.scan(state.INTENT)]


async def put(actor: Actor, intent: state.Intent | None) -> None:
    """The one intent that is there, as whoever runs on the store leaves it; None takes it away."""
    (there,) = await rows(actor)
    async with actor.store.transaction() as tx:
        key = state.prefix("orders") + there.id
        await (tx.delete(state.INTENT, key) if intent is None else tx.put(state.INTENT, key, intent.encode()))


def waiting(world: World, actor: Actor, kind: str = plan.ROTATE) -> asking._Waiting:
    return asking._Waiting(actor.store, found_by(world, actor), Wish(kind))


async def test_an_intent_that_is_taken_away_is_done_in_the_epoch_that_the_store_then_has(world: World, ops: Actor) -> None:
    outcome = asyncio.ensure_future(waiting(world, ops).outcome(Output(False)))
    while not await rows(ops):
        await asyncio.sleep(0)
    await put(ops, None)
    assert (await outcome).settled
    assert (await outcome).epoch == ops.epoch


@pytest.mark.parametrize(("reason", "said"), [("own_leaf", "cannot take itself away"), ("resync_key", "the group's log refused it")])
async def test_an_intent_that_ended_refused_is_an_error_with_the_reason(world: World, ops: Actor, reason: str, said: str) -> None:
    outcome = asyncio.ensure_future(waiting(world, ops).outcome(Output(False)))
    while not await rows(ops):
        await asyncio.sleep(0)
    (asked,) = await rows(ops)
    await put(ops, dataclasses.replace(asked, refused=reason))
    with pytest.raises(errors.GroupError, match=said) as caught:
        await outcome
    assert caught.value.fields["reason"] == reason


async def test_what_is_not_answered_goes_on_waiting_and_is_no_error(world: World, ops: Actor) -> None:
    done = await waiting(world, ops).outcome(Output(False))
    assert not done.settled
    assert [intent.id for intent in await rows(ops)] == [done.intent]


async def test_a_halted_group_answers_nobody_and_says_why(world: World, ops: Actor) -> None:
    async with ops.store.transaction() as tx:
        row = state.encode_member(halted(ops.loop.member, "log_rolled_back"))
        await tx.put(state.GROUP, state.prefix("orders"), row)
    with pytest.raises(errors.LogRolledBack) as caught:
        await waiting(world, ops).outcome(Output(False))
    (kept,) = await rows(ops)  # beside an agent only new intents are written: it cannot be taken back
    assert caught.value.fields["still_asked_as"] == kept.id.hex()


async def test_who_is_outside_may_still_leave_and_one_that_left_may_join() -> None:
    for kind in (plan.ROTATE, plan.REMOVE, plan.JOIN):
        assert isinstance(asking._closed(Membership("orders", state=REMOVED), BOB, kind), errors.NotAMember)
    assert asking._closed(Membership("orders", state=REMOVED), BOB, plan.LEAVE) is None
    assert asking._closed(Membership("orders", state=LEFT), BOB, plan.JOIN) is None
    assert isinstance(asking._closed(Membership("orders", state=LEFT), BOB, plan.ROTATE), errors.NotAMember)


# --- what is said first ---------------------------------------------------------------------------------------------------


def told(world: World, ops: Actor, delta: Delta, capfd: pytest.CaptureFixture[str]) -> tuple[str, tuple[str, ...]]:
    """What a change says it would do, and the topics whose ends it reads."""
    found, chain = found_by(world, ops), changing._as_admin(found_by(world, ops))
    after = changing._after(chain, delta, found)
    ends = changing._say_consequences(Output(False), chain, after, changing._gone(chain, after, found), without=delta.without)
    return capfd.readouterr().out, ends


async def test_who_goes_and_which_topics_are_fenced_is_said_before_it_is_asked(
    world: World, ops: Actor, capfd: pytest.CaptureFixture[str]
) -> None:
    said, ends = told(world, ops, Delta(bar=("agent://acme/writer-1",)), capfd)
    assert "agent://acme/writer-1" in said
    assert "against old keys too: orders" in said
    assert ends == ("orders",)
    said, ends = told(world, ops, Delta(bar=("agent://acme/writer-1",), without=("orders",)), capfd)
    assert "refused from the first record on, being fenced without an end: orders" in said
    assert ends == ()
    said, ends = told(world, ops, Delta(bar=("agent://acme/writer-7",)), capfd)
    assert "nobody who is in the group now goes" in said
    assert ends == ("orders",)
    assert told(world, ops, Delta(add_topics=("more",)), capfd) == ("", ())


async def test_an_identity_that_stays_at_another_leaf_is_named_there(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    ops, one, two = world.actor("ops"), world.actor("writer-1"), world.actor("writer-1", own=world.own("writer-1"))
    await world.settle(ops, one, two)
    chain = ops.loop.member.chain
    assert chain is not None
    assert one.group.leaf is not None
    key = changing._key_at(chain, one.group.leaf, "orders")
    said, _ = told(world, ops, Delta(revoke=(key,)), capfd)
    assert f"stays at leaf {two.group.leaf}" in said


async def test_what_no_commit_could_hold_is_refused_before_it_is_asked(world: World, ops: Actor) -> None:
    found, chain = found_by(world, ops), changing._as_admin(found_by(world, ops))
    with pytest.raises(errors.GroupError, match="nobody would remain"):
        changing._after(chain, Delta(bar=(ops.own.identity,)), found)
    other = Delta(add_roles=(("agent://acme/chief", "admin"),), bar=(ops.own.identity,))
    with pytest.raises(errors.GroupError, match="cannot take itself away"):
        changing._gone(chain, changing._after(chain, other, found), found)
    with pytest.raises(errors.GroupError, match="no group's policy can say that"):
        changing._after(chain, Delta(add_roles=(("not a pattern", "reader"),)), found)
    with pytest.raises(errors.UsageError, match="nobody is at this leaf"):
        changing._key_at(chain, 9, "orders")
    with pytest.raises(errors.UsageError) as caught:
        changing._known_topics(("order",), chain)
    assert caught.value.fields["nearest"] == "orders"


async def test_only_an_admin_that_has_not_left_is_heard(world: World, ops: Actor) -> None:
    found = found_by(world, ops)
    with pytest.raises(errors.GroupError, match="only an admin"):
        changing._as_admin(dataclasses.replace(found, identity="agent://acme/writer-1"))
    with pytest.raises(errors.NotAMember, match="has left"):
        changing._as_admin(dataclasses.replace(found, member=Membership("orders", state=LEFT)))
    away = errors.BrokerUnavailable("cannot connect", broker="main")
    with pytest.raises(errors.BrokerUnavailable):
        changing._as_admin(dataclasses.replace(found, chain=None, away=away))
    with pytest.raises(errors.GroupError, match="no founding"):
        changing._as_admin(dataclasses.replace(found, chain=None))


@pytest.mark.parametrize("halt", ["log_rolled_back", "group_log_truncated", "identity_in_use"])
async def test_nobody_is_started_on_a_group_that_halted_for_good(world: World, ops: Actor, halt: str) -> None:
    found = dataclasses.replace(found_by(world, ops), member=halted(ops.loop.member, halt))
    with pytest.raises(errors.GroupError) as caught:
        found.raise_if_stopped()
    assert caught.value.code == halt
    dataclasses.replace(found, member=halted(ops.loop.member, "log_clock_ahead")).raise_if_stopped()


def test_each_difference_is_a_line() -> None:
    delta = Delta(
        add_roles=((BOB, "reader"),),
        drop_roles=((BOB, "writer"),),
        add_topics=("more",),
        drop_topics=("orders",),
        add_anchors=(Anchor(b"no certificate", ("agent://acme/",)),),
        key_retention=-1,
        max_offline=86400,
    )
    assert list(terms._lines(delta)) == [
        f"- writer {BOB}",
        f"+ reader {BOB}",
        "- topic orders",
        "+ topic more",
        "+ anchor (unreadable, speaks for nobody) for agent://acme/",
        "= key_retention forever",
        "= max_offline 1d",
    ]
    assert list(terms._lines(Delta())) == []


# --- what cannot be right -------------------------------------------------------------------------------------------------


def test_a_fingerprint_is_read_in_groups_with_colons_or_in_one_run() -> None:
    text = DIGEST.hex()
    groups = [text[at : at + 4] for at in range(0, 64, 4)]
    for given in ([text], [text.upper()], groups, [" ".join(groups)], [":".join(text[at : at + 2] for at in range(0, 64, 2))]):
        assert changing.read_fingerprint(given) == DIGEST
    assert changing.fingerprint_of(DIGEST) == " ".join(groups)
    for wrong in ([text[:-2]], [text + "00"], ["acorn", "fox"], [""]):
        with pytest.raises(errors.UsageError, match="64 hex digits"):
            changing.read_fingerprint(wrong)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("remove", "orders"), "name an identity or, with --leaf, a leaf"),
        (("remove", "orders", BOB, "--leaf", "1"), "name an identity or, with --leaf, a leaf"),
        (("remove", "orders", "--leaf", "-1"), "--leaf"),
        (("revoke", "orders", "beef"), "64 hex digits"),
        (("readmit", "orders", "Bob"), "canonical form"),
        (("rotate", "order"), "did you mean `orders`"),
        (("leave",), "GROUP"),
        (("policy", "show", "order"), "did you mean `orders`"),
    ],
    ids=" ".join,
)
def test_a_call_that_cannot_be_right_is_exit_code_2_and_reaches_for_no_broker(made: Run, words: tuple[str, ...], said: str) -> None:
    ran = made("group", *words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert made("group", *words, "--json").json["error"]["code"] in ("usage", "policy")


@pytest.mark.parametrize(
    "words", [("remove", "orders", BOB), ("policy", "show", "orders"), ("join", "orders"), ("reset", "orders")], ids=" ".join
)
def test_a_broker_out_of_reach_is_exit_code_3(made: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    ran = made("group", *words)
    assert ran.code == 3, ran.err


async def test_a_topic_out_of_reach_is_named_with_its_cure() -> None:
    class Away(asking.Brokers):
        async def _describe(self, topic: str) -> list[TopicFacts]:
            raise errors.BrokerUnavailable("cannot connect", broker="far")

    with pytest.raises(errors.BrokerUnavailable) as caught:
        await Away.__new__(Away).check_ends(("orders",))
    assert caught.value.fields["topic"] == "orders"
    assert "--without orders" in caught.value.hint


async def test_a_topic_for_which_there_is_no_broker_is_out_of_reach_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "acme")
    path = tmp_path / "policy.yaml"
    path.write_text(path.read_text() + "  - {topic: events, channel: mls, group: orders}\n")
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    async with asking.Brokers(policy.load(path)) as brokers:
        for topic, why in (("events", "names no broker"), ("orders", "cannot connect")):
            with pytest.raises(errors.BrokerUnavailable) as caught:
                await brokers.check_ends((topic,))
            assert caught.value.fields["topic"] == topic
            assert why in caught.value.fields["why"]


def test_nobody_is_asked_where_the_answer_is_for_a_machine() -> None:
    assert Output(True).confirmed(True)
    with pytest.raises(errors.UsageError, match="--yes"):
        Output(True).confirmed(False)
