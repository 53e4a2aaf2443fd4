"""Where each projection stands in the log, of which version its rows are, and what it could not fold.

As in the eventsourcing library, a position is written in the transaction of the rows that it is of, it only grows, and
where two fold the same entries, one of them finds that the position has moved, and leaves its own work undone.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from perdure.errors import EnvironmentProblem
from perdure.events.entry import Recorded
from perdure.projections.projection import Projection
from perdure.projections.tables import quarantine, tracking


def prepare(connection: Connection, projections: Iterable[Projection], log: str, *, owned: bool) -> None:
    """Make the tables that are missing; begin those again that are of an older version, or of another log.

    owned: the database is of this store alone, so that what is of another log has no worth. Raises EnvironmentProblem.
    """
    found = {row.projection: row for row in connection.execute(select(tracking))}
    for projection in projections:
        row = found.get(projection.name)
        if row is None:
            projection.create(connection)
            connection.execute(
                tracking.insert().values(projection=projection.name, version=projection.version, log=log, position=0)
            )
            continue
        if row.version > projection.version:
            raise EnvironmentProblem(
                f"the projection {projection.name} is of version {row.version}, and this code has version "
                f"{projection.version}: a newer release has made it; use that release, or another database"
            )
        if row.log != log and not owned:
            raise EnvironmentProblem(
                f"the projection {projection.name} is of another log (of {row.log}, this one is of {log}): give each "
                "store a database of its own, or begin with this log by perdure projections rebuild --all"
            )
        if row.version < projection.version or row.log != log:
            begin_again(connection, projection, log)


def is_prepared(connection: Connection, projections: Iterable[Projection], log: str) -> bool:
    """Say whether there is nothing to prepare."""
    rows = {row.projection: (row.version, row.log) for row in connection.execute(select(tracking))}
    return all(rows.get(projection.name) == (projection.version, log) for projection in projections)


def begin_again(connection: Connection, projection: Projection, log: str) -> None:
    """Take all rows of a projection away, and its position with them."""
    connection.execute(  # first, as who folds does: else each may wait for what the other one holds
        update(tracking)
        .where(tracking.c.projection == projection.name)
        .values(version=projection.version, log=log, position=0)
    )
    connection.execute(delete(quarantine).where(quarantine.c.projection == projection.name))
    projection.clear(connection)


def positions(connection: Connection) -> dict[str, int]:
    """Return how far each projection is."""
    return {row.projection: row.position for row in connection.execute(select(tracking))}


def standing(connection: Connection, last: int) -> dict[str, dict[str, Any]]:
    """Return how each projection stands, others' too: its version, its position, how far that is from `last`."""
    aside = quarantined_counts(connection)
    return {
        row.projection: {
            "version": row.version, "position": row.position, "lag": max(0, last - row.position),
            "quarantined": aside.get(row.projection, 0),
        }
        for row in connection.execute(select(tracking).order_by(tracking.c.projection))
    }  # fmt: skip


def advance(connection: Connection, projection: str, before: int, position: int) -> bool:
    """Move a projection's position; False where it is not `before` any more, for somebody else has moved it."""
    ours = (tracking.c.projection == projection) & (tracking.c.position == before)
    return bool(connection.execute(update(tracking).where(ours).values(position=position)).rowcount)


def put_aside(connection: Connection, projection: str, recorded: Recorded, at: Any, error: str) -> None:
    """Put an entry in quarantine that a projection could not fold."""
    connection.execute(
        quarantine.insert().values(
            projection=projection, position=recorded.position, execution=recorded.execution, at=at, error=error[:2000]
        )
    )


def forget(connection: Connection, projection: str) -> None:
    """Take away what is known of a projection that there is no more."""
    for table in (tracking, quarantine):
        connection.execute(delete(table).where(table.c.projection == projection))


def quarantined(connection: Connection) -> list[dict[str, Any]]:
    """Return what is in quarantine, by projection and position."""
    query = select(quarantine).order_by(quarantine.c.projection, quarantine.c.position)
    return [dict(row) for row in connection.execute(query).mappings()]


def quarantined_counts(connection: Connection) -> dict[str, int]:
    """Return how much of each projection is in quarantine."""
    query = select(quarantine.c.projection, func.count()).group_by(quarantine.c.projection)
    return {row[0]: row[1] for row in connection.execute(query)}
