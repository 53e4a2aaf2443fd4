"""Limits when the process that decides about them, and holds them, is killed or stopped."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hosts_lab import Lab, until

from perdure.cluster.connection import Connection
from perdure.cluster.nats_server import NatsServer
from perdure.cluster.run import AsyncRun
from perdure.events.vocabulary import NodeResumed

HOST = """\
import asyncio, sys
from pathlib import Path
from perdure.actors.work import call_in_thread
from perdure.cluster.inbox import Lanes
from perdure.cluster.settings import Settings
from perdure.cluster.wiring import Opener, connect_to

lane, url, token = sys.argv[1:]

async def main():
    settings = Settings(nats_url=url, nats_token_file=Path(token), limit_lease=1.0)
    serving = await Opener(await connect_to(settings), settings, call_in_thread).open(lane, Lanes((lane,)))
    print("serves", flush=True)
    await serving.run()

asyncio.run(main())
"""

TOOLS = """\
import asyncio, os
from pathlib import Path

async def work(key: str, folder: str) -> int:
    with Path(folder, "begun").open("a") as begun:
        begun.write(f"{key} {os.getpid()}\\n")
    while not Path(folder, key).exists():
        await asyncio.sleep(0.01)
    return os.getpid()
"""


def workflow(folder: Path, name: str) -> dict[str, Any]:
    with_ = {"key": "${{ input.key }}", "folder": str(folder)}
    return {
        "name": "killed",
        "limits": {name: {"concurrency": 1}},
        "nodes": {"a": {"tool": f"{folder / 'killed_tools.py'}:work", "with": with_, "limit": name}},
    }


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_what_a_process_holds_and_decides_is_soon_others_when_it_is_killed_or_stopped(
    server: NatsServer, connection: Connection, store: Path, tmp_path: Path, how: signal.Signals
) -> None:
    (tmp_path / "host.py").write_text(HOST)
    (tmp_path / "killed_tools.py").write_text(TOOLS)
    theirs, ours = Lab(server, connection), Lab(server, connection)
    name, begun = f"limit{theirs.lane}", tmp_path / "begun"
    command = [sys.executable, str(tmp_path / "host.py"), theirs.lane, server.url, str(store / "token")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == "serves\n"
            first = await theirs.start(f"{name}-first", workflow(tmp_path, name), {"key": "first"})
            await until(lambda: _has(begun, f"first {process.pid}"))
            async with ours.host(limit_lease=1.0):
                second = await ours.start(f"{name}-second", workflow(tmp_path, name), {"key": "second"})
                assert await second.begun(within=10) is not None
                os.kill(process.pid, how)
                await until(lambda: _has(begun, f"second {os.getpid()}"))
                if how is signal.SIGSTOP:
                    os.kill(process.pid, signal.SIGCONT)
                    await until(lambda: _is_resumed(first))  # it finds that its lease has lapsed, and waits
                (tmp_path / "second").touch()
                assert await second.result(10) == {"a": os.getpid()}
                (tmp_path / "first").touch()
                if how is signal.SIGSTOP:
                    assert await first.result(10) == {"a": process.pid}
        finally:
            process.kill()
            for lab in (theirs, ours):  # what it leaves would be other tests'
                await lab.forget()
    lines = begun.read_text().splitlines()
    again = [f"first {process.pid}"] if how is signal.SIGSTOP else []
    assert lines == [f"first {process.pid}", f"second {os.getpid()}", *again]


async def _has(begun: Path, line: str) -> bool:
    return begun.exists() and line in begun.read_text()


async def _is_resumed(run: AsyncRun) -> bool:
    return any(isinstance(each.event, NodeResumed) for recorded in await run.history() for each in recorded.unpack())
