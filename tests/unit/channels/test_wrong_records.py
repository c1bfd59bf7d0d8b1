"""One switch for each thing that can be wrong with a topic record: the refusal of the docs, for every reader, and nothing changes."""

from __future__ import annotations

import ast
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import broker_crypto
from broker_crypto import errors
from broker_crypto.records import Behind, Opened
from tests.support.lies.records import RECORDS, WrongRecord
from tests.support.lies.topic_records import HERE, MUTE, OTHER, RecordScene, moved, write
from tests.support.snapshot import snapshot
from tests.support.topic_world import opened, refused

ROOM = Path(broker_crypto.__file__).parent
SCENES = {number: RecordScene(number) for number in (1, 2)}
CASES = [pytest.param(number, one, id=f"{one.name}-{number}") for one in RECORDS for number in one.suites]
SMALL = [one for one in RECORDS if len(one.bent.get("plaintext", b"")) < 2**16]


def readers(scene: RecordScene, caches: str) -> list[Any]:
    """Two members, with nothing seen yet or with records of the same sender behind them."""
    channels = [scene.channel(leaf) for leaf in (OTHER, MUTE)]
    if caches == "full":
        for epoch, stream in product(("current", "fenced"), (b"s" * 16, b"t" * 16)):
            for channel in channels:
                opened(channel, write(scene, epoch=epoch, fields={"stream": stream}), HERE)
    return channels


@pytest.mark.parametrize("caches", ["empty", "full"])
@pytest.mark.parametrize(("number", "switch"), CASES)
def test_every_reader_gives_the_refusal_of_the_docs_nothing_changes_and_the_genuine_record_opens(
    number: int, switch: WrongRecord, caches: str
) -> None:
    scene = SCENES[number]
    stream = {"stream": b"s" * 16, "sequence": 7}
    fields = {**stream, **switch.bent.get("fields", {})}
    data = switch.write(scene, fields=fields)
    for channel in readers(scene, caches):
        before = snapshot(channel)
        error = refused(channel, data, switch.at)
        assert type(error) is switch.error
        assert error.what == switch.what
        assert snapshot(channel) == before
        assert opened(channel, write(scene, fields=stream)).payload == b"payload"


@pytest.mark.parametrize("number", SCENES)
def test_what_the_switches_bend_opens_unbent_as_a_channel_s_own_record_does(number: int) -> None:
    scene = SCENES[number]
    bents: list[dict[str, Any]] = [
        {},
        {"batch": (1, bytes(32))},
        {"batch": (63, bytes(6 * 32))},
        {"fields": {"sequence": 2**32 - 1}},
        {"fields": {"flags": 2}, "plaintext": b"payload\x80" + bytes(5)},
        {"fields": {"flags": 4}, "plaintext": bytes((0, 0, 0, 1, 0)) + b"payload"},
    ]
    for bent in bents:
        said = opened(scene.channel(OTHER), write(scene, **bent))
        assert (said.payload, said.security.sender, said.security.epoch) == (b"payload", "agent://acme/0", 6)
    fenced = opened(scene.channel(OTHER), write(scene, epoch="fenced"), moved(position=("stream 1", 10)))
    assert fenced.security.epoch == 5
    own = scene.channel(0).seal([(HERE, b"payload", None)])[0].data
    mine = write(scene, fields={"stream": own[27 + 1 : 27 + 17]})
    assert len(mine) == len(own) or number == 2  # an ECDSA signature has several lengths
    assert mine[:28] == own[:28]


def test_a_record_of_an_epoch_to_come_asks_to_read_on_first() -> None:
    scene = SCENES[1]
    [result] = scene.channel(OTHER).open([(HERE, write(scene, epoch="later"), None)])
    assert isinstance(result, Behind)


def together(one: WrongRecord, other: WrongRecord) -> dict[str, Any] | None:
    """Both bends in one record, None where they are of the same part or read at different places."""
    if (set(one.bent) & set(other.bent)) - {"fields"} or (one.at != HERE and other.at != HERE):
        return None
    first, second = one.bent.get("fields", {}), other.bent.get("fields", {})
    if set(first) & set(second):
        return None
    return {**one.bent, **other.bent, "fields": {**first, **second}}


def test_of_two_things_that_are_wrong_the_earlier_step_is_named() -> None:
    scene, pairs = SCENES[1], 0
    channel = scene.channel(OTHER)
    before = snapshot(channel)
    for one, other in product(SMALL, SMALL):
        bent = together(one, other)
        if one.step >= other.step or bent is None or 1 not in one.suites or 1 not in other.suites:
            continue
        error = refused(channel, write(scene, **bent), one.at if one.at != HERE else other.at)
        assert (type(error), error.what) == (one.error, one.what), (one.name, other.name)
        pairs += 1
    assert pairs > 900
    assert snapshot(channel) == before


def raised_in(name: str) -> set[tuple[str, str]]:
    """(class, what it says) of every refusal that a file of channels/ raises."""
    found = set()
    for node in ast.walk(ast.parse((ROOM / "channels" / name).read_text())):
        if isinstance(node, ast.Raise) and node.exc is not None:
            call = node.exc if isinstance(node.exc, ast.Call) else None
            kind = getattr(call.func if call else node.exc, "id", "")
            what = call.args[0].value if call and call.args and isinstance(call.args[0], ast.Constant) else ""
            if kind and issubclass(getattr(errors, kind, Exception), errors.RecordRefused):
                found.add((kind, what))
    return found


def test_every_refusal_that_opening_gives_has_a_switch() -> None:
    raised = raised_in("record.py") | raised_in("inner.py") | raised_in("opening.py")
    assert len(raised) > 25
    assert raised - {(one.error.__name__, one.what) for one in RECORDS} == set()
    codes = {one.error for one in RECORDS}
    kept = {errors.SuiteRefused, errors.UnknownSession, errors.KeyConsumed, errors.AlreadyProcessed}  # of other channels than topics
    assert codes == set(errors.RecordRefused.__subclasses__()) - kept


def test_the_names_are_each_used_once() -> None:
    assert len({one.name for one in RECORDS}) == len(RECORDS)
    assert isinstance(opened(SCENES[1].channel(OTHER), write(SCENES[1])), Opened)
