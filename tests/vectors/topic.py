"""Runs files of topic record vectors (format: tests/vectors/data/README.md).

    python -m tests.vectors.topic FILE...

Everything a file says is compared and counted; what needs a part of the format that is not built is counted by name.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import fastavro.schema

from broker_crypto import errors
from broker_crypto.channels import batch, inner, record
from broker_crypto.channels.keys import TopicKeys, signed_bytes
from broker_crypto.channels.record import COMPRESSED
from broker_crypto.channels.sealing import Prepared, SealingEpoch
from broker_crypto.channels.topic import TopicChannel, TopicSettings
from broker_crypto.crypto import suite
from broker_crypto.limits import MAX_RECORD
from broker_crypto.mls.key_schedule import EpochSecrets
from broker_crypto.records import Behind, EpochView, Fence, GroupView, Opened, Place, RosterEntry
from tests.support.snapshot import snapshot

Json = dict[str, Any]
NOT_BUILT = {"compress", "aliases"}
ERRORS = {kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RecordRefused)}


class Differs(AssertionError):
    """A value is not what the file says."""


@dataclass
class Report:
    """How often what was compared, and what was left out for which part of the format."""

    compared: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    names_left_out: list[str] = field(default_factory=list)

    def equal(self, what: str, got: object, expected: object, where: str) -> None:
        if type(got) is not type(expected) or got != expected:
            raise Differs(f"{where}: {what} is {got!r}, not {expected!r}")
        self.compared[what] += 1

    def leave_out(self, needs: Sequence[str], name: str) -> None:
        self.left_out["+".join(sorted(NOT_BUILT & set(needs)))] += 1
        self.names_left_out.append(name)


def octets(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def hexed(text: str) -> bytes:
    return bytes.fromhex(text)


def headers_of(given: list[list[str | None]] | None) -> list[tuple[str, bytes | None]] | None:
    return None if given is None else [(str(name), octets(value)) for name, value in given]


def place_of(entry: Json, topic: str) -> Place:
    position = entry.get("position")
    at = None if position is None or position["at"] is None else (position["identity"], position["at"])
    return Place(topic, entry["partition"], entry["subject"], octets(entry["key"]), at)


class Case:
    """One case with the reader's view of its epoch."""

    def __init__(self, case: Json, topics: frozenset[str]) -> None:
        self.case, self.topics, self.name, self.topic = case, topics, case["name"], case["topic"]
        self.suite = suite(case["suite"])
        self.epoch_id, self.group_id = hexed(case["epoch_id"]), hexed(case["group_id"])
        nothing = b""
        secrets = (nothing, nothing, hexed(case["exporter_secret"]), *[nothing] * 5)
        self.exporter = EpochSecrets(self.suite, *secrets)

    def epoch_view(self, reader: Json) -> EpochView:
        case = self.case
        roster = {
            entry["leaf"]: RosterEntry(f"agent://test/{entry['leaf']}", hexed(entry["public"]), entry["may_write"])
            for entry in reader.get("roster", case["roster"])
        }
        fences: dict[int, list[Fence]] = {}
        for fence in reader.get("fences", ()):
            if case["epoch"] <= fence["epoch"]:
                ends = {(topic["topic"], topic["identity"]): dict(topic["first_refused"]) for topic in fence["topics"]}
                fences.setdefault(fence["leaf"], []).append(Fence(ends))
        return EpochView(
            case["epoch"], self.epoch_id, case["suite"], self.group_id, hexed(case["stream_secret"]), roster, self.topics, fences
        )

    def view(self, reader: Json | None = None) -> GroupView:
        reader, epoch = reader or {}, self.case["epoch"]
        view = self.epoch_view(reader)
        return GroupView(
            epochs={self.epoch_id: view},
            current=reader.get("current", epoch),
            sealing=view,
            leaf=self.case["leaf"],
            absent=[(first, last) for first, last in reader.get("absent", [[0, epoch - 1]])],
            missed=[(first, last) for first, last in reader.get("missed", ())],
            erased=frozenset(map(hexed, reader.get("erased", ()))),
            other_groups=frozenset(map(hexed, reader.get("other_groups", ()))),
            signature_private=hexed(self.case["signature_private"]),
        )

    def channel(self, topic: str | None = None, reader: Json | None = None) -> TopicChannel:
        channel = TopicChannel(TopicSettings(topic or self.topic), lambda n: hexed(self.case["stream"]))
        channel.view = self.view(reader)
        return channel

    def readable(self) -> list[Json]:
        return [entry for entry in self.case["records"] if not entry.get("flags", 0) & COMPRESSED]

    def opened(self, channel: TopicChannel, entry: Json, report: Report | None = None) -> None:
        """Open one record of the case; its payload, headers and sender are as the file says."""
        [result] = channel.open([(place_of(entry, self.topic), hexed(entry["record"]), None)], final=True)
        if not isinstance(result, Opened):
            raise Differs(f"{self.name}: {result!r}")
        count = report or Report()
        count.equal("opened payload", result.payload, hexed(entry["payload"]), self.name)
        count.equal("opened headers", result.headers, headers_of(entry.get("headers")), self.name)
        said = result.security
        count.equal("opened sender", (said.leaf, said.sender), (self.case["leaf"], f"agent://test/{self.case['leaf']}"), self.name)
        count.equal("opened epoch", said.epoch, self.case["epoch"], self.name)


def derive(case: Case, report: Report) -> None:
    """Every derived value of a case."""
    given, name = case.case, case.name
    report.equal("epoch_id", case.exporter.export("broker_crypto epoch id v1", case.group_id, 16), case.epoch_id, name)
    stream_secret = case.exporter.export("broker_crypto stream v1", case.group_id, case.suite.nh)
    report.equal("stream_secret", stream_secret, hexed(given["stream_secret"]), name)
    keys = TopicKeys(case.epoch_view({}), case.topic)
    report.equal("topic_secret", keys.topic_secret.reveal(), hexed(given["topic_secret"]), name)
    report.equal("place_key", keys.place_key, hexed(given["place_key"]), name)
    for sender in given["senders"]:
        derived = keys.sender(given["leaf"], hexed(given["stream"]), sender["partition"])
        for what, value in derived._asdict().items():
            report.equal(what, value, hexed(sender[what]), name)
    public = case.suite.signature_public_of(hexed(given["signature_private"]))
    report.equal("signature_public", public, hexed(given["signature_public"]), name)
    for entry in given["records"]:
        where = keys.where(entry["partition"], entry["subject"])
        report.equal("place_hash", where.place_hash(octets(entry["key"])), hexed(entry["place_hash"]), name)


def seal(case: Case, report: Report) -> None:
    """The batch, sealed anew: from the plaintext that the file gives where it is compressed."""
    given, name = case.case, case.name
    channel = case.channel()
    epoch = SealingEpoch(case.epoch_view({}), case.topic, given["leaf"], hexed(given["signature_private"]))
    batch_of = []
    for entry in given["records"]:
        flags, plaintext = entry.get("flags", 0), hexed(entry.get("inner", entry["payload"]))
        if not flags & COMPRESSED:
            wrapped = inner.wrap(hexed(entry["payload"]), headers_of(entry.get("headers")), entry.get("padding", 0))
            report.equal("inner", wrapped, (flags, plaintext), name)
        batch_of.append(Prepared(entry["partition"], hexed(entry["place_hash"]), flags, plaintext, ()))
    number(channel, epoch, given["records"])
    compare_sealed(case, [sealed.data for sealed in channel._sealer._seal_batch(epoch, batch_of)], report)
    if not any(entry.get("flags", 0) for entry in given["records"]):
        through_the_front_door(case, report)


def number(channel: TopicChannel, epoch: SealingEpoch, records: Sequence[Json]) -> None:
    """The file's sequences: as if what came before them had been sealed."""
    stream = channel._sealer._stream
    epoch.begin(stream)
    for entry in reversed(records):
        epoch.key(entry["partition"], stream).numbers.next = entry["sequence"]


def through_the_front_door(case: Case, report: Report) -> None:
    channel = case.channel()
    channel._sealing = channel._enter()
    number(channel, channel._sealing, case.case["records"])
    items = [(place_of(entry, case.topic), hexed(entry["payload"]), None) for entry in case.case["records"]]
    compare_sealed(case, [sealed.data for sealed in channel.seal(items)], report)


def compare_sealed(case: Case, written: list[bytes], report: Report) -> None:
    given, name = case.case, case.name
    same_signature = case.suite.signature_scheme.name in ("Ed25519", "Ed448")
    report.equal("records in a batch", len(written), len(given["records"]), name)
    for entry, data in zip(given["records"], written, strict=True):
        prefix, rest = record.read_record(data)
        _, expected = record.read_record(hexed(entry["record"]))
        leaf = batch.leaf_hash(rest.header, rest.ciphertext)
        report.equal("header", rest.header, hexed(entry["header"]), name)
        report.equal("sequence", rest.sequence, entry["sequence"], name)
        report.equal("stream", prefix.stream, hexed(given["stream"]), name)
        report.equal("ciphertext", rest.ciphertext, expected.ciphertext, name)
        report.equal("batch_path", (rest.batch_index, rest.batch_path), (expected.batch_index, expected.batch_path), name)
        report.equal("leaf_hash", leaf, hexed(entry["leaf_hash"]), name)
        root = batch.root(leaf, rest.batch_index, rest.batch_path)
        report.equal("root", root, hexed(given["root"]), name)
        holds = case.suite.signature_scheme.verify(
            hexed(given["signature_public"]), signed_bytes(case.group_id) + root, rest.signature, low_s=True
        )
        report.equal("signature", holds, True, name)
        if same_signature:
            report.equal("signature as given", rest.signature, hexed(given["signature"]), name)
            report.equal("record", data, hexed(entry["record"]), name)
        if not rest.flags & COMPRESSED:
            case.opened(case.channel(), {**entry, "record": data.hex()}, report)


def open_each(case: Case, report: Report, shuffle: random.Random) -> None:
    """Every record alone, in any order; with empty caches, then with full ones."""
    shared = case.channel()
    for _ in ("filling", "full"):
        entries = case.readable()
        shuffle.shuffle(entries)
        for entry in entries:
            case.opened(case.channel(), entry, report)
            case.opened(shared, entry, report)
    for entry in case.case["records"]:
        if entry.get("flags", 0) & COMPRESSED:
            report.leave_out(["compress"], f"{case.name}: record {entry['sequence']}")


def open_listed(case: Case, entry: Json, report: Report) -> None:
    """An entry of `opens`."""
    channel = case.channel(entry["topic"], entry.get("reader"))
    [result] = channel.open([(place_of(entry, entry["topic"]), hexed(entry["record"]), None)], final=True)
    if not isinstance(result, Opened):
        raise Differs(f"{entry['name']}: {result!r}")
    if "payload" in entry:
        report.equal("payload of `opens`", result.payload, hexed(entry["payload"]), entry["name"])
    else:
        report.equal("payload of `opens`", sha256(result.payload).digest(), hexed(entry["payload_sha256"]), entry["name"])
    report.equal("headers of `opens`", result.headers, headers_of(entry.get("headers")), entry["name"])


def refuse(case: Case, entry: Json, report: Report) -> None:
    """An entry of `negative`, with empty caches and with full ones."""
    for filled in (False, True):
        channel = case.channel(entry["topic"])
        if filled and entry["topic"] == case.topic:
            for known in case.readable():
                case.opened(channel, known)
        channel.view = case.view(entry.get("reader"))
        before = snapshot(channel)
        item = (place_of(entry, entry["topic"]), hexed(entry["record"]), None)
        [result] = channel.open([item], final=True)
        report.equal("error", type(result), ERRORS[entry["error"]], entry["name"])
        report.equal("caches and windows", snapshot(channel) == before, True, entry["name"])
        if entry["error"] == "EpochNotReached":
            report.equal("behind", [type(one) for one in channel.open([item])], [Behind], entry["name"])
        channel.view = case.view()
        untouched = channel if entry["topic"] == case.topic else case.channel()
        case.opened(untouched, case.readable()[0])
        report.compared["untouched record opens"] += 1
    report.compared[f"refused {entry['error']}"] += 1


def schema(data: Json, report: Report, name: str) -> None:
    """The schema is ours: its canonical form, and that form's fingerprint as it stands in every record."""
    canonical = fastavro.schema.to_parsing_canonical_form(data["schema"])
    report.equal("canonical form", canonical, data["canonical_form"], name)
    fingerprint = hexed(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
    report.equal("fingerprint", fingerprint, hexed(data["fingerprint"]), name)
    report.equal("fingerprint of ours", record.FINGERPRINT, fingerprint, name)
    report.equal("max_record", MAX_RECORD, data["max_record"], name)


def run(file: Path, seed: int = 1) -> Report:
    """Run one file. Raises Differs at the first value that is not as the file says."""
    data = json.loads(file.read_bytes())
    report = Report()
    schema(data, report, file.name)
    named = [entry["topic"] for part in ("cases", "opens", "negative") for entry in data[part]]
    cases = {case["name"]: Case(case, frozenset(named)) for case in data["cases"]}
    for case in cases.values():
        derive(case, report)
        seal(case, report)
        open_each(case, report, random.Random(seed))
        report.compared["cases"] += 1
    for part, step in (("opens", open_listed), ("negative", refuse)):
        for entry in data[part]:
            if NOT_BUILT & set(entry.get("needs", ())):
                report.leave_out(entry["needs"], f"{entry['case']}: {entry['name']}")
            else:
                step(cases[entry["case"]], entry, report)
                report.compared[part] += 1
    return report


def main(files: Sequence[str]) -> int:
    if not files:
        print((__doc__ or "").strip())
        return 2
    failed = 0
    for file in files:
        try:
            report = run(Path(file))
        except Differs as difference:
            failed = 1
            print(f"{file}: FAILED: {difference}")
            continue
        print(f"{file}: {sum(report.compared.values())} values compared")
        for what, count in sorted(report.compared.items()):
            print(f"  {count:7} {what}")
        for needs, count in sorted(report.left_out.items()):
            print(f"  {count:7} left out, needing {needs}, which is not built")
        for name in report.names_left_out:
            print(f"          left out: {name}")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
