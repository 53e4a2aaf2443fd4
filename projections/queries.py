"""Questions to the read models: executions with filters and stable pages, and the smaller ones."""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select

from perdure.errors import BadInput
from perdure.projections.filters import (
    MAX_WHOLE,
    Began,
    attribute_is,
    condition,
    is_at,
    is_text,
    moment,
    tagged,
    walked,
)
from perdure.projections.tables import current, executions
from perdure.projections.words import STATUSES

ORDERS = {
    "started": executions.c.began,
    "ended": executions.c.ended_at,
    "priority": executions.c.priority,
}
"""What a list may be ordered by; with `-` before it the other way round."""

_SHOWN = [column for column in executions.columns if column.name not in ("began", "compensating", "paused", "queued")]
_CURRENT = 100  # of one execution in a list
_MOST = 100_000  # rows at once
_TEXTS = ("digest", "parent", "error", "at", "filter", "order")
_Whole = Annotated[int, msgspec.Meta(ge=-(1 << 31), le=(1 << 63) - 1)]


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What executions are asked for; all that is given must hold.

    status, workflow: one, or any of several. where: attributes by their values. filter: an expression, see
    docs/projections.md. at: a node, or a state, that it is at now. tag: one, or all of several. started_after and the
    like: times with a zone, or ISO 8601 text. order: started, ended or priority, downwards with `-` before it.
    cursor: of the page before.
    """

    status: str | Sequence[str] | None = None
    workflow: str | Sequence[str] | None = None
    where: Mapping[str, Any] = {}
    filter: str | None = None
    tag: str | Sequence[str] | None = None
    at: str | None = None
    digest: str | None = None
    parent: str | None = None
    forked_from: str | None = None
    error: str | None = None
    priority: int | None = None
    started_after: datetime | str | None = None
    started_before: datetime | str | None = None
    ended_after: datetime | str | None = None
    ended_before: datetime | str | None = None
    order: str = "-started"
    limit: int = 50
    cursor: str | None = None


class Page(list[dict[str, Any]]):
    """Rows, newest first unless asked otherwise. cursor: gives the next page; None where this is the last one."""

    cursor: str | None = None


def conditions(query: Query, began: Began = executions.c.began) -> list[ColumnElement[bool]]:
    """Return the conditions of a query in SQL; raise BadInput where it makes no sense. began: see `walked`."""
    _check(query)
    found: list[ColumnElement[bool]] = []
    statuses = _several(query.status)
    for status in statuses:
        if status not in STATUSES:
            raise BadInput(f"status {status!r}: it is one of {', '.join(STATUSES)}")
    found += (
        [executions.c.status.in_(statuses)] if len(statuses) > 1 else [executions.c.status == each for each in statuses]
    )
    workflows = _several(query.workflow)
    found += [executions.c.workflow.in_(workflows)] if workflows else []
    for name in ("digest", "parent", "forked_from", "priority"):
        value = getattr(query, name)
        found += [executions.c[name] == value] if value is not None else []
    found += [executions.c.error_type == query.error] if query.error is not None else []
    found += [tagged(tag, began) for tag in _several(query.tag)]
    found += [is_at(query.at, began)] if query.at is not None else []
    found += [attribute_is(name, value, began) for name, value in query.where.items()]
    found += [condition(query.filter, began)] if query.filter is not None else []
    return found + _times(query)


def page(connection: Connection, query: Query) -> Page:
    """Return one page of executions; raise BadInput for a query that makes no sense."""
    checked_limit(query.limit)
    column, down = _order(query.order)
    statement = select(executions).where(*conditions(query, walked(connection, column)))
    if query.cursor is not None:
        statement = statement.where(_behind(query, column, down=down))
    statement = _ordered(statement, column, down=down)
    rows = connection.execute(statement.limit(query.limit + 1)).mappings().all()
    found = Page({column.name: row[column.name] for column in _SHOWN} for row in rows[: query.limit])
    if len(rows) > query.limit:
        last = rows[query.limit - 1]
        found.cursor = _cursor(query.order, last[column.name], last["began"])
    _add_current(connection, found)
    return found


def counts(connection: Connection, query: Query) -> dict[str, int]:
    """Return how many executions there are in each status, of those that are asked for."""
    statement = select(executions.c.status, func.count()).where(*conditions(query)).group_by(executions.c.status)
    return {row[0]: row[1] for row in connection.execute(statement)}


def ended_before(connection: Connection, before: datetime, statuses: Iterable[str]) -> list[str]:
    """Return the ids of the executions that ended before a time in one of these states, oldest first."""
    ended = (executions.c.ended_at < before) & executions.c.status.in_(list(statuses))
    return list(connection.scalars(select(executions.c.id).where(ended).order_by(executions.c.ended_at)))


def checked_limit(limit: int) -> int:
    """Return how many rows are asked for; raise BadInput where there cannot be so many."""
    if type(limit) is not int or not 1 <= limit <= _MOST:
        raise BadInput(f"limit {limit!r}: it is a whole number from 1 to {_MOST}; the cursor gives the rows behind")
    return limit


def _check(query: Query) -> None:
    """Raise BadInput for a value of the wrong kind."""
    texts: list[tuple[str, Any]] = [(name, getattr(query, name)) for name in _TEXTS]
    texts += [(name, each) for name in ("status", "workflow", "tag") for each in _several(getattr(query, name))]
    for name, value in texts:
        if value is not None and not is_text(value):
            raise BadInput(f"{name} {value!r}: it must be text, in UTF-8")
    if not isinstance(query.where, Mapping):
        raise BadInput(f"where {query.where!r}: it is a dict of attributes, as {{'tenant': 'acme'}}")
    if query.priority is not None and (type(query.priority) is not int or abs(query.priority) > MAX_WHOLE):
        raise BadInput(f"priority {query.priority!r}: it is a whole number")


def _several(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]


def _times(query: Query) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    for what, column in (("started", executions.c.started_at), ("ended", executions.c.ended_at)):
        after, before = getattr(query, f"{what}_after"), getattr(query, f"{what}_before")
        found += [column >= moment(after, f"{what}_after")] if after is not None else []
        found += [column < moment(before, f"{what}_before")] if before is not None else []
    return found


def _order(order: str) -> tuple[Any, bool]:
    name = str(order).removeprefix("-")
    if name not in ORDERS:
        raise BadInput(f"order {order!r}: it is one of {', '.join(ORDERS)}, downwards with - before it")
    return ORDERS[name], order.startswith("-")


def _ordered(statement: Select[Any], column: Any, *, down: bool) -> Select[Any]:
    """Order by the column and then by the start, so that the order is whole; what has not ended comes last."""
    if column is executions.c.ended_at:
        statement = statement.where(column.is_not(None))
    columns = [column] if column is executions.c.began else [column, executions.c.began]
    return statement.order_by(*(each.desc() if down else each.asc() for each in columns))


def _behind(query: Query, column: ColumnElement[Any], *, down: bool) -> ColumnElement[bool]:
    """Return the condition that a row comes after the last one of the page before."""
    value, began = _of_cursor(query)
    if column is executions.c.began:
        return executions.c.began < began if down else executions.c.began > began
    started = executions.c.began < began if down else executions.c.began > began
    return or_(column < value if down else column > value, and_(column == value, started))


def _cursor(order: str, value: Any, began: int) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([order, value, began])).decode().rstrip("=")


def _of_cursor(query: Query) -> tuple[Any, int]:
    text = query.cursor or ""
    wanted = datetime if query.order.removeprefix("-") == "ended" else _Whole
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        order, value, began = msgspec.json.decode(raw, type=tuple[str, datetime | _Whole, _Whole])
        if order == query.order:
            msgspec.convert(value, wanted)
    except (binascii.Error, msgspec.DecodeError, ValueError):
        raise BadInput(f"the cursor {text!r} is none that a list has given") from None
    if order != query.order:
        raise BadInput(f"the cursor is of a list with order {order!r}; go on with that order, or leave the cursor out")
    return value, began


def _add_current(connection: Connection, rows: Page) -> None:
    """Say of each execution where it is now."""
    going = {row["id"]: row for row in rows if row["ended_at"] is None}
    for row in rows:
        row["current"] = []
    ids = list(going)
    for start in range(0, len(ids), 500):
        query = select(current.c.execution, current.c.path).where(current.c.execution.in_(ids[start : start + 500]))
        for execution, path in connection.execute(query.order_by(current.c.execution, current.c.path)):
            if len(going[execution]["current"]) < _CURRENT:
                going[execution]["current"].append(path)


def begun_between(connection: Connection, query: Query, after: int, until: int, limit: int) -> list[tuple[int, str]]:
    """Return position of the start, and id, of those asked for that began in `(after, until]`, oldest first."""
    began = executions.c.began
    statement = select(began, executions.c.id).where(*conditions(query), began > after, began <= until)
    return [(row.began, row.id) for row in connection.execute(statement.order_by(began).limit(limit))]
