"""The `approvals` read model: what waits for a person's decision, and for whose."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from perdure.events.entry import Happened
from perdure.events.vocabulary import ExecutionPurged, NodeWaiting, TimerArmed
from perdure.projections.projection import BuiltIn
from perdure.projections.rows import Rows
from perdure.projections.tables import approvals, assignees
from perdure.projections.words import ENDS, SETTLES

_TIMER = "wait/"


class Approvals(BuiltIn):
    """Folds the tables approvals and assignees."""

    name = "approvals"
    tables = (approvals, assignees)

    def fold(self, connection: Connection, events: Sequence[Happened]) -> None:
        """See Projection."""
        asked, of = Rows(approvals), Rows(assignees)
        asked.load(connection, events)
        of.load(connection, events)
        for item in events:
            event = item.event
            if isinstance(event, NodeWaiting) and isinstance(event.input, dict) and event.input.get("approval"):
                _ask(asked, of, item, event)
            elif isinstance(event, TimerArmed) and event.timer.startswith(_TIMER):
                row = asked.get(item.execution, event.timer.removeprefix(_TIMER))
                if row is not None:
                    asked.change(row, due=event.due)
            elif type(event) in SETTLES:
                _decided(asked, of, item.execution, event.node)  # type: ignore[union-attr, arg-type]
            elif type(event) in ENDS or isinstance(event, ExecutionPurged):
                asked.clear(item.execution)
                of.clear(item.execution)
        asked.write(connection)
        of.write(connection)


def _ask(asked: Rows, of: Rows, item: Happened, event: NodeWaiting) -> None:
    given: dict[str, Any] = event.input
    people = given.get("assignees") or []
    people = [str(each) for each in people] if isinstance(people, list) else [str(people)]
    asked.put(
        execution=item.execution, node=event.node, attempt=event.attempt, title=str(given.get("title") or ""),
        details=given.get("details"), assignees=people, since=item.at, due=None,
    )  # fmt: skip
    for person in people:
        of.put(execution=item.execution, node=event.node, assignee=person)


def _decided(asked: Rows, of: Rows, execution: str, node: str) -> None:
    if asked.remove(execution, node) is not None:
        for row in of.of(execution):
            if row["node"] == node:
                of.remove(execution, node, row["assignee"])
