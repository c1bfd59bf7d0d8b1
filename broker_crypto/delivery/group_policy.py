"""The group's own policy: extension 0xF0BC of the GroupContext.

Every member and every follower judges every record of the group log by it, with this code and no local setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from broker_crypto.errors import MalformedInput, PeerError
from broker_crypto.identity import profile
from broker_crypto.mls.leaf import REQUIRED_CAPABILITIES, X509, Extensions, LeafNode
from broker_crypto.records import Anchor
from broker_crypto.wire import avro, envelopes, names

RULES = 1  # the rule set that this version judges by
EXTENSION = 0xF0BC  # GroupContext: the group's policy
COMMIT_HASH_EXTENSION = 0xF0BD  # GroupInfo of a commit: SHA-256 of the commit's MLSMessage
ADMIN, WRITER, READER = "admin", "writer", "reader"
_STRENGTH = {READER: 0, WRITER: 1, ADMIN: 2}
_MAX_POLICY = 512 * 1024  # bytes, before decoding
_INT = avro.Codec("int", max_size=5)


@dataclass(frozen=True, slots=True)
class GroupPolicy:
    """GroupPolicy of rule set 1. Times in ms, durations in s: -1 forever, -2 as the broker."""

    rules: int
    group: str
    topics: tuple[str, ...]
    time: int
    anchors: tuple[Anchor, ...]
    roles: tuple[tuple[str, str], ...]  # (pattern, role)
    barred: tuple[str, ...]
    revoked: tuple[bytes, ...]  # SHA-256 of a SubjectPublicKeyInfo
    key_retention: int
    max_offline: int

    def encode(self) -> bytes:
        """Single-object encoding, canonical."""
        return envelopes.GROUP_POLICY.encode(
            {
                "rules": self.rules,
                "group": self.group,
                "topics": list(self.topics),
                "time": self.time,
                "anchors": [{"certificate": a.certificate, "identities": list(a.identities)} for a in self.anchors],
                "roles": [{"pattern": p, "role": r} for p, r in self.roles],
                "barred": list(self.barred),
                "revoked": list(self.revoked),
                "key_retention": self.key_retention,
                "max_offline": self.max_offline,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> GroupPolicy:
        """Raises MalformedInput for anything but the canonical encoding of a sound policy."""
        if len(data) > _MAX_POLICY:
            raise MalformedInput("the group policy is too large", size=len(data))
        d: dict[str, Any] = envelopes.GROUP_POLICY.decode(data)
        policy = cls(
            rules=d["rules"],
            group=d["group"],
            topics=tuple(d["topics"]),
            time=d["time"],
            anchors=tuple(Anchor(a["certificate"], tuple(a["identities"])) for a in d["anchors"]),
            roles=tuple((r["pattern"], r["role"]) for r in d["roles"]),
            barred=tuple(d["barred"]),
            revoked=tuple(d["revoked"]),
            key_retention=d["key_retention"],
            max_offline=d["max_offline"],
        )
        policy.check()
        return policy

    def check(self) -> None:
        """What must hold of every group policy; raises MalformedInput naming what does not."""
        if self.rules < 1:
            raise MalformedInput("rules below 1", rules=self.rules)
        if self.time < 0 or self.key_retention < -2 or self.max_offline < -1:
            raise MalformedInput("a time or duration out of range")
        for values in (self.topics, self.barred, self.revoked, self.roles):
            if len(set(values)) != len(values):
                raise MalformedInput("a list of the group policy names something twice")
        for anchor in self.anchors:
            if not anchor.identities or not all(map(names.is_prefix, anchor.identities)):
                raise MalformedInput("an anchor speaks for something that is no prefix")
        if not all(names.is_role_pattern(pattern) for pattern, _ in self.roles) or not all(map(names.is_identity, self.barred)):
            raise MalformedInput("a role pattern or barred identity is not in its canonical form")
        if not any(role == ADMIN for _, role in self.roles):
            raise MalformedInput("no role is admin")

    def role_of(self, identity: str) -> str | None:
        """The strongest role whose pattern fits, None for none or a barred identity."""
        if identity in self.barred:
            return None
        fits = [role for pattern, role in self.roles if names.fits(pattern, identity)]
        return max(fits, key=_STRENGTH.__getitem__, default=None)

    def may_write(self, identity: str) -> bool:
        return self.role_of(identity) in (ADMIN, WRITER)

    def check_leaf(self, leaf: LeafNode, time_ms: int | None) -> str:
        """Whether a leaf counts at `time_ms` (None leaves validity aside): its chain, anchor, role; returns its identity.

        PeerError names the rule.
        """
        identity = self.check_chain(leaf, time_ms)
        if self.role_of(identity) is None:
            raise PeerError("the identity has no role in the group", rule="role", identity=identity)
        return identity

    def check_chain(self, leaf: LeafNode, time_ms: int | None) -> str:
        """The certificate part of `check_leaf`: chain, validity at `time_ms`, anchor and prefix, revocation, leaf key."""
        credential = leaf.credential
        if credential.type != X509:
            raise PeerError("the leaf's credential is no X.509 chain", rule="credential")
        chain = profile.read_chain(credential.certificates)
        identity = profile.check_chain(chain, self.anchors, time_ms, frozenset(self.revoked))
        if chain.leaf.public_key != leaf.signature_key:
            raise PeerError("the leaf key is not the certificate's", rule="leaf_key", identity=identity)
        return identity

    def has_admin(self) -> bool:
        """Whether some role makes an admin of an identity that is not barred (a pattern with `*` fits more than can be barred)."""
        return any(role == ADMIN and ("*" in pattern or pattern not in self.barred) for pattern, role in self.roles)

    def same_terms(self, other: GroupPolicy) -> bool:
        """Equality with another founding's terms: topics, anchors, roles, key_retention, max_offline, as sets."""
        return self._terms() == other._terms()

    def _terms(self) -> tuple[object, ...]:
        anchors = frozenset((a.certificate, frozenset(a.identities)) for a in self.anchors)
        return (frozenset(self.topics), anchors, frozenset(self.roles), self.key_retention, self.max_offline)


def identity_of(leaf: LeafNode) -> str:
    """The identity that a leaf's certificate names, unjudged; MalformedInput if there is none."""
    if leaf.credential.type != X509:
        raise MalformedInput("the leaf's credential is no X.509 chain")
    return profile.read_chain(leaf.credential.certificates).uri


def key_of(leaf: LeafNode) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo of a leaf's certificate, as `revoked` lists it."""
    return profile.read_chain(leaf.credential.certificates).leaf.key_hash


def read_policy(extensions: Extensions) -> GroupPolicy:
    """The GroupPolicy of a GroupContext that has exactly required_capabilities, naming 0xF0BC, and 0xF0BC. Raises PeerError."""
    return GroupPolicy.decode(policy_data(extensions))


def policy_data(extensions: Extensions) -> bytes:
    """The policy in the same extensions, undecoded: of whatever rule set."""
    required, policy = exactly(extensions, (REQUIRED_CAPABILITIES, EXTENSION))
    if required != required_capabilities():
        raise PeerError("other required capabilities than every group has", rule="required_capabilities")
    return policy


def rules_in(data: bytes) -> int:
    """`rules`, with which the policy of every rule set begins, whatever its fingerprint. Raises MalformedInput."""
    if data[:2] != avro.MARKER:
        raise MalformedInput("a group policy without marker")
    body = data[avro.MARKER_BYTES :]
    size = next((n for n, byte in enumerate(body[:5], 1) if byte < 0x80), 0)
    rules: int = _INT.decode_body(body[:size])
    return rules


def required_capabilities() -> bytes:
    """RequiredCapabilities of every group: extension 0xF0BC, X.509 credentials (RFC 9420 section 11.1)."""
    return bytes((2,)) + EXTENSION.to_bytes(2, "big") + bytes((0, 2)) + X509.to_bytes(2, "big")


def exactly(extensions: Extensions, kinds: tuple[int, int]) -> tuple[bytes, bytes]:
    """Data of the two extensions of these types. Raises PeerError where there are others, or not both."""
    found = {e.type: e.data for e in extensions}
    if len(extensions) != len(kinds) or set(found) != set(kinds):
        raise PeerError("other extensions than belong there", rule="extensions")
    return found[kinds[0]], found[kinds[1]]
