"""The stored form of a member's group: canonical and versioned, secrets in clear; the store seals it.

Source of the parts: the structures of RFC 9420, one behind the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker_crypto.errors import MalformedInput
from broker_crypto.mls.framing import Sender
from broker_crypto.mls.proposal_list import SentProposal
from broker_crypto.mls.proposals import encode_proposal, read_proposal
from broker_crypto.wire import tls

if TYPE_CHECKING:
    from broker_crypto.mls.group import Group

VERSION = 1


def encode(group: Group) -> bytes:
    """All of `group`; two groups are equal if these bytes are."""
    keys = tls.vector(tls.opaque(public) + tls.opaque(private) for public, private in sorted(group.keys.items()))
    pending = tls.vector(_encode_pending(reference, sent) for reference, sent in sorted(group.pending.items()))
    updates = tls.vector(
        tls.opaque(public) + tls.opaque(private) + tls.opaque(signature)
        for public, (private, signature) in sorted(group.updates.items(), key=lambda item: item[0])
    )
    own = tls.u32(group.leaf) + tls.opaque(group.signature_private) + keys
    secrets = group.secrets.encode() + group.secret_tree.encode()
    return tls.u8(VERSION) + group.public.to_bytes() + own + secrets + pending + updates


def _encode_pending(reference: bytes, sent: SentProposal) -> bytes:
    return tls.opaque(reference) + sent.sender.encode() + encode_proposal(sent.proposal)


def read_version(reader: tls.Reader) -> None:
    """The head of a stored group. Raises MalformedInput for another version."""
    if reader.u8() != VERSION:
        raise MalformedInput("a stored group of another version")


def read_keys(reader: tls.Reader) -> dict[bytes, bytes]:
    """Private keys by public key."""
    return dict(reader.vector(lambda item: (item.opaque(), item.opaque())))


def read_pending(reader: tls.Reader) -> dict[bytes, SentProposal]:
    """Pending proposals by reference."""
    return dict(reader.vector(_read_pending))


def _read_pending(reader: tls.Reader) -> tuple[bytes, SentProposal]:
    reference, sender = reader.opaque(), Sender.read(reader)
    return reference, SentProposal(read_proposal(reader), sender, by_reference=True)


def read_updates(reader: tls.Reader) -> dict[bytes, tuple[bytes, bytes]]:
    """Private keys of own Update proposals by public encryption key."""
    return dict(reader.vector(lambda item: (item.opaque(), (item.opaque(), item.opaque()))))
