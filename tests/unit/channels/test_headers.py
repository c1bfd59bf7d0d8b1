"""Headers: all are sealed; what stands outside is neither believed nor more than is needed."""

from __future__ import annotations

from broker_crypto.errors import Relocated
from tests.support.snapshot import snapshot
from tests.support.topic_world import World, opened, place, refused, sealed


def test_all_headers_are_sealed_and_those_that_brokers_and_tracers_need_are_copied_outside() -> None:
    world = World()
    given = [
        ("authorization", b"Bearer x"), ("traceparent", b"00-1"), ("Nats-Msg-Id", b"7"), ("x-tenant", None), ("ce_id", b"1"),
        ("ce_id", b"2"), ("content-type", b"text/plain"), ("__value_schema_id", b"\x00\x01"), ("Authorization", b""),
    ]  # fmt: skip
    [one] = world.channel(0).seal([(place(), b"x", given)])
    assert list(one.headers) == [header for header in given if header[0].lower() not in ("authorization", "x-tenant")]
    assert b"Bearer x" not in one.data
    assert opened(world.channel(1), one.data, outer=list(one.headers)).headers == given


def test_the_policy_adds_to_the_copied_names_and_takes_from_them_but_not_what_brokers_need() -> None:
    world = World()
    given = [("x-tenant", b"1"), ("ce_id", b"2"), ("ce_type", b"3"), ("Nats-TTL", b"4"), ("traceparent", b"5")]
    channel = world.channel(0, headers_plain=["x-*"], headers_sealed=["ce_type", "trace*"])
    [one] = channel.seal([(place(), b"x", given)])
    assert [name for name, _ in one.headers] == ["x-tenant", "ce_id", "Nats-TTL"]


def test_of_outer_headers_only_what_brokers_and_tracers_add_reaches_the_application() -> None:
    world = World()
    [data] = sealed(world.channel(0), b"x", headers=[("traceparent", b"sealed"), ("a", b"1")])
    outer = [
        ("traceparent", b"forged"), ("Traceparent", b"forged"), ("tracestate", b"new"), ("Nats-Sequence", b"9"), ("a", b"1"),
        ("b", b"injected"), ("A", b"injected"), ("Nats-Reply-To", b"_INBOX.evil"), ("Status", b"100"), ("Description", b"idle"),
        ("authorization", b"injected"),
    ]  # fmt: skip
    reader = world.channel(1)
    said = opened(reader, data, outer=outer)
    assert said.headers == [
        ("traceparent", b"sealed"), ("a", b"1"), ("tracestate", b"new"), ("Nats-Sequence", b"9"), ("Status", b"100"),
        ("Description", b"idle"),
    ]  # fmt: skip
    assert reader.headers_differ == 3  # both forged traces, and A


def test_a_record_without_sealed_headers_gets_none_that_it_was_not_sent_with() -> None:
    world = World()
    [data] = sealed(world.channel(0), b"x")
    reader = world.channel(1)
    assert opened(reader, data, outer=[("authorization", b"injected")]).headers is None
    assert opened(reader, data, outer=[("Nats-Stream", b"ORDERS")]).headers == [("Nats-Stream", b"ORDERS")]
    [none] = sealed(world.channel(0), b"x", headers=[])
    assert opened(reader, none, outer=[("authorization", b"injected")]).headers == []


def test_a_reply_subject_is_sealed_and_must_be_the_outer_one_on_core_nats() -> None:
    world = World()
    [asked] = world.channel(0).seal([(place(reply="_INBOX.1"), b"x", [("a", b"1")])])
    assert list(asked.headers) == []
    reader = world.channel(1)
    assert opened(reader, asked.data, place(reply="_INBOX.1")).headers == [("a", b"1"), ("Nats-Reply-To", b"_INBOX.1")]
    assert opened(reader, asked.data, place(3)).headers == [("a", b"1"), ("Nats-Reply-To", b"_INBOX.1")]
    before = snapshot(reader)
    assert type(refused(reader, asked.data, place(reply="_INBOX.evil"))) is Relocated
    assert type(refused(reader, asked.data, place(reply=""))) is Relocated
    [told] = sealed(world.channel(0), b"x")
    assert type(refused(reader, told, place(reply="_INBOX.evil"))) is Relocated
    assert snapshot(reader) == before
    assert opened(reader, told, place(reply="")).headers is None
