"""The policy of an agent: read from a file once, frozen, asked for every topic.

Read: bytes -> tree with places (document) -> values replaced (substitute) -> models (sections) -> what keys say together
(consistency) -> rules with all defaults (resolve). A file is read as a whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from broker_crypto.errors import NoPolicy, PolicyError
from broker_crypto.policy import consistency, document, patterns
from broker_crypto.policy.complaints import complaints, nearest
from broker_crypto.policy.document import Node, Place
from broker_crypto.policy.resolve import Resolver
from broker_crypto.policy.rules import (
    AgentSettings,
    BrokerSettings,
    GroupSection,
    Rule,
    StoreSettings,
    Timing,
    Unbuilt,
    require_built,
)
from broker_crypto.policy.sections import File
from broker_crypto.policy.substitute import Source, agent_id
from broker_crypto.records import Anchor
from broker_crypto.wire import names


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as an agent reads it. `settings` is the file itself as models, for the sections that have no part here."""

    file: str
    agent: AgentSettings
    anchors: tuple[Anchor, ...] = field(repr=False)
    revoked: frozenset[bytes] = field(repr=False)
    store: StoreSettings | None
    timing: Timing
    brokers: Mapping[str, BrokerSettings]
    rules: tuple[Rule, ...]
    settings: File = field(repr=False)
    _resolver: Resolver = field(repr=False)

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[str, Any],
        *,
        folder: str | Path = ".",
        environ: Mapping[str, str] | None = None,
        identity: str | None = None,
    ) -> Policy:
        """The policy of a Python mapping; `folder` is where its relative paths begin. Raises PolicyError."""
        source = Source(os.environ if environ is None else environ, Path(folder).absolute())
        return _only(*_read(document.of(mapping, "<mapping>"), source, identity))

    def route(self, name: str, *, type: str | None = None) -> Rule:
        """The rule for a Kafka topic (`type` "kafka") or a NATS subject ("nats"); None takes either, and the names of topics.

        Its topic, group and identity are those of `name`. Raises NoPolicy where no rule matches.
        """
        for rule in self.rules:
            routed = _matched(rule, name, type)
            if routed is not None:
                return routed
        raise NoPolicy("no rule of the policy covers this", topic=name, file=self.file)

    def group(self, name: str) -> GroupSection:
        """What the file says of a group. Raises PolicyError where it has no entry for it."""
        for key in self.settings.groups:
            if names.glob(key, name):
                return self._resolver.group(key, name, self._topics_of(name), self.anchors)
        known = nearest(name, self.settings.groups)
        raise PolicyError("no entry under `groups` founds this group", group=name, nearest=known, file=self.file)

    def groups(self, identity: str | None = None) -> tuple[GroupSection, ...]:
        """The groups that the file names without `*`; with `identity` those in which it has a role."""
        named = [rule.group for rule in self.rules if rule.group and "*" not in rule.group]
        found = (self.group(name) for name in dict.fromkeys([*named, *(key for key in self.settings.groups if "*" not in key)]))
        return tuple(group for group in found if identity is None or group.role(identity) is not None)

    def _topics_of(self, group: str) -> tuple[str, ...]:
        return tuple(
            group if "*" in rule.topic else rule.topic
            for rule in self.rules
            if rule.group == group or (rule.group and "*" in rule.group and names.glob(rule.group, group))
        )

    def place(self, *path: str | int) -> Place:
        """Where something stands in the file: `place("trust", "anchors", 0)`."""
        return self._resolver.raw.find(path)

    def unbuilt(self) -> tuple[Unbuilt, ...]:
        """Everything in the file that this version does not have."""
        return tuple(self._unbuilt())

    def _unbuilt(self) -> Iterator[Unbuilt]:
        yield from self._resolver.unbuilt_of_agent()
        yield from (mark for _, mark in self._resolver.unbuilt_of_brokers())
        for key in self.settings.groups:
            yield from self._resolver.group(key, key, (), ()).unbuilt
        for rule in self.rules:
            yield from rule.unbuilt

    def require_agent(self) -> tuple[AgentSettings, StoreSettings]:
        """What an agent needs to be opened. Raises PolicyError for what is missing, NotBuilt for what this version does not have."""
        require_built(self._resolver.unbuilt_of_agent())
        for name in ("identity", "certificate", "private_key"):
            if getattr(self.agent, name) is None:
                raise self._missing("agent", name)
        store = self.store
        if store is None:
            raise self._missing("state_persistence")
        if store.backend == "memory" and not store.ephemeral:
            raise self._missing("state_persistence", "ephemeral", why="`backend: memory` forgets everything; `ephemeral: true` says so")
        if store.backend != "memory" and store.key is None:
            raise self._missing("state_persistence", "key")
        return self.agent, store

    def _missing(self, *path: str, why: str | None = None) -> PolicyError:
        name = ".".join(path)
        return self._resolver.raw.find(path).error(why or f"`{name}` is missing; an agent needs it", name=name)

    def require_broker(self, name: str) -> BrokerSettings:
        """How to reach a broker. Raises PolicyError where the file does not name it, NotBuilt where this version cannot."""
        if name not in self.brokers:
            raise PolicyError("no such broker under `brokers`", broker=name, nearest=nearest(name, self.brokers), file=self.file)
        require_built(mark for broker, mark in self._resolver.unbuilt_of_brokers() if broker == name)
        return self.brokers[name]


def load(path: str | Path, environ: Mapping[str, str] | None = None, *, identity: str | None = None) -> Policy:
    """Read a policy file. `environ` (default os.environ) gives `${NAME}`; `identity` goes before `agent.identity`.

    Raises PolicyError (file, line, column, name, nearest) for the first thing that is wrong; `problems` has all of them.
    """
    return _only(*_load(Path(path), environ, identity))


def problems(path: str | Path, environ: Mapping[str, str] | None = None, *, identity: str | None = None) -> list[PolicyError]:
    """Everything that is wrong with a policy file, in its order; empty where `load` would read it."""
    try:
        return _load(Path(path), environ, identity)[1]
    except PolicyError as error:
        return [error]


def _load(path: Path, environ: Mapping[str, str] | None, identity: str | None) -> tuple[Policy | None, list[PolicyError]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Place(str(path)).error(f"the policy file cannot be read: {error.strerror}") from None
    source = Source(os.environ if environ is None else environ, path.absolute().parent)
    return _read(document.read(data, str(path)), source, identity)


def _only(policy: Policy | None, found: list[PolicyError]) -> Policy:
    if policy is None:
        raise found[0]
    return policy


def _read(raw: Node, source: Source, identity: str | None) -> tuple[Policy | None, list[PolicyError]]:
    if not isinstance(raw.value, Mapping):
        raise raw.place.error("a policy is a mapping of sections")
    who = identity or _identity(raw, source)
    filled = replace(source, agent_id=agent_id(who) if who else None).fill(raw)
    try:
        file = File.model_validate_json(json.dumps(filled.plain(), allow_nan=False))
    except ValidationError as error:
        return None, complaints(error, raw)
    except ValueError:
        raise raw.place.error("a number that is none") from None
    found = consistency.check(file, raw)
    return (None, found) if found else (_policy(Resolver(file, raw, source.folder), identity), [])


def _identity(raw: Node, source: Source) -> str | None:
    """The agent's identity as the file has it: `{agent_id}` elsewhere is made of it, so it is filled in first."""
    node = raw.at(("agent", "identity"))
    value = source.fill(node).value if node is not None else None
    return value if isinstance(value, str) and names.is_identity(value) else None


def _policy(resolver: Resolver, identity: str | None) -> Policy:
    return Policy(
        file=resolver.raw.place.file,
        agent=resolver.agent(identity),
        anchors=resolver.anchors(),
        revoked=frozenset(resolver.file.trust.revoked),
        store=resolver.store(),
        timing=resolver.timing(),
        brokers=MappingProxyType({broker.name: broker for broker in resolver.brokers()}),
        rules=tuple(resolver.rule(index) for index in range(len(resolver.file.topics))),
        settings=resolver.file,
        _resolver=resolver,
    )


def _matched(rule: Rule, name: str, type: str | None) -> Rule | None:
    if rule.subjects:
        return _subject(rule, name) or (rule if type is None and name == rule.topic else None) if type != "kafka" else None
    if type == "nats" or not names.glob(rule.topic, name):
        return None
    if "*" not in rule.topic:
        return rule
    if rule.group is not None and not names.is_group_name(name):
        raise PolicyError("this topic's name cannot name a group; give it a rule with `group`", topic=name, file=rule.place.file)
    return replace(rule, topic=name, group=rule.group and name)


def _subject(rule: Rule, subject: str) -> Rule | None:
    for pattern in rule.subjects:
        captured = patterns.match_subject(pattern, subject)
        if captured is not None:
            return replace(rule, identity=_fill(rule.identity, captured)) if rule.identity else rule
    return None


def _fill(identity: str, captured: Mapping[str, str]) -> str:
    for name, part in captured.items():
        identity = identity.replace(f"{{{name}}}", part)
    if not names.is_identity(identity) or any("/" in part for part in captured.values()):
        raise PolicyError("the subject does not give a canonical identity: a token stands for one part of it", identity=identity)
    return identity
