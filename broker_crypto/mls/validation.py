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
    PATH_REQUIRED = "path_required"
    PATH_KEY_NEW = "path_key_new"

    # one leaf or key package (RFC 9420 sections 7.2, 7.3, 10.1, 13.3, 13.4)
    LEAF_SIGNATURE = "leaf_signature"
    LEAF_SOURCE = "leaf_source"
    LEAF_VERSION = "leaf_version"
    LEAF_SUITE = "leaf_suite"
    LEAF_CREDENTIAL_LISTED = "leaf_credential_listed"
    LEAF_CERTIFICATE_KEY = "leaf_certificate_key"
    LEAF_EXTENSIONS_LISTED = "leaf_extensions_listed"
    LEAF_LIFETIME = "leaf_lifetime"
    LEAF_GROUP_EXTENSIONS = "leaf_group_extensions"
    LEAF_REQUIRED_CAPABILITIES = "leaf_required_capabilities"
    CREDENTIAL_COMMON = "credential_common"
    KEY_PACKAGE_VERSION = "key_package_version"
    KEY_PACKAGE_SUITE = "key_package_suite"
    KEY_PACKAGE_SIGNATURE = "key_package_signature"
    KEY_PACKAGE_INIT_KEY = "key_package_init_key"

    # proposals and lists of them (RFC 9420 sections 12.1 and 12.2)
    PROPOSAL_SENDER = "proposal_sender"
    PROPOSAL_KNOWN = "proposal_known"
    PENDING_FULL = "pending_full"
    EXTERNAL_SENDER = "external_sender"
    UPDATE_KEY_NEW = "update_key_new"
    UPDATE_OF_COMMITTER = "update_of_committer"
    REMOVE_OF_COMMITTER = "remove_of_committer"
    REMOVE_OF_NOBODY = "remove_of_nobody"
    LEAF_CHANGED_TWICE = "leaf_changed_twice"
    PSK_NONCE = "psk_nonce"
    PSK_USAGE = "psk_usage"
    PSK_TWICE = "psk_twice"
    PSK_COUNT = "psk_count"
    REINIT_VERSION = "reinit_version"
    REINIT_ALONE = "reinit_alone"
    GROUP_EXTENSIONS_TWICE = "group_extensions_twice"
    GROUP_EXTENSION_FORM = "group_extension_form"
    EXTERNAL_INIT_INSIDE = "external_init_inside"
    EXTERNAL_INIT_ONCE = "external_init_once"
    EXTERNAL_REMOVE_ONCE = "external_remove_once"
    EXTERNAL_PROPOSALS = "external_proposals"
    EXTERNAL_BY_VALUE = "external_by_value"
    EXTERNAL_KEY_NEW = "external_key_new"

    # the group as those outside see it (RFC 9420 sections 8.1, 12.1.5, 12.4.3)
    GROUP_SUITE = "group_suite"
    GROUP_ENDED = "group_ended"
    GROUP_INFO_TREE = "group_info_tree"
    GROUP_INFO_SIGNER = "group_info_signer"
    GROUP_INFO_SIGNATURE = "group_info_signature"
    GROUP_INFO_CONTEXT = "group_info_context"
    GROUP_INFO_TAG = "group_info_tag"

    # messages (RFC 9420 sections 6, 8.4 and 9)
    MESSAGE_KIND = "message_kind"
    GROUP_ID = "group_id"
    EPOCH = "epoch"
    SENDER_LEAF = "sender_leaf"
    SENDER_DATA = "sender_data"
    GENERATION = "generation"
    CIPHERTEXT = "ciphertext"
    PADDING = "padding"
    MESSAGE_SIGNATURE = "message_signature"

    # what a member's secrets show; of a commit, CannotEnter (RFC 9420 sections 6.2, 7.5, 8.3, 8.4 and 12.4.2)
    MEMBERSHIP_TAG = "membership_tag"
    PATH_SECRET = "path_secret"  # noqa: S105  a name
    PATH_KEY = "path_key"
    EXTERNAL_INIT = "external_init"
    PSK_HELD = "psk_held"
    CONFIRMATION_TAG = "confirmation_tag"

    # joining by a Welcome (RFC 9420 section 12.4.3.1)
    WELCOME_ENTRY = "welcome_entry"
    WELCOME_SUITE = "welcome_suite"
    WELCOME_SECRETS = "welcome_secrets"
    WELCOME_PSKS = "welcome_psks"
    WELCOME_GROUP_INFO = "welcome_group_info"
    GROUP_UNIQUE = "group_unique"
    OWN_LEAF = "own_leaf"
    RESUMPTION_EPOCH = "resumption_epoch"
    RESUMED_GROUP = "resumed_group"


def refuse(rule: Rule, what: str = "", **fields: object) -> NoReturn:
    """Raise PeerError for the broken `rule`. `fields` name leaves, epochs and kinds, never keys."""
    raise PeerError(what, rule=rule.value, **fields)


class CannotEnter(PeerError):
    """A commit that is valid for everybody, and that this member cannot follow: its secrets do not fit what the member holds.

    `reason` is the rule that does not hold ("membership_tag", "path_secret", "path_key", "external_init", "psk_held",
    "confirmation_tag"), or "removed" where the commit removes the member itself.
    """

    code = "cannot_enter"
    reason: str
