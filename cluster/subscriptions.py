"""Subscriptions: the events of the log as they come, from any position; durable ones go on where they were."""

import asyncio
import contextlib
import logging
from contextlib import aclosing
from typing import Literal, Self

from perdure.cluster.cursors import Cursor
from perdure.cluster.tasks import stop
from perdure.errors import BadInput, LogUnavailable, TakenOver, WaitTimeout
from perdure.events.choice import Choice
from perdure.events.entry import Happened
from perdure.events.log import Log
from perdure.events.reading import Place, chosen

Ack = Literal["next", "manual"]
From = str | int
"""now, beginning, or a position: as a number, or as its digits."""

Chose = tuple[Happened, str]
"""An event, and the workflow of its execution."""
_Item = Chose | Place | Exception

_AHEAD = 256  # entries that are read before they are asked for
_STEP = 1000  # positions without a chosen event, after which a cursor moves nevertheless
_AGAIN = 0.5  # seconds
_BEHIND = 64  # acknowledgements that are not recorded yet: so many events may come again after a crash
_CLOSE_SECONDS = 5.0
_log = logging.getLogger("perdure.subscriptions")


async def first_place(log: Log, from_: From) -> Place:
    """Return the place that a subscriber means: now, the beginning, or behind a position. Raises BadInput."""
    if from_ == "now":
        return Place.behind(await log.last())
    if from_ == "beginning":
        return Place()
    if isinstance(from_, str) and from_.isdecimal() and from_.isascii():
        from_ = int(from_)  # as programs have it that read it from a file, or a command line
    if isinstance(from_, bool) or not isinstance(from_, int) or from_ < 0:
        raise BadInput(f"from_={from_!r}: it is 'now', 'beginning', or a position of the log, from 0")
    if from_ > (last := await log.last()):
        raise BadInput(f"from_={from_}: the log ends at position {last}; is it the position of another one?")
    return Place.behind(from_)


class AsyncSubscription:
    """An async iterator over events; also an async context manager, which closes it.

    ack: with `next`, asking for the next event acknowledges the one before; with `manual`, `ack` alone does.
    """

    def __init__(self, log: Log, choice: Choice, place: Place, cursor: Cursor | None, ack: Ack) -> None:
        if ack not in ("next", "manual"):
            raise BadInput(f"ack={ack!r}: it is 'next' or 'manual'")
        self._automatic = ack == "next"
        self._given = self._acked = self._written = place
        self._cursor = cursor
        self._unwritten = 0
        self._writing: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._ready: asyncio.Queue[_Item] = asyncio.Queue(_AHEAD)
        self._reading: asyncio.Task[None] | None = asyncio.create_task(
            self._read(log, choice, place), name="perdure-subscription"
        )

    @property
    def position(self) -> int:
        """The position of the log that is acknowledged: all events up to there, where there is no more of its entry."""
        return self._acked.position - 1

    async def next(self, timeout: float | None = None) -> Happened:
        """Return the next event, waiting at most `timeout` seconds for it.

        Raises WaitTimeout, TakenOver where another process goes on with it, CorruptEntry where this release
        cannot read an entry, and BadInput where it is closed.
        """
        if self._automatic:
            self._mark(self._given)
            if self._unwritten >= _BEHIND:
                await self.ack()
        try:
            async with asyncio.timeout(timeout):
                return (await self._next())[0]
        except TimeoutError:
            raise WaitTimeout(f"no event came within {timeout:g} s") from None

    async def batch(self, limit: int) -> list[Chose]:
        """Wait for an event, and return it with those behind it that are there already, each with its workflow."""
        found = [await self._next()]
        while len(found) < limit and not self._ready.empty():
            item = self._ready.get_nowait()
            if isinstance(item, Exception):
                self._failure = item
                break
            found += self._taken(item)
        return found

    async def ack(self, event: Happened | None = None) -> None:
        """Acknowledge what was given up to this event, or all of it; return when that is recorded.

        Raises TakenOver, LogUnavailable.
        """
        self._mark(self._given if event is None else Place.after(event))
        while self._writing is not None and self._written < self._acked and self._failure is None:
            await asyncio.shield(self._writing)
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """End it; what is acknowledged is recorded, where the server answers within 5 s."""
        if self._reading is None:
            return
        await stop(self._reading)
        self._reading = None
        with contextlib.suppress(asyncio.QueueFull):  # who waits for the next one, in another task or thread, is told
            self._ready.put_nowait(_closed())
        if self._writing is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await asyncio.shield(self._writing)
            await stop(self._writing)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Happened:
        return await self.next()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _next(self) -> Chose:
        while True:
            if self._failure is not None:
                raise self._failure
            if self._reading is None:
                raise _closed()
            item = await self._ready.get()
            if isinstance(item, Exception):
                self._failure = item
                continue
            for chose in self._taken(item):
                return chose

    def _taken(self, item: Chose | Place) -> list[Chose]:
        """Note what is given, and return it; a stretch without chosen events is acknowledged with all before it."""
        if not isinstance(item, Place):
            self._given = Place.after(item[0])
            return [item]
        settled, self._given = self._acked == self._given, item
        if settled:
            self._mark(item)
        return []

    async def _read(self, log: Log, choice: Choice, place: Place) -> None:
        """Read ahead; where the log is away, go on when it is back."""
        noted = place.position
        while True:
            try:
                async with aclosing(chosen(log, choice, place)) as entries:  # type: ignore[type-var]
                    async for position, workflow, events in entries:
                        for happened in events:
                            await self._ready.put((happened, workflow))
                            place = Place.after(happened)
                        place = Place.behind(position)
                        if events or position - noted >= _STEP:
                            noted = position
                            await self._ready.put(place)
            except LogUnavailable as error:
                _log.warning("the log is away, and is asked again every %g s: %s", _AGAIN, error)
                await asyncio.sleep(_AGAIN)
            except Exception as error:  # whatever it is: who waits for events has to hear of it
                await self._ready.put(error)
                return

    def _mark(self, place: Place) -> None:
        if place <= self._acked:
            return
        self._acked = place
        self._unwritten += self._cursor is not None
        if self._cursor is not None and (self._writing is None or self._writing.done()) and self._failure is None:
            self._writing = asyncio.create_task(self._write(self._cursor), name="perdure-cursor")

    async def _write(self, cursor: Cursor) -> None:
        """Record the place, again and again while it moves: what comes meanwhile leaves as one write."""
        while self._written != self._acked:
            place, self._unwritten = self._acked, 0
            try:
                await cursor.move(place)
            except LogUnavailable as error:
                _log.warning("what is acknowledged is not recorded yet: %s", error)
                await asyncio.sleep(_AGAIN)
            except TakenOver as error:
                self._failure = error
                return
            else:
                self._written = place


def _closed() -> BadInput:
    return BadInput("the subscription is closed; subscribe again")
