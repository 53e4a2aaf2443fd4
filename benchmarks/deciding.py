"""What one node costs beside its work and the disk: CPU time to decide, record in memory, reconcile and dispatch."""

import argparse
import asyncio
import time
from datetime import datetime

from benchmarks.measuring import row
from perdure.actors.execution import Execution
from perdure.actors.inputs import StartExecution
from perdure.actors.surroundings import Surroundings
from perdure.actors.work import Work
from perdure.definitions.loading import load
from perdure.definitions.plan import Plan
from perdure.events.memory_log import MemoryLog

TOOL = "os:getcwd"
NODES = 400


class NoTimers:
    """An inbox for an execution that arms nothing."""

    async def arm(self, execution: str, lane: str, timer: str, due: datetime) -> None:
        """Arm nothing."""

    async def disarm(self, execution: str, timer: str) -> None:
        """Disarm nothing."""


async def work(_work: Work) -> int:
    return 1


async def once(plan: Plan) -> float:
    """Run an execution whose nodes are all ready at once, and return microseconds of CPU time for each."""

    async def planned(_digest: str) -> Plan:
        return plan

    execution = Execution("x", Surroundings(MemoryLog(), planned, work, NoTimers()))
    began = time.process_time()
    await execution.run(StartExecution("s", "x", plan.name, plan.digest, None, "0", {TOOL: TOOL}))
    return (time.process_time() - began) / NODES * 1e6


async def fastest(plan: Plan, tries: int) -> float:
    """Return the least of many tries: what else runs here only ever adds to it."""
    return min([await once(plan) for _ in range(tries)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    plan = load({"name": "many", "nodes": {f"n{number}": {"tool": TOOL} for number in range(NODES)}}).plan
    values = [asyncio.run(fastest(plan, 40)) for _ in range(arguments.repeat)]
    print(row(f"one of {NODES} nodes that are ready at once", values, "us"))


if __name__ == "__main__":
    main()
