"""The rules of RFC 9420 that a message or a tree can break, by name. The table with numbers and sections: docs/validation.md.

A refusal is a PeerError whose `rule` is one of these names. What can be checked without secrets is checked before
anything that needs them; a check never changes what it looks at.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NoReturn

from broker_crypto.errors import PeerError


class Rule(StrEnum):
    """Names of the rules; docs/validation.md says what each refuses."""

    # the tree as a whole (RFC 9420 sections 7.3, 7.8, 7.9, 12.4.3.1, 12.4.3.3)
    TREE_FORM = "tree_form"
    TREE_HASH = "tree_hash"
    PARENT_HASH = "parent_hash"
    UNMERGED_LEAVES = "unmerged_leaves"
    UNIQUE_ENCRYPTION_KEY = "unique_encryption_key"
    UNIQUE_SIGNATURE_KEY = "unique_signature_key"
    USABLE_KEY = "usable_key"

    # the path of a commit (RFC 9420 sections 7.5, 7.6, 7.9.2, 12.4.2)
    PATH_LENGTH = "path_length"
    PATH_RECEIVERS = "path_receivers"
    PATH_PARENT_HASH = "path_parent_hash"

    # messages (RFC 9420 sections 6, 8.4 and 9)
    GROUP_ID = "group_id"
    EPOCH = "epoch"
    SENDER_LEAF = "sender_leaf"
    SENDER_DATA = "sender_data"
    GENERATION = "generation"
    CIPHERTEXT = "ciphertext"
    PADDING = "padding"
    MESSAGE_SIGNATURE = "message_signature"
    MEMBERSHIP_TAG = "membership_tag"
    CONFIRMATION_TAG = "confirmation_tag"
    PSK_HELD = "psk_held"

    # joining by a Welcome (RFC 9420 section 12.4.3.1)
    WELCOME_ENTRY = "welcome_entry"
    WELCOME_SUITE = "welcome_suite"
    WELCOME_SECRETS = "welcome_secrets"
    WELCOME_PSKS = "welcome_psks"
    WELCOME_GROUP_INFO = "welcome_group_info"
    WELCOME_TREE = "welcome_tree"
    GROUP_UNIQUE = "group_unique"
    OWN_LEAF = "own_leaf"
    PATH_KEY = "path_key"
    RESUMPTION_EPOCH = "resumption_epoch"
    RESUMED_GROUP = "resumed_group"


def refuse(rule: Rule, what: str = "", **fields: object) -> NoReturn:
    """Raise PeerError for the broken `rule`. `fields` name leaves, epochs and kinds, never keys."""
    raise PeerError(what, rule=rule.value, **fields)


class CannotEnter(PeerError):
    """A commit that is valid for everybody, and that this member cannot follow: secrets of its path or of its tags do not fit.

    `reason` is "membership_tag", "path_secret", "path_key", "external_init", "psk" or "confirmation_tag".
    """

    code = "cannot_enter"
    reason: str
