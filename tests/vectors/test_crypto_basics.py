"""crypto-basics.json of the MLS working group: derivation, references, signatures and HPKE of every suite."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from broker_crypto.crypto import Suite, suite
from tests.vectors.vectors_path import load

CASES = {case["cipher_suite"]: case for case in load("mls/crypto-basics.json")}
h = bytes.fromhex


def _expand_with_label(s: Suite, v: dict[str, Any]) -> None:
    assert s.expand_with_label(h(v["secret"]), v["label"], h(v["context"]), v["length"]) == h(v["out"])


def _derive_secret(s: Suite, v: dict[str, Any]) -> None:
    assert s.derive_secret(h(v["secret"]), v["label"]) == h(v["out"])


def _derive_tree_secret(s: Suite, v: dict[str, Any]) -> None:
    assert s.derive_tree_secret(h(v["secret"]), v["label"], v["generation"], v["length"]) == h(v["out"])


def _ref_hash(s: Suite, v: dict[str, Any]) -> None:
    assert s.ref_hash(v["label"], h(v["value"])) == h(v["out"])


def _sign_with_label(s: Suite, v: dict[str, Any]) -> None:
    private, public, content = h(v["priv"]), h(v["pub"]), h(v["content"])
    assert s.signature_public_of(private) == public
    assert s.verify_with_label(public, v["label"], content, h(v["signature"]))
    assert not s.verify_with_label(public, v["label"] + "x", content, h(v["signature"]))
    ours = s.sign_with_label(private, v["label"], content)
    assert s.verify_with_label(public, v["label"], content, ours, low_s=True)
    if s.number in (1, 3, 4, 6):
        assert ours == h(v["signature"])


def _encrypt_with_label(s: Suite, v: dict[str, Any]) -> None:
    private, public, context, plaintext = h(v["priv"]), h(v["pub"]), h(v["context"]), h(v["plaintext"])
    assert s.public_of(private) == public
    assert s.decrypt_with_label(private, v["label"], context, h(v["kem_output"]), h(v["ciphertext"])) == plaintext
    kem_output, ciphertext = s.encrypt_with_label(public, v["label"], context, plaintext, secrets.token_bytes)
    assert s.decrypt_with_label(private, v["label"], context, kem_output, ciphertext) == plaintext


CHECKS: dict[str, tuple[Callable[[Suite, dict[str, Any]], None], set[str]]] = {
    "expand_with_label": (_expand_with_label, {"secret", "label", "context", "length", "out"}),
    "derive_secret": (_derive_secret, {"secret", "label", "out"}),
    "derive_tree_secret": (_derive_tree_secret, {"secret", "label", "generation", "length", "out"}),
    "ref_hash": (_ref_hash, {"label", "value", "out"}),
    "sign_with_label": (_sign_with_label, {"priv", "pub", "content", "label", "signature"}),
    "encrypt_with_label": (_encrypt_with_label, {"priv", "pub", "label", "context", "plaintext", "kem_output", "ciphertext"}),
}


def test_the_file_has_one_case_of_each_suite_with_the_fields_that_are_compared() -> None:
    assert sorted(CASES) == [1, 2, 3, 4, 5, 6, 7]
    for case in CASES.values():
        assert set(case) == {"cipher_suite", *CHECKS}
        for name, (_, fields) in CHECKS.items():
            assert set(case[name]) == fields, name


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("number", range(1, 8))
def test_the_suite_agrees_with_the_published_values(number: int, name: str) -> None:
    CHECKS[name][0](suite(number), CASES[number][name])
