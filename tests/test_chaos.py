"""Chaos: parts of a real cluster are killed at random while drivers work on it, and an oracle judges every execution.

60 seconds; CHAOS_SECONDS=600 for the long one, CHAOS_SEED to choose what is killed and what is done.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import chaos_driver
import pytest
from chaos_oracle import Given, allowed, complaints
from test_nats_server import process_ids
from test_up import Up, parent_of

from perdure import PerdureError, Settings
from perdure.cluster.client import AsyncClient
from perdure.cluster.hosting import SUPERVISOR
from perdure.cluster.run import ENDED, AsyncRun
from perdure.cluster.status import _inbox, answer_of, host_states

SECONDS = float(os.environ.get("CHAOS_SECONDS", "60"))
SEED = os.environ.get("CHAOS_SEED") or str(random.SystemRandom().randrange(10**6))
PARTS = ["host", "node actor", "supervisor", "server", "driver", "standby"]
TOOLS = """\
import asyncio, time
from perdure import tool

@tool
def in_actor(key: str) -> str:
    time.sleep(0.1)
    return key

@tool
async def on_loop(key: str) -> str:
    await asyncio.sleep(0.05)
    return key
"""


def signal_given(answer: Any, began: float, ended: float, data: str) -> Given:
    return Given("signal", data, answer, began, ended, data)


def test_the_oracle_allows_what_commands_that_race_may_come_to_and_nothing_else() -> None:
    first, second = signal_given("decided", 0, 1, "a"), signal_given("decided", 2, 3, "b")
    assert allowed([first, second]) == {("succeeded", "a")}
    assert allowed([signal_given("unknown", 0, 1, "a"), second]) == {("succeeded", "a"), ("succeeded", "b")}
    assert allowed([signal_given("refused", 0, 1, "a"), second]) == {("succeeded", "b")}
    cancel = Given("cancel", "c", "decided", 0, 1)
    assert allowed([cancel, second]) == {("cancelled", None)}
    assert allowed([Given("cancel", "c", "stored", 0, 1), second]) == {("cancelled", None)}
    assert allowed([Given("cancel", "c", "unknown", 0, 1), second]) == {("cancelled", None), ("succeeded", "b")}
    racing = [first, Given("terminate", "t", "stored", 0, 1)]
    assert allowed(racing) == {("succeeded", "a"), ("terminated", None)}
    assert allowed([cancel, Given("terminate", "t", "decided", 0, 1)]) == {("terminated", None)}


class Chaos:
    """A cluster, a driver, and who kills them."""

    def __init__(self, up: Up, client: AsyncClient, notes: Path) -> None:
        self.killed: Counter[str] = Counter()
        self._up = up
        self._client = client
        self._notes = notes
        self._chance = random.Random(SEED)
        self._drivers = 0
        self._driver: subprocess.Popen[bytes] | None = None

    def drive(self) -> None:
        self._drivers += 1
        script = Path(chaos_driver.__file__)
        words = [sys.executable, str(script), str(self._up.store), str(self._notes), f"{SEED}/{self._drivers}"]
        with (self._up.folder / "driver.log").open("ab") as log:
            self._driver = subprocess.Popen(words, stdout=log, stderr=log, env=self._up.environment)

    def end_driver(self) -> None:
        if self._driver is not None:
            self._driver.kill()
            self._driver.wait()

    async def kill_at_random(self) -> None:
        """Kill one part after the other, all of them equally often, until the time is over."""
        until, parts = time.monotonic() + SECONDS, list[str]()
        while time.monotonic() < until:
            parts = parts or self._chance.sample(PARTS, len(PARTS))
            await asyncio.sleep(self._chance.uniform(1, 4))
            if await self._kill(parts[-1]):
                self.killed[parts.pop()] += 1

    async def _kill(self, part: str) -> bool:
        """Kill a part; False where there is none at the moment."""
        if part == "driver":
            self.end_driver()
            self.drive()
            return True
        try:
            pids = await self._pids(part)
        except (PerdureError, OSError, ValueError):  # the server is away
            return False
        if pids:
            os.kill(self._chance.choice(pids), signal.SIGKILL)
        return bool(pids)

    async def _pids(self, part: str) -> list[int]:
        if part == "server":
            return [int(json.loads((self._up.store / "server.json").read_text())["pid"])]
        connection = self._client._connection
        supervisor = await answer_of(connection.nats, SUPERVISOR) or {}
        if part == "supervisor" or "pid" not in supervisor:
            return [supervisor["pid"]] if "pid" in supervisor else []
        serving = [host["pid"] for host in await host_states(connection) if "pid" in host]
        if part == "host":
            return serving
        name = b"ray::HostActor" if part == "standby" else b"ray::NodeProcess"
        return [pid for pid in actors(supervisor["pid"], name) if pid not in serving]


def actors(sibling: int, name: bytes) -> list[int]:
    """Return the processes of this Ray whose title holds this name: children of the raylet, as the sibling is."""
    found, raylet = [], parent_of(sibling)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if name in (folder / "cmdline").read_bytes() and parent_of(int(folder.name)) == raylet:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@contextmanager
def cluster(folder: Path) -> Iterator[Up]:
    up = Up(folder)
    (folder / "tools.py").write_text(TOOLS)
    retry = {"attempts": 20, "delay": "50ms", "jitter": False}
    work = {"tool": "in_actor", "with": {"key": "${{ input }}"}, "retry": retry}
    last = {"tool": "on_loop", "with": {"key": "${{ nodes.wait.output }}"}, "retry": retry, "needs": ["nap"]}
    wait = {"wait": {"signal": "go"}, "needs": ["work"]}
    nodes = {"work": work, "wait": wait, "nap": {"wait": "300ms", "needs": ["wait"]}, "last": last}
    definition = {"name": "chaos", "tools": [str(folder / "tools.py")], "nodes": nodes}
    (folder / "workflow.json").write_text(json.dumps(definition))
    up.perdure("up", "--hosts", "2", "--detach")
    try:
        yield up
    finally:
        up.perdure("down")
    assert process_ids(up.store) == []


async def finished(
    client: AsyncClient, workflow: Any, notes: chaos_driver.Notes, execution: str, window: asyncio.Semaphore
) -> AsyncRun:
    """Bring an execution to an end that may not have begun, or that its commands left waiting."""
    async with window:
        run = await client.start(workflow, execution, id=execution)
        assert await run.begun(within=60) is not None
        if await run.status() not in ENDED:
            await chaos_driver.give(notes, run, "resume")
            await chaos_driver.give(notes, run, "signal")
        async with asyncio.timeout(120):
            while await run.status() not in ENDED:
                await asyncio.sleep(0.1)
        return run


@pytest.mark.timeout(SECONDS + 300)
async def test_whatever_is_killed_every_execution_ends_as_its_commands_allow(tmp_path: Path) -> None:
    print(f"CHAOS_SEED={SEED}")  # noqa: T201
    with cluster(tmp_path) as up:
        async with await AsyncClient.open(Settings(store=up.store), "none") as client:
            notes = chaos_driver.Notes(tmp_path / "notes")
            chaos = Chaos(up, client, notes.path)
            try:
                chaos.drive()
                await chaos.kill_at_random()
            finally:
                chaos.end_driver()
            workflow = json.loads((tmp_path / "workflow.json").read_text())
            executions = chaos_driver.read(notes.path)
            window = asyncio.Semaphore(64)
            runs = await asyncio.gather(*(finished(client, workflow, notes, each, window) for each in executions))
            async with asyncio.timeout(60):
                await empty(client)
            given = chaos_driver.read(notes.path)
            found = {run.id: complaints(given[run.id], await run.history()) for run in runs}
            ends = Counter([await run.status() for run in runs])
    print(f"killed {dict(chaos.killed)}; {len(runs)} executions {dict(ends)}, {answers(given)}")  # noqa: T201
    assert {execution: said for execution, said in found.items() if said} == {}
    assert set(chaos.killed) == set(PARTS)
    assert set(ends) == {"succeeded", "cancelled", "terminated"}


async def empty(client: AsyncClient) -> None:
    """Return when no start, no command and no timer is left in the inbox."""
    while any((await _inbox(client._connection)).values()):
        await asyncio.sleep(0.1)


def answers(given: dict[str, list[Given]]) -> dict[str, int]:
    return dict(Counter(f"{each.kind} {each.answer}" for history in given.values() for each in history))
