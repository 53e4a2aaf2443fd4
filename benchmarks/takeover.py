"""SIGKILL of a host with 200 active executions of 5 steps of 50 ms, on a cluster: `python takeover.py STORE`."""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import perdure
from perdure import Settings
from perdure.cluster.client import AsyncClient
from perdure.cluster.status import host_states
from perdure.events.vocabulary import NodeResumed, NodeSucceeded

EXECUTIONS, STEPS = 200, 5
TOOLS = """\
import asyncio
from perdure import tool

@tool
async def nap() -> None:
    await asyncio.sleep(0.05)
"""


def workflow(folder: Path) -> dict[str, Any]:
    (folder / "tools.py").write_text(TOOLS)
    nodes = {f"n{step}": {"tool": "nap", "needs": [f"n{step - 1}"] if step else []} for step in range(STEPS)}
    return {"name": "five", "tools": [str(folder / "tools.py")], "nodes": nodes}


async def victim(client: AsyncClient) -> int:
    """Return the process of the host with the most active executions, once it has many."""
    while True:
        busiest = max(await host_states(client._connection), key=lambda host: host.get("active", 0))
        if busiest.get("active", 0) >= 0.9 * EXECUTIONS / len(await host_states(client._connection)):
            return int(busiest["pid"])


async def measure(store: Path, folder: Path) -> None:
    async with await perdure.connect_async(Settings(store=store)) as client:
        seen: list[float] = []

        async def watch() -> None:
            async for _ in client._connection.log.follow(None, await client._connection.log.last()):
                seen.append(time.monotonic())  # noqa: PERF401 (it never ends)

        watching = asyncio.create_task(watch())
        starting = asyncio.create_task(client.start_many(workflow(folder), [None] * EXECUTIONS))
        pid = await victim(client)
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        runs = await starting
        await asyncio.gather(*(run.result(60) for run in runs))
        ended = time.monotonic()
        watching.cancel()
        counted: Counter[str] = Counter()
        for run in runs:
            async for happened in run.events():
                counted[type(happened.event).__name__] += 1
        gaps = sorted((after - before, before - killed) for before, after in pairwise(seen))
        print(
            f"all complete {ended - killed:.2f} s after the kill; longest silence of the log {gaps[-1][0]:.2f} s, "
            f"from {gaps[-1][1]:.2f} s on; {counted[NodeResumed.__name__]} nodes were in flight and ran again; "
            f"{counted[NodeSucceeded.__name__]} of {EXECUTIONS * STEPS} results recorded"
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(measure(Path(sys.argv[1]), Path(name)))
