"""The tables of docs/policy.md, made from the models: `python -m tests.support.policy_page` writes them between their marks."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from broker_crypto.policy import sections, values
from broker_crypto.policy.explain import duration

PAGE = Path(__file__).resolve().parents[2] / "docs" / "policy.md"
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"


class _Table(typing.NamedTuple):
    title: str
    path: str
    model: type[BaseModel]


TABLES = (
    _Table("agent", "agent", sections.Agent),
    _Table("trust", "trust", sections.Trust),
    _Table("trust.anchors", "trust.anchors[]", sections.TrustAnchor),
    _Table("state_persistence", "state_persistence", sections.Store),
    _Table("state_persistence.key", "state_persistence.key", sections.StoreKey),
    _Table("defaults", "defaults", sections.Defaults),
    _Table("brokers", "brokers.NAME", sections.Broker),
    _Table("brokers: tls", "brokers.NAME.tls", sections.Tls),
    _Table("brokers: credentials", "brokers.NAME.credentials", sections.Credentials),
    _Table("groups", "groups.NAME", sections.Group),
    _Table("groups: roles", "groups.NAME.roles", sections.Roles),
    _Table("topics", "topics[]", sections.Topic),
    _Table("topics: headers", "topics[].headers", sections.Headers),
    _Table("topics: renew_after", "topics[].renew_after", sections.RenewAfter),
    _Table("crypto", "crypto", sections.Crypto),
    _Table("crypto.algorithms", "crypto.algorithms", sections.Algorithms),
    _Table("crypto.key_lifecycle", "crypto.key_lifecycle", sections.KeyLifecycle),
    _Table("protocols", "protocols", sections.Protocols),
    _Table("protocols.noise", "protocols.noise", sections.Noise),
    _Table("protocols.signal", "protocols.signal", sections.Signal),
    _Table("protocols.mls", "protocols.mls", sections.Mls),
    _Table("observability", "observability", sections.Observability),
)
KINDS: dict[Any, str] = {
    values.Duration: "duration",
    values.Retention: "duration, `forever`, `broker`",
    values.Identity: "identity",
    values.IdentityTemplate: "identity, may hold `{name}`",
    values.Prefix: "prefix",
    values.RolePattern: "role pattern",
    values.TopicName: "topic, may hold `*`",
    values.SubjectPattern: "subject",
    values.GroupName: "group name",
    values.GroupPattern: "group name, may hold `*`",
    values.HeaderName: "header, may end in `*`",
    values.KeyHash: "32 bytes in hex",
    values.SchemaFingerprint: "8 bytes in hex",
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true`, `false`",
}


def kind(hint: Any) -> str:
    """What a key takes, as the tables say it."""
    if hint in KINDS:
        return KINDS[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        bounds = [bound for mark in hint.__metadata__ if isinstance(mark, FieldInfo) for bound in mark.metadata]
        limits = [f"{name} {getattr(bound, key)}" for bound in bounds for key, name in LIMITS.items() if hasattr(bound, key)]
        return ", ".join([kind(arguments[0]), *limits])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return kind(next(one for one in arguments if one is not type(None)))
    if origin is tuple:
        return f"list of: {kind(arguments[0])}"
    if origin is dict:
        return f"mapping of {kind(arguments[0])} to section"
    return "section"


LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def default(field: FieldInfo, hint: Any) -> str:
    """The default of a key, as the tables say it."""
    value = field.default
    if value is PydanticUndefined:
        return "**required**"
    if value is None or value in ((), {}):
        return "-"
    if isinstance(value, BaseModel):
        return "as below"
    if hint in (values.Duration, values.Retention):
        return f"`{duration(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def rows(model: type[BaseModel]) -> Iterator[str]:
    hints = typing.get_type_hints(model, include_extras=True)
    for name, field in model.model_fields.items():
        effect = (field.description or "").replace("|", "\\|")
        yield f"| `{name}` | {kind(hints[name])} | {default(field, hints[name])} | {effect} |"


def tables() -> str:
    head = ["| key | takes | default | effect |", "|---|---|---|---|"]
    parts = ["\n".join([*head, *rows(sections.File), ""])]
    for table in TABLES:
        about = (table.model.__doc__ or "").strip()
        parts.append("\n".join([f"### {table.title}\n", f"`{table.path}`: {about}\n", *head, *rows(table.model), ""]))
    return "\n".join(parts)


def page(text: str) -> str:
    """The page with its tables made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
