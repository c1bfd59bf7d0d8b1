"""messages.json of the MLS working group: every structure decodes, encodes to the same bytes, and no truncation is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker_crypto.errors import MalformedInput
from broker_crypto.mls import proposals
from broker_crypto.mls.framing import ContentType, MLSMessage, PublicMessage, WireFormat
from broker_crypto.mls.group_info import GroupInfo
from broker_crypto.mls.welcome import GroupSecrets
from broker_crypto.wire import tls
from tests.vectors.vectors_path import load

MESSAGES = {
    "mls_welcome": WireFormat.WELCOME,
    "mls_group_info": WireFormat.GROUP_INFO,
    "mls_key_package": WireFormat.KEY_PACKAGE,
    "public_message_application": WireFormat.PUBLIC_MESSAGE,
    "public_message_proposal": WireFormat.PUBLIC_MESSAGE,
    "public_message_commit": WireFormat.PUBLIC_MESSAGE,
    "private_message": WireFormat.PRIVATE_MESSAGE,
}
STRUCTS: dict[str, Callable[[tls.Reader], Any]] = {
    "group_secrets": GroupSecrets.read,
    "add_proposal": proposals.Add.read,
    "update_proposal": proposals.Update.read,
    "remove_proposal": proposals.Remove.read,
    "pre_shared_key_proposal": proposals.PreSharedKey.read,
    "re_init_proposal": proposals.ReInit.read,
    "external_init_proposal": proposals.ExternalInit.read,
    "group_context_extensions_proposal": proposals.GroupContextExtensions.read,
    "commit": proposals.Commit.read,
}
CASES = 300


def reader_of(name: str) -> Callable[[tls.Reader], Any]:
    return MLSMessage.read if name in MESSAGES else STRUCTS[name]


def test_every_field_decodes_and_encodes_to_the_same_bytes() -> None:
    cases, fields = load("messages"), 0
    assert len(cases) == CASES
    for case in cases:
        assert set(case) == {*MESSAGES, *STRUCTS, "ratchet_tree"}
        for name in (*MESSAGES, *STRUCTS):
            data = bytes.fromhex(case[name])
            value = tls.decode(data, reader_of(name))
            assert value.encode() == data, name
            assert tls.decode(value.encode(), reader_of(name)) == value
            fields += 1
    assert fields == CASES * 16


def test_messages_are_of_the_kind_that_the_field_names() -> None:
    kinds = {"application": ContentType.APPLICATION, "proposal": ContentType.PROPOSAL, "commit": ContentType.COMMIT}
    for case in load("messages"):
        for name, wire_format in MESSAGES.items():
            message = MLSMessage.decode(bytes.fromhex(case[name]))
            assert message.wire_format is wire_format
            if isinstance(message.body, PublicMessage):
                assert message.body.content.content_type is kinds[name.rsplit("_", 1)[1]]
            if isinstance(message.body, GroupInfo):
                assert message.body.group_context.version == 1


@pytest.mark.parametrize("name", [*MESSAGES, *STRUCTS])
def test_every_truncation_and_every_extension_is_malformed(name: str) -> None:
    data = bytes.fromhex(load("messages")[0][name])
    for end in range(len(data)):
        with pytest.raises(MalformedInput):
            tls.decode(data[:end], reader_of(name))
    with pytest.raises(MalformedInput):
        tls.decode(data + b"\x00", reader_of(name))
