"""The projection runner: brings the read models up to the end of the log, rows and position in one transaction."""

import asyncio
import logging
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, delete, event, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.schema import CreateIndex, CreateTable

from perdure.errors import CorruptEntry, EnvironmentProblem
from perdure.events.entry import Happened, Recorded
from perdure.events.log import Log
from perdure.projections.executions import (
    counts,
    ended_before,
    executions,
    metadata,
    newest,
    overdue,
    project,
    timers,
    tracking,
)

_NAME = "executions, timers"  # another name has the rows made anew: of files that older releases left
_BATCH = 1000
_log = logging.getLogger("perdure.projections")


class Projections:
    """The read models of one store, in its SQLite file; several processes may use them at once."""

    def __init__(self, file: Path) -> None:
        self._engine = _engine(file)

    async def catch_up(self, log: Log) -> None:
        """Fold every entry that is not folded yet; what another process folds meanwhile is not folded twice."""
        await asyncio.to_thread(self._prepare, await log.identity())
        while True:
            position = await asyncio.to_thread(self._position)
            batch = [recorded async for recorded in log.read_all(position, _BATCH)]
            if not batch:
                return
            await asyncio.to_thread(self._fold, position, batch)

    async def executions(self, status: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """Return the newest executions as rows, at most `limit`, with this status where one is given."""

        def read() -> list[dict[str, Any]]:
            with self._engine.connect() as connection:
                return newest(connection, status, limit)

        return await asyncio.to_thread(read)

    async def ended_before(self, before: datetime, statuses: Iterable[str]) -> list[str]:
        """Return the ids of the executions that ended before a UTC time in one of these states, oldest first."""

        def read() -> list[str]:
            with self._engine.connect() as connection:
                return ended_before(connection, before, statuses)

        return await asyncio.to_thread(read)

    async def overdue(self, before: datetime, limit: int, offset: int = 0) -> list[tuple[str, str, datetime]]:
        """Return execution, name and UTC time of timers that were due before a UTC time, from `offset` on."""

        def read() -> list[tuple[str, str, datetime]]:
            with self._engine.connect() as connection:
                return overdue(connection, before, limit, offset)

        return await asyncio.to_thread(read)

    async def lag(self, log: Log) -> int:
        """Return how many positions of the log are not folded yet."""
        await asyncio.to_thread(self._prepare, await log.identity())
        return await log.last() - await asyncio.to_thread(self._position)

    async def counts(self) -> dict[str, int]:
        """Return how many executions there are in each state."""

        def read() -> dict[str, int]:
            with self._engine.connect() as connection:
                return counts(connection)

        return await asyncio.to_thread(read)

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    def _prepare(self, log: str) -> None:
        """Create the tables; begin again when the rows are of another log than this one."""
        with self._engine.begin() as connection:
            for table in metadata.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))
                for index in table.indexes:
                    connection.execute(CreateIndex(index, if_not_exists=True))
            connection.execute(insert(tracking).values(projection=_NAME, log=log, position=0).on_conflict_do_nothing())
            found = connection.scalar(select(tracking.c.log).where(tracking.c.projection == _NAME))
            if found != log:
                connection.execute(delete(executions))
                connection.execute(delete(timers))
                connection.execute(update(tracking).where(tracking.c.projection == _NAME).values(log=log, position=0))

    def _position(self) -> int:
        with self._engine.connect() as connection:
            return connection.scalar(select(tracking.c.position).where(tracking.c.projection == _NAME)) or 0

    def _fold(self, position: int, batch: list[Recorded]) -> None:
        with self._engine.begin() as connection:
            ours = (tracking.c.projection == _NAME) & (tracking.c.position == position)
            moved = connection.execute(update(tracking).where(ours).values(position=batch[-1].position))
            if moved.rowcount:  # else another process was faster: its rows are these rows
                project(connection, [happened for recorded in batch for happened in _unpack(recorded)])


def _unpack(recorded: Recorded) -> list[Happened]:
    try:
        return recorded.unpack()
    except CorruptEntry as error:
        _log.warning("left out of the read models: %s", error)
        return []


def _engine(file: Path) -> Engine:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentProblem(f"the folder of {file} cannot be made: {error.strerror}") from error
    engine = create_engine(f"sqlite:///{file}", connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _settings(connection: DBAPIConnection, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer
        cursor.close()
        connection.isolation_level = None  # we begin, not the driver

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer from the start: one that turns into a writer later can meet "database is locked" at once.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
