"""The log on JetStream, fsync always: appends and loads, beside plain nats-py on the same server in the same run."""

import argparse
import asyncio
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from unittest.mock import patch
from uuid import uuid4

from perdure.cluster.connection import Connection, open_connection
from perdure.cluster.nats_server import nats_server
from perdure.cluster.settings import Settings
from perdure.events import group_writer
from perdure.events.entry import Entry, encode
from perdure.events.subjects import events_subject
from perdure.events.vocabulary import Event, NodeScheduled, NodeSucceeded


def entry(n: int) -> Entry:
    """Return an entry of about 300 bytes."""
    events: list[Event] = [NodeSucceeded("node-1", 1, "x" * 30), NodeScheduled("node-2", 1, {"a": "y" * 10})]
    return Entry(uuid4().hex, n, "0" * 20, datetime.now(UTC), events)


def _work(executions: int, each: int) -> list[list[Entry]]:
    """Return the entries that each execution is to append, out of the collector's sight: they are not what we time."""
    work = [[entry(n) for n in range(each)] for _ in range(executions)]
    gc.collect()
    gc.freeze()
    return work


async def many(connection: Connection, executions: int, each: int) -> float:
    """Return appends per second of many executions, each of which appends one after the other."""

    async def one(entries: list[Entry]) -> None:
        execution, position = uuid4().hex, 0
        for each_entry in entries:
            position = (await connection.log.append(execution, each_entry, position)).position

    work = _work(executions, each)
    began = time.perf_counter()
    await asyncio.gather(*map(one, work))
    return executions * each / (time.perf_counter() - began)


async def bare(connection: Connection, executions: int, each: int) -> float:
    """Return the same with plain `js.publish` and the expected-sequence header."""
    js = connection.nats.jetstream()

    async def one(entries: list[Entry]) -> None:
        subject, position = events_subject(uuid4().hex), 0
        for each_entry in entries:
            headers = {"Nats-Expected-Last-Subject-Sequence": str(position)}
            position = (await js.publish(subject, encode(each_entry), headers=headers)).seq

    work = _work(executions, each)
    began = time.perf_counter()
    await asyncio.gather(*map(one, work))
    return executions * each / (time.perf_counter() - began)


async def singly(connection: Connection, executions: int, each: int) -> float:
    """Return the same as `many` with the group commit off: one by one, all of them in flight."""
    with patch.multiple(group_writer, BATCH_FROM=sys.maxsize, SINGLES_IN_FLIGHT=executions):
        return await many(connection, executions, each)


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

        async def rows(**measures: Callable[[], Awaitable[float]]) -> dict[str, float]:
            """Measure in turn, for what slows the machine for a while to slow all; print and return medians."""
            figures: dict[str, list[float]] = {name: [] for name in measures}
            for _ in range(repeat):
                for name, measure in measures.items():
                    figures[name].append(await measure())
            for name, each in figures.items():
                print(f"  {name:12} {statistics.median(each):9.0f}/s   ({min(each):.0f} to {max(each):.0f})")
            return {name: statistics.median(each) for name, each in figures.items()}

        await many(connection, 64, 20)
        print(f"entries of {len(encode(entry(1)))} bytes, fsync always, one process, medians of {repeat}")
        print("1 execution appends")
        lone = await rows(log=lambda: many(connection, 1, 1000), publish=lambda: bare(connection, 1, 1000))
        print(f"  an append takes {lone['publish'] / lone['log']:.2f} of a bare publish's time")
        for executions in (16, 64, 256, 1000):
            print(f"{executions} executions append")
            crowd = await rows(
                log=partial(many, connection, executions, 20000 // executions),
                one_by_one=partial(singly, connection, executions, 10000 // executions),
                publish=partial(bare, connection, executions, 10000 // executions),
            )
            times = [crowd["log"] / each for each in (lone["log"], crowd["one_by_one"], crowd["publish"])]
            print("  {:.1f} of one at a time, {:.1f} of one by one, {:.1f} of plain publishes".format(*times))
        print("1 execution is loaded")
        await rows(
            entries_10=lambda: loads(connection, 10, 1000),
            entries_1000=lambda: loads(connection, 1000, 20),
        )
        await connection.close()
        server.close()


if __name__ == "__main__":
    asyncio.run(main())
