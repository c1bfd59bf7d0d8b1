"""Fences: behind which position of a topic nobody takes what a removed or silenced member writes with its old keys.

An admin's commit lists the first refused positions of the group's topics as they were when it was built; null fences nobody.
A list, also an empty one, speaks of the epochs up to the one that the commit ends, and in them, by each epoch's own roster, of

1. the leaves that the commit removes, from the epoch on in which their occupants came: an older occupant of the same
   index is somebody else. Who comes back by an external commit removes its own leaf, and remains;
2. identities that the new policy, validity aside, lets write no more: barred, without a role that writes, or under no
   anchor; also those that left, expired or were removed before, with or without a list;
3. keys that the commit revokes, be it the leaf's or one above it.

What the list does not name it refuses from position 0. Members that remain are never fenced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256

from broker_crypto import errors, limits
from broker_crypto.crypto import suite
from broker_crypto.delivery.chain import Chain
from broker_crypto.delivery.group_policy import GroupPolicy
from broker_crypto.delivery.log_records import FencedTopic
from broker_crypto.delivery.membership import Epoch
from broker_crypto.delivery.rules import Counted
from broker_crypto.identity import profile
from broker_crypto.records import Fence, RosterEntry, TopicFacts
from broker_crypto.wire import names

Describe = Callable[[str], Awaitable[Sequence[TopicFacts]]]
Roster = Mapping[int, RosterEntry]


@dataclass(frozen=True)  # no slots: `fence` is made once
class FenceRow:
    """What one commit fences, of what this member holds. `leaves` are (leaf, first epoch of its occupant), `keys` SHA-256 of
    SubjectPublicKeyInfo. `epoch` is the one that the commit ended, `time` its signed time (ms), `commit` its hash.
    """

    epoch: int
    time: int
    commit: bytes
    leaves: tuple[tuple[int, int], ...]
    identities: tuple[str, ...]
    keys: tuple[bytes, ...]
    topics: tuple[FencedTopic, ...]

    @cached_property
    def fence(self) -> Fence:
        """The positions as a channel reads them; of what the list says twice, the stricter."""
        ends: dict[tuple[str, str], dict[int, int]] = {}
        for one in self.topics:
            named = ends.setdefault((one.topic, one.identity), {})
            for partition, first_refused in one.ends:
                named[partition] = min(first_refused, named.get(partition, first_refused))
        return Fence(ends)

    @cached_property
    def _since(self) -> dict[int, int]:
        return dict(self.leaves)

    def speaks_of(self, epoch: int, began: int) -> bool:
        """Whether it fences records of this epoch (which began at that signed time, ms).

        Behind a log that was rolled back or founded anew numbers come again, at later times.
        """
        return epoch <= self.epoch and began <= self.time

    def fenced(self, epoch: int, roster: Roster) -> list[int]:
        """The leaves of an epoch that it speaks of whose records it fences."""
        since, identities, keys = self._since, frozenset(self.identities), frozenset(self.keys)
        return [
            leaf
            for leaf, entry in roster.items()
            if entry.identity in identities
            or since.get(leaf, epoch + 1) <= epoch
            or (keys and not keys.isdisjoint((leaf_key_hash(entry.signature_key), *entry.issuers)))
        ]


@lru_cache(maxsize=4096)
def leaf_key_hash(signature_key: bytes) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo of a leaf's key (suites 1 and 3: Ed25519, suite 2: P-256)."""
    scheme = suite(1 if len(signature_key) == 32 else 2).signature_scheme
    return sha256(scheme.spki_prefix + signature_key).digest()


def fence_of(before: Chain, commit: Counted, after: Chain, rosters: Iterable[Roster]) -> FenceRow | None:
    """What a commit that counts fences in epochs with these rosters (those whose keys this member holds); None for nobody."""
    if commit.data.fences is None:
        return None
    gone = [] if commit.staged.external else sorted(commit.staged.removed)
    wrote = {entry.identity for roster in rosters for entry in roster.values() if entry.may_write}
    row = FenceRow(
        epoch=before.epoch,
        time=commit.data.time,
        commit=commit.hash,
        leaves=tuple((leaf, before.joined[leaf]) for leaf in gone),
        identities=tuple(sorted(identity for identity in wrote if not lets_write(after.policy, identity))),
        keys=tuple(sorted(set(after.policy.revoked) - set(before.policy.revoked))),
        topics=commit.data.fences,
    )
    return row if row.leaves or row.identities or row.keys else None


def lets_write(policy: GroupPolicy, identity: str) -> bool:
    """Whether the policy, validity aside, has a way for this identity to write: a role, and an anchor that speaks for it."""
    return policy.may_write(identity) and any(
        any(names.lies_under(identity, prefix) for prefix in anchor.identities) and not _is_revoked(anchor.certificate, policy)
        for anchor in policy.anchors
    )


def _is_revoked(anchor: bytes, policy: GroupPolicy) -> bool:
    try:
        return profile.read_anchor(anchor).key_hash in policy.revoked
    except errors.PeerError:  # it never speaks for anybody
        return True


# --- what channels see ------------------------------------------------------------------------------------------------


def fences_for(epoch: Epoch, rows: Iterable[FenceRow]) -> dict[int, tuple[Fence, ...]]:
    """{leaf: fences} of an epoch, worked out for its roster."""
    fences: dict[int, tuple[Fence, ...]] = {}
    for row in rows:
        if row.speaks_of(epoch.epoch, epoch.began):
            for leaf in row.fenced(epoch.epoch, epoch.roster):
                fences[leaf] = (*fences.get(leaf, ()), row.fence)
    return fences


# --- reading the ends ---------------------------------------------------------------------------------------------------


async def read_ends(describe: Describe, topics: Iterable[str], without: Collection[str] = ()) -> tuple[FencedTopic, ...]:
    """The first refused positions of these topics as they are now, for the list of a commit.

    A topic that no broker has gets an empty entry; those in `without` get none. BrokerUnavailable, naming the topic, where
    one cannot be read within ENDS_SECONDS.
    """
    wanted = [topic for topic in topics if topic not in without]
    told = await asyncio.gather(*(_facts(describe, topic) for topic in wanted))
    return tuple(end for topic, facts in zip(wanted, told, strict=True) for end in _ends(topic, facts))


async def _facts(describe: Describe, topic: str) -> Sequence[TopicFacts]:
    try:
        return await asyncio.wait_for(describe(topic), limits.ENDS_SECONDS)
    except TimeoutError:
        why = f"no answer within {limits.ENDS_SECONDS:g} s"
    except errors.BrokerCryptoError as error:
        why = str(error)
    raise errors.BrokerUnavailable("the ends of a topic cannot be read", topic=topic, why=why)


def _ends(topic: str, facts: Sequence[TopicFacts]) -> list[FencedTopic]:
    if not facts:
        return [FencedTopic(topic, "", ())]
    return [FencedTopic(topic, one.identity, tuple(sorted(one.ends.items()))) for one in facts]
