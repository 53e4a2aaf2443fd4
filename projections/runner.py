"""The runner: brings read models up to the end of the log; rows and position move in one transaction, or not at all."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection

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
        self._projections: dict[str, Projection] = {}
        for projection in [*built_in(), *own]:
            if projection.name in self._projections:
                raise BadInput(f"two projections have the name {projection.name!r}; give yours another one")
            self._projections[projection.name] = projection

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
        reached, last = await self.prepare(log), await log.last() if until is None else until
        while True:
            if gone := [each.name for each in chosen if each.name not in reached]:
                raise EnvironmentProblem(f"the projection {gone[0]!r} was taken away meanwhile; ask again")
            low = min(reached[projection.name] for projection in chosen)
            batch = await _batch(log, low, self._batch) if low < last else []  # what comes meanwhile is another call's
            batch = [each for each in batch if until is None or each.recorded.position <= until]
            if not batch:
                return low
            await asyncio.to_thread(self._fold, chosen, reached, batch)
            reached = await asyncio.to_thread(self._read, tracking.positions)

    async def rebuild(self, log: Log, names: Iterable[str]) -> None:
        """Take the rows of projections away, and make them again from the whole log. Raises as `catch_up`, BadInput."""
        chosen, identity = self._chosen(names), await log.identity()

        def begin_again() -> None:
            self.store.migrate()
            with self.store.writing() as connection:
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
        with self.store.writing() as connection:
            if not self.store.is_sqlite:
                connection.exec_driver_sql("LOCK TABLE tracking IN EXCLUSIVE MODE")
            tracking.prepare(connection, projections, log, owned=self.store.is_sqlite)

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
        try:
            batch.append(_Unpacked(await log.with_events(recorded)))
        except (CorruptBlob, CorruptEntry) as error:
            batch.append(_Unpacked(recorded, str(error)))
        size += len(recorded.data) + sum(map(len, batch[-1].recorded.values.values()))
        if size > _BATCH_BYTES:
            break
    return batch


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
    except Exception as error:
        if is_passing(error):
            raise
        savepoint.rollback()
        return f"{type(error).__name__}: {error}"
    savepoint.commit()
    return ""


def _put_aside(connection: Connection, projection: Projection, recorded: Recorded, why: str) -> None:
    _log.warning("%s: the entry at position %d is left out of it: %s", projection.name, recorded.position, why)
    tracking.put_aside(connection, projection.name, recorded, datetime.now(UTC), why)
