"""The rules that one leaf or key package must keep, wherever it comes from.

Not here: that its keys are unique and its credential common to all, which the tree's census answers; and who may call
itself what, which is the application's (RFC 9420 section 5.3.1).
Source: RFC 9420 sections 7.3, 10.1, 11.1 and 13.4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from broker_crypto.crypto.suites import Suite
from broker_crypto.errors import MalformedInput
from broker_crypto.mls.certificate_key import subject_public_key_info
from broker_crypto.mls.leaf import (
    DEFAULT_EXTENSIONS,
    DEFAULT_PROPOSALS,
    EXTERNAL_SENDERS,
    KEY_PACKAGE,
    MLS10,
    REQUIRED_CAPABILITIES,
    X509,
    Extensions,
    KeyPackage,
    LeafNode,
    RequiredCapabilities,
    are_distinct,
    find_extension,
    read_external_senders,
)
from broker_crypto.mls.validation import Rule, refuse


@dataclass(frozen=True, slots=True)
class LeafPolicy:
    """What a client may choose about leaves.

    `suite_listed` demands the group's suite in the capabilities of every leaf; some published groups do not keep it.
    `max_lifetime` is the longest lifetime of a key package in seconds, None for no limit (section 7.2 leaves it to us).
    """

    suite_listed: bool = True
    max_lifetime: int | None = None


STRICT = LeafPolicy()


@dataclass(frozen=True, slots=True)
class Demands:
    """What a group demands of every leaf: its suite, and what its GroupContext extensions call for."""

    suite: Suite
    policy: LeafPolicy
    group_id: bytes
    extensions: frozenset[int]
    required: RequiredCapabilities

    @classmethod
    def of(cls, suite: Suite, policy: LeafPolicy, group_id: bytes, extensions: Extensions) -> Demands:
        """From the GroupContext extensions. Raises PeerError where one of those known here is malformed."""
        required = RequiredCapabilities()
        if not are_distinct(extensions):
            refuse(Rule.GROUP_EXTENSION_FORM, "a group extension stands twice")
        try:
            data = find_extension(extensions, REQUIRED_CAPABILITIES)
            if data is not None:
                required = RequiredCapabilities.decode(data)
            senders = find_extension(extensions, EXTERNAL_SENDERS)
            if senders is not None:
                read_external_senders(senders)
        except MalformedInput as error:
            refuse(Rule.GROUP_EXTENSION_FORM, f"a group extension is malformed: {error}")
        kinds = frozenset(extension.type for extension in extensions) - DEFAULT_EXTENSIONS
        return cls(suite, policy, group_id, kinds, required)

    def check_supported(self, leaf: LeafNode, index: int | None) -> None:
        """The leaf supports what the group uses and requires. Raises PeerError."""
        capabilities = leaf.capabilities
        for kind in self.extensions:
            if kind not in capabilities.extensions:
                refuse(Rule.LEAF_GROUP_EXTENSIONS, "a leaf that does not support a group extension", leaf=index, extension=kind)
        lacking = (
            *_lacking(self.required.extensions, capabilities.extensions, DEFAULT_EXTENSIONS),
            *_lacking(self.required.proposals, capabilities.proposals, DEFAULT_PROPOSALS),
            *_lacking(self.required.credentials, capabilities.credentials, ()),
        )
        if lacking:
            refuse(Rule.LEAF_REQUIRED_CAPABILITIES, "a leaf without a required capability", leaf=index, lacking=lacking)

    def check_leaf(self, leaf: LeafNode, index: int | None, now: int | None = None) -> None:
        """Everything but the source: the leaf by itself and against the group. Raises PeerError.

        `index` is its leaf index, None in a key package; `now` seconds since 1970, None to take lifetimes as they are.
        """
        self.check_content(leaf, index, now)
        if not leaf.signature_holds(self.suite, self.group_id, index or 0):
            refuse(Rule.LEAF_SIGNATURE, "a leaf whose signature is not its own", leaf=index)

    def check_content(self, leaf: LeafNode, index: int | None, now: int | None = None) -> None:
        """`check_leaf` without the signature, for a leaf that is about to be signed. Raises PeerError."""
        capabilities = leaf.capabilities
        if MLS10 not in capabilities.versions:
            refuse(Rule.LEAF_VERSION, "a leaf that does not list the protocol's version", leaf=index)
        if self.policy.suite_listed and self.suite.number not in capabilities.cipher_suites:
            refuse(Rule.LEAF_SUITE, "a leaf that does not list the group's suite", leaf=index, suite=self.suite.number)
        if leaf.credential.type not in capabilities.credentials:
            refuse(Rule.LEAF_CREDENTIAL_LISTED, "a leaf that does not list the type of its own credential", leaf=index)
        if leaf.credential.type == X509:
            _check_certificate(self.suite, leaf, index)
        for extension in leaf.extensions:
            if extension.type not in DEFAULT_EXTENSIONS and extension.type not in capabilities.extensions:
                refuse(Rule.LEAF_EXTENSIONS_LISTED, "a leaf that does not list its own extension", leaf=index, extension=extension.type)
        self.check_supported(leaf, index)
        _check_lifetime(leaf, index, now, self.policy.max_lifetime)
        check_usable(self.suite, leaf.encryption_key, leaf=index)


def _check_certificate(suite: Suite, leaf: LeafNode, index: int | None) -> None:
    """The first certificate is for the leaf's signature key (section 5.3)."""
    try:
        certified = subject_public_key_info(leaf.credential.certificates[0]) if leaf.credential.certificates else b""
    except MalformedInput as error:
        refuse(Rule.LEAF_CERTIFICATE_KEY, f"a leaf with a certificate that cannot be read: {error}", leaf=index)
    if certified != suite.signature_scheme.spki_prefix + leaf.signature_key:
        refuse(Rule.LEAF_CERTIFICATE_KEY, "a leaf whose certificate is for another key", leaf=index)


def _lacking(required: Iterable[int], supported: tuple[int, ...], default: Iterable[int]) -> list[int]:
    return [kind for kind in required if kind not in supported and kind not in default]


def _check_lifetime(leaf: LeafNode, index: int | None, now: int | None, longest: int | None) -> None:
    lifetime = leaf.lifetime
    if lifetime is None:
        return
    if now is not None and not lifetime.not_before <= now <= lifetime.not_after:
        refuse(Rule.LEAF_LIFETIME, "a leaf outside its lifetime", leaf=index, now=now)
    if longest is not None and lifetime.not_after - lifetime.not_before > longest:
        refuse(Rule.LEAF_LIFETIME, "a leaf of too long a lifetime", leaf=index, longest=longest)


def check_usable(suite: Suite, key: bytes, **where: int | None) -> None:
    """An HPKE public key, or what was encapsulated to one, is usable. Raises PeerError, which names `where`."""
    try:
        suite.check_public(key)
    except MalformedInput as error:
        refuse(Rule.USABLE_KEY, f"an HPKE key that is not usable: {error}", **where)


def check_source(leaf: LeafNode, source: int, index: int | None) -> None:
    """The leaf was made for where it stands: key package, update or commit. Raises PeerError (section 7.3)."""
    if leaf.source != source:
        refuse(Rule.LEAF_SOURCE, "a leaf made for another place", leaf=index, expected=source, got=leaf.source)


def check_key_package(demands: Demands, package: KeyPackage, now: int | None = None) -> None:
    """The key package may be added to the group of `demands`. Raises PeerError (section 10.1)."""
    if package.version != MLS10:
        refuse(Rule.KEY_PACKAGE_VERSION, "a key package of another version", version=package.version)
    if package.cipher_suite != demands.suite.number:
        refuse(Rule.KEY_PACKAGE_SUITE, "a key package of another suite", suite=package.cipher_suite)
    if package.init_key == package.leaf_node.encryption_key:
        refuse(Rule.KEY_PACKAGE_INIT_KEY, "a key package whose init key is its leaf's key")
    check_usable(demands.suite, package.init_key)
    check_source(package.leaf_node, KEY_PACKAGE, None)
    demands.check_leaf(package.leaf_node, None, now)
    if not package.signature_holds(demands.suite):
        refuse(Rule.KEY_PACKAGE_SIGNATURE, "a key package whose signature is not its leaf's")
