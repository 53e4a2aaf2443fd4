"""Where a host's time goes: py-spy on its process while a workload runs over and over, in Ray mode.

`python -m benchmarks.flames [WORKLOAD...]` writes docs/flames/WORKLOAD.svg, and prints what a step costs by subject.
"""

import argparse
import asyncio
import os
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.run import Run
from benchmarks.workloads import LIMIT
from perdure.cluster.client import AsyncClient
from perdure.cluster.status import host_states

STEPS = {"throughput": 5000, "chain": 100, "fanout": 200}
FLAMES = Path(__file__).parent.parent / "docs" / "flames"
RATE = 500  # samples in a second
# What a stack is about: the first of these that its innermost frames name.
SUBJECTS = {
    "encode an entry": ("encode (perdure/events/entry",),
    "decide, and fold what was decided": (
        "decide (perdure/actors/decisions", "perdure/actors/evolve", "perdure/actors/node_fold", "Folded.after",
    ),
    "append: gather, number, answer": ("perdure/events/group_writer", "perdure/events/jetstream_log"),
    "start, acknowledge: the inbox": ("perdure/cluster/starts", "perdure/cluster/consumer", "Host._acknowledge"),
    "dispatch a step, and take its result": (
        "Execution._work", "Execution._told", "Execution._progress", "perdure/actors/work", "perdure/actors/limited",
    ),
    "look what is to be begun or stopped": ("Execution._reconcile", "perdure/actors/alarms", "perdure/actors/outgoing"),
    "NATS: write, read, parse": ("nats/", "transports.py", "perdure/events/nats_connection", "streams.py"),
    "transact: the rest of it": ("perdure/actors/execution", "perdure/cluster/"),
}  # fmt: skip


async def repeat(client: AsyncClient, again: Callable[[], Awaitable[int]], seconds: float) -> tuple[int, float]:
    """Run a workload for so long; return how many steps were done in which time."""
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        steps += await again()
    return steps, time.perf_counter() - began


async def record(run: Run, seconds: float) -> tuple[Counter[str], float]:
    """Return samples by subject, and microseconds of the host's CPU for each step."""
    async with run.client() as client:
        definition = run.fan(200) if run.workload == "fanout" else run.chain(5 if run.workload == "throughput" else 100)

        async def again() -> int:
            count = 1000 if run.workload == "throughput" else 1
            executions = await client.start_many(definition, [None] * count)
            await asyncio.gather(*(each.result(LIMIT) for each in executions))
            return STEPS[run.workload]

        await repeat(client, again, 2)
        (host,) = await host_states(client._connection)
        steps, took = await repeat(client, again, seconds / 2)  # py-spy itself takes time: the cost is without it
        before = cpu(int(host["pid"]))
        steps, took = await repeat(client, again, seconds)
        each = (cpu(int(host["pid"])) - before) / steps * 1e6
        raw = run.folder / "samples"
        FLAMES.mkdir(exist_ok=True)
        for form, file in (("raw", raw), ("flamegraph", FLAMES / f"{run.workload}.svg")):
            spying = spy(int(host["pid"]), form, file, seconds)
            await repeat(client, again, seconds + 1)
            if spying.wait() != 0:
                raise SystemExit(f"py-spy failed: {spying.stderr.read() if spying.stderr else ''}")
        clean(FLAMES / f"{run.workload}.svg", run.workload)
        print(f"{run.workload}: {steps / took:,.0f} steps a second, {each:.0f} us of the host's CPU for each")
        return by_subject(raw.read_text()), each


def spy(pid: int, form: str, file: Path, seconds: float) -> "subprocess.Popen[str]":
    command = ["py-spy", "record", "-p", str(pid), "-f", form, "-o", str(file), "-d", f"{seconds:g}", "-r", str(RATE)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has taken."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def clean(svg: Path, title: str) -> None:
    """Take the command out of the title: it names a folder of the machine."""
    svg.write_text(re.sub(r"py-spy record[^<]*", f"perdure, host, {title}", svg.read_text()))


def by_subject(raw: str) -> Counter[str]:
    """Return how many samples of the host's loop are about which subject; those that wait for something are none."""
    found: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if "select (selectors" in frames[-1] or not any("_run_once" in frame for frame in frames):
            continue
        found[subject_of(frames)] += int(count)
    return found


def subject_of(frames: list[str]) -> str:
    for frame in reversed(frames):
        for subject, words in SUBJECTS.items():
            if any(word in frame for word in words):
                return subject
    return "asyncio: its loop"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", help="all where none is named")
    parser.add_argument("--seconds", type=float, default=8, help="of sampling, for each (8)")
    options = parser.parse_args()
    if unknown := set(options.workloads) - set(STEPS):
        parser.error(f"there is no {min(unknown)!r} here; choose from {', '.join(STEPS)}")
    for workload in options.workloads or STEPS:
        with tempfile.TemporaryDirectory() as folder:
            run = Run(workload, "ray", "loop", STEPS[workload], Path(folder))
            with run.up():
                found, each = asyncio.run(record(run, options.seconds))
        for subject, count in found.most_common():
            print(f"  {subject:40} {count / found.total():6.1%} {each * count / found.total():7.1f} us")


if __name__ == "__main__":
    main()
