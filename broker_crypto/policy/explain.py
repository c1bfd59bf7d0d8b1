"""A policy in plain words: what follows for a topic, a guarantee a line; which rules overlap or can never match."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from broker_crypto.policy import patterns
from broker_crypto.policy.policy import Policy
from broker_crypto.policy.rules import GroupSection, Rule
from broker_crypto.policy.values import BROKER, FOREVER

_SUITES = {
    1: "X25519, AES-128-GCM, SHA-256, Ed25519",
    2: "P-256, AES-128-GCM, SHA-256, ECDSA",
    3: "X25519, ChaCha20-Poly1305, SHA-256, Ed25519",
}
_FAILURES = {
    "raise": "raises its error where it is read; the next read goes on behind it",
    "skip": "is counted and passed over",
    "dead-letter": "is kept in the dead-letter topic, and the next one follows",
    "pause": "holds its partition or subscription",
}


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two rules that match the same topics or subjects; `first` wins. `never` means that `second` can never match."""

    first: Rule
    second: Rule
    never: bool


def duration(seconds: int) -> str:
    """Seconds as the file writes them."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def explain(policy: Policy, rule: Rule, identity: str | None = None) -> Iterator[str]:
    """Lines about a routed rule; with `identity` also what that one may do."""
    if rule.channel == "plain":
        yield "nothing is sealed: brokers and everybody who may read the topic read it"
        return
    yield from (f"this version does not have `{mark.setting}`: nothing is sent or opened" for mark in rule.unbuilt)
    if rule.channel == "mls" and rule.group is not None:
        yield from _group(policy.group(rule.group), identity)
    elif rule.channel == "signal":
        yield f"each record is for {rule.identity or 'one peer'} alone"
    yield from _record(rule)


def _group(group: GroupSection, identity: str | None) -> Iterator[str]:
    yield f"only members of group `{group.name}` read it; brokers, mirrors and backups see ciphertext"
    yield "the sender named is the sender, and a record cannot be changed or moved to another topic, partition, subject or key"
    yield f"cipher suite {group.suite}: {_SUITES[group.suite]}"
    for role, may in (("admin", "administer, write and read"), ("writer", "write and read"), ("reader", "read")):
        fitting = [pattern for pattern, held in group.roles if held == role]
        if fitting:
            yield f"may {may}: {', '.join(fitting)}"
    if identity is not None:
        yield f"this agent, {identity}, is {_a(group.role(identity))}"
    yield _retention(group)
    yield f"the group's log is on broker `{group.log or 'the only one attached'}`, as {group.log_name}"
    yield f"a member without a path commit for {duration(group.max_offline)} may be removed by any member"


def _a(role: str | None) -> str:
    return "no member" if role is None else f"an {role}" if role == "admin" else f"a {role}"


def _retention(group: GroupSection) -> str:
    if group.key_retention == FOREVER:
        return "records stay readable for ever: who steals a member's state reads all of them"
    if group.key_retention == BROKER:
        return "records stay readable as long as the broker keeps them"
    kept = duration(group.key_retention)
    return f"records stay readable for {kept} after their epoch has ended; then their keys are erased and nobody opens them"


def _record(rule: Rule) -> Iterator[str]:
    if rule.plaintext == "accept":
        yield "records that are no envelope are handed out too, with no sender"
    else:
        yield "a record that is no envelope is refused"
    yield f"a record that is refused {_FAILURES[rule.on_failure]}"
    if rule.headers_plain or rule.headers_sealed:
        changed = [f"+{name}" for name in rule.headers_plain] + [f"-{name}" for name in rule.headers_sealed]
        yield f"headers are sealed but for the default list, {', '.join(changed)}"
    else:
        yield "headers are sealed but for the default list"
    if rule.padding > 1:
        yield f"lengths are hidden up to a multiple of {rule.padding} bytes"
    if not rule.subjects:
        yield f"records without a value are {'handed out, unauthenticated' if rule.tombstones == 'accept' else 'refused'}"


def overlaps(policy: Policy) -> Iterator[Overlap]:
    """Pairs of rules that match the same topics or subjects, in the order of the file."""
    for at, second in enumerate(policy.rules):
        for first in policy.rules[:at]:
            if bool(first.subjects) != bool(second.subjects):
                continue
            if second.subjects:
                yield from _subjects(first, second)
            elif patterns.topics_overlap(first.topic, second.topic):
                yield Overlap(first, second, patterns.topic_covers(first.topic, second.topic))


def _subjects(first: Rule, second: Rule) -> Iterator[Overlap]:
    if any(patterns.subjects_overlap(one, other) for one in first.subjects for other in second.subjects):
        covered = all(any(patterns.subject_covers(one, other) for one in first.subjects) for other in second.subjects)
        yield Overlap(first, second, covered)


def warnings(policy: Policy) -> Iterator[str]:
    """What is allowed and probably not meant."""
    for group in policy.groups():
        yield from _group_warnings(group)
    types = {broker.type for broker in policy.brokers.values()}
    for rule in policy.rules:
        if rule.plain_fingerprints and rule.plaintext == "refuse":
            yield f"topic `{rule.name}`: `plain_fingerprints` has no effect while `plaintext` is refuse"
        needed = "nats" if rule.subjects else "kafka"
        if types and needed not in types:
            has = "has" if rule.subjects else "has no"
            yield f"topic `{rule.name}` {has} `subjects`, so it is for {needed}, and `brokers` names none"


def _group_warnings(group: GroupSection) -> Iterator[str]:
    if not group.topics:
        yield f"group `{group.name}` has no topic"
    prefixes = [prefix for anchor in group.anchors for prefix in anchor.identities]
    for pattern, role in group.roles:
        if not any(pattern.startswith(prefix) for prefix in prefixes):
            yield f"group `{group.name}`: no anchor speaks for the {role} `{pattern}`"
