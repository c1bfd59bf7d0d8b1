"""Every public name of nats-py's classes, and what becomes of it here. What is not in a table is refused.

    SEALED    application bytes pass: sealed on the way out, opened on the way in
    PASSED    none pass: the client's own, as it is; with a care where `why` names one
    REFUSED   it would let bytes by unsealed, or this version does not have it sealed yet
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple

from broker_crypto.errors import NotBuilt


class How(StrEnum):
    SEALED = "sealed"
    PASSED = "passed"
    REFUSED = "refused"


class Name(NamedTuple):
    """What becomes of one name, and why."""

    how: How
    why: str


Names = Mapping[str, Name]


def _all(how: How, why: str, *names: str) -> dict[str, Name]:
    return dict.fromkeys(names, Name(how, why))


def _sealed(why: str, *names: str) -> dict[str, Name]:
    return _all(How.SEALED, why, *names)


def _passed(why: str, *names: str) -> dict[str, Name]:
    return _all(How.PASSED, why, *names)


def _refused(why: str, *names: str) -> dict[str, Name]:
    return _all(How.REFUSED, why, *names)


CLIENT: Names = {
    **_sealed("the message", "publish", "subscribe"),
    **_sealed("requests to `$JS.`, `$SRV.` and `$SYS.` pass; others are NotBuilt", "request"),
    **_sealed("gives the sealing context", "jetstream", "jsm"),
    **_passed("after our own queue is empty", "flush", "drain", "close"),
    **_passed("less what sealing adds", "max_payload"),
    **_passed("holds the connection's credentials", "options"),
    **_passed("counts sealed bytes", "stats"),
    **_passed(
        "no application bytes",
        *("rtt", "new_inbox", "force_reconnect", "set_server_pool", "server_pool", "servers", "discovered_servers"),
        *("connected_url", "connected_server_version", "client_id", "client_ip", "last_error", "pending_data_size", "ssl_context"),
        *("is_closed", "is_connected", "is_connecting", "is_draining", "is_draining_pubs", "is_reconnecting"),
        *("CLOSED", "CONNECTED", "CONNECTING", "DISCONNECTED", "DRAINING_PUBS", "DRAINING_SUBS", "RECONNECTING"),
    ),
    **_refused("SecureNats takes a client that is connected", "connect"),
    **_refused("messages are built here; an error in another class would end the client's reading", "msg_class"),
}

SUBSCRIPTION: Names = {
    **_sealed("messages come opened", "next_msg", "messages"),
    **_passed("with a callback and a limit, messages are counted here", "unsubscribe"),
    **_passed("the message that waits here is worked off first", "drain"),
    **_passed("no application bytes", "subject", "queue", "pending_msgs", "pending_bytes", "delivered"),
}

PUSH_SUBSCRIPTION: Names = {**SUBSCRIPTION, **_passed("no application bytes", "consumer_info")}

PULL_SUBSCRIPTION: Names = {
    **_sealed("messages come opened", "fetch"),
    **_passed("what waits here is put back", "unsubscribe"),
    **_passed("no application bytes", "consumer_info", "pending_msgs", "pending_bytes", "delivered"),
}

MESSAGE: Names = {
    **_sealed("opened", "data", "headers", "header"),
    **_refused("NotBuilt but for the server's own subjects: an answer is never sent in clear", "respond"),
    **_passed("acknowledgements are the server's, and empty", "ack", "ack_sync", "nak", "in_progress", "term", "is_acked"),
    **_passed("no application bytes", "subject", "reply", "sid", "metadata", "Ack", "Metadata"),
}

MANAGER: Names = {
    **_sealed("the stored message", "get_msg", "get_last_msg"),
    **_passed("settings: transforms, mirrors and republishing move records, which then open nowhere else", "add_stream", "update_stream"),
    **_passed("settings: a consumer of headers only gives messages without data, handed over as they are", "add_consumer"),
    **_passed(
        "no application bytes",
        *("account_info", "consumer_info", "consumers_info", "delete_consumer", "delete_msg", "delete_stream", "pause_consumer"),
        *("purge_stream", "reset_consumer", "resume_consumer", "stream_info", "streams_info", "streams_info_iterator"),
        "find_stream_name_by_subject",
    ),
}

JETSTREAM: Names = {
    **MANAGER,
    **_sealed("the message", "publish"),
    **_sealed("messages come opened; ordered consumers are NotBuilt", "subscribe", "subscribe_bind"),
    **_sealed("messages come opened", "pull_subscribe", "pull_subscribe_bind"),
    **_refused("the client's own never answers on a refusal of the server", "publish_async", "publish_async_pending"),
    **_refused("goes with publish_async", "publish_async_completed"),
    **_refused("key-value stores are not built", "key_value", "create_key_value"),
    **_refused("object stores are not built", "object_store", "create_object_store"),
    **_passed("no application bytes", "delete_key_value", "delete_object_store", "is_status_msg"),
    **_refused("the client's own class, which opens nothing", "PushSubscription", "PullSubscription"),
}


class NameRefused(NotBuilt, AttributeError):
    """A name of the client's that is not passed on. `hasattr` says False."""


class Guarded:
    """Gives the names that its table passes from `_inner`, and refuses all others."""

    _names: ClassVar[Names] = {}
    _inner: Any

    def __getattr__(self, name: str) -> Any:
        entry = None if name.startswith("_") else self._names.get(name)
        if entry is None:
            raise AttributeError(f"{type(self).__name__} has no {name}")
        if entry.how is not How.PASSED:
            raise NameRefused(f"{type(self).__name__}.{name}: {entry.why}", attribute=name)
        return getattr(self._inner, name)
