"""deserialization.json of the MLS working group: lengths of variable-size vectors."""

from __future__ import annotations

from broker_crypto.wire import tls
from tests.vectors.vectors_path import load

CASES = load("mls/deserialization.json")


def test_every_length_header_is_read_and_written_as_published() -> None:
    for case in CASES:
        header, length = bytes.fromhex(case["vlbytes_header"]), case["length"]
        assert set(case) == {"vlbytes_header", "length"}
        assert tls.decode(header, tls.Reader.length) == length
        assert tls.length_prefix(length) == header
    assert len(CASES) == 14
