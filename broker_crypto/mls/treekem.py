"""TreeKEM: how a commit gives the group new keys along the path of its sender.

Source: RFC 9420 sections 7.4 to 7.6.
"""

from __future__ import annotations

from broker_crypto.mls.update_path import HPKECiphertext, UpdatePath, UpdatePathNode

__all__ = ["HPKECiphertext", "UpdatePath", "UpdatePathNode"]
