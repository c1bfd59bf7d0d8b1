"""Names that travel: identities, the prefixes an anchor speaks for, role patterns, group names. Compared byte for byte.

1. An identity is `scheme://authority/segment[/segment...]`: scheme [a-z][a-z0-9+.-]*, authority [a-z0-9._-], segments of
   [A-Za-z0-9._~@:+=-], none empty, none `.` or `..`, no escapes, query, fragment or port; at most 2,048 bytes. So one
   identity has one spelling (a subset of RFC 3986; every SPIFFE ID with a path is one).
2. A prefix is an identity, or its `scheme://authority`, followed by `/`.
3. A role pattern is an identity whose segments may hold `*`: any run of characters, none included, that holds no `/`.
4. A group name is 1 to 200 of [A-Za-z0-9._-] and does not end in `.g` and digits; its log is named `<name>` in
   generation 0 and `<name>.g<n>` in generation n.

What every member judges must not depend on a setting, so these rules are constants of the format (docs/certificates.md).
"""

from __future__ import annotations

import re
from typing import Final

from broker_crypto.limits import GROUP_NAME_MAX, IDENTITY_MAX

_AUTHORITY: Final = r"[a-z][a-z0-9+.-]*://[a-z0-9._-]+"
_IDENTITY: Final = re.compile(_AUTHORITY + r"(?:/[A-Za-z0-9._~@:+=-]+)+", re.ASCII)
_PREFIX: Final = re.compile(_AUTHORITY + r"/(?:[A-Za-z0-9._~@:+=-]+/)*", re.ASCII)
_PATTERN: Final = re.compile(_AUTHORITY + r"(?:/[A-Za-z0-9._~@:+=*-]+)+", re.ASCII)
_GROUP: Final = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_GENERATION: Final = re.compile(r".*\.g[0-9]+", re.ASCII)
_DOTS: Final = (".", "..")


def is_identity(text: str) -> bool:
    """True if `text` is a canonical identity (rule 1)."""
    return len(text) <= IDENTITY_MAX and _IDENTITY.fullmatch(text) is not None and _no_dots(text)


def is_prefix(text: str) -> bool:
    """True if `text` is a prefix that an anchor may speak for (rule 2)."""
    return len(text) <= IDENTITY_MAX and _PREFIX.fullmatch(text) is not None and _no_dots(text)


def is_role_pattern(text: str) -> bool:
    """True if `text` is a role pattern (rule 3)."""
    return len(text) <= IDENTITY_MAX and _PATTERN.fullmatch(text) is not None and _no_dots(text)


def is_group_name(text: str) -> bool:
    """True if `text` may name a group (rule 4)."""
    return len(text) <= GROUP_NAME_MAX and _GROUP.fullmatch(text) is not None and _GENERATION.fullmatch(text) is None


def _no_dots(text: str) -> bool:
    return not any(segment in _DOTS for segment in text.split("/")[2:])


def lies_under(identity: str, prefix: str) -> bool:
    """True if `identity` begins with `prefix`, both canonical; prefixes end in `/`, so no segment is cut."""
    return prefix.endswith("/") and identity.startswith(prefix)


def log_name(group: str, generation: int) -> str:
    """The full name of the group's log in that generation (>= 0)."""
    return group if generation == 0 else f"{group}.g{generation}"


def fits(pattern: str, identity: str) -> bool:
    """True if a role pattern fits an identity, segment by segment (rule 3)."""
    patterns, segments = pattern.split("/"), identity.split("/")
    return len(patterns) == len(segments) and all(map(glob, patterns, segments))


def glob(pattern: str, text: str) -> bool:
    """True if `pattern` fits all of `text`; `*` is any run of characters, none included. Time len(pattern) * len(text)."""
    if "*" not in pattern:
        return pattern == text
    first, *middle, last = pattern.split("*")
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:  # the leftmost place for each part leaves the most room for the rest
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
