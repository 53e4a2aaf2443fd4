"""Shares, priorities, rates and quotas over three processes, while those that decide and hold are killed."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hosts_lab import Lab, until
from test_limits_killed import HOST

from perdure import ExecutionFailed, ExecutionStopped
from perdure.cluster.connection import Connection
from perdure.cluster.limit_log import LimitLogs
from perdure.cluster.nats_server import NatsServer
from perdure.cluster.queue_report import limit_report
from perdure.cluster.run import AsyncRun

TOOLS = """\
import asyncio, os
from pathlib import Path

async def work(who: str, at: int, of: int, folder: str) -> int:
    with Path(folder, "begun").open("a") as begun:
        begun.write(f"{who} {at} {of} {os.getpid()}\\n")
    while not Path(folder, f"{who}-{at}-{of}").exists():
        await asyncio.sleep(0.005)
    return of
"""


class Processes:
    """Three processes, each of which serves a lane of its own; they share nothing but the server."""

    def __init__(self, server: NatsServer, connection: Connection, store: Path, folder: Path) -> None:
        self.connection, self.folder, self.name = connection, folder, f"shared{uuid4().hex[:10]}"
        self.labs = [Lab(server, connection) for _ in range(3)]
        (folder / "host.py").write_text(HOST)
        (folder / "shared_tools.py").write_text(TOOLS)
        (folder / "begun").touch()
        command = [sys.executable, str(folder / "host.py")]
        end = [server.url, str(store / "token")]
        self.processes = [
            subprocess.Popen([*command, lab.lane, *end], stdout=subprocess.PIPE, text=True) for lab in self.labs
        ]

    async def serve(self) -> None:
        for process in self.processes:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == "serves\n"

    async def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        for lab in self.labs:
            await lab.forget()

    def kill(self, number: int) -> None:
        os.kill(self.processes[number].pid, signal.SIGKILL)
        self.processes[number].wait()

    async def start(
        self, number: int, who: str, calls: int, limit: dict[str, Any], *, priority: int = 5, **parts: Any
    ) -> AsyncRun:
        """Start an execution with so many calls, for a tenant, in one of the processes; parts: of its workflow."""
        with_ = {"who": who, "of": "${{ of }}", "at": number, "folder": str(self.folder)}
        call = {"tool": f"{self.folder / 'shared_tools.py'}:work", "with": with_, "limit": self.name}
        workflow = {
            "name": self.name,
            "limits": {self.name: limit},
            "nodes": {"a": {"foreach": {"items": f"range({calls})", "as": "of", "max_parallel": calls}, **call}},
            **parts,
        }
        return await self.labs[number].start(
            f"{self.name}-{who}-{number}", workflow, {"tenant": who}, priority=priority
        )

    def begun(self) -> list[str]:
        """Return who began, in order: the tenant, the number of its lane and of its call, and the process."""
        return (self.folder / "begun").read_text().splitlines()

    async def begins(self, count: int) -> str:
        """Return the call that was the so-manieth to begin."""

        async def has() -> bool:
            return len(self.begun()) >= count

        await until(has)
        return self.begun()[count - 1]

    async def begins_as(self, who: str) -> None:
        """Return when a call of a tenant has begun in a lane."""

        async def has() -> bool:
            return any(line.startswith(f"{who} ") for line in self.begun())

        await until(has)

    def end(self, line: str) -> None:
        """Let a call end that has begun."""
        who, at, of, _ = line.split()
        (self.folder / f"{who}-{at}-{of}").touch()

    async def waits(self, count: int, group: str = "") -> None:
        """Return when so many wait for the limit on calls, or for another one, as whoever decides says."""

        async def do() -> bool:
            logs = LimitLogs(self.connection.nats, 5.0, 1)
            told = await limit_report(self.connection, logs, group or self.name)
            return bool(told["decided"]) and sum(key["waits"] for key in told["keys"]) >= count

        await until(do)


@pytest.fixture
async def processes(
    server: NatsServer, connection: Connection, store: Path, tmp_path: Path
) -> AsyncIterator[Processes]:
    found = Processes(server, connection, store, tmp_path)
    try:
        await found.serve()
        yield found
    finally:
        await found.close()


async def test_shares_and_priorities_hold_in_all_processes_though_whoever_decides_and_holds_is_killed(
    processes: Processes,
) -> None:
    limit = {"concurrency": 1, "share": "input.tenant"}
    await processes.start(0, "big", 100, limit)  # its process asks first: it decides, and holds
    assert (await processes.begins(1)).startswith("big 0 ")
    await processes.start(1, "big", 100, limit)
    small = await processes.start(1, "small", 2, limit, priority=4)
    urgent = await processes.start(2, "small", 2, limit, priority=8)
    await processes.waits(99 + 100 + 2 + 2)
    processes.kill(0)
    await processes.waits(100 + 2 + 2 - 1)  # who waited has asked the next one, which may have given it once
    granted = []
    for count in range(2, 10):
        line = await processes.begins(count)
        assert len(processes.begun()) == count  # never two at once
        granted.append(line.rsplit(" ", 2)[0])
        processes.end(line)
    assert granted.count("big 1") == 4
    assert [who for who in granted[1:] if who != "big 1"] == sorted(
        (each for each in granted[1:] if each != "big 1"), reverse=True
    )
    assert await small.result(10) == await urgent.result(10) == {"a": [0, 1]}


async def test_a_rate_and_a_quota_are_used_up_for_all_processes_though_whoever_decides_is_killed(
    processes: Processes,
) -> None:
    quota: dict[str, Any] = {"quota": {"active": 3}}
    limit = {"rate": 4, "per": "1h", "burst": 4}
    await processes.start(0, "a", 2, limit, **quota)
    await processes.begins(2)
    processes.kill(0)
    runs = [await processes.start(number, "b", 3, limit, **quota) for number in (1, 2)]
    await processes.begins(4)
    await processes.waits(4)
    assert len(processes.begun()) == 4
    beyond = await processes.start(2, "c", 1, limit, **quota)
    with pytest.raises(ExecutionFailed, match="QuotaExceeded"):
        await beyond.result(10)
    assert [await run.status() for run in runs] == ["running"] * 2


async def test_the_concurrency_of_workflows_holds_in_all_processes_though_whoever_decides_and_holds_is_killed(
    processes: Processes,
) -> None:
    def whole(at_limit: str) -> dict[str, Any]:
        return {"name": f"{processes.name}-{at_limit}", "concurrency": {"limit": 1, "at_limit": at_limit}}

    async def start(number: int, at_limit: str, priority: int = 5) -> AsyncRun:
        return await processes.start(number, at_limit, 1, {"concurrency": 9}, priority=priority, **whole(at_limit))

    queues, rejects, cancels = [await start(0, at_limit) for at_limit in ("queue", "reject", "cancel_older")]
    await processes.begins(3)  # one of each: their process asked first, so it decides about all three
    late = await start(1, "queue", priority=4)
    await processes.waits(1, f"workflow:{processes.name}-queue")
    processes.kill(0)
    urgent, too_late, newer = (
        await start(2, "queue", priority=8),
        await start(1, "reject"),
        await start(2, "cancel_older"),
    )
    with pytest.raises(ExecutionFailed, match="has no room, and rejects"):
        await too_late.result(10)
    await processes.waits(2, f"workflow:{processes.name}-queue")
    await processes.waits(1, f"workflow:{processes.name}-cancel_older")
    assert len(processes.begun()) == 3  # whoever was let in still is, though nobody serves it
    assert [await run.status() for run in (late, urgent, newer)] == ["queued"] * 3
    async with processes.labs[0].host(limit_lease=1.0):
        with pytest.raises(ExecutionStopped, match="cancels the older one"):
            await cancels.result(10)
        for line in processes.begun()[:3]:
            processes.end(line)
        assert await queues.result(10) == await rejects.result(10) == {"a": [0]}
        for run, who in ((newer, "cancel_older 2"), (urgent, "queue 2"), (late, "queue 1")):
            await processes.begins_as(who)
            assert (await late.status() == "queued") == (run is not late)  # never two at once
            processes.end(f"{who} 0 -")
            assert await run.result(10) == {"a": [0]}
