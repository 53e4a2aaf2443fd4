"""Verification: whether the current code still reads and folds what is stored, and the read models say the same.

The check before an upgrade. One execution is in memory at a time, whatever their number.
"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection as SqlConnection
from sqlalchemy import Table, create_engine, delete, select
from sqlalchemy.pool import StaticPool

from perdure.actors.folded import Folded
from perdure.actors.schedule_log import Folded as ScheduleFolded
from perdure.actors.schedule_state import Schedule, is_schedule
from perdure.actors.state import Started
from perdure.cluster.connection import Connection
from perdure.cluster.whole_verification import differing
from perdure.definitions.loading import load
from perdure.errors import CorruptBlob, PerdureError
from perdure.events.entry import Entry, Happened, Recorded
from perdure.events.vocabulary import ExecutionPurged
from perdure.projections.approvals import Approvals
from perdure.projections.dead_letters import DeadLetters
from perdure.projections.executions import Executions
from perdure.projections.projection import Projection
from perdure.projections.runner import Projections
from perdure.projections.tables import metadata
from perdure.projections.timeline import Timeline

_OF_ONE = (Executions(), Timeline(), Approvals(), DeadLetters())
"""The projections whose rows are each of one execution, so that its entries alone make them again."""


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with an execution, at its entry number `n`, or as a whole (0); execution: "" is all of them.

    kind: corrupt, chain, fold, definition or projection.
    """

    execution: str
    kind: str
    message: str
    n: int = 0


class Verified(msgspec.Struct, frozen=True):
    """One execution that was looked at, how many entries it has, and what is wrong with it."""

    execution: str
    entries: int
    problems: list[Problem]


class Verification:
    """Looks at executions one after the other. Close it in the end."""

    def __init__(self, connection: Connection, projections: Projections | None = None) -> None:
        self._connection = connection
        self._projections = projections
        self._scratch = _Scratch() if projections is not None else None
        self._definitions: dict[str, str] = {}

    async def open(self) -> None:
        """Bring the read models up to the end of the log, so that what differs is not merely late."""
        if self._projections is not None:
            await self._projections.catch_up(self._connection.log, [each.name for each in _OF_ONE])

    async def all(self) -> list[str]:
        """Return the ids of all executions and schedules that have entries."""
        return sorted(await self._connection.log.counts())

    async def whole(self) -> Verified:
        """Look at the read models that sum up many executions; their problems are of no execution."""
        if self._projections is None:
            return Verified("", 0, [])
        found = await differing(self._connection.log, self._projections, [each.name for each in _OF_ONE])
        return Verified("", 0, [Problem("", "projection", what) for what in found])

    async def verify(self, execution: str) -> Verified:
        """Look at one execution; what is wrong is told, not raised. Raises LogUnavailable."""
        chain, events = _Chain(execution), list[Happened]()
        try:
            async for recorded in self._connection.log.read(execution):
                if not chain.take(recorded):
                    break
                events += _slim(chain.newest, recorded)
        except CorruptBlob as error:
            chain.tell("corrupt", str(error), chain.entries + 1)
        if not chain.entries and not chain.problems:
            chain.tell("corrupt", "there is no such execution in this store")
        if not chain.problems:
            await self._look_further(chain, events)
        return Verified(execution, chain.entries, chain.problems)

    async def _look_further(self, chain: "_Chain", events: list[Happened]) -> None:
        state = chain.folded.state
        if isinstance(state, Started) and (why := await self._why_unusable(state.started.digest)):
            chain.tell("definition", why)
        if self._projections is None or self._scratch is None or is_schedule(chain.execution):
            return
        made = await asyncio.to_thread(self._scratch.rows, chain.execution, events)
        stored = await self._stored(chain.execution)
        if made != stored:  # it may have gone on since the read models were brought up
            await self.open()
            stored = await self._stored(chain.execution)
        if made != stored and await self._connection.log.last(chain.execution) == chain.position:
            for table in made:
                if made[table] != stored[table]:
                    chain.tell("projection", _difference(table, made[table], stored[table]))

    async def _stored(self, execution: str) -> dict[str, list[dict[str, Any]]]:
        assert self._projections is not None  # noqa: S101 (the caller has looked)
        return await self._projections.read(lambda connection: _rows(connection, execution))

    async def _why_unusable(self, digest: str) -> str:
        """Say why a definition cannot be used any more; "" where it can. Each is looked at once."""
        if digest not in self._definitions:
            try:
                load(json.loads(await self._connection.registry.definition(digest)))
                self._definitions[digest] = ""
            except (PerdureError, ValueError) as error:
                self._definitions[digest] = f"the definition {digest} cannot be used: {error}"
        return self._definitions[digest]

    def close(self) -> None:
        """Forget what was made to compare with, and close the read models."""
        if self._scratch is not None:
            self._scratch.close()
        if self._projections is not None:
            self._projections.close()


class _Chain:
    """The entries of one execution, each held against those before it."""

    newest: Entry

    def __init__(self, execution: str) -> None:
        self.execution = execution
        self.entries = self.position = 0
        self.problems: list[Problem] = []
        self.folded = Folded()
        self._prev: str | None = None
        self._schedule = ScheduleFolded(Schedule(execution))

    def tell(self, kind: str, message: str, n: int = 0) -> None:
        self.problems.append(Problem(self.execution, kind, message, n))

    def take(self, recorded: Recorded) -> bool:
        """Take one more entry; say whether the next one can be looked at."""
        self.entries, self.position = self.entries + 1, recorded.position
        try:
            self.newest = recorded.entry
        except Exception as error:  # whatever it is, it is what this looks for
            self.tell("corrupt", str(error), self.entries)
            return False
        self._follows(recorded)
        try:
            self._fold(recorded)
        except Exception as error:
            self.tell("fold", f"it does not fold any more: {type(error).__name__}: {error}", self.newest.n)
            return False
        return True

    def _follows(self, recorded: Recorded) -> None:
        purged = any(isinstance(event, ExecutionPurged) for event in self.newest.events)
        expected = "" if self._prev is None else self._prev
        if self.newest.prev != expected and not (purged and self._prev is None):
            self.tell("chain", "it does not name the digest of the entry before it: one of the two was altered",
                      self.newest.n)  # fmt: skip
        self._prev = recorded.digest

    def _fold(self, recorded: Recorded) -> None:
        if is_schedule(self.execution):
            self._schedule = self._schedule.after(recorded)
        else:
            self.folded = self.folded.after(recorded, self.newest)


def _slim(entry: Entry, recorded: Recorded) -> Iterable[Happened]:
    return [Happened(recorded.execution, entry.n, recorded.position, entry.at, event) for event in entry.events]


class _Scratch:
    """A database in memory, in which the rows of one execution at a time are made again."""

    def __init__(self) -> None:
        self._engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        with self._engine.begin() as connection:
            metadata.create_all(connection)

    def rows(self, execution: str, events: Sequence[Happened]) -> dict[str, list[dict[str, Any]]]:
        """Return the rows that these events make, by table."""
        with self._engine.begin() as connection:
            for projection in _OF_ONE:
                projection.fold(connection, events)
            found = _rows(connection, execution)
            for table in _tables():
                connection.execute(delete(table))
        return found

    def close(self) -> None:
        self._engine.dispose()


def _tables() -> list[Table]:
    projections: Sequence[Projection] = _OF_ONE
    return [table for projection in projections for table in projection.tables]


def _rows(connection: SqlConnection, execution: str) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for table in _tables():
        column = table.c["id"] if "id" in table.c else table.c["execution"]
        query = select(table).where(column == execution).order_by(*table.primary_key.columns)
        found[table.name] = [dict(row) for row in connection.execute(query).mappings()]
    return found


def _difference(table: str, made: list[dict[str, Any]], stored: list[dict[str, Any]]) -> str:
    mend = "make it again with: perdure projections rebuild"
    if len(made) != len(stored):
        return f"the read model {table!r} has {len(stored)} rows, the log makes {len(made)}; {mend}"
    mine, theirs = next((one, other) for one, other in zip(made, stored, strict=True) if one != other)
    column = next(name for name in mine if mine[name] != theirs[name])
    return f"the read model {table!r} has {theirs[column]!r} as {column!r}, the log makes {mine[column]!r}; {mend}"
