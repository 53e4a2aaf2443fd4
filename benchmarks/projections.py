"""Read models of many finished executions, which a real log holds: folding them, and asking with any filter."""

import argparse
import asyncio
import resource
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from perdure.cluster.connection import Connection, open_connection
from perdure.cluster.nats_server import nats_server
from perdure.cluster.settings import Settings
from perdure.events.entry import Entry
from perdure.events.vocabulary import (
    Error,
    Event,
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionStarted,
    ExecutionSucceeded,
    NodeFailed,
    NodeScheduled,
    NodeSucceeded,
)
from perdure.projections.queries import Query, page
from perdure.projections.runner import Projections

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
BOOM = Error("CardExpired", "the card has expired")
DAY = BEGIN + timedelta(days=1)
QUERIES: dict[str, dict[str, Any]] = {
    "newest": {},
    "status, 2 %": {"status": "failed"},
    "status, 96 %": {"status": "succeeded"},
    "status that none has": {"status": "paused"},
    "workflow, a third": {"workflow": "order"},
    "workflow that none has": {"workflow": "none"},
    "attribute, 5 %": {"where": {"tenant": "t7"}},
    "attribute, one": {"where": {"number": 77}},
    "attribute, half": {"where": {"urgent": True}},
    "attribute, none": {"where": {"tenant": "nobody"}},
    "attribute and status": {"where": {"tenant": "t7"}, "status": "failed"},
    "half, and status that none has": {"where": {"urgent": True}, "status": "paused"},
    "two attributes that exclude each other": {"where": {"urgent": True, "odd": True}},
    "tag, half": {"tag": "even"},
    "tag and workflow and status": {"tag": "even", "workflow": "order", "status": "cancelled"},
    "number in a range, 90 %": {"filter": "number > 10000"},
    "number in a range, few": {"filter": "number > 10000 and number < 10050"},
    "not this attribute": {"filter": "tenant != 't7'"},
    "one of eight values": {"filter": "tenant in ['t1', 't2', 't3', 't4', 't5', 't6', 't7', 't8']"},
    "attribute, half, by end": {"where": {"urgent": True}, "order": "-ended"},
    "number in a range, 90 %, by priority": {"filter": "number > 10000", "order": "priority"},
    "what no index has": {"filter": "message == 'none'"},
    "expression": {"filter": "(status == 'failed' or priority > 7) and tenant in ['t1', 't2'] and not urgent"},
    "error": {"error": "CardExpired"},
    "id begins": {"filter": "id.startswith('x-777')"},
    "started between": {"started_after": BEGIN + timedelta(hours=5), "started_before": BEGIN + timedelta(hours=6)},
    "ended after, by end": {"ended_after": DAY, "order": "ended"},
    "by priority": {"order": "-priority"},
    "priority and attribute": {"priority": 3, "where": {"tenant": "t3"}},
    "oldest": {"order": "started"},
}


def history(number: int) -> list[list[Event]]:
    """Return the entries of one execution: 2 % fail, 2 % are cancelled."""
    search: dict[str, Any] = {"tenant": f"t{number % 20}", "number": number, "urgent": number % 2 == 0,
                              "odd": number % 2 == 1}  # fmt: skip
    workflow, tags = ("order", "refund", "report")[number % 3], ["even"] if number % 2 == 0 else []
    started = ExecutionStarted(workflow, "sha256:0", {"n": number}, "0", priority=number % 10, search=search, tags=tags)
    begin: list[Event] = [started, NodeScheduled("lookup", 1, {"n": number})]
    if number % 50 == 3:
        return [begin, [NodeFailed("lookup", 1, BOOM), ExecutionFailed(BOOM, "lookup", 1)]]
    if number % 50 == 7:
        return [begin, [ExecutionCancelled("not wanted")]]
    return [
        begin,
        [NodeSucceeded("lookup", 1, {"found": True}), NodeScheduled("send", 1)],
        [NodeSucceeded("send", 1, "x" * 50), ExecutionSucceeded({"sent": True})],
    ]


async def store(connection: Connection, number: int, together: asyncio.Semaphore) -> int:
    """Append one execution; return how many events it has."""
    execution, position, prev, count = f"x-{number}", 0, "", 0
    async with together:
        for n, events in enumerate(history(number), 1):
            at = BEGIN + timedelta(seconds=number + n)
            recorded = await connection.log.append(execution, Entry(uuid4().hex, n, prev, at, events), position)
            position, prev, count = recorded.position, recorded.digest, count + len(events)
    return count


async def fill(connection: Connection, executions: int) -> int:
    """Append all executions, many at a time; return how many events there are."""
    together, count = asyncio.Semaphore(512), 0
    for begin in range(0, executions, 5000):
        some = range(begin, min(begin + 5000, executions))
        count += sum(await asyncio.gather(*(store(connection, number, together) for number in some)))
    return count


async def ask(projections: Projections, repeat: int) -> None:
    """Ask each question so often, and print what it took, as its client sees it."""
    worst = 0.0
    for name, given in QUERIES.items():
        seconds = []
        for _ in range(repeat):
            began = time.perf_counter()
            found = await projections.read(partial(page, query=Query(**given)))
            seconds.append(time.perf_counter() - began)
        p95 = statistics.quantiles(seconds, n=20)[-1]
        worst = max(worst, p95)
        print(
            f"  {name:42} {len(found):3} rows  p50 {statistics.median(seconds) * 1e3:6.1f} ms  p95 {p95 * 1e3:6.1f} ms"
        )
    print(f"  the slowest p95 of all: {worst * 1e3:.1f} ms")


async def measure(connection: Connection, url: str | Path, events: int, repeat: int) -> None:
    """Fold everything, then again, then ask."""
    projections = Projections(url)
    print(f"{projections.store.name.partition(':')[0]}:")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    await projections.catch_up(connection.log)
    seconds = time.perf_counter() - began
    print(f"  folded {events} events in {seconds:.1f} s: {events / seconds:.0f} events/s into six projections")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"  memory at most {peak / 1024:.0f} MB, {(peak - before) / 1024:.0f} MB of it since it began")
    for names in (["executions"], projections.names):
        began = time.perf_counter()
        await projections.rebuild(connection.log, names)
        print(f"  rebuilt {', '.join(names)}: {time.perf_counter() - began:.1f} s")
    await ask(projections, repeat)
    projections.close()


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=40)
    parser.add_argument("--postgres", help="URL of an empty database, to measure as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = nats_server(Settings(store=Path(folder), sync_interval="100ms"))
        connection = await open_connection(server.url, server.token, timeout=60)
        began = time.perf_counter()
        events = await fill(connection, options.executions)
        print(f"{options.executions} executions, {events} events; appended in {time.perf_counter() - began:.0f} s")
        await measure(connection, Path(folder) / "projections.sqlite", events, options.repeat)
        if options.postgres:
            await measure(connection, options.postgres, events, options.repeat)
        await connection.close()
        server.close()


if __name__ == "__main__":
    asyncio.run(main())
