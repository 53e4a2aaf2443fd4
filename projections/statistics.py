"""The `statistics` read model: how often nodes and executions ended how, and how long they took, hour by hour."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import Connection, select

from perdure.events.entry import Happened
from perdure.events.vocabulary import (
    ChildRequested,
    Counted,
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionPurged,
    ExecutionRetried,
    ExecutionStarted,
    ExecutionSucceeded,
    ExecutionTerminated,
    NodeAttemptFailed,
    NodeCancelled,
    NodeCatching,
    NodeCaught,
    NodeCharged,
    NodeFailed,
    NodeOpened,
    NodeScheduled,
    NodeSkipped,
    NodeStuck,
    NodeSucceeded,
    NodeWaiting,
)
from perdure.projections.projection import BuiltIn
from perdure.projections.rows import Rows
from perdure.projections.sketches import with_values
from perdure.projections.store import upsert
from perdure.projections.tables import statistics, under_way
from perdure.projections.words import node_of

COUNTS = ("succeeded", "failed", "cancelled", "skipped", "retried", "tokens_in", "tokens_out", "cost")
_DIGITS = 9
_Key = tuple[str, str, datetime]


class Statistics(BuiltIn):
    """Folds the tables statistics and under_way. What was purged counts by what its tombstone carries."""

    name = "statistics"
    tables = (statistics, under_way)

    def fold(self, connection: Connection, events: Sequence[Happened]) -> None:
        """See Projection."""
        counting = _Counting()
        counting.rows.load(connection, events)
        counting.count(events)
        counting.rows.write(connection)
        _add(connection, counting.sums)


def counted(events: Iterable[Happened]) -> list[Counted]:
    """Return what the whole past of one execution adds to the statistics."""
    counting = _Counting()
    counting.count(events)
    return [
        Counted(node, hour, **sums.counts, durations=with_values(None, sums.seconds))
        for (_, node, hour), sums in counting.sums.items()
    ]


class _Sums:
    """What is to be added to one row."""

    def __init__(self) -> None:
        self.counts: dict[str, Any] = dict.fromkeys(COUNTS, 0)
        self.seconds: list[float] = []
        self.sketches: list[bytes] = []

    def add(self, name: str, more: float) -> None:
        self.counts[name] = _sum(self.counts[name], more)


class _Counting:
    """What is under way by execution and path, and what the events add."""

    def __init__(self) -> None:
        self.rows = Rows(under_way)
        self.sums: defaultdict[_Key, _Sums] = defaultdict(_Sums)

    def count(self, events: Iterable[Happened]) -> None:
        for item in events:
            handler = _HANDLERS.get(type(item.event))
            if handler is not None:
                handler(self, item, item.event)

    def begin(self, item: Happened, path: str, workflow: str = "") -> None:
        if self.rows.get(item.execution, path) is None:
            self.rows.put(execution=item.execution, path=path, workflow=workflow, began_at=item.at)

    def of(self, item: Happened, path: str) -> _Sums | None:
        """Return where to count what happens to a node; None where the execution's start is not known."""
        whole = self.rows.get(item.execution, "")
        if whole is None:
            return None
        hour = item.at.replace(minute=0, second=0, microsecond=0)
        return self.sums[whole["workflow"], node_of(path), hour]

    def end(self, item: Happened, path: str, how: str) -> None:
        """Count that something ended; what has no row began and ended in one entry."""
        sums = self.of(item, path)
        row = self.rows.remove(item.execution, path) if path else self.rows.get(item.execution, path)
        if sums is None:
            return
        sums.counts[how] += 1
        if how in ("succeeded", "failed"):
            sums.seconds.append(max(0.0, (item.at - row["began_at"]).total_seconds()) if row else 0.0)


def _add(connection: Connection, sums: dict[_Key, _Sums]) -> None:
    if not sums:
        return
    workflows, hours = {key[0] for key in sums}, {key[2] for key in sums}
    query = select(statistics).where(statistics.c.workflow.in_(workflows), statistics.c.hour.in_(hours))
    found = {(row["workflow"], row["node"], row["hour"]): row for row in connection.execute(query).mappings()}
    rows = []
    for key, more in sums.items():
        there = found.get(key)
        row = {name: _sum(there[name] if there else 0, more.counts[name]) for name in COUNTS}
        durations = with_values(there["durations"] if there else None, more.seconds, more.sketches)
        rows.append({**dict(zip(("workflow", "node", "hour"), key, strict=True)), **row, "durations": durations})
    upsert(connection, statistics, rows)


def _sum(one: float, other: float) -> float:
    """Add in whole billionths: of floats as they are, the sum would tell in which portions the log was read."""
    return round(round(one, _DIGITS) + round(other, _DIGITS), _DIGITS)


def _started(counting: _Counting, item: Happened, event: ExecutionStarted) -> None:
    counting.begin(item, "", event.workflow)


def _began(counting: _Counting, item: Happened, event: Any) -> None:
    counting.begin(item, event.node)


def _charged(counting: _Counting, item: Happened, event: NodeCharged | NodeSucceeded) -> None:
    sums = counting.of(item, event.node)
    if sums is not None and event.usage:
        for name, key in (("tokens_in", "input"), ("tokens_out", "output"), ("cost", "cost")):
            sums.add(name, event.usage.get(key) or 0)


def _node_succeeded(counting: _Counting, item: Happened, event: NodeSucceeded) -> None:
    _charged(counting, item, event)
    counting.end(item, event.node, "succeeded")


def _node_ended(how: str) -> Callable[[_Counting, Happened, Any], None]:
    return lambda counting, item, event: counting.end(item, event.node, how)


def _caught(counting: _Counting, item: Happened, event: NodeCaught) -> None:
    if counting.rows.get(item.execution, event.node) is not None:  # else it has counted when its handler began
        counting.end(item, event.node, "failed")


def _again(counting: _Counting, item: Happened, event: NodeAttemptFailed | NodeStuck) -> None:
    counting.begin(item, event.node)  # some fail without having begun
    sums = counting.of(item, event.node)
    if sums is not None:
        sums.counts["retried"] += 1


def _ended(how: str) -> Callable[[_Counting, Happened, Any], None]:
    def handle(counting: _Counting, item: Happened, _: Any) -> None:
        counting.end(item, "", how)
        for row in counting.rows.of(item.execution):
            if row["path"]:
                counting.rows.remove(item.execution, row["path"])

    return handle


def _retried(counting: _Counting, item: Happened, _: ExecutionRetried) -> None:
    row = counting.rows.get(item.execution, "")
    if row is not None:
        counting.rows.change(row, began_at=item.at)
        counting.sums[row["workflow"], "", item.at.replace(minute=0, second=0, microsecond=0)].counts["retried"] += 1


def _purged(counting: _Counting, item: Happened, event: ExecutionPurged) -> None:
    if counting.rows.get(item.execution, "") is not None:  # it has been counted as it went
        counting.rows.clear(item.execution)
        return
    for each in event.statistics:
        sums = counting.sums[event.workflow, each.node, each.hour]
        values = asdict(each)
        for name in COUNTS:
            sums.add(name, values[name])
        sums.sketches.append(each.durations)


_HANDLERS: dict[type, Callable[[_Counting, Happened, Any], None]] = {
    ExecutionStarted: _started,
    **dict.fromkeys((NodeScheduled, NodeWaiting, NodeOpened, ChildRequested), _began),
    NodeSucceeded: _node_succeeded,
    NodeCharged: _charged,
    **dict.fromkeys((NodeFailed, NodeCatching), _node_ended("failed")),
    NodeCaught: _caught,
    NodeCancelled: _node_ended("cancelled"),
    NodeSkipped: _node_ended("skipped"),
    **dict.fromkeys((NodeAttemptFailed, NodeStuck), _again),
    ExecutionSucceeded: _ended("succeeded"),
    ExecutionFailed: _ended("failed"),
    **dict.fromkeys((ExecutionCancelled, ExecutionTerminated), _ended("cancelled")),
    ExecutionRetried: _retried,
    ExecutionPurged: _purged,
}
