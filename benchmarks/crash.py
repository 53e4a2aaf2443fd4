"""SIGKILL half-way through executions of five steps of 50 ms: what is lost, what runs twice, and how long it takes.

In Ray mode the host is killed, and the standby takes over by itself. In local mode the whole process is killed, its
server with it, and started again with the same ids.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import standing_by
from benchmarks.meter import Meter
from benchmarks.process_tree import is_gone
from benchmarks.run import Run, start
from perdure.cluster.client import AsyncClient
from perdure.cluster.status import host_states

STEPS = 5
_LIMIT = 200.0


def five(run: Run) -> Path:
    """Return the definition of five steps that note when they begin and what they did."""
    call = {"tool": "slow", "with": {"file": str(_notes(run))}}
    return run.definition("five", {f"n{i}": {**call, "needs": [f"n{i - 1}"] if i else []} for i in range(STEPS)})


def _notes(run: Run) -> Path:
    return run.folder / "effects"


def _noted(run: Run) -> tuple[Counter[str], Counter[str]]:
    """Return how often each step began, and how often it had its effect."""
    lines = _notes(run).read_text().split("\n")[:-1]
    return Counter(line for line in lines if line[0] == "s"), Counter(line for line in lines if line[0] == "e")


@dataclass
class Worker:
    """Who runs the executions. pid: the process to kill. again: has it all go on, and returns when all is done."""

    pid: int
    again: Callable[[], Awaitable[object]]


async def crash(run: Run) -> None:
    """Measure one crash, from the start of the executions to the end of all."""
    _notes(run).touch()
    workers = _ray_worker if run.mode == "ray" else _local_worker
    async with workers(run) as begin:
        with Meter() as meter:
            worker = await begin()
            while sum(_noted(run)[1].values()) < run.n * STEPS / 2:
                if is_gone(worker.pid):
                    raise RuntimeError("the worker ended before it was killed")
                await asyncio.sleep(0.01)
            run.figures["before_kill_s"] = time.perf_counter() - meter.began
            await _killed(worker.pid)
            at_kill, killed = _noted(run), time.perf_counter()
            progress = asyncio.create_task(_progress(run, sum(at_kill[0].values())))
            await worker.again()
            run.figures["recover_s"] = time.perf_counter() - killed
            run.figures["progress_s"] = await progress - killed
    began, effects = _noted(run)
    run.figures.update(
        **meter.figures(run.n * STEPS),
        done_at_kill=sum(at_kill[1].values()),
        lost=run.n * STEPS - len(effects),
        effects_twice=sum(count - 1 for count in effects.values()),
        began_twice=sum(count - 1 for count in began.values()),
    )


async def _killed(pid: int) -> None:
    """Kill a process, and return when it is gone."""
    os.kill(pid, signal.SIGKILL)
    while not is_gone(pid):  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(0.001)


async def _progress(run: Run, begun: int) -> float:
    """Return when the first step began since."""
    while sum(_noted(run)[0].values()) <= begun:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return time.perf_counter()


@asynccontextmanager
async def _ray_worker(run: Run) -> AsyncIterator[Callable[[], Awaitable[Worker]]]:
    """The host of the cluster that is up, which has a standby beside it."""
    async with run.client() as client:
        await standing_by(client)
        definition = five(run)
        await client.definition_of(definition)

        async def begin() -> Worker:
            pid = await host_pid(client)
            executions = await asyncio.gather(*(start(client, definition) for _ in range(run.n)))
            return Worker(pid, lambda: asyncio.gather(*(each.result(_LIMIT) for each in executions)))

        yield begin


@asynccontextmanager
async def _local_worker(run: Run) -> AsyncIterator[Callable[[], Awaitable[Worker]]]:
    """A process that has server, host and client in it, and is started again as it was."""
    processes: list[subprocess.Popen[bytes]] = []

    def spawn() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "benchmarks.crash", str(run.folder), str(run.n)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        return processes[-1]

    async def again() -> None:
        output, _ = await asyncio.to_thread(spawn().communicate)
        if output != b"DONE\n":
            raise RuntimeError(f"the process that was started again ended with code {processes[-1].returncode}")

    async def begin() -> Worker:
        return Worker(spawn().pid, again)

    yield begin
    for each in processes:
        each.wait()


async def host_pid(client: AsyncClient) -> int:
    """Return the process of the one host."""
    (host,) = await host_states(client._connection)
    return int(host["pid"])


async def main() -> None:
    """Start all executions under ids of their own, or attach to them, and wait for all."""
    run = Run("crash", "local", "loop", int(sys.argv[2]), Path(sys.argv[1]))
    definition = five(run)
    async with run.client() as client:
        executions = await asyncio.gather(*(client.start(definition, id=f"w{i}", confirm=False) for i in range(run.n)))
        await asyncio.gather(*(each.result(_LIMIT) for each in executions))
    print("DONE", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
