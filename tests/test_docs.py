"""What the pages say is tried: links resolve, samples run, policies load, commands and targets exist, errors are all told.

A block of Python is run as it is printed. The comment above it says how: `<!-- sample: until TEXT -->` runs it beside a real
nats-server, in a folder in which `broker-crypto init` was run, until TEXT is printed; `<!-- sample: ends -->` runs it to its end.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from broker_crypto import errors
from broker_crypto import policy as policies
from broker_crypto.cli.app import application
from broker_crypto.policy import sections
from broker_crypto.wire import envelopes, pem
from tests.support import errors_page, policy_page
from tests.support.servers import NatsServer, end, nats_server

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(page for page in ROOT.glob("docs/**/*.md") if "_build" not in page.parts)])
FENCE = re.compile(r"(?:<!-- sample: (?P<how>[^\n]*) -->\n)?^```(?P<language>[\w-]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    how: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for hit in FENCE.finditer(text):
            if hit["language"] in languages:
                line = text.count("\n", 0, hit.start("text"))
                found.append(Block(page, line, hit["language"], hit["how"], hit["text"]))
    return found


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", "")).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(line.lstrip("#")) for line in page.read_text(encoding="utf-8").splitlines() if re.match(r"#{1,6} ", line)}


def broken(page: Path) -> Iterator[str]:
    for target in LINK.findall(re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert not list(broken(page))


def every_error() -> list[type[errors.BrokerCryptoError]]:
    return [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, errors.BrokerCryptoError)]


def test_the_errors_page_tells_every_error_with_code_and_hint() -> None:
    text = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    assert text == errors_page.page(), "python -m tests.support.errors_page > docs/errors.md"
    told = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert sorted(told) == sorted(error.__name__ for error in every_error() if error is not errors.BrokerCryptoError)


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [item.code for item in every_error()]
    assert len(codes) == len(set(codes))


def test_every_rule_on_certificates_stands_on_their_page() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("broker_crypto/identity/*.py"))
    raised = set(re.findall(r'refuse\(\s*"([a-z]+\.[a-z_0-9]+)"', source))
    told = set(re.findall(r"`([a-z]+\.[a-z_0-9]+)`", (ROOT / "docs/certificates.md").read_text(encoding="utf-8")))
    assert raised
    assert raised - told == set()


def test_the_page_of_formats_gives_every_schema_with_its_fingerprint() -> None:
    told = re.findall(r"^\| `(\w+)` \| `([0-9a-f]{16})` \|", (ROOT / "docs/formats.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(told) == {name: codec.fingerprint.hex() for name, codec in envelopes.PUBLISHED.items()}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    one = nats_server(tmp_path / "nats")
    one.start()
    yield one
    end(one)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "connectors")]), "PYTHONWARNINGS": "error", **more}


def python(*arguments: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=120, check=False)


def broker_crypto(*arguments: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return python("-c", "import sys; from broker_crypto.cli import main; sys.exit(main())", *arguments, folder=folder, **more)


def test_no_block_of_python_is_without_a_word_on_how_it_is_tried() -> None:
    assert [str(block) for block in blocks("python", "py") if not re.fullmatch(r"until .+|ends", block.how or "")] == []


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_a_sample_does_what_its_page_says(block: Block, server: NatsServer, tmp_path: Path) -> None:
    made = broker_crypto("init", folder=tmp_path)
    assert made.returncode == 0, made.stderr
    (tmp_path / "sample.py").write_text(block.text.replace("nats://127.0.0.1:4222", server.url), encoding="utf-8")
    until = [(block.how or "").removeprefix("until ")] if (block.how or "").startswith("until ") else []
    ran = python("-m", "tests.support.sample", "sample.py", *until, folder=tmp_path, NATS_URL=server.url)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_policy_on_a_page_loads_as_it_stands(tmp_path: Path) -> None:
    printed = [block for block in blocks("yaml") if "version:" in block.text]
    assert printed
    for number, block in enumerate(printed):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block.text, encoding="utf-8")
        for anchor in re.findall(r"certificate: (trust/[\w.-]+)", block.text):
            (tmp_path / anchor).parent.mkdir(exist_ok=True)
            (tmp_path / anchor).write_bytes(pem.write_certificates((b"any",)))
        assert policies.load(path, {}).rules, str(block)


def test_the_tables_of_the_policy_page_are_those_of_the_models() -> None:
    text = policy_page.PAGE.read_text(encoding="utf-8")
    assert text == policy_page.page(text), "python -m tests.support.policy_page"
    assert {table.model for table in policy_page.TABLES} == set(sections.Section.__subclasses__()) - {sections.File}


def test_the_example_of_the_policy_page_is_the_example_file() -> None:
    printed = next(block.text for block in blocks("yaml") if block.page == policy_page.PAGE)
    assert (ROOT / "examples/policy.yaml").read_text(encoding="utf-8").partition("\n")[2] == printed


def command_of(words: list[str]) -> click.Command | None:
    """The command that a line of a shell names."""
    found: click.Command | None = application
    for word in words:
        if not isinstance(found, click.Group):
            return found
        if word.startswith("-"):
            return found
        found = found.get_command(click.Context(found), word)
    return found


def lines_of_shell() -> list[tuple[Block, str]]:
    return [(block, line.strip()) for block in blocks("bash", "sh", "console") for line in block.text.splitlines() if line.strip()]


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return {name for names in re.findall(r"^([a-z][a-z ]*):", makefile, re.MULTILINE) for name in names.split()}


def test_the_shell_lines_of_the_pages_name_commands_and_targets_that_exist() -> None:
    wrong = []
    for block, line in lines_of_shell():
        for part in re.split(r"&&|;|\|", line.split(" #")[0].removeprefix("$ ")):
            words = shlex.split(part)
            if words[:1] == ["make"] and not {word for word in words[1:] if "=" not in word} <= targets():
                wrong.append(f"{block}: {line}")
            if words and words[0].endswith("broker-crypto") and command_of(words[1:]) is None:
                wrong.append(f"{block}: {line}")
    assert wrong == []


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            child = group.get_command(context, name)
            assert child is not None
            yield (*path, name)
            yield from commands(child, (*path, name))


@pytest.mark.parametrize("path", list(commands(application)), ids=" ".join)
def test_every_command_explains_itself_with_an_example(path: tuple[str, ...]) -> None:
    command = command_of(list(path))
    assert command is not None
    text = command.get_help(click.Context(command, info_name=" ".join(("broker-crypto", *path))))
    assert "Usage: broker-crypto" in text
    if not isinstance(command, click.Group):
        assert f"broker-crypto {' '.join(path)}" in text.split("Example", 1)[-1]
        assert "--json" in text


def test_every_claim_of_security_names_tests_that_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) >= 20
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).is_file() or f"def {name}(" not in (ROOT / path).read_text(encoding="utf-8") + "def ("
    ]
    assert not missing
