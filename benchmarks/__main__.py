"""perdure's side of the comparison with its peers: each run is a process, a store and a server of its own.

Both modes are measured where --mode does not say; chain, fanout and throughput also with `run_on: actor` where --run-on
does not say. Steps are `async def` no-ops with a recorded result; every figure is with fsync always, and one host.
In Ray mode `perdure up` serves the store, and the driver is its client; in local mode the host is in the driver's
process. Wall time is less worth on a machine that does something else too: see `load`.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.process_tree import adopt_orphans, end_all_below
from benchmarks.table import table

WORKLOADS = {
    "start": (200, "latency of a workflow of one step, warm and cold"),
    "chain": (100, "sequential steps of one execution"),
    "fanout": (200, "parallel steps of one execution, and a join"),
    "throughput": (1000, "executions of five steps, all at once"),
    "waiting": (2000, "executions that wait for a signal: memory of each, then all are signalled"),
    "crash": (200, "executions of five steps of 50 ms, and SIGKILL half-way"),
    "history": (10_000, "steps of one execution: written, read, folded, gone on with"),
    "montage": (2000, "tasks of a DAG of Montage's shape"),
    "agents": (100, "agents of four turns at once, whose endpoint takes 50 ms for a reply"),
}
IN_ACTORS = ("chain", "fanout", "throughput")
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Job:
    """What one process measures."""

    workload: str
    mode: str
    run_on: str
    n: int

    def __str__(self) -> str:
        return f"{self.workload}, {self.mode}, run_on {self.run_on}, n={self.n}"


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    listed = "\n".join(f"  {name:12}{n:>6,} {what}" for name, (n, what) in WORKLOADS.items())
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=f"{__doc__}\nworkloads (all where none is named):\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="what to measure, in this order")
    parser.add_argument("--mode", choices=["ray", "local"], help="only on perdure up, or only without Ray")
    parser.add_argument("--run-on", choices=["loop", "actor"], help="only on the host's loop, or only in node actors")
    parser.add_argument("--repeat", type=_positive, default=5, help="runs of each (5)")
    parser.add_argument("--n", type=_positive, help="another size than each workload's own")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each run, and no table")
    parser.add_argument("--limit", type=float, default=240, help="seconds that a run may take (240)")
    options = parser.parse_args(given)
    for name in options.workloads:
        if name not in WORKLOADS:
            parser.error(f"there is no workload {name!r}; choose from {', '.join(WORKLOADS)}")
        if options.run_on == "actor" and name not in IN_ACTORS:
            parser.error(f"{name!r} has no steps that run in node actors; --run-on actor is for {', '.join(IN_ACTORS)}")
    return options


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """Yield what is measured once in each repetition."""
    for workload in options.workloads or WORKLOADS:
        for mode in [options.mode] if options.mode else ["ray", "local"]:
            for run_on in [options.run_on] if options.run_on else ["loop", "actor"]:
                if run_on == "loop" or workload in IN_ACTORS:
                    yield Job(workload, mode, run_on, options.n or WORKLOADS[workload][0])


def measured(job: Job, label: str, limit: float) -> dict[str, Any] | None:
    """Run a job and return its row; None, and words on stderr, where it failed."""
    with tempfile.TemporaryDirectory(prefix="perdure-") as folder, tempfile.TemporaryFile("w+") as errors:
        command = [job.workload, job.mode, job.run_on, str(job.n), folder, label]
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.one_run", *command], cwd=ROOT, env=_environment(folder), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=limit)
            why = f"it ended with code {process.returncode}" if process.returncode else ""
        except subprocess.TimeoutExpired:
            output, why = "", f"it took longer than {limit:g} s"
        finally:
            end_all_below()  # whatever happened, and Ctrl-C too
        if why:
            errors.seek(0)
            last = "".join(errors.readlines()[-15:])
            print(f"FAILED {job}, {label}: {why}\n{last}", file=sys.stderr, flush=True)
            return None
        row: dict[str, Any] = json.loads(output.splitlines()[-1])
        return row


def _environment(folder: str) -> dict[str, str]:
    """Return an environment in which all settings have their defaults, and Ray leaves nothing behind."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PERDURE_", "OPENAI_", "RAY_"))}
    return {**ours, "RAY_TMPDIR": folder}


def main() -> int:
    options = arguments()
    if platform.system() != "Linux":
        print("benchmarks read /proc, which only Linux has", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as `timeout` ends it
    adopt_orphans()
    rows: list[dict[str, Any] | None] = []
    try:
        for number in range(1, options.repeat + 1):
            for job in jobs(options):
                rows.append(measured(job, f"rep{number}", options.limit))
                _say(rows[-1], job, number, as_json=options.json)
    except KeyboardInterrupt:
        end_all_below()  # a second Ctrl-C may have come before
        print("stopped; nothing is left running", file=sys.stderr)
        return 130
    found = [row for row in rows if row is not None]
    if found and not options.json:
        print(table(found))
    return 0 if len(found) == len(rows) else 1


def _say(row: dict[str, Any] | None, job: Job, number: int, *, as_json: bool) -> None:
    if row is not None and as_json:
        print(json.dumps(row), flush=True)
    elif row is not None:
        print(f"{job}: run {number} is done", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
