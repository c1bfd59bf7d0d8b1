"""Foundings that never count: right in everything but one thing, signed with the real key of a real identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from broker_crypto import limits
from broker_crypto.crypto.suites import suite
from broker_crypto.delivery import rules
from broker_crypto.delivery.committer import Own
from broker_crypto.delivery.group_policy import EXTENSION, GroupPolicy
from broker_crypto.delivery.log_records import COMMIT as COMMIT_KIND
from broker_crypto.delivery.log_records import FOUNDING, LEAVE, GroupRecord
from broker_crypto.delivery.rules import Verdict, judge
from broker_crypto.mls.framing import MLSMessage
from broker_crypto.mls.group_info import GroupContext, GroupInfo
from broker_crypto.mls.leaf import (
    COMMIT,
    EXTERNAL_PUB,
    EXTERNAL_SENDERS,
    RATCHET_TREE,
    REQUIRED_CAPABILITIES,
    Capabilities,
    Credential,
    Extension,
    LeafNode,
    RequiredCapabilities,
)
from broker_crypto.mls.ratchet_tree import Node, ParentNode, RatchetTree
from broker_crypto.mls.tree_draft import TreeDraft
from broker_crypto.records import Anchor, LogEntry
from broker_crypto.wire import envelopes, tls
from tests.support.lies.switches import Switches
from tests.support.world import World

GROUP_ID = bytes(range(32))


@dataclass
class Founder:
    """Writes foundings, signed with the real key of a real identity."""

    world: World
    own: Own

    @property
    def policy(self) -> GroupPolicy:
        return replace(self.world.policy, time=self.world.clock.now_ms())

    def leaf(self, *, own: Own | None = None, **changes: Any) -> LeafNode:
        own = own or self.own
        _, leaf = own.leaf(1).fresh(suite(1), self.world.random)
        return replace(leaf, signature=b"", **changes).signed(suite(1), own.signature_private, GROUP_ID, 0)

    def extensions(self, policy: GroupPolicy | bytes | None = None) -> tuple[Extension, ...]:
        data = policy if isinstance(policy, bytes) else (policy or self.policy).encode()
        return Extension(REQUIRED_CAPABILITIES, rules.required_capabilities()), Extension(EXTENSION, data)

    def info(
        self,
        *,
        tree: RatchetTree | None = None,
        context: dict[str, Any] | None = None,
        change: Callable[[GroupInfo], GroupInfo] | None = None,
    ) -> GroupInfo:
        kem = suite(1)
        tree = tree or RatchetTree.of_one(kem, self.leaf())
        whole = GroupContext(1, 1, GROUP_ID, 0, tree.tree_hash(), b"", self.extensions())
        whole = replace(whole, **(context or {}))
        _, public = kem.derive_key_pair(self.world.random(kem.nh))
        published = (Extension(RATCHET_TREE, tree.encode()), Extension(EXTERNAL_PUB, tls.opaque(public)))
        info = GroupInfo(whole, published, bytes(kem.nh), 0)
        return (change(info) if change else info).signed(kem, self.own.signature_private)

    def record(self, info: GroupInfo | None = None, **changes: Any) -> bytes:
        message = MLSMessage(info or self.info()).encode()
        return replace(GroupRecord(FOUNDING, 0, message, b""), **changes).encode()

    def judged(self, record: bytes, *, late_ms: int = 0) -> Verdict:
        return judge(None, LogEntry(1, self.world.clock.now_ms() + late_ms, record), "orders")


FOUNDINGS: Switches[Founder] = Switches()
breaks = FOUNDINGS.breaks


def with_policy(founder: Founder, **changes: Any) -> bytes:
    policy = replace(founder.policy, **changes)
    return founder.record(founder.info(context={"extensions": founder.extensions(policy)}))


def with_published(founder: Founder, change: Callable[[Sequence[Extension]], Sequence[Extension]]) -> bytes:
    return founder.record(founder.info(change=lambda info: replace(info, extensions=tuple(change(info.extensions)))))


# --- the record and the context -----------------------------------------------------------------------------------------


@breaks("founding_form")
def a_record_of_a_later_epoch(founder: Founder) -> bytes:
    return founder.record(epoch=1)


@breaks("founding_form")
def a_record_with_a_group_info_beside(founder: Founder) -> bytes:
    return founder.record(group_info=b"x")


@breaks("founding_epoch")
def a_context_of_a_later_epoch(founder: Founder) -> bytes:
    return founder.record(founder.info(context={"epoch": 1}))


@breaks("founding_epoch")
def a_context_with_a_transcript(founder: Founder) -> bytes:
    return founder.record(founder.info(context={"confirmed_transcript_hash": bytes(32)}))


@breaks("founding_group_id")
def a_group_id_of_31_bytes(founder: Founder) -> bytes:
    return founder.record(founder.info(context={"group_id": bytes(31)}))


@breaks("group_suite")
def a_context_of_another_version(founder: Founder) -> bytes:
    return founder.record(founder.info(context={"version": 2}))


def of_suite(number: int) -> None:
    breaks("founding_suite", name=f"suite_{number}")(lambda founder: founder.record(founder.info(context={"cipher_suite": number})))


for _number in (0, 4, 5, 6, 7, 0xF000):
    of_suite(_number)


@breaks("tree_hash")
def a_context_with_another_tree_hash(founder: Founder) -> bytes:
    return founder.record(founder.info(context={"tree_hash": bytes(32)}))


@breaks("extensions")
def a_context_with_one_extension_more(founder: Founder) -> bytes:
    senders = Extension(EXTERNAL_SENDERS, tls.vector([]))
    return founder.record(founder.info(context={"extensions": (*founder.extensions(), senders)}))


@breaks("extensions")
def a_context_without_policy(founder: Founder) -> bytes:
    return founder.record(founder.info(context={"extensions": founder.extensions()[:1]}))


@breaks("required_capabilities")
def capabilities_that_require_more(founder: Founder) -> bytes:
    more = RequiredCapabilities((EXTENSION,), (), (2, 1)).encode()
    return founder.record(founder.info(context={"extensions": (Extension(REQUIRED_CAPABILITIES, more), founder.extensions()[1])}))


@breaks("required_capabilities")
def capabilities_that_require_nothing(founder: Founder) -> bytes:
    less = RequiredCapabilities().encode()
    return founder.record(founder.info(context={"extensions": (Extension(REQUIRED_CAPABILITIES, less), founder.extensions()[1])}))


# --- the policy ---------------------------------------------------------------------------------------------------------


@breaks("founding_group")
def a_policy_of_another_group(founder: Founder) -> bytes:
    return with_policy(founder, group="orders.g1")


@breaks("founding_rules")
def a_policy_of_rules_that_no_admin_has_raised(founder: Founder) -> bytes:
    return with_policy(founder, rules=2)


@breaks("malformed_input", rule="policy_form")
def a_policy_of_rules_below_the_first(founder: Founder) -> bytes:
    return with_policy(founder, rules=0)


@breaks("founding_barred")
def a_policy_that_bars_somebody(founder: Founder) -> bytes:
    return with_policy(founder, barred=("agent://acme/writer-1",))


@breaks("founding_barred")
def a_policy_that_revokes_a_key(founder: Founder) -> bytes:
    return with_policy(founder, revoked=(bytes(32),))


@breaks("malformed_input", rule="policy_form")
def a_policy_without_admin(founder: Founder) -> bytes:
    return with_policy(founder, roles=(("agent://acme/ops", "writer"),))


@breaks("malformed_input", rule="policy_form")
def a_policy_with_a_byte_behind(founder: Founder) -> bytes:
    return founder.record(founder.info(context={"extensions": founder.extensions(founder.policy.encode() + b"\x00")}))


@breaks("malformed_input", rule="policy_form")
def a_policy_of_another_schema(founder: Founder) -> bytes:
    data = envelopes.COMMIT_DATA.encode({"version": 1, "time": 0, "fences": None})
    return founder.record(founder.info(context={"extensions": founder.extensions(data)}))


@breaks("malformed_input", rule="policy_form")
def a_policy_whose_anchor_speaks_for_half_a_segment(founder: Founder) -> bytes:
    return with_policy(founder, anchors=(Anchor(founder.world.authority.certificate, ("agent://acme/op",)),))


@breaks("certificate.size")
def a_policy_whose_anchor_is_huge(founder: Founder) -> bytes:
    return with_policy(founder, anchors=(Anchor(bytes(limits.CERTIFICATE_MAX + 1), ("agent://acme/",)),))


@breaks("der.end")
def a_policy_whose_anchor_is_no_certificate(founder: Founder) -> bytes:
    return with_policy(founder, anchors=(Anchor(b"anchor", ("agent://acme/",)),))


@breaks("anchor.issuer")
def a_policy_without_anchors(founder: Founder) -> bytes:
    return with_policy(founder, anchors=())


@breaks("anchor.identity")
def a_policy_whose_anchor_does_not_speak_for_the_founder(founder: Founder) -> bytes:
    return with_policy(founder, anchors=(Anchor(founder.world.authority.certificate, ("agent://other/",)),))


@breaks("role")
def a_founder_without_a_role(founder: Founder) -> bytes:
    return with_policy(founder, roles=(("agent://acme/another", "admin"),))


# --- the tree and what is published -------------------------------------------------------------------------------------


def two_leaves(founder: Founder) -> RatchetTree:
    draft = TreeDraft(RatchetTree.of_one(suite(1), founder.leaf()))
    draft.add(founder.leaf(own=founder.world.own("writer-1")))
    return draft.finish()


@breaks("founding_leaf")
def a_tree_of_two_leaves(founder: Founder) -> bytes:
    return founder.record(founder.info(tree=two_leaves(founder)))


@breaks("founding_leaf")
def a_tree_whose_leaf_is_not_the_first(founder: Founder) -> bytes:
    nodes: list[Node | None] = [None, None, founder.leaf()]
    data = tls.vector([b"\x00", b"\x00", b"\x01\x01" + nodes[2].encode()])  # type: ignore[union-attr]
    tree = RatchetTree.decode(suite(1), data)
    return founder.record(founder.info(tree=tree, change=lambda info: replace(info, signer=1)))


def wide_tree(founder: Founder, size: int) -> RatchetTree:
    """One leaf, and above it the root of a tree of `size` leaves, which the leaf vouches for."""
    kem = suite(1)
    _, key = kem.derive_key_pair(founder.world.random(kem.nh))
    nodes: list[Node | None] = [None] * (2 * size - 1)
    root = ParentNode(key)
    nodes[size - 1] = root
    empty = RatchetTree.decode(kem, tls.vector([b"\x00"] * (size - 1) + [b"\x01\x02" + root.encode()]))
    parent_hash = empty.parent_hash(size - 1, size - 1 + size // 2)
    leaf = founder.leaf(source=COMMIT, lifetime=None, parent_hash=parent_hash)
    data = tls.vector([b"\x01\x01" + leaf.encode(), *([b"\x00"] * (size - 2)), b"\x01\x02" + root.encode()])
    return RatchetTree.decode(kem, data)


@breaks("founding_leaf")
def a_tree_with_a_root_above_nobody_else(founder: Founder) -> bytes:
    return founder.record(founder.info(tree=wide_tree(founder, 2)))


@breaks("founding_leaf")
def a_tree_of_many_blank_leaves(founder: Founder) -> bytes:
    return founder.record(founder.info(tree=wide_tree(founder, 2**14)))


@breaks("extensions")
def nothing_published_to_join_with(founder: Founder) -> bytes:
    return with_published(founder, lambda them: them[:1])


@breaks("extensions")
def no_tree(founder: Founder) -> bytes:
    return with_published(founder, lambda them: them[1:])


@breaks("extensions")
def something_else_published(founder: Founder) -> bytes:
    return with_published(founder, lambda them: (*them, Extension(0xF0C0, b"")))


@breaks("malformed_input", rule="external_pub")
def an_external_pub_of_small_order(founder: Founder) -> bytes:
    return with_published(founder, lambda them: (them[0], Extension(EXTERNAL_PUB, tls.opaque(bytes(32)))))


@breaks("malformed_input", rule="tree_form")
def a_tree_with_a_byte_behind(founder: Founder) -> bytes:
    return with_published(founder, lambda them: (replace(them[0], data=them[0].data + b"\x00"), them[1]))


@breaks("tree_form")
def a_tree_of_nothing(founder: Founder) -> bytes:
    return with_published(founder, lambda them: (replace(them[0], data=b"\x00"), them[1]))


@breaks("group_info_signature")
def a_founding_signed_by_another(founder: Founder) -> bytes:
    info = founder.info()
    return founder.record(info.signed(suite(1), founder.world.own("ops").signature_private))


@breaks("leaf_suite")
def a_founder_whose_leaf_does_not_list_the_suite(founder: Founder) -> bytes:
    lists = Capabilities(cipher_suites=(2,), extensions=(EXTENSION,), credentials=(2,))
    return founder.record(founder.info(tree=RatchetTree.of_one(suite(1), founder.leaf(capabilities=lists))))


@breaks("leaf_group_extensions")
def a_founder_whose_leaf_does_not_know_the_policy(founder: Founder) -> bytes:
    lists = Capabilities(cipher_suites=(1,), extensions=(), credentials=(2,))
    return founder.record(founder.info(tree=RatchetTree.of_one(suite(1), founder.leaf(capabilities=lists))))


@breaks("leaf_signature")
def a_founder_whose_leaf_another_has_signed(founder: Founder) -> bytes:
    leaf = founder.leaf()
    forged = replace(leaf, signature=founder.leaf().signature)
    return founder.record(founder.info(tree=RatchetTree.of_one(suite(1), forged)))


@breaks("usable_key")
def a_founder_whose_leaf_has_a_key_of_small_order(founder: Founder) -> bytes:
    return founder.record(founder.info(tree=RatchetTree.of_one(suite(1), founder.leaf(encryption_key=bytes(32)))))


@breaks("leaf_certificate_key")
def a_founder_under_the_certificate_of_another(founder: Founder) -> bytes:
    credential = Credential.x509(founder.world.own("writer-1").chain)
    return founder.record(founder.info(tree=RatchetTree.of_one(suite(1), founder.leaf(credential=credential))))


@breaks("leaf_certificate_key")
def a_founder_with_a_p256_certificate_in_a_group_of_ed25519(founder: Founder) -> bytes:
    credential = Credential.x509(founder.world.own("ops", scheme="p256").chain)
    return founder.record(founder.info(tree=RatchetTree.of_one(suite(1), founder.leaf(credential=credential))))


@breaks("credential")
def a_founder_with_a_basic_credential(founder: Founder) -> bytes:
    lists = Capabilities(cipher_suites=(1,), extensions=(EXTENSION,), credentials=(1, 2))
    leaf = founder.leaf(credential=Credential.basic(b"agent://acme/ops"), capabilities=lists)
    return founder.record(founder.info(tree=RatchetTree.of_one(suite(1), leaf)))


@breaks("founding_group_id")
def a_group_id_of_33_bytes(founder: Founder) -> bytes:
    return founder.record(founder.info(context={"group_id": bytes(33)}))


@breaks("time")
def a_founding_at_the_end_of_time(founder: Founder) -> bytes:
    return with_policy(founder, time=2**63 - 1)


@breaks("malformed_input", rule="policy_form")
def a_founding_before_1970(founder: Founder) -> bytes:
    return with_policy(founder, time=-1)


@breaks("malformed_input", rule="extensions")
def the_policy_twice(founder: Founder) -> bytes:
    first, second = founder.extensions()
    return founder.record(founder.info(context={"extensions": (first, second, second)}))


@breaks("founding_leaf")
def a_founding_signed_as_another_leaf(founder: Founder) -> bytes:
    return founder.record(founder.info(change=lambda info: replace(info, signer=1)))


@breaks("", rule="first", kind="passed")
def a_commit_before_the_founding(founder: Founder) -> bytes:
    return founder.record(kind=COMMIT_KIND)


@breaks("", rule="first", kind="passed")
def a_leave_before_the_founding(founder: Founder) -> bytes:
    return founder.record(kind=LEAVE)


@breaks("record", rule="canonical")
def a_founding_with_a_byte_behind(founder: Founder) -> bytes:
    return founder.record() + b"\x00"
