"""The `executions` read model: one row per execution, folded from the log into SQL."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, Connection, DateTime, Integer, MetaData, String, Table, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from perdure.events.entry import Happened
from perdure.events.vocabulary import (
    ExecutionAdmitted,
    ExecutionCancelled,
    ExecutionCancelling,
    ExecutionCompensated,
    ExecutionCompensating,
    ExecutionFailed,
    ExecutionPaused,
    ExecutionPurged,
    ExecutionQueued,
    ExecutionResumed,
    ExecutionRetried,
    ExecutionStarted,
    ExecutionSucceeded,
    ExecutionTerminated,
    Outcome,
    TimerArmed,
    TimerCancelled,
    TimerFired,
    TimerHeld,
)

metadata = MetaData()

tracking = Table(
    "tracking",
    metadata,
    Column("projection", String, primary_key=True),
    Column("log", String, nullable=False),
    Column("position", Integer, nullable=False),
)

executions = Table(
    "executions",
    metadata,
    Column("id", String, primary_key=True),
    Column("workflow", String, nullable=False, index=True),
    Column("digest", String, nullable=False),
    Column("status", String, nullable=False, index=True),
    Column("priority", Integer, nullable=False),
    Column("started_at", DateTime, nullable=False, index=True),
    Column("ended_at", DateTime),
    Column("failed_node", String),
    Column("error_type", String),
    Column("error_message", String),
)

timers = Table(
    "timers",
    metadata,
    Column("execution", String, primary_key=True),
    Column("timer", String, primary_key=True),
    Column("due", DateTime, nullable=False, index=True),
)

_STATUS: dict[type, str] = {
    ExecutionQueued: "queued",
    ExecutionAdmitted: "running",
    ExecutionPaused: "paused",
    ExecutionResumed: "running",
    ExecutionCancelling: "cancelling",
}


def project(connection: Connection, happened: Iterable[Happened]) -> None:
    """Fold events into the rows. Times are stored in UTC without a zone, as SQLite has none."""
    for item in happened:
        event, at = item.event, item.at.replace(tzinfo=None)
        _project_timer(connection, item.execution, event)
        if isinstance(event, ExecutionStarted):
            row = {
                "id": item.execution,
                "workflow": event.workflow,
                "digest": event.digest,
                "status": "running",
                "priority": event.priority,
                "started_at": at,
            }
            connection.execute(upsert(executions).values(row).on_conflict_do_nothing())
        elif isinstance(event, ExecutionSucceeded):
            _set(connection, item.execution, status="succeeded", ended_at=at)
        elif isinstance(event, ExecutionCancelled | ExecutionTerminated):
            status = "cancelled" if isinstance(event, ExecutionCancelled) else "terminated"
            _set(connection, item.execution, status=status, ended_at=at, error_message=event.reason or None)
        elif isinstance(event, ExecutionCompensated):
            _set(
                connection, item.execution, status="compensated", ended_at=at,
                error_type=event.error and event.error.type, error_message=event.error and event.error.message,
            )  # fmt: skip
        elif type(event) in _STATUS:
            _set(connection, item.execution, status=_STATUS[type(event)])
        elif isinstance(event, ExecutionRetried | ExecutionCompensating):
            none = dict.fromkeys(("ended_at", "failed_node", "error_type", "error_message"))
            status = "running" if isinstance(event, ExecutionRetried) else "compensating"
            _set(connection, item.execution, status=status, **none)
        elif isinstance(event, ExecutionPurged):
            connection.execute(delete(executions).where(executions.c.id == item.execution))
        elif isinstance(event, ExecutionFailed):
            error = event.error
            _set(
                connection, item.execution, status="failed", ended_at=at, failed_node=event.node,
                error_type=error.type, error_message=error.message,
            )  # fmt: skip


def _project_timer(connection: Connection, execution: str, event: Any) -> None:
    """Keep a row for each timer that is armed; one that is held counts when its execution goes on."""
    mine = timers.c.execution == execution
    if isinstance(event, TimerArmed):
        row = {"execution": execution, "timer": event.timer, "due": _naive(event.due)}
        connection.execute(upsert(timers).values(row).on_conflict_do_update(set_={"due": row["due"]}))
    elif isinstance(event, TimerFired | TimerCancelled | TimerHeld):
        connection.execute(delete(timers).where(mine & (timers.c.timer == event.timer)))
    elif isinstance(event, Outcome | ExecutionPurged):
        connection.execute(delete(timers).where(mine))


def overdue(connection: Connection, before: datetime, limit: int, offset: int) -> list[tuple[str, str, datetime]]:
    """Return execution, name and UTC time of timers that were due before a UTC time, oldest first."""
    order = (timers.c.due, timers.c.execution, timers.c.timer)
    query = select(timers).where(timers.c.due < _naive(before)).order_by(*order).limit(limit).offset(offset)
    return [(row.execution, row.timer, row.due.replace(tzinfo=UTC)) for row in connection.execute(query)]


def ended_before(connection: Connection, before: datetime, statuses: Iterable[str]) -> list[str]:
    """Return the ids of the executions that ended before a UTC time in one of these states, oldest first."""
    ended = (executions.c.ended_at < _naive(before)) & executions.c.status.in_(list(statuses))
    return list(connection.scalars(select(executions.c.id).where(ended).order_by(executions.c.ended_at)))


def newest(connection: Connection, status: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """Return the newest executions as rows, at most `limit`, with this status where one is given."""
    query = select(executions).order_by(executions.c.started_at.desc(), executions.c.id).limit(limit)
    if status:
        query = query.where(executions.c.status == status)
    return [dict(row) for row in connection.execute(query).mappings()]


def counts(connection: Connection) -> dict[str, int]:
    """Return how many executions there are in each state."""
    query = select(executions.c.status, func.count()).group_by(executions.c.status)
    return {row[0]: row[1] for row in connection.execute(query)}


def _naive(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(tzinfo=None)


def _set(connection: Connection, execution: str, **values: Any) -> None:
    connection.execute(update(executions).where(executions.c.id == execution).values(**values))
