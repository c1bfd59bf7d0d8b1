"""A group under attack: four members, a service that may propose, an insider and an outsider who do not play fair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from broker_crypto.mls.framing import MLSMessage, PublicMessage
from broker_crypto.mls.leaf import (
    EXTERNAL_SENDERS,
    UPDATE,
    Extension,
    ExternalSender,
)
from broker_crypto.mls.proposal_list import Pending
from broker_crypto.mls.proposals import (
    Add,
    Commit,
    ExternalInit,
    Proposal,
    ProposalRef,
    Update,
)
from broker_crypto.mls.validation import Rule
from broker_crypto.wire import tls
from tests.support.forging import commit_in, decode_public, join_with, key_package, leaf_changed, path_in, say
from tests.support.members import Room, own_leaf

OUTSIDE_EXTENSION = 0xF0FF  # nobody supports it
LOW_ORDER = bytes(32)  # an X25519 public key of small order


@dataclass
class Scene:
    """Alice, Bob, Carol and Dave at leaves 0 to 3, a service that may propose, Mallory outside. Bob attacks from inside."""

    room: Room = field(default_factory=Room)

    def __post_init__(self) -> None:
        room = self.room
        self.service = own_leaf(room.kem, "service", room.random)
        senders = tls.vector([ExternalSender(self.service.signature_public, self.service.credential).encode()])
        room.found("alice", extensions=(Extension(EXTERNAL_SENDERS, senders),))
        for name in ("bob", "carol", "dave"):
            room.join(name)
        room.own["mallory"] = own_leaf(room.kem, "mallory", room.random)
        self.bob, self.carol = room.members["bob"], room.members["carol"]
        self.mallory = room.own["mallory"]
        self.genuine = self.bob.commit(random=room.random)
        self.path = path_in(self.genuine)
        self.joining = room.joining("mallory")

    def say(self, *proposals: Proposal | ProposalRef, **changes: object) -> PublicMessage:
        """A commit of Bob with these proposals and the path of an honest one."""
        return say(self.bob, Commit(proposals, self.path), **changes)

    def path_leaf(self, **changes: object) -> PublicMessage:
        """A commit of Bob whose leaf says something else, signed again."""
        path = leaf_changed(self.path, self.bob.public, self.bob.leaf, self.bob.signature_private, **changes)
        return say(self.bob, Commit((), path))

    def path_nodes(self, **changes: object) -> PublicMessage:
        """A commit of Bob whose lowest path node is changed."""
        nodes = (replace(self.path.nodes[0], **changes), *self.path.nodes[1:])  # type: ignore[arg-type]
        return say(self.bob, Commit((), replace(self.path, nodes=nodes)))

    def external(self, *proposals: Proposal | ProposalRef) -> PublicMessage:
        """An external commit of Mallory with an ExternalInit, these proposals and the path of an honest one."""
        return join_with(self.room.follower, self.mallory, (self.external_init, *proposals), path_in(self.joining))

    @property
    def external_init(self) -> Proposal:
        init = commit_in(self.joining).proposals[0]
        assert isinstance(init, ExternalInit)
        return init

    def propose(self, message: bytes | PublicMessage) -> ProposalRef:
        """A proposal that everybody keeps; its reference."""
        public = decode_public(message) if isinstance(message, bytes) else message
        for name, group in self.room.members.items():
            self.room.members[name] = group.stage(MLSMessage(public))
        self.bob, self.carol = self.room.members["bob"], self.room.members["carol"]
        return ProposalRef(public.authenticated.ref(self.room.kem))

    @property
    def pending(self) -> Pending:
        return self.bob.pending

    def update_of(self, name: str, **changes: object) -> ProposalRef:
        """An Update of a member, its leaf changed and signed again; pending with everybody."""
        group = self.room.members[name]
        _, public = self.room.kem.derive_key_pair(self.room.random(32))
        old = group.public.tree.leaf(group.leaf)
        assert old is not None
        leaf = replace(old, encryption_key=public, source=UPDATE, lifetime=None, parent_hash=b"", signature=b"")
        leaf = replace(leaf, **changes)  # type: ignore[arg-type]
        return self.propose(say(group, Update(leaf.signed(group.suite, group.signature_private, group.public.group_id, group.leaf))))

    def added(self, *, leaf: dict[str, object] | None = None, **changes: object) -> PublicMessage:
        """A commit of Bob that adds Mallory by a changed key package."""
        package = key_package(self.room.follower, self.mallory, self.room.random, leaf=leaf, **changes)
        return say(self.bob, Commit((Add(package),), None))


Attack = Callable[[Scene], PublicMessage]


class Attacks(list[tuple[Rule, Attack]]):
    """Attacks with the rule that each breaks."""

    def breaks(self, rule: Rule) -> Callable[[Attack], Attack]:
        """Register an attack on `rule`."""

        def register(attack: Attack) -> Attack:
            self.append((rule, attack))
            return attack

        return register
