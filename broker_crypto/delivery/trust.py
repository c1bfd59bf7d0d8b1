"""Whether this agent trusts a group's founding, and seals for it: by its own file, never by what others decided."""

from __future__ import annotations

from dataclasses import dataclass

from broker_crypto.delivery.group_policy import ADMIN, GroupPolicy
from broker_crypto.delivery.rules import Chain
from broker_crypto.errors import PeerError, PolicyConflict
from broker_crypto.records import Anchor
from broker_crypto.wire import names


@dataclass(frozen=True, slots=True)
class LocalPolicy:
    """What the own file says of a group: suite and terms (`policy.time` does not matter)."""

    suite: int
    policy: GroupPolicy

    def fits(self, suite: int, policy: GroupPolicy) -> bool:
        """Equality with a group's policy: suite, topics, anchors, roles, key_retention, max_offline, as sets."""
        return suite == self.suite and self.policy.same_terms(policy)


def trusts(local: LocalPolicy, chain: Chain) -> bool:
    """True if the founder's certificates end at one of our anchors, and it was an admin's founding or says what our file says.

    The head's policy may fit instead, if its last change was signed by one who is an admin by our file.
    """
    try:
        local.policy.check_chain(chain.founder_leaf, chain.founding_policy.time)
    except PeerError:
        return False
    suite = chain.public.suite.number
    if local.policy.role_of(chain.founder) == ADMIN or local.fits(suite, chain.founding_policy):
        return True
    return local.fits(suite, chain.policy) and local.policy.role_of(chain.policy_signer) == ADMIN


def conflict(local: LocalPolicy, chain: Chain) -> PolicyConflict | None:
    """What the group allows beyond the own file: another suite, an anchor, a reader. None where there is nothing.

    Nothing is sealed then, for what is sealed is read by whom the group lets in; reading and following go on. Every role reads.
    """
    suite, policy = chain.public.suite.number, chain.policy
    if suite != local.suite:
        return PolicyConflict("the group has another suite than this file", group=chain.group, suite=suite, file=local.suite)
    for anchor in policy.anchors:
        for prefix in anchor.identities:
            if not any(_speaks(own, anchor, prefix) for own in local.policy.anchors):
                return PolicyConflict("the group has an anchor that this file does not have", group=chain.group, identities=prefix)
    for pattern, role in policy.roles:
        if not any(names.fits(own, pattern) for own, _ in local.policy.roles):  # each `*` in it is inside one of the file's
            return PolicyConflict("the group lets in whom this file does not", group=chain.group, pattern=pattern, role=role)
    return None


def _speaks(own: Anchor, anchor: Anchor, prefix: str) -> bool:
    return own.certificate == anchor.certificate and any(names.lies_under(prefix, mine) for mine in own.identities)
