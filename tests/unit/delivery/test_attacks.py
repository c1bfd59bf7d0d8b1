"""More that a real member, or a holder of a real certificate, can put into the log: what never counts, and what does, for all alike.

Certificates here are built byte by byte and signed by the group's own CA, as a careless CA would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker_crypto.delivery.committer import Own
from broker_crypto.delivery.log_records import COMMIT, FOUNDING, LEAVE, CommitData, GroupRecord
from broker_crypto.delivery.membership import LOCKED_OUT, MEMBER, follow
from broker_crypto.delivery.rules import Chain, Verdict, judge
from broker_crypto.identity import identity, keys
from broker_crypto.identity.certificate import read_certificate
from broker_crypto.mls import treekem
from broker_crypto.mls.framing import MLSMessage, PublicMessage
from broker_crypto.mls.group_info import GroupInfo
from broker_crypto.mls.leaf import EXTERNAL_PUB, Extension
from broker_crypto.mls.proposals import ExternalInit
from broker_crypto.mls.update_path import UpdatePath
from broker_crypto.records import LogEntry, Random
from broker_crypto.wire import envelopes, tls
from tests.support import certificates as der
from tests.support.forging import path_in
from tests.support.world import World, same_epoch
from tests.unit.delivery import attacks_on_commits, attacks_on_leaves
from tests.unit.delivery.scene import Attack, Attacks, Scene, items_of, joined_with

ATTACKS = Attacks()
breaks = ATTACKS.breaks


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


@pytest.fixture(scope="module")
def nist() -> Scene:
    return Scene(suite=2, scheme="p256")


# --- certificates ---------------------------------------------------------------------------------------------------


def moment(scene: Scene, seconds: float) -> datetime:
    return datetime.fromtimestamp(scene.now // 1000, UTC) + timedelta(seconds=seconds)


def plan(scene: Scene, own: Own, uri: str = "agent://acme/writer-9", **changes: object) -> der.Plan:
    """A certificate of the group's CA for the key of `own`."""
    root = der.name("test CA")
    extensions = (der.basic_constraints(ca=False), der.key_usage(0), der.alt_name(der.uri(uri)))
    validity = (der.utc(moment(scene, -300)), der.utc(moment(scene, 86400)))
    spki = bytes.fromhex("302a300506032b6570032100") + own.signature_public
    authority = scene.world.authority.private_key
    return replace(der.Plan(der.name("9"), root, authority, authority, extensions, validity=validity, spki=spki), **changes)  # type: ignore[arg-type]


def fresh(scene: Scene) -> Own:
    """A key with no certificate worth the name yet."""
    return scene.world.own("writer-9")


def joins(scene: Scene, own: Own, *chain: bytes, time_ms: int | None = None) -> bytes:
    """The record of a join by the key of `own` with these certificates."""
    return scene.outside(replace(own, chain=chain), time_ms=time_ms).honest()


def written(scene: Scene, own: Own, *chain: bytes) -> bytes:
    """The same, where our own client would refuse to write it."""
    scribe, other = scene.outside(replace(own, chain=chain)), scene.outside()
    return scribe.with_info(scribe.say(items_of(other), other.path_with(scribe.own)))


def test_a_certificate_built_byte_by_byte_counts(scene: Scene) -> None:
    own = fresh(scene)
    verdict = scene.judged(joins(scene, own, plan(scene, own).build()))
    assert (verdict.kind, verdict.sender) == ("commit", "agent://acme/writer-9")


def bent(reason: str, name: str, change: Callable[[Scene, der.Plan], der.Plan]) -> None:
    def attack(scene: Scene) -> bytes:
        own = fresh(scene)
        return written(scene, own, change(scene, plan(scene, own)).build())

    attack.__name__ = name
    breaks(reason)(attack)


def names_of(*names: tuple[int, bytes]) -> tuple[bytes, ...]:
    return der.basic_constraints(ca=False), der.key_usage(0), der.alt_name(*names)


bent("leaf.not_ca", "a_ca_as_a_leaf", lambda s, p: p.but(extensions=(der.basic_constraints(), *p.extensions[1:])))
bent("leaf.not_ca", "a_leaf_that_may_certify", lambda s, p: p.but(extensions=(p.extensions[0], der.key_usage(0, 5), p.extensions[2])))
bent("leaf.key_usage", "a_leaf_that_may_not_sign", lambda s, p: p.but(extensions=(p.extensions[0], der.key_usage(4), p.extensions[2])))
bent("leaf.alt_name", "two_uris", lambda s, p: p.but(extensions=names_of(der.uri("agent://acme/ops"), der.uri("agent://acme/writer-9"))))
bent("leaf.alt_name", "a_dns_name", lambda s, p: p.but(extensions=names_of((0x82, b"agent://acme/ops"))))
bent("leaf.identity", "an_upper_case_identity", lambda s, p: p.but(extensions=names_of(der.uri("agent://acme/Ops "))))
bent("leaf.identity", "an_identity_with_a_nul", lambda s, p: p.but(extensions=names_of(der.uri("agent://acme/ops\0"))))
bent("leaf.identity", "an_identity_with_dots", lambda s, p: p.but(extensions=names_of(der.uri("agent://acme/x/../ops"))))
bent("leaf.identity", "an_identity_beyond_ascii", lambda s, p: p.but(extensions=names_of((0x86, "agent://acme/é".encode()))))
bent(
    "certificate.critical",
    "an_unknown_critical_extension",
    lambda s, p: p.but(extensions=(*p.extensions, der.extension(der.NAME_CONSTRAINTS, der.tlv(0x30), critical=True))),
)
bent("certificate.version", "a_certificate_of_version_1", lambda s, p: p.but(version=b""))
bent("certificate.serial", "a_certificate_without_a_number", lambda s, p: p.but(serial=der.integer(0)))
bent("chain.validity", "an_expired_certificate", lambda s, p: p.but(validity=(p.validity[0], der.utc(moment(s, -1)))))
bent("certificate.validity", "a_certificate_that_ends_before_it_begins", lambda s, p: p.but(validity=(p.validity[1], p.validity[0])))
bent("der.time", "a_certificate_of_no_calendar", lambda s, p: p.but(validity=(der.tlv(0x17, b"260231000000Z"), p.validity[1])))
bent("anchor.issuer", "an_issuer_of_the_same_text_in_another_encoding", lambda s, p: p.but(issuer=der.name("test CA", 0x13)))
bent("anchor.signature", "a_certificate_signed_by_itself", lambda s, p: p.but(signer=der.key("leaf")))


def chained(scene: Scene, own: Own, middle: Callable[[der.Plan], der.Plan] = lambda p: p) -> bytes:
    """A join below an intermediate CA that the group's CA has signed; `middle` changes it."""
    signer, subject = der.key("middle"), der.name("middle")
    ca = plan(scene, own, key=signer, subject=subject, spki=None, extensions=der.CA_EXTENSIONS)
    leaf = plan(scene, own, issuer=subject, signer=signer)
    return written(scene, own, leaf.build(), middle(ca).build())


@breaks("ca.path_len")
def a_ca_below_one_that_may_only_sign_leaves(scene: Scene) -> bytes:
    return chained(scene, fresh(scene))


@breaks("ca.basic_constraints")
def a_leaf_that_signs_another(scene: Scene) -> bytes:
    return chained(scene, fresh(scene), lambda p: p.but(extensions=(der.basic_constraints(ca=False), der.key_usage(5))))


@breaks("chain.validity")
def an_intermediate_that_has_expired(scene: Scene) -> bytes:
    return chained(scene, fresh(scene), lambda p: p.but(validity=(p.validity[0], der.utc(moment(scene, -1)))))


@breaks("chain.signature")
def an_intermediate_of_another_key(scene: Scene) -> bytes:
    return chained(scene, fresh(scene), lambda p: p.but(key=der.key("other")))


@breaks("chain.length")
def four_certificates_above_a_leaf(scene: Scene) -> bytes:
    own = fresh(scene)
    return written(scene, own, *(plan(scene, own).build(),) * 5)


@breaks("identity")
def a_member_that_comes_back_with_its_key_as_an_admin(scene: Scene) -> bytes:
    own = scene.owns["writer-1"]
    scribe = scene.outside(replace(own, chain=(plan(scene, own, "agent://acme/ops").build(),)))
    return scribe.honest(remove=1)


@breaks("identity")
def a_member_whose_path_makes_it_a_reader_with_its_key(scene: Scene) -> bytes:
    own = scene.owns["writer-1"]
    scribe = scene.member("writer-1")
    return scribe.with_info(scribe.say((), scribe.path_with(replace(own, chain=(plan(scene, own, "agent://acme/reader-7").build(),)))))


@breaks("leaf_signature")
def a_key_of_another_member_under_an_own_certificate(scene: Scene) -> bytes:
    """A CA that does not ask for proof of possession certifies the victim's key; the path itself is signed with the own one."""
    victim, scribe = scene.owns["reader-1"], scene.member("writer-1")
    stolen = replace(victim, chain=(plan(scene, victim, "agent://acme/writer-1").build(),), signature_private=scribe.own.signature_private)
    return scribe.with_info(scribe.say((), scribe.path_with(stolen)))


@breaks("leaf_certificate_key")
def no_certificate_at_all(scene: Scene) -> bytes:
    return written(scene, fresh(scene), b"")


@breaks("malformed_input")
def a_group_info_with_external_pub_twice(scene: Scene) -> bytes:
    return attacks_on_leaves.with_extensions(scene, lambda them: (them[0], them[0]))


@breaks("malformed_input")
def a_group_info_with_all_and_one_twice(scene: Scene) -> bytes:
    return attacks_on_leaves.with_extensions(scene, lambda them: (*them, them[1]))


@breaks("usable_key")
def an_external_init_with_a_short_kem_output(scene: Scene) -> bytes:
    scribe = scene.outside()
    return scribe.with_info(scribe.say((ExternalInit(b"\x09"),), scribe.path_with()))


@pytest.mark.parametrize(("reasons", "attack"), ATTACKS, ids=[attack.__name__ for _, attack in ATTACKS])
def test_what_one_with_a_real_key_tries_is_refused_by_all_alike(scene: Scene, reasons: tuple[str, ...], attack: Attack) -> None:
    verdict = scene.judged(attack(scene))
    assert verdict.kind == "invalid"
    assert verdict.reason in reasons
    assert verdict.chain is scene.chain


def test_who_holds_a_replica_s_key_of_the_same_identity_is_another_leaf(scene: Scene) -> None:
    own = fresh(scene)
    verdict = scene.judged(joins(scene, own, plan(scene, own, "agent://acme/writer-1").build()))
    assert (verdict.kind, verdict.sender) == ("commit", "agent://acme/writer-1")
    assert verdict.chain is not None
    assert {i for i, _ in verdict.chain.public.tree.leaves()} == {0, 1, 2, 3, 4}


def by_policy(scene: Scene, record: bytes, **changes: object) -> Verdict:
    """The verdict where the group's policy says something else."""
    chain = replace(scene.chain, policy=replace(scene.chain.policy, **changes))  # type: ignore[arg-type]
    verdict = judge(chain, scene.entry(record), "orders")
    if verdict.kind != "commit":
        assert verdict.chain is chain
    return verdict


def test_revoked_keys_and_barred_identities_do_not_count(scene: Scene) -> None:
    own = scene.world.own("writer-7")
    record, path = scene.outside(own).honest(), scene.member("writer-1").honest()
    for der_ in (own.chain[0], scene.world.authority.certificate):
        assert by_policy(scene, record, revoked=(read_certificate(der_).key_hash,)).reason == "chain.revoked"
    assert by_policy(scene, record, revoked=(bytes(32),)).kind == "commit"
    assert by_policy(scene, record, barred=(own.identity,)).reason == "role"
    assert by_policy(scene, path, barred=("agent://acme/writer-1",)).reason == "role"
    assert by_policy(scene, path, barred=(own.identity,)).kind == "commit"


def test_the_order_of_what_a_group_info_publishes_is_free(scene: Scene) -> None:
    record = attacks_on_leaves.with_extensions(scene, lambda them: (them[1], them[0]))
    verdict = scene.judged(record)
    assert verdict.kind == "commit"
    assert verdict.chain is not None
    assert len(verdict.chain.external_pub) == 32


# --- records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [0, LEAVE, 4, -1, 2**31 - 1])
@pytest.mark.parametrize("founded", [False, True])
def test_records_of_kinds_that_are_not_built_are_passed_over_whatever_is_in_them(scene: Scene, kind: int, founded: bool) -> None:
    chain = scene.chain if founded else None
    honest = GroupRecord.decode(scene.member("writer-1").honest())
    assert honest is not None
    for record in (replace(honest, kind=kind), GroupRecord(kind, 0, b"", b""), replace(honest, kind=kind, epoch=-1)):
        verdict = judge(chain, scene.entry(record.encode()), "orders")
        assert (verdict.kind, verdict.chain) == ("passed", chain)


@pytest.mark.parametrize("epoch", [-(2**63), -1, 2**63 - 1])
def test_epochs_at_the_ends_of_a_long_are_stale_or_early(scene: Scene, epoch: int) -> None:
    honest = GroupRecord.decode(scene.member("writer-1").honest())
    assert honest is not None
    verdict = scene.judged(replace(honest, epoch=epoch).encode())
    assert verdict.kind == ("stale" if epoch < 0 else "early")


def test_a_commit_without_a_founding_and_a_founding_behind_one_are_passed_over(scene: Scene) -> None:
    founding = scene.entries[0]
    assert judge(None, scene.entry(scene.member("ops").honest()), "orders").kind == "passed"
    assert scene.judged(founding.record).kind == "passed"
    inside = GroupRecord.decode(founding.record)
    assert inside is not None
    assert scene.judged(GroupRecord(COMMIT, scene.chain.epoch, inside.message, b"").encode()).reason == "form"
    commit = GroupRecord.decode(scene.member("ops").honest())
    assert commit is not None
    assert judge(None, scene.entry(GroupRecord(FOUNDING, 0, commit.message, b"").encode()), "orders").reason == "founding_form"


def test_a_replaced_key_signs_nothing_any_more(scene: Scene) -> None:
    scribe, new = scene.member("writer-1"), scene.world.own("writer-1")
    moved = scene.judged(scribe.with_info(scribe.say((), scribe.path_with(new)), private=new.signature_private))
    assert (moved.kind, moved.sender) == ("commit", "agent://acme/writer-1")
    assert moved.chain is not None
    later = replace(scribe, chain=moved.chain)
    refused = judge(moved.chain, scene.entry(later.with_info(later.say((), scribe.path_with()))), "orders")
    assert (refused.kind, refused.reason) == ("invalid", "message_signature")


# --- what only secrets show -------------------------------------------------------------------------------------------


def record_with(scene: Scene, bend: Callable[[treekem.NewPath], treekem.NewPath], mend: Callable[[UpdatePath], UpdatePath]) -> bytes:
    """An honest record but for its path secrets: `bend` changes them before they are sealed, `mend` what they are sealed to."""
    seal = treekem.seal_path

    def sealed(path: treekem.NewPath, context: bytes, added: Set[int], random: Random) -> UpdatePath:
        return mend(seal(bend(path), context, added, random))

    with mock.patch.object(treekem, "seal_path", sealed):
        return scene.member("writer-1").honest()


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_path_secret_of_another_length_locks_out_and_nothing_else(scene: Scene, length: int) -> None:
    """Sealed as it should be: only its length is wrong."""

    def bend(path: treekem.NewPath) -> treekem.NewPath:
        return replace(path, secrets={number: (secret * 2)[:length] for number, secret in path.secrets.items()})

    locked(scene, record_with(scene, bend, lambda path: path), "path_secret")


@pytest.mark.parametrize("ciphertext", [b"", b"\x00", bytes(16), bytes(48), bytes(5000)], ids=len)
@pytest.mark.parametrize("suite", [1, 2])
def test_a_path_secret_that_is_no_ciphertext_locks_out(scene: Scene, nist: Scene, suite: int, ciphertext: bytes) -> None:
    def mend(path: UpdatePath) -> UpdatePath:
        nodes = (
            replace(node, encrypted_path_secret=tuple(replace(one, ciphertext=ciphertext) for one in node.encrypted_path_secret))
            for node in path.nodes
        )
        return replace(path, nodes=tuple(nodes))

    where = scene if suite == 1 else nist
    locked(where, record_with(where, lambda path: path, mend), "path_secret")


def locked(scene: Scene, record: bytes, reason: str) -> None:
    """The epoch ends for all; nobody but writer-1, who made it, could enter, and all say why."""
    verdict = scene.judged(record)
    assert verdict.kind == "commit"
    for name, member in scene.members.items():
        if name != "writer-1":
            step = follow(member, scene.entry(record), "log", {}, {})
            assert (step.next.state, step.next.mls, step.next.chain) == (LOCKED_OUT, None, verdict.chain)
            assert (step.lock_out, step.alarm) == (reason, "agent://acme/writer-1")


def test_a_member_that_reads_its_own_commit_without_the_staged_state_is_locked_out_and_never_back(scene: Scene) -> None:
    """The key is a copy's: nothing of the path is sealed to its own leaf."""
    record = scene.member("writer-1").honest()
    step = follow(scene.members["writer-1"], scene.entry(record), "log", {}, {})
    assert (step.next.state, step.lock_out, step.alarm) == (LOCKED_OUT, "path_secret", "agent://acme/writer-1")


# --- P-256 ------------------------------------------------------------------------------------------------------------


def test_points_that_are_no_uncompressed_ones_on_the_curve_are_refused(nist: Scene) -> None:
    leaf = nist.chain.public.tree.leaf(0)
    assert leaf is not None
    good = nist.chain.public.suite.derive_key_pair(b"\x07" * 32)[1]
    compressed = bytes((2 + (good[-1] & 1),)) + good[1:33]
    off = good[:-1] + bytes((good[-1] ^ 1,))
    hybrid = bytes((6 + (good[-1] & 1),)) + good[1:]
    for key in (compressed, off, hybrid, b"\x00", good + b"\x00", b"\x04" + b"\xff" * 64, b""):
        assert nist.judged(joined_with(nist.outside(), encryption_key=key)).kind == "invalid"
        scribe = nist.outside()
        assert nist.judged(scribe.with_info(scribe.say((ExternalInit(key),), scribe.path_with()))).reason == "usable_key"
        published = attacks_on_leaves.with_extensions(nist, lambda them, key=key: (Extension(EXTERNAL_PUB, tls.opaque(key)), them[1]))  # type: ignore[misc]
        assert nist.judged(published).kind == "invalid"


ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def malleated(signature: bytes) -> bytes:
    """The other ECDSA signature of the same content: s becomes n - s."""
    size = signature[3]
    r, s = signature[2 : 4 + size], signature[6 + size :]
    return der.tlv(0x30, r, der.integer(ORDER - int.from_bytes(s, "big")))


def test_nobody_but_its_maker_makes_another_commit_of_a_commit(nist: Scene) -> None:
    """ECDSA has two signatures of one content: with the other one it is another message, which the GroupInfo does not name."""
    record = nist.member("writer-1").honest()
    whole = GroupRecord.decode(record)
    assert whole is not None
    message = MLSMessage.decode(whole.message).body
    assert isinstance(message, PublicMessage)
    other = replace(message, auth=replace(message.auth, signature=malleated(message.auth.signature)))
    verdict = nist.judged(replace(whole, message=MLSMessage(other).encode()).encode())
    assert (verdict.kind, verdict.reason) == ("invalid", "group_info_names")


def test_all_say_the_same_where_the_group_info_has_the_other_signature(nist: Scene) -> None:
    record = nist.member("writer-1").honest()
    whole = GroupRecord.decode(record)
    assert whole is not None
    info = GroupInfo.decode(whole.group_info)
    changed = replace(whole, group_info=replace(info, signature=malleated(info.signature)).encode())
    verdict, honest = nist.judged(changed.encode()), nist.judged(record)
    assert verdict.kind == "commit"
    assert verdict.chain is not None
    assert honest.chain is not None
    assert verdict.chain.info != honest.chain.info
    assert replace(verdict.chain, info=b"") == replace(honest.chain, info=b"")


# --- never an exception -----------------------------------------------------------------------------------------------

FUZZ = Scene()
HONEST = {"founding": FUZZ.entries[0].record, "outside": FUZZ.outside().honest(), "member": FUZZ.member("ops").honest()}


@given(st.data())
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_certificate_bent_anywhere_and_signed_by_the_ca_is_judged_without_an_exception(data: st.DataObject) -> None:
    own = FUZZ.owns["writer-1"]
    good = plan(FUZZ, own, "agent://acme/writer-1")
    body = bytearray(good.body())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b"\x80", b"\x00", b"\xff", b"\x84\xff\xff\xff\xff", b"\x1f", b"\xa3\x80"]))
        )
    signature = der.sign(good.signer, bytes(body), der.ED25519)
    certificate = der.tlv(0x30, bytes(body), der.ED25519, der.bits(signature))
    scribe = FUZZ.member("writer-1")
    bent_own = replace(own, chain=(certificate,))
    record = scribe.with_info(scribe.say((), scribe.path_with(bent_own)))
    FUZZ.judged(record)
    assert judge(FUZZ.chain, FUZZ.entry(FUZZ.member("writer-1").honest()), "orders").kind == "commit"


@given(st.data(), st.sampled_from(sorted(HONEST)))
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_bytes_spliced_into_an_honest_record_never_raise(data: st.DataObject, what: str) -> None:
    chain: Chain | None = None if what == "founding" else FUZZ.chain
    record = HONEST[what]
    whole = GroupRecord.decode(record)
    assert whole is not None
    part = data.draw(st.sampled_from(["message", "group_info"] if what != "founding" else ["message"]))
    value = bytearray(getattr(whole, part))
    at = data.draw(st.integers(0, len(value)))
    value[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
    changed = (replace(whole, message=bytes(value)) if part == "message" else replace(whole, group_info=bytes(value))).encode()
    verdict = judge(chain, FUZZ.entry(changed), "orders")
    assert verdict.kind in ("invalid", "passed") or changed == record
    assert verdict.chain is chain or changed == record


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1), st.integers(-(2**62), 2**62))
@settings(max_examples=100, deadline=None)
def test_any_time_and_version_is_judged(time: int, version: int, broker_ms: int) -> None:
    data = envelopes.COMMIT_DATA.encode({"version": version, "time": time, "fences": None})
    record = attacks_on_commits.with_data(FUZZ, data)
    verdict = judge(FUZZ.chain, LogEntry(99, broker_ms, record), "orders")
    near = version == 1 and FUZZ.chain.time <= time and abs(time - broker_ms) <= 60_000
    assert (verdict.kind == "commit") <= near


# --- all of it in one log -----------------------------------------------------------------------------------------------


def test_a_log_full_of_attacks_is_read_past_and_the_next_honest_commit_counts() -> None:
    async def live() -> None:
        scene = Scene.__new__(Scene)
        scene.suite, scene.scheme, scene.world, scene.owns, scene.members = 1, "ed25519", World(), {}, {}
        names = ("ops", "writer-1", "writer-2", "reader-1")
        actors = [scene.world.actor(name) for name in names]
        await scene.world.settle(*actors)
        for actor in actors:
            scene.owns[actor.name], scene.members[actor.name] = actor.own, actor.loop.member
        scene.entries = scene.world.broker.entries("orders")
        chain = actors[0].loop.member.chain
        assert chain is not None
        scene.chain, scene.now = chain, scene.world.clock.now_ms()
        log = scene.world.broker.group_log()
        await log.open("orders", create=False)
        attacks = [*ATTACKS, *attacks_on_commits.ATTACKS, *attacks_on_leaves.ATTACKS]
        for _, attack in attacks:
            await log.append(attack(scene), None)
        late = scene.world.actor("reader-9")
        before = [a.events[:] for a in actors]
        for actor in actors:
            await actor.turn()
        assert all((a.state, a.epoch, a.events) == (MEMBER, chain.epoch, e) for a, e in zip(actors, before, strict=True))
        assert all(a.verdicts.count("invalid") == len(attacks) for a in actors)
        want = asyncio.ensure_future(actors[1].group.rotate())
        await asyncio.sleep(0)
        await scene.world.settle(*actors, late)
        await want
        assert same_epoch(*actors, late)
        assert late.verdicts.count("invalid") == len(attacks)
        assert actors[0].epoch == chain.epoch + 2

    asyncio.run(live())


def test_an_attack_certificate_is_what_a_real_identity_could_hold(scene: Scene) -> None:
    """The forging tools make what the product's own loader takes."""
    key = keys.generate("ed25519")
    own = fresh(scene)
    raw = replace(plan(scene, own), spki=None, key=key).build()
    assert identity.of((raw,), key).uri == "agent://acme/writer-9"
    assert CommitData.decode(CommitData(scene.now).encode()).time == scene.now
    assert path_in(scene.outside(own).staged()).leaf_node.signature_key == own.signature_public
