"""Sealed rows: as documented, and nothing but what was sealed for a place opens there."""

from __future__ import annotations

import hashlib
import hmac
import pickle
import struct

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from broker_crypto.crypto.secret import Secret
from broker_crypto.errors import StateCorrupt, UsageError
from broker_crypto.storage.sealing import Sealer, new_sealer, unwrapped
from broker_crypto.testing import SeededRandom

DATA_KEY = bytes(range(32))
STORE = bytes(range(100, 116))
PROVIDER = bytes(range(200, 232))


def sealer(*, data_key: bytes = DATA_KEY, store: bytes = STORE, version: int = 1) -> Sealer:
    return Sealer(Secret(data_key), store, version, SeededRandom(1))


def v(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


@given(st.text("abc_", min_size=1, max_size=8), st.binary(max_size=20), st.binary(max_size=200))
def test_a_sealed_row_is_what_the_documentation_says(kind: str, key: bytes, value: bytes) -> None:
    sealed = sealer().seal(kind, key, value)
    salt, ciphertext = sealed[:16], sealed[16:]
    row_key = hmac.new(DATA_KEY, b"row" + salt, hashlib.sha256).digest()
    aad = STORE + v(kind.encode()) + v(key) + struct.pack(">I", 1)
    assert AESGCM(row_key).decrypt(bytes(12), ciphertext, aad) == value
    assert len(sealed) == len(value) + 32
    assert sealer().open(kind, key, sealed) == value


def test_the_data_key_is_sealed_as_the_documentation_says() -> None:
    wrapped = sealer().wrapped(PROVIDER)
    key = hmac.new(PROVIDER, b"data key" + wrapped[:16], hashlib.sha256).digest()
    aad = STORE + v(b"header") + v(b"data_key") + struct.pack(">I", 1)
    assert AESGCM(key).decrypt(bytes(12), wrapped[16:], aad) == DATA_KEY
    again = unwrapped(wrapped, PROVIDER, STORE, 1, SeededRandom(2))
    assert again.open("group", b"k", sealer().seal("group", b"k", b"v")) == b"v"


def test_two_seals_of_one_row_share_no_salt_and_so_no_key() -> None:
    one = sealer()
    seals = {one.seal("group", b"k", b"v")[:16] for _ in range(100)}
    assert len(seals) == 100


def test_every_flipped_bit_of_a_sealed_row_is_corruption_with_kind_and_key() -> None:
    sealed = sealer().seal("group", b"orders", b"state")
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StateCorrupt) as raised:
            sealer().open("group", b"orders", bytes(changed))
        assert (raised.value.fields["kind"], raised.value.fields["key"]) == ("group", b"orders")


@pytest.mark.parametrize("sealed", [b"", bytes(16), bytes(31), bytes(32), None, 7, "text"])
def test_what_is_no_sealed_row_is_corruption(sealed: object) -> None:
    with pytest.raises(StateCorrupt):
        sealer().open("group", b"k", sealed)


def test_a_row_opens_at_no_other_place_store_version_or_key() -> None:
    sealed = sealer().seal("ab", b"cd", b"v")
    elsewhere = [
        (sealer(), "abc", b"d"),
        (sealer(), "a", b"bcd"),
        (sealer(), "ab", b"ce"),
        (sealer(), "ba", b"cd"),
        (sealer(store=bytes(16)), "ab", b"cd"),
        (sealer(version=2), "ab", b"cd"),
        (sealer(data_key=bytes(32)), "ab", b"cd"),
    ]
    for one, kind, key in elsewhere:
        with pytest.raises(StateCorrupt):
            one.open(kind, key, sealed)
    assert sealer().at_version(2).open("ab", b"cd", sealer(version=2).seal("ab", b"cd", b"w")) == b"w"


def test_a_sealed_data_key_is_no_row_and_a_row_no_data_key() -> None:
    under_provider = Sealer(Secret(PROVIDER), STORE, 1, SeededRandom(3))
    with pytest.raises(StateCorrupt):
        under_provider.open("header", b"data_key", sealer().wrapped(PROVIDER))
    with pytest.raises(StateCorrupt):
        unwrapped(under_provider.seal("header", b"data_key", DATA_KEY), PROVIDER, STORE, 1, SeededRandom(4))


def test_another_provider_key_store_id_or_version_does_not_open_the_data_key() -> None:
    wrapped = sealer().wrapped(PROVIDER)
    for provider, store, version in ((bytes(32), STORE, 1), (PROVIDER, bytes(16), 1), (PROVIDER, STORE, 2)):
        with pytest.raises(StateCorrupt):
            unwrapped(wrapped, provider, store, version, SeededRandom(5))
    for store_id in (None, b"", STORE + b"x"):
        with pytest.raises(StateCorrupt):
            unwrapped(wrapped, PROVIDER, store_id, 1, SeededRandom(5))


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_a_provider_key_of_another_length_is_refused(key: bytes) -> None:
    with pytest.raises(UsageError):
        sealer().wrapped(key)


def test_every_new_store_has_its_own_id_and_key_and_shows_neither_key() -> None:
    random = SeededRandom(6)
    one, two = new_sealer(1, random), new_sealer(1, random)
    assert one.store_id != two.store_id
    with pytest.raises(StateCorrupt):
        two.open("group", b"k", one.seal("group", b"k", b"v"))
    assert DATA_KEY.hex()[:8] not in repr(sealer())
    with pytest.raises(TypeError):
        pickle.dumps(sealer())


def test_a_wiped_sealer_seals_nothing() -> None:
    one = sealer()
    one.wipe()
    with pytest.raises(UsageError):
        one.seal("group", b"k", b"v")
