"""Hosting: sees to it that the lanes that a client needs are served, by others while they answer, else by its own."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

from perdure.actors.work import CallElsewhere
from perdure.cluster.assignment import assign, assignment
from perdure.cluster.connection import Connection
from perdure.cluster.consumer import LanesTaken
from perdure.cluster.inbox import Lanes, is_solo, solo_lane
from perdure.cluster.ownership import is_alive
from perdure.cluster.settings import Settings
from perdure.cluster.tasks import stop
from perdure.cluster.watching import Watch
from perdure.errors import LogUnavailable, PerdureError
from perdure.events.vocabulary import ExecutionStarted

WATCH_SECONDS = 1.0
SUPERVISOR = "supervisor"
_TRIES = 20
_PATIENCE = 10  # looks in a row without a supervisor before a client of its cluster starts hosts itself
_log = logging.getLogger("perdure.host")

Start = Callable[[dict[str, Lanes | None]], Awaitable[None]]
"""Starts one host for each name and returns when they serve; raises LanesTaken when another was faster.

Lanes are those of an execution that is driven; None where the store says which lanes the host has.
"""


class Hosting:
    """Keeps hosts at work: looks every second who answers, and starts those that do not.

    needed: says which hosts there are to be. Where a supervisor answers, that is its business.
    """

    def __init__(
        self, connection: Connection, needed: Callable[[], Awaitable[dict[str, Lanes | None]]], start: Start
    ) -> None:
        self._connection = connection
        self._needed = needed
        self._start = start
        self._hosts = Watch(connection)
        self._watching: asyncio.Task[None] | None = None
        self._looks_without = _PATIENCE

    async def open(self) -> None:
        """Return when every host answers, whose ever it is."""
        await self._start_missing()
        self._watching = asyncio.create_task(self._watch(), name="perdure-hosting")

    async def close(self) -> None:
        """Stop looking; the hosts that were started are their starter's to stop."""
        if self._watching is not None:
            await stop(self._watching)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self._start_missing()
            except (PerdureError, OSError) as error:
                _log.warning("no host serves this store now: %s; looked again in %g s", error, WATCH_SECONDS)

    async def _start_missing(self) -> None:
        for number in range(_TRIES):
            missing = await self._missing()
            if not missing:
                return None
            try:
                return await self._start(missing)
            except LanesTaken:
                await asyncio.sleep(0.05 * (number + 1))  # the faster one answers soon
        raise LogUnavailable("other hosts are being opened again and again, and do not answer")

    async def _missing(self) -> dict[str, Lanes | None]:
        needed = await self._needed()
        missing = {name: needed[name] for name in await self._hosts.missing(list(needed))}
        if not all(lanes is None for lanes in missing.values()):
            return missing
        self._looks_without = 0 if await is_alive(self._connection.nats, SUPERVISOR) else self._looks_without + 1
        return missing if self._looks_without > _PATIENCE else {}


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

    async def start(self, hosts: dict[str, Lanes | None], settings: Settings) -> None:
        """Start one host for each name; see Start. One of ours that only waits for its server is left to it."""
        from perdure.cluster.wiring import Opener, keep_serving  # what a client of others' hosts need not load

        opener = Opener(self._connection, settings, self._call)
        for name, lanes in hosts.items():
            if name not in self._tasks or self._tasks[name].done():
                serving = await opener.open(name, lanes)
                self._tasks[name] = asyncio.create_task(
                    keep_serving(serving, lambda name=name, lanes=lanes: opener.open(name, lanes)),  # type: ignore[misc]
                    name=f"perdure-{name}",
                )

    async def close(self) -> None:
        """Stop the hosts."""
        await stop(*self._tasks.values())


async def needed_by(connection: Connection, settings: Settings, drive: str | None) -> dict[str, Lanes | None]:
    """Return the hosts that a client needs: those of the store, or the one of the execution that it drives."""
    if drive is None:
        return dict.fromkeys(await assign(connection.registry, default_hosts(settings), anew=False))
    lane = await recorded_lane(connection, drive) or solo_lane(drive)
    if is_solo(lane):
        return {lane: Lanes((lane,))}
    if await cluster_answers(connection):
        return {}  # the cluster that it belongs to drives it
    return {solo_lane(drive): Lanes.of_execution(drive, lane)}


def default_hosts(settings: Settings) -> int:
    """Return how many hosts the settings ask for: one for two CPUs where they say nothing."""
    return settings.hosts or max(1, (os.cpu_count() or 1) // 2)


async def recorded_lane(connection: Connection, execution: str) -> str | None:
    """Return the lane that an execution's start recorded; None where there is none yet."""
    first = [recorded async for recorded in connection.log.read(execution, limit=1)]
    events = [event for recorded in first for event in recorded.entry.events]
    return next((event.lane for event in events if isinstance(event, ExecutionStarted)), None)


async def cluster_answers(connection: Connection) -> bool:
    """Say whether a host of the store's partitions answers, or the supervisor that sees to them."""
    names = [SUPERVISOR, *await assignment(connection.registry)]
    return any(await asyncio.gather(*(is_alive(connection.nats, name) for name in names)))


async def is_driven(connection: Connection, execution: str) -> bool:
    """Say whether a host that answers serves this execution."""
    lane = await recorded_lane(connection, execution)
    if lane is not None and is_solo(lane):
        return await is_alive(connection.nats, lane)
    return await is_alive(connection.nats, solo_lane(execution)) or await cluster_answers(connection)
