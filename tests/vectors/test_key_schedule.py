"""key-schedule.json of the MLS working group: every suite, every epoch, every field."""

from __future__ import annotations

from broker_crypto.crypto import suite as suite_of
from broker_crypto.mls import key_schedule
from broker_crypto.mls.group_info import GroupContext
from tests.vectors.vectors_path import load

KEPT = {
    "init_secret",
    "sender_data_secret",
    "exporter_secret",
    "external_secret",
    "confirmation_key",
    "membership_key",
    "resumption_psk",
    "epoch_authenticator",
}
PASSING = {"joiner_secret", "welcome_secret", "encryption_secret"}
INPUTS = {"tree_hash", "commit_secret", "psk_secret", "confirmed_transcript_hash"}


def test_every_epoch_gives_every_published_secret() -> None:
    cases, fields = load("key-schedule"), 0
    assert [case["cipher_suite"] for case in cases] == [1, 2, 3, 4, 5, 6, 7]
    for case in cases:
        suite = suite_of(case["cipher_suite"])
        init_secret = bytes.fromhex(case["initial_init_secret"])
        assert len(case["epochs"]) == 5
        for number, epoch in enumerate(case["epochs"]):
            assert set(epoch) == KEPT | PASSING | INPUTS | {"group_context", "external_pub", "exporter"}
            hexed = {name: bytes.fromhex(value) for name, value in epoch.items() if name != "exporter"}
            group_id, hashes = bytes.fromhex(case["group_id"]), (hexed["tree_hash"], hexed["confirmed_transcript_hash"])
            context = GroupContext(1, suite.number, group_id, number, *hashes)
            assert context.encode() == hexed["group_context"]
            assert GroupContext.decode(hexed["group_context"]) == context
            begun = key_schedule.begin(suite, init_secret, hexed["commit_secret"], hexed["psk_secret"], context)
            for name in PASSING:
                assert getattr(begun, name) == hexed[name], name
            for name in KEPT:
                assert getattr(begun.secrets, name) == hexed[name], name
            assert key_schedule.join(suite, hexed["joiner_secret"], hexed["psk_secret"], context) == begun
            assert key_schedule.welcome_secret(suite, hexed["joiner_secret"], hexed["psk_secret"]) == hexed["welcome_secret"]
            assert begun.secrets.external_key_pair()[1] == hexed["external_pub"]
            asked = epoch["exporter"]
            assert set(asked) == {"label", "context", "length", "secret"}
            exported = begun.secrets.export(asked["label"], bytes.fromhex(asked["context"]), asked["length"])
            assert exported == bytes.fromhex(asked["secret"])
            init_secret = begun.secrets.init_secret
            fields += len(PASSING) + len(KEPT) + 3
    assert fields == 7 * 5 * 14
