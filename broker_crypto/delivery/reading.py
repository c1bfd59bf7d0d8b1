"""A group as its rows say, for who only looks: no log, no loop."""

from __future__ import annotations

from broker_crypto.delivery.handle import Group
from broker_crypto.delivery.membership import Membership
from broker_crypto.delivery.memory import GroupMemory
from broker_crypto.errors import BrokerCryptoError
from broker_crypto.storage.port import StateStore


class Snapshot:
    """What `Group` reads of a loop, from the store as it is now."""

    def __init__(self, group: str, identity: str) -> None:
        self.group = group
        self.identity = identity
        self.memory = GroupMemory(Membership(group))
        self.head = 0
        self.trouble: BrokerCryptoError | None = None

    @property
    def member(self) -> Membership:
        return self.memory.member


async def read_group(store: StateStore, group: str, identity: str) -> Group:
    """The group in `store`, as of now. Raises StateCorrupt."""
    snapshot = Snapshot(group, identity)
    await snapshot.memory.load(store)
    return Group(snapshot)


async def read_member(store: StateStore, group: str) -> Membership:
    """What `store` says of this agent's place in the group, as of now. Raises StateCorrupt."""
    memory = GroupMemory(Membership(group))
    await memory.load(store)
    return memory.member
