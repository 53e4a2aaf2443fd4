"""Histories for projections: entries with chosen events and times, in a log in memory or on the server."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from perdure.events.entry import Entry
from perdure.events.log import Log
from perdure.events.vocabulary import (
    Error,
    Event,
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionStarted,
    ExecutionSucceeded,
    NodeAttemptFailed,
    NodeFailed,
    NodeScheduled,
    NodeSucceeded,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
BOOM = Error("Boom", "it broke")


def at(second: float) -> datetime:
    return NOON + timedelta(seconds=second)


def start(workflow: str = "flow", **more: Any) -> ExecutionStarted:
    return ExecutionStarted(workflow, "sha256:0", {"a": 1}, "0", **more)


async def append(log: Log, execution: str, *events: Event, second: float = 0, n: int = 1) -> int:
    entry = Entry(uuid4().hex, n, "", at(second), list(events))
    return (await log.append(execution, entry, await log.last(execution))).position


def kinds_of(number: int) -> list[list[Event]]:
    """Return the entries of an execution that ends as its number says: 8 of 10 succeed, one fails, one is cancelled."""
    workflow = ("order", "refund", "report")[number % 3]
    search: dict[str, Any] = {"tenant": f"t{number % 20}", "total": number, "urgent": number % 7 == 0}
    tags = ["even"] if number % 2 == 0 else []
    begin: list[Event] = [start(workflow, priority=number % 10, search=search, tags=tags), NodeScheduled("a", 1)]
    if number % 10 == 3:
        return [begin, [NodeAttemptFailed("a", 1, BOOM), NodeScheduled("a", 2)],
                [NodeFailed("a", 2, BOOM), ExecutionFailed(BOOM, "a", 2)]]  # fmt: skip
    if number % 10 == 7:
        return [begin, [ExecutionCancelled("not wanted")]]
    return [begin, [NodeSucceeded("a", 1, 1), NodeScheduled("b", 1)], [NodeSucceeded("b", 1, 2), ExecutionSucceeded(1)]]


async def fill(log: Log, numbers: Iterable[int], prefix: str = "x") -> None:
    """Append whole executions, one behind the other."""
    for number in numbers:
        for n, events in enumerate(kinds_of(number), 1):
            await append(log, f"{prefix}-{number}", *events, second=number + n, n=n)
