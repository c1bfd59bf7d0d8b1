"""welcome.json of the MLS working group: the Welcome opens, its GroupInfo is signed, its confirmation tag holds."""

from __future__ import annotations

import pytest

from broker_crypto.crypto import suite as suite_of
from broker_crypto.errors import PeerError
from broker_crypto.mls import key_schedule, psk, welcome
from broker_crypto.mls.framing import MLSMessage
from broker_crypto.mls.group_info import GroupInfo
from broker_crypto.mls.leaf import KeyPackage
from tests.vectors.vectors_path import load


def test_every_published_welcome_opens_to_a_signed_and_confirmed_group() -> None:
    cases = load("welcome")
    assert [case["cipher_suite"] for case in cases] == [1, 2, 3, 4, 5, 6, 7]
    for case in cases:
        assert set(case) == {"cipher_suite", "init_priv", "signer_pub", "key_package", "welcome"}
        suite, init_private = suite_of(case["cipher_suite"]), bytes.fromhex(case["init_priv"])
        key_package = MLSMessage.decode(bytes.fromhex(case["key_package"])).body
        message = MLSMessage.decode(bytes.fromhex(case["welcome"])).body
        assert isinstance(key_package, KeyPackage)
        assert isinstance(message, welcome.Welcome)
        assert suite.public_of(init_private) == key_package.init_key
        assert message.encode() == bytes.fromhex(case["welcome"])[4:]
        secrets = welcome.open_secrets(suite, message, key_package, init_private)
        assert secrets.psks == ()
        psk_secret = psk.psk_secret(suite, [])
        info = welcome.open_group_info(suite, message, secrets.joiner_secret, psk_secret)
        assert info.signature_holds(suite, bytes.fromhex(case["signer_pub"]))
        epoch = key_schedule.join(suite, secrets.joiner_secret, psk_secret, info.group_context)
        assert epoch.secrets.confirmation_tag_holds(info.group_context.confirmed_transcript_hash, info.confirmation_tag)


def opened(data: bytes, key_package: KeyPackage, init_private: bytes) -> GroupInfo:
    """The GroupInfo of an encoded Welcome of suite 1 without keys beside it."""
    message = MLSMessage.decode(data).body
    assert isinstance(message, welcome.Welcome)
    secrets = welcome.open_secrets(suite_of(1), message, key_package, init_private)
    return welcome.open_group_info(suite_of(1), message, secrets.joiner_secret, bytes(32))


def test_a_welcome_with_one_changed_byte_opens_to_nothing() -> None:
    case = load("welcome")[0]
    data, init_private = bytearray.fromhex(case["welcome"]), bytes.fromhex(case["init_priv"])
    key_package = MLSMessage.decode(bytes.fromhex(case["key_package"])).body
    assert isinstance(key_package, KeyPackage)
    assert opened(bytes(data), key_package, init_private).group_context.cipher_suite == 1
    for at in range(len(data)):
        data[at] ^= 0x40
        with pytest.raises(PeerError):
            opened(bytes(data), key_package, init_private)
        data[at] ^= 0x40
