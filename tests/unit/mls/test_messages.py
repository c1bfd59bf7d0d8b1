"""Messages between members of a real group: private handshakes, application data, and what hostile insiders send."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_crypto.crypto import suite as suite_of
from broker_crypto.errors import PeerError, UsageError
from broker_crypto.mls import joining, key_schedule, protection, welcome
from broker_crypto.mls.framing import ContentType, MLSMessage, PrivateMessage
from broker_crypto.mls.group import CannotEnter, Group
from broker_crypto.mls.joining import Invitation, OwnKeyPackage
from broker_crypto.mls.proposals import Add, Remove
from broker_crypto.mls.secret_tree import RatchetKind
from broker_crypto.mls.update_path import HPKECiphertext
from broker_crypto.mls.welcome import EncryptedGroupSecrets, Welcome
from broker_crypto.wire import tls
from tests.support.members import own_leaf, seeded

SUITE = suite_of(1)
random = seeded("messages")
NAMES = ("alice", "bob", "carol", "dave")


@dataclass
class Trio:
    """Groups of alice, bob, carol and dave in one epoch, and what carol joined with."""

    alice: Group
    bob: Group
    carol: Group
    dave: Group
    own: OwnKeyPackage
    sent: Welcome

    @classmethod
    def make(cls) -> Trio:
        alice = Group.found(SUITE, b"group", own_leaf(SUITE, "alice", random), random=random)
        packages = [OwnKeyPackage.create(SUITE, own_leaf(SUITE, name, random), random=random) for name in NAMES[1:]]
        staged = alice.commit(proposals=[Add(own.key_package) for own in packages], now=0, random=random)
        assert staged.welcome is not None
        joined = [joining.join(Invitation(staged.welcome), own) for own in packages]
        return cls(staged.group, *joined, packages[1], staged.welcome)


@pytest.fixture
def trio() -> Trio:
    return Trio.make()


def rule(act: Callable[[], object], *unchanged: Group) -> str:
    """The rule that `act` breaks; the groups are as they were."""
    before = [group.to_bytes() for group in unchanged]
    with pytest.raises(PeerError) as refused:
        act()
    assert [group.to_bytes() for group in unchanged] == before
    return str(getattr(refused.value, "rule", None) or getattr(refused.value, "reason", None) or type(refused.value).__name__)


def test_proposals_and_commits_in_private_messages_lead_everybody_to_one_epoch(trio: Trio) -> None:
    update, bob = trio.bob.propose_update(private=True, random=random)
    remove, carol = trio.carol.propose(Remove(3), private=True, random=random)
    alice = trio.alice.stage(update).stage(remove)
    bob, carol = bob.stage(remove), carol.stage(update)
    assert alice.pending.keys() == bob.pending.keys() == carol.pending.keys()
    assert len(alice.pending) == 2
    staged = alice.commit(references=list(alice.pending), private=True, random=random)
    bob, carol = bob.stage(staged.message), carol.stage(staged.message)
    assert bob.epoch_authenticator == carol.epoch_authenticator == staged.group.epoch_authenticator
    assert not bob.pending
    with pytest.raises(CannotEnter) as out:
        trio.dave.stage(update).stage(remove).stage(staged.message)
    assert out.value.reason == "removed"
    # bob's new key works: he follows the next path, which is sealed to it.
    after = staged.group.commit(private=True, random=random)
    assert bob.stage(after.message).epoch_authenticator == after.group.epoch_authenticator


def test_a_private_commit_shows_nothing_of_what_it_does(trio: Trio) -> None:
    staged = trio.alice.commit(proposals=[Remove(3)], authenticated_data=b"in clear", private=True, random=random)
    body = MLSMessage.decode(staged.message).body
    assert isinstance(body, PrivateMessage)
    assert (body.content_type, body.authenticated_data) == (ContentType.COMMIT, b"in clear")
    new = staged.group.public.tree.leaf(0)
    assert new is not None
    assert new.encryption_key not in staged.message


def test_a_sender_keeps_its_ratchet_moving_while_its_commit_waits(trio: Trio) -> None:
    staged = trio.alice.commit(private=True, random=random)
    assert staged.current is not None
    again = staged.current.commit(private=True, random=random)
    first, second = (MLSMessage.decode(message).body for message in (staged.message, again.message))
    assert isinstance(first, PrivateMessage)
    assert isinstance(second, PrivateMessage)
    assert staged.current.secret_tree.next_generation(0, RatchetKind.HANDSHAKE) == 1
    # Either may win; the other is then of a past epoch.
    assert trio.bob.stage(again.message).epoch_authenticator == again.group.epoch_authenticator
    bob = trio.bob.stage(staged.message)
    assert rule(lambda: bob.stage(again.message), bob) == "epoch"


def test_a_refused_commit_does_not_stop_the_genuine_one(trio: Trio) -> None:
    for private in (False, True):
        staged = trio.alice.commit(private=private, random=random)
        for at in (-1, -40, 60, 200):
            data = bytearray(staged.message)
            data[at] ^= 1
            rule(lambda data=data: trio.bob.stage(bytes(data)), trio.bob)
        assert trio.bob.stage(staged.message).epoch == 2


def test_application_data_reaches_every_member_once(trio: Trio) -> None:
    message, _ = trio.alice.protect(b"hello", authenticated_data=b"seen by all", padding=128, random=random)
    for group in (trio.bob, trio.carol, trio.dave):
        content, after = group.unprotect(message)
        assert (content.content, content.sender.index, content.authenticated_data) == (b"hello", 0, b"seen by all")
        assert rule(lambda after=after: after.unprotect(message), after) == "generation"


def test_a_sender_does_not_open_its_own_message(trio: Trio) -> None:
    message, alice = trio.alice.protect(b"hello", random=random)
    assert rule(lambda: alice.unprotect(message), alice) == "generation"


def test_a_late_message_opens_with_the_value_of_its_epoch_only(trio: Trio) -> None:
    message, _ = trio.alice.protect(b"late", random=random)
    staged = trio.carol.commit(random=random)
    bob = trio.bob.stage(staged.message)
    assert rule(lambda: bob.unprotect(message), bob) == "epoch"
    assert trio.bob.unprotect(message)[0].content == b"late"


def test_messages_are_opened_by_what_they_are_for(trio: Trio) -> None:
    application, _ = trio.alice.protect(b"x", random=random)
    handshake = trio.alice.commit(private=True, random=random).message
    public = trio.alice.commit(random=random).message
    package = MLSMessage(trio.own.key_package).encode()
    assert rule(lambda: trio.bob.stage(application), trio.bob) == "message_kind"
    assert rule(lambda: trio.bob.unprotect(handshake), trio.bob) == "message_kind"
    assert rule(lambda: trio.bob.unprotect(public), trio.bob) == "message_kind"
    for message in (package, MLSMessage(trio.sent).encode(), MLSMessage(trio.alice.group_info()).encode()):
        assert rule(lambda message=message: trio.bob.stage(message), trio.bob) == "message_kind"
        assert rule(lambda message=message: trio.bob.unprotect(message), trio.bob) == "message_kind"


def test_no_application_data_is_sent_while_proposals_are_pending(trio: Trio) -> None:
    message, bob = trio.bob.propose(Remove(3), random=random)
    with pytest.raises(UsageError):
        bob.protect(b"x", random=random)
    with pytest.raises(UsageError):
        trio.alice.stage(message).protect(b"x", random=random)


def test_one_who_was_removed_opens_nothing_of_the_next_epoch(trio: Trio) -> None:
    staged = trio.alice.commit(proposals=[Remove(3)], random=random)
    message, _ = staged.group.protect(b"not for dave", random=random)
    assert trio.bob.stage(staged.message).unprotect(message)[0].content == b"not for dave"
    body = MLSMessage.decode(message).body
    assert isinstance(body, PrivateMessage)
    # Even with everything that dave holds of his epoch, and the epoch's public state.
    context = replace(staged.group.public.context)
    with pytest.raises(PeerError):
        protection.open_private(body, trio.dave.secrets, trio.dave.secret_tree, context, lambda leaf: None)
    assert rule(lambda: trio.dave.unprotect(message), trio.dave) == "epoch"


def sealed_by(group: Group, kind: ContentType, plain: bytes, *, leaf: int = 0, generation: int = 0) -> MLSMessage:
    """Any plaintext, sealed with the keys of the epoch as any member can."""
    ratchet = RatchetKind.APPLICATION if kind is ContentType.APPLICATION else RatchetKind.HANDSHAKE
    key, _ = group.secret_tree.take(leaf, ratchet, generation)
    head = tls.opaque(b"group") + tls.u64(group.epoch) + tls.u8(kind)
    ciphertext = SUITE.seal(key.key, key.nonce, plain, head + tls.opaque(b""))
    data_key = protection.sender_data_key(SUITE, group.secrets.sender_data_secret, ciphertext)
    sender = protection.SenderData(leaf, generation, bytes(4)).encode()
    sealed = SUITE.seal(data_key.key, data_key.nonce, sender, head)
    return MLSMessage(PrivateMessage(b"group", group.epoch, kind, b"", sealed, ciphertext))


TRIO = Trio.make()


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(ContentType), st.binary(max_size=200))
def test_any_plaintext_of_an_insider_is_refused_in_words_of_ours(kind: ContentType, plain: bytes) -> None:
    message = sealed_by(TRIO.alice, kind, plain)
    opens = TRIO.bob.unprotect if kind is ContentType.APPLICATION else TRIO.bob.stage
    rule(lambda: opens(message), TRIO.bob)


def invited(secrets: bytes, info: bytes, joiner_secret: bytes) -> Welcome:
    """A Welcome to carol with any bytes for group secrets and GroupInfo."""
    key, nonce = key_schedule.welcome_key(SUITE, key_schedule.welcome_secret(SUITE, joiner_secret, bytes(32)))
    encrypted_info = SUITE.seal(key, nonce, info, b"")
    sealed = SUITE.encrypt_with_label(TRIO.own.key_package.init_key, "Welcome", encrypted_info, secrets, random)
    return Welcome(1, (EncryptedGroupSecrets(TRIO.own.key_package.ref(SUITE), HPKECiphertext(*sealed)),), encrypted_info)


SECRETS = welcome.open_secrets(SUITE, TRIO.sent, TRIO.own.key_package, TRIO.own.init_private)
INFO = welcome.open_group_info(SUITE, TRIO.sent, SECRETS.joiner_secret, bytes(32)).encode()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_group_secrets_and_any_group_info_of_an_inviter_lead_into_the_true_group_or_nowhere(data: st.DataObject) -> None:
    secrets, info = bytearray(SECRETS.encode()), bytearray(INFO)
    target = data.draw(st.sampled_from([secrets, info]))
    at = data.draw(st.integers(0, len(target) - 1))
    target[at : at + data.draw(st.integers(1, 40))] = data.draw(st.binary(max_size=40))
    joiner_secret = SECRETS.joiner_secret
    if target is secrets and data.draw(st.booleans()):
        try:
            joiner_secret = welcome.GroupSecrets.decode(bytes(secrets)).joiner_secret
        except PeerError:
            pass
    try:
        group = joining.join(Invitation(invited(bytes(secrets), bytes(info), joiner_secret)), TRIO.own)
    except PeerError:
        return
    # A path secret that was left out cannot be missed by the newcomer; all else is bound to the epoch.
    assert group.public == TRIO.alice.public
    assert group.epoch_authenticator == TRIO.alice.epoch_authenticator
