"""Pre-shared keys: their ids and the psk_secret that they add to an epoch (RFC 9420 sections 8.4 to 8.7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self, TypeAlias

from broker_crypto.crypto.suites import Suite
from broker_crypto.errors import MalformedInput, UsageError
from broker_crypto.limits import MAX_PSKS
from broker_crypto.mls.validation import Rule, refuse
from broker_crypto.wire import tls

EXTERNAL, RESUMPTION = 1, 2


class Usage(IntEnum):
    """ResumptionPSKUsage of RFC 9420 section 8.4."""

    APPLICATION = 1
    REINIT = 2
    BRANCH = 3


_USAGES = {int(usage): usage for usage in Usage}


@dataclass(frozen=True, slots=True)
class ExternalPsk:
    """PreSharedKeyID of a key that the application hands out. `nonce` is Nh bytes, fresh for each use."""

    psk_id: bytes
    nonce: bytes

    def encode(self) -> bytes:
        return tls.u8(EXTERNAL) + tls.opaque(self.psk_id) + tls.opaque(self.nonce)


@dataclass(frozen=True, slots=True)
class ResumptionPsk:
    """PreSharedKeyID of the resumption key of an epoch of this or another group."""

    usage: Usage
    group_id: bytes
    epoch: int
    nonce: bytes

    def encode(self) -> bytes:
        head = tls.u8(RESUMPTION) + tls.u8(self.usage)
        return head + tls.opaque(self.group_id) + tls.u64(self.epoch) + tls.opaque(self.nonce)


PreSharedKeyId: TypeAlias = ExternalPsk | ResumptionPsk


def read_id(reader: tls.Reader) -> PreSharedKeyId:
    """PreSharedKeyID of RFC 9420 section 8.4; MalformedInput for an unknown type or usage."""
    kind = reader.u8()
    if kind == EXTERNAL:
        return ExternalPsk(reader.opaque(), reader.opaque())
    if kind != RESUMPTION:
        raise MalformedInput("an unknown type of pre-shared key", type=kind)
    usage = reader.u8()
    if usage not in _USAGES:
        raise MalformedInput("an unknown usage of a resumption key", usage=usage)
    return ResumptionPsk(_USAGES[usage], reader.opaque(), reader.u64(), reader.opaque())


@dataclass(frozen=True, slots=True)
class PskSecrets:
    """The pre-shared keys at hand: external ones by psk_id, resumption ones by (group_id, epoch)."""

    external: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    resumption: Mapping[tuple[bytes, int], bytes] = field(default_factory=dict, repr=False)

    def find(self, psk_id: PreSharedKeyId) -> bytes | None:
        """The key that `psk_id` names, None where it is not held."""
        if isinstance(psk_id, ExternalPsk):
            return self.external.get(psk_id.psk_id)
        return self.resumption.get((psk_id.group_id, psk_id.epoch))

    def joined(self, other: Self) -> Self:
        """These and `other`'s, whose entries win."""
        return type(self)({**self.external, **other.external}, {**self.resumption, **other.resumption})


def psk_secret(suite: Suite, psks: Sequence[tuple[PreSharedKeyId, bytes]]) -> bytes:
    """The psk_secret (Nh bytes) of the keys in this order; Nh zeros without any.

    Raises UsageError for more than 65,535 keys. Source: RFC 9420 section 8.4.
    """
    if len(psks) > MAX_PSKS:
        raise UsageError("too many pre-shared keys", count=len(psks), limit=MAX_PSKS)
    zeros = bytes(suite.nh)
    secret = zeros
    for index, (psk_id, psk) in enumerate(psks):
        label = psk_id.encode() + tls.u16(index) + tls.u16(len(psks))
        item = suite.expand_with_label(suite.extract(zeros, psk), "derived psk", label, suite.nh)
        secret = suite.extract(item, secret)
    return secret


def gather(suite: Suite, ids: Sequence[PreSharedKeyId], held: PskSecrets) -> bytes:
    """psk_secret of `ids`, looked up in `held`.

    Raises PeerError with the rule psk_held, naming the first one that is missing, or psk_count for more than 65,535.
    """
    if len(ids) > MAX_PSKS:
        refuse(Rule.PSK_COUNT, "more pre-shared keys than a commit can count", count=len(ids), limit=MAX_PSKS)
    pairs: list[tuple[PreSharedKeyId, bytes]] = []
    for psk_id in ids:
        secret = held.find(psk_id)
        if secret is None:
            refuse(Rule.PSK_HELD, "a pre-shared key is not held", psk=describe(psk_id))
        pairs.append((psk_id, secret))
    return psk_secret(suite, pairs)


def describe(psk_id: PreSharedKeyId) -> str:
    """The id in words for an error, cut to 16 bytes: ids are public, keys never appear."""
    if isinstance(psk_id, ExternalPsk):
        return f"external {psk_id.psk_id[:16].hex()}"
    return f"{psk_id.usage.name.lower()} of epoch {psk_id.epoch}, group {psk_id.group_id[:16].hex()}"
