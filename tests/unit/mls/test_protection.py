"""PrivateMessages of a made-up group of four: what is changed does not open, and what is refused changes nothing."""

from __future__ import annotations

import secrets as system
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from broker_crypto.crypto import suite as suite_of
from broker_crypto.errors import PeerError, UsageError
from broker_crypto.mls import key_schedule, protection
from broker_crypto.mls.framing import (
    AuthData,
    AuthenticatedContent,
    Content,
    ContentType,
    FramedContent,
    MLSMessage,
    PrivateMessage,
    PublicMessage,
    Sender,
    SenderType,
    WireFormat,
    encode_content,
    sign,
)
from broker_crypto.mls.group_info import GroupContext
from broker_crypto.mls.proposals import Remove
from broker_crypto.mls.secret_tree import RatchetKind, SecretTree
from broker_crypto.wire import tls

SUITE = suite_of(1)
CONTEXT = GroupContext(1, 1, b"group", 7, bytes(32), bytes(32))
BLANK = 2


@dataclass(frozen=True)
class Members:
    """Keys of the leaves 0, 1 and 3; leaf 2 is blank."""

    private: dict[int, bytes]
    public: dict[int, bytes]
    epoch: key_schedule.NextEpoch
    tree: SecretTree = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", SecretTree.begin(SUITE, self.epoch.encryption_secret, 4))

    def signed(self, content: Content, leaf: int = 1, by: int | None = None) -> AuthenticatedContent:
        framed = FramedContent(CONTEXT.group_id, CONTEXT.epoch, Sender.member(leaf), b"in clear", content)
        signature = sign(SUITE, self.private[leaf if by is None else by], framed, WireFormat.PRIVATE_MESSAGE, CONTEXT)
        return AuthenticatedContent(WireFormat.PRIVATE_MESSAGE, framed, AuthData(signature))

    def seal(self, signed: AuthenticatedContent, padding: int = 0) -> PrivateMessage:
        return protection.seal(signed, self.epoch.secrets, self.tree, padding=padding, random=system.token_bytes)[0]

    def open(self, message: PrivateMessage, tree: SecretTree | None = None) -> tuple[AuthenticatedContent, SecretTree]:
        return protection.open_private(message, self.epoch.secrets, tree or self.tree, CONTEXT, self.public.get)

    def forge(self, plain: bytes, kind: ContentType, leaf: int = 1, generation: int = 0) -> PrivateMessage:
        """A message that any member can seal: right keys, any sender data, any plaintext."""
        ratchet = RatchetKind.APPLICATION if kind is ContentType.APPLICATION else RatchetKind.HANDSHAKE
        key, _ = self.tree.take(leaf % 4, ratchet, generation)
        head = tls.opaque(CONTEXT.group_id) + tls.u64(CONTEXT.epoch) + tls.u8(kind)
        ciphertext = SUITE.seal(key.key, key.nonce, plain, head + tls.opaque(b""))
        return self.with_sender_data(ciphertext, kind, leaf, generation)

    def with_sender_data(self, ciphertext: bytes, kind: ContentType, leaf: int, generation: int) -> PrivateMessage:
        """Any ciphertext with sender data that opens."""
        head = tls.opaque(CONTEXT.group_id) + tls.u64(CONTEXT.epoch) + tls.u8(kind)
        data_key = protection.sender_data_key(SUITE, self.epoch.secrets.sender_data_secret, ciphertext)
        sender = protection.SenderData(leaf, generation, bytes(4)).encode()
        sealed = SUITE.seal(data_key.key, data_key.nonce, sender, head)
        return PrivateMessage(CONTEXT.group_id, CONTEXT.epoch, kind, b"", sealed, ciphertext)


@pytest.fixture(scope="module")
def members() -> Members:
    pairs = {leaf: SUITE.signature_key_pair(system.token_bytes) for leaf in (0, 1, 3)}
    private, public = {leaf: pair[0] for leaf, pair in pairs.items()}, {leaf: pair[1] for leaf, pair in pairs.items()}
    return Members(private, public, key_schedule.found(SUITE, system.token_bytes(32)))


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(PeerError) as error:
        act()
    return str(error.value.rule)


def test_what_was_sealed_opens_and_names_its_sender(members: Members) -> None:
    signed = members.signed(b"hello", leaf=3)
    opened, tree = members.open(members.seal(signed))
    assert opened == signed
    assert opened.content.sender == Sender(SenderType.MEMBER, 3)
    assert tree.next_generation(3, RatchetKind.APPLICATION) == 1
    assert tree.next_generation(3, RatchetKind.HANDSHAKE) == 0


def test_every_changed_bit_is_refused_and_the_genuine_message_then_opens(members: Members) -> None:
    signed = members.signed(b"hello")
    data, before = MLSMessage(members.seal(signed)).encode(), members.tree.encode()

    def opened(changed: bytes) -> AuthenticatedContent:
        body = MLSMessage.decode(changed).body
        if not isinstance(body, PrivateMessage):
            raise PeerError("another kind of message")
        return members.open(body)[0]

    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PeerError):
            opened(bytes(changed))
    assert members.tree.encode() == before
    assert opened(data) == signed


def test_nothing_of_the_content_nor_of_the_sender_is_in_the_message(members: Members) -> None:
    message = members.seal(members.signed(b"a plaintext of some length", leaf=3)).encode()
    assert b"plaintext" not in message
    assert b"in clear" in message
    assert (3).to_bytes(4, "big") + bytes(4) not in message


def test_a_replayed_message_is_refused(members: Members) -> None:
    message = members.seal(members.signed(b"once"))
    _, tree = members.open(message)
    assert refused(lambda: members.open(message, tree)) == "generation"


def test_messages_open_in_any_order(members: Members) -> None:
    tree, messages = members.tree, []
    for n in range(4):
        message, tree = protection.seal(members.signed(bytes([n])), members.epoch.secrets, tree, random=system.token_bytes)
        messages.append(message)
    receiver = members.tree
    for n in (3, 0, 2, 1):
        opened, receiver = members.open(messages[n], receiver)
        assert opened.content.content == bytes([n])


def test_a_member_cannot_speak_for_another(members: Members) -> None:
    message = members.seal(members.signed(b"forged", leaf=1, by=3))
    assert refused(lambda: members.open(message)) == "message_signature"


def test_a_blank_leaf_and_one_outside_the_tree_send_nothing(members: Members) -> None:
    plain = encode_content(b"x") + AuthData(bytes(64)).encode()
    for leaf in (BLANK, 4, 2**32 - 1):
        message = members.forge(plain, ContentType.APPLICATION, leaf=leaf)
        assert refused(lambda message=message: members.open(message)) == "sender_leaf"


def test_padding_must_be_zeros(members: Members) -> None:
    framed = FramedContent(CONTEXT.group_id, CONTEXT.epoch, Sender.member(1), b"", b"x")
    auth = AuthData(sign(SUITE, members.private[1], framed, WireFormat.PRIVATE_MESSAGE, CONTEXT))
    plain = encode_content(b"x") + auth.encode()
    assert members.open(members.forge(plain + bytes(9), ContentType.APPLICATION))[0].content == framed
    for padding in (b"\x01", bytes(8) + b"\x01", b"\x01" + bytes(8)):
        message = members.forge(plain + padding, ContentType.APPLICATION)
        assert refused(lambda message=message: members.open(message)) == "padding"


def test_content_of_another_form_is_malformed_and_leaves_the_tree(members: Members) -> None:
    before = members.tree.encode()
    for plain in (b"", b"\x05abc", encode_content(b"x"), encode_content(b"x") + b"\x40"):
        with pytest.raises(PeerError):
            members.open(members.forge(plain, ContentType.APPLICATION))
    with pytest.raises(PeerError):
        members.open(members.forge(encode_content(b"x") + AuthData(bytes(64)).encode(), ContentType.COMMIT))
    assert members.tree.encode() == before


def test_sender_data_of_another_length_is_malformed(members: Members) -> None:
    good = members.seal(members.signed(b"x"))
    key = protection.sender_data_key(SUITE, members.epoch.secrets.sender_data_secret, good.ciphertext)
    head = tls.opaque(CONTEXT.group_id) + tls.u64(CONTEXT.epoch) + tls.u8(ContentType.APPLICATION)
    for n in (0, 11, 13):
        message = replace(good, encrypted_sender_data=SUITE.seal(key.key, key.nonce, bytes(n), head))
        with pytest.raises(PeerError, match="another length"):
            members.open(message)


def test_ciphertexts_shorter_than_a_tag_are_refused(members: Members) -> None:
    good = members.seal(members.signed(b"x"))
    for n in (0, 1, 15, 16):
        assert refused(lambda n=n: members.open(replace(good, encrypted_sender_data=bytes(n)))) == "sender_data"
        assert refused(lambda n=n: members.open(replace(good, ciphertext=bytes(n)))) == "sender_data"
        short = members.with_sender_data(bytes(n), ContentType.APPLICATION, 1, 0)
        assert refused(lambda short=short: members.open(short)) == "ciphertext"


def test_group_and_epoch_are_compared_first(members: Members) -> None:
    good = members.seal(members.signed(b"x"))
    assert refused(lambda: members.open(replace(good, group_id=b"other"))) == "group_id"
    assert refused(lambda: members.open(replace(good, epoch=8))) == "epoch"


def test_two_seals_of_one_generation_have_different_nonces(members: Members) -> None:
    first, second = (members.seal(members.signed(b"same")) for _ in range(2))
    assert first.ciphertext != second.ciphertext
    for message in (first, second):
        assert members.open(message)[0].content.content == b"same"


def test_handshakes_and_application_data_use_their_own_ratchets(members: Members) -> None:
    _, tree = members.open(members.seal(members.signed(Remove(3))))
    assert tree.next_generation(1, RatchetKind.HANDSHAKE) == 1
    assert tree.next_generation(1, RatchetKind.APPLICATION) == 0


def test_only_a_member_seals_and_only_what_was_signed_for_it(members: Members) -> None:
    signed = members.signed(Remove(3))
    outside = replace(signed, content=replace(signed.content, sender=Sender(SenderType.EXTERNAL, 0)))
    with pytest.raises(UsageError):
        members.seal(outside)
    with pytest.raises(UsageError):
        members.seal(replace(signed, wire_format=WireFormat.PUBLIC_MESSAGE))


def test_a_membership_tag_is_there_for_members_and_covers_everything(members: Members) -> None:
    framed = FramedContent(CONTEXT.group_id, CONTEXT.epoch, Sender.member(1), b"", Remove(3))
    auth = AuthData(sign(SUITE, members.private[1], framed, WireFormat.PUBLIC_MESSAGE, CONTEXT))
    message = protection.public_message(AuthenticatedContent(WireFormat.PUBLIC_MESSAGE, framed, auth), members.epoch.secrets, CONTEXT)

    def holds(changed: PublicMessage) -> bool:
        return protection.membership_tag_holds(changed, members.epoch.secrets, CONTEXT)

    assert holds(message)
    assert not holds(replace(message, membership_tag=None))
    assert not holds(replace(message, membership_tag=b""))
    assert not holds(replace(message, auth=AuthData(bytes(64))))
    assert not holds(replace(message, content=replace(framed, content=Remove(0))))
    outside = replace(framed, sender=Sender(SenderType.EXTERNAL, 0))
    external = AuthenticatedContent(WireFormat.PUBLIC_MESSAGE, outside, auth)
    assert protection.public_message(external, members.epoch.secrets, CONTEXT).membership_tag is None
