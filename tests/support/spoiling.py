"""An insider's commits that everybody must count as valid and that some, or all, cannot enter.

They keep every rule that can be checked without secrets. The GroupInfo that goes with one is signed by the insider over
the very state that the followers compute, so that only a member's own secrets show what is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from broker_crypto.mls import key_schedule, proposal_list, protection, transcript, tree_math, treekem
from broker_crypto.mls.framing import AuthData, AuthenticatedContent, FramedContent, MLSMessage, PublicMessage, Sender, WireFormat, sign
from broker_crypto.mls.group import Group, OwnLeaf
from broker_crypto.mls.group_info import GroupInfo
from broker_crypto.mls.leaf import EXTERNAL_PUB, Extension
from broker_crypto.mls.proposals import Commit
from broker_crypto.mls.public import PublicGroup
from broker_crypto.mls.tree_draft import TreeDraft
from broker_crypto.mls.update_path import HPKECiphertext, UpdatePath
from broker_crypto.records import Random
from broker_crypto.wire import tls


@dataclass(frozen=True)
class Spoil:
    """What is wrong: the confirmation tag, the membership tag, the path secret for one leaf, a path key that the secret for
    all does not lead to, the external_pub in the GroupInfo."""

    confirmation_tag: bool = False
    membership_tag: bool = False
    secret_for: int | None = None
    path_key: bool = False
    external_pub: bool = False


@dataclass(frozen=True)
class Spoiled:
    """A commit to send with the state that its maker would be in, and how the GroupInfo for it is made."""

    message: PublicMessage
    public: PublicGroup
    maker: Group
    epoch: key_schedule.NextEpoch
    external_pub: bytes

    def encode(self) -> bytes:
        """As an MLSMessage."""
        return MLSMessage(self.message).encode()

    def group_info(self, extensions: tuple[Extension, ...] = ()) -> GroupInfo:
        """Of the epoch that follows, with external_pub first and `extensions` behind it, signed by the maker's leaf."""
        tag = self.message.auth.confirmation_tag or b""
        published = (Extension(EXTERNAL_PUB, tls.opaque(self.external_pub)), *extensions)
        info = GroupInfo(self.public.context, published, tag, self.maker.leaf)
        return info.signed(self.maker.suite, self.maker.signature_private)


def spoil(group: Group, wrong: Spoil, random: Random, *, authenticated_data: bytes = b"") -> Spoiled:
    """A path commit of `group`'s member with what is `wrong`."""
    public, suite = group.public, group.suite
    changes = proposal_list.apply(public.before(), (), Sender.member(group.leaf))
    old = public.tree.leaf(group.leaf)
    assert old is not None
    template = OwnLeaf.of(old, group.signature_private).template()
    new = treekem.new_path(
        TreeDraft(changes.tree),
        group.leaf,
        template,
        signature_private=group.signature_private,
        group_id=public.group_id,
        random=random,
    )
    if wrong.path_key:
        new = replace(new, secrets={number: random(suite.nh) for number in new.secrets})
    provisional = public.provisional(new.tree, changes)
    path = treekem.seal_path(new, provisional.encode(), frozenset(), random)
    if wrong.secret_for is not None:
        path = _with_wrong_secret(new.tree, group.leaf, path, wrong.secret_for)
    content = FramedContent(public.group_id, public.epoch, Sender.member(group.leaf), authenticated_data, Commit((), path))
    signature = sign(suite, group.signature_private, content, WireFormat.PUBLIC_MESSAGE, public.context)
    signed = AuthenticatedContent(WireFormat.PUBLIC_MESSAGE, content, AuthData(signature, b""))
    confirmed = transcript.confirmed(suite, public.interim_transcript_hash, signed)
    context = replace(provisional, confirmed_transcript_hash=confirmed)
    epoch = key_schedule.begin(suite, group.secrets.init_secret, new.commit_secret, bytes(suite.nh), context)
    tag = random(suite.nh) if wrong.confirmation_tag else epoch.secrets.confirmation_tag(confirmed)
    message = protection.public_message(replace(signed, auth=AuthData(signature, tag)), group.secrets, public.context)
    if wrong.membership_tag:
        message = replace(message, membership_tag=random(suite.nh))
    external_pub = suite.derive_key_pair(random(suite.nh) if wrong.external_pub else epoch.secrets.external_secret)[1]
    after = PublicGroup(context, new.tree, transcript.interim(suite, confirmed, tag), public.policy)
    return Spoiled(message, after, group, epoch, external_pub)


def _with_wrong_secret(tree: treekem.RatchetTree, sender: int, path: UpdatePath, victim: int) -> UpdatePath:
    """The path with the ciphertext changed that the leaf `victim` would open."""
    nodes = list(path.nodes)
    for place, (_, off_path) in enumerate(tree.filtered_direct_path(sender)):
        sealed = list(nodes[place].encrypted_path_secret)
        for number, target in enumerate(treekem.receivers(tree, off_path, frozenset())):
            if tree_math.is_below(2 * victim, target):
                broken = bytes((sealed[number].ciphertext[0] ^ 1,)) + sealed[number].ciphertext[1:]
                sealed[number] = HPKECiphertext(sealed[number].kem_output, broken)
        nodes[place] = replace(nodes[place], encrypted_path_secret=tuple(sealed))
    return replace(path, nodes=tuple(nodes))
