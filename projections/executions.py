"""The `executions` read model: a row for each execution, with what it is found by and where it stands now."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection

from perdure.events.entry import Happened
from perdure.events.vocabulary import (
    ChildRequested,
    Event,
    ExecutionAdmitted,
    ExecutionCancelling,
    ExecutionCompensating,
    ExecutionFailed,
    ExecutionForked,
    ExecutionPaused,
    ExecutionPurged,
    ExecutionQueued,
    ExecutionResumed,
    ExecutionRetried,
    ExecutionStarted,
    MacrostepTaken,
    NodeAttemptFailed,
    NodeOpened,
    NodeScheduled,
    NodeStuck,
    NodeWaiting,
    TimerArmed,
    TimerCancelled,
    TimerFired,
    TimerHeld,
)
from perdure.projections.projection import BuiltIn
from perdure.projections.rows import Row, Rows
from perdure.projections.tables import attributes, current, executions, tags, timers
from perdure.projections.words import ENDS, SETTLES, STATUS, node_of, states_of


class Executions(BuiltIn):
    """Folds the tables executions, attributes, tags, current and timers."""

    name = "executions"
    version = 3
    tables = (executions, attributes, tags, current, timers)

    def fold(self, connection: Connection, events: Sequence[Happened]) -> None:
        """See Projection."""
        batch = _Batch()
        for rows in batch.all:
            rows.load(connection, events)
        for item in events:
            handler = _HANDLERS.get(type(item.event))
            if handler is not None:
                handler(batch, item, item.event)
        for rows in batch.all:
            rows.write(connection)


class _Batch:
    def __init__(self) -> None:
        self.executions = Rows(executions, ("id",))
        self.attributes = Rows(attributes)
        self.tags = Rows(tags)
        self.current = Rows(current)
        self.timers = Rows(timers)

    @property
    def all(self) -> tuple[Rows, ...]:
        return self.executions, self.attributes, self.tags, self.current, self.timers

    def arrive(self, execution: str, path: str) -> None:
        """Note that an execution is at a node, or in a state."""
        row = self.executions.get(execution)
        if row is not None and self.current.get(execution, path) is None:
            self.current.put(execution=execution, path=path, node=node_of(path), began=row["began"])


def _started(batch: _Batch, item: Happened, event: ExecutionStarted) -> None:
    parent = event.parent
    batch.executions.put(
        began=item.position, id=item.execution, workflow=event.workflow, digest=event.digest, status="running",
        priority=event.priority, parent=parent and parent.execution, parent_node=parent and parent.node,
        forked_from=None, started_at=item.at, ended_at=None, changed_at=item.at, failed_node=None, error_type=None,
        error_message=None, search=event.search, tags=event.tags, **_NO_FLAGS,
    )  # fmt: skip
    for name, value in event.search.items():
        batch.attributes.put(execution=item.execution, name=name, began=item.position, **_typed(value))
    for tag in event.tags:
        batch.tags.put(execution=item.execution, tag=tag, began=item.position)


def _forked(batch: _Batch, item: Happened, event: ExecutionForked) -> None:
    row = batch.executions.get(item.execution)
    if row is not None:
        batch.executions.change(row, forked_from=event.execution)


def _typed(value: Any) -> Row:
    """Return the columns of an attribute's value: each type is compared with its own."""
    return {
        "text": value if isinstance(value, str) else None,
        "number": float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None,
        "truth": value if isinstance(value, bool) else None,
    }


def _changed(batch: _Batch, item: Happened, event: Event) -> None:
    """Set the status, and with the end all that belongs to it."""
    row = batch.executions.get(item.execution)
    if row is None:
        return
    values: Row = {"changed_at": item.at, **_FLAGS.get(type(event), {})}
    if isinstance(event, ExecutionRetried | ExecutionCompensating):
        values |= dict.fromkeys(("ended_at", "failed_node", "error_type", "error_message"))
    elif type(event) in ENDS:
        values |= {"ended_at": item.at, **_NO_FLAGS, **_why(event)}
        batch.current.clear(item.execution)
        batch.timers.clear(item.execution)
    values["status"] = _status({**row, **values}, event)
    batch.executions.change(row, **values)


_NO_FLAGS = dict.fromkeys(("queued", "paused", "compensating"), False)
_FLAGS: dict[type, Row] = {
    ExecutionQueued: {"queued": True},
    ExecutionAdmitted: {"queued": False},
    ExecutionPaused: {"paused": True},
    ExecutionResumed: {"paused": False},
    ExecutionCancelling: {"paused": False},
    ExecutionCompensating: {"compensating": True},
    ExecutionRetried: _NO_FLAGS,
}
"""What shows again when what hides it is over."""


def _status(row: Row, event: Event) -> str:
    """Return the status as the state has it: what is being cancelled stays so until it ends."""
    if type(event) in ENDS or isinstance(event, ExecutionCancelling):
        return STATUS[type(event)]
    if row["status"] == "cancelling" and not isinstance(event, ExecutionRetried):
        return "cancelling"
    return next((status for status in _NO_FLAGS if row[status]), "running")


def _why(event: Any) -> Row:
    error = getattr(event, "error", None)
    return {
        "failed_node": event.node if isinstance(event, ExecutionFailed) else None,
        "error_type": error.type if error else None,
        "error_message": error.message if error else getattr(event, "reason", None) or None,
    }


def _purged(batch: _Batch, item: Happened, event: ExecutionPurged) -> None:
    for rows in batch.all:
        rows.clear(item.execution)


def _at_node(batch: _Batch, item: Happened, event: Any) -> None:
    batch.arrive(item.execution, event.node)


def _left_node(batch: _Batch, item: Happened, event: Any) -> None:
    batch.current.remove(item.execution, event.node)


def _moved(batch: _Batch, item: Happened, event: MacrostepTaken) -> None:
    left, entered = states_of(event)
    for state in left:
        batch.current.remove(item.execution, state)
    for state in entered:
        batch.arrive(item.execution, state)


def _armed(batch: _Batch, item: Happened, event: TimerArmed) -> None:
    batch.timers.put(execution=item.execution, timer=event.timer, due=event.due)


def _disarmed(batch: _Batch, item: Happened, event: TimerFired | TimerCancelled | TimerHeld) -> None:
    """Forget a timer; one that is held counts when its execution goes on."""
    batch.timers.remove(item.execution, event.timer)


_HANDLERS: dict[type, Callable[[_Batch, Happened, Any], None]] = {
    ExecutionStarted: _started,
    ExecutionForked: _forked,
    **dict.fromkeys(STATUS, _changed),
    ExecutionPurged: _purged,
    **dict.fromkeys((NodeScheduled, NodeWaiting, NodeOpened, ChildRequested), _at_node),
    **dict.fromkeys((NodeAttemptFailed, NodeStuck), _at_node),  # these are tried again; some fail without having begun
    **dict.fromkeys(SETTLES.keys() - {NodeAttemptFailed, NodeStuck}, _left_node),
    MacrostepTaken: _moved,
    TimerArmed: _armed,
    **dict.fromkeys((TimerFired, TimerCancelled, TimerHeld), _disarmed),
}
