"""Names that travel have one spelling, and patterns fit what they say."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_crypto.limits import GROUP_NAME_MAX, IDENTITY_MAX
from broker_crypto.wire import names

SEGMENT = st.text("abcXYZ019._~@:+=-", min_size=1, max_size=6).filter(lambda text: text not in (".", ".."))
IDENTITY = st.builds(lambda parts: "agent://acme/" + "/".join(parts), st.lists(SEGMENT, min_size=1, max_size=4))


@pytest.mark.parametrize(
    "text",
    ["agent://acme/billing", "spiffe://example.org/ns/prod/sa/billing", "a://b/c", "agent://acme/a_b~c@d:e+f=g.h-i", "x+y.z-1://a.b_c-d/e"],
)
def test_a_canonical_identity_is_one(text: str) -> None:
    assert names.is_identity(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "agent://acme",
        "agent://acme/",
        "agent:///billing",
        "agent://acme//billing",
        "agent://acme/billing/",
        "Agent://acme/billing",
        "agent://Acme/billing",
        "agent://acme:80/billing",
        "agent://user@acme/billing",
        "agent://acme/./billing",
        "agent://acme/..",
        "agent://../billing",
        "agent://acme/bill%69ng",
        "agent://acme/billing?x",
        "agent://acme/billing#x",
        "agent://acme/bill ing",
        "agent://acme/billing\n",
        "agent://acme/b\u00e4r",
        "agent://acme/*",
        "1agent://acme/billing",
        "agent:acme/billing",
        "agent://acme/" + "a" * IDENTITY_MAX,
    ],
)
def test_another_spelling_is_no_identity(text: str) -> None:
    assert not names.is_identity(text)


def test_a_prefix_ends_in_a_slash() -> None:
    assert all(map(names.is_prefix, ["agent://acme/", "agent://acme/team/", "spiffe://a.b/ns/x/"]))
    assert not any(
        map(
            names.is_prefix, ["agent://acme", "agent://acme/team", "agent:///", "agent://acme//", "agent://acme/../", "agent://*/", "/", ""]
        )
    )


@given(IDENTITY)
def test_an_identity_lies_under_each_of_its_prefixes_and_no_other(identity: str) -> None:
    parts = identity.split("/")
    for count in range(3, len(parts)):
        prefix = "/".join(parts[:count]) + "/"
        assert names.is_prefix(prefix)
        assert names.lies_under(identity, prefix)
        assert not names.lies_under(identity, prefix[:-1])
    assert not names.lies_under(identity, identity + "/")


def test_a_role_pattern_is_an_identity_with_stars_in_its_path() -> None:
    assert all(map(names.is_role_pattern, ["agent://acme/*", "agent://acme/shop-*", "agent://acme/*/x*y", "agent://acme/billing"]))
    assert not any(
        map(names.is_role_pattern, ["agent://*/billing", "*", "*://acme/x", "agent://acme/", "agent://acme/**/", "agent://acme/?"])
    )


@pytest.mark.parametrize(
    ("pattern", "identity", "holds"),
    [
        ("agent://acme/shop-*", "agent://acme/shop-1", True),
        ("agent://acme/shop-*", "agent://acme/shop-", True),
        ("agent://acme/shop-*", "agent://acme/shop", False),
        ("agent://acme/shop-*", "agent://acme/shop-1/x", False),
        ("agent://acme/*", "agent://acme/a/b", False),
        ("agent://acme/*/b", "agent://acme/a/b", True),
        ("agent://acme/*/b", "agent://acme/a/c/b", False),
        ("agent://acme/a*b*c", "agent://acme/abbc", True),
        ("agent://acme/a*b*c", "agent://acme/acb", False),
        ("agent://acme/a*a", "agent://acme/a", False),
        ("agent://acme/billing", "agent://acme/Billing", False),
    ],
)
def test_a_star_does_not_cross_a_slash(pattern: str, identity: str, holds: bool) -> None:
    assert names.fits(pattern, identity) is holds


@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_a_star_is_any_run_of_characters(pattern: str, text: str) -> None:
    expected = re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) is not None
    assert names.glob(pattern, text) is expected


def test_many_stars_cost_no_more_than_their_length() -> None:
    assert not names.glob("*a" * 1000 + "b", "a" * 2000)


@given(st.text("abAB01._-", min_size=1, max_size=12))
def test_a_group_name_is_short_and_says_no_generation(name: str) -> None:
    assert names.is_group_name(name) is (re.search(r"\.g[0-9]+$", name) is None)
    assert names.is_group_name(names.log_name(name, 1)) is False


def test_group_names_of_other_characters_or_lengths_are_none() -> None:
    assert names.is_group_name("x" * GROUP_NAME_MAX)
    assert not any(map(names.is_group_name, ["", "x" * (GROUP_NAME_MAX + 1), "a b", "a/b", "a*", "\u00e4", "a\n", "orders.g0"]))
    assert names.log_name("orders", 0) == "orders"
    assert names.log_name("orders", 12) == "orders.g12"
