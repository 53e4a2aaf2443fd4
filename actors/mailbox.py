"""What an execution was told and has not decided yet."""

import asyncio

from perdure.actors.inputs import Input

Told = tuple[Input, asyncio.Future[bool] | None]
"""An input, and who waits until it is decided."""


class Mailbox:
    """A queue with one reader, who may be woken without a message.

    An asyncio.Queue with an Event beside it takes 4 kB, and a host holds many of these. It knows nobody who puts into
    it, so that an execution which has ended is no cycle, and its memory is free at once.
    """

    __slots__ = ("_reader", "_told", "_woken")

    def __init__(self) -> None:
        self._told: list[Told] = []
        self._woken = False
        self._reader: asyncio.Future[None] | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return not self._told

    def put(self, given: Input, decided: asyncio.Future[bool] | None = None) -> None:
        """Put an input in."""
        self._told.append((given, decided))
        self.wake()

    def wake(self) -> None:
        """Have the reader look up: the one who waits, or else the next who does."""
        self._woken = True
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def sleep(self) -> None:
        """Forget that anybody woke the reader."""
        self._woken = False

    async def woken(self) -> None:
        """Return when somebody has woken the reader since it last looked up."""
        if not self._woken:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        self._woken = False

    async def some(self, most: int) -> list[Told]:
        """Wait until there is something, and take up to so many, oldest first."""
        while self.empty:
            await self.woken()
        taken, self._told = self._told[:most], self._told[most:]
        return taken

    def rest(self) -> list[Told]:
        """Take all that is there."""
        taken, self._told = self._told, []
        return taken
