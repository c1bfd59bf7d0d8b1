"""Members of MLS groups for tests: real keys, real messages, nothing faked but the randomness."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from broker_crypto.crypto import Suite, suite
from broker_crypto.mls.framing import MLSMessage, PublicMessage
from broker_crypto.mls.group import Group, OwnLeaf, StagedCommit
from broker_crypto.mls.leaf import BASIC, X509, Capabilities, Credential, Extension
from broker_crypto.mls.public import PublicGroup, PublicStaged

PRIVATE_EXTENSION = 0xF0BC  # of the range for private use


def seeded(seed: str) -> Callable[[int], bytes]:
    """A random source that gives the same bytes in every run."""
    counter = 0

    def random(n: int) -> bytes:
        nonlocal counter
        counter += 1
        return hashlib.shake_256(f"{seed}/{counter}".encode()).digest(n)

    return random


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    length = bytes((len(content),)) if len(content) < 128 else b"\x82" + len(content).to_bytes(2, "big")
    if 128 <= len(content) < 256:
        length = b"\x81" + bytes((len(content),))
    return bytes((tag,)) + length + content


def certificate(kem: Suite, public: bytes, name: str) -> bytes:
    """The outline of a certificate for a signature key; nobody signed it, which MLS leaves to the application."""
    empty, key = _der(0x30), kem.signature_scheme.spki_prefix + public
    subject = _der(0x30, _der(0x0C, name.encode()))
    body = _der(0x30, _der(0xA0, _der(2, b"\x02")), _der(2, b"\x01"), empty, empty, empty, subject, key)
    return _der(0x30, body, empty, _der(3, b"\x00"))


def own_leaf(
    kem: Suite, name: str, random: Callable[[int], bytes], *, x509: bool = False, extensions: tuple[Extension, ...] = ()
) -> OwnLeaf:
    """What a client of this name brings; it supports PRIVATE_EXTENSION and both kinds of credential."""
    private, public = kem.signature_key_pair(random)
    credential = Credential.x509([certificate(kem, public, name), b"of the CA"]) if x509 else Credential.basic(name.encode())
    capabilities = Capabilities(cipher_suites=(kem.number,), extensions=(PRIVATE_EXTENSION,), credentials=(BASIC, X509))
    return OwnLeaf(credential, private, public, capabilities, extensions)


def commit_of(staged: StagedCommit) -> PublicMessage:
    """The PublicMessage of a commit."""
    body = MLSMessage.decode(staged.message).body
    assert isinstance(body, PublicMessage)
    return body


@dataclass
class Room:
    """A group with its members and one follower without secrets, who all take every commit."""

    number: int = 1
    random: Callable[[int], bytes] = field(default_factory=lambda: seeded("room"))
    members: dict[str, Group] = field(default_factory=dict)
    own: dict[str, OwnLeaf] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kem = suite(self.number)

    def found(self, name: str, *, extensions: tuple[Extension, ...] = ()) -> None:
        """`name` founds the group; the follower begins with its GroupInfo."""
        self.own[name] = own_leaf(self.kem, name, self.random)
        group = Group.found(self.kem, b"group", self.own[name], extensions=extensions, random=self.random)
        self.members = {name: group}
        self.follower = PublicGroup.from_group_info(group.group_info(ratchet_tree=True))

    @property
    def external_pub(self) -> bytes:
        return next(iter(self.members.values())).external_public

    def joining(self, name: str, *, remove: int | None = None, x509: bool = False) -> StagedCommit:
        """An external commit of `name`, not sent."""
        if name not in self.own:
            self.own[name] = own_leaf(self.kem, name, self.random, x509=x509)
        return Group.external_commit(self.follower, self.external_pub, self.own[name], remove=remove, random=self.random)

    def join(self, name: str, *, remove: int | None = None, x509: bool = False) -> PublicStaged:
        """`name` joins from outside, in place of the leaf `remove`."""
        return self.deliver(name, self.joining(name, remove=remove, x509=x509))

    def deliver(self, name: str, commit: StagedCommit) -> PublicStaged:
        """Everybody takes the commit of `name`; all are then shown to be equal."""
        message = commit_of(commit)
        staged = self.follower.stage(message, pending=next(iter(self.members.values())).pending)
        for other, group in list(self.members.items()):
            if other == name:
                continue
            if group.leaf in staged.removed:
                del self.members[other]
            else:
                self.members[other] = group.enter(staged, message)
        self.members[name] = commit.group
        self.follower = staged.next
        self.check()
        return staged

    def check(self) -> None:
        """All members and the follower are in one state."""
        first = next(iter(self.members.values()))
        for group in self.members.values():
            assert group.public == self.follower
            assert group.epoch_authenticator == first.epoch_authenticator
            assert group.external_public == first.external_public
            assert group.export("test", b"context", 40) == first.export("test", b"context", 40)
            leaf = self.follower.tree.leaf(group.leaf)
            assert leaf is not None
            assert leaf.signature_key == self.kem.signature_public_of(group.signature_private)
        assert sorted(group.leaf for group in self.members.values()) == [index for index, _ in self.follower.tree.leaves()]
