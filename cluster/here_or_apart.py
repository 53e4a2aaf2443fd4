"""An execution that its host embodies itself, or in a process of its own where its workflow asks for that."""

import asyncio
from collections.abc import Callable

from perdure.actors.execution import Execution
from perdure.actors.inputs import Command
from perdure.cluster.leases import Embodied
from perdure.errors import BelongsElsewhere


class HereOrApart:
    """Begins here, where the log and the definition say at once whether it belongs elsewhere; see Embodied."""

    def __init__(self, here: Execution, apart: Callable[[], Embodied]) -> None:
        self._now: Embodied = here
        self._apart = apart
        self._moved = asyncio.Event()
        self._leaving = False

    async def run(self, *first: Command) -> bool:
        """Act until the execution ends or can be left; see Embodied."""
        try:
            return await self._now.run(*first)
        except BelongsElsewhere:
            self._now = self._apart()
        self._moved.set()
        if self._leaving:
            self._now.leave()
        return await self._now.run(*first)

    async def tell(self, given: Command) -> bool:
        """Hand over a command; see Embodied."""
        try:
            return await self._now.tell(given)
        except BelongsElsewhere:
            await self._moved.wait()
            return await self._now.tell(given)

    def hurry(self) -> None:
        """See Embodied."""
        self._now.hurry()

    def leave(self) -> None:
        """Begin nothing more; see Embodied."""
        self._leaving = True
        self._now.leave()
