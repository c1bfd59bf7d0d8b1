"""The sections of a policy file as models: every key, its kind, its default, its effect (docs/policy.md is held against them).

Strict: nothing is coerced, no key is unknown. What two keys say together is checked by `consistency`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from broker_crypto.limits import EPOCH_WAIT_SECONDS, MAX_BATCH, MAX_RECORD
from broker_crypto.policy.values import (
    Duration,
    GroupName,
    GroupPattern,
    HeaderName,
    Identity,
    IdentityTemplate,
    KeyHash,
    Prefix,
    Retention,
    RolePattern,
    SchemaFingerprint,
    SubjectPattern,
    TopicName,
)

Channel = Literal["mls", "signal", "noise", "plain", "auto"]
OnFailure = Literal["raise", "skip", "dead-letter", "pause"]
Plaintext = Literal["refuse", "accept"]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """What all sections share."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, ser_json_bytes="hex")


class Agent(Section):
    """Who this agent is."""

    identity: Identity | None = Field(default=None, description="canonical URI of this agent; `Agent.open(identity=...)` goes before it")
    certificate: Text | None = Field(default=None, description="PEM file of the certificate chain, leaf first")
    private_key: Text | None = Field(default=None, description="PEM file (PKCS#8, mode 0600) of the leaf's private key")


class TrustAnchor(Section):
    """A CA that is trusted, for some identities."""

    certificate: Text = Field(description="PEM file of one CA certificate")
    identities: Annotated[tuple[Prefix, ...], Field(min_length=1)] = Field(
        description="prefixes, each ending in `/`, of the identities for which it speaks"
    )


class Trust(Section):
    """Whose certificates count."""

    anchors: tuple[TrustAnchor, ...] = Field(default=(), description="CA certificates; a group is founded with them")
    revoked: tuple[KeyHash, ...] = Field(default=(), description="SHA-256 of a SubjectPublicKeyInfo, in hex; groups have their own list")


class StoreKey(Section):
    """Where the key of the store comes from."""

    provider: Literal["file", "env", "passphrase", "vault-transit", "vault-kv"] = Field(description="who gives the key of the store")
    path: Text | None = Field(
        default=None, description="file: 32 bytes, mode 0600; passphrase: a file that holds it; vault-kv: path of the secret"
    )
    variable: Text | None = Field(default=None, description="env: variable with 32 bytes in base64; passphrase: variable that holds it")
    mount: Text | None = Field(default=None, description="vault-transit: mount of the transit engine")
    name: Text | None = Field(default=None, description="vault-transit: name of the key")


class Store(Section):
    """Where an agent keeps its state."""

    backend: Literal["sqlite", "vault", "memory"] = Field(default="sqlite", description="what keeps the state; memory needs `ephemeral`")
    path: Text | None = Field(default=None, description="sqlite: the database file; vault: mount and path of the secrets")
    encryption: Literal["aes-256-gcm"] = Field(default="aes-256-gcm", description="how rows are sealed; fixed, there is one way")
    key: StoreKey | None = Field(default=None, description="where the key comes from under which the store is sealed")
    vault_wait: Duration = Field(default=30, description="how long a Vault that does not answer is retried before StoreUnavailable")
    ephemeral: bool = Field(default=False, description="true lets an agent keep its state in memory and lose it when it stops")


class Defaults(Section):
    """What holds where a topic says nothing, and what holds for the whole agent."""

    plaintext: Plaintext = Field(default="refuse", description="what to do with a record that is no envelope")
    on_failure: OnFailure = Field(default="raise", description="what to do with a record that is refused")
    epoch_wait: Duration = Field(default=int(EPOCH_WAIT_SECONDS), description="how long a send or an open waits for the group's log")
    epoch_max_age: Duration | None = Field(default=None, description="an epoch older than this is ended by a path commit")
    on_identity_change: Literal["refuse", "accept_if_issued"] = Field(
        default="accept_if_issued", description="what to do when a peer of a direct subject shows another certificate"
    )
    max_lag: Duration | None = Field(default=None, description="refuse to seal when the log's head was not confirmed for so long")
    rotation_interval: Duration | None = Field(default=None, description="how often each member renews its keys by a path commit")


class Tls(Section):
    """TLS to a broker."""

    ca: Text | None = Field(default=None, description="PEM file of CA certificates; default those of the system")
    certificate: Text | None = Field(default=None, description="PEM file of the client's certificate chain")
    private_key: Text | None = Field(default=None, description="PEM file of the client's private key")
    hostname: Text | None = Field(default=None, description="name that the server's certificate must carry, if not that of the address")


class Credentials(Section):
    """How an agent logs in to a broker."""

    user: Text | None = Field(default=None, description="user name")
    password: Text | None = Field(default=None, description="password; `${NAME}` or `${file:PATH}` keeps it out of the file", repr=False)
    token: Text | None = Field(default=None, description="NATS: token", repr=False)
    file: Text | None = Field(default=None, description="NATS: credentials file (.creds)")
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(default=None, description="Kafka: SASL mechanism")


class Broker(Section):
    """A broker that agents and commands connect to by themselves."""

    type: Literal["nats", "kafka"] = Field(description="which protocol it speaks")
    servers: tuple[Text, ...] = Field(default=(), description="NATS: URLs")
    bootstrap_servers: tuple[Text, ...] = Field(default=(), description="Kafka: host:port of some brokers")
    replicas: Annotated[int, Field(ge=1, le=15)] = Field(
        default=1, description="copies of each group log; fewer at the broker is PolicyConflict"
    )
    min_insync: Annotated[int, Field(ge=1, le=15)] = Field(default=1, description="Kafka: min.insync.replicas of each group log")
    tls: Tls | None = Field(default=None, description="TLS; `{}` is enough where the system trusts the server")
    credentials: Credentials | None = Field(default=None, description="login")


class Roles(Section):
    """Who may do what in a group. An identity that fits several has the strongest."""

    admin: tuple[RolePattern, ...] = Field(default=(), description="may change the group's policy, remove members, write and read")
    writer: tuple[RolePattern, ...] = Field(default=(), description="may write and read")
    reader: tuple[RolePattern, ...] = Field(default=(), description="may read")


class Group(Section):
    """A group as it is founded; afterwards its policy is its own."""

    log: Text | None = Field(default=None, description="the broker (a name under `brokers`) that holds its log; default the only one")
    generation: Annotated[int, Field(ge=0, le=9999)] = Field(default=0, description="raised to found the group anew")
    roles: Roles = Field(description="who may administer, write, read")
    suite: Literal[1, 2, 3] | None = Field(
        default=None, description="cipher suite of RFC 9420: 1 or 3 for Ed25519 certificates, 2 for P-256; default as `crypto.algorithms`"
    )
    key_retention: Retention = Field(default=7 * 86400, description="how long records of an ended epoch stay readable")
    max_offline: Duration = Field(default=90 * 86400, description="a member without a path commit for so long may be removed by anybody")
    on_locked_out: Literal["alert", "remove"] = Field(
        default="alert", description="what this agent does, as an admin, to whom locks it out; local"
    )


class Headers(Section):
    """Which headers stay readable outside, beside the default list."""

    plain: tuple[HeaderName, ...] = Field(default=(), description="names that are also copied outside, readable and unbound")
    sealed: tuple[HeaderName, ...] = Field(default=(), description="names taken out of the default list")


class RenewAfter(Section):
    """When a Signal session is started anew."""

    time: Duration = Field(default=86400, description="age of the session")
    messages: Annotated[int, Field(ge=1, le=1_000_000)] = Field(default=1000, description="messages sent in it")


class Topic(Section):
    """A rule: what becomes of the records of a topic. The first that matches counts."""

    topic: TopicName = Field(description="Kafka: the topic, may hold `*`; NATS: the name of what `subjects` covers")
    subjects: tuple[SubjectPattern, ...] = Field(
        default=(), description="NATS subjects that the rule covers; without it the rule is for Kafka"
    )
    channel: Channel = Field(description="mls: a group; signal: one peer; noise: a live exchange; plain: not sealed; auto: by the subject")
    group: GroupName | None = Field(default=None, description="mls: the group; default the topic's own")
    identity: IdentityTemplate | None = Field(default=None, description="signal: whom the subject reaches")
    padding: Annotated[int, Field(ge=0, le=MAX_RECORD)] = Field(
        default=0, description="what is sealed is padded up to a multiple of so many bytes"
    )
    compress: Literal["none", "zstd"] = Field(default="none", description="compression before sealing")
    headers: Headers = Field(default=Headers(), description="headers that stay readable outside")
    aliases: tuple[TopicName, ...] = Field(default=(), description="mls: topics whose mirrored records may be opened here")
    plain_fingerprints: tuple[SchemaFingerprint, ...] = Field(
        default=(), description="CRC-64-AVRO fingerprints (hex, as in the record) of foreign Avro records that are plaintext"
    )
    plaintext: Plaintext | None = Field(default=None, description="what to do with a record that is no envelope; default as `defaults`")
    on_failure: OnFailure | None = Field(default=None, description="what to do with a record that is refused; default as `defaults`")
    duplicates: Literal["mark", "drop"] = Field(default="mark", description="what to do with a record that was read before")
    tombstones: Literal["accept", "refuse"] = Field(default="accept", description="Kafka: whether records without a value are handed out")
    signature_batch: Annotated[int, Field(ge=1, le=MAX_BATCH)] = Field(
        default=MAX_BATCH, description="records that are signed together at most"
    )
    heartbeat: Duration = Field(default=86400, description="signal: an empty answer after so long of one-way traffic")
    renew_after: RenewAfter = Field(default=RenewAfter(), description="signal: when a session is started anew")
    unanswered_keep: Duration = Field(default=7 * 86400, description="signal: how long what was sent is kept until the first answer")
    resend: Literal["same_key", "new_key"] = Field(default="same_key", description="signal: to whom lost messages are sent again")


class Algorithms(Section):
    """Algorithms of keys and of the direct channel."""

    signing: Literal["ed25519", "ecdsa-p256"] = Field(
        default="ed25519", description="keys of certificates; with `key_agreement` the default suite"
    )
    key_agreement: Literal["x25519", "p-256"] = Field(
        default="x25519", description="keys of groups; belongs to `signing` (x25519 to ed25519)"
    )
    post_quantum: Literal["none", "ml-kem-768"] = Field(default="ml-kem-768", description="signal: the KEM beside X25519")
    hybrid_mode: bool = Field(default=True, description="signal: true requires the KEM, false leaves it out")


class KeyLifecycle(Section):
    """How long keys live."""

    rotation_interval: Duration | None = Field(default=None, description="how often each member renews its keys; default 720h")
    prekey_pool_size: Annotated[int, Field(ge=1, le=10_000)] = Field(default=200, description="signal: one-time prekeys that are published")
    prekey_refresh_threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.7, description="signal: part of the pool that may be used"
    )


class Crypto(Section):
    """Algorithms and keys."""

    algorithms: Algorithms = Field(default=Algorithms(), description="algorithms of keys and of the direct channel")
    key_lifecycle: KeyLifecycle = Field(default=KeyLifecycle(), description="how long keys live")
    state_persistence: Store | None = Field(default=None, description="where the state is kept; here or at top level, not both")


class Noise(Section):
    """The live channel."""

    pattern: Literal["XX"] = Field(default="XX", description="handshake pattern")
    cipher: Literal["chacha20-poly1305", "aes-256-gcm"] = Field(
        default="chacha20-poly1305", description="cipher of the handshake and after it"
    )
    transport: Literal["udp", "broker"] = Field(
        default="broker", description="read for the template's sake: frames travel through the broker"
    )


class Signal(Section):
    """The direct channel."""

    handshake: Literal["x3dh", "pqxdh"] = Field(default="x3dh", description="family of the agreement; its KEM is in `crypto.algorithms`")
    ratchet: Literal["double"] = Field(default="double", description="fixed: the Double Ratchet is the only one")
    state_sync: Literal["every_message", "outbox"] = Field(
        default="every_message", description="what is written to a store in Vault, and when"
    )


class Mls(Section):
    """Groups."""

    version: Literal["rfc9750", "rfc9420"] = Field(
        default="rfc9420", description="fixed: MLS 1.0 (RFC 9420) in the architecture of RFC 9750"
    )
    tree_type: Literal["binary"] = Field(default="binary", description="fixed: the ratchet tree of RFC 9420 is binary")
    epoch_rotation: Literal["on_membership_change"] = Field(
        default="on_membership_change", description="fixed: every change of members ends the epoch; `epoch_max_age` ends it by time as well"
    )
    delivery_service: Literal["federated"] = Field(default="federated", description="fixed: the group's log on a broker, no server of ours")


class Protocols(Section):
    """Parameters of the protocols."""

    noise: Noise = Field(default=Noise(), description="the live channel")
    signal: Signal = Field(default=Signal(), description="the direct channel")
    mls: Mls = Field(default=Mls(), description="groups")


class Observability(Section):
    """Which of these figures an agent shows."""

    handshake_latency_ms: bool = Field(default=True, description="show how long handshakes take")
    ratchet_state_age_seconds: bool = Field(default=True, description="show the age of the oldest ratchet step")
    prekey_utilization_percent: bool = Field(default=True, description="show how much of the prekey pool is used")
    quantum_migration_status: bool = Field(default=True, description="show which sessions and groups are hybrid")


class File(Section):
    """A policy file."""

    version: Literal[1] = Field(default=1, description="version of this format")
    agent: Agent = Field(default=Agent(), description="who this agent is")
    trust: Trust = Field(default=Trust(), description="whose certificates count")
    state_persistence: Store | None = Field(default=None, description="where the state is kept; here or under `crypto`, not both")
    defaults: Defaults = Field(default=Defaults(), description="what holds where a topic says nothing")
    brokers: dict[Text, Broker] = Field(
        default={}, description="brokers by name; needed by commands, and where there is more than one of a type"
    )
    groups: dict[GroupPattern, Group] = Field(default={}, description="groups by name, which may hold `*`; the first that matches counts")
    topics: tuple[Topic, ...] = Field(default=(), description="rules; the first that matches counts, what none matches is refused")
    crypto: Crypto = Field(default=Crypto(), description="algorithms and keys")
    protocols: Protocols = Field(default=Protocols(), description="parameters of the protocols")
    observability: Observability = Field(default=Observability(), description="figures that an agent shows")
