"""From the models of a file to what agents read: defaults filled in, paths made whole, what is not built marked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker_crypto.errors import PeerError
from broker_crypto.limits import ROTATION_INTERVAL_SECONDS
from broker_crypto.policy import sections
from broker_crypto.policy.document import Node
from broker_crypto.policy.rules import (
    ROLES,
    AgentSettings,
    BrokerSettings,
    GroupSection,
    Login,
    Rule,
    StoreKey,
    StoreSettings,
    Timing,
    TlsSettings,
    Unbuilt,
)
from broker_crypto.policy.values import BROKER
from broker_crypto.records import Anchor
from broker_crypto.wire import pem

_UNBUILT_CHANNELS: Final = ("signal", "noise", "auto")
_UNBUILT_FAILURES: Final = ("dead-letter", "pause")
_UNBUILT_KEYS: Final = ("passphrase", "vault-transit", "vault-kv")


@dataclass(frozen=True, slots=True)
class Resolver:
    """One file: its models, the tree with its places, its folder."""

    file: sections.File
    raw: Node
    folder: Path

    def unbuilt(self, *path: str | int, setting: str) -> Unbuilt:
        """A mark for the setting at `path`."""
        return Unbuilt(setting, self.raw.find(path))

    def whole(self, path: str | None) -> Path | None:
        """A path of the file, made whole by the file's folder."""
        return None if path is None else self.folder / path

    def anchors(self) -> tuple[Anchor, ...]:
        """The anchors, their files read. Raises PolicyError at the place of the file's name."""
        return tuple(self._anchor(index, anchor) for index, anchor in enumerate(self.file.trust.anchors))

    def _anchor(self, index: int, anchor: sections.TrustAnchor) -> Anchor:
        place = self.raw.find(("trust", "anchors", index, "certificate"))
        try:
            found = pem.certificates((self.folder / anchor.certificate).read_bytes())
        except OSError as error:
            raise place.error(f"the certificate cannot be read: {error.strerror}", path=anchor.certificate) from None
        except PeerError as error:
            raise place.error(error.what, path=anchor.certificate) from None
        if len(found) != 1:
            raise place.error("an anchor is one certificate; the file holds more", path=anchor.certificate)
        return Anchor(found[0], tuple(anchor.identities))

    def agent(self, identity: str | None) -> AgentSettings:
        """Who the agent is; `identity` goes before the file's."""
        agent = self.file.agent
        return AgentSettings(identity or agent.identity, self.whole(agent.certificate), self.whole(agent.private_key))

    def timing(self) -> Timing:
        """Times of the whole agent."""
        defaults = self.file.defaults
        interval = defaults.rotation_interval or self.file.crypto.key_lifecycle.rotation_interval
        return Timing(
            epoch_wait=defaults.epoch_wait,
            epoch_max_age=defaults.epoch_max_age,
            max_lag=defaults.max_lag,
            rotation_interval=interval or int(ROTATION_INTERVAL_SECONDS),
            on_identity_change=defaults.on_identity_change,
        )

    def store(self) -> StoreSettings | None:
        """The store, None where the file has none."""
        store = self.file.state_persistence or self.file.crypto.state_persistence
        if store is None:
            return None
        path = str(self.whole(store.path)) if store.backend == "sqlite" else store.path
        return StoreSettings(store.backend, path, self._store_key(store.key), store.vault_wait, store.ephemeral)

    def _store_key(self, key: sections.StoreKey | None) -> StoreKey | None:
        if key is None:
            return None
        path = Path(key.path) if key.path is not None and key.provider == "vault-kv" else self.whole(key.path)
        return StoreKey(key.provider, path, key.variable, key.mount, key.name)

    def brokers(self) -> Iterator[BrokerSettings]:
        """The brokers."""
        for name, broker in self.file.brokers.items():
            yield BrokerSettings(
                name,
                broker.type,
                broker.servers or broker.bootstrap_servers,
                broker.replicas,
                broker.min_insync,
                self._tls(broker.tls),
                self._login(broker.credentials),
            )

    def _tls(self, tls: sections.Tls | None) -> TlsSettings | None:
        if tls is None:
            return None
        return TlsSettings(self.whole(tls.ca), self.whole(tls.certificate), self.whole(tls.private_key), tls.hostname)

    def _login(self, login: sections.Credentials | None) -> Login | None:
        if login is None:
            return None
        return Login(login.user, login.password, login.token, self.whole(login.file), login.mechanism)

    def rule(self, index: int) -> Rule:
        """The rule of one topic."""
        topic, defaults = self.file.topics[index], self.file.defaults
        own_group = topic.topic if topic.channel == "mls" else None
        return Rule(
            name=topic.topic,
            topic=topic.topic,
            channel=topic.channel,
            subjects=topic.subjects,
            group=topic.group or own_group,
            identity=topic.identity,
            padding=topic.padding,
            compress=topic.compress,
            headers_plain=topic.headers.plain,
            headers_sealed=topic.headers.sealed,
            aliases=topic.aliases,
            plain_fingerprints=frozenset(topic.plain_fingerprints),
            plaintext=topic.plaintext or defaults.plaintext,
            on_failure=topic.on_failure or defaults.on_failure,
            duplicates=topic.duplicates,
            tombstones=topic.tombstones,
            signature_batch=topic.signature_batch,
            heartbeat=topic.heartbeat,
            renew_after=(topic.renew_after.time, topic.renew_after.messages),
            unanswered_keep=topic.unanswered_keep,
            resend=topic.resend,
            place=self.raw.find(("topics", index)),
            unbuilt=tuple(self._unbuilt_of_topic(index, topic)),
        )

    def _unbuilt_of_topic(self, index: int, topic: sections.Topic) -> Iterator[Unbuilt]:
        here = ("topics", index)
        if topic.channel in _UNBUILT_CHANNELS:
            yield self.unbuilt(*here, "channel", setting=f"channel: {topic.channel}")
        if topic.compress != "none":
            yield self.unbuilt(*here, "compress", setting=f"compress: {topic.compress}")
        if topic.aliases:
            yield self.unbuilt(*here, "aliases", setting="aliases")
        if topic.on_failure in _UNBUILT_FAILURES:
            yield self.unbuilt(*here, "on_failure", setting=f"on_failure: {topic.on_failure}")
        elif topic.on_failure is None and self.file.defaults.on_failure in _UNBUILT_FAILURES:
            yield self.unbuilt("defaults", "on_failure", setting=f"on_failure: {self.file.defaults.on_failure}")

    def group(self, key: str, name: str, topics: tuple[str, ...], anchors: tuple[Anchor, ...]) -> GroupSection:
        """The group `name` that the entry under `key` founds."""
        group = self.file.groups[key]
        fallback = 1 if self.file.crypto.algorithms.signing == "ed25519" else 2
        return GroupSection(
            name=name,
            log=group.log or next(iter(self.file.brokers), None),
            generation=group.generation,
            topics=topics,
            anchors=anchors,
            roles=tuple((pattern, role) for role in ROLES for pattern in getattr(group.roles, role)),
            suite=group.suite or fallback,
            key_retention=group.key_retention,
            max_offline=group.max_offline,
            on_locked_out=group.on_locked_out,
            place=self.raw.find(("groups", key)),
            unbuilt=tuple(self._unbuilt_of_group(key, group)),
        )

    def _unbuilt_of_group(self, key: str, group: sections.Group) -> Iterator[Unbuilt]:
        if group.key_retention == BROKER:
            yield self.unbuilt("groups", key, "key_retention", setting="key_retention: broker")

    def unbuilt_of_agent(self) -> Iterator[Unbuilt]:
        """What no agent can be opened with."""
        here = ("state_persistence",) if self.file.state_persistence is not None else ("crypto", "state_persistence")
        store = self.file.state_persistence or self.file.crypto.state_persistence
        if store is not None and store.backend == "vault":
            yield self.unbuilt(*here, "backend", setting="backend: vault")
        if store is not None and store.key is not None and store.key.provider in _UNBUILT_KEYS:
            yield self.unbuilt(*here, "key", "provider", setting=f"provider: {store.key.provider}")
        if self.file.defaults.max_lag is not None:
            yield self.unbuilt("defaults", "max_lag", setting="max_lag")

    def unbuilt_of_brokers(self) -> Iterator[tuple[str, Unbuilt]]:
        """Brokers that this version cannot connect to, by name."""
        for name, broker in self.file.brokers.items():
            if broker.type == "kafka":
                yield name, self.unbuilt("brokers", name, "type", setting="type: kafka")
