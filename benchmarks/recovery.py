"""SIGKILL of a host with 200 active executions of 5 steps of 50 ms, on `perdure up`: what is lost, and for how long."""

import argparse
import asyncio
import os
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from measuring import cluster, row

from perdure import Settings
from perdure.cluster.client import AsyncClient
from perdure.cluster.hosting import SUPERVISOR
from perdure.cluster.status import answer_of, host_states
from perdure.events.vocabulary import NodeResumed, NodeSucceeded

EXECUTIONS, STEPS = 200, 5
TOOLS = """\
import asyncio
from pathlib import Path
from perdure import Context, tool

@tool
async def nap(this: Context) -> None:
    with (Path(__file__).parent / "effects").open("a") as file:
        file.write(f"{this.execution}/{this.node}" + chr(10))
    await asyncio.sleep(0.05)
"""


def workflow(folder: Path) -> dict[str, Any]:
    (folder / "tools.py").write_text(TOOLS)
    nodes = {f"n{step}": {"tool": "nap", "needs": [f"n{step - 1}"] if step else []} for step in range(STEPS)}
    return {"name": "five", "tools": [str(folder / "tools.py")], "nodes": nodes}


async def victim(client: AsyncClient) -> int:
    """Return the process of the one host, once it has nearly all executions at work."""
    while True:
        (host,) = await host_states(client._connection)
        if host.get("active", 0) >= 0.9 * EXECUTIONS:
            return int(host["pid"])


async def measure(client: AsyncClient, folder: Path) -> Counter[str]:
    """Kill the host once, and return what came of it; times are in seconds since the kill."""
    (folder / "effects").write_text("")
    log, killed, seen = client._connection.log, 0.0, []

    async def watch() -> None:
        async for recorded in log.follow(None, await log.last()):
            seen.append((time.monotonic(), recorded.entry.epoch))  # noqa: PERF401 (it never ends)

    watching = asyncio.create_task(watch())
    starting = asyncio.create_task(client.start_many(workflow(folder), [None] * EXECUTIONS))
    pid = await victim(client)
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    runs = await starting
    await asyncio.gather(*(run.result(60) for run in runs))
    ended = time.monotonic()
    watching.cancel()
    told: Counter[str] = Counter()
    for run in runs:
        async for happened in run.events():
            told[type(happened.event).__name__] += 1
    ran = Counter((folder / "effects").read_text().splitlines())
    before = max(epoch for at, epoch in seen if at <= killed)
    return Counter(
        progress=next(at for at, epoch in seen if epoch > before) - killed,
        complete=ended - killed,
        resumed=told[NodeResumed.__name__],
        twice=sum(count > 1 for count in ran.values()),
        lost=EXECUTIONS * STEPS - told[NodeSucceeded.__name__],
    )


async def repeat(store: Path, folder: Path, times: int) -> list[Counter[str]]:
    async with await AsyncClient.open(Settings(store=store), "none") as client:
        await asyncio.gather(*(run.result(60) for run in await client.start_many(workflow(folder), [None] * 20)))
        found = []
        for _ in range(times):
            found.append(await measure(client, folder))
            await standing_by(client)
        return found


async def standing_by(client: AsyncClient) -> None:
    """Return when a process stands by."""
    while not (await answer_of(client._connection.nats, SUPERVISOR) or {}).get("standing_by"):  # noqa: ASYNC110
        await asyncio.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, cluster(store := Path(name) / "store"):
        found = asyncio.run(repeat(store, Path(name), arguments.repeat))
    for key, what, unit in (
        ("progress", "from the kill to the first entry of who took over", "s"),
        ("complete", f"from the kill to all {EXECUTIONS} executions complete", "s"),
        ("resumed", "nodes that were in flight", "nodes"),
        ("twice", "nodes that ran twice", "nodes"),
        ("lost", f"of {EXECUTIONS * STEPS} results not recorded, or recorded twice", "results"),
    ):
        print(row(what, [each[key] for each in found], unit))


if __name__ == "__main__":
    main()
