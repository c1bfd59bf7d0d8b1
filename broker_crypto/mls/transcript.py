"""Transcript hashes: all commits of a group in order, in two hashes (RFC 9420 section 8.2)."""

from __future__ import annotations

from broker_crypto.crypto.suites import Suite
from broker_crypto.mls.framing import AuthenticatedContent
from broker_crypto.wire import tls


def confirmed(suite: Suite, interim_before: bytes, commit: AuthenticatedContent) -> bytes:
    """confirmed_transcript_hash of the epoch that `commit` begins: all up to and including its signature."""
    message = tls.u16(commit.wire_format) + commit.content.encode() + tls.opaque(commit.auth.signature)
    return suite.hash(interim_before + message)


def interim(suite: Suite, confirmed_hash: bytes, confirmation_tag: bytes) -> bytes:
    """interim_transcript_hash of the epoch of `confirmed_hash` (empty in epoch 0), with its confirmation tag."""
    return suite.hash(confirmed_hash + tls.opaque(confirmation_tag))
