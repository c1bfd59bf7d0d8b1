"""Earlier generations of a group: nothing is followed or sealed there, and what is held stays readable until its time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from broker_crypto import errors
from broker_crypto.delivery.loop import GroupLoop
from broker_crypto.policy.rules import GroupSection
from broker_crypto.records import GroupView

Publish = Callable[[GroupView, errors.BrokerCryptoError | None], None]
Make = Callable[[GroupSection, Publish], GroupLoop]


class Former:
    """The generations below that of `section`. `make` gives the loop of one, `changed` is told when there is another view.

    Their loops have no log: they read what the store holds, end what is open there, and erase it by its own `key_retention`.
    """

    def __init__(self, section: GroupSection, make: Make, changed: Callable[[], None]) -> None:
        self._views: dict[int, GroupView] = {}
        self._changed = changed
        self._loops = [make(replace(section, generation=n), self._keep(n)) for n in range(section.generation)]
        self.tasks = [asyncio.ensure_future(self._run(loop)) for loop in self._loops]

    def _keep(self, generation: int) -> Publish:
        def publish(view: GroupView, closed: errors.BrokerCryptoError | None) -> None:
            self._views[generation] = view
            self._changed()

        return publish

    async def _run(self, loop: GroupLoop) -> None:
        loop.former = True
        await loop.run()

    def beside(self, view: GroupView) -> GroupView:
        """`view` with the epochs of earlier generations."""
        if not self._views:
            return view
        epochs = {name: epoch for held in self._views.values() for name, epoch in held.epochs.items()}
        erased = frozenset().union(*(held.erased for held in self._views.values()))
        return replace(view, epochs={**epochs, **view.epochs}, erased=view.erased | erased)

    async def close(self) -> None:
        """End their loops at their next rest."""
        for loop in self._loops:
            await loop.close()
