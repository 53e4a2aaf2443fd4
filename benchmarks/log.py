"""The log on JetStream, fsync always: appends and loads, beside plain nats-py on the same server in the same run."""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from perdure.cluster.connection import Connection, open_connection
from perdure.cluster.nats_server import nats_server
from perdure.cluster.settings import Settings
from perdure.events.entry import Entry, encode
from perdure.events.subjects import events_subject
from perdure.events.vocabulary import NodeScheduled, NodeSucceeded


def entry(n: int) -> Entry:
    """Return an entry of about 300 bytes."""
    events = [NodeSucceeded("node-1", 1, "x" * 30), NodeScheduled("node-2", 1, {"a": "y" * 10})]
    return Entry(uuid4().hex, n, "0" * 20, datetime.now(UTC), events)


async def many(connection: Connection, executions: int, each: int) -> float:
    """Return appends per second of many executions, each of which appends one after the other."""

    async def one() -> None:
        execution, position = uuid4().hex, 0
        for n in range(each):
            position = (await connection.log.append(execution, entry(n), position)).position

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(executions)))
    return executions * each / (time.perf_counter() - began)


async def bare(connection: Connection, executions: int, each: int) -> float:
    """Return the same with plain `js.publish` and the expected-sequence header."""
    js = connection.nats.jetstream()

    async def one() -> None:
        subject, position = events_subject(uuid4().hex), 0
        for n in range(each):
            headers = {"Nats-Expected-Last-Subject-Sequence": str(position)}
            position = (await js.publish(subject, encode(entry(n)), headers=headers)).seq

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(executions)))
    return executions * each / (time.perf_counter() - began)


async def loads(connection: Connection, entries: int, times: int) -> float:
    """Return loads per second, one after the other, of an execution with so many entries."""
    execution, position = uuid4().hex, 0
    for n in range(entries):
        position = (await connection.log.append(execution, entry(n), position)).position
    began = time.perf_counter()
    for _ in range(times):
        assert len([recorded.entry async for recorded in connection.log.read(execution)]) == entries
    return times / (time.perf_counter() - began)


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    with tempfile.TemporaryDirectory() as store:
        server = nats_server(Settings(store=Path(store)))
        connection = await open_connection(server.url, server.token)

        async def row(name: str, unit: str, measure: Callable[[], Awaitable[float]]) -> float:
            figures = [await measure() for _ in range(repeat)]
            median = statistics.median(figures)
            print(f"{name:52} {median:9.0f} {unit}   ({min(figures):.0f} to {max(figures):.0f})")
            return median

        await many(connection, 64, 20)
        print(f"entries of {len(encode(entry(1)))} bytes, fsync always, one process, medians of {repeat}")
        one = await row("1 execution: log.append", "/s", lambda: many(connection, 1, 1000))
        raw = await row("1 execution: js.publish", "/s", lambda: bare(connection, 1, 1000))
        print(f"   an append takes {raw / one:.2f} of a bare publish's time")
        for executions in (16, 64, 256, 1000):
            group = await row(
                f"{executions} executions: log.append", "/s", lambda n=executions: many(connection, n, 20000 // n)
            )
            raw = await row(
                f"{executions} executions: js.publish", "/s", lambda n=executions: bare(connection, n, 10000 // n)
            )
            print(f"   ratio {group / raw:.1f}")
        await row("load 10 entries", "/s", lambda: loads(connection, 10, 1000))
        await row("load 1,000 entries", "/s", lambda: loads(connection, 1000, 20))
        await connection.close()
        server.close()


if __name__ == "__main__":
    asyncio.run(main())
