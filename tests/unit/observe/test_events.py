"""Events: whom they reach, in which order, and what a slow or faulty listener costs."""

from __future__ import annotations

import asyncio
import gc

from broker_crypto.limits import EVENTS_QUEUE
from broker_crypto.observe.events import EventHub
from broker_crypto.records import EpochChanged, Event, Halted


def epoch(number: int) -> EpochChanged:
    return EpochChanged("orders", number, "agent://acme/ops")


async def test_events_count_from_the_call_on_not_from_the_first_wait() -> None:
    hub = EventHub()
    hub.report(epoch(0))
    listener = hub.events()
    hub.report(epoch(1))
    assert await asyncio.wait_for(anext(listener), 1) == epoch(1)


async def test_a_listener_gets_the_kinds_that_it_named_in_their_order() -> None:
    hub = EventHub()
    listener, all_of_them = hub.events(Halted), hub.events()
    told: list[Event] = [epoch(1), Halted("orders", "log_rolled_back"), epoch(2)]
    for event in told:
        hub.report(event)
    hub.close()
    assert [event async for event in listener] == [told[1]]
    assert [event async for event in all_of_them] == told


async def test_who_waits_is_woken_and_the_end_is_told() -> None:
    hub = EventHub()
    listener = hub.events()
    waiting = asyncio.ensure_future(anext(listener, None))
    await asyncio.sleep(0)
    hub.report(epoch(1))
    assert await asyncio.wait_for(waiting, 1) == epoch(1)
    waiting = asyncio.ensure_future(anext(listener, None))
    await asyncio.sleep(0)
    hub.close()
    assert await asyncio.wait_for(waiting, 1) is None
    assert await anext(hub.events(), None) is None


async def test_of_more_than_the_queue_holds_the_oldest_go_and_are_counted() -> None:
    hub = EventHub()
    listener = hub.events()
    for number in range(EVENTS_QUEUE + 3):
        hub.report(epoch(number))
    assert listener.dropped == 3
    assert await anext(listener) == epoch(3)


async def test_a_listener_that_nobody_holds_any_more_costs_nothing() -> None:
    hub = EventHub()
    hub.report(epoch(0))
    async for _ in _one(hub):
        break
    gc.collect()
    assert len(hub._listeners) == 0


def _one(hub: EventHub):  # type: ignore[no-untyped-def]
    listener = hub.events()
    hub.report(epoch(1))
    return listener


def test_a_callback_is_called_for_its_kind_until_it_is_taken_back() -> None:
    hub, heard = EventHub(), []
    stop = hub.on(EpochChanged, heard.append)
    hub.report(epoch(1))
    hub.report(Halted("orders", "log_rolled_back"))
    stop()
    stop()
    hub.report(epoch(2))
    assert heard == [epoch(1)]


def test_a_callback_that_raises_is_dropped_and_counted_and_the_others_are_called() -> None:
    hub, heard = EventHub(), []

    def faulty(event: Event) -> None:
        raise ValueError(event)

    hub.on(Event, faulty)
    hub.on(Event, heard.append)
    hub.report(epoch(1))
    hub.report(epoch(2))
    assert hub.failed == 1
    assert heard == [epoch(1), epoch(2)]
