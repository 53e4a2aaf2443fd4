"""Agents of four turns, all at once, against a scripted endpoint that takes 50 ms for a reply.

The endpoint is a real HTTP server in a process of its own, which is not metered.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.meter import Meter
from benchmarks.process_tree import stat
from benchmarks.run import Run, milliseconds, start
from benchmarks.workloads import LIMIT
from perdure.testing import Model, Reply

TURNS = 4
DELAY = 0.05
_AGENT = {"model": "scripted", "endpoint": "scripted", "instructions": "Look it up.", "tools": ["look"]}


async def agents(run: Run) -> None:
    """Measure runs of three calls and an answer each; `ideal_ms` is what the endpoint alone takes for one."""
    with endpoint() as (process, url):
        definition = run.definition(
            "agents",
            {"answer": {"agent": "helper", "with": {"message": "What is it?"}}},
            agents={"helper": _AGENT},
            endpoints={"scripted": {"base_url": url}},
        )
        async with run.client() as client:

            async def one() -> float:
                began = time.perf_counter()
                if await (await start(client, definition)).result(LIMIT) != {"answer": "It is 3."}:
                    raise AssertionError("an agent did not come to its answer")
                return time.perf_counter() - began

            await one()  # warm
            before = stat(process.pid).cpu
            with Meter(apart=[process.pid]) as meter:
                took = await asyncio.gather(*(one() for _ in range(run.n)))
            run.figures["endpoint_cpu_s"] = stat(process.pid).cpu - before
        asked, _ = process.communicate("", timeout=10)
    if int(asked) != TURNS * (run.n + 1):
        raise AssertionError(f"{run.n + 1} runs of {TURNS} turns asked {int(asked)} times")
    run.figures.update(milliseconds(took), ideal_ms=TURNS * DELAY * 1000, **meter.figures(run.n))


@contextmanager
def endpoint() -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run the scripted endpoint; yield its process and URL. It says how often it was asked when stdin ends."""
    command = [sys.executable, "-m", "benchmarks.agents"]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def main() -> None:
    calls = [Reply(turn=turn, calls=[{"look": {"x": turn}}], delay=DELAY) for turn in range(TURNS - 1)]
    with Model([*calls, Reply(f"It is {TURNS - 1}.", turn=TURNS - 1, delay=DELAY)]) as model:
        print(model.base_url, flush=True)
        sys.stdin.read()
        print(len(model.requests), flush=True)


if __name__ == "__main__":
    main()
