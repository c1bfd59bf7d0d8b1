"""`broker-crypto trust`: the CAs that a policy trusts, and the small CA that issues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from broker_crypto import policy
from broker_crypto.cli import output
from broker_crypto.cli.identity import CA_OPTION, DAYS_OPTION, now_ms, read_authority, write_public
from broker_crypto.cli.output import Output, machine_readable, policy_option
from broker_crypto.errors import PeerError, PolicyError, UsageError
from broker_crypto.identity import ca, read_anchor, words
from broker_crypto.identity.certificate import read_certificate
from broker_crypto.policy import edit
from broker_crypto.wire import pem
from broker_crypto.wire.names import is_prefix


@click.group("trust")
def command() -> None:
    """Whose certificates count: anchors and their fingerprints, issuing, pinning."""


@command.command("show")
@click.argument("certificate", type=click.Path(path_type=Path, dir_okay=False, exists=True), required=False)
@policy_option
@machine_readable
def show(out: Output, certificate: Path | None, policy_file: Path) -> None:
    """Show the anchors of the policy, or of CERTIFICATE, with fingerprints to compare by voice.

    A fingerprint is the SHA-256 of the SubjectPublicKeyInfo: what `group revoke` and `trust.revoked` take.

    \b
    Example:
      broker-crypto trust show trust/ca.pem
    """
    shown = _of_file(certificate) if certificate is not None else _of_policy(policy_file)
    for facts in shown:
        out.table(
            ("", ""), [(name.replace("_", " "), ", ".join(value) if isinstance(value, list) else value) for name, value in facts.items()]
        )
        out.say("")
    out.result({"certificates": shown})
    if any(facts.get("counts", "yes") != "yes" for facts in shown):
        output.no()


def _of_policy(policy_file: Path) -> list[dict[str, Any]]:
    found = policy.load(policy_file)
    return [{**_facts(anchor.certificate, anchor=True), "speaks_for": list(anchor.identities)} for anchor in found.anchors]


def _of_file(path: Path) -> list[dict[str, Any]]:
    return [_facts(der, anchor=False) for der in _certificates(path)]


def _facts(der: bytes, *, anchor: bool) -> dict[str, Any]:
    certificate = read_certificate(der)
    facts: dict[str, Any] = {
        "key": certificate.scheme,
        "valid_from": output.day(certificate.not_before),
        "valid_until": output.day(certificate.not_after),
        "fingerprint": words.hex_groups(certificate.key_hash),
        "words": words.spoken(certificate.key_hash),
    }
    return {**facts, "counts": _counts(der)} if anchor else facts


def _counts(der: bytes) -> str:
    try:
        certificate = read_anchor(der)
    except PeerError as error:
        return f"no: {error.what} ({error.fields['rule']})"
    if not certificate.not_before <= now_ms() <= certificate.not_after:
        return "no: not valid now"
    return "yes"


def _certificates(path: Path) -> tuple[bytes, ...]:
    try:
        return pem.certificates(path.read_bytes())
    except PeerError as error:
        raise UsageError(error.what, path=str(path)) from None


@command.command("issue")
@click.argument("request", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@CA_OPTION
@DAYS_OPTION
@click.option(
    "--out", "target", type=click.Path(path_type=Path, dir_okay=False), help="Where to write it; default beside REQUEST, as .pem."
)
@machine_readable
def issue(out: Output, request: Path, ca_folder: Path | None, days: int, target: Path | None) -> None:
    """Issue a certificate for REQUEST (PKCS#10), as `identity new` writes it, by the CA in --ca (default: ca).

    Whoever runs this vouches that the request is from the identity that it names: compare the fingerprint.

    \b
    Example:
      broker-crypto trust issue carol.csr --ca ca --out carol.pem
    """
    identity, key = ca.read_request(request.read_bytes())
    issued = ca.issue(read_authority(ca_folder or Path("ca")), identity, key, now_ms=now_ms(), days=days)
    written = target or request.with_suffix(".pem")
    write_public(written, pem.write_certificates((issued,)))
    digest = read_certificate(issued).key_hash
    out.say(f"{identity} -> {written}", f"fingerprint {words.hex_groups(digest)}", f"words       {words.spoken(digest)}")
    out.result({"identity": identity, "certificate": str(written), "fingerprint": digest})


@command.command("pin")
@click.argument("certificate", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--identities", "prefixes", multiple=True, required=True, help="A prefix (ends in `/`) of the identities it may speak for.")
@click.option("--fingerprint", help="Hex or words that its owner told you over another channel; asked for if missing.")
@policy_option
@machine_readable
def pin(out: Output, certificate: Path, prefixes: tuple[str, ...], fingerprint: str | None, policy_file: Path) -> None:
    """Make CERTIFICATE an anchor of the policy, once its fingerprint is the one that its owner told you.

    Copies it into the folder `trust` beside the policy file and adds a line to `trust.anchors`. Exit code 1, and nothing is
    changed, if the fingerprint is another.

    \b
    Example:
      broker-crypto trust pin partner-ca.pem --identities agent://partner/ --fingerprint "acorn fox ..."
    """
    wrong = [prefix for prefix in prefixes if not is_prefix(prefix)]
    if wrong:
        raise UsageError("not a prefix of identities that ends in `/`", prefix=wrong[0])
    found = _certificates(certificate)
    if len(found) != 1:
        raise UsageError("an anchor is one certificate", path=str(certificate))
    digest = read_anchor(found[0]).key_hash
    told = fingerprint if fingerprint is not None else click.prompt("fingerprint, as its owner told you (hex or words)")
    if not words.matches(told, digest):
        out.say("the fingerprint is another: this is not the certificate that you were told about")
        out.result({"pinned": False, "fingerprint": digest})
        output.no()
    target = _pin(found[0], f"{certificate.stem}.pem", prefixes, policy_file)
    out.say(f"pinned {target} for {', '.join(prefixes)} in {policy_file}")
    out.result({"pinned": True, "certificate": str(target), "identities": list(prefixes), "fingerprint": digest})


def _pin(der: bytes, name: str, prefixes: tuple[str, ...], policy_file: Path) -> Path:
    before = policy.load(policy_file)
    if any(anchor.certificate == der for anchor in before.anchors):
        raise UsageError("this certificate is an anchor already; edit its prefixes in the file", file=str(policy_file))
    target = policy_file.parent / "trust" / name
    if target.exists():
        raise UsageError("a file of that name is there already", path=str(target))
    edited = edit.add_anchor(policy_file.read_bytes(), str(policy_file), f"trust/{name}", prefixes)
    write_public(target, pem.write_certificates((der,)))
    try:
        edit.replace(policy_file, edited)
    except PolicyError:
        target.unlink()
        raise
    return target
