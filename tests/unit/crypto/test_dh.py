"""Which public keys are usable, and that nothing is computed with one that is not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_crypto import limits
from broker_crypto.crypto import dh, suite
from broker_crypto.errors import MalformedInput, UsageError

GROUPS = [dh.X25519, dh.X448, dh.P256, dh.P384, dh.P521]
NIST = [dh.P256, dh.P384, dh.P521]
ALL = pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
CURVES = pytest.mark.parametrize("curve", NIST, ids=lambda curve: curve.name)
MONTGOMERY = {
    dh.X25519: (limits.PRIME_X25519, 486662, limits.SMALL_ORDER_X25519, 8),
    dh.X448: (limits.PRIME_X448, 156326, limits.SMALL_ORDER_X448, 4),
}
PRIMES = {
    dh.P256: 2**256 - 2**224 + 2**192 + 2**96 - 1,
    dh.P384: 2**384 - 2**128 - 2**96 + 2**32 - 1,
    dh.P521: 2**521 - 1,
}


def private_key(group: dh.Group, seed: int = 5) -> bytes:
    return (seed).to_bytes(group.private_size, "big")


def refused(group: dh.Group, public: bytes) -> None:
    """check_public refuses it, and so does agree, with any private key."""
    with pytest.raises(MalformedInput):
        group.check_public(public)
    with pytest.raises(MalformedInput):
        group.agree(private_key(group), public)


def test_x25519_and_x448_give_the_values_of_rfc_7748() -> None:
    h = bytes.fromhex
    assert dh.X25519.agree(
        h("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
        h("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"),
    ) == h("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552")
    assert dh.X448.agree(
        h("3d262fddf9ec8e88495266fea19a34d28882acef045104d0d1aae121700a779c984c24f8cdd78fbff44943eba368f54b29259a4f1c600ad3"),
        h("06fce640fa3487bfda5f6cf2d5263f8aad88334cbd07437f020f08f9814dc031ddbdc38c19c6da2583fa5429db94ada18aa7a7fb4ef8a086"),
    ) == h("ce3e4ff95a60dc6697da1db1d85e6afbdf79b50a2412d7546d5f239fe14fbaadeb445fc66a01b0779d98223961111e21766282f73dd96b6f")
    once = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert dh.X25519.public_of(b"\x09" + bytes(31)) == h(once)
    once = "3f482c8a9f19b01e6c46ee9711d9dc14fd4bf67af30765c2ae2b846a4d23a8cd0db897086239492caf350b51f833868b9bc2b3bca9cf4113"
    assert dh.X448.public_of(b"\x05" + bytes(55)) == h(once)


@ALL
def test_two_private_keys_agree(group: dh.Group) -> None:
    a, b = private_key(group, 3), private_key(group, 2**200 + 7)
    shared = group.agree(a, group.public_of(b))
    assert shared == group.agree(b, group.public_of(a))
    assert len(shared) == group.private_size
    assert any(shared)


@ALL
def test_public_keys_of_another_length_are_refused(group: dh.Group) -> None:
    good = group.public_of(private_key(group))
    group.check_public(good)
    for other in (b"", good[:-1], good + b"\0", b"\0" + good, good * 2):
        refused(group, other)


@ALL
def test_private_keys_of_another_length_are_a_usage_error(group: dh.Group) -> None:
    good = group.public_of(private_key(group))
    for n in (0, group.private_size - 1, group.private_size + 1):
        private = b"\1" * n
        for call in (lambda p=private: group.public_of(p), lambda p=private: group.agree(p, good)):
            with pytest.raises(UsageError):
                call()


# --- X25519 and X448 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", MONTGOMERY, ids=lambda group: group.name)
def test_points_of_small_order_are_refused(group: dh.Group) -> None:
    for u in MONTGOMERY[group][2]:
        refused(group, u.to_bytes(group.public_size, "little"))


@pytest.mark.parametrize("group", MONTGOMERY, ids=lambda group: group.name)
def test_the_list_of_small_orders_is_right_and_complete(group: dh.Group) -> None:
    """Each u doubles to infinity in log2(cofactor) steps, and they make up all such points of the curve and its twist.

    RFC 7748: the cofactors are 8 and 4; those of the twists are 4 and 4.
    """
    p, a, listed, cofactor = MONTGOMERY[group]
    points = {"curve": 1, "twist": 1}  # infinity
    for u in listed:
        x: int | None = u
        for _ in range(cofactor.bit_length() - 1):
            if x is not None:
                below = 4 * x * (x * x + a * x + 1) % p
                x = None if below == 0 else (x * x - 1) ** 2 * pow(below, -1, p) % p
        assert x is None
        right = u * (u * u + a * u + 1) % p
        if right == 0:
            points["curve"] += 1
            points["twist"] += 1
        else:
            points["curve" if pow(right, (p - 1) // 2, p) == 1 else "twist"] += 2
    assert points == {"curve": cofactor, "twist": 4}


@pytest.mark.parametrize("group", MONTGOMERY, ids=lambda group: group.name)
def test_numbers_from_the_prime_upward_are_refused(group: dh.Group) -> None:
    p = MONTGOMERY[group][0]
    top = 256**group.public_size
    for u in {p, p + 1, p + 2, p + 9, top - 1, top // 2, top // 2 + 9} - {0}:
        if p <= u < top:
            refused(group, u.to_bytes(group.public_size, "little"))


def test_the_high_bit_of_an_x25519_key_is_not_ignored() -> None:
    good = dh.X25519.public_of(private_key(dh.X25519))
    refused(dh.X25519, good[:-1] + bytes([good[-1] | 0x80]))


@pytest.mark.parametrize("group", MONTGOMERY, ids=lambda group: group.name)
def test_the_largest_and_smallest_usable_numbers_are_taken(group: dh.Group) -> None:
    p = MONTGOMERY[group][0]
    for u in (2, 3, p - 2, p - 3):
        public = u.to_bytes(group.public_size, "little")
        group.check_public(public)
        assert any(group.agree(private_key(group), public))


@pytest.mark.parametrize("group", MONTGOMERY, ids=lambda group: group.name)
def test_a_shared_secret_of_zeros_is_refused_even_where_the_check_of_keys_would_let_it_through(group: dh.Group) -> None:
    with pytest.raises(MalformedInput, match="zero"):
        dh._not_zero(group.name, bytes(group.private_size))
    for u in MONTGOMERY[group][2]:
        with pytest.raises(MalformedInput, match="zero"):
            group._multiply(private_key(group), u.to_bytes(group.public_size, "little"))  # type: ignore[attr-defined]


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_an_x25519_key_is_usable_exactly_if_its_number_is_below_p_and_not_listed(public: bytes) -> None:
    u = int.from_bytes(public, "little")
    usable = u < limits.PRIME_X25519 and u not in limits.SMALL_ORDER_X25519
    try:
        dh.X25519.check_public(public)
    except MalformedInput:
        assert not usable
    else:
        assert usable


# --- NIST curves --------------------------------------------------------------------------------------------------


@CURVES
def test_compressed_hybrid_and_infinite_points_are_refused(curve: dh.Nist) -> None:
    good = curve.public_of(private_key(curve))
    size = curve.private_size
    parity = good[-1] & 1
    refused(curve, b"\0")
    refused(curve, bytes(len(good)))
    refused(curve, bytes([2 + parity]) + good[1 : 1 + size])
    for first in (0, 1, 2, 3, 5, 6, 7, 6 + parity, 0x84):
        refused(curve, bytes([first]) + good[1:])


@CURVES
def test_points_beside_the_curve_are_refused(curve: dh.Nist) -> None:
    good = curve.public_of(private_key(curve))
    size = curve.private_size
    for at in (1, size, size + 1, 2 * size):
        changed = bytearray(good)
        changed[at] ^= 1
        refused(curve, bytes(changed))
    refused(curve, b"\x04" + good[1 + size :] + good[1 : 1 + size])
    refused(curve, b"\x04" + bytes(2 * size))


@CURVES
def test_coordinates_that_are_not_reduced_are_refused(curve: dh.Nist) -> None:
    p, size = PRIMES[curve], curve.private_size
    good = curve.public_of(private_key(curve))
    x, y = int.from_bytes(good[1 : 1 + size], "big"), int.from_bytes(good[1 + size :], "big")
    larger = [(x + p, y), (x, y + p), (p, y), (x, p)]
    tried = 0
    for a, b in larger:
        if a < 256**size and b < 256**size:
            refused(curve, b"\x04" + a.to_bytes(size, "big") + b.to_bytes(size, "big"))
            tried += 1
    assert tried >= 2


def test_an_unreduced_copy_of_a_point_on_the_curve_is_refused() -> None:
    """x + p fits 32 bytes only for x < 2^224; P-256 has such points: the smallest x that has a y."""
    p, b = PRIMES[dh.P256], 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    x = next(x for x in range(1, 100) if pow(x**3 - 3 * x + b, (p - 1) // 2, p) == 1)
    y = pow(x**3 - 3 * x + b, (p + 1) // 4, p).to_bytes(32, "big")
    dh.P256.check_public(b"\x04" + x.to_bytes(32, "big") + y)
    refused(dh.P256, b"\x04" + (x + p).to_bytes(32, "big") + y)


@CURVES
def test_scalars_out_of_range_are_a_usage_error(curve: dh.Nist) -> None:
    good = curve.public_of(private_key(curve))
    top = 256**curve.private_size - 1
    for scalar in (0, curve.order, curve.order + 1, top):
        private = scalar.to_bytes(curve.private_size, "big")
        for call in (lambda p=private: curve.public_of(p), lambda p=private: curve.agree(p, good)):
            with pytest.raises(UsageError):
                call()
    curve.public_of((curve.order - 1).to_bytes(curve.private_size, "big"))


@CURVES
def test_the_orders_of_limits_are_those_of_the_base_points(curve: dh.Nist) -> None:
    """(n - 1) * G is -G: the same x, and y the other one."""
    size = curve.private_size
    base = curve.public_of((1).to_bytes(size, "big"))
    last = curve.public_of((curve.order - 1).to_bytes(size, "big"))
    assert base[: 1 + size] == last[: 1 + size]
    assert int.from_bytes(base[1 + size :], "big") + int.from_bytes(last[1 + size :], "big") == PRIMES[curve]


@CURVES
def test_a_scalar_is_drawn_within_the_order(curve: dh.Nist) -> None:
    size = curve.private_size
    assert curve.scalar(bytes(size)) is None
    assert curve.scalar((curve.order).to_bytes(size, "big")) is None
    assert curve.scalar((curve.order - 1).to_bytes(size, "big")) == (curve.order - 1).to_bytes(size, "big")
    drawn = curve.scalar(b"\xff" + (7).to_bytes(size - 1, "big"))
    assert drawn == bytes([0xFF >> -curve.order.bit_length() % 8]) + (7).to_bytes(size - 1, "big")


@pytest.mark.parametrize("number", range(1, 8))
def test_the_suite_refuses_every_unusable_key_wherever_it_takes_one(number: int) -> None:
    s = suite(number)
    private, public = s.derive_key_pair(b"seed")
    bad = [b"", public[:-1], public + b"\0", bytes(len(public)), b"\xff" * len(public)]
    drawn: list[int] = []

    def random(n: int) -> bytes:
        drawn.append(n)
        return bytes(range(n))

    for key in bad:
        for call in (
            lambda k=key: s.check_public(k),
            lambda k=key: s.encrypt_with_label(k, "x", b"", b"", random),
            lambda k=key: s.export_send(k, b"", b"", 32, random),
            lambda k=key: s.decrypt_with_label(private, "x", b"", k, bytes(32)),
            lambda k=key: s.export_receive(private, k, b"", b"", 32),
        ):
            with pytest.raises(MalformedInput):
                call()
    assert drawn == []
