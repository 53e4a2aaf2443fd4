"""A process that folds the log into read models until it is killed, and says when it is in the midst of it."""

import asyncio
import os
from collections.abc import Sequence
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from sqlalchemy import Column, Connection, Integer, MetaData, Table, update

from perdure.cluster.connection import open_connection
from perdure.events.entry import Happened
from perdure.projections.projection import Projection
from perdure.projections.runner import Projections


class Counted(Projection):
    """How many events there were: a number that is wrong for ever when one is folded twice, or not at all."""

    name = "counted"
    table = Table("counted", MetaData(), Column("one", Integer, primary_key=True), Column("events", Integer))
    tables = (table,)
    says: Pipe | None = None

    def fold(self, connection: Connection, events: Sequence[Happened]) -> None:
        grown = update(self.table).values(events=self.table.c.events + len(events))
        if not connection.execute(grown).rowcount:
            connection.execute(self.table.insert().values(one=1, events=len(events)))
        if self.says is not None:
            self.says.send(os.getpid())  # in the midst of the transaction


def fold_for_ever(url: str, token: str | None, database: str | Path, says: Pipe) -> None:
    """Fold what comes, in small portions."""
    Counted.says = says
    asyncio.run(_fold(url, token, database))


async def _fold(url: str, token: str | None, database: str | Path) -> None:
    connection = await open_connection(url, token)
    projections = Projections(database, [Counted()], batch=15)
    while True:
        await projections.catch_up(connection.log)
