"""What somebody can do with the whole state folder of a member: every key in it, and all that follows from them in the group's log.

The rows give stream secrets and MLS states. From those every commit of the log is tried: each path secret in it with each private key
at hand, its external init with each epoch, no path at all, behind each init secret. What comes out counts whether the commit's tag
holds or not; where it holds, that epoch's secrets are at hand too. Then each secret is tried on each record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

from broker_crypto import storage
from broker_crypto.channels.keys import TopicKeys
from broker_crypto.channels.record import read_record
from broker_crypto.channels.topic import TopicChannel, TopicSettings
from broker_crypto.crypto import InvalidTag
from broker_crypto.crypto.aead import AuthenticationFailed
from broker_crypto.crypto.suites import Suite
from broker_crypto.delivery import views
from broker_crypto.delivery.membership import Epoch, Membership
from broker_crypto.delivery.memory import GroupMemory
from broker_crypto.delivery.rules import judge
from broker_crypto.errors import MalformedInput
from broker_crypto.mls import key_schedule, treekem
from broker_crypto.mls.group import CannotEnter, Group
from broker_crypto.mls.key_schedule import EpochSecrets
from broker_crypto.mls.public import PublicStaged
from broker_crypto.records import EpochView, GroupView, LogEntry, Place, Random, Sealed

_Path = tuple[bytes, tuple[bytes, ...]]  # commit secret, private keys found on the way


class Loot:
    """Keys of one group, out of one state folder or several."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.entered: list[int] = []  # epochs that no row knows, entered by a commit of the log
        self._secrets: dict[bytes, int] = {}  # whatever may be a stream secret: its suite
        self._privates: dict[bytes, None] = {}
        self._epochs: dict[bytes, EpochSecrets] = {}  # by init secret
        self._states: list[Group] = []
        self._newest: Epoch | None = None
        self._keys: dict[bytes, TopicKeys] = {}

    def __len__(self) -> int:
        """How many keys and secrets of the group are at hand."""
        return len(self._secrets) + len(self._privates)

    async def rob(self, database: Path, store_key: Path) -> None:
        """Take every key of the group from a store. Raises StateError, StoreUnavailable."""
        store = storage.open(database, storage.FileKey(store_key), beside=True, create=False)
        memory = GroupMemory(Membership(self.group))
        try:
            await memory.load(store)
        finally:
            await store.close()
        for epoch in memory.epochs.values():
            if epoch.stream_secret is not None:
                self._secrets[epoch.stream_secret] = epoch.suite
                if self._newest is None or epoch.epoch > self._newest.epoch:
                    self._newest = epoch
        for mls in (memory.member.mls, *(staged.next for staged in memory.staged.values())):
            if mls is not None:
                self._states.append(mls)
                self._hold(mls.keys.values())
                self._hold(private for private, _ in mls.updates.values())
                self._learn(mls.secrets, mls.public.group_id)

    def _hold(self, privates: Iterable[bytes]) -> None:
        self._privates |= dict.fromkeys(privates)

    def _learn(self, secrets: EpochSecrets, group_id: bytes) -> None:
        """Take an epoch's secrets for what they are, and each for a stream secret."""
        self._epochs[secrets.init_secret] = secrets
        self._hold((secrets.external_key_pair()[0],))
        for secret in (_stream_secret(secrets, group_id), *(getattr(secrets, one.name) for one in fields(secrets) if one.name != "suite")):
            self._secrets[secret] = secrets.suite.number

    # --- through the log ------------------------------------------------------------------------------------------

    def follow(self, entries: Iterable[LogEntry]) -> None:
        """Try every commit of the log that counts."""
        chain = None
        for entry in entries:
            verdict = judge(chain, entry, self.group)
            chain = verdict.chain
            if verdict.commit is not None:
                self._break_into(verdict.commit.staged)

    def _break_into(self, staged: PublicStaged) -> None:
        suite, group_id = staged.next.suite, staged.next.group_id
        no_psk = bytes(suite.nh)
        paths = list(self._paths(suite, staged))
        for init in list(self._inits(staged)):
            for commit_secret, privates in paths:
                secrets = key_schedule.begin(suite, init, commit_secret, no_psk, staged.next.context).secrets
                self._secrets[_stream_secret(secrets, group_id)] = suite.number
                if secrets.confirmation_tag_holds(staged.next.context.confirmed_transcript_hash, staged.confirmation_tag):
                    if secrets.init_secret not in self._epochs:
                        self.entered.append(staged.next.epoch)
                    self._hold(privates)
                    self._learn(secrets, group_id)

    def _inits(self, staged: PublicStaged) -> Iterator[bytes]:
        yield from self._epochs
        external = staged.changes.external_init
        if external is None:
            return
        for secrets in self._epochs.values():
            try:
                yield key_schedule.receive_external_init(secrets, external.kem_output)
            except MalformedInput:
                continue

    def _paths(self, suite: Suite, staged: PublicStaged) -> Iterator[_Path]:
        """Every commit secret that a key at hand leads to, and the one of a commit without a path."""
        yield bytes(suite.nh), ()
        if staged.path is None:
            return
        tree, context = staged.next.tree, staged.provisional.encode()
        for (number, _), node in zip(tree.filtered_direct_path(staged.committer), staged.path.nodes, strict=True):
            for sealed in node.encrypted_path_secret:
                for private in self._privates:
                    try:
                        secret = suite.decrypt_with_label(private, "UpdatePathNode", context, sealed.kem_output, sealed.ciphertext)
                        keys, commit_secret = treekem.climb(tree, staged.committer, number, secret)
                    except (AuthenticationFailed, MalformedInput, CannotEnter):
                        continue
                    yield commit_secret, tuple(keys.values())

    # --- on records -----------------------------------------------------------------------------------------------

    def open(self, topic: str, subject: str, data: bytes) -> bytes | None:
        """What stands in a record, if any secret at hand opens it: signature, roster and fences are not asked."""
        prefix, rest = read_record(data)
        for secret, number in self._secrets.items():
            keys = self._keys.get(secret)
            if keys is None:
                view = EpochView(0, b"", number, b"", stream_secret=secret, roster={}, topics=frozenset((topic,)))
                keys = self._keys[secret] = TopicKeys(view, topic)
            place = keys.where(-1, subject).place_hash(None)
            sender = keys.sender(prefix.leaf, prefix.stream, -1)
            nonce = (int.from_bytes(sender.base_nonce, "big") ^ rest.sequence).to_bytes(12, "big")
            try:
                return keys.suite.cipher(sender.key).decrypt(nonce, rest.ciphertext, rest.header + place)
            except InvalidTag:
                continue
        return None

    def seal(self, topic: str, subject: str, payloads: Iterable[bytes], random: Random) -> list[Sealed]:
        """Records as the robbed member sealed them in its newest epoch: its keys, its leaf, its signature."""
        epoch, state = self._newest, self._states[-1]
        if epoch is None or epoch.stream_secret is None:
            raise ValueError("no epoch to seal in")
        view = views.epoch_view(epoch, epoch.stream_secret, {})
        channel = TopicChannel(TopicSettings(topic), random)
        channel.view = GroupView(
            {epoch.epoch_id: view}, epoch.epoch, sealing=view, leaf=state.leaf, signature_private=state.signature_private
        )
        return channel.seal([(Place(topic, subject=subject), payload, None) for payload in payloads])


def _stream_secret(secrets: EpochSecrets, group_id: bytes) -> bytes:
    return secrets.export("broker_crypto stream v1", group_id, secrets.suite.nh)
