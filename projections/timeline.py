"""The `timeline` read model: what went on from when to when in an execution, a row for each stretch of time."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from perdure.events.entry import Happened
from perdure.events.vocabulary import (
    BodyFailed,
    BodyStarted,
    BodySucceeded,
    ChildRequested,
    ExecutionCompensating,
    ExecutionPaused,
    ExecutionPurged,
    ExecutionResumed,
    ExecutionRetried,
    ExecutionStarted,
    MacrostepTaken,
    NodeCharged,
    NodeOpened,
    NodePlaced,
    NodeQueued,
    NodeResumed,
    NodeScheduled,
    NodeWaiting,
    TimerArmed,
    TimerCancelled,
    TimerFired,
    TimerHeld,
)
from perdure.projections.projection import BuiltIn
from perdure.projections.rows import Row, Rows, numbered
from perdure.projections.tables import spans
from perdure.projections.words import ENDS, SETTLES, error_of, states_of

_OF_NODE = ("attempt", "wait", "child", "queue")
"""The kinds of spans that end when the node's attempt does; what is open around bodies is `node`."""
_SPANS = 10_000
"""So many spans can begin with one event."""


class Timeline(BuiltIn):
    """Folds the table spans. kind: execution, pause, node, attempt, queue, wait, child, body, state or timer."""

    name = "timeline"
    tables = (spans,)

    def fold(self, connection: Connection, events: Sequence[Happened]) -> None:
        """See Projection."""
        batch = _Batch()
        batch.load(connection, events)
        purged = [item.execution for item in events if isinstance(item.event, ExecutionPurged)]
        for item, place in numbered(events):
            handler = _HANDLERS.get(type(item.event))
            if handler is not None:
                batch.item, batch.place = item, place
                handler(batch, item.event)
        batch.rows.write(connection)
        for execution in purged:
            connection.execute(spans.delete().where(spans.c.execution == execution))


class _Batch:
    """The spans that are open, found by what they are of."""

    item: Happened
    place: int

    def __init__(self) -> None:
        self.rows = Rows(spans, only=spans.c.ended_at.is_(None))
        self._open: dict[str, dict[tuple[str, str], Row]] = {}
        self._last = (0, 0)
        self._more = 0

    def load(self, connection: Connection, events: Sequence[Happened]) -> None:
        """Take in the open spans of the executions of these events."""
        self.rows.load(connection, events)
        for execution in {item.execution for item in events}:
            self._open[execution] = {(row["kind"], row["path"]): row for row in self.rows.of(execution)}

    def begin(self, kind: str, path: str, attempt: int = 0, detail: Any = None) -> None:
        """Begin a span here and now; one that is open of the same ends."""
        self.end(kind, path, "ended")
        self._put(kind, path, attempt, detail)

    def end(self, kind: str, path: str, outcome: str, error: str | None = None) -> bool:
        """End a span; say whether there was one."""
        row = self._open[self.item.execution].pop((kind, path), None)
        if row is not None:
            self.rows.change(row, ended_at=self._after(row["began_at"]), outcome=outcome, error=error)
            self.rows.forget(row)
        return row is not None

    def instant(self, kind: str, path: str, attempt: int, outcome: str, error: str | None) -> None:
        """Put what began and ended at once."""
        self._put(kind, path, attempt, None)
        self.end(kind, path, outcome, error)

    def note(self, kind: str, path: str, detail: Any) -> None:
        """Put more into the detail of an open span."""
        row = self._open[self.item.execution].get((kind, path))
        if row is not None:
            self.rows.change(row, detail={**(row["detail"] or {}), **detail})

    def end_all(self, outcome: str) -> None:
        """End all that is open in the execution."""
        for kind, path in list(self._open[self.item.execution]):
            self.end(kind, path, outcome)

    def _put(self, kind: str, path: str, attempt: int, detail: Any) -> None:
        if self._last == (self.item.position, self.place):
            self._more += 1
        else:
            self._last, self._more = (self.item.position, self.place), 0
        row = self.rows.put(
            execution=self.item.execution, n=self.item.n, i=self.place * _SPANS + self._more, kind=kind, path=path,
            attempt=attempt, began_at=self.item.at, ended_at=None, outcome=None, error=None, detail=detail,
        )  # fmt: skip
        self._open[self.item.execution][kind, path] = row

    def _after(self, began: datetime) -> datetime:
        return max(began, self.item.at)  # the clocks of two owners may differ


def _node_settled(batch: _Batch, event: Any) -> None:
    """End what a node was at; one that did nothing that takes time gets a span of no length."""
    outcome, error = SETTLES[type(event)], error_of(event)
    if usage := getattr(event, "usage", None):
        batch.note("attempt", event.node, {"usage": usage})
    found = [batch.end(kind, event.node, outcome, error) for kind in (*_OF_NODE, "node")]
    if not any(found):
        batch.instant("node", event.node, getattr(event, "attempt", 0), outcome, error)


def _ended(batch: _Batch, event: Any) -> None:
    outcome = ENDS[type(event)]
    batch.end("execution", "", outcome, error_of(event))
    batch.end_all(outcome)


def _scheduled(batch: _Batch, event: NodeScheduled) -> None:
    batch.begin("attempt", event.node, event.attempt)


def _resumed(batch: _Batch, event: NodeResumed) -> None:
    batch.note("attempt", event.node, {"resumed": batch.item.at.isoformat(), "why": event.why})


def _waits(batch: _Batch, event: NodeWaiting) -> None:
    batch.begin("wait", event.node, event.attempt, _for_what(event.input))


def _for_what(asked: Any) -> Any:
    """Return what a node waits for, without the data of an approval, which may be long."""
    return {key: value for key, value in asked.items() if key != "details"} if isinstance(asked, dict) else None


def _moved(batch: _Batch, event: MacrostepTaken) -> None:
    left, entered = states_of(event)
    for state in left:
        batch.end("state", state, "left")
    for state in entered:
        batch.begin("state", state)


_HANDLERS: dict[type, Callable[[_Batch, Any], object]] = {
    **dict.fromkeys(
        (ExecutionStarted, ExecutionRetried, ExecutionCompensating), lambda batch, _: batch.begin("execution", "")
    ),
    **dict.fromkeys(ENDS, _ended),
    **dict.fromkeys(SETTLES, _node_settled),
    NodeCharged: lambda batch, event: batch.note("attempt", event.node, {"usage": event.usage}),
    ExecutionPaused: lambda batch, event: batch.begin("pause", "", detail={"reason": event.reason, "by": event.by}),
    ExecutionResumed: lambda batch, _: batch.end("pause", "", "resumed"),
    NodeScheduled: _scheduled,
    NodeResumed: _resumed,
    NodeQueued: lambda batch, event: batch.begin("queue", event.node, event.attempt, {"for": event.waits_for}),
    NodePlaced: lambda batch, event: batch.end("queue", event.node, "placed"),
    NodeWaiting: _waits,
    NodeOpened: lambda batch, event: batch.begin("node", event.node, event.attempt),
    ChildRequested: lambda batch, event: batch.begin("child", event.node, event.attempt, {"child": event.child}),
    BodyStarted: lambda batch, event: batch.begin("body", event.body),
    BodySucceeded: lambda batch, event: batch.end("body", event.body, "succeeded"),
    BodyFailed: lambda batch, event: batch.end("body", event.body, "failed", event.error.type),
    MacrostepTaken: _moved,
    TimerArmed: lambda batch, event: batch.begin("timer", event.timer, detail={"due": event.due.isoformat()}),
    TimerFired: lambda batch, event: batch.end("timer", event.timer, "fired"),
    TimerHeld: lambda batch, event: batch.end("timer", event.timer, "held"),
    TimerCancelled: lambda batch, event: batch.end("timer", event.timer, "cancelled"),
}
