"""Every mistake in a file is named with its place and the nearest valid name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker_crypto.errors import PolicyError
from tests.support import policies

TOPIC = "topics:\n  - {topic: orders, channel: mls}\n"
BASE = policies.ANCHORS + policies.GROUPS + TOPIC

MODELS: list[tuple[str, int, int, str, str | None]] = [
    ("topic: []", 1, 1, "unknown key `topic`", "topics"),
    ("defaults: {plain_text: refuse}", 1, 12, "unknown key `plain_text` in defaults", "plaintext"),
    ("defaults: {key_retention: 7d}", 1, 12, "it belongs in groups", None),
    ("agent:\n  identiy: agent://a/b", 2, 3, "unknown key `identiy` in agent", "identity"),
    ("topics:\n  - {topic: a, chanel: mls, channel: plain}", 2, 16, "unknown key `chanel` in topics[0]", "channel"),
    ("topics:\n  - {topic: a, channel: msl}", 2, 16, "one of 'mls', 'signal', 'noise', 'plain', 'auto'", "mls"),
    ("topics:\n  - {topic: a}", 2, 5, "`channel` is missing", None),
    ("topics: {a: 1}", 1, 1, "must be a list", None),
    ("topics:\n  - orders", 2, 5, "must be a mapping of names", None),
    ("topics:\n  - {topic: a b, channel: plain}", 2, 6, "a topic name", None),
    ("topics:\n  - {topic: a, channel: plain, subjects: [a..b]}", 2, 43, "a NATS subject", None),
    ("topics:\n  - {topic: a, channel: plain, subjects: [a.>.b]}", 2, 43, "a NATS subject", None),
    ("topics:\n  - {topic: a, channel: mls, plain_fingerprints: [xy]}", 2, 51, "8 bytes in hex", None),
    ("topics:\n  - {topic: a, channel: mls, signature_batch: 65}", 2, 30, "must be less than or equal to 64", None),
    ("topics:\n  - {topic: a, channel: mls, padding: '8'}", 2, 30, "a whole number", None),
    ("trust: {revoked: [abcd]}", 1, 19, "32 bytes in hex", None),
    ("trust: {anchors: [{certificate: x, identities: ['agent://acme']}]}", 1, 49, "ends in `/`", None),
    ("trust: {anchors: [{certificate: x, identities: []}]}", 1, 36, "a list that is not empty", None),
    ("trust: {anchors: [{certificate: '', identities: ['agent://a/']}]}", 1, 20, "text that is not empty", None),
    ("agent: {identity: agent://Acme/x}", 1, 9, "a canonical identity", None),
    ("agent: 1", 1, 1, "a mapping of names", None),
    ("agent:", 1, 1, "a mapping of names", None),
    ("version: 2", 1, 1, "one of 1", None),
    ("version: '1'", 1, 1, "one of 1", None),
    ("groups:\n  orders.g1: {roles: {admin: [agent://a/b]}}", 2, 3, "not ending in `.g` and digits", None),
    ("groups:\n  orders: {}", 2, 3, "`roles` is missing", None),
    ("groups:\n  orders: {roles: {admins: []}}", 2, 20, "unknown key `admins` in groups.orders.roles", "admin"),
    ("groups:\n  orders: {roles: {admin: [agent://*/b]}}", 2, 28, "an identity, with `*`", None),
    ("groups:\n  orders: {roles: {admin: [agent://a/b]}, suite: 4}", 2, 43, "one of 1, 2, 3", None),
    (
        "groups:\n  orders: {roles: {admin: [agent://a/b]}, key_retention: 7 days}",
        2,
        43,
        "a duration such as 7d, or `forever`, or `broker`",
        None,
    ),
    ("groups:\n  orders: {roles: {admin: [agent://a/b]}, max_offline: forever}", 2, 43, "a duration", None),
    ("groups:\n  orders: {roles: {admin: [agent://a/b]}, max_offline: 36501d}", 2, 43, "at most 36500d", None),
    ("defaults: {epoch_wait: 30}", 1, 12, "a duration", None),
    ("observability: {handshake_latency_ms: yes}", 1, 17, "true or false", None),
    ("state_persistence: {path: x, key: {provider: vault}}", 1, 36, "one of 'file'", "vault-kv"),
    ("crypto: {key_lifecycle: {prekey_refresh_threshold: 1}}", 1, 26, "less than 1", None),
    ("crypto: {algorithms: {signing: rsa}}", 1, 23, "one of 'ed25519', 'ecdsa-p256'", None),
    ("brokers: {main: {type: nat, servers: [x]}}", 1, 18, "one of 'nats', 'kafka'", "nats"),
]


@pytest.mark.parametrize(("text", "line", "column", "what", "nearest"), MODELS, ids=[text for text, *_ in MODELS])
def test_a_key_or_value_that_is_wrong_is_named(tmp_path: Path, text: str, line: int, column: int, what: str, nearest: str | None) -> None:
    error = policies.wrong(tmp_path, text)[0]
    assert what in error.what
    assert (error.fields["line"], error.fields["column"]) == (line, column)
    assert error.fields["file"] == str(tmp_path / "policy.yaml")
    if nearest is not None:
        assert error.fields["nearest"] == nearest


def groups(more: str) -> str:
    return f'groups:\n  orders: {{roles: {{admin: ["agent://acme/ops"]}}, {more}}}\n'


TWO = "brokers:\n  main: {type: nats, servers: [x]}\n  other: {type: kafka, bootstrap_servers: [y]}\n"
CONTRADICTIONS: list[tuple[str, str, str]] = [
    ("state_persistence: {path: a}\ncrypto: {state_persistence: {path: b}}", "state_persistence", "said twice"),
    ("defaults: {rotation_interval: 1d}\ncrypto: {key_lifecycle: {rotation_interval: 1d}}", "defaults.rotation_interval", "said twice"),
    ("crypto: {algorithms: {signing: ecdsa-p256}}", "crypto.algorithms.key_agreement", "no cipher suite joins these"),
    ("crypto: {algorithms: {key_agreement: p-256}}", "crypto.algorithms.key_agreement", "no cipher suite joins these"),
    ("crypto: {algorithms: {post_quantum: none}}", "crypto.algorithms.hybrid_mode", "requires a KEM"),
    ("state_persistence: {path: x, ephemeral: true}", "state_persistence.ephemeral", "backend: memory"),
    ("state_persistence: {backend: memory, path: x}", "state_persistence.path", "has no path"),
    ("state_persistence: {}", "state_persistence.path", "is missing"),
    ("crypto: {state_persistence: {backend: vault}}", "crypto.state_persistence.path", "is missing"),
    ("state_persistence: {path: x, key: {provider: file}}", "state_persistence.key", "file takes path; given is nothing"),
    ("state_persistence: {path: x, key: {provider: env, path: y}}", "state_persistence.key", "env takes variable; given is path"),
    ("state_persistence: {path: x, key: {provider: passphrase, path: y, variable: z}}", "state_persistence.key", "passphrase takes"),
    ("state_persistence: {path: x, key: {provider: vault-transit, mount: y}}", "state_persistence.key", "mount, name"),
    ("brokers: {m: {type: nats}}", "brokers.m", "`servers` is missing"),
    ("brokers: {m: {type: nats, bootstrap_servers: [x]}}", "brokers.m.bootstrap_servers", "a nats broker has `servers`"),
    ("brokers: {m: {type: kafka, servers: [x]}}", "brokers.m.servers", "a kafka broker has `bootstrap_servers`"),
    ("brokers: {m: {type: nats, servers: [x], min_insync: 1}}", "brokers.m.min_insync", "Kafka's"),
    ("brokers: {m: {type: kafka, bootstrap_servers: [x], min_insync: 2}}", "brokers.m.min_insync", "more than `replicas`"),
    ("brokers: {m: {type: nats, servers: [x], tls: {certificate: c}}}", "brokers.m.tls", "belong together"),
    ("brokers: {m: {type: nats, servers: [x], credentials: {user: u}}}", "brokers.m.credentials", "a login of nats takes"),
    ("brokers: {m: {type: kafka, bootstrap_servers: [x], credentials: {token: u}}}", "brokers.m.credentials", "a login of kafka takes"),
    ("groups: {orders: {roles: {reader: ['agent://acme/x']}}}", "groups.orders.roles", "at least one admin"),
    ("groups: {orders: {roles: {admin: ['agent://acme/x', 'agent://acme/x']}}}", "groups.orders.roles.admin[1]", "twice"),
    (f"{TWO}{groups('log: mian')}", "groups.orders.log", "no broker `mian`"),
    (f"{TWO}{groups('suite: 1')}", "groups.orders", "`log` is missing"),
    (f"{TWO}{groups('log: main').replace('orders:', 'a..b:')}", "groups.a..b", "are not empty"),
    ("topics:\n  - {topic: a, channel: plain}\n  - {topic: a, channel: plain}", "topics[1].topic", "has a rule already"),
    ("topics:\n  - {topic: a, channel: plain, padding: 0}", "topics[0].padding", "it belongs to mls, signal, noise"),
    ("topics:\n  - {topic: a, channel: plain, group: a}", "topics[0].group", "it belongs to mls"),
    ("topics:\n  - {topic: a, subjects: [a], channel: plain, tombstones: refuse}", "topics[0].tombstones", "Kafka's"),
    ("topics:\n  - {topic: 'a*', subjects: [a], channel: plain}", "topics[0].topic", "`*` belongs into the subjects"),
    ("topics:\n  - {topic: a, subjects: [a], channel: signal}", "topics[0]", "`identity` is missing"),
    (
        "topics:\n  - {topic: a, subjects: ['a.{x}', 'b.{y}'], channel: signal, identity: 'agent://a/{x}'}",
        "topics[0].subjects[1]",
        "`{x}`, which this subject does not capture",
    ),
    ("topics:\n  - {topic: a, channel: mls, headers: {sealed: [Nats-Msg-Id]}}", "topics[0].headers.sealed[0]", "cannot be sealed"),
    (policies.GROUPS + "topics:\n  - {topic: 'a*', channel: mls, group: orders}", "topics[0].group", "a group of its own"),
    (policies.GROUPS + "topics:\n  - {topic: order, channel: mls}", "topics[0].topic", "no entry under `groups` founds the group `order`"),
    (policies.GROUPS + "topics:\n  - {topic: a, channel: mls, group: ordres}", "topics[0].group", "no entry under `groups`"),
    (policies.GROUPS + "topics:\n  - {topic: a.g1, channel: mls}", "topics[0]", "cannot name a group"),
    (policies.GROUPS + f"topics:\n  - {{topic: {'x' * 201}, channel: mls}}", "topics[0]", "cannot name a group"),
    (policies.GROUPS + TOPIC, "topics[0]", "`trust.anchors` is empty"),
    (
        policies.GROUPS.replace("orders:", "shop-1*:") + "topics:\n  - {topic: 'shop-*', channel: mls}",
        "topics[0].topic",
        "no entry under `groups`",
    ),
]


@pytest.mark.parametrize(("text", "name", "what"), CONTRADICTIONS, ids=[text[-70:] for text, *_ in CONTRADICTIONS])
def test_keys_that_contradict_each_other_are_named(tmp_path: Path, text: str, name: str, what: str) -> None:
    found = {error.fields["name"]: error for error in policies.wrong(tmp_path, text)}
    assert name in found
    assert what in found[name].what
    assert found[name].fields["line"] is not None


def test_the_base_of_these_is_right(tmp_path: Path) -> None:
    assert policies.wrong(tmp_path, BASE) == []


def test_the_nearest_group_and_broker_are_told(tmp_path: Path) -> None:
    (error,) = policies.wrong(tmp_path, BASE.replace("channel: mls", "channel: mls, group: ordres"))
    assert error.fields["nearest"] == "orders"
    found = policies.wrong(tmp_path, f"{TWO}{groups('log: mian')}")
    assert found[0].fields["nearest"] == "main"


def test_all_problems_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "topics:\n  - {topic: a, chanel: mls}\n  - {topic: b, channel: x}\ndefaults: {plaintext: no}\nagent: {key: x}\n"
    found = policies.wrong(tmp_path, text)
    assert [error.fields["line"] for error in found] == [2, 2, 3, 4, 5]


@pytest.mark.parametrize("value", [[], "text", None, 1])
def test_a_policy_is_a_mapping(tmp_path: Path, value: Any) -> None:
    (error,) = policies.wrong(tmp_path, repr(value) if value is not None else "~")
    assert "a mapping of sections" in error.what


def test_a_file_that_is_not_there_is_a_policy_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="No such file"):
        policies.policy.load(tmp_path / "none.yaml")
    assert len(policies.policy.problems(tmp_path / "none.yaml")) == 1


@pytest.mark.parametrize(
    ("content", "what"),
    [(None, "No such file"), (b"", "no certificate"), (b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", "base64")],
)
def test_an_anchor_that_cannot_be_read_is_named_where_it_stands(tmp_path: Path, content: bytes | None, what: str) -> None:
    path = policies.write(tmp_path, BASE)
    (tmp_path / "ca.pem").unlink()
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    (error,) = policies.policy.problems(path, {})
    assert what in error.what
    assert (error.fields["line"], error.fields["path"]) == (4, "ca.pem")


def test_an_anchor_file_holds_one_certificate(tmp_path: Path) -> None:
    path = policies.write(tmp_path, BASE)
    (tmp_path / "ca.pem").write_bytes((tmp_path / "ca.pem").read_bytes() * 2)
    assert "one certificate" in policies.policy.problems(path, {})[0].what
