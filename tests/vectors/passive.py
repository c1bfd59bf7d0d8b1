"""Follow a group as a passive client does, through any file of the working group's passive-client format.

    python -m tests.vectors.passive FILE...

The client of a case joins by its Welcome, then applies each commit, with the proposals of that epoch at hand, and must
come to the epoch authenticators of the file. Prints cases and epochs passed for each file; stops with status 1 at the first
that does not come out, which it names. The format: test-vectors.md of github.com/mlswg/mls-implementations.
"""

from __future__ import annotations

import hmac
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from broker_crypto.crypto import Suite
from broker_crypto.crypto import suite as suite_of
from broker_crypto.errors import BrokerCryptoError, MalformedInput
from broker_crypto.mls import joining
from broker_crypto.mls.framing import MLSMessage
from broker_crypto.mls.group import Group
from broker_crypto.mls.leaf import KeyPackage
from broker_crypto.mls.leaf_rules import LeafPolicy
from broker_crypto.mls.psk import PskSecrets
from broker_crypto.mls.welcome import Welcome
from broker_crypto.wire import tls
from tests.vectors.published_keys import hpke_private, signature_private

CASE = {
    "cipher_suite",
    "external_psks",
    "key_package",
    "signature_priv",
    "encryption_priv",
    "init_priv",
    "welcome",
    "ratchet_tree",
    "initial_epoch_authenticator",
    "epochs",
}
PSK = {"psk_id", "psk"}
EPOCH = {"proposals", "commit", "epoch_authenticator"}

# Leaves of some published groups of suite 7 list the suites 1 to 6 only; nothing else is relaxed.
POLICY = LeafPolicy(suite_listed=False)


class Mismatch(Exception):
    """A case that does not come out; its text says where, and why."""


@dataclass(frozen=True)
class Passed:
    """What came out as published: cases, commits applied, proposals read, authenticators compared."""

    cases: int = 0
    epochs: int = 0
    proposals: int = 0
    authenticators: int = 0

    def __add__(self, other: Passed) -> Passed:
        return Passed(
            self.cases + other.cases,
            self.epochs + other.epochs,
            self.proposals + other.proposals,
            self.authenticators + other.authenticators,
        )


T = TypeVar("T", KeyPackage, Welcome)


def read(kind: type[T], text: str) -> T:
    """A KeyPackage or Welcome, in an MLSMessage as the files have it, or bare as the format's text allows."""
    data = bytes.fromhex(text)
    try:
        body = MLSMessage.decode(data).body
    except MalformedInput:
        return tls.decode(data, kind.read)
    if not isinstance(body, kind):
        raise MalformedInput("a message of another kind", expected=kind.__name__)
    return body


def check_fields(what: dict[str, Any], expected: set[str]) -> None:
    """No field that the format knows is missing; only the tree may be."""
    missing = expected - set(what) - {"ratchet_tree"}
    if missing:
        raise Mismatch(f"without {sorted(missing)}")


def unknown_fields(case: dict[str, Any]) -> set[str]:
    """Names that the format does not know, at every level of a case; they are passed over, and said to be."""
    found = set(case) - CASE
    for item in case.get("external_psks") or ():
        found |= set(item) - PSK
    for epoch in case.get("epochs") or ():
        found |= set(epoch) - EPOCH
    return found


def own_key_package(suite: Suite, case: dict[str, Any]) -> joining.OwnKeyPackage:
    """The client's key package with its private keys, which must be those of the public ones."""
    own = joining.OwnKeyPackage(
        read(KeyPackage, case["key_package"]),
        hpke_private(suite, case["init_priv"]),
        hpke_private(suite, case["encryption_priv"]),
        signature_private(suite, case["signature_priv"]),
    )
    own.check_keys(suite)
    return own


def external_psks(case: dict[str, Any]) -> PskSecrets:
    """The external pre-shared keys of the case."""
    items = case["external_psks"] or []
    for item in items:
        check_fields(item, PSK)
    return PskSecrets({bytes.fromhex(item["psk_id"]): bytes.fromhex(item["psk"]) for item in items})


def compare(group: Group, expected: str) -> None:
    """The epoch authenticator is the published one."""
    if not hmac.compare_digest(group.epoch_authenticator, bytes.fromhex(expected)):
        raise Mismatch("another epoch authenticator")


def stored(group: Group) -> Group:
    """The group as it comes back from storage: what is kept of it must be enough to go on."""
    return Group.from_bytes(group.to_bytes())


@dataclass
class Client:
    """The passive client of one case: its group, the pre-shared keys that it holds, and what has passed so far."""

    group: Group
    held: PskSecrets
    passed: Passed

    @classmethod
    def join(cls, case: dict[str, Any]) -> Client:
        """By the Welcome of the case."""
        check_fields(case, CASE)
        own, held = own_key_package(suite_of(case["cipher_suite"]), case), external_psks(case)
        tree = bytes.fromhex(case["ratchet_tree"]) if case.get("ratchet_tree") else None
        group = joining.join(joining.Invitation(read(Welcome, case["welcome"]), tree, held, policy=POLICY), own)
        compare(group, case["initial_epoch_authenticator"])
        return cls(stored(group), held, Passed(cases=1, authenticators=1))

    def apply(self, epoch: dict[str, Any]) -> None:
        """The proposals and the commit of one epoch. A proposal that is refused counts only if the commit needs it."""
        check_fields(epoch, EPOCH)
        resumption = {(self.group.public.group_id, self.group.epoch): self.group.resumption_psk}
        self.held = self.held.joined(PskSecrets(resumption=resumption))
        taken, refused = 0, []
        for proposal in epoch["proposals"] or []:
            try:
                self.group = stored(self.group.stage(bytes.fromhex(proposal)))
                taken += 1
            except BrokerCryptoError as error:
                refused.append(f"; a proposal before it was refused: {error}")
        try:
            self.group = stored(self.group.stage(bytes.fromhex(epoch["commit"]), psks=self.held))
        except BrokerCryptoError as error:
            raise Mismatch(f"the commit is refused: {error}{''.join(refused)}") from error
        compare(self.group, epoch["epoch_authenticator"])
        self.passed += Passed(epochs=1, proposals=taken, authenticators=1)


def run_case(case: dict[str, Any]) -> Passed:
    """All of one case. Raises Mismatch, which names the place: joining, or the epoch, from 0."""
    place = "joining"
    try:
        client = Client.join(case)
        for number, epoch in enumerate(case["epochs"]):
            place = f"epoch {number}"
            client.apply(epoch)
    except Exception as error:  # whatever it is, the file has to be told where
        kind = "" if isinstance(error, Mismatch) else f"{type(error).__name__}: "
        raise Mismatch(f"{place}: {kind}{error}") from error
    return client.passed


def run_file(file: Path) -> Passed:
    """All cases of a file. Raises Mismatch whose text begins with the number of the case, from 0."""
    passed = Passed()
    for number, case in enumerate(json.loads(file.read_bytes())):
        try:
            passed += run_case(case)
        except Mismatch as mismatch:
            raise Mismatch(f"case {number}, suite {case.get('cipher_suite')}, {mismatch}") from mismatch
    return passed


def main(arguments: Sequence[str]) -> int:
    """Run the files; 0 if all came out, 1 at the first case that did not, 2 for a call without files."""
    if not arguments:
        print("usage: python -m tests.vectors.passive FILE...", file=sys.stderr)
        return 2
    for name in arguments:
        try:
            passed = run_file(Path(name))
        except Mismatch as mismatch:
            print(f"{name}: {mismatch}")
            return 1
        unknown = set().union(*map(unknown_fields, json.loads(Path(name).read_bytes())))
        beside = f"; fields that the format does not know: {', '.join(sorted(unknown))}" if unknown else ""
        print(f"{name}: {passed.cases} cases, {passed.epochs} epochs passed ({passed.proposals} proposals){beside}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
