"""Exactly once into SQL: each event is handled in a transaction of your database that also moves the position."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from inspect import isawaitable
from uuid import uuid4

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from perdure.cluster.subscriptions import From, first_place
from perdure.errors import BadInput, LogUnavailable
from perdure.events.choice import Choice
from perdure.events.entry import Happened
from perdure.events.log import Log
from perdure.events.reading import Place, chosen

Handle = Callable[[Connection, Happened], object]

_STEP = 1000  # positions without a chosen event, after which the position moves nevertheless
_LONGEST = 200  # characters of a name
_AGAIN = 0.5  # seconds
_log = logging.getLogger("perdure.subscriptions")

positions = Table(
    "perdure_positions",
    MetaData(),
    Column("name", String(_LONGEST), primary_key=True),
    Column("log", String(100), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("events", Integer, nullable=False),
)


class IntoSql:
    """Hands the chosen events to a function, one transaction each. Any number of processes may share a name."""

    def __init__(self, log: Log, engine: Engine, name: str, choice: Choice, handle: Handle) -> None:
        if not isinstance(engine, Engine):
            raise BadInput(f"into_sql wants SQLAlchemy's create_engine(...), not {type(engine).__name__}")
        if not 1 <= len(name) <= _LONGEST:
            raise BadInput(f"the name of a position has 1 to {_LONGEST} characters")
        self._log = log
        self._engine = engine
        self._name = name
        self._choice = choice
        self._handle = handle
        self._handled = 0

    async def run(self, from_: From, until: int | None) -> int:
        """Go on from the position in the database, up to `until` or for ever; return how many events were handled here.

        from_: where there is no position yet. An error of the function undoes its transaction, and is raised: the event
        comes again. Raises BadInput where the position is of another log.
        """
        first, identity = await first_place(self._log, from_), await self._log.identity()
        await asyncio.to_thread(self._prepare, first, identity)
        again = True
        while again:
            try:
                again = await self._follow(await asyncio.to_thread(self._place), until)
            except LogUnavailable as error:
                if until is not None:
                    raise
                _log.warning("the log is away, and is asked again every %g s: %s", _AGAIN, error)
                await asyncio.sleep(_AGAIN)
        return self._handled

    async def _follow(self, place: Place, until: int | None) -> bool:
        """Handle events until the end is reached; True where another process was faster: begin again where it is."""
        async with aclosing(chosen(self._log, self._choice, place, until)) as entries:  # type: ignore[type-var]
            async for position, _, events in entries:
                for happened in events:
                    if not await asyncio.to_thread(self._apply, place, Place.after(happened), happened):
                        return True
                    self._handled, place = self._handled + 1, Place.after(happened)
                if not events and position - place.position >= _STEP:
                    if not await asyncio.to_thread(self._apply, place, Place.behind(position), None):
                        return True
                    place = Place.behind(position)
        return False

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
            if happened is not None and isawaitable(self._handle(connection, happened)):
                raise BadInput("into_sql calls a plain function; this one is async, so nothing of it was done")
        return True

    def _prepare(self, first: Place, log: str) -> None:
        self._though_another_was_faster(partial(positions.create, self._engine, checkfirst=True))
        self._check_undoing(log)
        self._though_another_was_faster(partial(self._begin, first, log))

    @staticmethod
    def _though_another_was_faster(make: Callable[[], None]) -> None:
        """Make what another process may make at the same moment: then it is there the second time."""
        try:
            make()
        except DBAPIError:
            make()

    def _begin(self, first: Place, log: str) -> None:
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

    def _check_undoing(self, log: str) -> None:
        """Raise BadInput where nothing is undone, as with AUTOCOMMIT: an error would lose its event then."""
        probe = uuid4().hex
        with self._engine.connect() as connection:
            connection.execute(insert(positions).values(name=probe, log=log, position=0, events=0))
            connection.rollback()
        with self._engine.begin() as connection:
            if connection.execute(delete(positions).where(positions.c.name == probe)).rowcount:
                raise BadInput(
                    "this engine does not undo transactions, so nothing would be exactly once: leave out its "
                    "isolation_level AUTOCOMMIT"
                )

    def _place(self) -> Place:
        query = select(positions.c.position, positions.c.events).where(positions.c.name == self._name)
        with self._engine.connect() as connection:
            return Place(*connection.execute(query).one())
