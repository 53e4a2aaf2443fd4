"""Bringing a cluster up, keeping it up, and taking it down."""

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

from nats.aio.client import Client as Nats
from nats.aio.msg import Msg

from perdure.cluster import logs
from perdure.cluster.assignment import Assignment, assign, assignment
from perdure.cluster.connection import Connection
from perdure.cluster.hosting import SUPERVISOR, default_hosts
from perdure.cluster.opening import open_server, reached, refuse_unreachable
from perdure.cluster.ownership import is_alive
from perdure.cluster.ray_cluster import RayCluster
from perdure.cluster.settings import Settings
from perdure.cluster.status import host_states
from perdure.cluster.supervisor import DOWN, stop_cluster
from perdure.errors import EnvironmentProblem

_LOOK_SECONDS = 0.1
_ENDING_SECONDS, _ASK_AGAIN = 10.0, 0.2

Say = Callable[[str], None]


class Cluster:
    """A cluster that this process brought up, on a server and a Ray that it started, or that were given."""

    def __init__(self, settings: Settings, connection: Connection, ray: RayCluster) -> None:
        self.settings = settings
        self.connection = connection
        self.ray = ray

    async def start(self) -> None:
        """Start the supervisor, and return when every host serves its partitions."""
        registry, hosts = self.connection.registry, self.settings.hosts
        await assign(registry, hosts or default_hosts(self.settings), anew=hosts is not None)
        await self.ray.supervise(self.settings)
        await settled(self.connection, self.settings.ray_start_timeout)

    async def until_down(self) -> None:
        """Return when somebody has taken the cluster down."""
        down = asyncio.Event()

        async def heard(_message: Msg) -> None:
            down.set()

        await self.connection.nats.subscribe(DOWN, cb=heard)
        await down.wait()

    async def show_logs(self, say: Say) -> None:
        """Hand on the log records of all processes of the cluster, as they come."""

        async def heard(message: Msg) -> None:
            say(logs.line_of(json.loads(message.data), self.settings.log_format))

        await self.connection.nats.subscribe(f"{logs.SUBJECT}.>", cb=heard)


async def open_cluster(settings: Settings, closing: AsyncExitStack) -> Cluster:
    """Open the server and Ray; `closing` ends them. Raises EnvironmentProblem where the cluster is up already."""
    refuse_unreachable(settings)
    where = settings.nats_url or str(settings.store.absolute())
    up_already = EnvironmentProblem(
        f"the cluster of {where} is up already; look at it with perdure status, change its size with perdure scale, "
        "end it with perdure down"
    )
    if settings.nats_url is None and not _locked(settings):
        raise up_already
    server, connection = await open_server(settings, closing)
    patience = _ENDING_SECONDS if settings.nats_url is None else 0.0
    if await _is_supervised(connection.nats, patience):
        raise up_already
    ray = RayCluster(settings)
    closing.push_async_callback(ray.close)
    await ray.open()
    return Cluster(reached(settings, server), connection, ray)


async def _is_supervised(nats: Nats, patience: float) -> bool:
    """Say whether a supervisor answers, still after so many seconds: one whose Ray was killed is about to end."""
    deadline = time.monotonic() + patience
    while await is_alive(nats, SUPERVISOR):
        if time.monotonic() >= deadline:
            return True
        await asyncio.sleep(_ASK_AGAIN)
    return False


def is_up_here(settings: Settings) -> bool:
    """Say whether a process on this machine keeps the store's cluster up, on an embedded server."""
    try:
        with (settings.store / "up").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _locked(settings: Settings) -> bool:
    """Take the lock of who keeps the store's cluster up; the kernel gives it back when this process has ended."""
    try:
        settings.store.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(settings.store / "up", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise EnvironmentProblem(
            f"the store {settings.store.absolute()} cannot be used: {error.strerror or error}; give a folder that you "
            "may write with --store or PERDURE_STORE"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True


async def take_down(connection: Connection, drain: float) -> bool:
    """Take the cluster down wherever it runs; return False where none is up."""
    return await stop_cluster(connection.nats, drain)


async def scale(connection: Connection, hosts: int, within: float) -> Assignment:
    """Change the number of hosts, and return when each serves what it is to; BadInput is for the caller to find.

    Where no cluster is up, the next one has so many. Raises EnvironmentProblem when it takes longer than `within` s.
    """
    after = await assign(connection.registry, hosts)
    if await is_alive(connection.nats, SUPERVISOR):
        await settled(connection, within)
    return after


async def settled(connection: Connection, within: float) -> None:
    """Return when the supervisor answers and every host serves its partitions, and no others."""
    try:
        async with asyncio.timeout(within):
            while True:
                if await is_alive(connection.nats, SUPERVISOR) and await _as_assigned(connection):
                    return
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        hosts = "; ".join(f"{host['host']} {host['state']}" for host in await host_states(connection))
        raise EnvironmentProblem(f"not every host served its partitions within {within:g} s: {hosts}") from None


async def _as_assigned(connection: Connection) -> bool:
    wanted, found = await assignment(connection.registry), await host_states(connection)
    return all(sorted(host.get("partitions", [])) == wanted.get(host["host"]) for host in found)
