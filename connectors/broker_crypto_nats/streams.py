"""The stream of the group logs: created with its settings, or checked against them, each time a log is opened."""

from __future__ import annotations

from typing import Any

from broker_crypto.errors import BrokerUnavailable, PolicyConflict

from .jsapi import NO_STREAM, Api, Refused

_NAME_IN_USE = 10058  # somebody else created it at the same moment, with other settings
_UNLIMITED = (-1, 0, None)
_TOO_FEW_SERVERS = (10005, 10074)
_OVERLAP = 10065


def settings(name: str, subjects: list[str], replicas: int) -> dict[str, Any]:
    """What a stream of group logs is created with: kept for good, appended to only, what comes in is what comes out."""
    return {
        "name": name,
        "subjects": subjects,
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "max_consumers": -1,
        "num_replicas": replicas,
        "deny_delete": True,
        "deny_purge": True,
        "allow_rollup_hdrs": False,
        "allow_direct": False,
    }


def wrong_settings(config: dict[str, Any], subjects: list[str], replicas: int) -> list[str]:
    """Each setting of an existing stream that a group log cannot live with, as `name=value (wanted …)`."""
    wrong = [f"{name}={config.get(name)!r} (wanted {wanted!r})" for name, wanted in _exact(subjects).items() if config.get(name) != wanted]
    for name in ("max_msgs", "max_bytes", "max_age", "max_msgs_per_subject", "max_msg_size", "max_consumers"):
        if config.get(name) not in _UNLIMITED:
            wrong.append(f"{name}={config[name]!r} (wanted no limit)")
    for name in _UNWANTED:
        if config.get(name):
            wrong.append(f"{name}={config[name]!r} (wanted none)")
    if (config.get("first_seq") or 0) > 1:
        wrong.append(f"first_seq={config['first_seq']!r} (wanted 1)")
    if config.get("persist_mode") == "async":
        wrong.append("persist_mode='async' (wanted 'default')")
    if int(config.get("num_replicas") or 1) < replicas:
        wrong.append(f"num_replicas={config.get('num_replicas')!r} (wanted at least {replicas})")
    return wrong


async def open_groups_stream(api: Api, name: str, subjects: list[str], *, replicas: int, create: bool) -> str:
    """Creation time of the stream, as the server writes it: the log's identity. Creates it if it may and must."""
    info = await _info(api, name)
    if info is None:
        if not create:
            raise BrokerUnavailable("the stream of the group logs does not exist", stream=name)
        info = await _create(api, name, subjects, replicas)
    wrong = wrong_settings(info["config"], subjects, replicas)
    if wrong:
        raise PolicyConflict(f"stream {name} cannot hold group logs: " + "; ".join(wrong), settings=wrong)
    return str(info["created"])


def _exact(subjects: list[str]) -> dict[str, Any]:
    return {
        "subjects": subjects,
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "deny_delete": True,
        "deny_purge": True,
    }


# what would let records vanish, come in by another way, or come out other than they went in
_UNWANTED = (
    "allow_rollup_hdrs",
    "allow_msg_ttl",
    "subject_delete_marker_ttl",
    "allow_msg_schedules",
    "allow_msg_counter",
    "discard_new_per_subject",
    "subject_transform",
    "republish",
    "mirror",
    "sources",
    "no_ack",
    "sealed",
)


async def _info(api: Api, name: str) -> dict[str, Any] | None:
    try:
        return await api.call(f"STREAM.INFO.{name}")
    except Refused as refused:
        if refused.number == NO_STREAM:
            return None
        raise BrokerUnavailable(f"the stream of the group logs cannot be looked at: {refused}", stream=name) from refused


async def _create(api: Api, name: str, subjects: list[str], replicas: int) -> dict[str, Any]:
    try:
        return await api.call(f"STREAM.CREATE.{name}", settings(name, subjects, replicas))
    except Refused as refused:
        if refused.number == _NAME_IN_USE:
            info = await _info(api, name)
            if info is not None:
                return info
        if refused.number in _TOO_FEW_SERVERS:
            raise PolicyConflict(f"num_replicas={replicas} is more than this NATS can give", stream=name) from refused
        if refused.number == _OVERLAP:
            raise PolicyConflict(f"another stream holds {subjects[0]}", stream=name) from refused
        raise BrokerUnavailable(f"the stream of the group logs cannot be created: {refused}", stream=name) from refused


