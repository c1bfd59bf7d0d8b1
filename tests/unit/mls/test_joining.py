"""Joining by a Welcome: the recipe of RFC 9420 section 12.4.3.1, each step attacked by a committer who seals and signs properly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from broker_crypto.crypto import suite as suite_of
from broker_crypto.errors import PeerError, UsageError
from broker_crypto.mls import joining, key_schedule, psk, welcome
from broker_crypto.mls.framing import MLSMessage
from broker_crypto.mls.group import Group
from broker_crypto.mls.group_info import GroupInfo
from broker_crypto.mls.joining import Invitation, OwnKeyPackage, Predecessor
from broker_crypto.mls.leaf import REQUIRED_CAPABILITIES, Extension, Lifetime
from broker_crypto.mls.proposals import Add, PreSharedKey, ReInit
from broker_crypto.mls.psk import ExternalPsk, PskSecrets, ResumptionPsk, Usage
from broker_crypto.mls.ratchet_tree import RatchetTree
from broker_crypto.mls.welcome import EncryptedGroupSecrets, GroupSecrets, Newcomer, Welcome
from tests.support.members import own_leaf, seeded

SUITE = suite_of(1)
random = seeded("joining")
EXTERNAL = ExternalPsk(b"shared", bytes(32))
HELD = PskSecrets({b"shared": b"a pre-shared key"})


def founded(name: str = "alice", group_id: bytes = b"group", **options: Any) -> Group:
    return Group.found(SUITE, group_id, own_leaf(SUITE, name, random), random=random, **options)


def package(name: str) -> OwnKeyPackage:
    return OwnKeyPackage.create(SUITE, own_leaf(SUITE, name, random), random=random)


@dataclass(frozen=True)
class Scene:
    """alice has added bob; `group` is hers in the new epoch, `own` what bob holds, `sent` the Welcome."""

    group: Group
    own: OwnKeyPackage
    sent: Welcome
    held: PskSecrets = PskSecrets()

    @classmethod
    def make(cls, *, path: bool = True, psks: tuple[psk.PreSharedKeyId, ...] = (), held: PskSecrets = HELD) -> Scene:
        own, alice = package("bob"), founded()
        proposals = [Add(package("carol").key_package), Add(own.key_package), *map(PreSharedKey, psks)]
        staged = alice.commit(proposals=proposals, path=path, psks=held, now=0, random=random)
        assert staged.welcome is not None
        return cls(staged.group, own, staged.welcome, held)

    @property
    def secrets(self) -> GroupSecrets:
        return welcome.open_secrets(SUITE, self.sent, self.own.key_package, self.own.init_private)

    @property
    def info(self) -> GroupInfo:
        return welcome.open_group_info(SUITE, self.sent, self.secrets.joiner_secret, psk.gather(SUITE, self.secrets.psks, self.held))

    def join(self, sent: Welcome | None = None, **beside: Any) -> Group:
        return joining.join(Invitation(sent or self.sent, **{"psks": self.held, **beside}), self.own)

    def sealed(self, info: GroupInfo, *, sign: bool = True, **secrets: Any) -> Welcome:
        """A Welcome of alice to bob with any GroupInfo and any group secrets, right in all that is not said."""
        inside = replace(self.secrets, **secrets)
        psk_secret = psk.gather(SUITE, inside.psks, self.held)
        epoch = key_schedule.join(SUITE, inside.joiner_secret, psk_secret, info.group_context)
        signed = info.signed(SUITE, self.group.signature_private) if sign else info
        newcomer = Newcomer(self.own.key_package, inside.path_secret)
        return welcome.seal(epoch, signed, [newcomer], psks=inside.psks, random=random)

    def with_context(self, **changes: Any) -> GroupInfo:
        """The GroupInfo with another context and the confirmation tag that fits it."""
        context = replace(self.info.group_context, **changes)
        epoch = key_schedule.join(SUITE, self.secrets.joiner_secret, psk.gather(SUITE, self.secrets.psks, self.held), context)
        tag = epoch.secrets.confirmation_tag(context.confirmed_transcript_hash)
        return replace(self.info, group_context=context, confirmation_tag=tag)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene.make()


def rule(act: Callable[[], object]) -> str:
    with pytest.raises(PeerError) as refused:
        act()
    return str(getattr(refused.value, "rule", type(refused.value).__name__))


@pytest.mark.parametrize("path", [True, False])
@pytest.mark.parametrize("psks", [(), (EXTERNAL,)])
def test_the_newcomer_is_in_the_epoch_of_the_committer_and_goes_on_with_it(path: bool, psks: tuple[ExternalPsk, ...]) -> None:
    scene = Scene.make(path=path, psks=psks)
    bob, alice = scene.join(), scene.group
    assert bob.public == alice.public
    assert (bob.leaf, bob.epoch_authenticator) == (2, alice.epoch_authenticator)
    assert bob.export("x", b"y", 32) == alice.export("x", b"y", 32)
    message, bob = bob.protect(b"hello", random=random)
    content, alice = alice.unprotect(message)
    assert content.content == b"hello"
    staged = bob.commit(random=random)
    alice = alice.stage(staged.message)
    back = alice.commit(random=random)
    assert staged.group.stage(back.message).epoch_authenticator == back.group.epoch_authenticator


def test_a_welcome_that_was_sealed_anew_is_as_good(scene: Scene) -> None:
    assert scene.join(scene.sealed(scene.info)).public == scene.group.public


def test_the_tree_may_come_beside_the_welcome(scene: Scene) -> None:
    info = replace(scene.info, extensions=())
    sent, tree = scene.sealed(info), scene.group.public.tree.encode()
    assert rule(lambda: scene.join(sent)) == "group_info_tree"
    assert scene.join(sent, tree=tree).public.tree == scene.group.public.tree
    other = founded("mallory").public.tree.encode()
    assert rule(lambda: scene.join(sent, tree=other)) == "group_info_signature"
    alone = RatchetTree.of_one(SUITE, dict(scene.group.public.tree.leaves())[0]).encode()  # alice's own leaf, and nobody else
    assert rule(lambda: scene.join(sent, tree=alone)) == "tree_hash"
    assert rule(lambda: scene.join(sent, tree=tree[:-1])) == "MalformedInput"


def test_unknown_extensions_of_a_group_info_are_passed_over(scene: Scene) -> None:
    info = replace(scene.info, extensions=(*scene.info.extensions, Extension(0x0A0A, b"grease")))
    assert scene.join(scene.sealed(info)).epoch == 1


# --- 1, 2: the entry -----------------------------------------------------------------------------------------------------


def test_a_welcome_for_others_is_refused(scene: Scene) -> None:
    assert rule(lambda: scene.join(replace(scene.sent, secrets=()))) == "welcome_entry"
    stranger = package("stranger")
    assert rule(lambda: joining.join(Invitation(scene.sent), stranger)) == "welcome_entry"


def test_a_welcome_in_another_suite_is_refused(scene: Scene) -> None:
    assert rule(lambda: scene.join(replace(scene.sent, cipher_suite=3))) == "welcome_suite"
    assert rule(lambda: scene.join(replace(scene.sent, cipher_suite=0))) == "welcome_suite"


def test_group_secrets_that_do_not_open_are_refused(scene: Scene) -> None:
    entry = scene.sent.entry(scene.own.key_package.ref(SUITE))
    assert entry is not None
    sealed = entry.encrypted_group_secrets
    flipped = bytes([sealed.ciphertext[0] ^ 1]) + sealed.ciphertext[1:]
    for changed in (replace(sealed, ciphertext=flipped), replace(sealed, ciphertext=b""), replace(sealed, ciphertext=bytes(15))):
        secrets = (EncryptedGroupSecrets(entry.new_member, changed),)
        assert rule(lambda secrets=secrets: scene.join(replace(scene.sent, secrets=secrets))) == "welcome_secrets"
    for kem_output in (b"", bytes(32), bytes(31)):
        secrets = (EncryptedGroupSecrets(entry.new_member, replace(sealed, kem_output=kem_output)),)
        assert rule(lambda secrets=secrets: scene.join(replace(scene.sent, secrets=secrets))) in ("MalformedInput", "welcome_secrets")


def test_group_secrets_are_bound_to_the_group_info_beside_them(scene: Scene) -> None:
    other = Scene.make()
    assert rule(lambda: scene.join(replace(scene.sent, encrypted_group_info=other.sent.encrypted_group_info))) == "welcome_secrets"


def test_private_keys_of_another_key_package_are_a_wrong_call(scene: Scene) -> None:
    other = package("bob")
    for name in ("init_private", "encryption_private", "signature_private"):
        own = replace(scene.own, **{name: getattr(other, name)})
        with pytest.raises(UsageError):
            joining.join(Invitation(scene.sent), own)


# --- 3: pre-shared keys --------------------------------------------------------------------------------------------------


def test_a_pre_shared_key_that_is_not_held_is_refused() -> None:
    scene = Scene.make(psks=(EXTERNAL,))
    assert rule(lambda: scene.join(psks=PskSecrets())) == "psk_held"
    assert rule(lambda: scene.join(psks=PskSecrets({b"shared": b"another key"}))) == "welcome_group_info"


def test_two_keys_that_each_resume_a_group_are_refused(scene: Scene) -> None:
    ids = tuple(ResumptionPsk(usage, b"old", 4, bytes([n]) * 32) for n, usage in enumerate((Usage.BRANCH, Usage.REINIT)))
    held = replace(scene, held=PskSecrets(resumption={(b"old", 4): b"resumption"}))
    sent = held.sealed(scene.info, psks=ids)
    assert rule(lambda: held.join(sent)) == "welcome_psks"


# --- 4, 5, 6: the GroupInfo -----------------------------------------------------------------------------------------------


def test_a_group_info_that_does_not_open_is_refused(scene: Scene) -> None:
    sent = scene.sealed(scene.info)
    key = welcome.seal(key_schedule.join(SUITE, bytes(32), bytes(32), scene.info.group_context), scene.info, [], random=random)
    secrets = scene.secrets.encode()
    sealed = SUITE.encrypt_with_label(scene.own.key_package.init_key, "Welcome", key.encrypted_group_info, secrets, random)
    entry = replace(sent.secrets[0], encrypted_group_secrets=type(sent.secrets[0].encrypted_group_secrets)(*sealed))
    assert rule(lambda: scene.join(replace(key, secrets=(entry,)))) == "welcome_group_info"


def test_a_group_in_another_suite_or_version_than_the_key_package_is_refused(scene: Scene) -> None:
    assert rule(lambda: scene.join(scene.sealed(scene.with_context(cipher_suite=3)))) == "group_suite"
    assert rule(lambda: scene.join(scene.sealed(scene.with_context(version=2)))) == "group_suite"


def test_a_group_that_the_client_is_in_already_is_refused(scene: Scene) -> None:
    assert rule(lambda: scene.join(group_ids={b"other", b"group"})) == "group_unique"
    assert scene.join(group_ids={b"other"}).epoch == 1


def test_a_group_info_must_be_signed_by_the_leaf_that_it_names(scene: Scene) -> None:
    unsigned = replace(scene.info, signature=bytes(64))
    assert rule(lambda: scene.join(scene.sealed(unsigned, sign=False))) == "group_info_signature"
    assert rule(lambda: scene.join(scene.sealed(replace(scene.info, signer=1)))) == "group_info_signature"
    for signer in (3, 4, 2**32 - 1):
        sent = scene.sealed(replace(scene.info, signer=signer))
        assert rule(lambda sent=sent: scene.join(sent)) == "group_info_signer"


def test_a_tree_that_is_not_that_of_the_context_is_refused(scene: Scene) -> None:
    assert rule(lambda: scene.join(scene.sealed(scene.with_context(tree_hash=bytes(32))))) == "tree_hash"


def test_a_group_extension_or_requirement_that_a_member_does_not_support_is_refused(scene: Scene) -> None:
    unknown = scene.with_context(extensions=(Extension(0xF0FF, b""),))
    assert rule(lambda: scene.join(scene.sealed(unknown))) == "leaf_group_extensions"
    required = bytes.fromhex("02f0ff0000")  # one extension type, no proposal type, no credential type
    demanding = scene.with_context(extensions=(Extension(REQUIRED_CAPABILITIES, required),))
    assert rule(lambda: scene.join(scene.sealed(demanding))) == "leaf_required_capabilities"


def test_a_lifetime_that_has_passed_is_refused_where_time_is_given() -> None:
    short = OwnKeyPackage.create(SUITE, replace(own_leaf(SUITE, "bob", random), lifetime=Lifetime(10, 20)), random=random)
    staged = founded().commit(proposals=[Add(short.key_package)], now=15, random=random)
    assert staged.welcome is not None
    assert rule(lambda: joining.join(Invitation(staged.welcome, now=21), short)) == "leaf_lifetime"
    assert joining.join(Invitation(staged.welcome, now=20), short).epoch == 1


# --- 7, 8, 9: the own place ------------------------------------------------------------------------------------------------


def test_a_tree_without_the_own_leaf_is_refused(scene: Scene) -> None:
    stranger = package("stranger")
    sent = replace(scene, own=stranger, sent=Scene.make().sent)
    epoch = key_schedule.join(SUITE, scene.secrets.joiner_secret, bytes(32), scene.info.group_context)
    forged = welcome.seal(epoch, scene.info, [Newcomer(stranger.key_package, scene.secrets.path_secret)], random=random)
    assert rule(lambda: joining.join(Invitation(forged), sent.own)) == "own_leaf"


def test_a_leaf_with_the_own_key_that_says_something_else_is_not_the_own_leaf(scene: Scene) -> None:
    leaf = scene.own.key_package.leaf_node
    other = replace(leaf, extensions=(Extension(0xF0BC, b"x"),)).signed(SUITE, scene.own.signature_private)
    changed = replace(scene.own.key_package, leaf_node=other).signed(SUITE, scene.own.signature_private)
    own = replace(scene.own, key_package=changed)
    epoch = key_schedule.join(SUITE, scene.secrets.joiner_secret, bytes(32), scene.info.group_context)
    forged = welcome.seal(epoch, scene.info, [Newcomer(changed, scene.secrets.path_secret)], random=random)
    assert rule(lambda: joining.join(Invitation(forged), own)) == "own_leaf"


def test_a_path_secret_must_lead_to_the_keys_of_the_tree(scene: Scene) -> None:
    for path_secret in (bytes(32), b"", bytes(31), bytes(33)):
        sent = scene.sealed(scene.info, path_secret=path_secret)
        assert rule(lambda sent=sent: scene.join(sent)) == "path_key"


def test_a_path_secret_without_a_path_is_refused() -> None:
    scene = Scene.make(path=False)
    assert scene.secrets.path_secret is None
    assert rule(lambda: scene.join(scene.sealed(scene.info, path_secret=bytes(32)))) == "path_key"


def test_a_path_secret_of_a_group_info_that_the_newcomer_signed_itself_is_refused(scene: Scene) -> None:
    info = replace(scene.info, signer=2).signed(SUITE, scene.own.signature_private)
    assert rule(lambda: scene.join(scene.sealed(info, sign=False))) == "path_key"


def test_a_confirmation_tag_that_does_not_hold_is_refused(scene: Scene) -> None:
    for tag in (bytes(32), b"", scene.info.confirmation_tag[:-1]):
        sent = scene.sealed(replace(scene.info, confirmation_tag=tag))
        assert rule(lambda sent=sent: scene.join(sent)) == "confirmation_tag"


def test_a_context_that_the_tag_does_not_confirm_is_refused(scene: Scene) -> None:
    context = replace(scene.info.group_context, confirmed_transcript_hash=bytes(32))
    assert rule(lambda: scene.join(scene.sealed(replace(scene.info, group_context=context)))) == "confirmation_tag"


# --- 10: groups that continue another ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Old:
    """A group of alice, bob and carol, and what bob still knows of it."""

    alice: Group
    before: Predecessor
    held: PskSecrets

    @classmethod
    def make(cls, *, end: ReInit | None = None) -> Old:
        alice, own = founded(group_id=b"old"), package("bob")
        staged = alice.commit(proposals=[Add(own.key_package), Add(package("carol").key_package)], now=0, random=random)
        assert staged.welcome is not None
        bob = joining.join(Invitation(staged.welcome), own)
        alice = staged.group
        if end is not None:
            staged = alice.commit(proposals=[end], random=random)
            alice, bob = staged.group, bob.stage(staged.message)
        before = Predecessor(bob.public.context, bob.public.tree, bob.public.reinit)
        return cls(alice, before, PskSecrets(resumption={(b"old", bob.epoch): bob.resumption_psk}))

    def resumed(self, usage: Usage, names: tuple[str, ...], *, group_id: bytes = b"new", later: bool = False) -> Callable[..., Group]:
        """A new group of alice and `names` that continues the old one; how bob joins it."""
        key = ResumptionPsk(usage, b"old", self.alice.epoch, random(32))
        alice = founded(group_id=group_id)
        if later:
            alice = alice.commit(random=random).group
        packages = {name: package(name) for name in names}
        proposals = [*(Add(own.key_package) for own in packages.values()), PreSharedKey(key)]
        staged = alice.commit(proposals=proposals, psks=self.held, resuming=True, now=0, random=random)
        assert staged.welcome is not None
        sent = staged.welcome

        def join(before: Predecessor | None) -> Group:
            bob = joining.join(Invitation(sent, psks=self.held, before=before), packages["bob"])
            assert bob.epoch_authenticator == staged.group.epoch_authenticator
            return bob

        return join


def test_a_branch_is_joined_by_a_subset_of_the_old_group() -> None:
    old = Old.make()
    assert old.resumed(Usage.BRANCH, ("bob",))(old.before).epoch == 1
    assert rule(lambda: old.resumed(Usage.BRANCH, ("bob",))(None)) == "resumed_group"
    assert rule(lambda: old.resumed(Usage.BRANCH, ("bob", "mallory"))(old.before)) == "resumed_group"
    assert rule(lambda: old.resumed(Usage.BRANCH, ("bob",), later=True)(old.before)) == "resumption_epoch"
    context = replace(old.before.context, epoch=old.before.context.epoch + 1)
    assert rule(lambda: old.resumed(Usage.BRANCH, ("bob",))(replace(old.before, context=context))) == "resumed_group"
    context = replace(old.before.context, cipher_suite=3)
    assert rule(lambda: old.resumed(Usage.BRANCH, ("bob",))(replace(old.before, context=context))) == "resumed_group"


def test_a_reinitialised_group_is_the_one_that_was_promised() -> None:
    old = Old.make(end=ReInit(b"new", 1, 1, ()))
    assert old.resumed(Usage.REINIT, ("bob", "carol"))(old.before).epoch == 1
    assert old.resumed(Usage.REINIT, ("bob", "carol", "dave"))(old.before).epoch == 1
    assert rule(lambda: old.resumed(Usage.REINIT, ("bob",))(old.before)) == "resumed_group"
    assert rule(lambda: old.resumed(Usage.REINIT, ("bob", "carol"), group_id=b"x")(old.before)) == "resumed_group"
    assert rule(lambda: old.resumed(Usage.REINIT, ("bob", "carol"))(None)) == "resumed_group"
    assert rule(lambda: old.resumed(Usage.REINIT, ("bob", "carol"), later=True)(old.before)) == "resumption_epoch"
    not_ended = replace(old.before, reinit=None)
    assert rule(lambda: old.resumed(Usage.REINIT, ("bob", "carol"))(not_ended)) == "resumed_group"
    other = replace(old.before, reinit=ReInit(b"new", 1, 1, (Extension(0xF0BC, b"x"),)))
    assert rule(lambda: old.resumed(Usage.REINIT, ("bob", "carol"))(other)) == "resumed_group"


def test_identities_are_compared_as_the_application_says() -> None:
    old = Old.make()
    anybody = replace(old.before, identity=lambda credential: b"member")
    assert old.resumed(Usage.BRANCH, ("bob", "mallory"))(anybody).epoch == 1


def test_a_welcome_travels_as_a_message_and_shows_no_secret(scene: Scene) -> None:
    data = MLSMessage(scene.sent).encode()
    assert MLSMessage.decode(data).body == scene.sent
    assert scene.secrets.joiner_secret not in data
    assert scene.own.init_private not in data
    shown = repr(scene.own) + repr(scene.secrets) + repr(joining.accept(Invitation(scene.sent), scene.own))
    for secret in (scene.own.init_private, scene.own.signature_private, scene.secrets.joiner_secret, scene.group.secrets.init_secret):
        assert repr(secret)[2:-1] not in shown
