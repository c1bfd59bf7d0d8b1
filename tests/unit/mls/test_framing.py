"""Structures on the wire: each decodes its own encoding, none takes a truncation, what is unknown is malformed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_crypto.crypto import suite as suite_of
from broker_crypto.errors import MalformedInput, PeerError, UsageError
from broker_crypto.mls import framing, proposals, psk
from broker_crypto.mls.framing import MLSMessage, Sender, SenderType, WireFormat
from broker_crypto.mls.group_info import GroupContext
from broker_crypto.wire import tls
from tests.unit.mls.structs import STRUCTS, framed, group_contexts, messages, proposal


@pytest.mark.parametrize("name", STRUCTS)
@settings(max_examples=40)
@given(data=st.data())
def test_a_structure_decodes_its_own_encoding(name: str, data: st.DataObject) -> None:
    strategy, read = STRUCTS[name]
    value = data.draw(strategy)
    encoded = value.encode()
    again: Any = tls.decode(encoded, read)
    assert again == value
    assert again.encode() == encoded


@pytest.mark.parametrize("name", STRUCTS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_every_truncation_of_a_structure_is_malformed(name: str, data: st.DataObject) -> None:
    strategy, read = STRUCTS[name]
    encoded = data.draw(strategy).encode()
    for end in range(len(encoded)):
        with pytest.raises(MalformedInput):
            tls.decode(encoded[:end], read)
    with pytest.raises(MalformedInput):
        tls.decode(encoded + b"\x00", read)


@given(messages, st.data())
def test_a_changed_byte_is_malformed_or_another_message_in_its_own_one_encoding(message: MLSMessage, data: st.DataObject) -> None:
    encoded = bytearray(message.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        changed = MLSMessage.decode(bytes(encoded))
    except MalformedInput:
        return
    assert changed.encode() == encoded
    assert changed != message


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_malformed_or_decode_to_what_encodes_to_them(data: bytes) -> None:
    for body in (data, b"\x00\x01\x00\x01" + data, b"\x00\x01\x00\x03" + data):
        try:
            message = MLSMessage.decode(body)
        except MalformedInput:
            continue
        assert message.encode() == body


@given(proposal)
def test_a_proposal_by_value_and_by_reference_are_told_apart(value: proposals.Proposal) -> None:
    commit = proposals.Commit((value, proposals.ProposalRef(b"\x01" * 32)), None)
    assert tls.decode(commit.encode(), proposals.Commit.read) == commit


@pytest.mark.parametrize(
    "data",
    [
        "0002" + "0005" + "00",  # another protocol version
        "0001" + "0000" + "00",  # reserved wire format
        "0001" + "0006" + "00",  # unknown wire format
        "0001" + "0001" + "00" + "00" * 8 + "00" + "00" * 9,  # reserved sender type
        "0001" + "0001" + "00" + "00" * 8 + "05" + "00" * 9,  # unknown sender type
        "0001" + "0001" + "00" + "00" * 8 + "0100000000" + "00" + "00" + "00" * 9,  # reserved content type
        "0001" + "0001" + "00" + "00" * 8 + "0100000000" + "00" + "04" + "00" * 9,  # unknown content type
        "0001" + "0002" + "00" + "00" * 8 + "00" + "00" * 9,  # the same in a PrivateMessage
        "0001" + "0001" + "00" + "00" * 8 + "0100000000" + "00" + "02" + "0000" + "00" * 9,  # reserved proposal type
        "0001" + "0001" + "00" + "00" * 8 + "0100000000" + "00" + "02" + "0008" + "00" * 9,  # unknown proposal type
        "0001" + "0001" + "00" + "00" * 8 + "0100000000" + "00" + "02" + "0a0a" + "00" * 9,  # a GREASE proposal type
        "0001" + "0001" + "00" + "00" * 8 + "0100000000" + "00" + "02" + "000403" + "00" * 9,  # unknown PSK type
        "0001" + "0001" + "00" + "00" * 8 + "0100000000" + "00" + "02" + "00040200" + "00" * 20,  # reserved usage
        "0001" + "0001" + "00" + "00" * 8 + "0100000000" + "00" + "03" + "020300" + "00" + "00" * 9,  # neither proposal nor reference
    ],
)
def test_what_the_specification_does_not_define_is_malformed(data: str) -> None:
    with pytest.raises(MalformedInput):
        MLSMessage.decode(bytes.fromhex(data))


@given(framed, group_contexts)
def test_what_is_signed_holds_the_group_context_for_those_who_know_it(content: framing.FramedContent, context: GroupContext) -> None:
    signed = content.to_be_signed(WireFormat.PRIVATE_MESSAGE, context)
    inside = content.sender.type in (SenderType.MEMBER, SenderType.NEW_MEMBER_COMMIT)
    assert signed == b"\x00\x01\x00\x02" + content.encode() + (context.encode() if inside else b"")


def test_the_format_is_signed() -> None:
    content = framing.FramedContent(b"g", 1, Sender.member(0), b"", proposals.Remove(1))
    context = GroupContext(1, 1, b"g", 1, b"", b"")
    public = content.to_be_signed(WireFormat.PUBLIC_MESSAGE, context)
    assert public != content.to_be_signed(WireFormat.PRIVATE_MESSAGE, context)


SUITE = suite_of(1)


def test_psk_secrets_depend_on_order_and_id_and_on_every_key() -> None:
    first, second = psk.ExternalPsk(b"a", bytes(32)), psk.ResumptionPsk(psk.Usage.APPLICATION, b"g", 3, bytes(32))
    base = psk.psk_secret(SUITE, [(first, b"1"), (second, b"2")])
    others = [
        [(second, b"2"), (first, b"1")],
        [(first, b"1")],
        [(first, b"1"), (second, b"3")],
        [(psk.ExternalPsk(b"a", b"\x01" * 32), b"1"), (second, b"2")],
        [(first, b"1"), (psk.ResumptionPsk(psk.Usage.BRANCH, b"g", 3, bytes(32)), b"2")],
    ]
    assert len({base, *(psk.psk_secret(SUITE, pairs) for pairs in others)}) == 6
    assert psk.psk_secret(SUITE, []) == bytes(32)


def test_a_key_that_is_not_held_is_named() -> None:
    held = psk.PskSecrets({b"a": b"1"}, {(b"g", 3): b"2"})
    ids = [psk.ExternalPsk(b"a", bytes(32)), psk.ResumptionPsk(psk.Usage.APPLICATION, b"g", 3, bytes(32))]
    assert psk.gather(SUITE, ids, held) == psk.psk_secret(SUITE, [(ids[0], b"1"), (ids[1], b"2")])
    with pytest.raises(PeerError, match="epoch 4") as refused:
        psk.gather(SUITE, [psk.ResumptionPsk(psk.Usage.APPLICATION, b"g", 4, bytes(32))], held)
    assert refused.value.rule == "psk_held"
    with pytest.raises(PeerError, match="external 62"):
        psk.gather(SUITE, [psk.ExternalPsk(b"b", bytes(32))], held)
    assert psk.gather(SUITE, ids, psk.PskSecrets().joined(held)) == psk.gather(SUITE, ids, held)
    assert "b'1'" not in repr(held)


def test_more_keys_than_a_count_can_say_are_refused() -> None:
    with pytest.raises(UsageError):
        psk.psk_secret(SUITE, [(psk.ExternalPsk(b"a", b""), b"1")] * 65536)
