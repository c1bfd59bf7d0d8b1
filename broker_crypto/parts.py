"""What an agent is put together from: its policy, identity, store, clocks; and the policy's words in those of the rooms below."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from broker_crypto import errors, identity, policy, storage
from broker_crypto.channels.topic import TopicSettings
from broker_crypto.delivery.committer import Own
from broker_crypto.delivery.group_policy import RULES, GroupPolicy
from broker_crypto.delivery.trust import LocalPolicy
from broker_crypto.observe.metrics import NULL, Metrics, StoreFigures
from broker_crypto.policy.rules import GroupSection, Rule
from broker_crypto.records import Clock, Random

VERSION = "0.1.0"


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class Parts:
    """All of it, opened."""

    policy: policy.Policy
    who: identity.Identity
    store: storage.StateStore
    clock: Clock
    random: Random
    metrics: Metrics


def gather(where: str | Path | policy.Policy, who: str | None, metrics: Metrics, clock: Clock, random: Random) -> Parts:
    """Load, check and open. Raises PolicyError, NotBuilt, UsageError, StateError, StoreUnavailable."""
    loaded = where if isinstance(where, policy.Policy) else policy.load(where, identity=who)
    me, kept = loaded.require_agent()
    if me.certificate is None or me.private_key is None:
        raise errors.PolicyError("an agent needs a certificate and its key", file=loaded.file)
    held = identity.load(me.certificate, me.private_key, loaded.anchors)
    if held.uri != me.identity:
        raise errors.PolicyConflict("the certificate is another identity's", certificate=held.uri, identity=me.identity)
    return Parts(loaded, held, open_store(kept, metrics, random), clock, random, metrics)


def open_store(
    kept: policy.StoreSettings, metrics: Metrics = NULL, random: Random = secrets.token_bytes, *, beside: bool = False
) -> storage.StateStore:
    """The store that a policy names. Raises as `storage.open`."""
    if kept.backend == "memory":
        return storage.open("memory:")
    key = kept.key
    if key is None or kept.path is None:
        raise errors.PolicyError("a store on disk needs a path and a key")
    provider = storage.FileKey(key.path or "") if key.provider == "file" else storage.EnvKey(key.variable or "")
    return storage.open(Path(kept.path), provider, beside=beside, watch=StoreFigures(metrics), random=random)


def own(who: identity.Identity) -> Own:
    """What the identity brings into a group."""
    return Own(who.uri, who.chain, who.signature_private, who.signature_public)


def local_policy(section: GroupSection) -> LocalPolicy:
    """What the file says of a group, as a group's policy."""
    return LocalPolicy(
        section.suite,
        GroupPolicy(
            rules=RULES,
            group=section.log_name,
            topics=section.topics,
            time=0,
            anchors=section.anchors,
            roles=section.roles,
            barred=(),
            revoked=(),
            key_retention=section.key_retention,
            max_offline=section.max_offline,
        ),
    )


def settings_of(rule: Rule) -> TopicSettings:
    """A rule of the file as a channel takes it."""
    return TopicSettings(
        topic=rule.topic,
        plaintext_accepted=rule.plaintext == "accept",
        plain_fingerprints=rule.plain_fingerprints,
        drop_duplicates=rule.duplicates == "drop",
        signature_batch=rule.signature_batch,
        padding=rule.padding,
        compress=rule.compress,
        aliases=rule.aliases,
        headers_plain=rule.headers_plain,
        headers_sealed=rule.headers_sealed,
    )


def fresh_id() -> bytes:
    """16 random bytes, as the id of an intent."""
    return secrets.token_bytes(16)
