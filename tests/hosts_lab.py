"""Hosts on a lane of their own, each with its own connection, for tests of who does what with which command."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from perdure.actors.inputs import Command, StartExecution
from perdure.actors.work import call_in_thread
from perdure.cluster.connection import Connection, open_connection
from perdure.cluster.inbox import STREAM, Lanes
from perdure.cluster.nats_server import NatsServer
from perdure.cluster.ownership import Ownership
from perdure.cluster.run import AsyncRun
from perdure.cluster.serving import Serving
from perdure.cluster.settings import Settings
from perdure.cluster.tasks import stop
from perdure.cluster.wiring import Opener
from perdure.definitions.calls import tools_called
from perdure.definitions.loading import load
from perdure.errors import Deposed

GATES: dict[str, asyncio.Event] = {}
RAN: Counter[str] = Counter()
NOW_AT_ONCE: Counter[str] = Counter()
MOST_AT_ONCE: Counter[str] = Counter()


async def hold(key: str) -> str:
    """Run until the gate of this key is opened."""
    RAN[key] += 1
    await GATES.setdefault(key, asyncio.Event()).wait()
    return key


async def counted(key: str, of: str) -> str:
    """Run until its gate is opened, and know how many do at once."""
    NOW_AT_ONCE[of] += 1
    MOST_AT_ONCE[of] = max(MOST_AT_ONCE[of], NOW_AT_ONCE[of])
    try:
        return await hold(key)
    finally:
        NOW_AT_ONCE[of] -= 1


def open_gate(key: str) -> None:
    """Let what holds at a gate go on."""
    GATES.setdefault(key, asyncio.Event()).set()


HOLD: dict[str, Any] = {"name": "hold", "nodes": {"a": {"tool": "hosts_lab:hold", "with": {"key": "${{ input }}"}}}}
SET: dict[str, Any] = {"name": "set", "nodes": {"a": {"set": 1}}}
WAIT: dict[str, Any] = {"name": "wait", "nodes": {"a": {"wait": {"signal": "go"}}}}


class Lab:
    """One lane, and who serves it."""

    def __init__(self, server: NatsServer, connection: Connection) -> None:
        self.server = server
        self.connection = connection
        self.lane = f"lab{uuid4().hex[:12]}"
        self.openers: list[Opener] = []

    @asynccontextmanager
    async def host(
        self, name: str = "", url: str = "", lanes: tuple[str, ...] = (), **settings: Any
    ) -> AsyncIterator["Serving"]:
        """Serve the lane; at the end the host is lost as when its process is killed: nothing is given up."""
        connection = await open_connection(url or self.server.url, self.server.token)
        opener = Opener(connection, Settings(nats_url=self.server.url, **settings), call_in_thread)
        self.openers.append(opener)
        serving = await opener.open(name or self.lane, Lanes(lanes or (self.lane,)))
        running = asyncio.create_task(_served(serving))
        try:
            yield serving
        finally:
            await connection.close()  # first: so that nothing more is said to the server
            await stop(running)

    async def start(
        self, execution: str, workflow: dict[str, Any], value: Any = None, lane: str = "", priority: int = 5
    ) -> AsyncRun:
        """Queue a start on the lane."""
        definition = load(workflow)
        digest = definition.plan.digest
        await self.connection.registry.put_definition(digest, definition.workflow)
        tools = {name: name for name in tools_called(definition.workflow)}
        command = StartExecution(
            uuid4().hex, execution, definition.plan.name, digest, value, lane or self.lane, tools, priority
        )
        await self.connection.inbox.start(command)
        return AsyncRun(execution, self.connection)

    async def forget(self) -> None:
        """Remove what is left on the lane."""
        await Ownership(self.connection.nats, self.connection.registry, self.lane).move(Lanes((self.lane,)))
        for subject in (f"perdure.cmd.{self.lane}.*", f"perdure.start.*.{self.lane}.*"):
            await self.connection.nats.jetstream().purge_stream(STREAM, subject=subject)

    async def send(self, command: Command) -> None:
        """Queue a command on the lane."""
        await self.connection.inbox.send(command, self.lane)

    async def waiting(self) -> int:
        """Return how many commands nobody has acknowledged."""
        js = self.connection.nats.jetstream()
        found = [
            await js.stream_info(STREAM, subjects_filter=subjects)
            for subjects in (*Lanes((self.lane,)).starts, *Lanes((self.lane,)).commands)
        ]
        return sum(sum((info.state.subjects or {}).values()) for info in found)


async def _served(serving: Serving) -> None:
    with contextlib.suppress(Deposed):
        await serving.run()


async def begun(run: AsyncRun) -> None:
    """Return when the execution has begun."""
    assert await run.begun(within=20) is not None


async def until(what: Any) -> None:
    """Return when what is asked for, again and again, has come about."""
    async with asyncio.timeout(20):
        while not await what():
            await asyncio.sleep(0.005)
