"""Holds the read models that sum up many executions against the log: made again beside it up to the same position."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, select

from perdure.events.log import Log
from perdure.projections import tracking
from perdure.projections.projection import Projection
from perdure.projections.runner import Projections, built_in


async def differing(log: Log, projections: Projections, but: Iterable[str]) -> list[str]:
    """Return what differs in perdure's own read models other than those named; see Projections.catch_up for errors.

    A log that grows meanwhile makes no difference.
    """
    left_out = set(but)
    found: list[str] = []
    with tempfile.TemporaryDirectory(prefix="perdure-verify-") as folder:
        scratch = Projections(Path(folder) / "scratch.sqlite")
        try:
            for each in built_in():
                if each.name not in left_out:
                    found += await _compared(log, projections, scratch, each)
        finally:
            scratch.close()
    return found


async def _compared(log: Log, projections: Projections, scratch: Projections, each: Projection) -> list[str]:
    def look(connection: Connection) -> tuple[int, dict[str, dict[Any, Any]]]:
        return tracking.positions(connection)[each.name], {
            table.name: _rows(connection, table) for table in each.tables
        }

    await projections.catch_up(log, [each.name])
    position, stored = await projections.read(look)
    await scratch.catch_up(log, [each.name], position)
    _, made = await scratch.read(look)
    return [
        f"the read model {each.name!r}: {what}; make it again with: perdure projections rebuild {each.name}"
        for table in made for what in _difference(table, made[table], stored[table])
    ]  # fmt: skip


def _rows(connection: Connection, table: Table) -> dict[Any, Any]:
    keys = [column.name for column in table.primary_key.columns]
    return {
        tuple(str(row[key]) for key in keys): dict(row) for row in connection.execute(select(table)).mappings()
    }  # fmt: skip


def _difference(table: str, made: dict[Any, Any], stored: dict[Any, Any]) -> list[str]:
    """Say what differs in a table, by the first row that does."""
    differ = sorted(key for key in made.keys() | stored.keys() if made.get(key) != stored.get(key))
    if not differ:
        return []
    key, mine, theirs = " ".join(differ[0]), made.get(differ[0]), stored.get(differ[0])
    if mine is None or theirs is None:
        what = "is in it, and the log does not make it" if mine is None else "is missing"
    else:
        column = next(name for name in mine if mine[name] != theirs[name])
        what = f"has {theirs[column]!r} as {column!r}, and the log makes {mine[column]!r}"
    more = f", and {len(differ) - 1} more" if len(differ) > 1 else ""
    return [f"the row {key!r} of {table!r} {what}{more}"]
