"""Patterns of topics (`*` is any run of characters) and of NATS subjects (`*` one token, `{name}` one that is captured, `>` the
tail): what they match, which covers which, which overlap."""

from __future__ import annotations

from functools import cache

from broker_crypto.wire.names import glob


def match_subject(pattern: str, subject: str) -> dict[str, str] | None:
    """What the pattern captures of a subject (may be nothing), None where it does not match."""
    tokens = subject.split(".")
    captured: dict[str, str] = {}
    if not all(tokens):
        return None
    wanted = pattern.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(tokens) <= len(wanted):
            return None
    elif len(tokens) != len(wanted):
        return None
    for want, token in zip(wanted, tokens, strict=False):
        if want[0] == "{":
            captured[want[1:-1]] = token
        elif want not in ("*", token):
            return None
    return captured


def captures(pattern: str) -> frozenset[str]:
    """Names that a subject pattern captures."""
    return frozenset(token[1:-1] for token in pattern.split(".") if token[0] == "{")


def subject_covers(wide: str, narrow: str) -> bool:
    """True if `wide` matches every subject that `narrow` matches."""
    ours, theirs = _tokens(wide), _tokens(narrow)
    for at, mine in enumerate(ours):
        if mine == ">":
            return len(theirs) > at
        if at >= len(theirs) or theirs[at] == ">" or mine not in ("*", theirs[at]):
            return False
    return len(ours) == len(theirs)


def subjects_overlap(one: str, other: str) -> bool:
    """True if some subject matches both."""
    ours, theirs = _tokens(one), _tokens(other)
    for mine, its in zip(ours, theirs, strict=False):
        if ">" in (mine, its):
            return True
        if mine != its and "*" not in (mine, its):
            return False
    return len(ours) == len(theirs)


def _tokens(pattern: str) -> list[str]:
    return ["*" if token[0] == "{" else token for token in pattern.split(".")]


def topic_covers(wide: str, narrow: str) -> bool:
    """True if `wide` matches every topic that `narrow` matches: a `*` of `narrow` can only lie within a `*` of `wide`."""
    return glob(wide, narrow.replace("*", "\0"))


def topics_overlap(one: str, other: str) -> bool:
    """True if some topic matches both."""

    @cache
    def meet(at: int, its: int) -> bool:
        mine, yours = one[at : at + 1], other[its : its + 1]
        if mine == "*":
            return meet(at + 1, its) or (bool(yours) and meet(at, its + 1))
        if yours == "*":
            return meet(at, its + 1) or (bool(mine) and meet(at + 1, its))
        return mine == yours and (not mine or meet(at + 1, its + 1))

    return meet(0, 0)
