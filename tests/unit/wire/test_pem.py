"""PEM files of certificates."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_crypto.errors import MalformedInput
from broker_crypto.wire import pem


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4))
def test_certificates_read_back_in_their_order_whatever_stands_between(chain: list[bytes]) -> None:
    written = pem.write_certificates(tuple(chain))
    assert pem.certificates(written) == tuple(chain)
    assert pem.certificates(b"# a note\n" + written.replace(b"\n", b"\r\n")) == tuple(chain)


@given(st.binary(min_size=1, max_size=300))
def test_it_is_the_pem_of_others(der: bytes) -> None:
    assert ssl.PEM_cert_to_DER_cert(pem.write_certificates((der,)).decode()) == der
    assert pem.certificates(ssl.DER_cert_to_PEM_cert(der).encode()) == (der,)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no block",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n",
        b"-----BEGIN CERTIFICATE-----\nA!AA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ],
)
def test_a_file_that_is_broken_or_holds_none_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        pem.certificates(data)


def test_a_private_key_beside_certificates_is_refused_and_not_quoted() -> None:
    data = pem.write_certificates((b"x",)) + b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
    with pytest.raises(MalformedInput, match="PRIVATE KEY") as caught:
        pem.certificates(data)
    assert "c2VjcmV0" not in str(caught.value)
