"""What a run knows beside its agents: what each log says, what was asked for, what was released under which key and nonce."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any
from unittest import mock

from broker_crypto.channels import sealing
from broker_crypto.channels.record import read_record
from broker_crypto.delivery import state
from broker_crypto.delivery.membership import Seen
from broker_crypto.delivery.rules import Chain, Counted, judge
from broker_crypto.mls.public import PublicGroup
from broker_crypto.records import LogEntry, Place, Sealed
from tests.sim.broker import SimBroker, Truth
from tests.sim.cast import GROUP

if TYPE_CHECKING:
    from tests.sim.life import Life, Rows
    from tests.sim.node import Node

Said = tuple[object, ...]


def of_chain(chain: Chain | None) -> Said:
    """Everything that a chain says, its trees as bytes."""
    if chain is None:
        return ()
    return tuple(_plain(getattr(chain, one.name)) for one in fields(chain))


def _plain(value: Any) -> object:
    if isinstance(value, PublicGroup):
        return value.to_bytes()
    return dict(value) if isinstance(value, Mapping) else value


@dataclass(frozen=True)
class Ended:
    """A commit that ended an epoch: the chain that it found, and what it is."""

    before: Chain
    after: Chain
    commit: Counted
    entry: LogEntry


class Follower:
    """Reads one log from its founding, without secrets, one record at a time, its state through bytes now and then."""

    def __init__(self, broker: SimBroker) -> None:
        self.broker = broker
        self.chain: Chain | None = None
        self.read: list[LogEntry] = []
        self.said: dict[Seen, list[Said]] = {}
        self.ended: dict[bytes, Ended] = {}  # by hash, also of what the log has lost
        self.epochs: dict[int, Chain] = {}
        self.verdicts: list[str] = []

    def follow(self) -> None:
        """Read on. A log that lost its beginning is still the one that was read."""
        last = self.read[-1].position if self.read else -1
        for entry in self.broker.behind(last):
            self._one(entry)

    def as_it_was(self) -> Follower:
        """One that has read the log as it was, and reads on whatever it becomes: what an agent does that has not compared yet."""
        other = copy(self)
        other.read, other.epochs, other.ended = list(self.read), dict(self.epochs), dict(self.ended)
        other.said = {seen: list(said) for seen, said in self.said.items()}
        return other

    def begin_anew(self) -> None:
        """The log is another one: what it said before stays said."""
        self.chain, self.read, self.epochs, self.verdicts = None, [], {}, []

    def _one(self, entry: LogEntry) -> None:
        verdict, before = judge(self.chain, entry, GROUP), self.chain
        self.verdicts.append(verdict.kind if verdict.kind != "invalid" else f"invalid: {verdict.reason}")
        self.chain = verdict.chain
        if self.chain is not None and self.chain is not before:
            self.epochs[self.chain.epoch] = self.chain
            if verdict.commit is not None and before is not None:
                self.ended[verdict.hash] = Ended(before, self.chain, verdict.commit, entry)
        self.read.append(entry)
        said = self.said.setdefault(Seen.of(entry), [])
        if of_chain(self.chain) not in said:
            said.append(of_chain(self.chain))
        if self.chain is not None and len(self.read) % 7 == 0:
            self.chain = replace(self.chain, public=PublicGroup.from_bytes(self.chain.public.to_bytes()))


@dataclass
class Asked:
    """One intent: whose, how often it is in force, how it ended."""

    node: Node
    kind: str
    delta: bytes = b""
    refused: str | None = None
    gone: bool = False
    excused: bool = False  # its store was put back or copied while it was open


@dataclass
class Ledger:
    """`commits`: intents of each own commit that was ever staged, by its hash."""

    intents: dict[bytes, Asked] = field(default_factory=dict)
    commits: dict[bytes, set[bytes]] = field(default_factory=dict)
    truths: list[Truth] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    used: dict[bytes, str] = field(default_factory=dict)
    ids: set[tuple[object, ...]] = field(default_factory=set)

    def committed(self, node: Node, rows: Rows, writes: Mapping[tuple[str, bytes], bytes | None]) -> None:
        """These rows change, now."""
        for (kind, key), value in writes.items():
            if kind == state.GROUP and value is not None:
                node.ever.append(value)
            elif kind == state.STAGED and value is not None:
                staged = state.decode_staged(value)
                self.commits.setdefault(staged.hash, set()).update(staged.intents)
            elif kind == state.INTENT:
                self._intent(node, key[-16:], value)

    def _intent(self, node: Node, name: bytes, value: bytes | None) -> None:
        if value is None:
            if name in self.intents:
                self.intents[name].gone = True
            return
        intent = state.Intent.decode(value)
        asked = self.intents.setdefault(name, Asked(node, intent.kind, intent.delta))
        asked.refused = intent.refused or asked.refused

    def excuse(self, rows: Rows, left: Rows | None = None) -> None:
        """These rows are put back, lost, or run twice from now on: what they ask for may be done more than once, or never.

        `left` are the rows that are there from now on, None where nothing is taken away.
        """
        for kind, key in rows:
            if kind == state.INTENT and key[-16:] in self.intents:
                asked = self.intents[key[-16:]]
                asked.excused = True
                if left is not None:
                    asked.gone = (kind, key) not in left

    def released(self, node: Node, life: Life, place: Place, payload: bytes, sealed: Sealed) -> tuple[Place, bytes, Truth]:
        """A record leaves the sender's channel."""
        prefix, rest = read_record(sealed.data)
        truth = Truth(len(self.truths), payload, node.identity, node.label, prefix.epoch, prefix.epoch_id, prefix.leaf)
        self.truths.append(truth)
        name = (prefix.epoch_id, place.topic, prefix.leaf, prefix.stream, place.partition, rest.sequence)
        if name in self.ids:
            self.twice.append(f"record id {name[1:3]} sequence {rest.sequence} of {node.label}")
        self.ids.add(name)
        node.sim.sealed(node, life, truth)
        return place, sealed.data, truth

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hear of every key and nonce under which a record is encrypted, wherever."""
        derive = sealing.SealingEpoch.key

        def key(epoch: sealing.SealingEpoch, partition: int, stream: sealing.Stream) -> sealing.SealingKey:
            made = derive(epoch, partition, stream)
            secret = epoch.topic_keys.sender(epoch.leaf, stream.value, partition).key
            encrypt = made.encrypt

            def counted(nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
                self._use(hashlib.sha256(secret + nonce).digest(), f"epoch {epoch.view.epoch} leaf {epoch.leaf}")
                return encrypt(nonce, plaintext, aad)

            made.encrypt = counted
            return made

        with mock.patch.object(sealing.SealingEpoch, "key", key):
            yield

    def _use(self, name: bytes, where: str) -> None:
        if name in self.used:
            self.twice.append(f"key and nonce, {where}, before in {self.used[name]}")
        self.used[name] = where
