"""Secret: the bytes show themselves only when asked."""

from __future__ import annotations

import copy
import pickle
import traceback

import pytest

from broker_crypto.crypto import Secret
from broker_crypto.errors import UsageError

VALUE = b"correct horse battery staple!!!!"


def test_a_secret_reveals_the_bytes_it_was_made_of() -> None:
    assert Secret(VALUE).reveal() == Secret(bytearray(VALUE)).reveal() == Secret(memoryview(VALUE)).reveal() == VALUE


def test_a_secret_keeps_a_copy_of_its_own() -> None:
    given = bytearray(VALUE)
    secret = Secret(given)
    given[0] ^= 1
    assert secret.reveal() == VALUE


def test_wiping_overwrites_the_buffer_and_ends_every_use() -> None:
    secret = Secret(VALUE)
    buffer = secret._value
    secret.wipe()
    secret.wipe()
    assert buffer == bytes(len(VALUE))
    for use in (secret.reveal, lambda: secret.matches(VALUE)):
        with pytest.raises(UsageError):
            use()


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format, lambda s: repr([s]), lambda s: repr({"a": s})])
def test_no_way_of_showing_a_secret_shows_its_bytes(show: object) -> None:
    shown = show(Secret(VALUE))  # type: ignore[operator]
    assert "<Secret>" in shown
    assert "horse" not in shown
    assert VALUE.hex() not in shown


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy, lambda s: copy.deepcopy([s]), hash, bytes, lambda s: s == s])
def test_a_secret_is_not_pickled_copied_hashed_or_compared(take: object) -> None:
    secret = Secret(VALUE)
    with pytest.raises(TypeError) as caught:
        take(secret)  # type: ignore[operator]
    assert "horse" not in "".join(traceback.format_exception(caught.value))


def test_every_pickle_protocol_refuses() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(Secret(VALUE), protocol)


def test_a_secret_has_no_attributes_to_hang_a_copy_on() -> None:
    with pytest.raises(AttributeError):
        Secret(VALUE).copy = VALUE  # type: ignore[attr-defined]


def test_matches_compares_all_bytes() -> None:
    secret = Secret(VALUE)
    assert secret.matches(VALUE)
    for other in (b"", VALUE[:-1], VALUE + b"\0", bytes([VALUE[0] ^ 1]) + VALUE[1:], VALUE[:-1] + bytes([VALUE[-1] ^ 128])):
        assert not secret.matches(other)
