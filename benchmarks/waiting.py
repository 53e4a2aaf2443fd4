"""Executions that wait for a signal, on `perdure up`: memory and disk of each, and how fast they go on."""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measuring import cluster, disk, processes, row, server_pid, standing_by
from benchmarks.process_tree import anonymous, pss
from perdure import Settings
from perdure.cluster.client import AsyncClient
from perdure.cluster.run import AsyncRun
from perdure.cluster.status import _inbox, host_states

WAIT = {"name": "waiting", "nodes": {"a": {"wait": {"signal": "go"}}}}
IN_FLIGHT = 256
REST = 300.0  # seconds; at rest the server's runtime collects every two minutes, and pooled buffers go with the second


async def at_rest(client: AsyncClient) -> None:
    """Return when no execution is at hand, and no command waits."""
    while True:
        (host,), inbox = await host_states(client._connection), await _inbox(client._connection)
        if not host.get("active", 1) and not inbox["starts"] and not inbox["commands"]:
            return
        await asyncio.sleep(0.2)


async def signal_all(runs: list[AsyncRun]) -> float:
    """Signal every execution and return how many were complete in a second."""
    window = asyncio.Semaphore(IN_FLIGHT)

    async def go_on(run: AsyncRun) -> None:
        async with window:
            await run.signal("go", 1)
            assert await run.result(120) == {"a": 1}

    began = time.monotonic()
    await asyncio.gather(*map(go_on, runs))
    return len(runs) / (time.monotonic() - began)


def _grown(memory: dict[int, int], of: Callable[[int], int] = pss) -> int:
    """Return the bytes by which processes have grown; Ray ends those of its own that idle, and they do not count."""
    return sum(now - before for pid, before in memory.items() if (now := of(pid)))


async def measure(store: Path, count: int) -> dict[str, float]:
    async with await AsyncClient.open(Settings(store=store), "none") as client:
        for _ in range(2):  # what is loaded and grows once is not counted
            await signal_all(await client.start_many(WAIT, [None] * count))
        await at_rest(client)
        await standing_by(client)
        pids = processes(store)
        await asyncio.sleep(REST)
        memory, own = {pid: pss(pid) for pid in pids}, {pid: anonymous(pid) for pid in pids}
        server, on_disk = pss(server_pid(store)), disk(store)
        began = time.monotonic()
        runs = await client.start_many(WAIT, [None] * count)
        await at_rest(client)
        found = {"started": count / (time.monotonic() - began)}
        found["busy"] = _grown(memory) / count
        await asyncio.sleep(REST)
        found["server"] = (pss(server_pid(store)) - server) / count
        found["memory"], found["own"] = _grown(memory) / count, _grown(own, anonymous) / count
        found["disk"] = (disk(store) - on_disk) / count
        found["completed"] = await signal_all(runs)
        found["total"] = pss(*pids) / 1e6
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    found = []
    for _ in range(arguments.repeat):
        with tempfile.TemporaryDirectory() as name, cluster(store := Path(name)):
            found.append(asyncio.run(measure(store, arguments.executions)))
            print({key: round(value, 1) for key, value in found[-1].items()}, file=sys.stderr)
    print(f"{arguments.executions} executions that wait for a signal")
    for key, what, unit in (
        ("started", "begun and at rest", "executions/s"),
        ("busy", "PSS of all processes, added per execution, at once", "bytes"),
        ("memory", f"PSS of all processes, added per execution, after {REST:g} s", "bytes"),
        ("own", "of this what is of no file, which other work of the machine does not move", "bytes"),
        ("server", "nats-server's PSS, of the whole", "bytes"),
        ("disk", "disk added per execution", "bytes"),
        ("completed", "signalled and complete", "executions/s"),
        ("total", "PSS of all processes in the end, Ray's included", "MB"),
    ):
        print(row(what, [each[key] for each in found], unit))


if __name__ == "__main__":
    main()
