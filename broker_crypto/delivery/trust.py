"""Whether this agent trusts a group's founding: by its own file, never by what others decided."""

from __future__ import annotations

from dataclasses import dataclass

from broker_crypto.delivery.group_policy import ADMIN, GroupPolicy
from broker_crypto.delivery.rules import Chain
from broker_crypto.errors import PeerError


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
