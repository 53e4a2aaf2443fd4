"""A schedule fires every second while its hosts are killed in turn, and its server too: each second starts once."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

from hosts_lab import SET, until
from nats_process import NatsProcess

from perdure.cluster.client import AsyncClient
from perdure.cluster.run import AsyncRun
from perdure.cluster.schedules import Schedules
from perdure.cluster.settings import Settings
from perdure.errors import LogUnavailable
from perdure.events.schedules import FireStarted
from perdure.events.vocabulary import ExecutionStarted

LANE, KILLS = "lab", 4
HOST = """\
import asyncio, sys
from perdure.actors.work import call_in_thread
from perdure.cluster.inbox import Lanes
from perdure.cluster.settings import Settings
from perdure.cluster.wiring import Opener, _reopened, connect_to, keep_serving

async def main():
    settings = Settings(nats_url=sys.argv[1])
    opener = Opener(await connect_to(settings), settings, call_in_thread)
    print("stands by", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    open_it = lambda: opener.open("lab", Lanes(("lab",)))
    await keep_serving(await _reopened(open_it), open_it)  # the server may be away

asyncio.run(main())
"""

Process = subprocess.Popen[str]


async def standing_by(file: Path, url: str) -> Process:
    """Start a process that serves the lane as soon as it is told."""
    process = subprocess.Popen(
        [sys.executable, str(file), url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert (await asyncio.to_thread(process.stdout.readline)).startswith("stands by")
    return process


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[Schedules, AsyncClient]]:
    settings = Settings(nats_url=url, user="ann")
    async with await AsyncClient.open(settings, "none") as client:
        yield Schedules(
            settings, client._connection, client.definition_of, client._ship, sees_secrets=False, lane=lambda _: LANE
        ), client  # fmt: skip


async def test_each_second_starts_once_whoever_is_killed_when(tmp_path: Path) -> None:
    server = NatsProcess(tmp_path / "nats").start()
    server.wait_until_it_listens()
    (tmp_path / "host.py").write_text(HOST)
    processes = [await standing_by(tmp_path / "host.py", server.url)]
    try:
        async with opened(server.url) as (schedules, client):
            go_on(processes[0])
            begun = await schedules.add("s", SET, cron="* * * * * *", overlap="allow")
            for kill in range(KILLS):
                processes.append(await standing_by(tmp_path / "host.py", server.url))
                await has_fired(client)
                os.kill(processes[-2].pid, signal.SIGKILL)
                go_on(processes[-1])
                if kill == 1:
                    server.kill()
                    server.start()
            await until(lambda: _has_started(schedules, 8))
            await until(lambda: _paused(schedules))
            await until(lambda: _all_ended(schedules))
            await check(client, begun.plan.at)  # type: ignore[union-attr]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
        server.kill()


async def has_fired(client: AsyncClient) -> None:
    """Return as soon as one more fire is recorded: its start may not be sent yet."""
    log = client._connection.log
    async for recorded in log.follow("schedule:s", await log.last("schedule:s")):
        if any(isinstance(each.event, FireStarted) for each in recorded.unpack()):
            return


def go_on(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


async def _has_started(schedules: Schedules, count: int) -> bool:
    try:
        return (await schedules.show("s")).started >= count
    except LogUnavailable:
        return False


async def _paused(schedules: Schedules) -> bool:
    try:
        return (await schedules.pause("s")).status == "paused"
    except LogUnavailable:
        return False


async def _all_ended(schedules: Schedules) -> bool:
    return not (await schedules.show("s")).running


async def check(client: AsyncClient, begun: datetime) -> None:
    """Every second from the first to the last has one fire, and each fire one execution that began once."""
    log = client._connection.log
    events = [each.event async for recorded in log.read("schedule:s") for each in recorded.unpack()]
    fires = [event for event in events if isinstance(event, FireStarted)]
    assert [each.at for each in fires] == [begun + timedelta(seconds=number + 1) for number in range(len(fires))]
    for each in fires:
        history = await AsyncRun(each.execution, client._connection).history()
        starts = [
            event for recorded in history for event in recorded.unpack() if isinstance(event.event, ExecutionStarted)
        ]
        assert len(starts) == 1
