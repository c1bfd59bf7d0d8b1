"""What an agent looks after by itself: its certificate, as the file has it now, and the figures of its groups."""

from __future__ import annotations

from broker_crypto import errors, identity, limits, parts, policy
from broker_crypto.delivery.handle import Group
from broker_crypto.delivery.loop import GroupLoop
from broker_crypto.identity import Identity, profile
from broker_crypto.observe.figures import VERDICTS
from broker_crypto.observe.metrics import Metrics
from broker_crypto.records import CertificateExpiring, Event


class Certificate:
    """The agent's certificate and key, read again once a minute: whoever renews it puts another one in its place.

    One that is of another identity, does not count now, or does not fit its key (they are being written) is left alone, and the
    one in use stays.
    """

    def __init__(self, made: parts.Parts) -> None:
        self.who = made.who
        self._policy, self._clock, self._metrics = made.policy, made.clock, made.metrics
        self._looked_at = made.clock.monotonic()
        self._warned_ms: int | None = None
        self._show()

    def look(self) -> Identity | None:
        """Another certificate to use from now on, None for none. Looks once a minute, however often it is called."""
        now = self._clock.monotonic()
        if now - self._looked_at < limits.CERTIFICATE_LOOK_SECONDS:
            return None
        self._looked_at = now
        found = self._found()
        if found is None or found.chain == self.who.chain:
            return None
        self.who = found
        self._show()
        return found

    def _found(self) -> Identity | None:
        me: policy.AgentSettings = self._policy.agent
        if me.certificate is None or me.private_key is None:
            return None
        try:
            found = identity.load(me.certificate, me.private_key, self._policy.anchors)
            profile.check_chain(found.chain, self._policy.anchors, self._clock.now_ms(), self._policy.revoked)
        except (errors.BrokerCryptoError, ValueError, OSError):
            return None
        same = found.uri == self.who.uri and found.suites == self.who.suites
        return found if same else None

    def _show(self) -> None:
        self._metrics.gauge("certificate_expiry_timestamp_seconds").set(self.who.not_after / 1000)

    def warning(self) -> Event | None:
        """Once a day in the last tenth of the certificate's life."""
        now, who = self._clock.now_ms(), self.who
        if now < who.not_after - (who.not_after - who.not_before) * limits.CERTIFICATE_LAST_PART:
            return None
        if self._warned_ms is not None and now - self._warned_ms < limits.AGAIN_MS:
            return None
        self._warned_ms = now
        return CertificateExpiring("", who.not_after)


def count_verdict(metrics: Metrics, group: str, verdict: str) -> None:
    """Count a commit of the group's log by what it means; records that are none are not counted."""
    word = {"commit": "valid", "founding": "valid"}.get(verdict, verdict)
    if word in VERDICTS:
        metrics.counter("group_commits_total", group=group, verdict=word).add(1)


def show_group(metrics: Metrics, name: str, loop: GroupLoop) -> None:
    """The figures of a group, as they are now."""
    chain, mls, gauge = loop.member.chain, loop.member.mls, metrics.gauge
    gauge("group_log_lag", group=name).set(Group(loop).lag)
    if chain is None:
        return
    gauge("group_epoch", group=name).set(chain.epoch)
    gauge("group_members", group=name).set(len(chain.paths))
    gauge("group_last_commit_timestamp_seconds", group=name).set(chain.time / 1000)
    if mls is not None:
        gauge("group_last_path_timestamp_seconds", group=name).set(chain.paths.get(mls.leaf, chain.time) / 1000)
    epochs = loop.memory.epochs.values()
    kept = [e.began for e in epochs if e.stream_secret is not None]
    oldest = min(kept) if kept else max((e.ended for e in epochs if e.ended is not None), default=None)
    if oldest is not None:
        gauge("group_oldest_epoch_timestamp_seconds", group=name).set(oldest / 1000)
