"""What the policy file says: read strictly, frozen, asked by topic and by group. Nothing that it does not name is sent.

`load` reads a file, `Policy.route` finds the rule of a topic or subject, `Policy.group` what a group is founded from.
"""

from broker_crypto.policy.policy import Policy, load, problems
from broker_crypto.policy.rules import AgentSettings, BrokerSettings, GroupSection, Rule, StoreKey, StoreSettings, Timing

__all__ = [
    "AgentSettings",
    "BrokerSettings",
    "GroupSection",
    "Policy",
    "Rule",
    "StoreKey",
    "StoreSettings",
    "Timing",
    "load",
    "problems",
]
