"""The one place that wires: a connection and settings become a host that embodies executions."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from uuid import uuid4

from perdure.actors.execution import Execution, Surroundings
from perdure.actors.work import CallElsewhere, call_in_thread, runs_apart, worker
from perdure.cluster.connection import Connection, open_connection
from perdure.cluster.host import Embodied, Host
from perdure.cluster.inbox import Lanes
from perdure.cluster.post import InboxPost
from perdure.cluster.secret_sources import secrets_in
from perdure.cluster.settings import Settings
from perdure.definitions.plan_nodes import PlanNode
from perdure.errors import Deposed, EnvironmentProblem, LogUnavailable

_log = logging.getLogger("perdure.host")
_SERVE_AGAIN_AFTER = 0.5  # seconds


async def connect_to(settings: Settings) -> Connection:
    """Open the connection that settings with a `nats_url` describe."""
    assert settings.nats_url is not None  # noqa: S101 (whoever calls this has found or started a server)
    token = settings.nats_token_file.read_text().strip() if settings.nats_token_file else None
    return await open_connection(settings.nats_url, token, settings.log_timeout, settings.replicas)


def surroundings(connection: Connection, settings: Settings, epoch: int, call_elsewhere: CallElsewhere) -> Surroundings:
    """Return what an execution acts through under this epoch."""
    post = InboxPost(connection, settings)
    return Surroundings(
        log=connection.log,
        plan=connection.registry.plan,
        work=worker(settings.endpoint, call_elsewhere, post.signal),
        timers=connection.inbox,
        epoch=epoch,
        near=settings.near_timer,
        snapshots=connection.snapshots,
        post=post,
        apart=runs_apart if call_elsewhere is not call_in_thread else _never,
        secrets=secrets_in(settings.secrets_dir),
    )


def _never(_node: PlanNode, _place: str | None) -> bool:
    return False


async def open_host(
    name: str,
    lanes: Lanes,
    connection: Connection,
    settings: Settings,
    call_elsewhere: CallElsewhere,
    embody: Callable[[str, int], Embodied] | None = None,
) -> Host:
    """Open a host under a new epoch; `embody` (id, epoch) says where executions act, in this process by default."""
    epoch = await connection.registry.new_epoch(name, uuid4().hex)
    around = surroundings(connection, settings, epoch, call_elsewhere)

    def here(execution: str) -> Embodied:
        return embody(execution, epoch) if embody else Execution(execution, around)

    close = around.post.close if around.post else None
    host = Host(name, epoch, lanes, connection.nats, here, settings.executions_per_actor, close)
    await host.open()
    return host


async def keep_serving(host: Host, reopen: Callable[[], Awaitable[Host]]) -> None:
    """Serve until deposed; when the log was out of reach, open the host again once it answers."""
    while True:
        try:
            await host.run()
        except Deposed as error:
            _log.info("host %s stops: %s", host.name, error)
            return
        except LogUnavailable as error:
            _log.warning("host %s: %s; opened again as soon as the log answers", host.name, error)
            host = await _reopened(reopen)


async def _reopened(reopen: Callable[[], Awaitable[Host]]) -> Host:
    while True:
        await asyncio.sleep(_SERVE_AGAIN_AFTER)
        try:
            return await reopen()
        except (LogUnavailable, EnvironmentProblem, OSError) as error:
            _log.debug("not yet: %s", error)
