"""Joining a group by a Welcome: the recipe of RFC 9420 section 12.4.3.1.

1  The Welcome has an entry for this key package, in its suite.                    welcome_suite, welcome_entry
2  The group secrets open with the init key.                                       welcome_secrets
3  Every pre-shared key is held; a reinit or branch key is the only one.           psk_held, welcome_psks
4  The GroupInfo opens with the welcome secret.                                    welcome_group_info
5  Suite and version are the key package's; the group id is new to this client.    group_suite, group_unique
6  There is a tree; it and the GroupInfo hold together and are signed.             the rules of `public`
7  The own leaf is in the tree, as it stands in the key package.                   own_leaf
8  The path secret leads to the public keys above the own leaf.                    path_key
9  The confirmation tag holds in the epoch of the joiner secret.                   confirmation_tag
10 A resumed group is in epoch 1 and continues the one that its key names.         resumption_epoch, resumed_group

Nothing is made before step 9 has passed. The caller deletes the init key of a key package that was used (section 16.8).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Self

from broker_crypto.crypto import Suite
from broker_crypto.crypto import suite as suite_of
from broker_crypto.errors import UsageError
from broker_crypto.mls import key_schedule, psk, tree_math, treekem, welcome
from broker_crypto.mls.group import Group
from broker_crypto.mls.group_info import GroupContext, GroupInfo
from broker_crypto.mls.leaf import MLS10, Credential, Extensions, KeyPackage
from broker_crypto.mls.leaf_rules import STRICT, LeafPolicy
from broker_crypto.mls.own_leaf import OwnLeaf
from broker_crypto.mls.proposals import ReInit
from broker_crypto.mls.public import PublicGroup
from broker_crypto.mls.ratchet_tree import RatchetTree
from broker_crypto.mls.secret_tree import SecretTree
from broker_crypto.mls.treekem import PrivateKeys
from broker_crypto.mls.validation import CannotEnter, Rule, refuse
from broker_crypto.mls.welcome import Welcome
from broker_crypto.records import Random


@dataclass(frozen=True, slots=True)
class OwnKeyPackage:
    """A key package of this client with its private keys, all of the suite of the key package."""

    key_package: KeyPackage
    init_private: bytes = field(repr=False)
    encryption_private: bytes = field(repr=False)
    signature_private: bytes = field(repr=False)

    @classmethod
    def create(cls, suite: Suite, own: OwnLeaf, *, extensions: Extensions = (), random: Random) -> Self:
        """A new key package for what `own` says, with fresh keys; it is good for one Welcome (section 16.8)."""
        init_private, init_key = suite.derive_key_pair(random(suite.nh))
        encryption_private, leaf = own.fresh(suite, random)
        package = KeyPackage(MLS10, suite.number, init_key, leaf, extensions).signed(suite, own.signature_private)
        return cls(package, init_private, encryption_private, own.signature_private)

    def check_keys(self, suite: Suite) -> None:
        """The private keys are those of the public ones. Raises UsageError."""
        leaf = self.key_package.leaf_node
        fits = (
            suite.public_of(self.init_private) == self.key_package.init_key
            and suite.public_of(self.encryption_private) == leaf.encryption_key
            and suite.signature_public_of(self.signature_private) == leaf.signature_key
        )
        if not fits:
            raise UsageError("the private keys are not those of the key package")


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The group that a resumed one continues, in the epoch that the resumption key names.

    `reinit` is the ReInit of the commit that began that epoch. `identity` says which credentials the application takes
    for the same member.
    """

    context: GroupContext
    tree: RatchetTree
    reinit: ReInit | None = None
    identity: Callable[[Credential], bytes] = Credential.encode

    def members(self, tree: RatchetTree) -> set[bytes]:
        """The identities in `tree`."""
        return {self.identity(leaf.credential) for _, leaf in tree.leaves()}


def _check_psks(ids: Collection[psk.PreSharedKeyId]) -> psk.ResumptionPsk | None:
    """Step 3: the key that says that this group continues another one; it is the only one of its kind."""
    resuming = [item for item in ids if isinstance(item, psk.ResumptionPsk) and item.usage is not psk.Usage.APPLICATION]
    if len(resuming) > 1:
        refuse(Rule.WELCOME_PSKS, "a Welcome with more than one reinit or branch key", count=len(resuming))
    return resuming[0] if resuming else None


def _check_resumed(key: psk.ResumptionPsk, info: GroupInfo, tree: RatchetTree, before: Predecessor | None) -> None:
    """Step 10. Source: RFC 9420 sections 11.2, 11.3 and 12.4.3.1."""
    context = info.group_context
    if context.epoch != 1:
        refuse(Rule.RESUMPTION_EPOCH, "a resumed group that is not in epoch 1", epoch=context.epoch)
    if before is None or (before.context.group_id, before.context.epoch) != (key.group_id, key.epoch):
        refuse(Rule.RESUMED_GROUP, "a Welcome that resumes a group which is not at hand", epoch=key.epoch)
    old, new = before.members(before.tree), before.members(tree)
    if key.usage is psk.Usage.BRANCH:
        same = (context.version, context.cipher_suite) == (before.context.version, before.context.cipher_suite)
        holds = same and new <= old
    else:
        promised = before.reinit
        holds = (
            promised is not None
            and old <= new
            and promised == ReInit(context.group_id, context.version, context.cipher_suite, context.extensions)
        )
    if not holds:
        refuse(Rule.RESUMED_GROUP, "a resumed group that does not continue the one before", usage=key.usage.name)


@dataclass(frozen=True, slots=True)
class Invitation:
    """A Welcome as it came, and what this client knows beside it.

    `tree` is the encoded ratchet_tree where the Welcome does not bring it; `psks` the pre-shared keys at hand; `group_ids`
    the groups that this client is in; `before` the group that this one continues, if any; `now` (seconds since 1970) also
    checks lifetimes; `policy` is what the client demands of leaves.
    """

    welcome: Welcome
    tree: bytes | None = None
    psks: psk.PskSecrets = field(default_factory=psk.PskSecrets, repr=False)
    group_ids: Collection[bytes] = ()
    before: Predecessor | None = None
    policy: LeafPolicy = STRICT
    now: int | None = None


@dataclass(frozen=True, slots=True)
class Joined:
    """What a Welcome leads to: the group as all see it, the own leaf, the secrets of the epoch, the private keys held."""

    public: PublicGroup
    leaf: int
    epoch: key_schedule.NextEpoch
    keys: PrivateKeys = field(repr=False)


def accept(invitation: Invitation, own: OwnKeyPackage) -> Joined:
    """Follow the recipe at the head of this file. Raises PeerError naming the rule, MalformedInput; UsageError for wrong own keys."""
    suite, invited = suite_of(own.key_package.cipher_suite), invitation.welcome
    own.check_keys(suite)
    secrets = welcome.open_secrets(suite, invited, own.key_package, own.init_private)
    resuming = _check_psks(secrets.psks)
    psk_secret = psk.gather(suite, secrets.psks, invitation.psks)
    info = welcome.open_group_info(suite, invited, secrets.joiner_secret, psk_secret)
    _check_group(invitation, own, info)
    tree = None if invitation.tree is None else RatchetTree.decode(suite, invitation.tree)
    public = PublicGroup.from_group_info(info, tree, policy=invitation.policy, now=invitation.now)
    leaf = _own_leaf(public.tree, own.key_package)
    keys = {own.key_package.leaf_node.encryption_key: own.encryption_private}
    if secrets.path_secret is not None:
        keys.update(_path_keys(public.tree, leaf, info.signer, secrets.path_secret))
    epoch = key_schedule.join(suite, secrets.joiner_secret, psk_secret, info.group_context)
    if not epoch.secrets.confirmation_tag_holds(info.group_context.confirmed_transcript_hash, info.confirmation_tag):
        refuse(Rule.CONFIRMATION_TAG, "the confirmation tag of a GroupInfo does not hold", epoch=public.epoch)
    if resuming is not None:
        _check_resumed(resuming, info, public.tree, invitation.before)
    return Joined(public, leaf, epoch, keys)


def join(invitation: Invitation, own: OwnKeyPackage) -> Group:
    """The group that a Welcome leads to, by `accept`, with the errors that it raises."""
    joined = accept(invitation, own)
    messages = SecretTree.begin(joined.public.suite, joined.epoch.encryption_secret, joined.public.tree.size)
    return Group(joined.public, joined.leaf, own.signature_private, joined.keys, joined.epoch.secrets, messages)


def _check_group(invitation: Invitation, own: OwnKeyPackage, info: GroupInfo) -> None:
    """Step 5."""
    context, package = info.group_context, own.key_package
    if (context.version, context.cipher_suite) != (package.version, package.cipher_suite):
        refuse(Rule.GROUP_SUITE, "a group of another version or suite than the key package", suite=context.cipher_suite)
    if context.group_id in invitation.group_ids:
        refuse(Rule.GROUP_UNIQUE, "a Welcome to a group that this client is in already")


def _own_leaf(tree: RatchetTree, package: KeyPackage) -> int:
    """Step 7."""
    number = tree.census.encryption.get(package.leaf_node.encryption_key)
    leaf = None if number is None or number & 1 else tree.leaf(number >> 1)
    if number is None or leaf is None or leaf.encode() != package.leaf_node.encode():
        refuse(Rule.OWN_LEAF, "a tree without the own leaf")
    return number >> 1


def _path_keys(tree: RatchetTree, own: int, signer: int, path_secret: bytes) -> PrivateKeys:
    """Step 8."""
    ancestor = tree_math.common_ancestor(2 * own, 2 * signer)
    path = [number for number, _ in tree.filtered_direct_path(signer) if tree_math.is_below(ancestor, number)]
    if own == signer or len(path_secret) != tree.suite.nh or any(tree.node(number) is None for number in path):
        refuse(Rule.PATH_KEY, "a path secret of no path", leaf=own, signer=signer)
    try:
        return treekem.climb(tree, signer, ancestor, path_secret)[0]
    except CannotEnter:
        refuse(Rule.PATH_KEY, "a path secret that leads to other keys", leaf=own, signer=signer)
