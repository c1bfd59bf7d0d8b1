"""Whatever commits a group makes, a record opens exactly where a model that knows every occupant by name says so."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker_crypto.channels.topic import TopicChannel, TopicSettings
from broker_crypto.crypto import suite
from broker_crypto.delivery import fences, views
from broker_crypto.delivery.fences import FenceRow
from broker_crypto.delivery.group_policy import GroupPolicy
from broker_crypto.delivery.log_records import CommitData, FencedTopic
from broker_crypto.delivery.membership import Epoch
from broker_crypto.identity.certificate import read_certificate
from broker_crypto.records import Anchor, EpochView, GroupView, Place, RosterEntry
from tests.support.certificates import plans
from tests.unit.delivery.play import outcomes

SUITE = suite(1)
RANDOM = random.Random(5)
PAIRS = [SUITE.signature_key_pair(RANDOM.randbytes) for _ in range(4)]
PRIVATE = {public: private for private, public in PAIRS}
ISSUERS = [RANDOM.randbytes(32) for _ in range(2)]
ROOTS = [plans(ca=scheme).root.build() for scheme in ("ed25519", "p256")]
ANCHORS = (Anchor(ROOTS[0], ("agent://acme/",)), Anchor(ROOTS[1], ("agent://other/",)))
IDENTITIES = ("agent://acme/a", "agent://acme/b", "agent://other/c")
STREAMS = ("one", "two")
LEAVES = 3


@dataclass(frozen=True)
class Occupant:
    """One who came to a leaf once; `number` makes it another than who was there before, whatever else is the same."""

    number: int
    leaf: int
    identity: str
    key: bytes
    issuers: tuple[bytes, ...]

    @property
    def keys(self) -> set[bytes]:
        return {fences.leaf_key_hash(self.key), *self.issuers}


@dataclass(frozen=True)
class Commit:
    """One that ended `epoch`: what it removed and revoked, the policy it left, its list."""

    epoch: int
    removed: frozenset[Occupant]
    revoked: frozenset[bytes]
    policy: GroupPolicy
    ends: tuple[FencedTopic, ...] | None

    def first_refused(self, place: Place) -> int:
        """By the list; 0 for what it does not name."""
        assert place.position is not None
        named = [ends for one in self.ends or () if (one.topic, one.identity) == ("orders", place.position[0]) for ends in one.ends]
        return min((first for partition, first in named if partition == place.partition), default=0)

    def refuses(self, who: Occupant, epoch: int, place: Place) -> bool:
        if self.ends is None or epoch > self.epoch:
            return False
        if who not in self.removed and not who.keys & self.revoked and writes(self.policy, who.identity):
            return False
        return place.position is None or place.position[1] >= self.first_refused(place)


def writes(policy: GroupPolicy, identity: str) -> bool:
    speaking = [a for a in policy.anchors if read_certificate(a.certificate).key_hash not in policy.revoked]
    spoken = any(identity.startswith(prefix) for anchor in speaking for prefix in anchor.identities)
    return spoken and identity not in policy.barred and any(pattern == identity and role != "reader" for pattern, role in policy.roles)


@dataclass
class History:
    """Epochs with who was where; commits, as they were and as rows."""

    policy: GroupPolicy
    there: list[dict[int, Occupant]] = field(default_factory=list)
    policies: list[GroupPolicy] = field(default_factory=list)
    joined: dict[int, int] = field(default_factory=dict)
    times: list[int] = field(default_factory=lambda: [0])
    commits: list[Commit] = field(default_factory=list)
    rows: list[FenceRow] = field(default_factory=list)
    came: int = 0

    def roster(self, epoch: int) -> dict[int, RosterEntry]:
        policy = self.policies[epoch]
        return {leaf: RosterEntry(o.identity, o.key, policy.may_write(o.identity), o.issuers) for leaf, o in self.there[epoch].items()}

    def newcomer(self, draw: Any, leaf: int) -> Occupant:
        self.came += 1
        issuers = tuple(draw(st.lists(st.sampled_from(ISSUERS), unique=True)))
        return Occupant(self.came, leaf, draw(st.sampled_from(IDENTITIES)), draw(st.sampled_from(PAIRS))[1], issuers)

    def stays(self, who: Occupant, policy: GroupPolicy) -> bool:
        """Whether a policy counts it: else a commit that leaves that policy removes it."""
        return policy.role_of(who.identity) is not None and not who.keys & set(policy.revoked)

    def step(self, draw: Any) -> None:
        """One commit: a policy, removals, or one that comes, or comes back to its leaf."""
        before, now, epoch = self.policy, dict(self.there[-1]), len(self.there) - 1
        external = draw(st.booleans())
        policy = before if external else draw(changed(before))
        if external:
            leaf = draw(st.sampled_from(range(LEAVES)))
            old = now.get(leaf)
            removed = frozenset({old} if old else ())
            self.came += 1
            now[leaf] = replace(old, number=self.came) if old else self.newcomer(draw, leaf)
        else:
            asked = draw(st.sets(st.sampled_from(range(LEAVES))))
            removed = frozenset(o for leaf, o in now.items() if leaf in asked or not self.stays(o, policy))
            now = {leaf: o for leaf, o in now.items() if o not in removed}
        ends = draw(LISTS)
        commit = Commit(epoch, frozenset() if external else removed, frozenset(policy.revoked) - frozenset(before.revoked), policy, ends)
        self.times.append(self.times[-1] + draw(st.sampled_from([0, 1])))
        self.keep(commit, before, {o.leaf for o in removed}, external=external)
        self.commits.append(commit)
        self.there.append(now)
        self.policies.append(policy)
        self.policy = policy
        self.joined = {leaf: epoch + 1 if self.there[-2].get(leaf) is not o else self.joined[leaf] for leaf, o in now.items()}

    def keep(self, commit: Commit, before: GroupPolicy, removed: set[int], *, external: bool) -> None:
        """What the code makes of it."""
        staged = SimpleNamespace(external=external, removed=sorted(removed))
        data = CommitData(self.times[-1], commit.ends)
        counted: Any = SimpleNamespace(staged=staged, data=data, hash=bytes([len(self.commits)]) * 32)
        old: Any = SimpleNamespace(epoch=commit.epoch, policy=before, joined=self.joined)
        new: Any = SimpleNamespace(policy=commit.policy)
        row = fences.fence_of(old, counted, new, [self.roster(number) for number in range(len(self.there))])
        self.rows += [] if row is None else [row]

    def view(self, number: int) -> EpochView:
        name, secret = number.to_bytes(16, "big"), number.to_bytes(SUITE.nh, "big")
        epoch = Epoch(
            epoch=number,
            epoch_id=name,
            group_id=b"g" * 32,
            suite=1,
            began=self.times[number],
            ended=None,
            topics=("orders",),
            roster=self.roster(number),
            stream_secret=secret,
        )
        return views.epoch_view(epoch, secret, fences.fences_for(epoch, self.rows))


ENDS = st.lists(st.tuples(st.sampled_from([-1, 0]), st.integers(0, 4)), max_size=3).map(tuple)
FENCED = st.builds(FencedTopic, st.sampled_from(["orders", "invoices"]), st.sampled_from([*STREAMS, ""]), ENDS)
LISTS = st.none() | st.lists(FENCED, max_size=3).map(tuple)
START = GroupPolicy(
    1, "orders", ("orders",), 0, ANCHORS, tuple((i, "writer") for i in IDENTITIES) + (("agent://x/y", "admin"),), (), (), -1, -1
)
PLACES = [
    Place("orders", partition, "s", position=None if at is None else (stream, at))
    for partition in (-1, 0)
    for stream in (*STREAMS, "made anew")
    for at in (0, 1, 2, 3, 4, None)
]


@st.composite
def changed(draw: Any, policy: GroupPolicy) -> GroupPolicy:
    """A policy with something else, or the same."""
    what, who = draw(st.sampled_from(["nothing", "bar", "unbar", "role", "revoke", "anchor"])), draw(st.sampled_from(IDENTITIES))
    if what == "bar":
        return replace(policy, barred=tuple({*policy.barred, who}))
    if what == "unbar":
        return replace(policy, barred=tuple(one for one in policy.barred if one != who))
    if what == "role":
        others = tuple(pair for pair in policy.roles if pair[0] != who)
        return replace(policy, roles=(*others, (who, draw(st.sampled_from(["writer", "reader"])))))
    if what == "revoke":
        hashes = [fences.leaf_key_hash(public) for _, public in PAIRS] + ISSUERS + [read_certificate(root).key_hash for root in ROOTS]
        return replace(policy, revoked=tuple({*policy.revoked, draw(st.sampled_from(hashes))}))
    if what == "anchor":
        return replace(policy, anchors=draw(st.sampled_from([ANCHORS, ANCHORS[:1], ANCHORS[1:]])))
    return policy


@st.composite
def histories(draw: Any) -> History:
    history = History(START)
    history.there.append({leaf: history.newcomer(draw, leaf) for leaf in range(LEAVES)})
    history.policies.append(START)
    history.joined = dict.fromkeys(range(LEAVES), 0)
    for _ in range(draw(st.integers(1, 6))):
        history.step(draw)
    return history


def expected(history: History, who: Occupant, epoch: int, place: Place) -> str:
    if not history.policies[epoch].may_write(who.identity):
        return "not_authorised"
    return "removed_sender" if any(commit.refuses(who, epoch, place) for commit in history.commits) else "opened"


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(histories())
def test_a_record_is_refused_exactly_where_a_commit_that_took_its_sender_lists_so(history: History) -> None:
    held = [history.view(number) for number in range(len(history.there))]
    reader = channel(held, sealing=None)
    for epoch, view in enumerate(held):
        for leaf, who in history.there[epoch].items():
            writer = channel(held, sealing=view, leaf=leaf, private=PRIVATE[who.key], may_write=True)
            for partition in (-1, 0):
                [sealed] = writer.seal([(Place("orders", partition, "s"), b"x", None)])
                places = [place for place in PLACES if place.partition == partition]
                assert outcomes(reader, sealed.data, *places) == [expected(history, who, epoch, place) for place in places]


def channel(
    held: list[EpochView], *, sealing: EpochView | None, leaf: int = 0, private: bytes | None = None, may_write: bool = False
) -> TopicChannel:
    made = TopicChannel(TopicSettings(topic="orders"), RANDOM.randbytes)
    if sealing is not None and may_write:  # one that is not honest
        sealing = replace(sealing, roster={**sealing.roster, leaf: sealing.roster[leaf]._replace(may_write=True)})
    made.view = GroupView({view.epoch_id: view for view in held}, held[-1].epoch, sealing, leaf, signature_private=private)
    return made
