"""End-to-end encryption for Kafka topics and NATS subjects: topics become MLS groups (RFC 9420) whose log is the broker itself.

An application opens one `Agent` on its policy file and gives it to a connector (`broker_crypto_nats`).
"""

from broker_crypto import errors
from broker_crypto.agent import Agent, Health
from broker_crypto.parts import VERSION
from broker_crypto.policy import Policy
from broker_crypto.records import Event, Security

__version__ = VERSION
__all__ = ["Agent", "Event", "Health", "Policy", "Security", "errors"]
