"""No published file of MLS is left out: each of the 15 is loaded by a test here, and the folder holds no other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.vectors.vectors_path import folder

FILES = {
    "crypto-basics",
    "deserialization",
    "key-schedule",
    "message-protection",
    "messages",
    "passive-client-handling-commit",
    "passive-client-welcome",
    "psk_secret",
    "secret-tree",
    "transcript-hashes",
    "tree-math",
    "tree-operations",
    "tree-validation",
    "treekem",
    "welcome",
}


def strings_in(test: Path) -> set[str]:
    """Every string constant that a test's code holds; names in comments do not count."""
    return {node.value for node in ast.walk(ast.parse(test.read_text())) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_each_of_the_15_files_is_named_by_a_test() -> None:
    here = Path(__file__)
    named = set().union(*(strings_in(test) for test in here.parent.glob("test_*.py") if test != here))
    assert {name for name in FILES if not {name, f"{name}.json", f"mls/{name}.json", f"mls/{name}"} & named} == set()


def test_the_folder_holds_these_files_and_no_other() -> None:
    published = folder() / "mls"
    if not published.is_dir():
        pytest.skip(f"no published vectors in {folder()}")
    assert {file.stem for file in published.glob("*.json")} == FILES
