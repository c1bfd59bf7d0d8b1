"""`${...}` and `{agent_id}` are filled in after parsing: a value adds no rule, changes no type, shows in no error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_crypto.errors import PolicyError
from broker_crypto.limits import POLICY_VALUE_MAX
from broker_crypto.policy import Policy, document
from broker_crypto.policy.substitute import Source, agent_id
from tests.support import policies

SECRET = "hunter2"


def fill(value: Any, environ: dict[str, str] | None = None, folder: Path = Path(), who: str | None = None) -> Any:
    return Source(environ or {}, folder, who).fill(document.of({"a": value}, "f")).plain()["a"]


def refused(value: Any, environ: dict[str, str] | None = None, folder: Path = Path()) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        fill(value, environ, folder)
    return caught.value


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("${A}", "one"),
        ("x${A}y${B}z", "xoneytwoz"),
        ("${NONE:-else}", "else"),
        ("${NONE:-}", ""),
        ("${EMPTY:-else}", "else"),
        ("${A:-else}", "one"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$A {A} A}", "$A {A} A}"),
        ("${DOLLAR}", "${A}"),
        ("{agent_id}", "acme/x"),
        ("${BRACE}", "{agent_id}"),
    ],
)
def test_a_text_is_filled_in_one_pass(text: str, filled: str) -> None:
    environ = {"A": "one", "B": "two", "EMPTY": "", "DOLLAR": "${A}", "BRACE": "{agent_id}"}
    assert fill(text, environ, who="acme/x") == filled


def test_only_text_values_are_filled_never_names_or_numbers() -> None:
    filled = fill({"${A}": ["${A}", 1, True, None, 0.5]}, {"A": "one"})
    assert filled == {"${A}": ["one", 1, True, None, 0.5]}


@pytest.mark.parametrize("text", ["${", "${}", "${A", "${1A}", "${A-B}", "${A:x}", "${file:}", "${A:-{x}}", "x ${ A }"])
def test_a_slot_that_is_none_is_refused(text: str) -> None:
    assert "`${`" in refused(text, {"A": "one"}).what


def test_a_variable_that_is_not_set_is_named() -> None:
    for environ in ({}, {"A": ""}):
        assert refused("${A}", environ).fields["variable"] == "A"


def test_a_file_gives_its_text_without_its_last_line_end(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    assert fill("${file:secret}", folder=tmp_path) == SECRET
    assert fill(f"${{file:{tmp_path}/secret}}", folder=Path("/")) == SECRET


def test_a_file_that_is_missing_not_text_or_too_long_is_refused_and_not_quoted(tmp_path: Path) -> None:
    assert "No such file" in refused("${file:none}", folder=tmp_path).what
    (tmp_path / "binary").write_bytes(SECRET.encode() + b"\xff")
    (tmp_path / "long").write_text(SECRET * POLICY_VALUE_MAX)
    (tmp_path / "control").write_text(f"{SECRET}\0")
    for name in ("binary", "long", "control"):
        assert SECRET not in str(refused(f"${{file:{name}}}", folder=tmp_path))


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=40))
def test_whatever_a_variable_holds_it_stays_that_text(value: str) -> None:
    assert fill(["${A:-}", "b"], {"A": value}) == [value, "b"]


def test_a_value_that_looks_like_yaml_adds_no_rule(tmp_path: Path) -> None:
    text = f"{policies.ANCHORS}{policies.GROUPS}topics:\n  - {{topic: orders, channel: mls, group: '${{GROUP}}'}}\n"
    found = policies.wrong(tmp_path, text, {"GROUP": "orders, channel: plain}\n  - {topic: x, channel: plain"})
    assert [error.fields["name"] for error in found] == ["group"]


def test_a_filled_number_is_text_and_nothing_is_coerced(tmp_path: Path) -> None:
    (error,) = policies.wrong(tmp_path, "topics:\n  - {topic: a, channel: plain, signature_batch: '${N}'}\n", {"N": "8"})
    assert "a whole number" in error.what


def test_errors_quote_the_file_and_never_what_a_variable_held(tmp_path: Path) -> None:
    texts = [
        "defaults: {plaintext: '${A}'}",
        "agent: {identity: '${A}'}",
        "topics:\n  - {topic: '${A} x', channel: mls}",
        "brokers:\n  m: {type: nats, servers: ['${A}'], credentials: {user: 1, password: '${A}'}}",
        "brokers:\n  m: {type: nats, servers: [x], credentials: {password: '${A}', token: '${A}'}}",
        "brokers:\n  m: {type: '${A}'}",
        "brokers:\n  m: {type: nats, servers: [x], credentials: {passwort: '${A}'}}",
    ]
    for text in texts:
        found = policies.wrong(tmp_path, text, {"A": SECRET})
        assert found, text
        for error in found:
            assert SECRET not in str(error), text
            assert SECRET not in repr(error), text


def test_a_password_in_the_file_is_not_quoted_either(tmp_path: Path) -> None:
    for text in (
        f"brokers:\n  m: {{type: nats, servers: [x], credentials: {{user: x, password: [{SECRET}]}}}}",
        "brokers:\n  m: {type: nats, servers: [x], credentials: {user: x, password: 123456789}}",
    ):
        (error,) = policies.wrong(tmp_path, text)
        assert SECRET not in str(error)
        assert "123456789" not in str(error)


def test_a_loaded_policy_shows_no_password(tmp_path: Path) -> None:
    text = "brokers:\n  m: {type: nats, servers: [x], credentials: {user: bob, password: '${A}'}}"
    found = policies.load(tmp_path, text, {"A": SECRET})
    login = found.brokers["m"].credentials
    assert login is not None
    assert login.password == SECRET
    assert SECRET not in repr(found) + repr(found.brokers["m"]) + repr(found.settings.brokers)


def test_agent_id_is_the_identity_behind_the_slashes(tmp_path: Path) -> None:
    assert agent_id("agent://acme/team/billing") == "acme/team/billing"
    text = "agent: {identity: 'agent://acme/${NAME:-alice}', certificate: 'keys/{agent_id}.pem', private_key: 'keys/{agent_id}.key'}"
    for environ, argument, name in (({}, None, "alice"), ({"NAME": "bob"}, None, "bob"), ({}, "agent://acme/carol", "carol")):
        agent = policies.load(tmp_path, text, environ, argument).agent
        assert agent.identity == f"agent://acme/{name}"
        assert agent.certificate == tmp_path / f"keys/acme/{name}.pem"
        assert agent.private_key == tmp_path / f"keys/acme/{name}.key"


def test_without_an_identity_agent_id_stays() -> None:
    found = Policy.from_mapping({"state_persistence": {"path": "state/{agent_id}.db"}}, folder="/x", environ={})
    assert found.store is not None
    assert found.store.path == "/x/state/{agent_id}.db"
