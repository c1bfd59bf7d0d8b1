"""Welcome: how a newcomer learns an epoch (RFC 9420 section 12.4.3.1). Joining with one is in `joining`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from broker_crypto.crypto import AuthenticationFailed, Suite
from broker_crypto.mls import key_schedule, psk
from broker_crypto.mls.group_info import GroupContext, GroupInfo
from broker_crypto.mls.leaf import KeyPackage
from broker_crypto.mls.update_path import HPKECiphertext
from broker_crypto.mls.validation import Rule, refuse
from broker_crypto.records import Random
from broker_crypto.wire import tls

__all__ = [
    "EncryptedGroupSecrets",
    "GroupContext",
    "GroupInfo",
    "GroupSecrets",
    "Newcomer",
    "Welcome",
    "open_group_info",
    "open_secrets",
    "seal",
]


def _read_path_secret(reader: tls.Reader) -> bytes:
    return reader.opaque()


@dataclass(frozen=True, slots=True)
class GroupSecrets:
    """What a Welcome carries for one newcomer. `path_secret` is that of the lowest common ancestor with the committer."""

    joiner_secret: bytes = field(repr=False)
    path_secret: bytes | None = field(repr=False)
    psks: tuple[psk.PreSharedKeyId, ...] = ()

    def encode(self) -> bytes:
        """As on the wire."""
        path_secret = None if self.path_secret is None else tls.opaque(self.path_secret)
        return tls.opaque(self.joiner_secret) + tls.optional(path_secret) + tls.vector(psk_id.encode() for psk_id in self.psks)

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next GroupSecrets."""
        return cls(reader.opaque(), reader.optional(_read_path_secret), tuple(reader.vector(psk.read_id)))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """GroupSecrets that fill `data`."""
        return tls.decode(data, cls.read)


@dataclass(frozen=True, slots=True)
class EncryptedGroupSecrets:
    """GroupSecrets sealed to the init key of the key package `new_member` (its KeyPackageRef)."""

    new_member: bytes
    encrypted_group_secrets: HPKECiphertext

    def encode(self) -> bytes:
        """As on the wire."""
        return tls.opaque(self.new_member) + self.encrypted_group_secrets.encode()

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next EncryptedGroupSecrets."""
        return cls(reader.opaque(), HPKECiphertext.read(reader))


@dataclass(frozen=True, slots=True)
class Welcome:
    """A GroupInfo and, for each newcomer, the secrets that open it. RFC 9420 section 12.4.3.1."""

    cipher_suite: int
    secrets: tuple[EncryptedGroupSecrets, ...]
    encrypted_group_info: bytes

    def encode(self) -> bytes:
        """As on the wire."""
        secrets = tls.vector(entry.encode() for entry in self.secrets)
        return tls.u16(self.cipher_suite) + secrets + tls.opaque(self.encrypted_group_info)

    @classmethod
    def read(cls, reader: tls.Reader) -> Self:
        """The next Welcome."""
        return cls(reader.u16(), tuple(reader.vector(EncryptedGroupSecrets.read)), reader.opaque())

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """A Welcome that fills `data`."""
        return tls.decode(data, cls.read)

    def entry(self, key_package_ref: bytes) -> EncryptedGroupSecrets | None:
        """The entry for the key package of this reference, None where there is none."""
        for secrets in self.secrets:
            if secrets.new_member == key_package_ref:
                return secrets
        return None


@dataclass(frozen=True, slots=True)
class Newcomer:
    """One who is added: its key package and the path secret that it shares with the committer, None without a path."""

    key_package: KeyPackage
    path_secret: bytes | None = field(default=None, repr=False)


def seal(
    epoch: key_schedule.NextEpoch,
    info: GroupInfo,
    newcomers: Sequence[Newcomer],
    *,
    psks: Sequence[psk.PreSharedKeyId] = (),
    random: Random,
) -> Welcome:
    """A Welcome to the epoch that a commit begins. `psks` are those of the commit, in its order; `info` is signed.

    Raises MalformedInput for an init key that is not usable. Source: RFC 9420 section 12.4.3.1.
    """
    suite = epoch.secrets.suite
    key, nonce = key_schedule.welcome_key(suite, epoch.welcome_secret)
    encrypted_info = suite.seal(key, nonce, info.encode(), b"")
    entries: list[EncryptedGroupSecrets] = []
    for newcomer in newcomers:
        secrets = GroupSecrets(epoch.joiner_secret, newcomer.path_secret, tuple(psks)).encode()
        sealed = suite.encrypt_with_label(newcomer.key_package.init_key, "Welcome", encrypted_info, secrets, random)
        entries.append(EncryptedGroupSecrets(newcomer.key_package.ref(suite), HPKECiphertext(*sealed)))
    return Welcome(suite.number, tuple(entries), encrypted_info)


def open_secrets(suite: Suite, welcome: Welcome, key_package: KeyPackage, init_private: bytes) -> GroupSecrets:
    """The secrets that `welcome` has for `key_package`.

    Raises PeerError with the rule welcome_suite, welcome_entry or welcome_secrets; MalformedInput.
    """
    if welcome.cipher_suite != suite.number or key_package.cipher_suite != suite.number:
        refuse(Rule.WELCOME_SUITE, "a Welcome in another suite than the key package", welcome=welcome.cipher_suite)
    entry = welcome.entry(key_package.ref(suite))
    if entry is None:
        refuse(Rule.WELCOME_ENTRY, "a Welcome that has no entry for the key package")
    sealed = entry.encrypted_group_secrets
    try:
        plain = suite.decrypt_with_label(init_private, "Welcome", welcome.encrypted_group_info, sealed.kem_output, sealed.ciphertext)
    except AuthenticationFailed:
        refuse(Rule.WELCOME_SECRETS, "the group secrets of a Welcome do not open")
    return GroupSecrets.decode(plain)


def open_group_info(suite: Suite, welcome: Welcome, joiner_secret: bytes, psk_secret: bytes) -> GroupInfo:
    """The GroupInfo in `welcome`; its signature is not checked here. PeerError(rule="welcome_group_info"); MalformedInput."""
    key, nonce = key_schedule.welcome_key(suite, key_schedule.welcome_secret(suite, joiner_secret, psk_secret))
    try:
        plain = suite.open(key, nonce, welcome.encrypted_group_info, b"")
    except AuthenticationFailed:
        refuse(Rule.WELCOME_GROUP_INFO, "the GroupInfo of a Welcome does not open")
    return GroupInfo.decode(plain)
