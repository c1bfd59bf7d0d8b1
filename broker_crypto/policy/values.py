"""Kinds of values in a policy file: durations, retention, identities, patterns, fingerprints. Each says what it expects."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from broker_crypto.limits import KAFKA_TOPIC_MAX
from broker_crypto.wire import names

FOREVER: Final = -1  # key_retention: never erased
BROKER: Final = -2  # key_retention: as long as the broker keeps the topic's records

_DURATION: Final = re.compile(r"([0-9]{1,9})(s|m|h|d)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION_MAX: Final = 36500 * 86400
_TOPIC: Final = re.compile(r"[A-Za-z0-9._*-]+")
_GROUP_PATTERN: Final = re.compile(r"[A-Za-z0-9._*-]+")
_HEADER: Final = re.compile(r"[!-)+-9;-~]{1,255}\*?")  # printable ASCII without space, colon; one `*` at the end
_TOKEN: Final = re.compile(r"[!-)+-=?-|~]+")  # of a NATS subject: printable ASCII without space, `*`, `>`, braces
_CAPTURE: Final = re.compile(r"\{[a-z][a-z0-9_]*\}")
_HEX: Final = re.compile(r"[0-9a-f]+")


def refuse(expected: str) -> PydanticCustomError:
    """What a validator raises; `expected` is shown to the user behind "must be"."""
    return PydanticCustomError("policy", "must be {expected}", {"expected": expected})


def duration(value: object) -> int:
    """Seconds of `7d`, `720h`, `15m`, `30s`."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    seconds = int(match[1]) * _SECONDS[match[2]] if match else _DURATION_MAX + 1
    if seconds > _DURATION_MAX:
        raise refuse("a duration such as 7d, 720h, 15m or 30s, at most 36500d")
    return seconds


def retention(value: object) -> int:
    """Seconds of a duration; FOREVER, BROKER for these words."""
    if value == "forever":
        return FOREVER
    if value == "broker":
        return BROKER
    try:
        return duration(value)
    except PydanticCustomError:
        raise refuse("a duration such as 7d, or `forever`, or `broker`") from None


def _checked(holds: Callable[[str], bool], expected: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not isinstance(value, str) or not holds(value):
            raise refuse(expected)
        return value

    return check


def is_topic(text: str) -> bool:
    """True for a Kafka topic name; may hold `*`."""
    return len(text) <= KAFKA_TOPIC_MAX and _TOPIC.fullmatch(text) is not None and text not in (".", "..")


def is_group_pattern(text: str) -> bool:
    """True for a group name, or one that holds `*`."""
    if "*" in text:
        return _GROUP_PATTERN.fullmatch(text) is not None and names.is_group_name(text.replace("*", "x"))
    return names.is_group_name(text)


def is_subject_pattern(text: str) -> bool:
    """True for a NATS subject pattern: tokens, `*` for one, a `{name}` that captures one, `>` for one or more at the end."""
    parts = text.split(".")
    tail = parts.pop() if parts[-1] == ">" else ""
    captured = [part for part in parts if _CAPTURE.fullmatch(part)]
    whole = all(part == "*" or _TOKEN.fullmatch(part) or _CAPTURE.fullmatch(part) for part in parts)
    return whole and bool(parts or tail) and len(captured) == len(set(captured)) and len(text) <= 1024


def fingerprint(size: int) -> Callable[[object], bytes]:
    """A validator of `size` bytes in hex, as `trust show` prints them: spaces and colons between groups are left out."""

    def check(value: object) -> bytes:
        text = value.replace(" ", "").replace(":", "").lower() if isinstance(value, str) else ""
        if len(text) != 2 * size or not _HEX.fullmatch(text):
            raise refuse(f"{size} bytes in hex ({2 * size} digits), quoted")
        return bytes.fromhex(text)

    return check


def _text(validator: Callable[[object], Any], pattern: str | None = None) -> tuple[BeforeValidator, WithJsonSchema]:
    schema: dict[str, Any] = {"type": "string"}
    if pattern:
        schema["pattern"] = pattern
    return BeforeValidator(validator), WithJsonSchema(schema)


Duration = Annotated[int, *_text(duration, r"^[0-9]+[smhd]$|\$\{")]
Retention = Annotated[int, *_text(retention, r"^([0-9]+[smhd]|forever|broker)$|\$\{")]
Identity = Annotated[str, *_text(_checked(names.is_identity, "a canonical identity such as agent://acme/billing"))]
Prefix = Annotated[str, *_text(_checked(names.is_prefix, "a prefix of identities that ends in `/`, such as agent://acme/"))]
RolePattern = Annotated[
    str, *_text(_checked(names.is_role_pattern, "an identity, with `*` for a part of a segment, such as agent://acme/shop-*"))
]
IdentityTemplate = Annotated[
    str,
    *_text(
        _checked(
            lambda text: names.is_identity(_CAPTURE.sub("x", text)),
            "an identity in which `{name}` stands for a token that `subjects` captures, such as agent://acme/{agent}",
        )
    ),
]
TopicName = Annotated[str, *_text(_checked(is_topic, "a topic name of [A-Za-z0-9._-], at most 249 characters; `*` for any part"))]
SubjectPattern = Annotated[
    str, *_text(_checked(is_subject_pattern, "a NATS subject; `*` is one token, `{name}` captures one, `>` is one or more at the end"))
]
GroupName = Annotated[str, *_text(_checked(names.is_group_name, "a group name: 1 to 200 of [A-Za-z0-9._-], not ending in `.g` and digits"))]
GroupPattern = Annotated[
    str, *_text(_checked(is_group_pattern, "a group name (1 to 200 of [A-Za-z0-9._-], not ending in `.g` and digits); `*` for any part"))
]
HeaderName = Annotated[
    str, *_text(_checked(lambda text: _HEADER.fullmatch(text) is not None, "the name of a header, or the beginning of one and `*`"))
]
KeyHash = Annotated[bytes, *_text(fingerprint(32))]
SchemaFingerprint = Annotated[bytes, *_text(fingerprint(8))]
