"""The key schedule: from the init secret of one epoch to all secrets of the next (RFC 9420 section 8).

    init_secret[n-1] + commit_secret -> joiner_secret;  joiner_secret + psk_secret -> welcome_secret, epoch_secret
    epoch_secret -> the secrets of `EpochSecrets`, init_secret[n] among them

The joiner, welcome and encryption secrets live in `NextEpoch` only, as long as a Welcome and the secret tree are made; they
are no part of a group's state, where they would undo the deletion of used message keys (RFC 9420 section 9.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self

from broker_crypto.crypto.suites import Suite
from broker_crypto.mls.group_info import GroupContext
from broker_crypto.wire import tls

_EXTERNAL_INIT = b"MLS 1.0 external init secret"


@dataclass(frozen=True, slots=True)
class EpochSecrets:
    """The secrets that a member keeps of an epoch, Nh bytes each. Source: RFC 9420 section 8, table 4."""

    suite: Suite
    init_secret: bytes = field(repr=False)
    sender_data_secret: bytes = field(repr=False)
    exporter_secret: bytes = field(repr=False)
    external_secret: bytes = field(repr=False)
    confirmation_key: bytes = field(repr=False)
    membership_key: bytes = field(repr=False)
    resumption_psk: bytes = field(repr=False)
    epoch_authenticator: bytes = field(repr=False)

    @classmethod
    def derive(cls, suite: Suite, epoch_secret: bytes) -> Self:
        """All of them from the epoch secret."""
        labels = ("init", "sender data", "exporter", "external", "confirm", "membership", "resumption", "authentication")
        return cls(suite, *(suite.derive_secret(epoch_secret, label) for label in labels))

    def encode(self) -> bytes:
        """For storage: eight opaque<V> in the order of the fields."""
        return b"".join(map(tls.opaque, self._all()))

    @classmethod
    def read(cls, reader: tls.Reader, suite: Suite) -> Self:
        """The next ones as `encode` wrote them."""
        return cls(suite, *(reader.opaque() for _ in range(8)))

    def _all(self) -> tuple[bytes, ...]:
        first = self.init_secret, self.sender_data_secret, self.exporter_secret, self.external_secret
        return *first, self.confirmation_key, self.membership_key, self.resumption_psk, self.epoch_authenticator

    def export(self, label: str, context: bytes, n: int) -> bytes:
        """MLS-Exporter: `n` bytes bound to `label` and `context`. RFC 9420 section 8.5."""
        secret = self.suite.derive_secret(self.exporter_secret, label)
        return self.suite.expand_with_label(secret, "exported", self.suite.hash(context), n)

    def external_key_pair(self) -> tuple[bytes, bytes]:
        """(private, public) HPKE key of the epoch for external commits; the public one is external_pub. RFC 9420 section 8.3."""
        return self.suite.derive_key_pair(self.external_secret)

    def confirmation_tag(self, confirmed_transcript_hash: bytes) -> bytes:
        """The tag of the commit that began this epoch. RFC 9420 section 6.1."""
        return self.suite.mac(self.confirmation_key, confirmed_transcript_hash)

    def confirmation_tag_holds(self, confirmed_transcript_hash: bytes, tag: bytes) -> bool:
        """Whether `tag` is that tag; compared in constant time."""
        return self.suite.verify_mac(self.confirmation_key, confirmed_transcript_hash, tag)

    def membership_tag(self, tag_input: bytes) -> bytes:
        """The tag of a member's PublicMessage over its AuthenticatedContentTBM. RFC 9420 section 6.2."""
        return self.suite.mac(self.membership_key, tag_input)

    def membership_tag_holds(self, tag_input: bytes, tag: bytes) -> bool:
        """Whether `tag` is that tag; compared in constant time."""
        return self.suite.verify_mac(self.membership_key, tag_input, tag)


@dataclass(frozen=True, slots=True)
class NextEpoch:
    """An epoch that begins: what a Welcome needs, the root of the secret tree, and what a member keeps."""

    joiner_secret: bytes = field(repr=False)
    welcome_secret: bytes = field(repr=False)
    encryption_secret: bytes = field(repr=False)
    secrets: EpochSecrets


def found(suite: Suite, epoch_secret: bytes) -> NextEpoch:
    """Epoch 0 of a group from Nh random bytes; there is no joiner and no welcome secret. RFC 9420 section 11."""
    return NextEpoch(b"", b"", suite.derive_secret(epoch_secret, "encryption"), EpochSecrets.derive(suite, epoch_secret))


def begin(suite: Suite, init_secret: bytes, commit_secret: bytes, psk_secret: bytes, context: GroupContext) -> NextEpoch:
    """The epoch of `context`, from the init secret of the one before (or of an external init) and a commit.

    commit_secret and psk_secret are Nh zeros where there is no path or no PSK. Source: RFC 9420 section 8, figure 22.
    """
    secret = suite.extract(init_secret, commit_secret)
    return join(suite, suite.expand_with_label(secret, "joiner", context.encode(), suite.nh), psk_secret, context)


def join(suite: Suite, joiner_secret: bytes, psk_secret: bytes, context: GroupContext) -> NextEpoch:
    """The epoch of `context` as a newcomer derives it from the joiner secret of its Welcome."""
    member_secret = suite.extract(joiner_secret, psk_secret)
    epoch_secret = suite.expand_with_label(member_secret, "epoch", context.encode(), suite.nh)
    return replace(found(suite, epoch_secret), joiner_secret=joiner_secret, welcome_secret=suite.derive_secret(member_secret, "welcome"))


def welcome_secret(suite: Suite, joiner_secret: bytes, psk_secret: bytes) -> bytes:
    """What a newcomer can derive before it knows the GroupContext: the secret that opens the GroupInfo."""
    return suite.derive_secret(suite.extract(joiner_secret, psk_secret), "welcome")


def welcome_key(suite: Suite, secret: bytes) -> tuple[bytes, bytes]:
    """(key, nonce) of the encrypted GroupInfo. RFC 9420 section 12.4.3.1."""
    return suite.expand_with_label(secret, "key", b"", suite.nk), suite.expand_with_label(secret, "nonce", b"", suite.nn)


def send_external_init(suite: Suite, external_pub: bytes, random: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    """(kem_output, init secret) of an external commit to a group with this external_pub. RFC 9420 section 8.3."""
    return suite.export_send(external_pub, b"", _EXTERNAL_INIT, suite.nh, random)


def receive_external_init(secrets: EpochSecrets, kem_output: bytes) -> bytes:
    """The init secret that an external commit sent as `kem_output` to the group of `secrets`."""
    private, _ = secrets.external_key_pair()
    return secrets.suite.export_receive(private, kem_output, b"", _EXTERNAL_INIT, secrets.suite.nh)
