"""What agents read of a policy: rules of topics, groups, brokers, the store. Frozen, with every default filled in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from broker_crypto.errors import NotBuilt
from broker_crypto.policy.document import Place
from broker_crypto.records import Anchor
from broker_crypto.wire import names

ROLES = ("admin", "writer", "reader")  # the strongest first


@dataclass(frozen=True, slots=True)
class Unbuilt:
    """A setting that parses and that this version does not have."""

    setting: str
    place: Place = field(repr=False)

    def error(self) -> NotBuilt:
        """The error for whoever would use it."""
        return NotBuilt(f"this version does not have `{self.setting}`", file=self.place.file, line=self.place.line or None)


def require_built(unbuilt: Iterable[Unbuilt]) -> None:
    """Raises NotBuilt for the first."""
    for one in unbuilt:
        raise one.error()


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of the records of a topic.

    `name` is the topic as the file has it (the label in metrics), `topic` the one that was routed: they differ where the file's
    holds `*`. `subjects` is empty for a rule of Kafka. `group` is None unless the channel is mls, `identity` unless it is signal
    (`{name}` filled in with what the subject had). Times are seconds. `headers_plain` adds names to those that are readable outside,
    `headers_sealed` takes names out of them.
    """

    name: str
    topic: str
    channel: str
    subjects: tuple[str, ...] = ()
    group: str | None = None
    identity: str | None = None
    padding: int = 0
    compress: str = "none"
    headers_plain: tuple[str, ...] = ()
    headers_sealed: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    plain_fingerprints: frozenset[bytes] = frozenset()
    plaintext: str = "refuse"
    on_failure: str = "raise"
    duplicates: str = "mark"
    tombstones: str = "accept"
    signature_batch: int = 64
    heartbeat: int = 86400
    renew_after: tuple[int, int] = (86400, 1000)
    unanswered_keep: int = 7 * 86400
    resend: str = "same_key"
    place: Place = field(default=Place(""), repr=False, compare=False)
    unbuilt: tuple[Unbuilt, ...] = field(default=(), repr=False, compare=False)

    def require_built(self) -> None:
        """Raises NotBuilt if the rule needs what this version does not have."""
        require_built(self.unbuilt)


@dataclass(frozen=True, slots=True)
class GroupSection:
    """What a group is founded from.

    `name` is the group's, `log_name` that of its log (with the generation), `log` the broker that holds it (None while the file
    names none). `topics` are those it lists; `roles` are (pattern, role). `key_retention` and `max_offline` are seconds,
    -1 forever, -2 as long as the broker. `on_locked_out` is local.
    """

    name: str
    log: str | None
    generation: int
    topics: tuple[str, ...]
    anchors: tuple[Anchor, ...] = field(repr=False)
    roles: tuple[tuple[str, str], ...]
    suite: int
    key_retention: int
    max_offline: int
    on_locked_out: str = "alert"
    place: Place = field(default=Place(""), repr=False, compare=False)
    unbuilt: tuple[Unbuilt, ...] = field(default=(), repr=False, compare=False)

    @property
    def log_name(self) -> str:
        """The full name of its log, `.g<n>` included."""
        return names.log_name(self.name, self.generation)

    def role(self, identity: str) -> str | None:
        """The strongest role of an identity by the file, None where it has none."""
        return strongest(self.roles, identity)

    def require_built(self) -> None:
        """Raises NotBuilt if the group needs what this version does not have."""
        require_built(self.unbuilt)


def strongest(roles: Iterable[tuple[str, str]], identity: str) -> str | None:
    """The strongest of the roles, given as (pattern, role), whose pattern fits the identity."""
    held = {role for pattern, role in roles if names.fits(pattern, identity)}
    return next((role for role in ROLES if role in held), None)


@dataclass(frozen=True, slots=True)
class StoreKey:
    """Where the key of the store comes from; fields as in the file, `path` whole."""

    provider: str
    path: Path | None = None
    variable: str | None = None
    mount: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where the state is kept. `path` is a whole path (sqlite), or mount and path in Vault; `vault_wait` in seconds."""

    backend: str
    path: str | None
    key: StoreKey | None
    vault_wait: int = 30
    ephemeral: bool = False


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """How to reach a broker by oneself. `servers` are NATS URLs, or host:port of Kafka. Paths are whole."""

    name: str
    type: str
    servers: tuple[str, ...]
    replicas: int = 1
    min_insync: int = 1
    tls: TlsSettings | None = None
    credentials: Login | None = None


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """TLS to a broker: PEM files, the name that the server's certificate must carry."""

    ca: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    hostname: str | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """How to log in to a broker."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    file: Path | None = None
    mechanism: str | None = None


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Who the agent is: URI, PEM file of its chain, PEM file of its key; None where the file does not say."""

    identity: str | None
    certificate: Path | None
    private_key: Path | None


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of the whole agent, in seconds; None is never. `on_identity_change` beside them, of the direct channel."""

    epoch_wait: int
    epoch_max_age: int | None
    max_lag: int | None
    rotation_interval: int
    on_identity_change: str
