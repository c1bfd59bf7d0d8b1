"""The house style as a test. A number may be exceeded where a comment `# tidy: <reason>` stands beside it: on the line of
the `def` or the one above it, in the first ten lines for a file, on the line itself for a forbidden construct.
"""

from __future__ import annotations

import ast
import importlib
import io
import re
import statistics
import subprocess
import tokenize
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = [ROOT / "broker_crypto", ROOT / "connectors"]
EVERYTHING = [*PRODUCT, ROOT / "tests", ROOT / "bench", ROOT / "examples", ROOT / "docs"]

FILE_LINES = 500
FUNCTION_LINES = 40
MEDIAN_LINES = 10
POSITIONAL = 5
NAMELESS = {"utils", "util", "common", "helpers", "helper", "core", "base", "manager", "misc"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec"}

# A name is secret-ish by its last word, or by its last two: `key` alone is also a dictionary's word.
SECRET_WORDS = {"tag", "tags", "mac", "hmac", "secret", "secrets", "private", "passphrase", "password"}
KEYS = {"data", "row", "store", "mac", "membership", "confirmation", "place", "message", "sender", "stream", "private", "signing"}

# The project speaks of itself alone: no path of a machine, no plan that is not in the repository.
FOREIGN = [
    re.compile(r"(?<![\w.:/-])/(?:work|root|home|Users)/\w"),
    re.compile(r"\b(?:shared/)?design/\w"),
    re.compile(r"(?i)\bissues? #?\d"),
    re.compile(r"(?i)\bco-authored-by\b"),
]

PUBLIC = ["Agent", "Event", "Health", "Policy", "Security", "errors"]
PAGES_OF_OTHERS = {"test-vectors.md"}  # the working group's description of its vectors

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(roots: list[Path]) -> list[Path]:
    return sorted(path for root in roots if root.exists() for path in root.rglob("*.py") if "_build" not in path.parts)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


@cache
def code_lines(path: Path) -> frozenset[int]:
    """Numbers of the lines that hold code: no blank line, comment or docstring."""
    nothing = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    numbers: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type not in nothing:
            numbers.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            numbers.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return frozenset(numbers)


def functions(path: Path) -> Iterator[tuple[Function, int]]:
    """Every function with its code lines, from `def` to its end; what is nested counts for both."""
    lines = code_lines(path)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, Function):
            yield node, sum(number in lines for number in range(node.lineno, (node.end_lineno or node.lineno) + 1))


def excused(path: Path, *numbers: int) -> bool:
    lines = lines_of(path)
    return any(re.search(r"# tidy: \w+ \w+", lines[number - 1]) for number in numbers if 0 < number <= len(lines))


def findings(roots: list[Path], check: Callable[[Path, ast.AST], str | None]) -> list[str]:
    found = []
    for path in sources(roots):
        for node in ast.walk(tree_of(path)):
            complaint = check(path, node)
            if complaint and not excused(path, node.lineno):  # type: ignore[attr-defined]
                found.append(f"{name_of(path)}:{node.lineno}: {complaint}")  # type: ignore[attr-defined]
    return found


def refuse(found: list[str]) -> None:
    assert not found, "\n" + "\n".join(found)


def test_no_file_is_longer_than_500_lines() -> None:
    long = [path for path in sources(EVERYTHING) if len(lines_of(path)) > FILE_LINES]
    refuse([f"{name_of(path)}: {len(lines_of(path))} lines" for path in long if not excused(path, *range(1, 11))])


def test_no_function_is_longer_than_40_code_lines() -> None:
    refuse(
        [
            f"{name_of(path)}:{node.lineno}: {node.name} has {length} code lines"
            for path in sources([*PRODUCT, ROOT / "bench"])
            for node, length in functions(path)
            if length > FUNCTION_LINES and not excused(path, node.lineno, node.lineno - 1, first_line(node) - 1)
        ]
    )


def first_line(node: Function) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def test_half_of_all_functions_have_at_most_10_code_lines() -> None:
    lengths = [length for path in sources(PRODUCT) for _, length in functions(path)]
    assert statistics.median(lengths) <= MEDIAN_LINES


def test_no_function_takes_more_than_5_positional_parameters() -> None:
    found = []
    for path in sources([*PRODUCT, ROOT / "bench"]):
        for node, _ in functions(path):
            names = [argument.arg for argument in [*node.args.posonlyargs, *node.args.args]]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            if count > POSITIONAL and not excused(path, node.lineno, node.lineno - 1, first_line(node) - 1):
                found.append(f"{name_of(path)}:{node.lineno}: {node.name} takes {count}")
    refuse(found)


def test_every_parameter_and_every_return_value_of_the_product_is_annotated() -> None:
    found = []
    for path in sources(PRODUCT):
        for node, _ in functions(path):
            given = node.args
            arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, [given.vararg, given.kwarg])]
            bare = [argument.arg for argument in arguments if argument.annotation is None and argument.arg not in ("self", "cls")]
            if bare or node.returns is None:
                found.append(f"{name_of(path)}:{node.lineno}: {node.name} lacks {', '.join(bare) or 'its return type'}")
    refuse(found)


def test_no_file_has_a_name_that_names_nothing() -> None:
    names = [part for path in sources(EVERYTHING) for part in [path.relative_to(ROOT)] if NAMELESS & {*part.parts[:-1], part.stem}]
    refuse([str(name) for name in names])


def test_nothing_is_unpickled_or_evaluated() -> None:
    def check(path: Path, node: ast.AST) -> str | None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            return next((f"imports {name}" for name in modules if name.split(".")[0] in FORBIDDEN_MODULES), None)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
            return f"calls {node.func.id}"
        return None

    refuse(findings(PRODUCT, check))


def test_no_except_catches_without_saying_what() -> None:
    refuse(findings(EVERYTHING, lambda _, node: "bare except" if isinstance(node, ast.ExceptHandler) and node.type is None else None))


def test_the_product_raises_instead_of_asserting() -> None:
    refuse(findings(PRODUCT, lambda _, node: "assert" if isinstance(node, ast.Assert) else None))


def secret_name(node: ast.AST) -> str | None:
    """The name under which a value is compared, where it sounds like a secret or a tag."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "reveal":
        return "reveal()"
    if isinstance(node, ast.Subscript):
        return secret_name(node.value)
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    words = name.lower().strip("_").split("_")
    if words[-1] in SECRET_WORDS or (words[-1] in ("key", "keys") and len(words) > 1 and words[-2] in KEYS):
        return name
    return None


def is_constant(node: ast.AST) -> bool:
    """A word, a number, or a NAME_OF_ONE: what is written down for all to read is no secret."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str | int | None)
    return isinstance(node, ast.Name | ast.Attribute) and (node.id if isinstance(node, ast.Name) else node.attr).isupper()


def unequal_time(node: ast.AST) -> str | None:
    if not isinstance(node, ast.Compare) or not all(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops):
        return None
    sides = [node.left, *node.comparators]
    if any(is_constant(side) for side in sides):
        return None
    return next((f"{name} is compared by ==, not by hmac.compare_digest" for side in sides if (name := secret_name(side))), None)


def test_tags_and_secrets_are_compared_in_constant_time() -> None:
    refuse(findings(PRODUCT, lambda _, node: unequal_time(node)))


@pytest.mark.parametrize("code", ["tag == other", "a.confirmation_tag != b", "s.reveal() == x", "mac[:4] == y", "data_key == k"])
def test_the_rule_on_comparisons_sees_what_it_forbids(code: str) -> None:
    assert unequal_time(ast.parse(code, mode="eval").body)


@pytest.mark.parametrize("code", ["len(tag) == 16", "kind_tag == 'tag:yaml'", "key == name", "tag is None", "tag != der.SEQUENCE"])
def test_the_rule_on_comparisons_leaves_the_harmless_alone(code: str) -> None:
    assert not unequal_time(ast.parse(code, mode="eval").body)


def tracked_texts() -> Iterator[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and path != Path(__file__).resolve() and path.suffix not in (".lock", ".png", ".bin"):
            yield path


def test_no_file_names_a_machine_or_a_plan_outside_the_repository() -> None:
    found = []
    for path in tracked_texts():
        text = path.read_text(encoding="utf-8", errors="replace")
        for pattern in FOREIGN:
            found += [f"{name_of(path)}:{text.count(chr(10), 0, hit.start()) + 1}: {hit.group()}" for hit in pattern.finditer(text)]
    refuse(found)


def test_code_cites_only_pages_that_exist() -> None:
    found = []
    for path in sources(EVERYTHING):
        for number, line in enumerate(lines_of(path), 1):
            prose = line.partition("#")[2] if number in code_lines(path) else line
            for page in re.findall(r"(?<![\w*{}/.])[\w./-]*\w\.md\b", prose):
                if page not in PAGES_OF_OTHERS and not (ROOT / page).is_file():
                    found.append(f"{name_of(path)}:{number}: {page}")
    refuse(found)


def test_what_applications_import_is_this_list() -> None:
    assert sorted(importlib.import_module("broker_crypto").__all__) == sorted(PUBLIC)
