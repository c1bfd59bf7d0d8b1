"""What stands in for `${NAME}`, `${NAME:-default}`, `${file:PATH}` and `{agent_id}` in the text values of a policy.

Replaced after parsing, in one pass, in values only: what comes in can be no key, no rule, no other type, and is not looked at
again. `$${` is a `${` that stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from broker_crypto.limits import POLICY_VALUE_MAX
from broker_crypto.policy.document import Node, Place, check_text

_SLOT: Final = re.compile(
    r"(?P<escaped>\$\$\{)"
    r"|\$\{file:(?P<path>[^{}]+)\}"
    r"|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<or>:-(?P<default>[^{}]*))?\}"
    r"|(?P<broken>\$\{)"
    r"|(?P<agent>\{agent_id\})"
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where values come from. `agent_id` None leaves `{agent_id}` as it is; `folder` is that of the file."""

    environ: Mapping[str, str]
    folder: Path
    agent_id: str | None = None

    def fill(self, node: Node) -> Node:
        """The tree with everything replaced. Raises PolicyError that names the variable or file, never its value."""
        value = node.value
        if isinstance(value, str):
            return self._text(value, node)
        if isinstance(value, tuple):
            return replace(node, value=tuple(map(self.fill, value)))
        if isinstance(value, Mapping):
            return replace(node, value={name: (place, self.fill(item)) for name, (place, item) in value.items()})
        return node

    def _text(self, text: str, node: Node) -> Node:
        if "{" not in text:
            return node
        filled = _SLOT.sub(lambda match: self._slot(match, node.place), text)
        if len(filled) > POLICY_VALUE_MAX:
            raise node.place.error(f"a value longer than {POLICY_VALUE_MAX} characters")
        check_text(filled, node.place)
        return replace(node, value=filled)

    def _slot(self, match: re.Match[str], place: Place) -> str:
        kind = match.lastgroup
        if kind == "escaped":
            return "${"
        if kind == "broken":
            raise place.error("a `${` without a NAME, NAME:-default or file:PATH and `}` (`$${` is one that stays)")
        if kind == "agent":
            return match[0] if self.agent_id is None else self.agent_id
        return self._file(match["path"], place) if match["path"] else self._variable(match, place)

    def _variable(self, match: re.Match[str], place: Place) -> str:
        value = self.environ.get(match["name"], "")
        if value:
            return value
        if match["or"] is None:
            raise place.error("the variable is not set, and there is no default", variable=match["name"])
        return match["default"]

    def _file(self, path: str, place: Place) -> str:
        try:
            with (self.folder / path).open("rb") as file:
                data = file.read(POLICY_VALUE_MAX + 1)
            return data.decode().rstrip("\r\n")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise place.error(f"the file of a value cannot be read: {reason}", path=path) from None


def agent_id(identity: str) -> str:
    """What `{agent_id}` stands for: the identity behind `//`, slashes kept."""
    return identity.partition("//")[2]
