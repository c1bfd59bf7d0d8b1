"""docs/validation.md, the code and the tests name the same rules."""

from __future__ import annotations

import re
from pathlib import Path

from broker_crypto.mls.validation import Rule

ROOT = Path(__file__).resolve().parents[3]
ROW = re.compile(r"^\| (\d+) \| `(\w+)` \| ([\d., ]+) \| (.+) \|$", re.MULTILINE)
SECTION = re.compile(r"\d{1,2}(?:\.\d{1,2}){0,3}")


def rows() -> list[tuple[str, ...]]:
    return ROW.findall((ROOT / "docs" / "validation.md").read_text(encoding="utf-8"))


def test_the_table_has_every_rule_of_the_code_in_its_order_and_no_other() -> None:
    assert [name for _, name, _, _ in rows()] == [rule.value for rule in Rule]
    assert all(rule.value == rule.name.lower() for rule in Rule)


def test_the_rules_are_numbered_without_a_gap_and_each_names_its_sections() -> None:
    assert [int(number) for number, _, _, _ in rows()] == list(range(1, len(Rule) + 1))
    for _, name, sections, refused in rows():
        assert all(SECTION.fullmatch(section) for section in sections.split(", ")), name
        assert refused.strip(), name


def test_every_rule_is_raised_by_the_code_and_proven_by_a_test() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "broker_crypto" / "mls").glob("*.py") if path.stem != "validation")
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.py") if path != Path(__file__))
    named = re.compile(r'Rule\.([A-Z_]+)|"([a-z_]+)"')
    raised = {match[0].lower() or match[1] for match in named.findall(code)}
    proven = {match[0].lower() or match[1] for match in named.findall(tests)}
    assert [rule.value for rule in Rule if rule.value not in raised] == []
    assert [rule.value for rule in Rule if rule.value not in proven] == []
