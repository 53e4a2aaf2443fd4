"""Opens what a client needs: the server and Ray in parallel, the connection, hosts where nobody serves the store."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Literal

from perdure.actors.work import call_in_thread
from perdure.cluster.assignment import assign
from perdure.cluster.connection import Connection, open_connection
from perdure.cluster.hosting import SUPERVISOR, Hosting, LocalHosts, cluster_answers, needed_by
from perdure.cluster.inbox import Lanes
from perdure.cluster.nats_server import NatsServer, is_running, nats_server
from perdure.cluster.ownership import is_alive
from perdure.cluster.ray_cluster import RayCluster
from perdure.cluster.settings import Settings
from perdure.cluster.sweep import keep_sweeping
from perdure.cluster.tasks import stop
from perdure.errors import EnvironmentProblem

Mode = Literal["ray", "local", "none"]


@dataclass
class Opened:
    """What is open.

    settings: with the server as other processes reach it. sees_secrets: whether executions run in the environment of
    this process, so that a secret that is missing here is missing there.
    """

    settings: Settings
    connection: Connection
    closing: AsyncExitStack
    sees_secrets: bool = False


async def open_store(settings: Settings, mode: Mode, drive: str | None) -> Opened:
    """Open a store, with hosts on Ray, in this process, or nowhere; see AsyncClient.open."""
    if mode == "ray":
        refuse_unreachable(settings)
    async with AsyncExitStack() as closing:
        ray = RayCluster(settings) if mode == "ray" else None
        server, connection = await _open_with(ray, settings, closing)
        theirs = reached(settings, server)
        sees_secrets = mode != "none" and await _serve(connection, ray, theirs, drive, closing)
        return Opened(theirs, connection, closing.pop_all(), sees_secrets)
    raise AssertionError("the block returned or raised")


def refuse_unreachable(settings: Settings) -> None:
    """Raise EnvironmentProblem where Ray's processes could not reach the server."""
    if settings.ray_address and not settings.nats_url:
        raise EnvironmentProblem(
            "a running Ray cluster cannot reach an embedded NATS server; set PERDURE_NATS_URL to a server that "
            "it can reach, or unset RAY_ADDRESS to start a local Ray"
        )


async def open_server(settings: Settings, closing: AsyncExitStack) -> tuple[NatsServer, Connection]:
    """Open the server, given or embedded, and the connection to it; `closing` ends both."""
    server = await asyncio.to_thread(nats_server, settings)
    closing.callback(server.close)
    connection = await open_connection(
        server.url, server.token, settings.log_timeout, settings.replicas,
        synced=server.embedded or settings.assume_synced,
    )  # fmt: skip
    closing.push_async_callback(connection.close)
    return server, connection


async def _open_with(
    ray: RayCluster | None, settings: Settings, closing: AsyncExitStack
) -> tuple[NatsServer, Connection]:
    """Open the server and the connection while Ray starts; where one fails, the other is given up.

    Where a cluster is up already, its supervisor answers, and no Ray is needed.
    """
    may_be_up = await asyncio.to_thread(is_running, settings)
    opening = asyncio.create_task(ray.open()) if ray and not may_be_up else None
    try:
        server, connection = await open_server(settings, closing)
        if ray and opening is None and not await is_alive(connection.nats, SUPERVISOR):
            opening = asyncio.create_task(ray.open())
        if opening:
            await opening
    except BaseException:
        if ray and opening:
            opening.cancel()
            ray.abandon()
        raise
    return server, connection


async def _serve(
    connection: Connection, ray: RayCluster | None, settings: Settings, drive: str | None, closing: AsyncExitStack
) -> bool:
    """See to it that the lanes are served, by others or by new hosts; say whether these have our environment."""
    local = LocalHosts(connection, call_in_thread)
    closing.push_async_callback(local.close)
    if ray:
        closing.push_async_callback(ray.close)
    starter = ray or local
    if drive is None and settings.hosts is not None and not await cluster_answers(connection):
        await assign(connection.registry, settings.hosts)
    recorded = await needed_by(connection, settings, drive) if drive is not None else None

    async def needed() -> dict[str, Lanes | None]:
        return await needed_by(connection, settings, None) if recorded is None else recorded

    hosting = Hosting(connection, needed, lambda missing: starter.start(missing, settings))
    closing.push_async_callback(hosting.close)
    await hosting.open()
    if drive is None and starter.has_our_environment:  # else a supervisor does it, or whoever serves the store
        sweeping = asyncio.create_task(keep_sweeping(connection, settings), name="perdure-sweep")
        closing.push_async_callback(stop, sweeping)
    return starter.has_our_environment


def reached(settings: Settings, server: NatsServer) -> Settings:
    """Return the settings with the server as other processes reach it."""
    token_file = settings.store.absolute() / "token" if server.embedded else settings.nats_token_file
    return settings.model_copy(
        update={
            "nats_url": server.url, "nats_token_file": token_file, "store": settings.store.absolute(),
            "secrets_dir": settings.secrets_dir and settings.secrets_dir.absolute(),
        }
    )  # fmt: skip
