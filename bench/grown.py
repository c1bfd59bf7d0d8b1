"""Groups of any size in no time: the tree that external joins in series lead to, made without sealing paths to anybody.

Every leaf is placed and draws its path as an external joiner does, so that tree, parent hashes and signatures are what a
group has that has grown by itself, and every check of the engine holds on them. Whoever makes it knows all private keys, and so
can hand out the state of any member; the epoch's secrets begin at random as those of a founding do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from broker_crypto.crypto import Suite
from broker_crypto.mls import key_schedule, transcript, treekem
from broker_crypto.mls.group import Group, OwnLeaf
from broker_crypto.mls.key_schedule import NextEpoch
from broker_crypto.mls.leaf import BASIC, Capabilities, Credential, Extensions
from broker_crypto.mls.public import PublicGroup
from broker_crypto.mls.secret_tree import SecretTree
from broker_crypto.mls.tree_draft import TreeDraft
from broker_crypto.records import Random


@dataclass(frozen=True)
class Grown:
    """A group of which everything is known: `keys` are the HPKE private keys by public key, `signers` those that sign, by leaf."""

    public: PublicGroup
    epoch: NextEpoch
    keys: Mapping[bytes, bytes]
    signers: Sequence[bytes]

    def member(self, leaf: int) -> Group:
        """The group as the member at `leaf` holds it."""
        suite, tree = self.public.suite, self.public.tree
        messages = SecretTree.begin(suite, self.epoch.encryption_secret, tree.size)
        return Group(self.public, leaf, self.signers[leaf], treekem.held_keys(tree, leaf, self.keys), self.epoch.secrets, messages)


def basic_leaf(suite: Suite, name: str, random: Random) -> OwnLeaf:
    """A member with a basic credential, the only kind that the mls-rs binding knows."""
    private, public = suite.signature_key_pair(random)
    capabilities = Capabilities(cipher_suites=(suite.number,), credentials=(BASIC,))
    return OwnLeaf(Credential.basic(name.encode()), private, public, capabilities)


def grow(suite: Suite, group_id: bytes, members: Sequence[OwnLeaf], random: Random, *, extensions: Extensions = ()) -> Grown:
    """The group of `members`, each in the leaf of its place."""
    founded = Group.found(suite, group_id, members[0], extensions=extensions, random=random)
    tree, keys = founded.public.tree, dict(founded.keys)
    for own in members[1:]:
        draft, template = TreeDraft(tree), own.template()
        index, private = draft.place(template), own.signature_private
        path = treekem.new_path(draft, index, template, signature_private=private, group_id=group_id, random=random)
        tree = path.tree
        keys.update(path.keys)
    transcript_hash, epoch = random(suite.nh), key_schedule.found(suite, random(suite.nh))
    context = replace(founded.public.context, epoch=len(members) - 1, tree_hash=tree.tree_hash(), confirmed_transcript_hash=transcript_hash)
    interim = transcript.interim(suite, transcript_hash, epoch.secrets.confirmation_tag(transcript_hash))
    return Grown(PublicGroup(context, tree, interim), epoch, keys, [own.signature_private for own in members])
