"""docs/nats.md, made from the table of names: `python -m tests.support.nats_page > docs/nats.md`."""

from __future__ import annotations

from itertools import groupby

from broker_crypto_nats.names import CLIENT, JETSTREAM, MANAGER, MESSAGE, PULL_SUBSCRIPTION, PUSH_SUBSCRIPTION, SUBSCRIPTION, Names

HEAD = """# NATS

`SecureNats(nc, agent)` is put around a connected `nats.NATS` and has its names. What is published is sealed by the policy's rule for the
subject, what comes is opened and its sender verified; a subject that no rule covers is `NoPolicy`, both ways. The client itself stays
yours, and what you send over it directly is not sealed.

## What is different from plain nats-py

- `msg.security` says who sent a message; `msg.data` is None and `msg.error` set on the message that a refusal carries as `error.message`.
  With `on_failure: raise` the refusal is raised by `next_msg`, `fetch` or the iteration (iterate again and it goes on behind that record),
  or goes to `error_cb` where a callback reads; the message is not acknowledged. With `skip` it is terminated and passed over.
- A record of an epoch that is not read yet is held until the group log was read to its head, also while the log is out of reach;
  JetStream is told meanwhile that the held messages are in work. What waits behind them in the client may be delivered twice.
- A publish that meets a group which is not ready waits, outside the time-out of the publish itself. Core messages of one turn of the event
  loop are signed together, and so are JetStream messages of callers that publish at once; one after the other, each is signed alone.
- Payload and headers together are measured before anything is sent (`MaxPayloadError`): the server counts both and would close the
  connection. `max_payload` is what a payload without headers may have.
- Headers are sealed; the policy's list stands outside as well. A line break in a value is `BadHeaderError`. `Nats-Reply-To` is ours.
- Consumers get their callbacks acknowledged after they have returned, as in nats-py, but never what was not handed out.
- `unsubscribe(limit)` on a subscription with a callback counts here, and all `limit` messages are handled.
- `fetch` never takes an application's header `Status` for the server's, and asks again after a reconnect.

Subjects of the server itself (`$JS.`, `$SRV.`, `$SYS.`) pass as they are, without a rule, and so does what comes to an inbox. The broker
always sees subjects, sizes, times, acknowledgements, names of streams, consumers and queues, and the headers on the list.

Reading from JetStream needs the rights to ask for `STREAM.INFO` and `CONSUMER.INFO` of what is read. The group log is the stream
`BC_GROUPS`: members need `STREAM.INFO`, `STREAM.MSG.GET`, `CONSUMER.CREATE`, `CONSUMER.DELETE` and `CONSUMER.MSG.NEXT` on it and to
publish to `_bc.group.>`, and the one that comes first `STREAM.CREATE`.

## Every name

What is in no table is refused with `AttributeError`, what is refused here with `NotBuilt`.
"""

TABLES: list[tuple[str, Names]] = [
    ("Client", CLIENT),
    ("Subscription", SUBSCRIPTION),
    ("PushSubscription", PUSH_SUBSCRIPTION),
    ("PullSubscription", PULL_SUBSCRIPTION),
    ("Msg", MESSAGE),
    ("JetStreamManager", MANAGER),
    ("JetStreamContext", JETSTREAM),
]


def table(title: str, names: Names) -> list[str]:
    lines = [f"### {title}", "", "| names | | why |", "|---|---|---|"]
    listed = sorted(names.items(), key=lambda item: (item[1].how, item[1].why, item[0]))
    for entry, group in groupby(listed, key=lambda item: item[1]):
        lines.append(f"| {', '.join(f'`{name}`' for name, _ in group)} | {entry.how} | {entry.why} |")
    return [*lines, ""]


def page() -> str:
    return "\n".join([HEAD, *(line for title, names in TABLES for line in table(title, names))]).rstrip() + "\n"


if __name__ == "__main__":
    print(page(), end="")
