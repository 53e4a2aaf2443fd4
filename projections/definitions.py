"""The `definitions` read model: which versions of which workflows have run, and from when to when they were started."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, select

from perdure.events.entry import Happened
from perdure.events.vocabulary import ExecutionPurged, ExecutionStarted
from perdure.projections.projection import BuiltIn
from perdure.projections.store import upsert
from perdure.projections.tables import definitions


class Definitions(BuiltIn):
    """Folds the table definitions; tombstones know what was started too."""

    name = "definitions"
    tables = (definitions,)

    def fold(self, connection: Connection, events: Sequence[Happened]) -> None:
        """See Projection."""
        seen: dict[tuple[str, str], list[datetime]] = {}
        for item in events:
            if isinstance(item.event, ExecutionStarted | ExecutionPurged):
                at = item.at if isinstance(item.event, ExecutionStarted) else item.event.started
                seen.setdefault((item.event.workflow, item.event.digest), []).append(at)
        if not seen:
            return
        query = select(definitions).where(definitions.c.digest.in_({digest for _, digest in seen}))
        for row in connection.execute(query):
            seen.get((row.workflow, row.digest), []).extend((row.first_at, row.last_at))
        rows = [
            {"workflow": workflow, "digest": digest, "first_at": min(times), "last_at": max(times)}
            for (workflow, digest), times in seen.items()
        ]
        upsert(connection, definitions, rows)
