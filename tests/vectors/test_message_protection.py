"""message-protection.json of the MLS working group: published messages open, ours open again, application data stays private."""

from __future__ import annotations

import secrets as system
from dataclasses import dataclass, replace
from typing import Any

import pytest

from broker_crypto.crypto import Suite
from broker_crypto.crypto import suite as suite_of
from broker_crypto.errors import PeerError, UsageError
from broker_crypto.mls import key_schedule, protection
from broker_crypto.mls.framing import (
    AuthData,
    AuthenticatedContent,
    Content,
    FramedContent,
    MLSMessage,
    PrivateMessage,
    PublicMessage,
    Sender,
    WireFormat,
    encode_content,
    sign,
)
from broker_crypto.mls.group_info import GroupContext
from broker_crypto.mls.proposals import Commit, encode_proposal, read_proposal
from broker_crypto.mls.secret_tree import SecretTree
from broker_crypto.wire import tls
from tests.vectors.published_keys import signature_private
from tests.vectors.vectors_path import load

FIELDS = {
    "cipher_suite",
    "group_id",
    "epoch",
    "tree_hash",
    "confirmed_transcript_hash",
    "signature_priv",
    "signature_pub",
    "encryption_secret",
    "sender_data_secret",
    "membership_key",
    "proposal",
    "proposal_priv",
    "proposal_pub",
    "commit",
    "commit_priv",
    "commit_pub",
    "application",
    "application_priv",
}
CASES = range(7)


@dataclass(frozen=True)
class Scene:
    """One case: the state of a group of two, with leaf 1 as the sender."""

    suite: Suite
    given: dict[str, bytes]
    context: GroupContext
    secrets: key_schedule.EpochSecrets
    tree: SecretTree

    def key_of(self, leaf: int) -> bytes | None:
        return self.given["signature_pub"] if leaf == 1 else None

    def open(self, message: PrivateMessage) -> tuple[AuthenticatedContent, SecretTree]:
        return protection.open_private(message, self.secrets, self.tree, self.context, self.key_of)

    def signed(self, content: Content, wire_format: WireFormat) -> AuthenticatedContent:
        framed = FramedContent(self.context.group_id, self.context.epoch, Sender.member(1), b"not secret", content)
        signature = sign(self.suite, signature_private(self.suite, self.given["signature_priv"].hex()), framed, wire_format, self.context)
        tag = system.token_bytes(self.suite.nh) if isinstance(content, Commit) else None
        return AuthenticatedContent(wire_format, framed, AuthData(signature, tag))


def scene_of(case: dict[str, Any]) -> Scene:
    assert set(case) == FIELDS
    suite = suite_of(case["cipher_suite"])
    given = {name: bytes.fromhex(value) for name, value in case.items() if isinstance(value, str)}
    context = GroupContext(1, suite.number, given["group_id"], case["epoch"], given["tree_hash"], given["confirmed_transcript_hash"])
    begun = key_schedule.found(suite, bytes(suite.nh))
    kept = replace(begun.secrets, sender_data_secret=given["sender_data_secret"], membership_key=given["membership_key"])
    return Scene(suite, given, context, kept, SecretTree.begin(suite, given["encryption_secret"], 2))


@pytest.fixture(params=CASES, ids=lambda n: f"suite {n + 1}")
def scene(request: pytest.FixtureRequest) -> Scene:
    cases = load("message-protection")
    assert [case["cipher_suite"] for case in cases] == [1, 2, 3, 4, 5, 6, 7]
    return scene_of(cases[request.param])


def raw(scene: Scene, name: str) -> Content:
    """The proposal, commit or application data of the case, read from its own encoding."""
    data = scene.given[name]
    if name == "application":
        return data
    content: Content = tls.decode(data, Commit.read if name == "commit" else read_proposal)
    encoded = content.encode() if isinstance(content, Commit) else encode_proposal(content)  # type: ignore[arg-type]
    assert encoded == data
    return content


@pytest.mark.parametrize("name", ["proposal", "commit"])
def test_a_published_public_message_verifies_and_holds_the_content(scene: Scene, name: str) -> None:
    data = scene.given[f"{name}_pub"]
    message = MLSMessage.decode(data)
    assert message.encode() == data
    public = message.body
    assert isinstance(public, PublicMessage)
    assert protection.membership_tag_holds(public, scene.secrets, scene.context)
    assert public.authenticated.signature_holds(scene.suite, scene.given["signature_pub"], scene.context)
    assert public.content.content == raw(scene, name)
    assert public.content.sender == Sender.member(1)


@pytest.mark.parametrize("name", ["proposal", "commit"])
def test_our_public_message_verifies_and_a_changed_one_does_not(scene: Scene, name: str) -> None:
    signed = scene.signed(raw(scene, name), WireFormat.PUBLIC_MESSAGE)
    data = MLSMessage(protection.public_message(signed, scene.secrets, scene.context)).encode()
    message = MLSMessage.decode(data).body
    assert isinstance(message, PublicMessage)
    assert protection.membership_tag_holds(message, scene.secrets, scene.context)
    assert message.authenticated == signed
    assert message.authenticated.signature_holds(scene.suite, scene.given["signature_pub"], scene.context)
    other = replace(scene.context, epoch=scene.context.epoch + 1)
    assert not protection.membership_tag_holds(message, scene.secrets, other)
    assert not message.authenticated.signature_holds(scene.suite, scene.given["signature_pub"], other)
    assert not protection.membership_tag_holds(replace(message, membership_tag=bytes(scene.suite.nh)), scene.secrets, scene.context)


def test_application_data_does_not_go_into_a_public_message(scene: Scene) -> None:
    with pytest.raises(UsageError):
        scene.signed(scene.given["application"], WireFormat.PUBLIC_MESSAGE)
    signed = replace(scene.signed(scene.given["application"], WireFormat.PRIVATE_MESSAGE), wire_format=WireFormat.PUBLIC_MESSAGE)
    with pytest.raises(UsageError):
        protection.public_message(signed, scene.secrets, scene.context)


@pytest.mark.parametrize("name", ["proposal", "commit", "application"])
def test_a_published_private_message_opens_once(scene: Scene, name: str) -> None:
    data = scene.given[f"{name}_priv"]
    message = MLSMessage.decode(data)
    assert message.encode() == data
    assert isinstance(message.body, PrivateMessage)
    opened, tree = scene.open(message.body)
    assert opened.content.content == raw(scene, name)
    assert opened.content.sender == Sender.member(1)
    with pytest.raises(PeerError) as refused:
        replace(scene, tree=tree).open(message.body)
    assert refused.value.rule == "generation"


@pytest.mark.parametrize("name", ["proposal", "commit", "application"])
@pytest.mark.parametrize("padding", [0, 256])
def test_our_private_message_opens(scene: Scene, name: str, padding: int) -> None:
    signed = scene.signed(raw(scene, name), WireFormat.PRIVATE_MESSAGE)
    sealed, tree = protection.seal(signed, scene.secrets, scene.tree, padding=padding, random=system.token_bytes)
    assert tree != scene.tree
    message = MLSMessage.decode(MLSMessage(sealed).encode()).body
    assert isinstance(message, PrivateMessage)
    opened, _ = scene.open(message)
    assert opened == signed
    assert encode_content(opened.content.content) not in message.ciphertext
    if padding:
        assert (len(message.ciphertext) - 16) % padding == 0
