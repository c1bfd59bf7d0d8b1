"""A chain counts if every rule of the profile holds; each rule is shown by a chain that breaks it and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from broker_crypto.errors import PeerError
from broker_crypto.identity import profile
from broker_crypto.identity.certificate import read_certificate
from broker_crypto.limits import CERTIFICATE_MAX, CHAIN_MAX
from broker_crypto.records import Anchor
from tests.support import certificates as make
from tests.support.certificates import (
    END,
    IDENTITY,
    NOW_MS,
    PREFIX,
    START,
    Plans,
    alt_name,
    basic_constraints,
    key_usage,
    name,
    plans,
    tlv,
    uri,
)

Bend = Callable[[Plans], Plans]
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def rule_of(work: Callable[[], object]) -> str:
    with pytest.raises(PeerError) as caught:
        work()
    return str(caught.value.rule)


def verdict(chain: Plans, time_ms: int | None = NOW_MS, revoked: frozenset[bytes] = frozenset()) -> str:
    return profile.check_chain(chain.chain(), [chain.anchor()], time_ms, revoked)


def leaf(**changes: object) -> Bend:
    return lambda chain: replace(chain, leaf=chain.leaf.but(**changes))


def middle(**changes: object) -> Bend:
    return lambda chain: replace(chain, middle=(chain.middle[0].but(**changes), *chain.middle[1:]))


def root(**changes: object) -> Bend:
    return lambda chain: replace(chain, root=chain.root.but(**changes))


LEAF, CA = make.LEAF_EXTENSIONS, make.CA_EXTENSIONS
BASIC, USAGE, NAMES = LEAF
OTHER = make.key("somebody else")


@pytest.mark.parametrize("depth", range(CHAIN_MAX))
@pytest.mark.parametrize("leaf_key", ["ed25519", "p256"])
@pytest.mark.parametrize("ca_key", ["ed25519", "p256", "p384"])
def test_a_good_chain_counts_for_its_identity(depth: int, leaf_key: str, ca_key: str) -> None:
    assert verdict(plans(depth, leaf=leaf_key, ca=ca_key)) == IDENTITY


GOOD: dict[str, Bend] = {
    "the leaf says nothing of basicConstraints": leaf(extensions=(USAGE, NAMES)),
    "keyUsage and subjectAltName are critical or not": leaf(
        extensions=(BASIC, key_usage(0, critical=False), alt_name(uri(IDENTITY), critical=True))
    ),
    "an extension that is unknown and not critical": leaf(extensions=(*LEAF, make.extension(make.EXTENDED_KEY_USAGE, b"anything"))),
    "other usages beside digitalSignature": leaf(extensions=(BASIC, key_usage(0, 1, 2, 4, 8), NAMES)),
    "the leaf has no subject": leaf(subject=name("")),
    "names of PrintableString": leaf(subject=name("billing", 0x13)),
    "a subjectAltName of a CA is not looked at": middle(extensions=(*CA, alt_name((0x82, b"ca.acme"), uri("x:y")))),
    "pathLen 0 above the leaf": middle(extensions=(basic_constraints(path_len=0), key_usage(5))),
    "pathLen 1 of an anchor above one CA": root(extensions=(basic_constraints(path_len=1), key_usage(5))),
    "the largest serial number": leaf(serial=make.integer(2**159 - 1)),
    "it ends in 2050": leaf(validity=(make.utc(START), make.generalized(datetime(2050, 1, 1, tzinfo=UTC)))),
    "the anchor's own signature is nobody's": root(signature=bytes(64)),
}


@pytest.mark.parametrize("bend", GOOD.values(), ids=GOOD.keys())
def test_a_chain_counts_where(bend: Bend) -> None:
    assert verdict(bend(plans(1))) == IDENTITY


SPKI_RSA_LIKE = tlv(0x30, tlv(0x30, make.oid(bytes.fromhex("2a864886f70d010101")), b"\x05\x00"), make.bits(bytes(64)))
SPKI_P256 = make.spki(make.key("compressed", "p256"))
NOT_ON_CURVE = SPKI_P256[:-1] + bytes((SPKI_P256[-1] ^ 1,))
COMPRESSED = tlv(0x30, SPKI_P256[2:23], make.bits(b"\x02" + SPKI_P256[27:59]))
SMALL_ORDER = make.spki(make.key("leaf"))[:-32] + b"\1" + bytes(31)

FORM: dict[str, tuple[str, Bend]] = {
    "certificate.size": ("certificate.size", leaf(extensions=(*LEAF, make.extension(b"\x55\x1d\x0e", bytes(CERTIFICATE_MAX))))),
    "v1": ("certificate.version", leaf(version=b"")),
    "v2": ("certificate.version", leaf(version=b"\xa0\x03\x02\x01\x01")),
    "v4": ("certificate.version", leaf(version=b"\xa0\x03\x02\x01\x03")),
    "serial 0": ("certificate.serial", leaf(serial=make.integer(0))),
    "serial negative": ("certificate.serial", leaf(serial=make.integer(-1))),
    "serial too long": ("certificate.serial", leaf(serial=make.integer(2**159))),
    "other algorithm outside": ("certificate.algorithm", leaf(outer=make.ECDSA_SHA256)),
    "other algorithm inside": ("certificate.algorithm", leaf(algorithm=make.ECDSA_SHA256, outer=make.ED25519)),
    "parameters NULL": ("certificate.algorithm", leaf(algorithm=bytes.fromhex("300706032b65700500"))),
    "SHA-512": ("certificate.algorithm", leaf(algorithm=bytes.fromhex("300a06082a8648ce3d040304"))),
    "no issuer": ("certificate.name", leaf(issuer=name(""))),
    "an empty part of a name": ("certificate.name", leaf(subject=tlv(0x30, tlv(0x31)))),
    "parts of a name out of order": (
        "certificate.name",
        leaf(subject=tlv(0x30, tlv(0x31, name("b")[4:], name("a")[4:]))),
    ),
    "TeletexString": ("der.string", leaf(subject=name("billing", 0x14))),
    "ends before it begins": ("certificate.validity", leaf(validity=(make.utc(END), make.utc(START)))),
    "three times": ("der.trailing", leaf(validity=(make.utc(START), make.utc(END), make.utc(END)))),
    "GeneralizedTime before 2050": ("der.time", leaf(validity=(make.generalized(START), make.utc(END)))),
    "RSA": ("certificate.key", leaf(spki=SPKI_RSA_LIKE)),
    "point not on the curve": ("certificate.key", leaf(spki=NOT_ON_CURVE)),
    "compressed point": ("certificate.key", leaf(spki=COMPRESSED)),
    "small order": ("certificate.key", leaf(spki=SMALL_ORDER)),
    "issuerUniqueID": ("certificate.extensions", leaf(behind_key=tlv(0x81, b"\0\1"))),
    "no extensions": ("certificate.extensions", leaf(extensions=None)),
    "an empty list of extensions": ("certificate.extensions", leaf(extensions=())),
    "an extension twice": ("certificate.extensions", leaf(extensions=(*LEAF, NAMES))),
    "unknown and critical": ("certificate.critical", leaf(extensions=(*LEAF, make.extension(make.EXTENDED_KEY_USAGE, b"", critical=True)))),
    "critical nameConstraints of a CA": (
        "certificate.critical",
        middle(extensions=(*CA, make.extension(make.NAME_CONSTRAINTS, tlv(0x30), critical=True))),
    ),
    "critical FALSE written out": (
        "der.boolean",
        leaf(extensions=(tlv(0x30, make.oid(make.KEY_USAGE), tlv(1, b"\0"), tlv(4, b"\3\2\7\x80")), NAMES)),
    ),
    "cA FALSE written out": (
        "der.boolean",
        leaf(extensions=(make.extension(make.BASIC_CONSTRAINTS, tlv(0x30, tlv(1, b"\0"))), USAGE, NAMES)),
    ),
    "pathLen without a CA": ("certificate.basic_constraints", leaf(extensions=(basic_constraints(ca=False, path_len=0), USAGE, NAMES))),
    "pathLen negative": ("certificate.basic_constraints", middle(extensions=(basic_constraints(path_len=-1), key_usage(5)))),
    "no usage": ("certificate.key_usage", leaf(extensions=(BASIC, make.extension(make.KEY_USAGE, make.bits(b"")), NAMES))),
    "a usage that does not exist": ("certificate.key_usage", leaf(extensions=(BASIC, key_usage(0, 9), NAMES))),
    "usage with trailing zeros": ("der.bit_string", leaf(extensions=(BASIC, make.extension(make.KEY_USAGE, make.bits(b"\x80")), NAMES))),
    "an empty subjectAltName": ("certificate.alt_name", leaf(extensions=(BASIC, USAGE, alt_name()))),
    "a name of no kind": ("certificate.alt_name", leaf(extensions=(BASIC, USAGE, alt_name((0x89, b"x"))))),
    "signature with unused bits": ("der.bit_string", lambda chain: replace(chain, leaf=_Bent(chain.leaf))),
}


class _Bent:
    """A leaf whose signature's BIT STRING says that bits of it are unused."""

    def __init__(self, plan: make.Plan) -> None:
        self._plan = plan

    def build(self) -> bytes:
        return self._plan.build()[:-65] + b"\1" + self._plan.build()[-64:]


@pytest.mark.parametrize(("rule", "bend"), FORM.values(), ids=FORM.keys())
def test_a_certificate_is_refused_for_its_form(rule: str, bend: Bend) -> None:
    assert rule_of(lambda: verdict(bend(plans(1)))) == rule


RULES: dict[str, tuple[str, Bend]] = {
    "self-issued leaf": ("chain.anchor", leaf(subject=name("middle 0"))),
    "leaf of P-384": ("leaf.key", leaf(key=make.key("leaf 384", "p384"))),
    "leaf is a CA": ("leaf.not_ca", leaf(extensions=(basic_constraints(), USAGE, NAMES))),
    "leaf may sign certificates": ("leaf.not_ca", leaf(extensions=(BASIC, key_usage(0, 5), NAMES))),
    "leaf may sign CRLs": ("leaf.not_ca", leaf(extensions=(BASIC, key_usage(0, 6), NAMES))),
    "leaf without keyUsage": ("leaf.key_usage", leaf(extensions=(BASIC, NAMES))),
    "leaf without digitalSignature": ("leaf.key_usage", leaf(extensions=(BASIC, key_usage(2), NAMES))),
    "no subjectAltName": ("leaf.alt_name", leaf(extensions=(BASIC, USAGE))),
    "two URIs": ("leaf.alt_name", leaf(extensions=(BASIC, USAGE, alt_name(uri(IDENTITY), uri(IDENTITY))))),
    "a URI and a DNS name": ("leaf.alt_name", leaf(extensions=(BASIC, USAGE, alt_name(uri(IDENTITY), (0x82, b"billing.acme"))))),
    "a DNS name": ("leaf.alt_name", leaf(extensions=(BASIC, USAGE, alt_name((0x82, IDENTITY.encode()))))),
    "identity not canonical": ("leaf.identity", leaf(extensions=(BASIC, USAGE, alt_name(uri("agent://ACME/billing"))))),
    "identity with a NUL": ("leaf.identity", leaf(extensions=(BASIC, USAGE, alt_name(uri(IDENTITY + "\0x"))))),
    "identity not ASCII": ("leaf.identity", leaf(extensions=(BASIC, USAGE, alt_name(uri("agent://acme/b\u00e4r"))))),
    "CA without basicConstraints": ("ca.basic_constraints", middle(extensions=(key_usage(5),))),
    "CA whose basicConstraints are not critical": (
        "ca.basic_constraints",
        middle(extensions=(basic_constraints(critical=False), key_usage(5))),
    ),
    "CA that is none": ("ca.basic_constraints", middle(extensions=(basic_constraints(ca=False), key_usage(5)))),
    "CA without keyUsage": ("ca.key_usage", middle(extensions=(basic_constraints(),))),
    "CA without keyCertSign": ("ca.key_usage", middle(extensions=(basic_constraints(), key_usage(0, 6)))),
    "issuer is another name": ("chain.issuer", leaf(issuer=name("middle"))),
    "issuer in another encoding": ("chain.issuer", leaf(issuer=name("middle 0", 0x13))),
    "signed by another key": ("chain.signature", leaf(signer=OTHER)),
    "signed with another algorithm than the key's": ("chain.signature", leaf(algorithm=make.ECDSA_SHA256, signature=bytes(64))),
    "CA signed by another key": ("anchor.signature", middle(signer=OTHER)),
    "CA of another issuer": ("anchor.issuer", middle(issuer=name("another root"))),
    "anchor that is no CA": ("ca.basic_constraints", root(extensions=(basic_constraints(ca=False), key_usage(5)))),
    "anchor without keyCertSign": ("ca.key_usage", root(extensions=(basic_constraints(), key_usage(6)))),
    "anchor with pathLen 0 above a CA": ("ca.path_len", root(extensions=(basic_constraints(path_len=0), key_usage(5)))),
    "anchor that ended": ("chain.validity", root(validity=(make.utc(START - timedelta(days=2)), make.utc(START)))),
    "anchor for others": ("anchor.identity", lambda chain: replace(chain, prefixes=("agent://acme/other/", "agent://ac/", "agent://acme"))),
}


@pytest.mark.parametrize(("rule", "bend"), RULES.values(), ids=RULES.keys())
def test_a_chain_is_refused_where(rule: str, bend: Bend) -> None:
    assert rule_of(lambda: verdict(bend(plans(1)))) == rule


def test_a_chain_has_one_to_four_certificates() -> None:
    assert rule_of(lambda: profile.read_chain([])) == "chain.length"
    assert rule_of(lambda: profile.read_chain(plans(CHAIN_MAX).chain())) == "chain.length"


def test_the_anchor_is_not_sent() -> None:
    good = plans(1)
    assert rule_of(lambda: profile.check_chain([*good.chain(), good.root.build()], [good.anchor()], NOW_MS)) == "chain.anchor"


def test_certificates_out_of_order_are_refused() -> None:
    good = plans(2)
    first, second, third = good.chain()
    assert rule_of(lambda: profile.check_chain([first, third, second], [good.anchor()], NOW_MS)) == "chain.issuer"
    assert rule_of(lambda: profile.check_chain([second, first, third], [good.anchor()], NOW_MS)) == "leaf.not_ca"


def test_path_len_counts_the_cas_below() -> None:
    chain = plans(3)
    limited = chain.middle[0].but(extensions=(basic_constraints(path_len=1), key_usage(5)))
    assert rule_of(lambda: verdict(replace(chain, middle=(limited, *chain.middle[1:])))) == "ca.path_len"
    enough = chain.middle[0].but(extensions=(basic_constraints(path_len=2), key_usage(5)))
    assert verdict(replace(chain, middle=(enough, *chain.middle[1:]))) == IDENTITY


def test_validity_counts_from_its_first_to_its_last_second_and_can_be_left_aside() -> None:
    chain = plans(1)
    first, last = int(START.timestamp()) * 1000, int(END.timestamp()) * 1000 + 999
    assert verdict(chain, first) == verdict(chain, last) == IDENTITY
    assert profile.read_chain(chain.chain()).not_after == last
    for moment in (first - 1, last + 1):
        assert rule_of(lambda moment=moment: verdict(chain, moment)) == "chain.validity"
        assert verdict(chain, None) == IDENTITY


def test_a_ca_that_ended_ends_its_chain() -> None:
    chain = middle(validity=(make.utc(START), make.utc(START + timedelta(days=1))))(plans(1))
    assert rule_of(lambda: verdict(chain)) == "chain.validity"
    assert verdict(chain, None) == IDENTITY


@pytest.mark.parametrize("who", ["root", "middle 0", "leaf"])
def test_a_revoked_key_anywhere_refuses_the_chain(who: str) -> None:
    revoked = hashlib.sha256(make.spki(make.key(who))).digest()
    assert rule_of(lambda: verdict(plans(1), revoked=frozenset((revoked,)))) == "chain.revoked"
    assert rule_of(lambda: verdict(plans(1), None, frozenset((revoked,)))) == "chain.revoked"
    assert verdict(plans(1), revoked=frozenset((hashlib.sha256(make.spki(OTHER)).digest(),))) == IDENTITY


def test_one_anchor_that_holds_is_enough_whatever_the_others_are() -> None:
    chain = plans(1)
    good, expired = chain.anchor(), root(validity=(make.utc(START), make.utc(START)))(chain).anchor()
    others = [Anchor(b"no certificate", (PREFIX,)), Anchor(good.certificate, ("agent://other/",)), expired]
    assert profile.check_chain(chain.chain(), [*others, good], NOW_MS) == IDENTITY
    assert profile.check_chain(chain.chain(), [good, *others], NOW_MS) == IDENTITY
    assert rule_of(lambda: profile.check_chain(chain.chain(), [], NOW_MS)) == "anchor.issuer"


def test_two_anchors_do_not_add_up() -> None:
    """The prefix of one and the signature of another speak for nobody."""
    chain = plans(0)
    mine = Anchor(chain.root.build(), ("agent://other/",))
    theirs = Anchor(chain.root.but(key=OTHER, signer=OTHER).build(), (PREFIX,))
    assert rule_of(lambda: profile.check_chain(chain.chain(), [mine, theirs], NOW_MS)) in ("anchor.identity", "anchor.signature")


def test_an_identity_lies_under_a_prefix_by_whole_segments() -> None:
    chain = plans(0)
    for prefix, holds in ((PREFIX, True), ("agent://acme/billing/", False), ("agent://acm/", False)):
        anchors = [Anchor(chain.root.build(), (prefix,))]
        if holds:
            assert profile.check_chain(chain.chain(), anchors, NOW_MS) == IDENTITY
        else:
            assert rule_of(lambda anchors=anchors: profile.check_chain(chain.chain(), anchors, NOW_MS)) == "anchor.identity"


def test_a_ca_key_may_sign_with_either_hash() -> None:
    for ca, algorithm in (("p256", make.ECDSA_SHA384), ("p384", make.ECDSA_SHA256)):
        assert verdict(leaf(algorithm=algorithm)(plans(1, ca=ca))) == IDENTITY


def test_both_signatures_that_a_third_party_can_make_of_an_ecdsa_one_hold_and_other_encodings_do_not() -> None:
    chain = plans(0, ca="p256")
    body, algorithm = chain.leaf.body(), make.ECDSA_SHA256
    r, s = decode_dss_signature(make.sign(chain.leaf.signer, body, algorithm))
    assert verdict(leaf(signature=encode_dss_signature(r, s))(chain)) == IDENTITY
    assert verdict(leaf(signature=encode_dss_signature(r, P256_ORDER - s))(chain)) == IDENTITY
    padded = tlv(0x30, tlv(2, b"\0", make.integer(r)[2:]), make.integer(s))
    for bad in (encode_dss_signature(r, s + P256_ORDER), padded, encode_dss_signature(r, s) + b"\0", encode_dss_signature(0, s), b""):
        assert rule_of(lambda bad=bad: verdict(leaf(signature=bad)(chain))) == "anchor.signature"


def test_an_anchor_is_read_as_a_ca() -> None:
    chain = plans(0)
    assert profile.read_anchor(chain.root.build()).subject == name("root")
    assert rule_of(lambda: profile.read_anchor(chain.leaf.build())) == "ca.basic_constraints"


def test_the_raw_key_is_the_one_of_mls() -> None:
    for scheme, size in (("ed25519", 32), ("p256", 65)):
        held = profile.read_chain(plans(0, leaf=scheme).chain())
        assert (held.leaf.scheme, len(held.leaf.public_key)) == (scheme, size)
        assert held.leaf.spki == make.spki(make.key("leaf", scheme))


def test_a_certificate_longer_than_the_bound_is_not_parsed() -> None:
    assert rule_of(lambda: read_certificate(b"\x30" * (CERTIFICATE_MAX + 1))) == "certificate.size"
    assert rule_of(lambda: read_certificate(b"\x30" * CERTIFICATE_MAX)).startswith("der.")
