"""Nothing in a chain is malleable: flip any bit, drop or add any byte, and it does not count."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_crypto.errors import PeerError
from broker_crypto.identity import profile
from broker_crypto.records import Anchor
from tests.support.certificates import NOW_MS, plans


def counts(chain: list[bytes], anchor: Anchor) -> bool:
    try:
        profile.check_chain(chain, [anchor], NOW_MS)
    except PeerError:
        return False
    return True


def flipped(chain: list[bytes]) -> Iterator[list[bytes]]:
    for place, certificate in enumerate(chain):
        for bit in range(8 * len(certificate)):
            bent = bytearray(certificate)
            bent[bit // 8] ^= 1 << bit % 8
            yield [*chain[:place], bytes(bent), *chain[place + 1 :]]


@pytest.mark.parametrize(("leaf", "ca"), [("ed25519", "ed25519"), ("p256", "p256")])
def test_every_single_bit_flip_of_a_chain_is_refused(leaf: str, ca: str) -> None:
    good = plans(1, leaf=leaf, ca=ca)
    chain, anchor = good.chain(), good.anchor()
    assert counts(chain, anchor)
    tried = 0
    for bent in flipped(chain):
        assert not counts(bent, anchor), f"bit {tried}"
        tried += 1
    assert tried == 8 * sum(map(len, chain))


PLANS = plans(1, leaf="p256", ca="p384")
GOOD, ANCHOR = PLANS.chain(), PLANS.anchor()


@given(st.data())
def test_a_chain_with_bytes_added_dropped_or_put_in_place_of_others_is_refused(data: st.DataObject) -> None:
    chain = list(GOOD)
    place = data.draw(st.integers(0, len(chain) - 1))
    at = data.draw(st.integers(0, len(chain[place])))
    bent = chain[place][:at] + data.draw(st.binary(max_size=8)) + chain[place][at + data.draw(st.integers(0, 8)) :]
    chain[place] = bent
    assert counts(chain, ANCHOR) == (chain == GOOD)
