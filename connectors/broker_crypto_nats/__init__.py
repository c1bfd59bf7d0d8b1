"""NATS: the sealing client over nats-py, and what the agent needs of a NATS broker.

`SecureNats` takes a connected client and an agent; `client`, `jetstream`, `subscription`, `fetching` and `message` mirror the
client's classes, `names` lists every name of theirs and what becomes of it. `grouplog` and `topics` fill the agent's ports;
`own` is the connection that an agent makes for itself.
"""

from .client import SecureNats
from .jetstream import SecureJetStream
from .message import SecureMsg
from .own import connect

__all__ = ["SecureJetStream", "SecureMsg", "SecureNats", "connect"]
