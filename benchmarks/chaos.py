"""Kills processes of a cluster while a driver starts, pauses, signals and cancels: `python chaos.py STORE SECONDS`.

Every execution must end as its commands allow: succeeded, or cancelled where it was told so; no result twice.
"""

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import perdure
from perdure import AsyncRun, ExecutionStopped, Settings
from perdure.actors.inputs import CancelExecution, Command, PauseExecution, ResumeExecution, SignalExecution
from perdure.cluster.client import AsyncClient
from perdure.cluster.hosting import SUPERVISOR
from perdure.cluster.inbox import lane_of
from perdure.cluster.status import answer_of, host_states, status
from perdure.events.vocabulary import NodeSucceeded

TOOLS = """\
import asyncio
from perdure import tool

@tool
async def nap() -> None:
    await asyncio.sleep(0.05)
"""


def workflow(folder: Path) -> dict[str, Any]:
    (folder / "tools.py").write_text(TOOLS)
    nodes = {
        "a": {"tool": "nap"},
        "b": {"tool": "nap", "needs": "a"},
        "signal": {"wait": {"signal": "go"}, "needs": "b"},
        "pause": {"wait": "1s", "needs": "signal"},
        "c": {"tool": "nap", "needs": "pause"},
    }
    return {"name": "chaos", "tools": [str(folder / "tools.py")], "nodes": nodes}


class Chaos:
    """What was started and told, and what was killed."""

    def __init__(self, client: AsyncClient, store: Path, workflow: dict[str, Any], seconds: float) -> None:
        self.client = client
        self.store = store
        self.workflow = workflow
        self.end = time.monotonic() + seconds
        self.runs: list[AsyncRun] = []
        self.told: list[asyncio.Task[None]] = []
        self.cancelled: set[str] = set()
        self.kills: Counter[str] = Counter()

    async def drive(self) -> None:
        while time.monotonic() < self.end:
            execution = uuid4().hex
            self.runs.append(await again(partial(self.client.start, self.workflow, id=execution, confirm=False)))
            self.told.append(asyncio.create_task(self.tell(execution)))
            await asyncio.sleep(random.uniform(0.005, 0.05))
        await asyncio.gather(*self.told)

    async def tell(self, execution: str) -> None:
        """Give an execution commands that may meet it before it begins, at work, waiting or ended."""
        await asyncio.sleep(random.uniform(0, 3))
        what = random.random()
        if what < 0.15:
            self.cancelled.add(execution)
            await self.send(CancelExecution(f"{execution}/cancel", execution))
        elif what < 0.3:
            await self.send(PauseExecution(f"{execution}/pause", execution))
            await asyncio.sleep(0.3)
            await self.send(ResumeExecution(f"{execution}/resume", execution))
        for _ in range(random.choice([1, 1, 2])):  # a driver that is not sure says it again, under the same id
            await self.send(SignalExecution(f"{execution}/go", execution, "go"))

    async def send(self, command: Command) -> None:
        await again(partial(self.client._connection.inbox.send, command, lane_of(command.execution)))

    async def kill(self) -> None:
        while time.monotonic() < self.end:
            await asyncio.sleep(random.uniform(0.5, 4))
            what = random.choice(["host", "host", "supervisor", "server"])
            pids = await again(partial(self.pids, what))
            if pids:
                os.kill(random.choice(pids), signal.SIGKILL)
                self.kills[what] += 1

    async def pids(self, what: str) -> list[int]:
        if what == "server":
            return [json.loads((self.store / "server.json").read_text())["pid"]]
        connection = self.client._connection
        if what == "host":
            return [host["pid"] for host in await host_states(connection) if "pid" in host]
        told = await answer_of(connection.nats, SUPERVISOR)
        return [told["pid"]] if told else []

    async def judge(self) -> None:
        outcomes: Counter[str] = Counter()
        for run in self.runs:
            try:
                await run.result(60)
                outcomes["succeeded"] += 1
            except ExecutionStopped as error:
                outcomes[error.status if run.id in self.cancelled else f"{error.status}, and nobody said so"] += 1
            recorded = Counter(
                happened.event.node
                for entry in await run.history()
                for happened in entry.unpack()
                if isinstance(happened.event, NodeSucceeded)
            )
            assert set(recorded.values()) <= {1}, f"{run.id}: a result was recorded twice: {recorded}"
        assert set(outcomes) <= {"succeeded", "cancelled"}, outcomes
        print(f"{sum(self.kills.values())} kills {dict(self.kills)}; {len(self.runs)} executions: {dict(outcomes)}")


async def again(work: Callable[[], Awaitable[Any]]) -> Any:
    """Try until the server is back."""
    while True:
        try:
            return await work()
        except (perdure.PerdureError, OSError):
            await asyncio.sleep(0.2)


async def main(store: Path, seconds: float, folder: Path) -> None:
    async with await perdure.connect_async(Settings(store=store)) as client:
        chaos = Chaos(client, store, workflow(folder), seconds)
        await asyncio.gather(chaos.drive(), chaos.kill())
        began = time.monotonic()
        await chaos.judge()
        print(f"all had ended {time.monotonic() - began:.1f} s later")
        await asyncio.sleep(8)  # longer than executions are kept at hand
        print(json.dumps((await status(client._connection, store / "projections.sqlite"))["inbox"]))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]), Path(name)))
