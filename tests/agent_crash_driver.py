"""Runs an agent again and again, each time killed by SIGKILL at another point, and then to its end from its log.

`python agent_crash_driver.py URL TOKEN MODEL FOLDER`; prints one line of JSON for each point. All that is slow to
load is loaded once: every run is a fork of this process.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from perdure import tool
from perdure.actors.execution import Execution
from perdure.actors.inputs import StartExecution
from perdure.actors.memories import records_of
from perdure.actors.models import Endpoint, Models
from perdure.actors.surroundings import Surroundings
from perdure.actors.tools import locate
from perdure.actors.work import Work, call_in_thread, worker
from perdure.cluster.connection import Connection, open_connection
from perdure.definitions.loading import load
from perdure.definitions.plan import Plan
from perdure.events.entry import Entry, Recorded
from perdure.events.sessions import JetStreamSessions
from perdure.events.vocabulary import ExecutionSucceeded, NodeSucceeded

URL, TOKEN, MODEL, FOLDER = sys.argv[1:5]

DEFINITION = {
    "name": "crashes",
    "agents": {
        "helper": {
            "model": "m", "instructions": "Help.", "tools": [{"tool": "agent_crash_driver:look"}],
            "output": {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}},
        },
        "judge": {
            "model": "m", "instructions": "Judge.",
            "output": {"type": "object", "required": ["good"], "properties": {"good": {"type": "boolean"}}},
        },
    },
    "nodes": {
        "n": {"agent": "helper", "session": "${{ execution.id }}", "with": {"message": "for ${{ execution.id }}."}},
        "judged": {"agent": "judge", "needs": "n", "with": {"message": "for ${{ execution.id }}."}},
    },
    "output": {"n": "${{ nodes.n.output }}", "judged": "${{ nodes.judged.output }}"},
}  # fmt: skip


@tool
async def look(x: int) -> int:
    with (Path(FOLDER) / "effects").open("a") as file:
        file.write(f"{os.environ['CRASH_EXECUTION']} {x}\n")
    return x + 1


class Points:
    """The points at which a run may die, counted as it comes to them; it dies at the one that is wanted."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.seen: list[str] = []

    def at(self, what: str) -> None:
        if len(self.seen) == self.wanted:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen.append(what)


class DyingLog:
    """A log that may be cut off before and after every append."""

    def __init__(self, log: Any, points: Points) -> None:
        self._log, self._points = log, points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(self, execution: str, entry: Entry, position: int) -> Recorded:
        self._points.at(f"before entry {entry.n}")
        recorded: Recorded = await self._log.append(execution, entry, position)
        self._points.at(f"after entry {entry.n}")
        return recorded


def dying(work: Callable[[Work], Awaitable[Any]], points: Points) -> Callable[[Work], Awaitable[Any]]:
    async def do(given: Work) -> Any:
        points.at(f"before {given.path}")
        result = await work(given)
        points.at(f"after {given.path}")
        return result

    return do


class NoTimers:
    async def arm(self, *_: Any) -> None:
        raise AssertionError("an agent without time limits arms no timer")

    async def disarm(self, *_: Any) -> None:
        """Have none."""


async def run(execution: str, wanted: int) -> dict[str, Any]:
    """Run to the end, or up to the point where it dies; return the points it came to, and what was recorded before."""
    points, plan = Points(wanted), load(DEFINITION).plan
    connection = await open_connection(URL, TOKEN)
    recorded = [each.node for each in await events(connection, execution) if isinstance(each, NodeSucceeded)]
    sessions = JetStreamSessions(connection.nats)
    models = Models(Endpoint(MODEL), sessions=sessions)

    async def plan_for(_digest: str) -> Plan:
        return plan

    around = Surroundings(
        DyingLog(connection.log, points), plan_for, dying(worker(models, call_in_thread), points), NoTimers()
    )  # fmt: skip
    places = locate(["agent_crash_driver:look"], [], None, shared=False)
    await Execution(execution, around).run(
        StartExecution("start", execution, plan.name, plan.digest, None, "0", places)
    )
    end = (await events(connection, execution))[-1]
    output = end.output if isinstance(end, ExecutionSucceeded) else str(end)
    remembered = len(await records_of(sessions, execution))
    return {
        "execution": execution, "points": points.seen, "recorded": recorded, "output": output, "remembered": remembered,
    }  # fmt: skip


async def events(connection: Connection, execution: str) -> list[Any]:
    return [item.event async for each in connection.log.read(execution) for item in each.unpack()]


def forked(execution: str, wanted: int) -> int:
    """Run in a fork, which prints what it did; return the signal that ended it."""
    child = os.fork()
    if not child:
        os.environ["CRASH_EXECUTION"] = execution
        sys.stdout.write(json.dumps(asyncio.run(run(execution, wanted))) + "\n")
        sys.stdout.flush()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or not status, status
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


if __name__ == "__main__":
    sys.modules["agent_crash_driver"] = sys.modules["__main__"]
    os.environ["CRASH_EXECUTION"] = "warm"
    asyncio.run(run("warm", -1))  # loads what is loaded late, before the forks
    number = 0
    while forked(f"crash-{number:03}", number) == signal.SIGKILL:
        forked(f"crash-{number:03}", -1)
        number += 1
