"""psk_secret.json of the MLS working group: every suite, no key to ten keys."""

from __future__ import annotations

from collections import Counter

from broker_crypto.crypto import suite as suite_of
from broker_crypto.mls import psk
from tests.vectors.vectors_path import load


def test_every_list_of_keys_gives_the_published_secret() -> None:
    cases, keys = load("psk_secret"), 0
    assert Counter(case["cipher_suite"] for case in cases) == dict.fromkeys(range(1, 8), 11)
    for case in cases:
        suite = suite_of(case["cipher_suite"])
        assert set(case) == {"cipher_suite", "psks", "psk_secret"}
        ids, held = [], {}
        for item in case["psks"]:
            assert set(item) == {"psk_id", "psk", "psk_nonce"}
            ids.append(psk.ExternalPsk(bytes.fromhex(item["psk_id"]), bytes.fromhex(item["psk_nonce"])))
            held[bytes.fromhex(item["psk_id"])] = bytes.fromhex(item["psk"])
        assert len(held) == len(ids)
        assert psk.gather(suite, ids, psk.PskSecrets(held)) == bytes.fromhex(case["psk_secret"])
        keys += len(ids)
    assert len(cases) == 77
    assert keys == 7 * sum(range(11))
