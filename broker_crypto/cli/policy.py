"""`broker-crypto policy`: what is wrong with a policy file, what it means, its schema."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click

from broker_crypto import policy
from broker_crypto.cli import output
from broker_crypto.cli.output import Output, machine_readable, policy_option
from broker_crypto.cli.reach import reached
from broker_crypto.errors import BrokerUnavailable, NoPolicy, PeerError, PolicyConflict, PolicyError
from broker_crypto.identity import read_anchor
from broker_crypto.policy import explain as words
from broker_crypto.policy import schema as schemas
from broker_crypto.records import TopicFacts

FILE = click.argument("file", type=click.Path(path_type=Path), default=Path("policy.yaml"), envvar="BROKER_CRYPTO_POLICY")


@click.group("policy")
def command() -> None:
    """What a policy file says, and what is wrong with it."""


@command.command("check")
@FILE
@click.option("--brokers", is_flag=True, help="Also compare with the settings of the brokers that the file names.")
@machine_readable
def check(out: Output, file: Path, brokers: bool) -> None:
    """Say everything that is wrong with FILE (default: policy.yaml), and what is probably not meant.

    Exit code 1 if an agent would not read it, or (with --brokers) a broker's settings contradict it; 3 if a broker is out of
    reach. Rules that overlap, rules that can never match, and what this version does not have are shown and are no error.

    \b
    Example:
      broker-crypto policy check policy.yaml --brokers
    """
    problems = policy.problems(file)
    found = None if problems else policy.load(file)
    problems += _anchors(found) if found else []
    notes = _notes(found) if found else []
    if found and brokers:
        told = asyncio.run(_settings(found))
        problems, notes = [*problems, *told[0]], [*notes, *told[1]]
    out.say(*(output.sentence(problem) for problem in problems), *(f"{file}: {note}" for note in notes))
    out.say(f"{file}: {_verdict(len(problems))}")
    out.result({"file": str(file), "ok": not problems, "problems": [output.as_object(one) for one in problems], "notes": notes})
    if problems:
        output.no()


def _verdict(count: int) -> str:
    if not count:
        return "an agent reads it"
    return f"an agent does not read it; {count} {'thing is' if count == 1 else 'things are'} wrong"


def _anchors(found: policy.Policy) -> list[PolicyError]:
    """Anchors that could never speak for anybody."""
    problems = []
    for index, anchor in enumerate(found.anchors):
        try:
            read_anchor(anchor.certificate)
        except PeerError as error:
            problems.append(found.place("trust", "anchors", index, "certificate").error(error.what, rule=error.fields["rule"]))
    return problems


async def _settings(found: policy.Policy) -> tuple[list[PolicyError], list[str]]:
    """What the brokers' settings have against the policy, and what is not there yet."""
    problems: list[PolicyError] = []
    notes: list[str] = []
    for broker in found.brokers.values():
        async with reached(found, broker.name) as connection:
            for group in found.groups():
                if group.log not in (None, broker.name):
                    continue
                log = connection.group_log(broker.replicas)
                try:
                    await log.open(group.log_name, create=False)
                    if not await log.head():
                        notes.append(f"broker `{broker.name}`: group `{group.name}` is not founded yet")
                except PolicyError as error:
                    problems.append(error)
                except BrokerUnavailable as error:
                    notes.append(f"broker `{broker.name}`: group `{group.name}`: {error.what}")
                finally:
                    await log.close()
                for topic in group.topics:
                    problems += _compacted(topic, await connection.topics().describe(topic), group.key_retention)
    return problems, notes


def _compacted(topic: str, facts: list[TopicFacts], key_retention: int) -> list[PolicyError]:
    """A topic that keeps the newest record of each key for ever needs keys that last as long."""
    if key_retention == -1 or not any(fact.compacted for fact in facts):
        return []
    return [PolicyConflict("a compacted topic needs `key_retention: forever`", topic=topic)]


def _notes(found: policy.Policy) -> list[str]:
    notes = [
        f"line {mark.place.line}: this version does not have `{mark.setting}`; an agent that uses it gets NotBuilt"
        for mark in found.unbuilt()
    ]
    for pair in words.overlaps(found):
        if pair.never:
            notes.append(f"line {pair.second.place.line}: topic `{pair.second.name}` can never match: `{pair.first.name}` covers it")
        else:
            notes.append(f"line {pair.second.place.line}: topic `{pair.second.name}` overlaps `{pair.first.name}`, which goes first")
    return [*notes, *words.warnings(found)]


@command.command("explain")
@click.argument("topic")
@policy_option
@click.option("--type", "type_", type=click.Choice(("nats", "kafka")), help="Take TOPIC for a NATS subject or a Kafka topic only.")
@machine_readable
def explain(out: Output, topic: str, policy_file: Path, type_: str | None) -> None:
    """Say which rule applies to TOPIC (a Kafka topic or a NATS subject), and what follows from it.

    Exit code 1 if no rule applies: nothing is sent then.

    \b
    Example:
      broker-crypto policy explain orders.created
    """
    found = policy.load(policy_file)
    try:
        rule = found.route(topic, type=type_)
    except NoPolicy as error:
        out.say(f"{topic}: no rule applies; nothing is sent or opened")
        out.result({"topic": topic, "rule": None, "error": output.as_object(error)})
        return output.no()
    lines = list(words.explain(found, rule, found.agent.identity))
    out.say(f"{topic}: rule `{rule.name}` ({rule.place.file}:{rule.place.line}), channel {rule.channel}", *(f"- {line}" for line in lines))
    out.result(
        {
            "topic": topic,
            "rule": rule.name,
            "line": rule.place.line,
            "channel": rule.channel,
            "group": rule.group,
            "identity": rule.identity,
            "guarantees": lines,
            "not_built": [mark.setting for mark in rule.unbuilt],
        }
    )
    return None


@command.command("schema")
@click.option("--json", "as_json", is_flag=True, help="Changes nothing: a schema is JSON.")
def schema(as_json: bool) -> None:
    """Print the JSON Schema of a policy file, for editors.

    \b
    Example:
      broker-crypto policy schema > policy.schema.json
    """
    click.echo(json.dumps(schemas.schema(), indent=2))
