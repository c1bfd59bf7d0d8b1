"""Certificates that the group's own CA has signed, as a careless CA would, and that count in no group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from broker_crypto import limits
from broker_crypto.delivery.committer import Own
from broker_crypto.mls.leaf import Credential
from tests.support import certificates as der
from tests.support.lies.scene import Scene
from tests.support.lies.switches import Switches

CERTIFIED: Switches[Scene] = Switches()
breaks = CERTIFIED.breaks
SPKI = {"ed25519": "302a300506032b6570032100", "p256": "3059301306072a8648ce3d020106082a8648ce3d030107034200"}


def moment(scene: Scene, seconds: float) -> datetime:
    return datetime.fromtimestamp(scene.now // 1000, UTC) + timedelta(seconds=seconds)


def plan(scene: Scene, own: Own, uri: str = "agent://acme/writer-9", **changes: object) -> der.Plan:
    """A certificate of the group's CA for the key of `own`; good unless `changes` bend it."""
    extensions = (der.basic_constraints(ca=False), der.key_usage(0), der.alt_name(der.uri(uri)))
    validity = (der.utc(moment(scene, -300)), der.utc(moment(scene, 86400)))
    spki = bytes.fromhex(SPKI[scene.scheme]) + own.signature_public
    authority = scene.world.authority.private_key
    good = der.Plan(der.name("9"), der.name("test CA"), authority, authority, extensions, validity=validity, spki=spki)
    return replace(good, **changes)  # type: ignore[arg-type]


def fresh(scene: Scene) -> Own:
    """A key with no certificate worth the name yet."""
    return scene.world.own("writer-9", scheme=scene.scheme)


def joins(scene: Scene, own: Own, *chain: bytes) -> bytes:
    """A join by the key of `own` under these certificates."""
    return scene.outside(own).write(leaf={"credential": Credential.x509(chain)}).record


def bent(reason: str, name: str, change: Callable[[Scene, der.Plan], der.Plan]) -> None:
    def attack(scene: Scene) -> bytes:
        own = fresh(scene)
        return joins(scene, own, change(scene, plan(scene, own)).build())

    breaks(reason, name=name)(attack)


def names_of(*names: tuple[int, bytes]) -> tuple[bytes, ...]:
    return der.basic_constraints(ca=False), der.key_usage(0), der.alt_name(*names)


def with_usage(plan: der.Plan, usage: bytes) -> der.Plan:
    return plan.but(extensions=(plan.extensions[0], usage, plan.extensions[2]))


def with_more(plan: der.Plan, *extensions: bytes) -> der.Plan:
    return plan.but(extensions=(*plan.extensions, *extensions))


bent("leaf.not_ca", "a_ca_as_a_leaf", lambda s, p: p.but(extensions=(der.basic_constraints(), *p.extensions[1:])))
bent("leaf.not_ca", "a_leaf_that_may_certify", lambda s, p: with_usage(p, der.key_usage(0, 5)))
bent("leaf.key_usage", "a_leaf_that_may_not_sign", lambda s, p: with_usage(p, der.key_usage(4)))
bent("leaf.alt_name", "two_uris", lambda s, p: p.but(extensions=names_of(der.uri("agent://acme/ops"), der.uri("agent://acme/writer-9"))))
bent("leaf.alt_name", "a_dns_name", lambda s, p: p.but(extensions=names_of((0x82, b"agent://acme/ops"))))
bent("leaf.identity", "an_upper_case_identity", lambda s, p: p.but(extensions=names_of(der.uri("agent://acme/Ops "))))
bent("leaf.identity", "an_identity_with_a_nul", lambda s, p: p.but(extensions=names_of(der.uri("agent://acme/ops\0"))))
bent("leaf.identity", "an_identity_with_dots", lambda s, p: p.but(extensions=names_of(der.uri("agent://acme/x/../ops"))))
bent("leaf.identity", "an_identity_beyond_ascii", lambda s, p: p.but(extensions=names_of((0x86, "agent://acme/é".encode()))))
bent("certificate.version", "a_certificate_of_version_1", lambda s, p: p.but(version=b""))
bent("certificate.serial", "a_certificate_without_a_number", lambda s, p: p.but(serial=der.integer(0)))
bent("certificate.algorithm", "two_algorithms_in_a_certificate", lambda s, p: p.but(outer=der.ECDSA_SHA384))
bent("certificate.name", "a_certificate_of_nobody", lambda s, p: p.but(issuer=der.name("")))
bent("certificate.validity", "a_certificate_that_ends_before_it_begins", lambda s, p: p.but(validity=(p.validity[1], p.validity[0])))
bent("certificate.extensions", "an_extension_twice", lambda s, p: with_more(p, p.extensions[0]))
bent(
    "certificate.critical",
    "an_unknown_critical_extension",
    lambda s, p: with_more(p, der.extension(der.NAME_CONSTRAINTS, der.tlv(0x30), critical=True)),
)
bent(
    "certificate.basic_constraints",
    "a_path_length_of_no_ca",
    lambda s, p: p.but(extensions=(der.basic_constraints(ca=False, path_len=0), *p.extensions[1:])),
)
bent("certificate.key_usage", "a_usage_that_does_not_exist", lambda s, p: with_usage(p, der.key_usage(0, 9)))
bent("certificate.alt_name", "an_empty_list_of_names", lambda s, p: p.but(extensions=names_of()))
bent(
    "certificate.size",
    "a_huge_certificate",
    lambda s, p: with_more(p, der.extension(der.EXTENDED_KEY_USAGE, bytes(limits.CERTIFICATE_MAX))),
)
bent("chain.validity", "an_expired_certificate", lambda s, p: p.but(validity=(p.validity[0], der.utc(moment(s, -1)))))
bent("der.time", "a_certificate_of_no_calendar", lambda s, p: p.but(validity=(der.tlv(0x17, b"260231000000Z"), p.validity[1])))
bent("anchor.issuer", "an_issuer_of_the_same_text_in_another_encoding", lambda s, p: p.but(issuer=der.name("test CA", 0x13)))
bent("anchor.signature", "a_certificate_signed_by_itself", lambda s, p: p.but(signer=der.key("leaf")))


def chained(scene: Scene, middle: Callable[[der.Plan], der.Plan] = lambda p: p, **leaf: object) -> bytes:
    """A join below an intermediate CA that the group's CA has signed; `middle` changes it."""
    own, signer, subject = fresh(scene), der.key("middle"), der.name("middle")
    ca = plan(scene, own, key=signer, subject=subject, spki=None, extensions=der.CA_EXTENSIONS)
    below = plan(scene, own, issuer=subject, signer=signer, **leaf)
    return joins(scene, own, below.build(), middle(ca).build())


@breaks("ca.path_len")
def a_ca_below_one_that_may_only_sign_leaves(scene: Scene) -> bytes:
    return chained(scene)


@breaks("ca.basic_constraints")
def a_leaf_that_signs_another(scene: Scene) -> bytes:
    return chained(scene, lambda p: p.but(extensions=(der.basic_constraints(ca=False), der.key_usage(5))))


@breaks("ca.key_usage")
def a_ca_that_may_not_certify(scene: Scene) -> bytes:
    return chained(scene, lambda p: p.but(extensions=(der.basic_constraints(), der.key_usage(6))))


@breaks("certificate.key")
def an_intermediate_with_an_unknown_kind_of_key(scene: Scene) -> bytes:
    return chained(scene, lambda p: p.but(spki=der.tlv(0x30, der.tlv(0x30, der.oid(bytes.fromhex("2b656f"))), der.bits(bytes(32)))))


@breaks("chain.validity")
def an_intermediate_that_has_expired(scene: Scene) -> bytes:
    return chained(scene, lambda p: p.but(validity=(p.validity[0], der.utc(moment(scene, -1)))))


@breaks("chain.signature")
def an_intermediate_of_another_key(scene: Scene) -> bytes:
    return chained(scene, lambda p: p.but(key=der.key("other")))


@breaks("chain.issuer")
def an_intermediate_of_another_name(scene: Scene) -> bytes:
    return chained(scene, lambda p: p.but(subject=der.name("another")))


@breaks("leaf_certificate_key")
def no_certificate_at_all(scene: Scene) -> bytes:
    return joins(scene, fresh(scene), b"")


@breaks("identity")
def a_member_that_comes_back_with_its_key_as_an_admin(scene: Scene) -> bytes:
    own = scene.owns["writer-1"]
    chain = (plan(scene, own, "agent://acme/ops").build(),)
    return scene.outside(own).write(remove=1, leaf={"credential": Credential.x509(chain)}).record


@breaks("leaf_signature")
def a_key_of_another_member_under_an_own_certificate(scene: Scene) -> bytes:
    """A CA that asks for no proof of possession certifies the victim's key; the path itself is signed with the own one."""
    victim, scribe = scene.owns["reader-1"], scene.member("writer-1")
    stolen = replace(victim, chain=(plan(scene, victim, "agent://acme/writer-1").build(),))
    own = replace(stolen.leaf(scene.suite), signature_private=scribe.own.signature_private)
    return scribe.write(own=own).record
