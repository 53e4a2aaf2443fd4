"""Holds the read models that sum up many executions against the log: made again beside it up to the same position."""

import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, Table, select

from perdure.events.log import Log
from perdure.projections import tracking
from perdure.projections.projection import Projection
from perdure.projections.runner import Projections

_Row = dict[str, Any]


async def differing(log: Log, projections: Projections, but: Iterable[str]) -> list[str]:
    """Return what differs in the read models other than those named; see Projections.catch_up for errors.

    A log that grows meanwhile makes no difference. Users' own are looked at where they are in SQLite, as what they are
    made again in is.
    """
    left_out, own = set(but), projections.own if projections.store.is_sqlite else ()
    found: list[str] = []
    with tempfile.TemporaryDirectory(prefix="perdure-verify-") as folder:
        scratch = Projections(Path(folder) / "scratch.sqlite", own)
        try:
            for each in scratch.all:
                if each.name not in left_out:
                    found += await _compared(log, projections, scratch, each)
        finally:
            scratch.close()
    return found


async def _compared(log: Log, projections: Projections, scratch: Projections, each: Projection) -> list[str]:
    def seals(connection: Connection) -> tuple[int, list[str]]:
        return tracking.positions(connection)[each.name], [_seal(connection, table) for table in each.tables]

    def rows(connection: Connection) -> list[dict[str, _Row]]:
        return [_rows(connection, table) for table in each.tables]

    await projections.catch_up(log, [each.name])
    position, sealed = await projections.read(seals)
    await scratch.catch_up(log, [each.name], position)
    if (await scratch.read(seals))[1] == sealed:
        return []
    found = zip(each.tables, await scratch.read(rows), await projections.read(rows), strict=True)
    return [
        f"the read model {each.name!r}: {what}; make it again with: perdure projections rebuild {each.name}"
        for table, made, stored in found for what in _difference(table.name, made, stored)
    ]  # fmt: skip


def _seal(connection: Connection, table: Table) -> str:
    """Return a digest of all rows, of which few are in memory at once."""
    digest = hashlib.sha256()
    for row in connection.execution_options(yield_per=1000).execute(_in_order(table)):
        digest.update(repr(tuple(row)).encode())
    return digest.hexdigest()


def _in_order(table: Table) -> Select[Any]:
    return select(table).order_by(*(table.primary_key.columns or table.columns))


def _rows(connection: Connection, table: Table) -> dict[str, _Row]:
    names = [column.name for column in table.primary_key.columns or table.columns]
    found = connection.execute(_in_order(table)).mappings()
    return {" ".join(str(row[name]) for name in names): dict(row) for row in found}


def _difference(table: str, made: dict[str, _Row], stored: dict[str, _Row]) -> list[str]:
    """Say what differs in a table, by the first row that does."""
    differ = sorted(key for key in made.keys() | stored.keys() if made.get(key) != stored.get(key))
    if not differ:
        return []
    mine, theirs = made.get(differ[0]), stored.get(differ[0])
    if mine is None or theirs is None:
        what = "is in it, and the log does not make it" if mine is None else "is missing"
    else:
        column = next(name for name in mine if mine[name] != theirs[name])
        what = f"has {theirs[column]!r} as {column!r}, and the log makes {mine[column]!r}"
    more = f", and {len(differ) - 1} more" if len(differ) > 1 else ""
    return [f"the row {differ[0]!r} of {table!r} {what}{more}"]
