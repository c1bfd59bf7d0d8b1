"""Identities, their keys, the small CA, fingerprints."""

from __future__ import annotations

import copy
import os
import pickle
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from broker_crypto.crypto.suites import suite
from broker_crypto.errors import PeerError, UsageError
from broker_crypto.identity import ca, check_chain, generate, identity, keys, load, words
from broker_crypto.identity.certificate import read_certificate
from broker_crypto.records import Anchor
from broker_crypto.wire import pem
from tests.support import certificates as make
from tests.support.certificates import IDENTITY, NOW_MS, PREFIX

DAY = 86_400_000


@pytest.fixture
def root() -> ca.Authority:
    return ca.found("acme CA", make.key("root"), now_ms=NOW_MS)


def anchors(root: ca.Authority) -> list[Anchor]:
    return [Anchor(root.certificate, (PREFIX,))]


def usage_error(work: Callable[[], object]) -> UsageError:
    with pytest.raises(UsageError) as caught:
        work()
    return caught.value


@pytest.mark.parametrize("of_root", ["ed25519", "p256", "p384"])
@pytest.mark.parametrize("of_leaf", keys.SCHEMES)
def test_what_the_ca_issues_counts_in_a_group_until_it_ends(of_root: str, of_leaf: str) -> None:
    root = ca.found("acme CA", keys.generate(of_root), now_ms=NOW_MS)
    held, _ = generate(root, IDENTITY, now_ms=NOW_MS, scheme=of_leaf, days=30)
    for moment in (NOW_MS - 60_000, NOW_MS, NOW_MS + 30 * DAY):
        assert check_chain(held.chain, anchors(root), moment) == IDENTITY
    with pytest.raises(PeerError):
        check_chain(held.chain, anchors(root), NOW_MS + 31 * DAY)
    assert ca.days_left(held.chain[0], NOW_MS) == 30


@pytest.mark.parametrize(("scheme", "suites"), [("ed25519", (1, 3)), ("p256", (2,))])
def test_the_raw_keys_of_an_identity_sign_in_the_suites_that_it_names(root: ca.Authority, scheme: str, suites: tuple[int, ...]) -> None:
    held, _ = generate(root, IDENTITY, now_ms=NOW_MS, scheme=scheme)
    assert held.suites == suites
    for number in suites:
        signature = suite(number).sign_with_label(held.signature_private, "test", b"content")
        assert suite(number).verify_with_label(held.signature_public, "test", b"content", signature)
        assert suite(number).signature_public_of(held.signature_private) == held.signature_public


def test_a_leaf_does_not_outlive_its_root() -> None:
    root = ca.found("acme CA", make.key("root"), now_ms=NOW_MS, days=10)
    held, _ = generate(root, IDENTITY, now_ms=NOW_MS, days=90)
    assert held.not_after == read_certificate(root.certificate).not_after


def test_renewing_keeps_identity_and_key_and_nothing_else(root: ca.Authority) -> None:
    held, _ = generate(root, IDENTITY, now_ms=NOW_MS)
    before, after = read_certificate(held.chain[0]), read_certificate(ca.renew(root, held.chain[0], now_ms=NOW_MS + 60 * DAY))
    assert (after.spki, after.alt_names) == (before.spki, before.alt_names)
    assert after.not_after > before.not_after
    assert after.serial != before.serial


def test_the_ca_does_not_issue_what_would_not_count(root: ca.Authority) -> None:
    public = make.key("leaf").public_key()
    assert "canonical" in usage_error(lambda: ca.issue(root, "agent://ACME/x", public, now_ms=NOW_MS)).what
    assert usage_error(lambda: ca.issue(root, IDENTITY, make.key("leaf", "p384").public_key(), now_ms=NOW_MS)).fields["rule"] == "leaf.key"
    assert "not valid now" in usage_error(lambda: ca.issue(root, IDENTITY, public, now_ms=NOW_MS + 4000 * DAY)).what
    usage_error(lambda: ca.found("", make.key("root"), now_ms=NOW_MS))
    usage_error(lambda: generate(root, IDENTITY, now_ms=NOW_MS, scheme="p384"))


@pytest.mark.parametrize("scheme", keys.SCHEMES)
def test_a_request_carries_identity_and_key_to_the_ca(root: ca.Authority, scheme: str) -> None:
    key = keys.generate(scheme)
    asked, public = ca.read_request(ca.request(IDENTITY, key))
    assert asked == IDENTITY
    held = identity.of([ca.issue(root, asked, public, now_ms=NOW_MS)], key)
    assert check_chain(held.chain, anchors(root), NOW_MS) == IDENTITY


def request(names: list[x509.GeneralName], signer: object = None) -> bytes:
    key = make.key("leaf")
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer or key, None if signer is None else hashes.SHA256()).public_bytes(Encoding.PEM)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "names",
    [
        [],
        [x509.DNSName("acme")],
        [x509.UniformResourceIdentifier(IDENTITY), x509.DNSName("acme")],
        [x509.UniformResourceIdentifier("agent://acme/")],
    ],
)
def test_a_request_that_names_something_else_is_refused(names: list[x509.GeneralName]) -> None:
    usage_error(lambda: ca.read_request(request(names)))


def test_a_request_that_was_changed_or_has_another_kind_of_key_is_refused() -> None:
    data = ca.request(IDENTITY, make.key("leaf"))
    der = bytearray(x509.load_pem_x509_csr(data).public_bytes(Encoding.DER))
    der[-1] ^= 1
    changed = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    usage_error(lambda: ca.read_request(changed))
    usage_error(lambda: ca.read_request(request([x509.UniformResourceIdentifier(IDENTITY)], rsa.generate_private_key(65537, 2048))))
    usage_error(lambda: ca.read_request(b"nothing"))


@pytest.mark.parametrize("scheme", ["ed25519", "p256", "p384"])
def test_a_key_reads_back_from_its_file_which_others_cannot_read(tmp_path: Path, scheme: str) -> None:
    key, path = keys.generate(scheme), tmp_path / "folder" / "x.key"
    keys.write(path, key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.raw_private(keys.read(path)) == keys.raw_private(key)
    assert keys.scheme_of(key) == scheme


def test_a_key_file_is_not_written_over_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "x.key"
    keys.write(path, make.key("one"))
    usage_error(lambda: keys.write(path, make.key("two")))
    assert keys.raw_private(keys.read(path)) == keys.raw_private(make.key("one"))
    keys.write(path, make.key("two"), replace=True)
    assert keys.raw_private(keys.read(path)) == keys.raw_private(make.key("two"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.key"]


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o620, 0o660, 0o777])
def test_a_key_file_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "x.key"
    keys.write(path, make.key("one"))
    path.chmod(mode)
    assert "chmod 600" in usage_error(lambda: keys.read(path)).what
    path.chmod(0o440)
    keys.read(path)


def test_a_file_that_is_no_key_of_ours_is_refused_and_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "x.key"
    others = [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP521R1())]
    files = [b"secret bytes", *(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for key in others)]
    files.append(make.key("one").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    for data in files:
        keys.write_private(path, data, replace=True)
        error = usage_error(lambda: keys.read(path))
        assert "secret" not in str(error)
        assert data.split(b"\n")[-2 if b"\n" in data else 0].decode() not in str(error)
    usage_error(lambda: keys.read(tmp_path / "none.key"))


def write(folder: Path, chain: list[bytes], key: ca.PrivateKey) -> tuple[Path, Path]:
    (folder / "x.pem").write_bytes(pem.write_certificates(tuple(chain)))
    keys.write(folder / "x.key", key)
    return folder / "x.pem", folder / "x.key"


@pytest.mark.parametrize("depth", range(4))
def test_an_identity_is_loaded_without_the_anchor_that_stands_in_its_file(tmp_path: Path, depth: int) -> None:
    plans = make.plans(depth)
    held = load(*write(tmp_path, [*plans.chain(), plans.root.build()], plans.leaf.key))
    assert held.uri == IDENTITY
    assert list(held.chain) == plans.chain()
    assert check_chain(held.chain, [plans.anchor()], NOW_MS) == IDENTITY


def test_an_intermediate_that_is_the_anchor_is_left_out_with_all_above_it(tmp_path: Path) -> None:
    plans = make.plans(2)
    chain = plans.chain()
    known = [Anchor(chain[1], (PREFIX,))]
    held = load(*write(tmp_path, [*chain, plans.root.build()], plans.leaf.key), known)
    assert list(held.chain) == chain[:1]
    assert check_chain(held.chain, known, NOW_MS) == IDENTITY


def test_a_key_that_is_not_the_certificates_is_refused(tmp_path: Path) -> None:
    files = write(tmp_path, make.plans(0).chain(), make.key("another"))
    assert "not that of the certificate" in usage_error(lambda: load(*files)).what


def test_a_certificate_file_that_cannot_be_read_says_which(tmp_path: Path) -> None:
    files = write(tmp_path, make.plans(0).chain(), make.key("leaf"))
    files[0].write_text("nothing")
    assert usage_error(lambda: load(*files)).fields["path"] == str(files[0])
    files[0].unlink()
    assert usage_error(lambda: load(*files)).fields["path"] == str(files[0])
    files[0].write_bytes(pem.write_certificates((b"no certificate",)))
    with pytest.raises(PeerError):
        load(*files)


def test_an_identity_shows_no_key_and_is_not_pickled_or_copied(root: ca.Authority) -> None:
    held, _ = generate(root, IDENTITY, now_ms=NOW_MS)
    for shown in (repr(held), str(held), repr(root)):
        assert held.signature_private.hex() not in shown
        assert repr(held.signature_private)[2:-1] not in shown
    for work in (pickle.dumps, copy.copy, copy.deepcopy):
        usage_error(lambda work=work: work(held))


def test_a_file_that_cannot_be_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        keys.write(tmp_path / "x.key", make.key("one"))
    assert list(tmp_path.iterdir()) == []


def test_the_words_are_256_and_cannot_be_mistaken() -> None:
    assert len(words.WORDS) == len({word[:4] for word in words.WORDS}) == 256
    assert list(words.WORDS) == sorted(words.WORDS)
    assert all(word.isascii() and word.islower() and 3 <= len(word) <= 8 for word in words.WORDS)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 255))
def test_a_fingerprint_is_recognised_in_every_way_it_is_printed_and_no_other_is(digest: bytes, bit: int) -> None:
    other = bytearray(digest)
    other[bit // 8] ^= 1 << bit % 8
    forms = [words.hex_groups(digest), digest.hex().upper(), digest.hex(":"), f" {digest.hex()} "]
    for form in forms:
        assert words.matches(form, digest)
        assert not words.matches(form, bytes(other))
    assert words.matches(words.spoken(digest).upper(), digest)
    assert words.matches(words.spoken(digest), bytes(other)) is (bit >= 8 * words.SPOKEN)
    assert not words.matches(digest.hex()[:-2], digest)


def test_what_is_neither_hex_nor_words_is_no_fingerprint() -> None:
    for text in ("", "acorn", "xyz", "acorn " * 11 + "nobody"):
        if text:
            usage_error(lambda text=text: words.matches(text, bytes(32)))
    assert not words.matches("", bytes(32))
