"""What an admin wants changed in a group's policy: differences, never whole files, so that two that are asked at once both hold.

A delta names what to add and what to take away. Applied to a policy in which it is so already it changes nothing: done.
`barred` and `revoked` are changed by `bar`, `unbar` and `revoke` alone, never taken from a file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from broker_crypto.delivery.group_policy import GroupPolicy
from broker_crypto.errors import UsageError
from broker_crypto.records import Anchor
from broker_crypto.wire import envelopes

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Delta:
    """Differences to a policy. `bar` and `unbar` are identities, `revoke` SHA-256 of SubjectPublicKeyInfo (32 bytes each);
    roles are (pattern, role). `without` are topics whose ends are not read: there everything of a fenced leaf is refused.
    """

    bar: tuple[str, ...] = ()
    unbar: tuple[str, ...] = ()
    revoke: tuple[bytes, ...] = ()
    add_roles: tuple[tuple[str, str], ...] = ()
    drop_roles: tuple[tuple[str, str], ...] = ()
    add_topics: tuple[str, ...] = ()
    drop_topics: tuple[str, ...] = ()
    add_anchors: tuple[Anchor, ...] = ()
    drop_anchors: tuple[Anchor, ...] = ()
    key_retention: int | None = None
    max_offline: int | None = None
    without: tuple[str, ...] = ()

    def encode(self) -> bytes:
        return envelopes.DELTA.encode(
            {
                "bar": list(self.bar),
                "unbar": list(self.unbar),
                "revoke": list(self.revoke),
                "add_roles": _roles(self.add_roles),
                "drop_roles": _roles(self.drop_roles),
                "add_topics": list(self.add_topics),
                "drop_topics": list(self.drop_topics),
                "add_anchors": _anchors(self.add_anchors),
                "drop_anchors": _anchors(self.drop_anchors),
                "key_retention": self.key_retention,
                "max_offline": self.max_offline,
                "without": list(self.without),
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Delta:
        """Raises MalformedInput for anything but the canonical encoding."""
        d: dict[str, Any] = envelopes.DELTA.decode(data)
        return cls(
            bar=tuple(d["bar"]),
            unbar=tuple(d["unbar"]),
            revoke=tuple(d["revoke"]),
            add_roles=_read_roles(d["add_roles"]),
            drop_roles=_read_roles(d["drop_roles"]),
            add_topics=tuple(d["add_topics"]),
            drop_topics=tuple(d["drop_topics"]),
            add_anchors=_read_anchors(d["add_anchors"]),
            drop_anchors=_read_anchors(d["drop_anchors"]),
            key_retention=d["key_retention"],
            max_offline=d["max_offline"],
            without=tuple(d["without"]),
        )

    def apply(self, policy: GroupPolicy) -> GroupPolicy:
        """The policy with this delta; the same object where it is so already. Raises MalformedInput where it would be none."""
        changed = replace(
            policy,
            barred=_with(policy.barred, self.bar, self.unbar),
            revoked=_with(policy.revoked, self.revoke, ()),
            roles=_with(policy.roles, self.add_roles, self.drop_roles),
            topics=_with(policy.topics, self.add_topics, self.drop_topics),
            anchors=_with(policy.anchors, self.add_anchors, self.drop_anchors),
            key_retention=policy.key_retention if self.key_retention is None else self.key_retention,
            max_offline=policy.max_offline if self.max_offline is None else self.max_offline,
        )
        if changed == policy:
            return policy
        changed.check()
        return changed


def apply_all(policy: GroupPolicy, deltas: Iterable[Delta]) -> GroupPolicy:
    """The policy with all of them, in order."""
    for delta in deltas:
        policy = delta.apply(policy)
    return policy


def between(policy: GroupPolicy, wanted: GroupPolicy) -> Delta:
    """What makes `policy` say what `wanted` does: topics, anchors, roles, durations. UsageError for another group."""
    if policy.group != wanted.group:
        raise UsageError("the policies are of two groups", group=policy.group, file=wanted.group)
    return Delta(
        add_roles=_lacking(wanted.roles, policy.roles),
        drop_roles=_lacking(policy.roles, wanted.roles),
        add_topics=_lacking(wanted.topics, policy.topics),
        drop_topics=_lacking(policy.topics, wanted.topics),
        add_anchors=_lacking(wanted.anchors, policy.anchors),
        drop_anchors=_lacking(policy.anchors, wanted.anchors),
        key_retention=wanted.key_retention if wanted.key_retention != policy.key_retention else None,
        max_offline=wanted.max_offline if wanted.max_offline != policy.max_offline else None,
    )


def _with(there: tuple[T, ...], add: Iterable[T], drop: Iterable[T]) -> tuple[T, ...]:
    add = tuple(add)
    gone = set(drop) - set(add)
    kept = tuple(one for one in there if one not in gone)
    return kept + tuple(dict.fromkeys(one for one in add if one not in kept))


def _lacking(these: Iterable[T], those: Iterable[T]) -> tuple[T, ...]:
    held = set(those)
    return tuple(one for one in these if one not in held)


def _roles(roles: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"pattern": pattern, "role": role} for pattern, role in roles]


def _anchors(anchors: Iterable[Anchor]) -> list[dict[str, Any]]:
    return [{"certificate": a.certificate, "identities": list(a.identities)} for a in anchors]


def _read_roles(roles: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    return tuple((r["pattern"], r["role"]) for r in roles)


def _read_anchors(anchors: list[dict[str, Any]]) -> tuple[Anchor, ...]:
    return tuple(Anchor(a["certificate"], tuple(a["identities"])) for a in anchors)
