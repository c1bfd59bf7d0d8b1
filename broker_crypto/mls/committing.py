"""Making a commit: proposals to tree, path, GroupContext, key schedule, tag; and the Welcome for those it adds.

The same steps for a member and for one who joins from outside; what they bring is in `Committer`. Nothing of the group is
changed, and what is made here is valid for others only once they have checked it like any commit.
Source: RFC 9420 sections 12.4.1 and 12.4.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from broker_crypto.errors import UsageError
from broker_crypto.mls import key_schedule, proposal_list, psk, transcript, tree_math, treekem, welcome
from broker_crypto.mls.framing import AuthData, AuthenticatedContent, FramedContent, Sender, SenderType, WireFormat, sign
from broker_crypto.mls.group_info import GroupInfo
from broker_crypto.mls.key_schedule import NextEpoch
from broker_crypto.mls.leaf import EXTERNAL_PUB, RATCHET_TREE, Extension, Extensions, LeafNode, are_distinct
from broker_crypto.mls.proposal_list import Changes, SentProposal
from broker_crypto.mls.proposals import Add, Commit, Proposal, ProposalRef
from broker_crypto.mls.public import PublicGroup, check_credentials
from broker_crypto.mls.tree_draft import TreeDraft
from broker_crypto.mls.treekem import NewPath, PrivateKeys
from broker_crypto.mls.welcome import Newcomer, Welcome
from broker_crypto.records import Random
from broker_crypto.wire import tls


@dataclass(frozen=True, slots=True)
class Committer:
    """Who commits: `sender` as in the message; the key that signs the message, the key of the new leaf; the init secret to start from."""

    sender: Sender
    message_private: bytes = field(repr=False)
    leaf_private: bytes = field(repr=False)
    init_secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Draft:
    """A commit as asked for: `items` as they stand in it, `sent` the same resolved, `template` the new leaf, None for no path."""

    items: tuple[Proposal | ProposalRef, ...]
    sent: tuple[SentProposal, ...]
    template: LeafNode | None
    authenticated_data: bytes = b""
    wire_format: WireFormat = WireFormat.PUBLIC_MESSAGE
    held: psk.PskSecrets = field(default_factory=psk.PskSecrets, repr=False)
    now: int | None = None
    resuming: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """A commit that was made: the signed content and its tag, the epoch it leads to, and what its maker knows of it."""

    signed: AuthenticatedContent
    public: PublicGroup
    leaf: int
    changes: Changes
    epoch: NextEpoch
    path: NewPath | None
    keys: PrivateKeys = field(repr=False)


def make(public: PublicGroup, committer: Committer, draft: Draft, random: Random) -> Made:
    """Make the commit. Raises PeerError where its proposals may not be committed, or a PSK is not held."""
    changes = proposal_list.apply(public.before(resuming=draft.resuming), draft.sent, committer.sender, draft.now)
    if draft.template is None and changes.path_required:
        raise UsageError("these proposals need a path")
    suite, added = public.suite, frozenset(changes.added)
    psk_secret = psk.gather(suite, changes.psks, draft.held)
    path = None if draft.template is None else _new_path(public, committer, changes, draft.template, random)
    tree = changes.tree if path is None else path.tree
    check_credentials(tree)
    provisional = public.provisional(tree, changes)
    update_path = None if path is None else treekem.seal_path(path, provisional.encode(), added, random)
    commit = Commit(draft.items, update_path)
    content = FramedContent(public.group_id, public.epoch, committer.sender, draft.authenticated_data, commit)
    signature = sign(suite, committer.message_private, content, draft.wire_format, public.context)
    signed = AuthenticatedContent(draft.wire_format, content, AuthData(signature, b""))
    context = replace(provisional, confirmed_transcript_hash=transcript.confirmed(suite, public.interim_transcript_hash, signed))
    commit_secret = bytes(suite.nh) if path is None else path.commit_secret
    epoch = key_schedule.begin(suite, committer.init_secret, commit_secret, psk_secret, context)
    tag = epoch.secrets.confirmation_tag(context.confirmed_transcript_hash)
    interim = transcript.interim(suite, context.confirmed_transcript_hash, tag)
    return Made(
        signed=replace(signed, auth=AuthData(signature, tag)),
        public=PublicGroup(context, tree, interim, public.policy, changes.reinit),
        leaf=committer.sender.index if path is None else path.leaf_index,
        changes=changes,
        epoch=epoch,
        path=path,
        keys={} if path is None else path.keys,
    )


def _new_path(public: PublicGroup, committer: Committer, changes: Changes, template: LeafNode, random: Random) -> NewPath:
    draft = TreeDraft(changes.tree)
    external = committer.sender.type is SenderType.NEW_MEMBER_COMMIT
    index = draft.place(template) if external else committer.sender.index
    path = treekem.new_path(draft, index, template, signature_private=committer.leaf_private, group_id=public.group_id, random=random)
    changes.demands.check_content(path.leaf_node, index)
    return path


def group_info(
    public: PublicGroup, epoch: key_schedule.EpochSecrets, signer: int, signature_private: bytes, extensions: Extensions
) -> GroupInfo:
    """A GroupInfo of `public`, signed by the leaf `signer` with its key `signature_private`. Raises UsageError."""
    if not are_distinct(extensions):
        raise UsageError("an extension type stands twice in a GroupInfo")
    tag = epoch.confirmation_tag(public.context.confirmed_transcript_hash)
    return GroupInfo(public.context, extensions, tag, signer).signed(public.suite, signature_private)


def published(public: PublicGroup, epoch: key_schedule.EpochSecrets, *, ratchet_tree: bool, external_pub: bool) -> Extensions:
    """The GroupInfo extensions that newcomers need: the tree, the key to join with."""
    extensions = []
    if ratchet_tree:
        extensions.append(Extension(RATCHET_TREE, public.tree.encode()))
    if external_pub:
        extensions.append(Extension(EXTERNAL_PUB, tls.opaque(epoch.external_key_pair()[1])))
    return tuple(extensions)


def welcome_for(made: Made, info: GroupInfo, random: Random) -> Welcome:
    """The Welcome for those whom the commit adds. `info` is the signed GroupInfo of the new epoch."""
    packages = [add.key_package for add in made.changes.of(Add)]
    newcomers = [Newcomer(package, _shared_secret(made, leaf)) for package, leaf in zip(packages, made.changes.added, strict=True)]
    return welcome.seal(made.epoch, info, newcomers, psks=made.changes.psks, random=random)


def _shared_secret(made: Made, leaf: int) -> bytes | None:
    """Path secret of the lowest node above both the committer and `leaf`."""
    if made.path is None:
        return None
    return made.path.secrets[tree_math.common_ancestor(2 * made.leaf, 2 * leaf)]
