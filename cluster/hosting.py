"""Hosting: sees to it that the lanes that a client needs are served, by others while they answer, else by its own."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from perdure.actors.work import CallElsewhere
from perdure.cluster.connection import Connection
from perdure.cluster.host import Host
from perdure.cluster.inbox import Lanes, LanesTaken, is_alive, is_solo, solo_lane
from perdure.cluster.settings import Settings
from perdure.cluster.tasks import stop
from perdure.cluster.wiring import keep_serving, open_host
from perdure.errors import LogUnavailable, PerdureError
from perdure.events.vocabulary import ExecutionStarted

WATCH_SECONDS = 1.0
_TRIES = 20
_log = logging.getLogger("perdure.host")

Start = Callable[[dict[str, Lanes]], Awaitable[None]]
"""Starts one host for each name and returns when they serve; raises LanesTaken when another was faster."""


class Hosting:
    """Keeps the lanes served: looks every second who answers, and starts hosts for those that nobody serves."""

    def __init__(self, connection: Connection, lanes: dict[str, Lanes], start: Start) -> None:
        self._connection = connection
        self._lanes = lanes
        self._start = start
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Return when every lane is served, by whomever."""
        await self._serve_missing()
        self._watching = asyncio.create_task(self._watch(), name="perdure-hosting")

    async def close(self) -> None:
        """Stop looking; the hosts that were started are their starter's to stop."""
        if self._watching is not None:
            await stop(self._watching)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self._serve_missing()
            except (PerdureError, OSError) as error:
                _log.warning("no host serves this store now: %s; looked again in %g s", error, WATCH_SECONDS)

    async def _serve_missing(self) -> None:
        for number in range(_TRIES):
            missing = {name: share for name, share in self._lanes.items() if not await self._answers(name)}
            if not missing:
                return None
            try:
                return await self._start(missing)
            except LanesTaken:
                await asyncio.sleep(0.05 * (number + 1))  # the faster one answers soon
        raise LogUnavailable("other hosts have the lanes and do not answer; have all clients the same PERDURE_HOSTS?")

    async def _answers(self, name: str) -> bool:
        return await is_alive(self._connection.nats, name)


class LocalHosts:
    """Hosts in this process, each in a task of its own."""

    def __init__(self, connection: Connection, call_elsewhere: CallElsewhere) -> None:
        self._connection = connection
        self._call = call_elsewhere
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def has_our_environment(self) -> bool:
        """Whether it has hosts, which then are in this process."""
        return bool(self._tasks)

    async def start(self, lanes: dict[str, Lanes], settings: Settings) -> None:
        """Start one host for each name; see Start. One of ours that only waits for its server is left to it."""
        for name, share in lanes.items():
            if name not in self._tasks or self._tasks[name].done():
                self._tasks[name] = asyncio.create_task(
                    await self._serving(name, share, settings), name=f"perdure-{name}"
                )

    async def close(self) -> None:
        """Stop the hosts."""
        await stop(*self._tasks.values())

    async def _serving(self, name: str, share: Lanes, settings: Settings) -> Coroutine[Any, Any, None]:
        async def reopen() -> Host:
            return await open_host(name, share, self._connection, settings, self._call)

        return keep_serving(await reopen(), reopen)


async def lanes_for(connection: Connection, settings: Settings, drive: str | None) -> dict[str, Lanes]:
    """Return the lanes that a client needs served, by host: all partitions, or those of the one execution it drives."""
    if drive is None:
        count = settings.hosts or max(1, (os.cpu_count() or 1) // 2)
        return {f"host{number}": Lanes.of_partitions(number, count) for number in range(count)}
    lane = await recorded_lane(connection, drive) or solo_lane(drive)
    if is_solo(lane):
        return {lane: Lanes.of_solo(lane)}
    if await is_alive(connection.nats, "host0"):
        return {}  # the cluster that it belongs to drives it
    return {solo_lane(drive): Lanes.of_execution(drive, lane)}


async def recorded_lane(connection: Connection, execution: str) -> str | None:
    """Return the lane that an execution's start recorded; None where there is none yet."""
    first = [recorded async for recorded in connection.log.read(execution, limit=1)]
    events = [event for recorded in first for event in recorded.entry.events]
    return next((event.lane for event in events if isinstance(event, ExecutionStarted)), None)


async def is_driven(connection: Connection, execution: str) -> bool:
    """Say whether a host that answers serves this execution."""
    lane = await recorded_lane(connection, execution)
    if lane is not None and is_solo(lane):
        return await is_alive(connection.nats, lane)
    return await is_alive(connection.nats, solo_lane(execution)) or await is_alive(connection.nats, "host0")
