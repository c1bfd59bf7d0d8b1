"""What is wrong with a file, said so that one can mend it: place, name, what belongs there, the nearest valid name.

Values are quoted as they stand in the file, never as `${NAME}` filled them in.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from broker_crypto.errors import PolicyError
from broker_crypto.policy.document import Node
from broker_crypto.policy.sections import File

_KINDS: Final = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping of names",
    "model_type": "a mapping of names",
    "model_attributes_type": "a mapping of names",
    "string_too_short": "text that is not empty",
    "too_short": "a list that is not empty",
}
_QUOTED: Final = re.compile(r"'([^']*)'")
_SECRET: Final = frozenset(("password", "token"))


def complaints(error: ValidationError, raw: Node) -> list[PolicyError]:
    """One PolicyError for each thing that the models refuse, in the order of the file. `raw` is the tree before replacing."""
    details = error.errors(include_url=False, include_input=False)
    found = [_complaint(detail, raw) for detail in details if not _follows(detail, details)]
    return sorted(found, key=lambda problem: (problem.fields["line"] or 0, problem.fields["column"] or 0))


def _follows(detail: ErrorDetails, all_of_them: list[ErrorDetails]) -> bool:
    """True for a list that is too short only because its items are wrong."""
    path = detail["loc"]
    below = (other for other in all_of_them if other["loc"][: len(path)] == path and other is not detail)
    return detail["type"] == "too_short" and any(below)


def _complaint(detail: ErrorDetails, raw: Node) -> PolicyError:
    path = tuple(step for step in detail["loc"] if step != "[key]")
    name = str(path[-1]) if path else "policy"
    place = raw.find(path)
    if detail["type"] == "extra_forbidden":
        return place.error(_unknown(path), name=name, nearest=nearest(name, _names_at(path[:-1])))
    if detail["type"] == "missing":
        return place.error(f"`{name}` is missing", name=dotted(path))
    what, known = _expected(detail)
    return place.error(f"`{dotted(path)}` must be {what}", name=name, value=_quoted(raw, path), nearest=nearest(_raw(raw, path), known))


def _expected(detail: ErrorDetails) -> tuple[str, list[str]]:
    context = detail.get("ctx", {})
    if detail["type"] in _KINDS:
        return _KINDS[detail["type"]], []
    if detail["type"] == "literal_error":
        expected = str(context["expected"])
        return f"one of {expected.replace(' or ', ', ')}", _QUOTED.findall(expected)
    if detail["type"] == "policy":
        return str(context["expected"]), []
    return detail["msg"].removeprefix("Input should be ").removeprefix("Input should ").lower(), []


def _unknown(path: tuple[int | str, ...]) -> str:
    name, here = str(path[-1]), dotted(path[:-1]) or "the file"
    elsewhere = sorted({where for where, names in _sections(File, ()) if name in names})
    belongs = f"; it belongs in {', '.join(elsewhere)}" if elsewhere else f"; known are {', '.join(_names_at(path[:-1]))}"
    return f"unknown key `{name}` in {here}{belongs}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `name`, None where none does."""
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return close[0] if close else None


def dotted(path: Iterable[int | str]) -> str:
    """A path as people write it: `topics[2].channel`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _raw(raw: Node, path: tuple[int | str, ...]) -> str:
    node = raw.at(path)
    return node.value if node is not None and isinstance(node.value, str) else ""


def _quoted(raw: Node, path: tuple[int | str, ...]) -> object:
    node = raw.at(path)
    hidden = node is None or bool(_SECRET.intersection(path)) or not isinstance(node.value, str | int | float | bool)
    return None if hidden or node is None or len(str(node.value)) > 200 else node.value


def _names_at(path: tuple[int | str, ...]) -> list[str]:
    """Names of the keys that the section at `path` knows."""
    model: type[BaseModel] = File
    entry = False  # the next step is a name that the user gave, not a key
    for step in path:
        if entry or isinstance(step, int):
            entry = False
            continue
        annotation = model.model_fields[step].annotation
        model, entry = _models_in(annotation)[0], typing.get_origin(annotation) is dict
    return sorted(model.model_fields)


def _sections(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[str, frozenset[str]]]:
    """(where, names) of every section."""
    yield dotted(path) or "the file", frozenset(model.model_fields)
    for name, field in model.model_fields.items():
        for inner in _models_in(field.annotation):
            yield from _sections(inner, (*path, name))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]
