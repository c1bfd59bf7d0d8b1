"""Hypothesis strategies for the values of an Avro schema."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

_PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "bytes": st.binary(max_size=80),
    "string": st.text(max_size=40),
}


def values(schema: Any, known: dict[str, st.SearchStrategy[Any]] | None = None, namespace: str = "") -> st.SearchStrategy[Any]:
    """Values of `schema`, as the codec gives them."""
    known = {} if known is None else known
    if isinstance(schema, list):
        return st.one_of([values(branch, known, namespace) for branch in schema])
    if isinstance(schema, str):
        return _PRIMITIVES[schema] if schema in _PRIMITIVES else known[schema if "." in schema else f"{namespace}.{schema}"]
    if schema["type"] == "array":
        return st.lists(values(schema["items"], known, namespace), max_size=4)
    namespace = schema.get("namespace", namespace)
    if schema["type"] == "record":
        fields = {field["name"]: values(field["type"], known, namespace) for field in schema["fields"]}
        made: st.SearchStrategy[Any] = st.fixed_dictionaries(fields)
    elif schema["type"] == "fixed":
        made = st.binary(min_size=schema["size"], max_size=schema["size"])
    else:
        made = st.sampled_from(schema["symbols"])
    known[f"{namespace}.{schema['name']}"] = made
    return made
