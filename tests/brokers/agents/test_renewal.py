"""A certificate is renewed under a running agent: it goes on with the new key, and others with it."""

from __future__ import annotations

import pytest
from nats.aio.client import Client

from broker_crypto import limits
from broker_crypto.identity import generate, keys
from broker_crypto.wire import pem
from tests.support.agents import Cast, Realm, number_of, take, until, uri


async def test_a_renewed_certificate_with_a_new_key_comes_in_by_itself_and_records_name_the_same_sender(
    realm: Realm, raw: Client, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CERTIFICATE_LOOK_SECONDS", 0.5)
    await realm.stream(raw)
    writer, reader = await cast("ops"), await cast("reader-1")
    await until(lambda: writer.group.epoch == reader.group.epoch)
    await writer.publish(1)
    epoch, leaf = reader.group.epoch, writer.group.leaf
    who, key = generate(realm.authority, uri("ops"), now_ms=realm.now_ms(), days=200)
    place = realm.folder / "keys" / "acme"
    (place / "ops.key").unlink()
    keys.write(place / "ops.key", key)
    (place / "ops.pem").write_bytes(pem.write_certificates(who.chain))
    await until(lambda: reader.group.epoch > epoch, "a path with the new certificate")
    await writer.publish(2)
    messages = await take(await reader.reader("r"), 2)
    assert [(number_of(m.data), m.security.sender) for m in messages] == [(1, uri("ops")), (2, uri("ops"))]
    assert writer.group.leaf == leaf
    again = [m for m in reader.group.members if m.identity == uri("ops")]
    assert [m.leaf for m in again] == [leaf]
