"""transcript-hashes.json of the MLS working group."""

from __future__ import annotations

from broker_crypto.crypto import suite as suite_of
from broker_crypto.mls import transcript
from broker_crypto.mls.framing import AuthenticatedContent, ContentType
from tests.vectors.vectors_path import load


def test_a_commit_moves_both_hashes_as_published_and_its_tag_holds() -> None:
    cases = load("transcript-hashes")
    assert [case["cipher_suite"] for case in cases] == [1, 2, 3, 4, 5, 6, 7]
    for case in cases:
        suite = suite_of(case["cipher_suite"])
        given = {name: bytes.fromhex(value) for name, value in case.items() if name != "cipher_suite"}
        assert set(given) == {
            "confirmation_key",
            "authenticated_content",
            "interim_transcript_hash_before",
            "confirmed_transcript_hash_after",
            "interim_transcript_hash_after",
        }
        commit = AuthenticatedContent.decode(given["authenticated_content"])
        assert commit.encode() == given["authenticated_content"]
        assert commit.content.content_type is ContentType.COMMIT
        confirmed = transcript.confirmed(suite, given["interim_transcript_hash_before"], commit)
        assert confirmed == given["confirmed_transcript_hash_after"]
        tag = commit.auth.confirmation_tag
        assert tag is not None
        assert suite.verify_mac(given["confirmation_key"], confirmed, tag)
        assert transcript.interim(suite, confirmed, tag) == given["interim_transcript_hash_after"]
