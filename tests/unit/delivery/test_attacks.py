"""More that a real member, or a holder of a real certificate, can put into the log: what never counts, and what does, for all alike.

Certificates here are built byte by byte and signed by the group's own CA, as a careless CA would.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker_crypto.delivery.log_records import COMMIT, FOUNDING, CommitData, GroupRecord
from broker_crypto.delivery.membership import LOCKED_OUT, follow
from broker_crypto.delivery.rules import Chain, Verdict, judge
from broker_crypto.identity import identity, keys
from broker_crypto.identity.certificate import read_certificate
from broker_crypto.mls import treekem
from broker_crypto.mls.framing import MLSMessage, PublicMessage
from broker_crypto.mls.group_info import GroupInfo
from broker_crypto.mls.leaf import EXTERNAL_PUB, Credential, Extension
from broker_crypto.mls.proposals import ExternalInit
from broker_crypto.mls.update_path import UpdatePath
from broker_crypto.records import LogEntry
from broker_crypto.wire import envelopes, tls
from tests.support import certificates as der
from tests.support.lies import commits, infos
from tests.support.lies.certified import fresh, joins, plan
from tests.support.lies.scene import Scene


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


@pytest.fixture(scope="module")
def nist() -> Scene:
    return Scene(suite=2, scheme="p256")


# --- certificates ---------------------------------------------------------------------------------------------------


def test_a_certificate_built_byte_by_byte_counts(scene: Scene) -> None:
    own = fresh(scene)
    verdict = scene.judged(joins(scene, own, plan(scene, own).build()))
    assert (verdict.kind, verdict.sender) == ("commit", "agent://acme/writer-9")


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
    record, path = scene.outside(own).write().record, scene.member("writer-1").write().record
    for der_ in (own.chain[0], scene.world.authority.certificate):
        assert by_policy(scene, record, revoked=(read_certificate(der_).key_hash,)).reason == "chain.revoked"
    assert by_policy(scene, record, revoked=(bytes(32),)).kind == "commit"
    assert by_policy(scene, record, barred=(own.identity,)).reason == "role"
    assert by_policy(scene, path, barred=("agent://acme/writer-1",)).reason == "role"
    assert by_policy(scene, path, barred=(own.identity,)).kind == "commit"


def test_the_order_of_what_a_group_info_publishes_is_free(scene: Scene) -> None:
    record = infos.published(scene, lambda them: (them[1], them[0]))
    verdict = scene.judged(record)
    assert verdict.kind == "commit"
    assert verdict.chain is not None
    assert len(verdict.chain.external_pub) == 32


# --- records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [0, 4, -1, 2**31 - 1])
@pytest.mark.parametrize("founded", [False, True])
def test_records_of_kinds_that_are_not_built_are_passed_over_whatever_is_in_them(scene: Scene, kind: int, founded: bool) -> None:
    chain = scene.chain if founded else None
    honest = GroupRecord.decode(scene.member("writer-1").write().record)
    assert honest is not None
    for record in (replace(honest, kind=kind), GroupRecord(kind, 0, b"", b""), replace(honest, kind=kind, epoch=-1)):
        verdict = judge(chain, scene.entry(record.encode()), "orders")
        assert (verdict.kind, verdict.chain) == ("passed", chain)


@pytest.mark.parametrize("epoch", [-(2**63), -1, 2**63 - 1])
def test_epochs_at_the_ends_of_a_long_are_stale_or_early(scene: Scene, epoch: int) -> None:
    honest = GroupRecord.decode(scene.member("writer-1").write().record)
    assert honest is not None
    verdict = scene.judged(replace(honest, epoch=epoch).encode())
    assert verdict.kind == ("stale" if epoch < 0 else "early")


def test_a_commit_without_a_founding_and_a_founding_behind_one_are_passed_over(scene: Scene) -> None:
    founding = scene.entries[0]
    assert judge(None, scene.entry(scene.member("ops").write().record), "orders").kind == "passed"
    assert scene.judged(founding.record).kind == "passed"
    inside = GroupRecord.decode(founding.record)
    assert inside is not None
    assert scene.judged(GroupRecord(COMMIT, scene.chain.epoch, inside.message, b"").encode()).reason == "form"
    commit = GroupRecord.decode(scene.member("ops").write().record)
    assert commit is not None
    assert judge(None, scene.entry(GroupRecord(FOUNDING, 0, commit.message, b"").encode()), "orders").reason == "founding_form"


def test_a_replaced_key_signs_nothing_any_more(scene: Scene) -> None:
    scribe, new = scene.member("writer-1"), scene.world.own("writer-1").leaf(1)
    made = scribe.write(own=new)
    moved = scene.judged(made.record)
    assert (moved.kind, moved.sender) == ("commit", "agent://acme/writer-1")
    assert moved.chain is not None
    later = replace(scribe, public=moved.chain.public, group=made.group)
    refused = judge(moved.chain, scene.entry(later.write().record), "orders")
    assert (refused.kind, refused.reason) == ("invalid", "message_signature")
    assert judge(moved.chain, scene.entry(replace(later, own=new).write().record), "orders").kind == "commit"


# --- what only secrets show -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_path_secret_of_another_length_locks_out_and_nothing_else(scene: Scene, length: int) -> None:
    """Sealed as it should be: only its length is wrong."""

    def bend(path: treekem.NewPath) -> treekem.NewPath:
        return replace(path, secrets={number: (secret * 2)[:length] for number, secret in path.secrets.items()})

    locked(scene, scene.member("writer-1").write(secrets=bend).record, "path_secret")


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
    locked(where, where.member("writer-1").write(path=mend).record, "path_secret")


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
    record = scene.member("writer-1").write().record
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
        assert nist.judged(nist.outside().write(leaf={"encryption_key": key}).record).kind == "invalid"
        assert nist.judged(nist.outside().write(external_init=ExternalInit(key)).record).reason == "usable_key"
        published = infos.published(nist, lambda them, key=key: (Extension(EXTERNAL_PUB, tls.opaque(key)), them[1]))  # type: ignore[misc]
        assert nist.judged(published).kind == "invalid"


ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def malleated(signature: bytes) -> bytes:
    """The other ECDSA signature of the same content: s becomes n - s."""
    size = signature[3]
    r, s = signature[2 : 4 + size], signature[6 + size :]
    return der.tlv(0x30, r, der.integer(ORDER - int.from_bytes(s, "big")))


def test_nobody_but_its_maker_makes_another_commit_of_a_commit(nist: Scene) -> None:
    """ECDSA has two signatures of one content: with the other one it is another message, which the GroupInfo does not name."""
    record = nist.member("writer-1").write().record
    whole = GroupRecord.decode(record)
    assert whole is not None
    message = MLSMessage.decode(whole.message).body
    assert isinstance(message, PublicMessage)
    other = replace(message, auth=replace(message.auth, signature=malleated(message.auth.signature)))
    verdict = nist.judged(replace(whole, message=MLSMessage(other).encode()).encode())
    assert (verdict.kind, verdict.reason) == ("invalid", "group_info_names")


def test_all_say_the_same_where_the_group_info_has_the_other_signature(nist: Scene) -> None:
    record = nist.member("writer-1").write().record
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
HONEST = {"founding": FUZZ.entries[0].record, "outside": FUZZ.outside().write().record, "member": FUZZ.member("ops").write().record}


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
    FUZZ.judged(FUZZ.member("writer-1").write(leaf={"credential": Credential.x509((certificate,))}).record)
    assert judge(FUZZ.chain, FUZZ.entry(FUZZ.member("writer-1").write().record), "orders").kind == "commit"


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
    record = commits.by_ops(FUZZ, data=data)
    verdict = judge(FUZZ.chain, LogEntry(99, broker_ms, record), "orders")
    near = version == 1 and FUZZ.chain.time <= time and abs(time - broker_ms) <= 60_000
    assert (verdict.kind == "commit") <= near


def test_an_attack_certificate_is_what_a_real_identity_could_hold(scene: Scene) -> None:
    """The forging tools make what the product's own loader takes."""
    key = keys.generate("ed25519")
    own = fresh(scene)
    raw = replace(plan(scene, own), spki=None, key=key).build()
    assert identity.of((raw,), key).uri == "agent://acme/writer-9"
    assert CommitData.decode(CommitData(scene.now).encode()).time == scene.now
