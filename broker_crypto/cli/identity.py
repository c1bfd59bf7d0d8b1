"""`broker-crypto identity`: an agent's own key and certificate."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from broker_crypto import policy
from broker_crypto.cli import output
from broker_crypto.cli.output import Output, machine_readable, policy_option
from broker_crypto.errors import PeerError, PolicyError, UsageError
from broker_crypto.identity import Identity, ca, check_chain, keys, load, words
from broker_crypto.identity.certificate import read_certificate
from broker_crypto.policy.rules import AgentSettings
from broker_crypto.wire import pem

CA_OPTION = click.option(
    "--ca",
    "ca_folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of the CA (ca.pem, ca.key) that issues.",
)
DAYS_OPTION = click.option("--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="Days of validity.")
IDENTITY_OPTION = click.option("--identity", help="Whose files, where the policy file is for many.")
SCHEME_OPTION = click.option("--scheme", type=click.Choice(keys.SCHEMES), default="ed25519", show_default=True, help="Kind of the key.")


@click.group("identity")
def command() -> None:
    """This agent's key and certificate. One key is one running instance: replicas get their own, for the same identity."""


def now_ms() -> int:
    """Wall clock, ms since 1970."""
    return time.time_ns() // 1_000_000


def read_authority(folder: Path) -> ca.Authority:
    """The CA in a folder, as `init` makes it. Raises UsageError."""
    try:
        (certificate,) = pem.certificates((folder / "ca.pem").read_bytes())
    except OSError as error:
        raise UsageError(f"the CA's certificate cannot be read: {error.strerror}", path=str(folder / "ca.pem")) from None
    except (PeerError, ValueError):
        raise UsageError("not one certificate in PEM", path=str(folder / "ca.pem")) from None
    key = keys.read(folder / "ca.key")
    if keys.raw_public(key.public_key()) != read_certificate(certificate).public_key:
        raise UsageError("ca.key is not the key of ca.pem", path=str(folder))
    return ca.Authority(certificate, key)


def settings(policy_file: Path, identity: str | None) -> tuple[policy.Policy, AgentSettings, Path, Path]:
    """The policy and the files of the agent's certificate and key. Raises PolicyError where it names none."""
    found = policy.load(policy_file, identity=identity)
    agent = found.agent
    if agent.identity is None or agent.certificate is None or agent.private_key is None:
        raise PolicyError("`agent` names no identity, certificate and private_key", file=str(policy_file))
    return found, agent, agent.certificate, agent.private_key


@command.command("new")
@click.argument("identity")
@policy_option
@CA_OPTION
@SCHEME_OPTION
@DAYS_OPTION
@machine_readable
def new(out: Output, identity: str, policy_file: Path, *, ca_folder: Path | None, scheme: str, days: int) -> None:
    """Make a key for IDENTITY, and its certificate or a request for one, where the policy file says they belong.

    Without --ca a request is written beside the key, as `.csr`: bring it to the CA, run `trust issue` there, and put the
    certificate that comes back in its place.

    \b
    Example:
      broker-crypto identity new agent://acme/carol --ca ca
    """
    _, _, certificate, private_key = settings(policy_file, identity)
    if certificate.exists():
        raise UsageError("there is a certificate already; `identity renew` replaces it", path=str(certificate))
    key = keys.generate(scheme)
    if ca_folder is None:
        data, target = ca.request(identity, key), private_key.with_suffix(".csr")
    else:
        issued = ca.issue(read_authority(ca_folder), identity, key.public_key(), now_ms=now_ms(), days=days)
        data, target = pem.write_certificates((issued,)), certificate
    keys.write(private_key, key)
    write_public(target, data)
    out.say(f"key          {private_key}", f"{'certificate' if ca_folder else 'request    '}  {target}")
    out.result({"identity": identity, "key": str(private_key), "certificate" if ca_folder else "request": str(target)})


def write_public(path: Path, data: bytes) -> None:
    """Write a certificate or request whole or not at all, readable by all."""
    keys.write_private(path, data, replace=True)
    path.chmod(0o644)


@command.command("show")
@policy_option
@IDENTITY_OPTION
@machine_readable
def show(out: Output, policy_file: Path, identity: str | None) -> None:
    """Show the agent's certificate, its fingerprint, and whether it counts now.

    Exit code 1 if it does not count: expired, not under an anchor of the policy, or another identity than the policy's.

    \b
    Example:
      broker-crypto identity show --policy policy.yaml
    """
    found, agent, certificate, private_key = settings(policy_file, identity)
    held = load(certificate, private_key, found.anchors)
    why = _why_not(found, agent, held)
    facts = _facts(held, why)
    out.table(
        ("", ""),
        [(name.replace("_", " "), value if not isinstance(value, list) else ", ".join(map(str, value))) for name, value in facts.items()],
    )
    out.result(facts)
    if why is not None:
        output.no()


def _facts(held: Identity, why: str | None) -> dict[str, Any]:
    return {
        "identity": held.uri,
        "key": held.scheme,
        "suites": list(held.suites),
        "valid_from": output.day(held.not_before),
        "valid_until": output.day(held.not_after),
        "days_left": ca.days_left(held.chain[0], now_ms()),
        "certificates": len(held.chain),
        "fingerprint": words.hex_groups(held.key_hash),
        "words": words.spoken(held.key_hash),
        "counts": "yes" if why is None else f"no: {why}",
    }


def _why_not(found: policy.Policy, agent: AgentSettings, held: Identity) -> str | None:
    try:
        check_chain(held.chain, found.anchors, now_ms(), found.revoked)
    except PeerError as error:
        return f"{error.what} ({error.fields['rule']})"
    return None if held.uri == agent.identity else f"the policy says {agent.identity}"


@command.command("renew")
@policy_option
@IDENTITY_OPTION
@CA_OPTION
@DAYS_OPTION
@click.option("--new-key", is_flag=True, help="Make a new key of the same kind as well.")
@machine_readable
def renew(out: Output, policy_file: Path, identity: str | None, *, ca_folder: Path | None, days: int, new_key: bool) -> None:
    """Replace the agent's certificate by a new one for the same identity, issued by the CA in --ca.

    A running agent looks at its files every minute and brings the new certificate into its groups by itself. Without --ca a
    request for the same key is written beside it, as `.csr`.

    \b
    Example:
      broker-crypto identity renew --ca ca
    """
    found, _, certificate, private_key = settings(policy_file, identity)
    held = load(certificate, private_key, found.anchors)
    key = keys.generate(held.scheme) if new_key else keys.read(private_key)
    if ca_folder is None:
        if new_key:
            raise UsageError("a new key needs its certificate at once: give --ca")
        target = private_key.with_suffix(".csr")
        write_public(target, ca.request(held.uri, key))
    else:
        issued = ca.issue(read_authority(ca_folder), held.uri, key.public_key(), now_ms=now_ms(), days=days)
        check_chain([issued], found.anchors, now_ms(), found.revoked)
        target = certificate
        if new_key:  # a reader between the two files sees a key that is not the certificate's, and looks again
            keys.write(private_key, key, replace=True)
        write_public(certificate, pem.write_certificates((issued,)))
    out.say(f"{'certificate' if ca_folder else 'request'} {target}")
    out.result({"identity": held.uri, "certificate" if ca_folder else "request": str(target), "new_key": new_key})
