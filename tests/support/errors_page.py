"""docs/errors.md, made from the tree of errors: `python -m tests.support.errors_page > docs/errors.md`."""

from __future__ import annotations

from collections.abc import Iterator

from broker_crypto import errors

HEAD = """# Errors

Every error is one class, one reason and one word. All are in `broker_crypto.errors`, under `BrokerCryptoError`, and stand here by who
is to blame. Each has a `code` (stable; the word in metrics), `retriable` (whether the same call may succeed later), a hint (what to do),
and its own fields, such as topic, position, epoch, leaf or identity. None holds a key, a plaintext or a ciphertext.

A record that is refused is a value before it is an exception: the channel returns it, and the rule's `on_failure` decides whether it is
raised or skipped ([policy](policy.md)).
"""

BLAME = {
    errors.UsageError: "Ours: the call",
    errors.PolicyError: "Ours: the policy",
    errors.GroupError: "Ours: the place in a group",
    errors.RecordRefused: "Theirs: a record",
    errors.PeerError: "Theirs: a message of a protocol",
    errors.StateError: "Ours: the store",
    errors.StoreUnavailable: "The world's: the store",
    errors.BrokerUnavailable: "The world's: the broker",
}


def tree(error: type[errors.BrokerCryptoError]) -> Iterator[type[errors.BrokerCryptoError]]:
    """`error` and what descends from it within the module of errors, in the order in which it is written there."""
    yield error
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def row(error: type[errors.BrokerCryptoError]) -> str:
    meaning = " ".join((error.__doc__ or "").split())
    return f"| `{error.__name__}` | `{error.code}` | {'yes' if error.retriable else 'no'} | {meaning} | {error.hint or '-'} |"


def page() -> str:
    parts, told = [HEAD], set[type[errors.BrokerCryptoError]]()
    for head, title in BLAME.items():
        rows = [row(error) for error in tree(head) if error not in told]
        told.update(tree(head))
        parts.append("\n".join([f"## {title}\n", "| class | code | retriable | meaning | hint |", "|---|---|---|---|---|", *rows, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
