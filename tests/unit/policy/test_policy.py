"""What agents ask of a policy: rules, groups, the store, brokers; what is not built is refused where it would be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker_crypto import policy
from broker_crypto.errors import NoPolicy, NotBuilt, PolicyError
from broker_crypto.policy import GroupSection, Policy
from broker_crypto.policy.document import read
from broker_crypto.policy.rules import strongest
from broker_crypto.policy.schema import schema
from broker_crypto.policy.sections import File
from tests.support import policies, policy_page

ROOT = policy_page.PAGE.parents[1]
TEMPLATE = Path(__file__).parent / "data" / "agent-crypto-config.yaml"
AGENT = """
agent: {identity: "agent://acme/billing", certificate: x.pem, private_key: x.key}
state_persistence: {path: state.db, key: {provider: file, path: store.key}}
"""
FULL = """
version: 1
agent:
  identity: agent://acme/billing
  certificate: keys/billing.pem
  private_key: keys/billing.key
trust:
  anchors:
    - {certificate: ca.pem, identities: ["agent://acme/"]}
  revoked: ["00112233 44556677 8899AABB ccddeeff 00:11:22:33:44:55:66:77 8899aabbccddeeff"]
state_persistence:
  backend: sqlite
  path: state/billing.db
  key: {provider: file, path: keys/store.key}
defaults:
  plaintext: refuse
  on_failure: raise
brokers:
  main: {type: nats, servers: ["nats://127.0.0.1:4222"], replicas: 1}
groups:
  orders:
    log: main
    generation: 0
    roles:
      admin:  ["agent://acme/ops"]
      writer: ["agent://acme/checkout-*"]
      reader: ["agent://acme/billing", "agent://acme/audit"]
    suite: 1
    key_retention: 7d
    max_offline: 90d
topics:
  - topic: orders
    subjects: ["orders.>"]
    channel: mls
    group: orders
    padding: 0
    compress: none
    headers: {plain: [x-tenant]}
  - topic: inboxes
    subjects: ["agents.{agent}.inbox"]
    identity: "agent://acme/{agent}"
    channel: signal
  - topic: metrics
    subjects: ["metrics.>"]
    channel: plain
"""


@pytest.fixture
def full(tmp_path: Path) -> Policy:
    return policies.load(tmp_path, FULL)


def make(text: str, folder: Path) -> Policy:
    return policies.load(folder, text)


def not_built(work: Callable[[], object]) -> str:
    with pytest.raises(NotBuilt) as caught:
        work()
    assert caught.value.fields["line"] is not None
    return caught.value.what


def test_a_whole_file_is_read_with_every_default_filled_in(full: Policy, tmp_path: Path) -> None:
    assert full.agent == policy.AgentSettings("agent://acme/billing", tmp_path / "keys/billing.pem", tmp_path / "keys/billing.key")
    assert full.revoked == {bytes.fromhex("00112233445566778899aabbccddeeff" * 2)}
    assert [(anchor.certificate[:1], anchor.identities) for anchor in full.anchors] == [(b"\x30", ("agent://acme/",))]
    assert full.store == policy.StoreSettings(
        "sqlite", str(tmp_path / "state/billing.db"), policy.StoreKey("file", tmp_path / "keys/store.key"), 30, False
    )
    assert full.timing == policy.Timing(30, None, None, 720 * 3600, "accept_if_issued")
    assert dict(full.brokers) == {"main": policy.BrokerSettings("main", "nats", ("nats://127.0.0.1:4222",))}
    orders = full.rules[0]
    assert orders == policy.Rule("orders", "orders", "mls", ("orders.>",), group="orders", headers_plain=("x-tenant",))
    assert (orders.plaintext, orders.on_failure, orders.signature_batch) == ("refuse", "raise", 64)
    assert full.group("orders") == GroupSection(
        name="orders",
        log="main",
        generation=0,
        topics=("orders",),
        anchors=full.anchors,
        roles=(
            ("agent://acme/ops", "admin"),
            ("agent://acme/checkout-*", "writer"),
            ("agent://acme/billing", "reader"),
            ("agent://acme/audit", "reader"),
        ),
        suite=1,
        key_retention=7 * 86400,
        max_offline=90 * 86400,
    )


def test_the_template_loads_unchanged_and_is_refused_by_name_where_it_is_not_built() -> None:
    template = policy.load(TEMPLATE, {})
    assert template.store is not None
    assert (template.store.backend, template.store.path) == ("vault", "secret/agents/{agent_id}/crypto")
    assert template.timing.rotation_interval == 720 * 3600
    assert template.settings.crypto.key_lifecycle.prekey_pool_size == 200
    assert not_built(template.require_agent).endswith("`backend: vault`")
    filled = policy.load(TEMPLATE, {}, identity="agent://acme/billing").store
    assert filled is not None
    assert filled.path == "secret/agents/acme/billing/crypto"


def test_every_key_of_the_template_is_told_on_the_policy_page_with_its_value() -> None:
    page = policy_page.PAGE.read_text(encoding="utf-8")

    def keys(tree: dict[str, Any]) -> set[str]:
        return {name for key, value in tree.items() for name in ({key} | (keys(value) if isinstance(value, dict) else set()))}

    tree = read(TEMPLATE.read_bytes(), "t").plain()
    assert isinstance(tree, dict)
    assert {name for name in keys(tree) if f"| `{name}` |" not in page} == set()


def test_a_policy_is_frozen(full: Policy) -> None:
    for work in (
        lambda: setattr(full, "rules", ()),
        lambda: setattr(full.rules[0], "channel", "plain"),
        lambda: setattr(full.settings.defaults, "plaintext", "accept"),
        lambda: full.brokers.update({}),  # type: ignore[attr-defined]
    ):
        with pytest.raises(Exception, match="frozen|cannot assign|no attribute"):
            work()


def test_the_first_rule_that_matches_counts(tmp_path: Path) -> None:
    found = make(
        policies.ANCHORS
        + policies.GROUPS
        + """
topics:
  - {topic: orders, subjects: ["orders.eu.>", "orders.*"], channel: mls}
  - {topic: rest, subjects: ["orders.>"], channel: plain}
""",
        tmp_path,
    )
    assert [found.route(subject).name for subject in ("orders.eu.x.y", "orders.a", "orders.us.x", "rest")] == [
        "orders",
        "orders",
        "rest",
        "rest",
    ]


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("a.b", ["a.b"], ["a", "a.b.c", "a.c", "A.b", "a..b", "a.b.", ""]),
        ("a.*", ["a.b", "a.*"], ["a", "a.b.c", "a."]),
        ("*.b", ["a.b"], ["b", "a.a.b"]),
        ("a.>", ["a.b", "a.b.c"], ["a", "b.a", "a."]),
        (">", ["a", "a.b.c"], ["", "."]),
        ("a.{x}.*.>", ["a.b.c.d", "a.b.c.d.e"], ["a.b.c"]),
    ],
)
def test_subjects_match_by_whole_tokens(tmp_path: Path, pattern: str, matching: list[str], others: list[str]) -> None:
    found = make(f"topics:\n  - {{topic: t, subjects: ['{pattern}'], channel: plain}}", tmp_path)
    for subject in matching:
        assert found.route(subject, type="nats").topic == "t"
    for subject in others:
        with pytest.raises(NoPolicy):
            found.route(subject, type="nats")


def test_what_no_rule_matches_is_refused(full: Policy) -> None:
    with pytest.raises(NoPolicy) as caught:
        full.route("payments.created")
    assert caught.value.fields["topic"] == "payments.created"


def test_a_rule_with_subjects_is_for_nats_and_one_without_for_kafka(tmp_path: Path) -> None:
    found = make(
        policies.ANCHORS + policies.GROUPS + "topics:\n  - {topic: orders, channel: mls}\n  - {topic: m, subjects: [m.x], channel: plain}",
        tmp_path,
    )
    assert found.route("orders", type="kafka").group == "orders"
    assert found.route("m.x", type="nats").channel == "plain"
    for name, kind in (("orders", "nats"), ("m", "kafka"), ("m.x", "kafka"), ("m", "nats")):
        with pytest.raises(NoPolicy):
            found.route(name, type=kind)
    assert found.route("m").topic == "m"


def test_each_topic_that_a_star_matches_is_a_group_of_its_own(tmp_path: Path) -> None:
    found = make(
        policies.ANCHORS
        + """
groups:
  shop-1: {roles: {admin: ["agent://acme/one"]}}
  shop-*: {roles: {admin: ["agent://acme/ops"]}}
topics:
  - {topic: shop-*, channel: mls}
""",
        tmp_path,
    )
    rule = found.route("shop-7", type="kafka")
    assert (rule.name, rule.topic, rule.group) == ("shop-*", "shop-7", "shop-7")
    group = found.group("shop-7")
    assert (group.name, group.topics, group.roles) == ("shop-7", ("shop-7",), (("agent://acme/ops", "admin"),))
    assert found.group("shop-1").roles == (("agent://acme/one", "admin"),)
    assert found.group("shop-1").topics == ("shop-1",)
    assert [group.name for group in found.groups()] == ["shop-1"]
    with pytest.raises(PolicyError, match="cannot name a group"):
        found.route("shop-x.g3")


def test_a_group_lists_all_topics_that_are_its(tmp_path: Path) -> None:
    text = """
topics:
  - {topic: orders, channel: mls}
  - {topic: refunds, subjects: [r.>], channel: mls, group: orders}
  - {topic: m, channel: plain}
"""
    assert make(policies.ANCHORS + policies.GROUPS + text, tmp_path).group("orders").topics == ("orders", "refunds")


def test_an_agent_follows_the_groups_in_which_it_has_a_role(full: Policy) -> None:
    assert [group.name for group in full.groups()] == ["orders"]
    assert [group.name for group in full.groups("agent://acme/checkout-3")] == ["orders"]
    assert full.groups("agent://acme/stranger") == ()


def test_a_group_without_an_entry_is_named(full: Policy) -> None:
    with pytest.raises(PolicyError) as caught:
        full.group("order")
    assert caught.value.fields["nearest"] == "orders"


def test_the_strongest_role_that_fits_counts() -> None:
    roles = (("agent://a/*", "reader"), ("agent://a/x*", "writer"), ("agent://a/xy", "admin"))
    held = [strongest(roles, f"agent://a/{name}") for name in ("z", "x", "xy", "z/z")]
    assert held == ["reader", "writer", "admin", None]
    assert strongest(tuple(reversed(roles)), "agent://a/xy") == "admin"


def test_a_capture_names_whom_the_subject_reaches(full: Policy) -> None:
    assert full.route("agents.bob.inbox").identity == "agent://acme/bob"
    assert full.route("agents.b:c.inbox").identity == "agent://acme/b:c"
    for token in ("b*b", "b%62", "b/c", "/", "b b"):
        with pytest.raises(PolicyError, match="canonical"):
            full.route(f"agents.{token}.inbox")


def test_defaults_hold_where_a_topic_says_nothing(tmp_path: Path) -> None:
    text = """
defaults: {plaintext: accept, on_failure: skip}
topics:
  - {topic: orders, channel: mls}
  - {topic: o2, channel: mls, group: orders, plaintext: refuse, on_failure: raise}
"""
    first, second = make(policies.ANCHORS + policies.GROUPS + text, tmp_path).rules
    assert (first.plaintext, first.on_failure) == ("accept", "skip")
    assert (second.plaintext, second.on_failure) == ("refuse", "raise")


def test_the_suite_follows_the_kind_of_keys_unless_said(tmp_path: Path) -> None:
    p256 = "crypto: {algorithms: {signing: ecdsa-p256, key_agreement: p-256}}\n"
    topic = "topics:\n  - {topic: orders, channel: mls}"
    assert make(policies.ANCHORS + policies.GROUPS + topic, tmp_path).group("orders").suite == 1
    assert make(p256 + policies.ANCHORS + policies.GROUPS + topic, tmp_path).group("orders").suite == 2
    said = policies.GROUPS.replace("roles:", "suite: 3, roles:")
    assert make(p256 + policies.ANCHORS + said + topic, tmp_path).group("orders").suite == 3


@pytest.mark.parametrize(("text", "seconds"), [("7d", 604800), ("90m", 5400), ("0s", 0), ("forever", -1), ("broker", -2)])
def test_key_retention_is_seconds_forever_or_the_brokers(tmp_path: Path, text: str, seconds: int) -> None:
    groups = policies.GROUPS.replace("roles:", f"key_retention: {text}, roles:")
    assert make(policies.ANCHORS + groups, tmp_path).group("orders").key_retention == seconds


def test_a_generation_names_another_log(tmp_path: Path) -> None:
    groups = policies.GROUPS.replace("roles:", "generation: 2, roles:")
    assert make(policies.ANCHORS + groups, tmp_path).group("orders").log_name == "orders.g2"
    assert make(policies.ANCHORS + policies.GROUPS, tmp_path).group("orders").log_name == "orders"


def test_the_log_is_on_the_only_broker_unless_said(full: Policy, tmp_path: Path) -> None:
    assert make(policies.ANCHORS + policies.GROUPS, tmp_path).group("orders").log is None
    assert make(policies.ANCHORS + policies.GROUPS + "brokers: {b: {type: nats, servers: [x]}}", tmp_path).group("orders").log == "b"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (AGENT.replace('identity: "agent://acme/billing", ', ""), "agent.identity"),
        (AGENT.replace("certificate: x.pem, ", ""), "agent.certificate"),
        (AGENT.replace(", private_key: x.key", ""), "agent.private_key"),
        (AGENT.partition("state_persistence")[0], "state_persistence"),
        (AGENT.replace(", key: {provider: file, path: store.key}", ""), "state_persistence.key"),
        (AGENT.partition("state_persistence")[0] + "state_persistence: {backend: memory}", "state_persistence.ephemeral"),
    ],
)
def test_what_an_agent_needs_and_the_file_lacks_is_named(tmp_path: Path, text: str, name: str) -> None:
    with pytest.raises(PolicyError) as caught:
        make(text, tmp_path).require_agent()
    assert caught.value.fields["name"] == name


def test_memory_is_a_store_only_where_the_file_says_that_it_is_lost(tmp_path: Path) -> None:
    text = AGENT.partition("state_persistence")[0] + "state_persistence: {backend: memory, ephemeral: true}"
    _, store = make(text, tmp_path).require_agent()
    assert store.backend == "memory"


UNBUILT = """
state_persistence: {backend: vault, path: x, key: {provider: vault-kv, path: y}}
defaults: {on_failure: pause, max_lag: 30s}
brokers: {k: {type: kafka, bootstrap_servers: [x]}}
groups:
  orders: {generation: 1, key_retention: broker, on_locked_out: remove, roles: {admin: ["agent://acme/ops"]}}
topics:
  - {topic: orders, channel: mls, compress: zstd, aliases: [old], on_failure: dead-letter}
  - {topic: s, subjects: [s], channel: signal, identity: "agent://acme/x", on_failure: raise}
  - {topic: n, channel: noise, on_failure: raise}
  - {topic: a, channel: auto}
"""
SETTINGS = {
    "backend: vault",
    "provider: vault-kv",
    "max_lag",
    "type: kafka",
    "key_retention: broker",
    "compress: zstd",
    "aliases",
    "on_failure: dead-letter",
    "on_failure: pause",
    "channel: signal",
    "channel: noise",
    "channel: auto",
}


def test_what_is_not_built_parses_is_listed_and_is_told_on_the_policy_page(tmp_path: Path) -> None:
    found = make(policies.ANCHORS + UNBUILT, tmp_path)
    assert {mark.setting for mark in found.unbuilt()} == SETTINGS
    assert all(mark.place.line for mark in found.unbuilt())
    told = policy_page.PAGE.read_text(encoding="utf-8").partition("## What this version does not have")[2]
    for setting in SETTINGS | {"provider: passphrase", "provider: vault-transit"}:
        assert f"`{setting}`" in told


def test_what_is_not_built_is_refused_where_it_would_be_used(tmp_path: Path) -> None:
    found = make(policies.ANCHORS + UNBUILT, tmp_path)
    assert "backend: vault" in not_built(found.require_agent)
    assert "type: kafka" in not_built(lambda: found.require_broker("k"))
    assert "key_retention: broker" in not_built(found.group("orders").require_built)
    for name, setting in (("orders", "compress: zstd"), ("s", "channel: signal"), ("n", "channel: noise"), ("a", "channel: auto")):
        assert setting in not_built(found.route(name).require_built)


@pytest.mark.parametrize("provider", ["passphrase", "vault-transit", "vault-kv"])
def test_a_key_provider_that_is_not_built_is_refused_when_the_agent_opens(tmp_path: Path, provider: str) -> None:
    more = {"passphrase": "", "vault-transit": ", mount: m, name: n", "vault-kv": ", path: p"}[provider]
    text = AGENT.replace("provider: file, path: store.key", f"provider: {provider}{more}")
    assert provider in not_built(make(text, tmp_path).require_agent)


def test_a_file_with_a_rule_that_is_not_built_serves_the_others(full: Policy) -> None:
    full.require_agent()
    full.route("orders.x").require_built()
    full.group("orders").require_built()
    assert full.require_broker("main").servers == ("nats://127.0.0.1:4222",)
    assert "channel: signal" in not_built(full.route("agents.bob.inbox").require_built)


def test_a_broker_that_the_file_does_not_name_is_a_policy_error(full: Policy) -> None:
    with pytest.raises(PolicyError) as caught:
        full.require_broker("mian")
    assert caught.value.fields["nearest"] == "main"


def test_a_mapping_is_a_policy_without_places(tmp_path: Path) -> None:
    text = policies.write(tmp_path, FULL).read_bytes()
    mapping = read(text, "x").plain()
    assert isinstance(mapping, dict)
    made, loaded = Policy.from_mapping(mapping, folder=tmp_path, environ={}), policies.load(tmp_path, FULL)
    assert (made.rules, made.groups(), made.store, made.agent, made.anchors) == (
        loaded.rules,
        loaded.groups(),
        loaded.store,
        loaded.agent,
        loaded.anchors,
    )
    for bad in ({"topics": {}}, {"a": float("nan")}, {"defaults": {"plaintext": object()}}):
        with pytest.raises(PolicyError):
            Policy.from_mapping(bad, environ={})


def test_the_example_file_is_one_that_an_agent_opens(tmp_path: Path) -> None:
    text = (ROOT / "examples/policy.yaml").read_text(encoding="utf-8").replace("trust/acme-ca.pem", "ca.pem")
    found = policies.load(tmp_path, text)
    found.require_agent()
    assert found.unbuilt() == ()


def test_the_schema_knows_every_key_and_no_other() -> None:
    made = schema()
    assert json.loads(json.dumps(made)) == made
    assert made["$schema"].startswith("https://json-schema.org/")
    definitions = {"File": made, **made["$defs"]}
    for model in (File, *policy_page.sections.Section.__subclasses__()):
        definition = definitions[model.__name__]
        assert set(definition["properties"]) == set(model.model_fields)
        assert definition["additionalProperties"] is False
        assert set(definition.get("required", ())) == {name for name, field in model.model_fields.items() if field.is_required()}
