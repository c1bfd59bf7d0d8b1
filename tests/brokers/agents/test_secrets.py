"""No secret and no plaintext in anything that an operator sees: logs, errors, reprs, events, figures, files."""

from __future__ import annotations

import asyncio
import base64
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from broker_crypto import errors
from broker_crypto.crypto import Secret
from broker_crypto.crypto.suites import Suite
from tests.support.agents import Cast, Member, Realm, take, together, until

PLAINTEXT = b"only members may read this sentence"
HEADER = "bearer-of-a-token-nobody-may-see"


class Watched:
    """Every secret that is made: derived, drawn for a key, held by `Secret`."""

    def __init__(self) -> None:
        self.secrets: set[bytes] = set()

    def note(self, secret: bytes) -> bytes:
        if len(secret) >= 16:
            self.secrets.add(bytes(secret))
        return secret

    def found_in(self, text: bytes) -> list[str]:
        found = [secret.hex()[:8] for secret in self.secrets if any(form in text for form in self.forms(secret))]
        return found + [word for word in (PLAINTEXT.decode(), HEADER) if word.encode() in text]

    @staticmethod
    def forms(secret: bytes) -> tuple[bytes, ...]:
        whole = base64.b64encode(secret).rstrip(b"=")
        return secret, secret.hex().encode(), secret.hex().upper().encode(), whole[:-1], repr(secret).encode()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    watch = Watched()
    init, expand, derive, pair = Secret.__init__, Suite.expand_with_label, Suite.derive_secret, Suite.derive_key_pair

    def keep(self: Suite, secret: bytes, label: str, context: bytes, n: int) -> bytes:
        made = expand(self, secret, label, context, n)
        return made if (label, n) == ("exported", 16) else watch.note(made)  # an epoch's id stands in every record

    def keep_derived(self: Suite, secret: bytes, label: str) -> bytes:
        made = derive(self, secret, label)
        return made if label == "authentication" else watch.note(made)  # the epoch authenticator is there to be shown

    def keep_pair(self: Suite, ikm: bytes) -> tuple[bytes, bytes]:
        private, other = pair(self, ikm)
        return watch.note(private), other

    def hold(self: Secret, data: bytes) -> None:
        init(self, watch.note(bytes(data)))

    monkeypatch.setattr(Suite, "expand_with_label", keep)
    monkeypatch.setattr(Suite, "derive_secret", keep_derived)
    monkeypatch.setattr(Suite, "derive_key_pair", keep_pair)
    monkeypatch.setattr(Secret, "__init__", hold)
    return watch


def everything_of(realm: Realm) -> bytes:
    """All files of all stores."""
    return b"".join(path.read_bytes() for path in sorted((realm.folder / "state").rglob("*")) if path.is_file())


async def life(cast: Cast, realm: Realm, raw: Client, said: list[str]) -> None:
    """Found, join, publish, read, refuse in several ways, rotate, remove, revoke, leave, be closed."""

    def note(*things: Any) -> None:
        said.extend(text for thing in things for text in (str(thing), repr(thing)))

    js = await realm.stream(raw)
    ops, reader = await cast.all("ops", "reader-1")
    await ops.js.publish(f"{realm.root}.o.x", PLAINTEXT, headers={"Authorization": HEADER})
    await ops.group.rotate()
    await together(ops, reader)
    subscription = await reader.reader("r")
    (message,) = await take(subscription, 1)
    assert (message.data, message.headers["Authorization"]) == (PLAINTEXT, HEADER)
    note(message, message.security, ops.agent, ops.nc, ops.js, subscription, ops.group, ops.group.members, ops.agent.health())
    running = ops.agent._running[realm.topic]
    note(running.loop.member, running.view, ops.agent.policy, ops.agent._certificate, ops.agent._certificate.who)
    stored = await js.get_msg(realm.topic, 1)
    assert stored.data is not None
    await js.publish(f"{realm.root}.o.x", stored.data[:-200] + bytes((stored.data[-200] ^ 1,)) + stored.data[-199:])
    await js.publish(f"{realm.root}.o.y", stored.data)
    for _ in range(2):
        with pytest.raises(errors.RecordRefused) as refused:
            await take(subscription, 1)
        note(refused.value, refused.value.fields, "".join(traceback.format_exception(refused.value)))
    with pytest.raises(errors.MayNotWrite) as denied:
        await reader.js.publish(f"{realm.root}.o.x", PLAINTEXT)
    note(denied.value, *ops.events, *reader.events, ops.metrics, reader.metrics)
    note({name: repr(child) for name, child in vars(ops.metrics).items()})
    await parted(cast, ops, reader, note)


async def parted(cast: Cast, ops: Member, reader: Member, note: Callable[..., None]) -> None:
    """One is removed, one that is gone has its key revoked, one leaves."""
    removed, lost = await cast("writer-1"), await cast("writer-2")
    await together(ops, reader, removed, lost)
    await ops.group.remove(removed.agent.identity)
    leaf = lost.group.leaf
    await ops.group.remove(leaf=leaf)
    await reader.group.leave()
    await until(lambda: [m.identity for m in ops.group.members] == [ops.agent.identity], "it is alone again")
    for member in (removed, lost, reader):
        await until(lambda member=member: member.group.state in ("removed", "left"))
        with pytest.raises(errors.NotAMember) as outside:
            await member.js.publish(f"{ops.realm.root}.o.x", PLAINTEXT)
        loop = member.agent._running[ops.realm.topic].loop
        note(outside.value, *member.events, member.group, member.agent.health(), loop.member, loop.memory.fences, member.metrics)
    note(ops.agent._running[ops.realm.topic].loop.memory.fences, *ops.events)


async def test_no_secret_and_no_plaintext_shows_in_logs_errors_reprs_events_figures_or_files(
    cast: Cast, realm: Realm, raw: Client, watched: Watched, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    said: list[str] = []
    await life(cast, realm, raw, said)
    for name in ("ops", "reader-1"):
        key = (realm.folder / "keys" / "acme" / f"{name}.key").read_bytes()
        watched.secrets.add(base64.b64decode(b"".join(key.splitlines()[1:-1]))[-32:])
    watched.secrets.add(Path(realm.folder / "store.key").read_bytes())
    printed = capfd.readouterr()
    shown = "\n".join([*said, caplog.text, printed.out, printed.err]).encode("utf-8", "backslashreplace")
    assert len(watched.secrets) > 50
    assert not watched.found_in(shown)
    assert not watched.found_in(everything_of(realm))
    assert watched.found_in(b"..." + next(iter(watched.secrets)).hex().encode() + PLAINTEXT)  # the search finds
