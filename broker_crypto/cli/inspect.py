"""`broker-crypto inspect`: what anybody can see of an envelope, without keys."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import click

from broker_crypto import policy
from broker_crypto.channels.record import COMPRESSED, HEADERS, MARKER, PADDED, read_record
from broker_crypto.cli.output import Output, machine_readable, policy_option
from broker_crypto.cli.reach import reached
from broker_crypto.delivery import log_records
from broker_crypto.errors import MalformedInput, MalformedRecord, NotEncrypted, UnsupportedRecord, UsageError
from broker_crypto.mls.framing import MLSMessage, PublicMessage
from broker_crypto.wire.envelopes import GROUP_RECORD, PUBLISHED

_FLAGS = ((COMPRESSED, "compressed"), (PADDED, "padded"), (HEADERS, "headers sealed"))
_KINDS = {log_records.FOUNDING: "founding", log_records.COMMIT: "commit", log_records.LEAVE: "leave"}
_STORED = re.compile(r"(?P<stream>[^@\s]+)@(?P<sequence>[1-9][0-9]*)")
MOST = 64 * 1024 * 1024  # bytes read from a file or stdin


@click.command("inspect")
@click.argument("what", default="-")
@policy_option
@machine_readable
def command(out: Output, policy_file: Path, what: str) -> None:
    """Show an envelope's fields: of bytes on stdin (-), of a file, or of STREAM@SEQUENCE on the policy's NATS broker.

    \b
    Example:
      broker-crypto inspect ORDERS@17
      nats stream get ORDERS 17 --json | jq -r .data | base64 -d | broker-crypto inspect
    """
    stored = _STORED.fullmatch(what)
    if stored and not Path(what).exists():
        data = asyncio.run(_stored(policy.load(policy_file), stored["stream"], int(stored["sequence"])))
    else:
        data = sys.stdin.buffer.read(MOST) if what == "-" else _file(Path(what))
    fields = describe(data)
    out.table(("", ""), [(name.replace("_", " "), value) for name, value in fields.items()])
    out.result(fields)


def _file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST)


async def _stored(loaded: policy.Policy, stream: str, sequence: int) -> bytes:
    named = [b for b in loaded.brokers.values() if b.type == "nats"]
    if len(named) != 1:
        raise UsageError("STREAM@SEQUENCE needs exactly one NATS broker in the policy", brokers=[b.name for b in named])
    async with reached(loaded, named[0].name) as connection:
        data: bytes = await connection.stored(stream, sequence)
    return data


def describe(data: bytes) -> dict[str, Any]:
    """The fields of one envelope. Raises NotEncrypted, UnsupportedRecord, MalformedRecord, MalformedInput."""
    if data.startswith(MARKER):
        return _topic_record(data)
    if data.startswith(GROUP_RECORD.marker):
        return _group_record(data)
    if data[:2] != MARKER[:2]:
        raise NotEncrypted("no envelope: the bytes do not begin with C3 01", size=len(data))
    known = next((name for name, codec in PUBLISHED.items() if data.startswith(codec.marker)), None)
    raise UnsupportedRecord("an envelope of another kind", fingerprint=data[2:10].hex(), schema=known)


def _topic_record(data: bytes) -> dict[str, Any]:
    prefix, rest = read_record(data)
    return {
        "kind": "topic record",
        "epoch": prefix.epoch,
        "epoch_id": prefix.epoch_id.hex(),
        "leaf": prefix.leaf,
        "stream": prefix.stream.hex(),
        "sequence": rest.sequence,
        "place": rest.place.hex(),
        "flags": [word for flag, word in _FLAGS if rest.flags & flag],
        "ciphertext_bytes": len(rest.ciphertext),
        "batch_index": rest.batch_index,
        "batch_path_hashes": len(rest.batch_path) // 32,
        "signature_bytes": len(rest.signature),
        "bytes": len(data),
    }


def _group_record(data: bytes) -> dict[str, Any]:
    try:
        record = log_records.GroupRecord.decode(data)
    except MalformedInput as error:
        raise MalformedRecord(error.what) from None
    if record is None:
        raise UnsupportedRecord("a group record of another kind or too large", size=len(data))
    found: dict[str, Any] = {"kind": _KINDS[record.kind], "epoch": record.epoch, "message_bytes": len(record.message)}
    if record.kind != log_records.LEAVE:
        body = MLSMessage.decode(record.message).body
        found["message"] = type(body).__name__
        if isinstance(body, PublicMessage):
            found["sender"] = body.content.sender.type.name.lower()
            found["group_id"] = body.content.group_id.hex()
            found["signed_time_ms"] = log_records.CommitData.decode(body.content.authenticated_data).time
    return found | {"group_info_bytes": len(record.group_info), "bytes": len(data)}
