"""What the pages say is tried: links resolve, samples run, policies load, commands and targets exist, errors are all told.

A block of Python is run as it is printed. The comment above it says how: `<!-- sample: until TEXT -->` runs it beside a real
nats-server, in a folder in which `broker-crypto init` was run, until TEXT is printed; `<!-- sample: ends -->` runs it to its end.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker_crypto import errors
from broker_crypto.wire import envelopes
from tests.support import errors_page

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
