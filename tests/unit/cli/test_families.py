"""Exit codes, errors as one sentence or one object, and help for every command."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from broker_crypto import errors
from broker_crypto.cli import app, output
from tests.unit.cli.conftest import Run

ROOT = Path(__file__).resolve().parents[3]


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(group, click.Group):
        for name in group.list_commands(click.Context(group)):
            child = group.get_command(click.Context(group), name)
            assert child is not None
            yield from commands(child, (*path, name))
    else:
        yield path, group


COMMANDS = dict(commands(app.application))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_json(run: Run, path: tuple[str, ...]) -> None:
    ran = run(*path, "--help")
    assert ran.code == app.DONE
    assert f"Usage: broker-crypto {' '.join(path)}" in ran.out
    assert f"broker-crypto {' '.join(path)}" in ran.out.partition("Example")[2]
    assert "--json" in ran.out


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_an_option_that_no_command_has_is_a_usage_error(run: Run, path: tuple[str, ...]) -> None:
    ran = run(*path, "--no-such-option")
    assert (ran.code, ran.out) == (app.USAGE, "")
    assert ran.err.count("\n") == 1
    assert f"broker-crypto {' '.join(path)} --help" in ran.err


def test_without_arguments_the_families_are_told(run: Run) -> None:
    ran = run()
    assert (ran.code, ran.out) == (app.USAGE, "")
    for name in app.application.list_commands(click.Context(app.application)):
        assert name in ran.err


def test_an_unknown_command_is_a_usage_error_also_as_an_object(run: Run) -> None:
    assert run("polcy").code == app.USAGE
    ran = run("policy", "chek", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (app.USAGE, "usage")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("x"), 2),
        (errors.PolicyError("x"), 2),
        (errors.NotBuilt("x"), 2),
        (errors.PeerError("x"), 1),
        (errors.NotAMember("x"), 1),
        (errors.StateCorrupt("x"), 1),
        (errors.StateLocked("x"), 3),
        (errors.StoreUnavailable("x"), 3),
        (errors.BrokerUnavailable("x"), 3),
    ],
)
def test_each_error_has_its_exit_code(error: errors.BrokerCryptoError, code: int) -> None:
    assert app.exit_code(error) == code


def test_an_error_is_one_sentence_with_place_and_cure() -> None:
    placed = errors.PolicyError("unknown key `chanel`", file="p.yaml", line=3, column=5, name="chanel", nearest="channel")
    assert output.sentence(placed) == "p.yaml:3:5: unknown key `chanel`; did you mean `channel`?"
    assert output.sentence(errors.NotAMember(group="orders")).startswith(
        "The agent is no member of this group (group orders); try: `broker-crypto group join`"
    )
    assert output.sentence(errors.UsageError("no", path="/x", nothing=None)) == "no (path /x)"


def test_every_command_that_a_hint_names_is_there() -> None:
    hints = [kind.hint for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BrokerCryptoError)]
    named = [tuple(words.split()) for hint in hints for words in re.findall(r"broker-crypto ([a-z ]+)", hint)]
    assert len(named) > 5
    assert [words for words in named if not any(words[:size] in COMMANDS for size in (1, 2, 3))] == []


def test_a_file_that_the_system_refuses_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = run("init", "file/folder")
    assert ran.code == app.USAGE
    assert "file/folder" in ran.err or str(tmp_path / "file") in ran.err
    assert "Traceback" not in ran.err


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_without_the_extra_the_command_says_how_to_get_it() -> None:
    hide = "import sys; sys.modules['click'] = sys.modules['rich'] = None\nimport importlib.util as u; find = u.find_spec\n"
    hide += "u.find_spec = lambda name, *more: None if name in ('click', 'rich') else find(name, *more)\n"
    ran = python(hide + "from broker_crypto.cli import main; sys.exit(main(['init']))")
    assert ran.returncode == 2
    assert ran.stderr == "broker-crypto: click and rich not installed; pip install 'broker-crypto[cli]'\n"


def test_a_family_is_loaded_when_it_is_asked_for() -> None:
    ran = python(
        "import sys; from broker_crypto.cli import main; main(['policy', 'schema']); "
        "sys.exit(sum(f'broker_crypto.cli.{name}' in sys.modules for name in ('init', 'identity', 'trust', 'group', 'demo', 'inspect')))"
    )
    assert ran.returncode == 0, ran.stderr


def test_the_application_itself_needs_no_click() -> None:
    ran = python("import sys; sys.modules['click'] = sys.modules['rich'] = None\nimport broker_crypto, broker_crypto.cli")
    assert ran.returncode == 0, ran.stderr
