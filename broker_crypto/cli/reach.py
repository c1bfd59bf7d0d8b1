"""Brokers that a policy names, reached by a command itself."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from broker_crypto import policy


@asynccontextmanager
async def reached(loaded: policy.Policy, broker: str) -> AsyncIterator[Any]:
    """A connection to a broker of the policy, for the length of the block. Raises PolicyError, NotBuilt, BrokerUnavailable."""
    settings = loaded.require_broker(broker)
    connector = importlib.import_module(f"broker_crypto_{settings.type}")
    connection = await connector.connect(settings, lambda topic: loaded.route(topic).subjects)
    try:
        yield connection
    finally:
        await connection.close()
