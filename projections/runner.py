"""The runner: brings read models up to the end of the log; rows and position move in one transaction, or not at all."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, NestedTransaction, select
from sqlalchemy.exc import DBAPIError

from perdure.errors import BadInput, CorruptBlob, CorruptEntry, EnvironmentProblem
from perdure.events.entry import Happened, Recorded
from perdure.events.log import Log
from perdure.projections import tracking
from perdure.projections.approvals import Approvals
from perdure.projections.dead_letters import DeadLetters
from perdure.projections.definitions import Definitions
from perdure.projections.executions import Executions
from perdure.projections.projection import Projection
from perdure.projections.statistics import Statistics
from perdure.projections.store import Store, is_passing
from perdure.projections.timeline import Timeline

BATCH = 1000
BATCH_OF_ONE_THAT_STAYS = 200  # and with it the memory that it once needed
_BATCH_BYTES = 4_000_000
_EMPTY, _AGAIN_SECONDS = 20, 0.05  # so often, and after so long, it asks again for what the log's leader has
_log = logging.getLogger("perdure.projections")
_T = TypeVar("_T")


def built_in() -> list[Projection]:
    """Return perdure's own projections."""
    return [Executions(), Timeline(), Statistics(), Definitions(), Approvals(), DeadLetters()]


class Projections:
    """The read models in one database; several processes may fold into it and read from it at once.

    own: projections beside perdure's own. batch: entries in one transaction, which take some 5 kB of memory each.
    Raises BadInput for a URL, or names, that cannot be used.
    """

    def __init__(self, url: str | Path, own: Sequence[Projection] = (), batch: int = BATCH) -> None:
        self._batch = batch
        self.store = Store(url)
        self.own = tuple(own)
        self._projections = _checked([*built_in(), *own])

    @property
    def all(self) -> list[Projection]:
        """All projections."""
        return list(self._projections.values())

    @property
    def names(self) -> list[str]:
        """The names of all projections."""
        return list(self._projections)

    async def prepare(self, log: Log) -> dict[str, int]:
        """See to it that the tables are there, and of this log; return how far each projection is. Raises as below."""
        await asyncio.to_thread(self._prepare, await log.identity())
        return await asyncio.to_thread(self._read, tracking.positions)

    async def catch_up(self, log: Log, names: Iterable[str] | None = None, until: int | None = None) -> int:
        """Fold what is not folded yet, of these projections, or of all; return the position that they have reached.

        until: the position of the last entry to fold, other than the log's newest.
        Raises EnvironmentProblem where the database cannot be used, LogUnavailable.
        """
        chosen = self._chosen(names)
        reached, last, empty = await self.prepare(log), await log.last() if until is None else until, 0
        while True:
            if gone := [each.name for each in chosen if each.name not in reached]:
                raise EnvironmentProblem(f"the projection {gone[0]!r} was taken away meanwhile; ask again")
            places = [reached[projection.name] for projection in chosen]
            if (low := min(places)) >= last:  # what comes meanwhile is another call's
                return low
            if not await self._fold_behind(log, chosen, reached, low, until):
                if (empty := empty + 1) > _EMPTY:
                    return low
                await asyncio.sleep(_AGAIN_SECONDS)  # a replica answered that is behind
            if (high := max(places)) > low:  # those in front go on, however far behind another one is
                ahead = [each for each in chosen if reached[each.name] == high]
                await self._fold_behind(log, ahead, reached, high, until)
            reached = await asyncio.to_thread(self._read, tracking.positions)

    async def rebuild(self, log: Log, names: Iterable[str]) -> None:
        """Take the rows of projections away, and make them again from the whole log. Raises as `catch_up`, BadInput."""
        chosen, identity = self._chosen(names), await log.identity()

        def begin_again() -> None:
            self.store.migrate()
            with self._preparing() as connection:
                tracking.prepare(connection, self._projections.values(), identity, owned=True)
                for projection in chosen:
                    tracking.begin_again(connection, projection, identity)

        await asyncio.to_thread(begin_again)
        await self.catch_up(log, [projection.name for projection in chosen])

    async def lag(self, log: Log) -> dict[str, dict[str, Any]]:
        """Return of each projection its version, its position, how far that is from the log's end, its quarantine.

        Users' own are among them once they have been folded, wherever that was.
        """
        await self.prepare(log)
        return await asyncio.to_thread(self._read, partial(tracking.standing, last=await log.last()))

    async def quarantined(self, log: Log) -> list[dict[str, Any]]:
        """Return the entries that could not be folded, each with its projection and its error."""
        await self.prepare(log)
        return await asyncio.to_thread(self._read, tracking.quarantined)

    async def read(self, question: Callable[[Connection], _T]) -> _T:
        """Answer a question to the tables, as they are."""
        return await asyncio.to_thread(self._read, question)

    def close(self) -> None:
        """Close the database."""
        self.store.close()

    def _chosen(self, names: Iterable[str] | None) -> list[Projection]:
        unknown = set(names or ()) - self._projections.keys()
        if unknown:
            raise BadInput(f"there is no projection {min(unknown)!r}; there are {', '.join(self._projections)}")
        # Always in the same order, so that no two that fold wait for each other's rows.
        return [self._projections[name] for name in sorted(self._projections if names is None else set(names))]

    def _read(self, question: Callable[[Connection], _T]) -> _T:
        with self.store.reading() as connection:
            return question(connection)

    def _prepare(self, log: str) -> None:
        self.store.migrate()
        projections = self._projections.values()
        with self.store.reading() as connection:
            if tracking.is_prepared(connection, projections, log):
                return
        with self._preparing() as connection:
            tracking.prepare(connection, projections, log, owned=self.store.is_sqlite)

    @contextmanager
    def _preparing(self) -> Iterator[Connection]:
        """Give a connection to write with, while nobody else prepares, begins again or folds."""
        with self.store.writing() as connection:
            if not self.store.is_sqlite:
                connection.exec_driver_sql("LOCK TABLE tracking IN EXCLUSIVE MODE")
            yield connection

    async def _fold_behind(
        self, log: Log, chosen: list[Projection], reached: dict[str, int], after: int, until: int | None
    ) -> bool:
        """Fold the entries behind a position, so many at once; say whether there were any."""
        batch = await _batch(log, after, self._batch)
        if batch := [each for each in batch if until is None or each.recorded.position <= until]:
            await asyncio.to_thread(self._fold, chosen, reached, batch)
        return bool(batch)

    def _fold(self, chosen: list[Projection], reached: dict[str, int], batch: list["_Unpacked"]) -> None:
        with self.store.writing() as connection:
            for projection in chosen:
                before = reached[projection.name]
                new = [each for each in batch if each.recorded.position > before]
                if new and tracking.advance(connection, projection.name, before, new[-1].recorded.position):
                    _fold(connection, projection, new)


class _Unpacked:
    """An entry and its events, or why they cannot be had."""

    def __init__(self, recorded: Recorded, why: str = "") -> None:
        self.recorded = recorded
        self.why = why
        self.events: list[Happened] = []
        try:
            self.events = [] if why else recorded.unpack()
        except (CorruptEntry, KeyError, ValueError) as error:
            self.why = str(error)


async def _batch(log: Log, after: int, most: int) -> list[_Unpacked]:
    """Return the next entries, no more than one transaction and the memory should take."""
    batch: list[_Unpacked] = []
    size = 0
    async for recorded in log.read_all(after, most):
        if recorded.position <= after:
            continue  # it came twice
        after = recorded.position
        try:
            batch.append(_Unpacked(await log.with_events(recorded)))
        except (CorruptBlob, CorruptEntry) as error:
            batch.append(_Unpacked(recorded, str(error)))
        size += len(recorded.data) + sum(map(len, batch[-1].recorded.values.values()))
        if size > _BATCH_BYTES:
            break
    return batch


def _checked(projections: Sequence[Projection]) -> dict[str, Projection]:
    """Return projections by their names; raise BadInput where two have the same name, or a table in common."""
    found: dict[str, Projection] = {}
    taken: dict[str, type] = dict.fromkeys(("tracking", "quarantine", "perdure_schema"), Store)
    for projection in projections:
        if projection.name in found:
            raise BadInput(f"two projections have the name {projection.name!r}; give yours another one")
        for table in projection.tables:
            if taken.setdefault(table.name, type(projection)) is not type(projection):
                raise BadInput(f"the projection {projection.name} has a table {table.name!r}, which is another one's")
        found[projection.name] = projection
    return found


def _fold(connection: Connection, projection: Projection, batch: list[_Unpacked]) -> None:
    """Fold all at once; where that fails, entry by entry, so that only those stay out that cannot be folded."""
    for each in batch:
        if each.why:
            _put_aside(connection, projection, each.recorded, each.why)
    sound = [each for each in batch if each.events]
    why = _tried(connection, projection, [event for each in sound for event in each.events])
    for each in sound if why else ():
        if problem := _tried(connection, projection, each.events):
            _put_aside(connection, projection, each.recorded, problem)


def _tried(connection: Connection, projection: Projection, events: list[Happened]) -> str:
    """Fold in a savepoint; return what went wrong, with nothing of it left, or nothing."""
    if not events:
        return ""
    savepoint = connection.begin_nested()
    try:
        projection.fold(connection, events)
        if savepoint.is_active:
            connection.execute(select(1))  # an error that the fold has swallowed is one for PostgreSQL nevertheless
    except Exception as error:
        if is_passing(error):
            raise
        _check_open(savepoint, projection)
        savepoint.rollback()
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error  # else it has all data with it
        return f"{type(cause).__name__}: {cause}"
    _check_open(savepoint, projection)
    savepoint.commit()
    return ""


def _check_open(savepoint: NestedTransaction, projection: Projection) -> None:
    if not savepoint.is_active:
        raise BadInput(
            f"the projection {projection.name} has ended the transaction; its fold neither commits nor undoes"
        )


def _put_aside(connection: Connection, projection: Projection, recorded: Recorded, why: str) -> None:
    _log.warning("%s: the entry at position %d is left out of it: %s", projection.name, recorded.position, why)
    tracking.put_aside(connection, projection.name, recorded, datetime.now(UTC), why)
