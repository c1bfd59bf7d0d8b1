"""Every switch there is, and the rules of docs/validation.md that no record of a group log can break, each with the reason."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from tests.support.lies.certified import CERTIFIED
from tests.support.lies.commits import COMMITS
from tests.support.lies.foundings import FOUNDINGS
from tests.support.lies.histories import CROWDED, RULED
from tests.support.lies.infos import INFOS
from tests.support.lies.leaves import LEAVES
from tests.support.lies.rights import RIGHTS
from tests.support.lies.secret import SECRET
from tests.support.lies.switches import Switch

ON_COMMITS = (COMMITS, LEAVES, CERTIFIED, INFOS, RIGHTS)  # all on the same scene

_NO_TREE = "a founding has one leaf and no parents, a commit brings no tree: `founding_leaf`, `extensions` stand before"
_NO_PRIVATE = "a commit in a PrivateMessage is no commit of the log: `form` stands before"
_NO_PROPOSALS = "the log holds no proposal by itself: `form` stands before"
_NO_WELCOME = "nobody joins a group of the log by a Welcome"

OUT_OF_REACH = {
    "parent_hash": _NO_TREE,
    "unmerged_leaves": _NO_TREE,
    "leaf_lifetime": "a leaf of a path has no lifetime, and the rules of the log give the engine neither a clock nor a longest one",
    "pending_full": _NO_PROPOSALS,
    "external_sender": _NO_PROPOSALS,
    "update_key_new": "an Update in the log is by value, so by the committer itself: `update_of_committer` stands before",
    "psk_count": "65,536 pre-shared keys do not fit into a record",
    "group_ended": "no commit with a ReInit counts: `proposals` stands before",
    "group_info_tree": "a founding without a tree is refused before for its `extensions`",
    "sender_data": _NO_PRIVATE,
    "generation": _NO_PRIVATE,
    "ciphertext": _NO_PRIVATE,
    "padding": _NO_PRIVATE,
    "psk_held": "no commit with a pre-shared key counts: `proposals` stands before",
    "welcome_entry": _NO_WELCOME,
    "welcome_suite": _NO_WELCOME,
    "welcome_secrets": _NO_WELCOME,
    "welcome_psks": _NO_WELCOME,
    "welcome_group_info": _NO_WELCOME,
    "group_unique": _NO_WELCOME,
    "own_leaf": _NO_WELCOME,
    "resumption_epoch": _NO_WELCOME,
    "resumed_group": _NO_WELCOME,
}

# Reasons of the log's own code that no record can have, for another rule stands before.
NEVER_SAID = {
    "credential": "a commit with another credential than X.509 is refused by `leaf_required_capabilities` or `credential_common`",
    "leaf_key": "the engine compares the key with the first certificate before: `leaf_certificate_key`",
    "external_pub": "a GroupInfo without external_pub has other `extensions`",
    "leaf.key": "a leaf whose key is of no suite of groups is refused before: `leaf_certificate_key`",
}


def switches() -> list[Switch]:  # type: ignore[type-arg]
    """All of them, of whatever scene."""
    return [one for table in (*ON_COMMITS, CROWDED, RULED, SECRET, FOUNDINGS) for one in table]


def reasons_in(paths: Iterable[Path]) -> set[str]:
    """The names of rules that a source file gives: the last string in a call of refuse or _refuse, every `rule=` and every `reason=`."""
    found: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                found |= _named(node)
    return found


def _named(call: ast.Call) -> set[str]:
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    given = [word.value for word in call.keywords if word.arg in ("rule", "reason")]
    if name in ("_refuse", "refuse") and call.args:
        given.append(call.args[1] if name == "_refuse" else call.args[0])
    return {one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)}
