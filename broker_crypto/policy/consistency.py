"""What the keys of a policy say together: contradictions, names that lead nowhere, keys of another channel. Each is a PolicyError."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from broker_crypto.errors import PolicyError
from broker_crypto.policy.complaints import dotted, nearest
from broker_crypto.policy.document import Node
from broker_crypto.policy.patterns import captures, topic_covers
from broker_crypto.policy.rules import ROLES
from broker_crypto.policy.sections import Broker, Credentials, File, Group, Store, Topic
from broker_crypto.wire.names import glob, is_group_name

Path: TypeAlias = tuple[str | int, ...]
Complaint: TypeAlias = tuple[Path, str, str | None]  # where, what is wrong, nearest valid name

_KEY_FIELDS: Final[dict[str, tuple[frozenset[str], ...]]] = {  # what each provider takes: one of these sets
    "file": (frozenset({"path"}),),
    "env": (frozenset({"variable"}),),
    "passphrase": (frozenset(), frozenset({"path"}), frozenset({"variable"})),
    "vault-transit": (frozenset({"mount", "name"}),),
    "vault-kv": (frozenset({"path"}),),
}
_LOGINS: Final[dict[str, tuple[frozenset[str], ...]]] = {
    "nats": (frozenset({"user", "password"}), frozenset({"token"}), frozenset({"file"})),
    "kafka": (frozenset({"mechanism", "user", "password"}),),
}
_KEPT_HEADERS: Final = ("Nats-*", "Status", "Description")  # brokers read or write them; `headers.sealed` cannot take them in
_SEALED: Final = frozenset(("padding", "compress", "headers"))
_CHANNEL_KEYS: Final[dict[str, frozenset[str]]] = {  # keys of a topic that only some channels have
    "mls": _SEALED | {"group", "aliases", "plain_fingerprints", "plaintext", "on_failure", "duplicates", "signature_batch", "tombstones"},
    "signal": _SEALED | {"identity", "plaintext", "on_failure", "heartbeat", "renew_after", "unanswered_keep", "resend"},
    "noise": _SEALED | {"identity", "on_failure"},
    "plain": frozenset({"tombstones"}),
}
_ALWAYS: Final = frozenset(("topic", "subjects", "channel"))


def check(file: File, raw: Node) -> list[PolicyError]:
    """Everything that contradicts itself, in the order of the checks. `raw` gives the places."""
    parts: tuple[Callable[[File], Iterator[Complaint]], ...] = (_crypto, _stores, _brokers, _groups, _topics)
    return [
        raw.find(path).error(f"{dotted(path)}: {what}", name=dotted(path), nearest=near)
        for part in parts
        for path, what, near in part(file)
    ]


def _crypto(file: File) -> Iterator[Complaint]:
    algorithms = file.crypto.algorithms
    here: Path = ("crypto", "algorithms")
    if (algorithms.signing == "ed25519") != (algorithms.key_agreement == "x25519"):
        yield (*here, "key_agreement"), "no cipher suite joins these: x25519 goes with ed25519, p-256 with ecdsa-p256", None
    if algorithms.hybrid_mode and algorithms.post_quantum == "none":
        yield (*here, "hybrid_mode"), "`hybrid_mode: true` requires a KEM, `post_quantum: none` has none", None
    if file.crypto.key_lifecycle.rotation_interval is not None and file.defaults.rotation_interval is not None:
        yield ("defaults", "rotation_interval"), "said twice: also in crypto.key_lifecycle", None


def _stores(file: File) -> Iterator[Complaint]:
    if file.state_persistence is not None and file.crypto.state_persistence is not None:
        yield ("state_persistence",), "said twice: also in crypto", None
    for path, store in ((("state_persistence",), file.state_persistence), (("crypto", "state_persistence"), file.crypto.state_persistence)):
        if store is not None:
            yield from _store(path, store)


def _store(path: Path, store: Store) -> Iterator[Complaint]:
    if store.ephemeral and store.backend != "memory":
        yield (*path, "ephemeral"), f"a store that is lost is `backend: memory`, not {store.backend}", None
    if store.backend == "memory" and store.path is not None:
        yield (*path, "path"), "`backend: memory` has no path", None
    if store.backend != "memory" and store.path is None:
        yield (*path, "path"), f"`path` is missing: where `backend: {store.backend}` keeps the state", None
    if store.key is not None:
        yield from _one_of((*path, "key"), store.key.provider, store.key.model_fields_set - {"provider"}, _KEY_FIELDS[store.key.provider])


def _one_of(path: Path, what: str, given: set[str], allowed: tuple[frozenset[str], ...]) -> Iterator[Complaint]:
    if given not in allowed:
        sets = " or ".join(", ".join(sorted(names)) or "nothing more" for names in allowed)
        yield path, f"{what} takes {sets}; given is {', '.join(sorted(given)) or 'nothing'}", None


def _brokers(file: File) -> Iterator[Complaint]:
    for name, broker in file.brokers.items():
        path: Path = ("brokers", name)
        own, other = ("servers", "bootstrap_servers") if broker.type == "nats" else ("bootstrap_servers", "servers")
        if not getattr(broker, own):
            yield path, f"`{own}` is missing", None
        if other in broker.model_fields_set:
            yield (*path, other), f"a {broker.type} broker has `{own}`", own
        yield from _broker(path, broker)


def _broker(path: Path, broker: Broker) -> Iterator[Complaint]:
    if broker.type == "nats" and "min_insync" in broker.model_fields_set:
        yield (*path, "min_insync"), "`min_insync` is Kafka's", None
    if broker.min_insync > broker.replicas:
        yield (*path, "min_insync"), "`min_insync` is more than `replicas`", None
    if broker.tls is not None and (broker.tls.certificate is None) != (broker.tls.private_key is None):
        yield (*path, "tls"), "`certificate` and `private_key` belong together", None
    if broker.credentials is not None:
        given = broker.credentials.model_fields_set & set(Credentials.model_fields)
        yield from _one_of((*path, "credentials"), f"a login of {broker.type}", given, _LOGINS[broker.type])


def _groups(file: File) -> Iterator[Complaint]:
    for name, group in file.groups.items():
        path: Path = ("groups", name)
        yield from _roles(path, group)
        if not group.roles.admin:
            yield (*path, "roles"), "a group has at least one admin", None
        if group.log is not None and file.brokers and group.log not in file.brokers:
            yield (*path, "log"), f"no broker `{group.log}` under `brokers`", nearest(group.log, file.brokers)
        if group.log is None and len(file.brokers) > 1:
            yield path, "`log` is missing: with several brokers a group names the one that holds its log", None
        if _on_nats(file, group) and not all(name.split(".")):
            yield path, "on NATS the parts of a group's name between dots are not empty", None


def _roles(path: Path, group: Group) -> Iterator[Complaint]:
    for role in ROLES:
        patterns: tuple[str, ...] = getattr(group.roles, role)
        for at, pattern in enumerate(patterns):
            if pattern in patterns[:at]:
                yield (*path, "roles", role, at), f"`{pattern}` twice", None


def _on_nats(file: File, group: Group) -> bool:
    brokers = file.brokers
    log = brokers.get(group.log) if group.log is not None else next(iter(brokers.values()), None)
    return log is not None and log.type == "nats"


def _topics(file: File) -> Iterator[Complaint]:
    seen: dict[str, int] = {}
    for index, topic in enumerate(file.topics):
        path: Path = ("topics", index)
        if topic.topic in seen:
            yield (*path, "topic"), f"the topic has a rule already (topics[{seen[topic.topic]}]); put its subjects together", None
        seen.setdefault(topic.topic, index)
        yield from _keys(path, topic)
        yield from _names(path, topic)
        if topic.channel == "mls":
            yield from _group_of(path, topic, file)


def _keys(path: Path, topic: Topic) -> Iterator[Complaint]:
    """Keys that the channel does not have. `auto` may become any channel and has them all."""
    if topic.channel == "auto":
        return
    for name in sorted(topic.model_fields_set - _ALWAYS - _CHANNEL_KEYS[topic.channel]):
        owners = ", ".join(channel for channel, keys in _CHANNEL_KEYS.items() if name in keys)
        yield (*path, name), f"`channel: {topic.channel}` has no `{name}`; it belongs to {owners}", None
    if topic.subjects and "tombstones" in topic.model_fields_set:
        yield (*path, "tombstones"), "`tombstones` is Kafka's; this rule has `subjects`", None


def _names(path: Path, topic: Topic) -> Iterator[Complaint]:
    if topic.subjects and "*" in topic.topic:
        yield (*path, "topic"), "with `subjects` the topic is a name; `*` belongs into the subjects", None
    if topic.channel == "signal" and topic.identity is None:
        yield path, "`identity` is missing: whom the subject reaches", None
    wanted = captures_of(topic.identity)
    for at, subject in enumerate(topic.subjects):
        for name in sorted(wanted - captures(subject)):
            yield (*path, "subjects", at), f"`identity` needs `{{{name}}}`, which this subject does not capture", None
    for at, header in enumerate(topic.headers.sealed):
        if any(glob(kept, header) for kept in _KEPT_HEADERS):
            yield (*path, "headers", "sealed", at), f"brokers add `{header}`; it cannot be sealed", None


def captures_of(identity: str | None) -> frozenset[str]:
    """Names in braces in an identity of a rule."""
    return frozenset(part.partition("}")[0] for part in (identity or "").split("{")[1:])


def _group_of(path: Path, topic: Topic, file: File) -> Iterator[Complaint]:
    if topic.group is not None and "*" in topic.topic:
        yield (*path, "group"), "each topic that `*` matches is a group of its own", None
        return
    name = topic.group or topic.topic
    if topic.group is None and not is_group_name(name.replace("*", "x")):
        yield path, "the topic's name cannot name a group; give `group`", None
    elif not any(topic_covers(pattern, name) for pattern in file.groups):
        where: Path = (*path, "group") if topic.group is not None else (*path, "topic")
        yield where, f"no entry under `groups` founds the group `{name}`", nearest(name, file.groups)
    elif not file.trust.anchors:
        yield path, "`trust.anchors` is empty: nobody could be a member", None
