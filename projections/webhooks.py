"""The outbox of webhooks: a row for each event that is to be told, in the transaction of the runner's position."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Column, Connection, Integer, LargeBinary, MetaData, Table, delete, func, select, update

from perdure.events.choice import Choice
from perdure.events.cloud_events import message_of
from perdure.events.entry import Happened
from perdure.events.vocabulary import ExecutionPurged, ExecutionStarted
from perdure.projections import tracking
from perdure.projections.projection import Projection
from perdure.projections.store import upsert
from perdure.projections.tables import executions
from perdure.projections.types import Moment, Position, Words

_AT_ONCE = 500  # ids in one question

deliveries = Table(
    "webhook_deliveries",
    MetaData(),
    Column("webhook", Words, primary_key=True),
    Column("position", Position, primary_key=True, autoincrement=False),
    Column("i", Integer, primary_key=True, autoincrement=False),
    Column("id", Words, nullable=False),
    Column("type", Words, nullable=False),
    Column("execution", Words, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("status", Words, nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    Column("due", Moment, nullable=False, index=True),
    Column("error", Words),
)
"""What is to be told. status: `pending`, or `dead` after the last attempt; what was told is not here any more."""


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told of which events. secret: the name of the one that signs. since: only events behind this position.

    attempts: all tries of one delivery. timeout: of one, in seconds. settled: up to this position nothing is left to
    tell; the runner moves it.
    """

    name: str
    url: str
    secret: str
    choice: Choice = Choice()
    since: int
    attempts: int = 8
    timeout: float = 10.0
    by: str = ""
    made: datetime
    settled: int = 0


class Outbox(Projection):
    """Puts the events of one webhook into the outbox. It is folded behind `executions`, which knows the workflows."""

    tables = (deliveries,)

    def __init__(self, webhook: Webhook, log: str) -> None:
        self.name = f"webhook:{webhook.name}"  # type: ignore[misc]
        self._webhook = webhook
        self._log = log

    def fold(self, connection: Connection, events: Sequence[Happened]) -> None:
        """See Projection."""
        kinds, choice = self._webhook.choice.kinds, self._webhook.choice
        begin = max(self._webhook.since, self._webhook.settled)
        wanted = [
            item
            for item in events
            if item.position > begin
            and (choice.imports or not item.imported)
            and (not kinds or isinstance(item.event, kinds))
            and choice.execution in (None, item.execution)
        ]
        if wanted:
            names = _workflows(connection, wanted)
            rows = [self._row(item, names.get(item.execution, "")) for item in wanted]
            upsert(connection, deliveries, [row for row in rows if row is not None])

    def clear(self, connection: Connection) -> None:
        """Take the rows of this webhook away."""
        deliveries.create(connection, checkfirst=True)
        connection.execute(delete(deliveries).where(deliveries.c.webhook == self._webhook.name))

    def _row(self, item: Happened, workflow: str) -> dict[str, Any] | None:
        if self._webhook.choice.workflows and workflow not in self._webhook.choice.workflows:
            return None
        message = message_of(item, workflow, self._log)
        return {
            "webhook": self._webhook.name, "position": item.position, "i": item.i, "id": message.id,
            "type": message.type, "execution": item.execution, "body": message.body, "status": "pending", "attempts": 0,
            "due": datetime.now(UTC), "error": None,
        }  # fmt: skip


def _workflows(connection: Connection, events: Sequence[Happened]) -> dict[str, str]:
    ids = list(dict.fromkeys(item.execution for item in events))
    found: dict[str, str] = {}
    for start in range(0, len(ids), _AT_ONCE):
        query = select(executions.c.id, executions.c.workflow).where(executions.c.id.in_(ids[start : start + _AT_ONCE]))
        found |= {row.id: row.workflow for row in connection.execute(query)}
    for item in events:
        if isinstance(item.event, ExecutionStarted | ExecutionPurged):
            found[item.execution] = item.event.workflow
    return found


def with_due(connection: Connection, now: datetime) -> Sequence[str]:
    """Return the webhooks of which something is due."""
    wanted = (deliveries.c.status == "pending") & (deliveries.c.due <= now)
    return connection.scalars(select(deliveries.c.webhook).where(wanted).distinct()).all()


def due(connection: Connection, webhook: str, now: datetime, limit: int) -> Sequence[Any]:
    """Return deliveries of a webhook that are due, those first that have waited longest."""
    wanted = (deliveries.c.webhook == webhook) & (deliveries.c.status == "pending") & (deliveries.c.due <= now)
    return connection.execute(select(deliveries).where(wanted).order_by(deliveries.c.due).limit(limit)).all()


def claim(connection: Connection, rows: Sequence[Any], until: datetime) -> list[Any]:
    """Take deliveries, so that nobody else tries them before `until`, and return them; each counts as an attempt."""
    taken = []
    for row in rows:
        ours = _is(row) & (deliveries.c.due == row.due) & (deliveries.c.attempts == row.attempts)
        if connection.execute(update(deliveries).where(ours).values(due=until, attempts=row.attempts + 1)).rowcount:
            taken.append(row)
    return taken


def settle(connection: Connection, row: Any, why: str | None, due: datetime | None) -> None:
    """Note how an attempt went: told where there is no reason against; to be tried again when it is due; else dead."""
    if why is None:
        connection.execute(delete(deliveries).where(_is(row)))
        return
    values: dict[str, Any] = {"error": why[:2000]}
    values |= {"status": "dead"} if due is None else {"due": due}
    connection.execute(update(deliveries).where(_is(row)).values(**values))


def dead(connection: Connection, webhook: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
    """Return what could not be told, by position, without the bodies."""
    query = select(*(column for column in deliveries.columns if column.name not in ("body", "status")))
    query = query.where(deliveries.c.status == "dead").order_by(deliveries.c.position, deliveries.c.i).limit(limit)
    query = query if webhook is None else query.where(deliveries.c.webhook == webhook)
    return [dict(row) for row in connection.execute(query).mappings()]


def try_again(connection: Connection, webhook: str, now: datetime) -> int:
    """Have what could not be told tried again from the first attempt on; return how many there are."""
    mine = (deliveries.c.webhook == webhook) & (deliveries.c.status == "dead")
    return connection.execute(update(deliveries).where(mine).values(status="pending", attempts=0, due=now)).rowcount


def counts(connection: Connection) -> dict[str, dict[str, int]]:
    """Return of each webhook how many deliveries are pending, and how many are dead."""
    query = select(deliveries.c.webhook, deliveries.c.status, func.count()).group_by(
        deliveries.c.webhook, deliveries.c.status
    )
    found: dict[str, dict[str, int]] = {}
    for webhook, status, count in connection.execute(query):
        found.setdefault(webhook, {})[status] = count
    return found


def first_open(connection: Connection, webhook: str) -> int | None:
    """Return the position of the first delivery that is pending; None where there is none."""
    mine = (deliveries.c.webhook == webhook) & (deliveries.c.status == "pending")
    found: int | None = connection.scalar(select(func.min(deliveries.c.position)).where(mine))
    return found


def forget(connection: Connection, webhook: str) -> None:
    """Take away what is in the outbox of a webhook, and how far it was: one of its name begins where it says."""
    tracking.forget(connection, f"webhook:{webhook}")
    connection.execute(delete(deliveries).where(deliveries.c.webhook == webhook))


def _is(row: Any) -> Any:
    return (deliveries.c.webhook == row.webhook) & (deliveries.c.position == row.position) & (deliveries.c.i == row.i)
