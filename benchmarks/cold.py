"""Cold starts: from a new process to the result of its first workflow of one step.

In Ray mode the new process is a client of the cluster that is up; in local mode it starts the server and a host too.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measuring import as_installed
from benchmarks.run import Run, start
from perdure.cluster.nats_server import is_running

_RUNS = 4


def cold(run: Run) -> float:
    """Return the median seconds of some cold starts, without the first, which may create what is kept."""
    return statistics.median([_once(run) for _ in range(_RUNS)][1:])


def _once(run: Run) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.cold", run.mode, str(run.folder)]
    with subprocess.Popen(command, env=as_installed(run.folder), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        took = time.perf_counter() - began
        process.kill()
    if first != b"FIRST\n":
        raise RuntimeError(f"the cold start ended with code {process.returncode}")
    while run.mode == "local" and is_running(run.settings):
        time.sleep(0.01)  # its server ends after it, which is no part of the next start
    return took


async def main() -> None:
    mode, folder = sys.argv[1:]
    run = Run("start", "ray" if mode == "ray" else "local", "loop", 1, Path(folder))
    async with run.client() as client:
        await (await start(client, run.chain(1))).result(60)
        print("FIRST", flush=True)
        sys.stdin.read()  # it is killed


if __name__ == "__main__":
    asyncio.run(main())
