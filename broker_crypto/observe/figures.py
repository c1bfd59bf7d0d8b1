"""The closed list of figures: name, type, labels, meaning. docs/metrics.md shows the same list, and a test holds the two equal.

Names stand here without their prefix. Times are timestamps (s since 1970), never ages, so that an alert survives a dead process. Labels
are a broker's name in the policy file, the topic or group as a rule of that file names it, and words of closed lists: never a
raw subject, a peer or anything a sender chooses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from broker_crypto.errors import BrokerCryptoError

PREFIX = "broker_crypto_"


def _codes(root: type[BrokerCryptoError]) -> Iterator[str]:
    if root.__module__ == BrokerCryptoError.__module__:  # what other rooms derive does not widen the list
        yield root.code
    for kind in root.__subclasses__():
        yield from _codes(kind)


REASONS = frozenset(_codes(BrokerCryptoError))  # every `code` of broker_crypto.errors
MARKS = frozenset({"duplicate", "gap"})
VERDICTS = frozenset({"valid", "locked_out", "invalid", "stale", "early"})
HANDSHAKES = frozenset({"mls_external"})
OUTCOMES = frozenset({"done", "refused", "failed"})

RECORD_BUCKETS = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)  # s
WAIT_BUCKETS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # s


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. `words` closes a label's values where they are not names of the policy file. `buckets` are upper bounds in s."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    words: Mapping[str, frozenset[str]] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()


_RECORD = ("broker", "topic")

_ALL = (
    Figure("build_info", "gauge", ("version", "suite"), "always 1; the version that runs and the suite it founds with"),
    Figure("records_sealed_total", "counter", _RECORD, "records sealed"),
    Figure("records_opened_total", "counter", _RECORD, "records opened and handed out"),
    Figure("records_plain_total", "counter", _RECORD, "records that the policy passes in clear, both ways"),
    Figure("records_refused_total", "counter", (*_RECORD, "reason"), "records not handed out, by error code", {"reason": REASONS}),
    Figure("records_marked_total", "counter", ("topic", "mark"), "records handed out with a mark", {"mark": MARKS}),
    Figure("seal_duration_seconds", "histogram", ("topic",), "time to seal one record, sampled", buckets=RECORD_BUCKETS),
    Figure("open_duration_seconds", "histogram", ("topic",), "time to open one record, sampled", buckets=RECORD_BUCKETS),
    Figure(
        "handshake_duration_seconds",
        "histogram",
        ("kind", "outcome"),
        "time from the first message to the end: done, refused by the peer's rules, failed for another reason",
        {"kind": HANDSHAKES, "outcome": OUTCOMES},
        WAIT_BUCKETS,
    ),
    Figure("group_epoch", "gauge", ("group",), "epoch in which this agent is"),
    Figure("group_members", "gauge", ("group",), "leaves in that epoch"),
    Figure("group_log_lag", "gauge", ("group",), "records of the group log not read yet"),
    Figure("group_last_commit_timestamp_seconds", "gauge", ("group",), "signed time of the newest commit that counts"),
    Figure("group_last_path_timestamp_seconds", "gauge", ("group",), "signed time of this agent's own last path commit"),
    Figure(
        "group_oldest_epoch_timestamp_seconds",
        "gauge",
        ("group",),
        "when the oldest epoch whose key is kept began (none is kept: when the last one ended)",
    ),
    Figure("group_commits_total", "counter", ("group", "verdict"), "commits read from the group log", {"verdict": VERDICTS}),
    Figure("store_commit_seconds", "histogram", (), "time of one shared commit of the store, fsync included", buckets=WAIT_BUCKETS),
    Figure("store_errors_total", "counter", (), "store calls that failed, and erasures that a reader held up for a second"),
    Figure("certificate_expiry_timestamp_seconds", "gauge", (), "end of this agent's certificate"),
)

FIGURES: Mapping[str, Figure] = {figure.name: figure for figure in _ALL}
