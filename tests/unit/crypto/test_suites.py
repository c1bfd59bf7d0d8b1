"""The table of RFC 9420 section 17.1, and that a suite is one object."""

from __future__ import annotations

import copy
import pickle

import pytest

from broker_crypto.crypto import Suite, suite
from broker_crypto.errors import UsageError

# name: Nh, Nk, KEM's private and public key, signature scheme of TLS, signature's private and public key
TABLE = {
    1: ("MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519", 32, 16, 32, 32, 0x0807, 32, 32),
    2: ("MLS_128_DHKEMP256_AES128GCM_SHA256_P256", 32, 16, 32, 65, 0x0403, 32, 65),
    3: ("MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519", 32, 32, 32, 32, 0x0807, 32, 32),
    4: ("MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448", 64, 32, 56, 56, 0x0808, 57, 57),
    5: ("MLS_256_DHKEMP521_AES256GCM_SHA512_P521", 64, 32, 66, 133, 0x0603, 66, 133),
    6: ("MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448", 64, 32, 56, 56, 0x0808, 57, 57),
    7: ("MLS_256_DHKEMP384_AES256GCM_SHA384_P384", 48, 32, 48, 97, 0x0503, 48, 97),
}


@pytest.mark.parametrize("number", TABLE)
def test_every_suite_has_the_name_and_sizes_of_the_rfc(number: int) -> None:
    s = suite(number)
    group, scheme = s.kem.group, s.signature_scheme
    sizes = (s.nh, s.nk, group.private_size, group.public_size, scheme.number, scheme.private_size, scheme.public_size)
    assert (s.name, *sizes) == TABLE[number]
    assert s.number == number
    assert s.nn == 12


def test_what_the_sizes_say_is_what_the_functions_give() -> None:
    for number in TABLE:
        s = suite(number)
        private, public = s.derive_key_pair(b"seed")
        assert (len(private), len(public)) == (s.kem.group.private_size, s.kem.group.public_size)
        private, public = s.signature_key_pair(lambda n: bytes(range(1, n + 1)))
        assert (len(private), len(public)) == (s.signature_scheme.private_size, s.signature_scheme.public_size)
        assert s.signature_public_of(private) == public
        assert len(s.hash(b"")) == len(s.extract(b"", b"")) == len(s.derive_secret(bytes(s.nh), "x")) == len(s.ref_hash("x", b"")) == s.nh


@pytest.mark.parametrize("number", [-1, 0, 8, 9, 77, 0x0A0A, 65535, 65536])
def test_other_numbers_are_a_usage_error(number: int) -> None:
    with pytest.raises(UsageError):
        suite(number)


def test_a_suite_is_one_object_even_when_copied_or_pickled() -> None:
    for number in TABLE:
        s = suite(number)
        assert suite(number) is copy.copy(s) is copy.deepcopy(s) is pickle.loads(pickle.dumps(s)) is s
    assert suite(1) != suite(3)
    assert len({suite(number) for number in TABLE}) == len(TABLE)


def test_a_suite_is_not_changed() -> None:
    with pytest.raises(AttributeError):
        suite(1).nk = 8  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        suite(1).extra = 8  # type: ignore[attr-defined]
    assert isinstance(suite(1), Suite)


def test_the_derivations_of_two_suites_with_one_hash_are_the_same_and_of_others_not() -> None:
    outputs = {number: suite(number).expand_with_label(bytes(64), "x", b"", 16) for number in TABLE}
    assert outputs[1] == outputs[2] == outputs[3]
    assert outputs[4] == outputs[5] == outputs[6]
    assert len(set(outputs.values())) == 3


def test_hpke_key_pairs_of_one_seed_differ_between_the_kems() -> None:
    publics = {suite(number).derive_key_pair(b"seed")[1] for number in TABLE}
    assert len(publics) == 5
