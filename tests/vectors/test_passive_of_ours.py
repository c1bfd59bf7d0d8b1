"""The passive runner on a file that we make: what the published files do not hold, in the same format.

Proposals of external senders and of newcomers, external commits with a removal and with pre-shared keys, Updates of peers in
PrivateMessages, X.509 credentials, a tree that grows and shrinks.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker_crypto.crypto import suite as suite_of
from broker_crypto.mls import joining, key_schedule, psk, welcome
from broker_crypto.mls.framing import MLSMessage, Sender, SenderType
from broker_crypto.mls.group import Group, StagedCommit
from broker_crypto.mls.joining import Invitation, OwnKeyPackage
from broker_crypto.mls.leaf import EXTERNAL_SENDERS, Credential, Extension, ExternalSender
from broker_crypto.mls.proposals import Add, GroupContextExtensions, PreSharedKey, Proposal, Remove
from broker_crypto.mls.psk import ExternalPsk, PskSecrets, ResumptionPsk, Usage
from broker_crypto.mls.public import PublicGroup
from broker_crypto.mls.welcome import Welcome
from broker_crypto.wire import tls
from tests.support.forging import say_outside
from tests.support.members import PRIVATE_EXTENSION, own_leaf, seeded
from tests.vectors import passive


class Scenario:
    """A group of alice, bob and the passive client; every step becomes an epoch of the case."""

    def __init__(self, number: int, *, tree_inside: bool) -> None:
        self.kem, self.random = suite_of(number), seeded(f"scenario {number}")
        self.sender_private, self.sender_public = self.kem.signature_key_pair(self.random)
        sender = ExternalSender(self.sender_public, Credential.basic(b"the server"))
        self.extensions = (Extension(EXTERNAL_SENDERS, tls.vector([sender.encode()])),)
        self.psks = PskSecrets({b"shared": b"a pre-shared key"})
        own = own_leaf(self.kem, "alice", self.random, x509=True)
        alice = Group.found(self.kem, b"group", own, extensions=self.extensions, random=self.random)
        self.client, bob = self.package("client"), self.package("bob")
        adds = [Add(bob.key_package), Add(self.client.key_package), PreSharedKey(self.external())]
        staged = alice.commit(proposals=adds, psks=self.psks, now=0, random=self.random)
        assert staged.welcome is not None
        self.members = {"alice": staged.group, "bob": joining.join(Invitation(staged.welcome, psks=self.psks), bob)}
        sent = staged.welcome
        if not tree_inside:
            sent = self.without_tree(staged)
        self.case: dict[str, Any] = {
            "cipher_suite": number,
            "external_psks": [{"psk_id": b"shared".hex(), "psk": b"a pre-shared key".hex()}],
            "key_package": MLSMessage(self.client.key_package).encode().hex(),
            "signature_priv": self.client.signature_private.hex(),
            "encryption_priv": self.client.encryption_private.hex(),
            "init_priv": self.client.init_private.hex(),
            "welcome": MLSMessage(sent).encode().hex(),
            "ratchet_tree": None if tree_inside else staged.group.public.tree.encode().hex(),
            "initial_epoch_authenticator": staged.group.epoch_authenticator.hex(),
            "epochs": [],
        }
        self.proposals: list[bytes] = []

    def without_tree(self, staged: StagedCommit) -> Welcome:
        """The Welcome of a commit, its tree to be given beside it."""
        assert staged.welcome is not None
        secrets = welcome.open_secrets(self.kem, staged.welcome, self.client.key_package, self.client.init_private)
        psk_secret = psk.gather(self.kem, secrets.psks, self.psks)
        info = welcome.open_group_info(self.kem, staged.welcome, secrets.joiner_secret, psk_secret)
        info = replace(info, extensions=()).signed(self.kem, staged.group.signature_private)
        epoch = key_schedule.join(self.kem, secrets.joiner_secret, psk_secret, info.group_context)
        newcomer = welcome.Newcomer(self.client.key_package, secrets.path_secret)
        return welcome.seal(epoch, info, [newcomer], psks=secrets.psks, random=self.random)

    def package(self, name: str) -> OwnKeyPackage:
        return OwnKeyPackage.create(self.kem, own_leaf(self.kem, name, self.random, x509=name == "bob"), random=self.random)

    def external(self) -> ExternalPsk:
        return ExternalPsk(b"shared", self.random(self.kem.nh))

    def resumption(self) -> ResumptionPsk:
        group = self.members["alice"]
        return ResumptionPsk(Usage.APPLICATION, b"group", group.epoch, self.random(self.kem.nh))

    @property
    def public(self) -> PublicGroup:
        return self.members["alice"].public

    # --- what is said in an epoch ------------------------------------------------------------------------------------

    def heard(self, message: bytes, by: str | None = None) -> None:
        """A proposal reaches everybody but its sender, who knows it already."""
        self.proposals.append(message)
        for name, group in self.members.items():
            if name != by:
                self.members[name] = group.stage(message)

    def propose(self, name: str, proposal: Proposal, *, private: bool) -> None:
        message, self.members[name] = self.members[name].propose(proposal, private=private, now=0, random=self.random)
        self.heard(message, name)

    def update(self, name: str, *, private: bool) -> None:
        message, self.members[name] = self.members[name].propose_update(private=private, random=self.random)
        self.heard(message, name)

    def from_outside(self, proposal: Proposal, sender: Sender, private: bytes) -> None:
        self.heard(MLSMessage(say_outside(self.public, private, proposal, sender)).encode())

    def from_server(self, proposal: Proposal) -> None:
        self.from_outside(proposal, Sender(SenderType.EXTERNAL, 0), self.sender_private)

    def from_newcomer(self, own: OwnKeyPackage) -> None:
        self.from_outside(Add(own.key_package), Sender(SenderType.NEW_MEMBER_PROPOSAL), own.signature_private)

    def commit(self, name: str, *proposals: Proposal, private: bool, invited: dict[str, OwnKeyPackage] | None = None) -> None:
        """A commit of all that was proposed and of `proposals`; `invited` join by its Welcome."""
        group = self.members[name]
        staged = group.commit(
            proposals=proposals, references=list(group.pending), private=private, psks=self.psks, now=0, random=self.random
        )
        self.record(name, staged)
        for newcomer, own in (invited or {}).items():
            assert staged.welcome is not None
            self.members[newcomer] = joining.join(Invitation(staged.welcome, psks=self.psks), own)

    def come(self, name: str, *, remove: int | None = None, psks: tuple[ExternalPsk, ...] = ()) -> None:
        """An external commit."""
        own = own_leaf(self.kem, name, self.random)
        external_pub = self.members["alice"].external_public
        staged = Group.external_commit(self.public, external_pub, own, remove=remove, psks=psks, held=self.psks, random=self.random)
        self.record(name, staged)

    def record(self, name: str, staged: StagedCommit) -> None:
        removed = [other for other, group in self.members.items() if staged.group.public.tree.leaf(group.leaf) is None]
        for other, group in self.members.items():
            if other != name and other not in removed:
                self.members[other] = group.stage(staged.message, psks=self.psks)
        for other in removed:
            del self.members[other]
        self.members[name] = staged.group
        authenticators = {group.epoch_authenticator for group in self.members.values()}
        assert len(authenticators) == 1
        self.case["epochs"].append(
            {
                "proposals": [proposal.hex() for proposal in self.proposals],
                "commit": staged.message.hex(),
                "epoch_authenticator": authenticators.pop().hex(),
            }
        )
        self.proposals = []

    def play(self) -> None:
        """Thirteen epochs of everything."""
        self.update("bob", private=True)
        self.commit("alice", private=True)
        dave = self.package("dave")
        self.from_newcomer(dave)
        self.commit("bob", private=False, invited={"dave": dave})
        erin = self.package("erin")
        self.from_server(Add(erin.key_package))
        self.from_server(PreSharedKey(self.external()))
        self.commit("dave", private=True, invited={"erin": erin})
        self.come("frank", psks=(self.external(),))
        self.come("frank", remove=self.members.pop("frank").leaf)
        self.propose("erin", PreSharedKey(self.resumption()), private=True)
        self.update("frank", private=False)
        self.update("erin", private=True)
        self.commit("bob", PreSharedKey(self.external()), private=True)
        self.from_server(Remove(self.members["dave"].leaf))
        self.commit("frank", private=True)
        self.from_server(GroupContextExtensions((*self.extensions, Extension(PRIVATE_EXTENSION, b"policy"))))
        self.commit("alice", private=False)
        several = {f"member {n}": self.package(f"member {n}") for n in range(9)}
        self.commit("erin", *(Add(own.key_package) for own in several.values()), private=True, invited=several)
        self.update("member 8", private=True)
        self.propose("member 3", Remove(self.members["member 7"].leaf), private=False)
        self.commit("member 1", private=True)
        self.commit("member 8", *(Remove(self.members[f"member {n}"].leaf) for n in (0, 2, 3, 4, 5, 6)), private=False)
        self.propose("erin", PreSharedKey(self.external()), private=False)
        self.commit("bob", private=True)
        self.come("grace", remove=self.members["member 8"].leaf, psks=(self.external(),))


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    made = []
    for number in (1, 2, 7):
        scenario = Scenario(number, tree_inside=number != 2)
        scenario.play()
        made.append(scenario.case)
    return made


def test_the_runner_follows_what_no_published_file_holds(cases: list[dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "ours.json"
    file.write_text(json.dumps(cases))
    passed = passive.run_file(file)
    assert passed == passive.Passed(cases=3, epochs=3 * 13, proposals=3 * 12, authenticators=3 * 14)


def test_each_commit_of_the_scenario_counts(cases: list[dict[str, Any]]) -> None:
    case = cases[0]
    for number in range(len(case["epochs"])):
        lacking = {**case, "epochs": case["epochs"][:number] + case["epochs"][number + 1 :]}
        if number + 1 < len(case["epochs"]):
            with pytest.raises(passive.Mismatch, match=f"epoch {number}: "):
                passive.run_case(lacking)
