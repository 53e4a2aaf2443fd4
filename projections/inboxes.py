"""Questions to the smaller read models: approvals, dead letters, timers, spans, statistics, definitions."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Select, select

from perdure.projections.queries import checked_limit
from perdure.projections.sketches import quantiles
from perdure.projections.statistics import COUNTS
from perdure.projections.tables import (
    approvals,
    assignees,
    dead_letters,
    definitions,
    executions,
    spans,
    statistics,
    timers,
)

_WHOSE = (executions.c.workflow, executions.c.priority)


def open_approvals(
    connection: Connection, assignee: str | None = None, workflow: str | None = None, limit: int = 50
) -> list[dict[str, Any]]:
    """Return what waits for a decision, longest first: of one workflow; of one assignee, or of nobody in particular."""
    query = select(approvals, *_WHOSE).join(executions, executions.c.id == approvals.c.execution, isouter=True)
    if assignee is not None:
        of = (assignees.c.execution == approvals.c.execution) & (assignees.c.node == approvals.c.node)
        mine = select(assignees.c.node).where(of, assignees.c.assignee == assignee).exists()
        query = query.where(mine | ~select(assignees.c.node).where(of).exists())
    return _rows(connection, _of_workflow(query, workflow).order_by(approvals.c.since).limit(checked_limit(limit)))


def dead(connection: Connection, workflow: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """Return what failed or is stuck, newest first."""
    query = select(dead_letters, *_WHOSE).join(executions, executions.c.id == dead_letters.c.execution, isouter=True)
    return _rows(
        connection, _of_workflow(query, workflow).order_by(dead_letters.c.since.desc()).limit(checked_limit(limit))
    )


def timeline(connection: Connection, execution: str) -> list[dict[str, Any]]:
    """Return the spans of one execution in the order in which they began."""
    query = select(spans).where(spans.c.execution == execution).order_by(spans.c.n, spans.c.i)
    hidden = ("n", "i", "execution")
    return [{key: value for key, value in row.items() if key not in hidden} for row in _rows(connection, query)]


def known_definitions(connection: Connection, workflow: str | None = None) -> list[dict[str, Any]]:
    """Return the definitions that have run, by workflow, the one that was started last first."""
    query = select(definitions).order_by(definitions.c.workflow, definitions.c.last_at.desc())
    return _rows(connection, query if workflow is None else query.where(definitions.c.workflow == workflow))


def overdue(connection: Connection, before: datetime, limit: int, offset: int) -> list[tuple[str, str, datetime]]:
    """Return execution, name and time of timers that were due before a time, oldest first."""
    order = (timers.c.due, timers.c.execution, timers.c.timer)
    query = select(timers).where(timers.c.due < before).order_by(*order).limit(limit).offset(offset)
    return [(row.execution, row.timer, row.due) for row in connection.execute(query)]


def summed(
    connection: Connection, workflow: str | None, after: datetime | None, before: datetime | None, *, hourly: bool
) -> list[dict[str, Any]]:
    """Return what statistics say of each node, and with node "" of the executions; hour by hour where asked for.

    failure_rate: of those that succeeded or failed. p50, p95, p99: seconds, exact to 1 %; None where nothing ended.
    """
    query = select(statistics)
    query = query if workflow is None else query.where(statistics.c.workflow == workflow)
    query = query if after is None else query.where(statistics.c.hour >= after)
    query = query if before is None else query.where(statistics.c.hour < before)
    rows = _rows(connection, query.order_by(statistics.c.workflow, statistics.c.node, statistics.c.hour))
    key = ("workflow", "node", "hour") if hourly else ("workflow", "node")
    return [_sum(key, list(same)) for _, same in groupby(rows, lambda row: [row[name] for name in key])]


def _sum(key: Sequence[str], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = {name: rows[0][name] for name in key}
    found |= {name: sum(row[name] for row in rows) for name in COUNTS}
    ended = found["succeeded"] + found["failed"]
    found["failure_rate"] = found["failed"] / ended if ended else None
    seconds = quantiles((row["durations"] for row in rows), (0.5, 0.95, 0.99))
    return found | dict(zip(("p50", "p95", "p99"), seconds, strict=True))


def _of_workflow(query: Select[Any], workflow: str | None) -> Select[Any]:
    return query if workflow is None else query.where(executions.c.workflow == workflow)


def _rows(connection: Connection, query: Select[Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(query).mappings()]
