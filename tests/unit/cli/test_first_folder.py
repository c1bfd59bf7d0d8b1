"""`init` makes a folder that works at once, whole or not at all; the commands for certificates and trust work on it."""

from __future__ import annotations

import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker_crypto import policy
from broker_crypto.identity import Identity, check_chain, keys, load
from broker_crypto.identity.certificate import read_certificate
from broker_crypto.storage import FileKey
from broker_crypto.wire import pem
from tests.support import certificates as make
from tests.unit.cli.conftest import Run


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def held(folder: Path, name: str = "alice") -> Identity:
    found = policy.load(folder / "policy.yaml", {}, identity=f"agent://acme/{name}")
    assert found.agent.certificate is not None
    assert found.agent.private_key is not None
    return load(found.agent.certificate, found.agent.private_key, found.anchors)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(("scheme", "suite"), [("ed25519", 1), ("p256", 2)])
def test_init_makes_a_policy_with_which_two_agents_can_open(run: Run, tmp_path: Path, scheme: str, suite: int) -> None:
    ran = run("init", "new/folder", "--authority", "acme", "--scheme", scheme, "--json")
    assert ran.code == 0
    folder = tmp_path / "new/folder"
    assert ran.json["identities"] == ["agent://acme/alice", "agent://acme/bob"]
    for name in ("alice", "bob"):
        found = policy.load(ran.json["policy"], {}, identity=f"agent://acme/{name}")
        agent, store = found.require_agent()
        identity = held(folder, name)
        assert (identity.uri, identity.scheme) == (agent.identity, scheme)
        assert check_chain(identity.chain, found.anchors, now_ms()) == f"agent://acme/{name}"
        group = found.group("orders")
        assert group.role(identity.uri) == ("admin" if name == "alice" else "writer")
        assert group.suite == suite
        assert group.suite in identity.suites
        assert found.route("orders.created", type="nats").group == "orders"
        assert store.key is not None
        assert len(FileKey(store.key.path or "").key()) == 32
        assert name in str(store.path)
        assert found.unbuilt() == ()
    assert policy.load(ran.json["policy"], {}).agent.identity == "agent://acme/alice"
    assert policy.load(ran.json["policy"], {"BROKER_CRYPTO_IDENTITY": "agent://acme/bob"}).agent.identity == "agent://acme/bob"


def test_init_leaves_no_secret_open_to_others(made: Run, tmp_path: Path) -> None:
    secrets = set(tmp_path.rglob("*.key"))
    assert len(secrets) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ca", "keys")} == {0o700}
    assert set((tmp_path / ".gitignore").read_text().split()) == {"ca/", "keys/", "state/"}


def test_init_writes_nothing_over(made: Run, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    ran = made("init", "--authority", "other")
    assert ran.code == 2
    assert "policy.yaml" in ran.err
    assert snapshot(tmp_path) == before


def test_init_keeps_a_gitignore_that_is_there(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("mine\n")
    assert run("init").code == 0
    assert (tmp_path / ".gitignore").read_text() == "mine\n"


def test_init_that_fails_leaves_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr("broker_crypto.cli.init.make_key_file", full)
    assert run("init").code == 2
    assert snapshot(tmp_path) == {}
    assert run("init", "--authority", "UP/per").code == 2
    assert snapshot(tmp_path) == {}


def test_no_command_prints_a_secret(made: Run, tmp_path: Path) -> None:
    printed = ""
    for arguments in (
        ["identity", "show"],
        ["identity", "renew", "--ca", "ca"],
        ["identity", "new", "agent://acme/carol", "--ca", "ca"],
        ["identity", "show", "--identity", "agent://acme/carol"],
        ["trust", "show"],
        ["policy", "check"],
        ["policy", "explain", "orders.x"],
    ):
        for more in ([], ["--json"]):
            ran = made(*arguments, *more)
            printed += ran.out + ran.err
    for path in tmp_path.rglob("*.key"):
        data = path.read_bytes()
        assert data.hex() not in printed
        if b"PRIVATE KEY" in data:
            assert data.split(b"\n")[1].decode() not in printed
            assert keys.raw_private(keys.read(path)).hex() not in printed


def test_a_new_identity_counts_at_once_when_the_ca_is_at_hand(made: Run, tmp_path: Path) -> None:
    assert made("identity", "new", "agent://acme/team/carol", "--ca", "ca", "--days", "8").code == 0
    ran = made("identity", "show", "--identity", "agent://acme/team/carol", "--json")
    assert (ran.code, ran.json["counts"]) == (0, "yes")
    assert ran.json["days_left"] in (7, 8)
    again = made("identity", "new", "agent://acme/team/carol", "--ca", "ca")
    assert again.code == 2
    assert "identity renew" in again.err


def test_a_request_goes_to_the_ca_and_its_certificate_comes_back(made: Run, tmp_path: Path) -> None:
    ran = made("identity", "new", "agent://acme/dave", "--json")
    request = Path(ran.json["request"])
    assert (ran.code, request.name) == (0, "dave.csr")
    issued = made("trust", "issue", str(request), "--ca", "ca", "--json")
    assert issued.code == 0
    shown = made("identity", "show", "--identity", "agent://acme/dave", "--json")
    assert (shown.code, shown.json["counts"]) == (0, "yes")
    assert shown.json["fingerprint"].replace(" ", "") == issued.json["fingerprint"]
    again = made("identity", "new", "agent://acme/dave")
    assert again.code == 2


def test_an_identity_of_which_the_anchor_does_not_speak_is_shown_as_one_that_does_not_count(made: Run) -> None:
    assert made("identity", "new", "agent://other/eve", "--ca", "ca").code == 0
    ran = made("identity", "show", "--identity", "agent://other/eve", "--json")
    assert ran.code == 1
    assert "anchor.identity" in ran.json["counts"]


def test_an_expired_certificate_is_shown_as_one_that_does_not_count_and_is_renewed(made: Run, tmp_path: Path) -> None:
    root = read_certificate(pem.certificates((tmp_path / "ca/ca.pem").read_bytes())[0])
    key, signer = keys.read(tmp_path / "keys/acme/alice.key"), keys.read(tmp_path / "ca/ca.key")
    extensions = (make.key_usage(0), make.alt_name(make.uri("agent://acme/alice")))
    ended = [make.utc(datetime.now(UTC) - timedelta(days=days)) for days in (2, 1)]
    old = make.Plan(make.name("alice"), root.subject, key, signer, extensions, validity=ended).build()
    (tmp_path / "keys/acme/alice.pem").write_bytes(pem.write_certificates((old,)))
    shown = made("identity", "show", "--json")
    assert (shown.code, shown.json["days_left"]) == (1, -1)
    assert "chain.validity" in shown.json["counts"]
    before = held(tmp_path)
    renewed = made("identity", "renew", "--ca", "ca", "--days", "30", "--json")
    assert (renewed.code, renewed.json["new_key"]) == (0, False)
    after = held(tmp_path)
    assert after.signature_public == before.signature_public
    assert after.chain != before.chain
    assert made("identity", "show").code == 0


def test_renewing_can_bring_a_new_key(made: Run, tmp_path: Path) -> None:
    before = held(tmp_path)
    assert made("identity", "renew", "--ca", "ca", "--new-key").code == 0
    after = held(tmp_path)
    assert after.uri == before.uri
    assert after.signature_public != before.signature_public
    assert made("identity", "renew", "--new-key").code == 2
    ran = made("identity", "renew", "--json")
    assert Path(ran.json["request"]).exists()
    assert held(tmp_path).signature_public == after.signature_public


def test_another_ca_cannot_renew_and_nothing_is_changed(made: Run, tmp_path: Path) -> None:
    assert made("init", "other").code == 0
    before = snapshot(tmp_path)
    ran = made("identity", "renew", "--ca", "other/ca", "--new-key")
    assert ran.code == 1
    assert snapshot(tmp_path) == before


def test_a_ca_folder_that_is_none_or_mixed_up_is_refused(made: Run, tmp_path: Path) -> None:
    assert made("init", "other").code == 0
    (tmp_path / "other/ca/ca.pem").write_bytes((tmp_path / "ca/ca.pem").read_bytes())
    for folder, what in (("other/ca", "not the key of ca.pem"), ("keys", "cannot be read")):
        ran = made("identity", "renew", "--ca", folder)
        assert ran.code == 2
        assert what in ran.err


def test_the_policy_can_be_named_by_the_environment(made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_CRYPTO_POLICY", str(tmp_path / "policy.yaml"))
    monkeypatch.chdir("/")
    assert made("identity", "show").code == 0
    assert made("policy", "check").code == 0


def test_trust_shows_anchors_with_fingerprints_that_pin_takes(made: Run, tmp_path: Path) -> None:
    shown = made("trust", "show", "--json").json["certificates"]
    digest = read_certificate(pem.certificates((tmp_path / "ca/ca.pem").read_bytes())[0]).key_hash
    assert [(one["fingerprint"].replace(" ", ""), one["speaks_for"], one["counts"]) for one in shown] == [
        (digest.hex(), ["agent://acme/"], "yes")
    ]
    of_file = made("trust", "show", "keys/acme/bob.pem", "--json").json["certificates"]
    assert of_file[0]["fingerprint"].replace(" ", "") == held(tmp_path, "bob").key_hash.hex()
    assert made("trust", "show", "policy.yaml").code == 2


@pytest.mark.parametrize("form", ["fingerprint", "words"])
def test_a_pinned_ca_is_trusted_for_its_prefix_and_the_file_keeps_its_layout(made: Run, tmp_path: Path, form: str) -> None:
    assert made("init", "other", "--authority", "partner").code == 0
    told = made("trust", "show", "other/ca/ca.pem", "--json").json["certificates"][0][form]
    (tmp_path / "partner.pem").write_bytes((tmp_path / "other/ca/ca.pem").read_bytes())
    before = (tmp_path / "policy.yaml").read_text().splitlines()
    ran = made("trust", "pin", "partner.pem", "--identities", "agent://partner/", "--fingerprint", told, "--json")
    assert (ran.code, ran.json["pinned"]) == (0, True)
    after = (tmp_path / "policy.yaml").read_text().splitlines()
    added = [line for line in after if line not in before]
    assert added == ['    - {certificate: "trust/partner.pem", identities: ["agent://partner/"]}']
    assert [line for line in after if line not in added] == before
    found = policy.load(tmp_path / "policy.yaml", {})
    theirs = policy.load(tmp_path / "other/policy.yaml", {})
    bob = load(theirs.agent.certificate or "", theirs.agent.private_key or "", theirs.anchors)
    assert check_chain(bob.chain, found.anchors, now_ms()) == "agent://partner/alice"
    assert made("trust", "pin", "partner.pem", "--identities", "agent://partner/", "--fingerprint", told).code == 2


def test_a_ca_with_another_fingerprint_is_not_pinned_and_nothing_is_changed(made: Run, tmp_path: Path) -> None:
    assert made("init", "other", "--authority", "partner").code == 0
    before = snapshot(tmp_path)
    own = made("trust", "show", "--json").json["certificates"][0]["words"]
    ran = made("trust", "pin", "other/ca/ca.pem", "--identities", "agent://partner/", "--fingerprint", own, "--json")
    assert (ran.code, ran.json["pinned"]) == (1, False)
    for arguments in (
        ["other/ca/ca.pem", "--identities", "agent://partner", "--fingerprint", own],
        ["other/ca/ca.pem", "--identities", "agent://partner/", "--fingerprint", "what"],
        ["other/policy.yaml", "--identities", "agent://partner/", "--fingerprint", own],
    ):
        assert made("trust", "pin", *arguments).code == 2
    leaf = made("trust", "pin", "keys/acme/bob.pem", "--identities", "agent://partner/", "--fingerprint", own)
    assert leaf.code == 1
    assert snapshot(tmp_path) == before


def test_a_file_laid_out_otherwise_is_left_alone_and_the_line_to_add_is_told(made: Run, tmp_path: Path) -> None:
    assert made("init", "other", "--authority", "partner").code == 0
    text = (tmp_path / "policy.yaml").read_text()
    line = next(line for line in text.splitlines() if "- {certificate" in line)
    inline = text.replace(line, "").replace("  anchors:", f"  anchors: [{line.strip().removeprefix('- ')}]")
    (tmp_path / "policy.yaml").write_text(inline)
    told = made("trust", "show", "other/ca/ca.pem", "--json").json["certificates"][0]["words"]
    before = snapshot(tmp_path)
    (tmp_path / "partner.pem").write_bytes((tmp_path / "other/ca/ca.pem").read_bytes())
    ran = made("trust", "pin", "partner.pem", "--identities", "agent://partner/", "--fingerprint", told)
    assert ran.code == 2
    assert '- {certificate: "trust/partner.pem", identities: ["agent://partner/"]}' in ran.err
    (tmp_path / "partner.pem").unlink()
    assert snapshot(tmp_path) == before
