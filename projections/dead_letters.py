"""The `dead_letters` read model: what failed, or is stuck on an error, and waits for somebody to mend it."""

from collections.abc import Sequence

from sqlalchemy import Connection

from perdure.events.entry import Happened
from perdure.events.vocabulary import (
    Error,
    ExecutionFailed,
    ExecutionPurged,
    ExecutionRetried,
    NodeScheduled,
    NodeStuck,
)
from perdure.projections.projection import BuiltIn
from perdure.projections.rows import Rows
from perdure.projections.tables import dead_letters
from perdure.projections.words import ENDS, SETTLES


class DeadLetters(BuiltIn):
    """Folds the table dead_letters. kind: `failed`, an execution; `stuck`, a node of one that is paused for it."""

    name = "dead_letters"
    tables = (dead_letters,)

    def fold(self, connection: Connection, events: Sequence[Happened]) -> None:
        """See Projection."""
        rows = Rows(dead_letters)
        rows.load(connection, events)
        for item in events:
            event = item.event
            if isinstance(event, NodeStuck):
                _put(rows, item, "stuck", event.node, event.attempt, event.error)
            elif isinstance(event, ExecutionFailed):
                rows.clear(item.execution)
                _put(rows, item, "failed", event.node or "", event.attempt, event.error)
            elif isinstance(event, NodeScheduled) or type(event) in SETTLES:
                rows.remove(item.execution, event.node)  # type: ignore[union-attr]
            elif isinstance(event, ExecutionRetried | ExecutionPurged) or type(event) in ENDS:
                rows.clear(item.execution)
        rows.write(connection)


def _put(rows: Rows, item: Happened, kind: str, node: str, attempt: int, error: Error) -> None:
    rows.put(
        execution=item.execution, node=node, kind=kind, attempt=attempt, error_type=error.type,
        error_message=error.message, since=item.at,
    )  # fmt: skip
