"""YAML is read as it is written, with places, or not at all."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from broker_crypto.errors import PolicyError
from broker_crypto.limits import POLICY_DEPTH, POLICY_MAX
from broker_crypto.policy import document

TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | TEXT
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT.filter(bool), inner, max_size=4), max_leaves=20
)


def read(text: str | bytes) -> Any:
    return document.read(text.encode() if isinstance(text, str) else text, "file.yaml").plain()


def refused(text: str | bytes) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        read(text)
    assert caught.value.fields["file"] == "file.yaml"
    return caught.value


@given(TREES)
def test_a_tree_reads_back_as_it_was_written(tree: Any) -> None:
    quoted = yaml.safe_dump(tree, allow_unicode=True, default_style='"' if isinstance(tree, str) else None)
    assert read(quoted) == tree


@given(TREES)
def test_a_python_value_makes_the_same_tree(tree: Any) -> None:
    assert document.of(tree, "x").plain() == tree


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("TRUE", "TRUE"),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-7", -7),
        ("012", "012"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("1e3", "1e3"),
        (".5", ".5"),
        ("0.5", 0.5),
        (".inf", ".inf"),
        ("2026-01-01", "2026-01-01"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("=", "="),
    ],
)
def test_nothing_is_taken_for_what_it_does_not_look_like(text: str, value: Any) -> None:
    read_value = read(f"a: {text}")["a"]
    assert (type(read_value), read_value) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "what", "line", "column"),
    [
        ("a: 1\nb: 2\na: 3", "a key twice", 3, 1),
        ("a:\n  b: {c: 1, c: 2}", "a key twice", 2, 13),
        ("a: &x 1", "anchors", 1, 4),
        ("a: &x [1]", "anchors", 1, 4),
        ("a: {b: &x {}}", "anchors", 1, 8),
        ("a: *x", "alias", 1, 4),
        ("&x a: 1", "anchors", 1, 1),
        ("a: !!str 1", "tags", 1, 4),
        ("a: !x {}", "tags", 1, 4),
        ("!!map {}", "tags", 1, 1),
        ("[a]: 1", "a key is text", 1, 1),
        ("'': 1", "a key is text", 1, 1),
        ("a: [1", "not YAML", 1, 6),
        ("a: 1\n b: 2", "not YAML", 2, 3),
        ("a: ${X}\nb: {c: ${X}}", "is quoted", 2, 9),
        ("a: 1\n---\nb: 1", "a second document", 2, 1),
        ("%YAML 1.2\n---\na: 1", "directives", 1, 1),
        ("%TAG ! x:\n---\na: 1", "directives", 1, 1),
        ('a: "\\0"', "control character", 1, 4),
        ('a: "\\ud800"', "control character", 1, 4),
        ("", "the file is empty", 1, 1),
        ("# nothing", "the file is empty", 1, 1),
    ],
)
def test_a_file_is_refused_with_its_place(text: str, what: str, line: int, column: int) -> None:
    error = refused(text)
    assert what in error.what
    assert (error.fields["line"], error.fields["column"]) == (line, column)


def test_bytes_that_are_no_text_are_refused_with_their_line() -> None:
    assert refused(b"a: 1\nb: \xff").fields["line"] == 2
    assert refused("a: 1\nb: \x07").fields["line"] == 2
    assert refused("a: 1".encode("utf-16")).fields["line"] == 1
    assert read(b"\xef\xbb\xbfa: 1") == {"a": 1}
    refused(b'a: "\\UFFFFFFFF"')


def test_a_file_is_bounded_in_size_and_depth() -> None:
    assert str(POLICY_MAX) in refused(b"#" * (POLICY_MAX + 1)).what
    assert str(POLICY_DEPTH) in refused("[" * 100_000).what
    assert read("[" * POLICY_DEPTH + "]" * POLICY_DEPTH)
    deep: list[Any] = []
    for _ in range(2 * POLICY_DEPTH):
        deep = [deep]
    with pytest.raises(PolicyError):
        document.of(deep, "x")


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_whatever_the_bytes_nothing_but_a_policy_error_comes_out(data: bytes) -> None:
    with suppress(PolicyError):
        read(data)


@given(st.text("a: -[]{}\n'\"#&*!|>%@`,?\\\t$0", max_size=40))
def test_whatever_the_punctuation_nothing_but_a_policy_error_comes_out(text: str) -> None:
    with suppress(PolicyError):
        read(text)


def test_places_are_those_of_names_and_items() -> None:
    tree = document.read(b"a:\n  - x: 1\n    y: [2, 3]\nb: 4\n", "f")

    def at(*path: str | int) -> tuple[int, int]:
        place = tree.find(path)
        return place.line, place.column

    assert at("a") == (1, 1)
    assert at("a", 0) == (2, 5)
    assert at("a", 0, "y") == (3, 5)
    assert at("a", 0, "y", 1) == (3, 12)
    assert at("a", 0, "z") == at("a", 0)
    assert at("b", "nowhere") == at("b") == (4, 1)


def test_a_value_of_another_type_has_no_place_in_a_policy() -> None:
    for value in ({"a": object()}, {"a": b"x"}, {1: 2}, {"a": {"b": {3}}}):
        with pytest.raises(PolicyError):
            document.of(value, "x")


def test_the_repr_of_a_node_shows_no_value() -> None:
    assert "hunter2" not in repr(document.read(b"password: hunter2", "f"))
