"""Commits and leaves that hold every rule of RFC 9420, and that their signer has no right to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from broker_crypto.crypto.suites import suite as suite_of
from broker_crypto.delivery import log_records
from broker_crypto.delivery.group_policy import EXTENSION, GroupPolicy
from broker_crypto.delivery.log_records import LEAVE, LEAVE_LABEL, CommitData, FencedTopic, GroupRecord, Leave
from broker_crypto.identity.certificate import read_certificate
from broker_crypto.mls import psk
from broker_crypto.mls.leaf import EXTERNAL_SENDERS, REQUIRED_CAPABILITIES, Extension, RequiredCapabilities
from broker_crypto.mls.proposals import GroupContextExtensions, PreSharedKey, ReInit, Remove
from broker_crypto.records import Anchor
from broker_crypto.wire import tls
from tests.support.lies.commits import added, by_ops, leaf_of, named_psk
from tests.support.lies.scene import Scene
from tests.support.lies.switches import Switches

RIGHTS: Switches[Scene] = Switches()
CROWDED: Switches[Scene] = (
    Switches()
)  # on a scene in which writer-1's key, and the identity of writer-2, have committed as often as they may
breaks = RIGHTS.breaks

# --- what it may hold ---------------------------------------------------------------------------------------------------


@breaks("proposals")
def a_newcomer_added_by_an_admin(scene: Scene) -> bytes:
    return by_ops(scene, added(scene))


@breaks("proposals")
def a_pre_shared_key_by_an_admin(scene: Scene) -> bytes:
    return by_ops(scene, named_psk(scene))


@breaks("proposals")
def a_joiner_with_a_pre_shared_key(scene: Scene) -> bytes:
    return scene.outside().write(named_psk(scene)).record


@breaks("proposals")
def a_resumption_key_by_an_admin(scene: Scene) -> bytes:
    nonce = bytes(scene.chain.public.suite.nh)
    key = psk.ResumptionPsk(psk.Usage.APPLICATION, scene.chain.public.group_id, scene.chain.epoch, nonce)
    return by_ops(scene, PreSharedKey(key))


@breaks("proposals")
def a_reinit_by_an_admin(scene: Scene) -> bytes:
    return by_ops(scene, ReInit(bytes(32), 1, scene.suite, scene.chain.public.context.extensions))


@breaks("path")
def a_newcomer_added_without_a_path(scene: Scene) -> bytes:
    return by_ops(scene, added(scene), path=lambda _: None)


@breaks("path")
def a_pre_shared_key_without_a_path(scene: Scene) -> bytes:
    return by_ops(scene, named_psk(scene), path=lambda _: None)


# --- removals -----------------------------------------------------------------------------------------------------------


def remove_right(name: str, who: str, victim: int) -> None:
    breaks("remove_right", name=name)(lambda scene: scene.member(who).write(Remove(victim)).record)


remove_right("a_writer_that_removes_another", "writer-1", 2)
remove_right("a_writer_that_removes_the_admin", "writer-1", 0)
remove_right("a_reader_that_removes_a_writer", "reader-1", 1)


# --- the policy ---------------------------------------------------------------------------------------------------------


def policy(scene: Scene, **changes: Any) -> GroupContextExtensions:
    """The group's extensions with another policy."""
    required, _ = scene.chain.public.context.extensions
    return GroupContextExtensions((required, Extension(EXTENSION, replace(scene.chain.policy, **changes).encode())))


def changed(reason: str, name: str, change: Callable[[GroupPolicy], dict[str, Any]], *, rule: str | None = None) -> None:
    """An admin's commit with a policy that it may not set."""
    breaks(reason, name=name, rule=rule)(lambda scene: by_ops(scene, policy(scene, **change(scene.chain.policy))))


@breaks("policy_right")
def a_writer_that_changes_the_policy(scene: Scene) -> bytes:
    return scene.member("writer-1").write(policy(scene, key_retention=1)).record


@breaks("policy_right")
def a_writer_that_makes_itself_an_admin(scene: Scene) -> bytes:
    return scene.member("writer-1").write(policy(scene, roles=(*scene.chain.policy.roles, ("agent://acme/writer-1", "admin")))).record


@breaks("policy_right")
def a_writer_that_sets_the_same_policy(scene: Scene) -> bytes:
    return scene.member("writer-1").write(policy(scene)).record


@breaks("policy_right")
def a_writer_that_raises_the_rules(scene: Scene) -> bytes:
    return scene.member("writer-1").write(policy(scene, rules=2)).record


changed("policy_rules", "rules_below_those_in_force", lambda _: {"rules": 0})
changed("policy_group", "a_policy_of_another_group", lambda _: {"group": "orders.g1"})
changed("policy_time", "a_policy_founded_at_another_time", lambda now: {"time": now.time + 1})
changed("policy_admin", "a_policy_whose_only_admin_is_barred", lambda _: {"barred": ("agent://acme/ops",)})
changed("policy_uncounted", "a_barred_member_that_stays", lambda _: {"barred": ("agent://acme/writer-2",)})
changed("policy_uncounted", "a_member_without_a_role_that_stays", lambda now: {"roles": now.roles[:2]})
changed("malformed_input", "a_policy_without_any_admin", lambda now: {"roles": now.roles[1:]}, rule="policy_form")
changed("malformed_input", "a_policy_that_names_a_topic_twice", lambda _: {"topics": ("orders", "orders")}, rule="policy_form")
changed("malformed_input", "a_policy_with_a_duration_out_of_range", lambda _: {"max_offline": -2}, rule="policy_form")
changed(
    "malformed_input",
    "a_policy_whose_anchor_speaks_for_half_a_segment",
    lambda now: {"anchors": (Anchor(now.anchors[0].certificate, ("agent://acme/op",)),)},
    rule="policy_form",
)


@breaks("policy_uncounted")
def a_member_whose_key_is_revoked_that_stays(scene: Scene) -> bytes:
    return by_ops(scene, policy(scene, revoked=(key_hash(scene, "writer-2"),)))


@breaks("role")
def an_admin_that_bars_itself_beside_another(scene: Scene) -> bytes:
    roles = (*scene.chain.policy.roles, ("agent://acme/chief", "admin"))
    return by_ops(scene, policy(scene, roles=roles, barred=("agent://acme/ops",)))


def key_hash(scene: Scene, name: str) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo of a member's certificate."""
    return read_certificate(scene.owns[name].chain[0]).key_hash


def extensions(
    reason: str, name: str, change: Callable[[tuple[Extension, ...]], tuple[Extension, ...]], *, rule: str | None = None
) -> None:
    """An admin's commit with other extensions than the two."""
    breaks(reason, name=name, rule=rule)(lambda scene: by_ops(scene, GroupContextExtensions(change(scene.chain.public.context.extensions))))


extensions("extensions", "a_group_context_without_policy", lambda them: them[:1])
extensions("extensions", "a_group_context_without_capabilities", lambda them: them[1:])
extensions("extensions", "external_senders_let_in", lambda them: (*them, Extension(EXTERNAL_SENDERS, tls.vector([]))))
extensions(
    "required_capabilities",
    "capabilities_that_require_nothing",
    lambda them: (Extension(REQUIRED_CAPABILITIES, RequiredCapabilities().encode()), them[1]),
)
extensions(
    "malformed_input",
    "a_policy_with_a_byte_behind",
    lambda them: (them[0], Extension(EXTENSION, them[1].data + b"\x00")),
    rule="policy_form",
)
extensions(
    "malformed_input",
    "a_policy_of_another_schema",
    lambda them: (them[0], Extension(EXTENSION, CommitData(1).encode())),
    rule="policy_form",
)
extensions("malformed_input", "a_policy_without_a_marker", lambda them: (them[0], Extension(EXTENSION, b"")), rule="policy_form")


# --- fences and rate ----------------------------------------------------------------------------------------------------


@breaks("fences")
def an_empty_list_of_fences_by_a_writer(scene: Scene) -> bytes:
    return scene.member("writer-1").write(data=CommitData(scene.now, ()).encode()).record


@breaks("fences")
def a_long_list_of_fences_by_a_joiner(scene: Scene) -> bytes:
    ends = tuple((number, 2**63 - 1) for number in range(2_000))
    return scene.outside().write(data=CommitData(scene.now, (FencedTopic("orders", "id", ends),)).encode()).record


# --- leaves -------------------------------------------------------------------------------------------------------------


def leave(scene: Scene, *, name: str = "writer-2", signed_by: str | None = None, **said: Any) -> bytes:
    """A leave of a member that says something else, signed all the same."""
    node, index = leaf_of(scene, scene.group(name).leaf), scene.group(name).leaf
    unsigned = replace(Leave(scene.chain.public.group_id, index, log_records.leaf_hash(node), b""), **said)
    private = scene.owns[signed_by or name].signature_private
    signature = suite_of(scene.suite).sign_with_label(private, LEAVE_LABEL, unsigned.content)
    return GroupRecord(LEAVE, scene.chain.epoch, replace(unsigned, signature=signature).encode(), b"").encode()


@breaks("leave_signature")
def a_leave_signed_by_another(scene: Scene) -> bytes:
    return leave(scene, signed_by="ops")


@breaks("leave_group")
def a_leave_of_another_group(scene: Scene) -> bytes:
    return leave(scene, group_id=bytes(32))


@breaks("malformed_input", rule="leave_form")
def a_leave_that_cannot_be_read(scene: Scene) -> bytes:
    return GroupRecord(LEAVE, scene.chain.epoch, b"", b"").encode()


@breaks("leave_form")
def a_leave_with_a_group_info(scene: Scene) -> bytes:
    whole = GroupRecord.decode(leave(scene))
    assert whole is not None
    return replace(whole, group_info=b"x").encode()


@breaks("", rule="leave_node", kind="stale")
def a_leave_of_the_leaf_as_it_was(scene: Scene) -> bytes:
    return leave(scene, leaf_node=bytes(32))


@breaks("", rule="leave_node", kind="stale")
def a_leave_of_a_leaf_that_is_not_there(scene: Scene) -> bytes:
    return leave(scene, leaf=7)


@breaks("", rule="leave_node", kind="stale")
def a_leave_of_the_leaf_of_another(scene: Scene) -> bytes:
    return leave(scene, leaf=1)
