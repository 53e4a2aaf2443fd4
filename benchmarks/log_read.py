"""Reading one execution of 10,000 entries out of a stream of a million others, beside the server's raw time for it."""

import argparse
import asyncio
import gc
import json
import socket
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from perdure.actors.folded import Folded
from perdure.cluster.connection import Connection, open_connection
from perdure.cluster.nats_server import NatsServer, nats_server
from perdure.cluster.settings import Settings
from perdure.events.entry import Entry, encode
from perdure.events.jetstream_log import STREAM
from perdure.events.subjects import events_subject
from perdure.events.vocabulary import Event, ExecutionStarted, NodeScheduled, NodeSucceeded


async def fill(connection: Connection, others: int) -> None:
    """Store so many entries of other executions, unfenced and in a hurry: they are only there to be in the way."""
    js = connection.nats.jetstream(publish_async_max_pending=4000)
    data = encode(Entry(uuid4().hex, 1, "0" * 64, datetime.now(UTC), [NodeSucceeded("n", 1, "x" * 100)]))
    for number in range(others):
        await js.publish_async(f"perdure.ev.{number % 64}.other-{number % 50_000}", data)
    await js.publish_async_completed()


async def store(connection: Connection, entries: int) -> str:
    """Store an execution of so many entries, of about 300 bytes each; return its id."""
    execution, position, prev = uuid4().hex, 0, ""
    for n in range(1, entries + 1):
        events: list[Event] = [NodeSucceeded(f"n{n}", 1, "x" * 30), NodeScheduled(f"n{n + 1}", 1, {"a": "y" * 10})]
        if n == 1:
            events = [ExecutionStarted("w", "sha256:0", None, "0"), NodeScheduled("n1", 1)]
        entry = Entry(uuid4().hex, n, prev, datetime.now(UTC), events)
        recorded = await connection.log.append(execution, entry, position)
        position, prev = recorded.position, recorded.digest
    return execution


async def folded(connection: Connection, execution: str) -> float:
    """Return the seconds to read and fold all entries through the log."""
    began = time.perf_counter()
    state = Folded()
    async for recorded in connection.log.read(execution):
        state = state.after(recorded)
    return time.perf_counter() - began


def raw(server: NatsServer, execution: str, entries: int) -> float:
    """Return the seconds in which the server sends the same batches to a bare socket that only counts them."""
    host, _, port = server.url.removeprefix("nats://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        login = json.dumps({"auth_token": server.token, "headers": True, "no_responders": True, "verbose": False})
        connection.sendall(f"CONNECT {login}\r\nSUB r 1\r\n".encode())
        began, after, received = time.perf_counter(), 0, 0
        while received < entries:
            query = json.dumps({"seq": after + 1, "next_by_subj": events_subject(execution), "batch": 10_000}).encode()
            connection.sendall(f"PUB $JS.API.DIRECT.GET.{STREAM} r {len(query)}\r\n".encode() + query + b"\r\n")
            data = b""
            while b" 204 " not in data[-400:]:
                data += connection.recv(1 << 20)
            received += data.count(b"\nNats-Sequence: ")
            after = int(data.rpartition(b"\nNats-Last-Sequence: ")[2].split(b"\r")[0])
        return time.perf_counter() - began


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--others", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = nats_server(Settings(store=Path(folder), sync_interval="100ms"))
        connection = await open_connection(server.url, server.token, timeout=60)
        await fill(connection, options.others // 2)
        execution = await store(connection, options.entries)
        await fill(connection, options.others // 2)
        gc.collect()
        gc.freeze()  # what filling left in this process is not the reader's to look through
        ours, theirs = [], []
        for _ in range(options.repeat):
            theirs.append(await asyncio.to_thread(raw, server, execution, options.entries))
            ours.append(await folded(connection, execution))
        print(f"{options.entries} entries among {options.others} others, medians of {options.repeat}")
        print(f"raw, to a bare socket  {statistics.median(theirs) * 1e3:7.0f} ms")
        print(f"read and folded        {statistics.median(ours) * 1e3:7.0f} ms")
        print(f"ratio                  {statistics.median(ours) / statistics.median(theirs):7.1f}")
        await connection.close()
        server.close()


if __name__ == "__main__":
    asyncio.run(main())
