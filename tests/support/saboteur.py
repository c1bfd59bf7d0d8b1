"""Commits that are valid for everybody who has no secrets, and that members cannot enter or should not trust.

The public API cannot make them: each switch is one lie of a member that still signs everything.
"""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

from broker_crypto.delivery import log_records
from broker_crypto.delivery.committer import Staged
from broker_crypto.delivery.group_policy import COMMIT_HASH_EXTENSION
from broker_crypto.mls import committing, treekem
from broker_crypto.mls.framing import MLSMessage, PublicMessage
from broker_crypto.mls.group import Group, StagedCommit
from broker_crypto.mls.key_schedule import EpochSecrets
from broker_crypto.mls.leaf import EXTERNAL_PUB, Extension
from broker_crypto.mls.update_path import UpdatePath
from broker_crypto.records import Random
from broker_crypto.wire import tls

LIES = ("membership_tag", "confirmation_tag", "path_secret", "external_pub")


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes((data[-1] ^ 1,))


def wrong_commit(group: Group, time_ms: int, lie: str, random: Random, *, victim: int | None = None) -> Staged:
    """A path commit of `group` with one lie in it; `victim` is the leaf whose path secret is garbled (None: everybody's)."""
    data = log_records.CommitData(time_ms).encode()
    if lie == "confirmation_tag":
        true = EpochSecrets.confirmation_tag
        with mock.patch.object(EpochSecrets, "confirmation_tag", lambda self, h: flipped(true(self, h))):
            commit = group.commit(authenticated_data=data, random=random)
            return _record(group, commit, time_ms, lie)
    if lie == "path_secret":
        with mock.patch.object(committing.treekem, "seal_path", _garbled(group, victim)):
            commit = group.commit(authenticated_data=data, random=random)
    else:
        commit = group.commit(authenticated_data=data, random=random)
    if lie == "membership_tag":
        body = MLSMessage.decode(commit.message).body
        assert isinstance(body, PublicMessage)
        assert body.membership_tag is not None
        garbled = replace(body, membership_tag=flipped(body.membership_tag))
        commit = replace(commit, message=MLSMessage(garbled).encode())
    return _record(group, commit, time_ms, lie)


def _garbled(group: Group, victim: int | None):  # type: ignore[no-untyped-def]
    seal = treekem.seal_path

    def garble(path, context, added, random):  # type: ignore[no-untyped-def]
        sealed: UpdatePath = seal(path, context, added, random)
        nodes = list(sealed.nodes)
        for number, node in enumerate(nodes):
            copath = path.tree.filtered_direct_path(path.leaf_index)[number][1]
            below = path.tree.resolution(copath)
            for at, target in enumerate(below):
                if victim is None or target == 2 * victim:
                    secrets = list(nodes[number].encrypted_path_secret)
                    secrets[at] = replace(secrets[at], ciphertext=flipped(secrets[at].ciphertext))
                    nodes[number] = replace(node, encrypted_path_secret=tuple(secrets))
                    node = nodes[number]
        return replace(sealed, nodes=tuple(nodes))

    return garble


def _record(group: Group, commit: StagedCommit, time_ms: int, lie: str) -> Staged:
    digest = log_records.commit_hash(commit.message)
    named = Extension(COMMIT_HASH_EXTENSION, digest)
    info = commit.group.group_info(extensions=(named,), external_pub=lie != "external_pub")
    if lie == "external_pub":
        _, other = commit.group.suite.derive_key_pair(b"\x05" * commit.group.suite.nh)
        info = commit.group.group_info(extensions=(named, Extension(EXTERNAL_PUB, tls.opaque(other))), external_pub=False)
    record = log_records.GroupRecord(log_records.COMMIT, group.epoch, commit.message, info.encode())
    return Staged(digest, group.epoch, time_ms, record.encode(), commit.group)
