"""Every public name of nats-py's classes is listed as sealed, passed or refused, and treated as listed."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.client import JetStreamContext
from nats.js.manager import JetStreamManager

from broker_crypto.errors import NotBuilt
from broker_crypto_nats import SecureJetStream, SecureMsg, SecureNats
from broker_crypto_nats.fetching import SecurePullSubscription
from broker_crypto_nats.jetstream import SecureJetStreamManager
from broker_crypto_nats.names import CLIENT, JETSTREAM, MANAGER, MESSAGE, PULL_SUBSCRIPTION, PUSH_SUBSCRIPTION, SUBSCRIPTION, How, Names
from broker_crypto_nats.subscription import SecurePushSubscription, SecureSubscription
from tests.support.nats_page import page

TABLES: list[tuple[type[Any], type[Any], Names]] = [
    (Client, SecureNats, CLIENT),
    (Subscription, SecureSubscription, SUBSCRIPTION),
    (JetStreamContext.PushSubscription, SecurePushSubscription, PUSH_SUBSCRIPTION),
    (JetStreamContext.PullSubscription, SecurePullSubscription, PULL_SUBSCRIPTION),
    (Msg, SecureMsg, MESSAGE),
    (JetStreamManager, SecureJetStreamManager, MANAGER),
    (JetStreamContext, SecureJetStream, JETSTREAM),
]
IDS = [theirs.__name__ for theirs, _, _ in TABLES]
SET_WHEN_MADE = {Client: {"options", "stats"}}  # attributes that `dir` of the class does not show


def public(kind: type[Any]) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")} | SET_WHEN_MADE.get(kind, set())


async def test_the_attributes_of_a_client_are_known() -> None:
    assert {name for name in vars(Client()) if not name.startswith("_")} == SET_WHEN_MADE[Client]


@pytest.mark.parametrize(("theirs", "ours", "table"), TABLES, ids=IDS)
def test_every_public_name_is_listed_and_every_listed_name_exists(theirs: type[Any], ours: type[Any], table: Names) -> None:
    assert set(table) == public(theirs)
    assert all(entry.why for entry in table.values())


@pytest.mark.parametrize(("theirs", "ours", "table"), TABLES, ids=IDS)
def test_what_is_sealed_is_our_own_code(theirs: type[Any], ours: type[Any], table: Names) -> None:
    own = {name for kind in ours.__mro__ if kind.__module__.startswith("broker_crypto_nats") for name in vars(kind)}
    assert {name for name, entry in table.items() if entry.how is How.SEALED} <= own


@pytest.mark.parametrize(("theirs", "ours", "table"), TABLES[:4] + TABLES[5:], ids=IDS[:4] + IDS[5:])
def test_what_is_passed_is_the_clients_and_what_is_refused_says_why(theirs: type[Any], ours: type[Any], table: Names) -> None:
    class Inner:
        """Gives its own name for any name."""

        def __getattr__(self, name: str) -> str:
            return f"theirs: {name}"

    wrapper = object.__new__(ours)
    vars(wrapper)["_inner"] = Inner()
    for name, entry in table.items():
        if hasattr(ours, name):
            continue  # our own code
        if entry.how is How.PASSED:
            assert getattr(wrapper, name) == f"theirs: {name}"
        else:
            assert entry.how is How.REFUSED
            assert not hasattr(wrapper, name)
            with pytest.raises(NotBuilt, match=name):
                getattr(wrapper, name)


@pytest.mark.parametrize("name", ["_transport", "_nuid", "_subs", "newest_method"])
def test_names_that_are_in_no_table_are_refused(name: str) -> None:
    wrapper = object.__new__(SecureNats)
    vars(wrapper)["_inner"] = Client.__new__(Client)
    with pytest.raises(AttributeError):
        getattr(wrapper, name)


PARAMETERS = [
    (JetStreamContext.publish, SecureJetStream.publish),
    (JetStreamContext.PullSubscription.fetch, SecurePullSubscription.fetch),
    (JetStreamManager.get_msg, SecureJetStreamManager.get_msg),
    (JetStreamManager.get_last_msg, SecureJetStreamManager.get_last_msg),
    (Client.publish, SecureNats.publish),
    (Client.request, SecureNats.request),
    (Client.flush, SecureNats.flush),
    (Subscription.next_msg, SecureSubscription.next_msg),
    (Subscription.unsubscribe, SecureSubscription.unsubscribe),
    (Msg.ack_sync, SecureMsg.ack_sync),
    (Msg.nak, SecureMsg.nak),
]


@pytest.mark.parametrize(("theirs", "ours"), PARAMETERS, ids=[theirs.__qualname__ for theirs, _ in PARAMETERS])
def test_a_call_is_written_as_for_the_client(theirs: Any, ours: Any) -> None:
    def shape(function: Any) -> list[tuple[str, Any]]:
        return [(name, one.default) for name, one in inspect.signature(function).parameters.items()]

    assert shape(ours) == shape(theirs)


OPEN_ENDED = [
    (JetStreamContext.subscribe, SecureJetStream.subscribe),
    (JetStreamContext.subscribe_bind, SecureJetStream.subscribe_bind),
    (JetStreamContext.pull_subscribe, SecureJetStream.pull_subscribe),
    (JetStreamContext.pull_subscribe_bind, SecureJetStream.pull_subscribe_bind),
    (Client.subscribe, SecureNats.subscribe),
]


@pytest.mark.parametrize(("theirs", "ours"), OPEN_ENDED, ids=[theirs.__qualname__ for theirs, _ in OPEN_ENDED])
def test_the_first_parameters_of_a_subscription_are_the_clients(theirs: Any, ours: Any) -> None:
    wanted = list(inspect.signature(theirs).parameters)
    given = [name for name, one in inspect.signature(ours).parameters.items() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    assert given == wanted[: len(given)]


def test_the_private_name_that_errors_are_reported_through_is_there() -> None:
    assert "_error_cb" in inspect.getsource(Client.__init__)
    assert issubclass(nats.errors.TimeoutError, TimeoutError)


async def test_the_private_names_by_which_waiting_messages_are_taken_are_there() -> None:
    subscription = Subscription(Client())
    assert subscription._pending_queue.empty()
    assert subscription._pending_size == 0
    assert "_pending_size -= len(msg.data)" in inspect.getsource(Subscription.next_msg)
    assert "_pending_queue.task_done()" in inspect.getsource(Subscription.next_msg)
    subscription._start(None)
    assert subscription._message_iterator is not None
    assert not subscription._message_iterator._unsubscribed_future.done()
    subscription._stop_processing()
    assert subscription._message_iterator._unsubscribed_future.done()


def test_the_private_names_by_which_flow_control_is_answered_are_there() -> None:
    source = inspect.getsource(JetStreamContext.PushSubscription.next_msg)
    for name in ("self._sub._jsi", "_fcr", "get_js_delivered() >= self._sub._jsi._fciseq"):
        assert name in source


def test_the_page_of_names_is_the_table() -> None:
    assert (Path(__file__).resolve().parents[2] / "docs" / "nats.md").read_text(encoding="utf-8") == page()
