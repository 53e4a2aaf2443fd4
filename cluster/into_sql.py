"""Exactly once into SQL: each event is handled in a transaction of your database that also moves the position."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Column, Connection, Integer, MetaData, String, Table, insert, select, update
from sqlalchemy.exc import DBAPIError

from perdure.cluster.subscriptions import From, first_place
from perdure.errors import BadInput
from perdure.events.choice import Choice
from perdure.events.entry import Happened
from perdure.events.log import Log
from perdure.events.reading import Place, chosen

if TYPE_CHECKING:
    from sqlalchemy import Engine

Handle = Callable[[Connection, Happened], object]

_STEP = 1000  # positions without a chosen event, after which the position moves nevertheless

positions = Table(
    "perdure_positions",
    MetaData(),
    Column("name", String(200), primary_key=True),
    Column("log", String(100), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("events", Integer, nullable=False),
)


class IntoSql:
    """Hands the chosen events to a function, one transaction each. Any number of processes may share a name."""

    def __init__(self, log: Log, engine: "Engine", name: str, choice: Choice, handle: Handle) -> None:
        self._log = log
        self._engine = engine
        self._name = name
        self._choice = choice
        self._handle = handle

    async def run(self, from_: From, until: int | None) -> int:
        """Go on from the position in the database, up to `until` or for ever; return how many events were handled here.

        from_: where there is no position yet. An error of the function undoes its transaction, and is raised: the event
        comes again. Raises BadInput where the position is of another log.
        """
        first, identity = await first_place(self._log, from_), await self._log.identity()
        await asyncio.to_thread(self._prepare, first, identity)
        handled, again = 0, True
        while again:
            count, again = await self._follow(await asyncio.to_thread(self._place), until)
            handled += count
        return handled

    async def _follow(self, place: Place, until: int | None) -> tuple[int, bool]:
        """Handle events until the end is reached, or another process was faster: then begin again where it is."""
        handled = 0
        async with aclosing(chosen(self._log, self._choice, place, until)) as entries:  # type: ignore[type-var]
            async for position, _, events in entries:
                for happened in events:
                    if not await asyncio.to_thread(self._apply, place, Place.after(happened), happened):
                        return handled, True
                    handled, place = handled + 1, Place.after(happened)
                if not events and position - place.position >= _STEP:
                    if not await asyncio.to_thread(self._apply, place, Place.behind(position), None):
                        return handled, True
                    place = Place.behind(position)
        return handled, False

    def _apply(self, before: Place, after: Place, happened: Happened | None) -> bool:
        """Move the position and handle the event, or neither; False where the position is not `before` any more."""
        here = (
            (positions.c.name == self._name)
            & (positions.c.position == before.position)
            & (positions.c.events == before.events)
        )
        moved = update(positions).where(here).values(position=after.position, events=after.events)
        with self._engine.begin() as connection:
            if not connection.execute(moved).rowcount:
                return False
            if happened is not None:
                self._handle(connection, happened)
        return True

    def _prepare(self, first: Place, log: str) -> None:
        try:
            self._begin(first, log)
        except DBAPIError:
            self._begin(first, log)  # another process made table or row at the same moment; now they are there

    def _begin(self, first: Place, log: str) -> None:
        positions.create(self._engine, checkfirst=True)
        with self._engine.begin() as connection:
            found = connection.scalar(select(positions.c.log).where(positions.c.name == self._name))
            if found is None:
                row = {"name": self._name, "log": log, "position": first.position, "events": first.events}
                connection.execute(insert(positions).values(row))
            elif found != log:
                raise BadInput(
                    f"the position {self._name!r} in table perdure_positions is of another log ({found}, this one is "
                    f"{log}): choose another name, or delete that row"
                )

    def _place(self) -> Place:
        query = select(positions.c.position, positions.c.events).where(positions.c.name == self._name)
        with self._engine.connect() as connection:
            return Place(*connection.execute(query).one())
