"""The agent's own certificate: another one of the same identity is taken into use, anything else is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_crypto import limits, parts, upkeep
from broker_crypto.identity import ca, generate, keys
from broker_crypto.observe import MemoryMetrics
from broker_crypto.observe.figures import VERDICTS
from broker_crypto.records import CertificateExpiring
from broker_crypto.testing import FakeClock, SeededRandom
from broker_crypto.wire import pem
from tests.support.agents import Realm, uri

DAY = 86400


class Place:
    """A realm's agent `ops` and the files that somebody changes under it."""

    def __init__(self, folder: Path) -> None:
        self.realm = Realm(folder, "nats://127.0.0.1:1")
        self.realm.issue("ops")
        self.clock = FakeClock(self.realm.now_ms())
        self.metrics = MemoryMetrics()
        policy = self.realm.policy(lambda m: m.__setitem__("state_persistence", {"backend": "memory", "ephemeral": True}))
        self.made = parts.gather(policy, uri("ops"), self.metrics, self.clock, SeededRandom(1))
        self.watched = upkeep.Certificate(self.made)

    def put(self, name: str = "ops", *, authority: ca.Authority | None = None, days: int = 90, scheme: str = "ed25519") -> None:
        who, key = generate(authority or self.realm.authority, uri(name), now_ms=self.clock.now_ms(), days=days, scheme=scheme)
        place = self.realm.folder / "keys" / "acme"
        (place / "ops.key").unlink()
        keys.write(place / "ops.key", key)
        (place / "ops.pem").write_bytes(pem.write_certificates(who.chain))

    def look(self) -> object:
        self.clock.advance(limits.CERTIFICATE_LOOK_SECONDS)
        return self.watched.look()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "realm")


def test_another_certificate_with_another_key_is_taken_within_a_minute_and_once(place: Place) -> None:
    before = place.watched.who
    place.put(days=200)
    assert place.watched.look() is None  # not looked at yet
    found = place.look()
    assert found is place.watched.who
    assert found is not before
    assert place.watched.who.signature_public != before.signature_public
    assert place.metrics.value("certificate_expiry_timestamp_seconds") == place.watched.who.not_after / 1000
    assert place.look() is None


@pytest.mark.parametrize(
    "what", ["another identity", "another anchor", "expired", "another scheme", "half written", "key of another", "gone"]
)
def test_what_does_not_count_is_left_alone_and_the_one_in_use_stays(place: Place, what: str) -> None:
    before = place.watched.who
    files = place.realm.folder / "keys" / "acme"
    if what == "another identity":
        place.put("writer-1")
    elif what == "another anchor":
        place.put(authority=ca.found("another CA", keys.generate(), now_ms=place.clock.now_ms()))
    elif what == "expired":
        place.put(days=1)
        place.clock.advance(2 * DAY)
    elif what == "another scheme":
        place.put(scheme="p256")
    elif what == "half written":
        (files / "ops.pem").write_bytes((files / "ops.pem").read_bytes()[:100])
    elif what == "key of another":
        (files / "ops.key").unlink()
        keys.write(files / "ops.key", keys.generate())
    else:
        (files / "ops.pem").unlink()
    assert place.look() is None
    assert place.watched.who is before
    (files / "ops.key").unlink(missing_ok=True)
    keys.write(files / "ops.key", keys.generate())
    place.put()
    assert place.look() is not None  # and the next good one is taken


def test_in_the_last_tenth_of_its_life_a_certificate_is_told_of_once_a_day(place: Place) -> None:
    assert place.watched.warning() is None
    life = (place.watched.who.not_after - place.watched.who.not_before) / 1000
    place.clock.advance(life * 0.91)
    first = place.watched.warning()
    assert first == CertificateExpiring("", place.watched.who.not_after)
    place.clock.advance(DAY / 2)
    assert place.watched.warning() is None
    place.clock.advance(DAY / 2)
    assert place.watched.warning() is not None
    place.put()
    assert place.look() is not None
    assert place.watched.warning() is None


def test_every_verdict_on_a_commit_is_counted_and_what_is_no_commit_is_not() -> None:
    metrics = MemoryMetrics()
    for verdict in ("founding", "commit", "stale", "early", "invalid", "locked_out", "leave", "upgrade", "passed"):
        upkeep.count_verdict(metrics, "orders", verdict)
    counted = {word: metrics.value("group_commits_total", group="orders", verdict=word) for word in VERDICTS}
    assert counted == {"valid": 2, "stale": 1, "early": 1, "invalid": 1, "locked_out": 1}
