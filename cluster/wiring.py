"""The one place that wires: a connection and settings become a host that embodies executions."""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from perdure.actors.execution import Execution
from perdure.actors.limited import limited
from perdure.actors.loop_watch import watch_loop
from perdure.actors.mcp_pool import McpPool
from perdure.actors.outside import Outside
from perdure.actors.schedule_actor import ScheduleActor
from perdure.actors.schedule_log import ScheduleLog
from perdure.actors.schedule_state import is_schedule, name_in
from perdure.actors.surroundings import Surroundings
from perdure.actors.work import CallElsewhere, call_in_thread, runs_apart, worker
from perdure.cluster.assignment import assigned
from perdure.cluster.code import CodeStore, bring
from perdure.cluster.connection import Connection, open_connection
from perdure.cluster.here_or_apart import HereOrApart
from perdure.cluster.host import Host
from perdure.cluster.inbox import Lanes
from perdure.cluster.leases import Embodied
from perdure.cluster.limits import ClusterLimits
from perdure.cluster.model_wiring import models_of
from perdure.cluster.ownership import Ownership
from perdure.cluster.post import InboxPost
from perdure.cluster.progress import Progress
from perdure.cluster.schedule_starts import ScheduleStarts
from perdure.cluster.secret_sources import secrets_in
from perdure.cluster.serving import Serving
from perdure.cluster.settings import Settings
from perdure.cluster.streams import Streams
from perdure.definitions.plan import Plan
from perdure.definitions.plan_nodes import PlanNode
from perdure.errors import Deposed, EnvironmentProblem, LogUnavailable

_log = logging.getLogger("perdure.host")
_SERVE_AGAIN_AFTER = 0.5  # seconds
_NEAR_IN_A_CROWD = 1.0  # seconds; later timers are left to the inbox when others wait for a place

EmbodyApart = Callable[[str, Ownership], Embodied]
"""Embodies an execution of a host in a process of its own, where there can be one."""


async def connect_to(settings: Settings) -> Connection:
    """Open the connection that settings with a `nats_url` describe."""
    assert settings.nats_url is not None  # noqa: S101 (whoever calls this has found or started a server)
    token = settings.nats_token_file.read_text().strip() if settings.nats_token_file else None
    return await open_connection(settings.nats_url, token, settings.log_timeout, settings.replicas)


def _nobody(_execution: str, _parked: bool) -> None:
    """Have nobody who waits for the place of an execution that only waits."""


def surroundings(
    connection: Connection,
    settings: Settings,
    epoch: int,
    call_elsewhere: CallElsewhere,
    post: InboxPost,
    fence: Callable[[], Awaitable[None]],
    limits: ClusterLimits,
    pool: McpPool,
    crowded: Callable[[], bool] | None = None,
    parked: Callable[[str, bool], None] = _nobody,
    *,
    shared: bool = False,
) -> Surroundings:
    """Return what an execution acts through under this epoch.

    pool: who opened it closes it. crowded: says whether others wait for its place; None where it has a process of its
    own, which costs too much to keep it at hand while it only waits. parked: see Surroundings. shared: executions that
    ask for a process of their own are not for this one.
    """

    def near() -> float:
        return min(_NEAR_IN_A_CROWD, settings.near_timer) if crowded is not None and crowded() else settings.near_timer

    def quiet() -> float:
        return 0.0 if crowded is None or crowded() else settings.passivate_after

    secrets = secrets_in(settings.secrets_dir)
    code = CodeStore(connection, settings.replicas)
    watch_loop(settings.slow_callback)
    return Surroundings(
        log=connection.log,
        plan=connection.registry.plan,
        work=limited(worker(models_of(connection, settings, secrets), call_elsewhere, post.signal), limits),
        timers=connection.inbox,
        epoch=epoch,
        near=near,
        snapshots=connection.snapshots,
        post=post,
        apart=runs_apart if call_elsewhere is not call_in_thread else _never,
        secrets=secrets,
        outside=Outside(settings.reach, secrets, connection.nats, pool),
        fence=fence,
        quiet=quiet,
        shared=shared,
        bring=lambda places: bring(code, places),
        tell=Progress(connection.nats).tell,
        limits=limits,
        parked=parked,
        stream=Streams(connection.nats, secrets).begin,
    )


def _never(_plan: Plan, _node: PlanNode, _place: str | None, _resumed: int) -> bool:
    return False


@dataclass
class Opener:
    """What hosts are opened with. apart: embodies executions in processes of their own; None without Ray."""

    connection: Connection
    settings: Settings
    call_elsewhere: CallElsewhere
    apart: EmbodyApart | None = None
    limits: ClusterLimits = field(init=False)

    def __post_init__(self) -> None:
        self.limits = ClusterLimits(self.connection, self.settings)

    async def open(self, name: str, fixed: Lanes | None = None) -> Serving:
        """Open a host under a new epoch, for these lanes or else for those that the store assigns to its name.

        Raises LanesTaken when another one was faster.
        """
        own = Ownership(self.connection.nats, self.connection.registry, name)
        post = InboxPost(self.connection, self.settings)
        pool = McpPool()
        host = Host(
            self.connection, own, self._embodied(own, post, pool, lambda: host), self.settings.executions_per_actor,
            self.settings.priority_ageing,
        )  # fmt: skip

        async def wanted() -> Lanes:
            return fixed or await assigned(self.connection.registry, name)

        async def close() -> None:
            self.connection.reconnected.discard(host.stale.set)
            await post.close()
            await pool.close()

        self.connection.reconnected.add(host.stale.set)
        about = {"pid": os.getpid(), "node": socket.gethostname()}
        serving = Serving(host, wanted, self.settings.drain_timeout, close, about)
        try:
            await serving.open()
        except BaseException:
            await close()
            raise
        return serving

    def _embodied(
        self, own: Ownership, post: InboxPost, pool: McpPool, host: Callable[[], Host]
    ) -> Callable[[str, bool], Embodied]:
        """Return what embodies executions, under the epoch that its owner has when it does; True: it seems new."""
        around: dict[int, Surroundings] = {}

        def here(execution: str, new: bool) -> Execution:
            if own.epoch not in around:
                around.clear()
                around[own.epoch] = surroundings(
                    self.connection,
                    self.settings,
                    own.epoch,
                    self.call_elsewhere,
                    post,
                    host().fence,
                    self.limits,
                    pool,
                    lambda: host().crowded,
                    lambda execution, on: host().park(execution, on=on),
                    shared=self.apart is not None,
                )
            return Execution(execution, around[own.epoch], new=new)

        def schedule(execution: str) -> Embodied:
            log = ScheduleLog(
                name_in(execution), self.connection.log, self.connection.snapshots, own.epoch, host().fence
            )
            starts = ScheduleStarts(self.connection, self.settings, post)
            return ScheduleActor(name_in(execution), log, starts, self.connection.inbox)

        def embody(execution: str, new: bool) -> Embodied:
            if is_schedule(execution):
                return schedule(execution)
            apart = self.apart
            if apart is None:
                return here(execution, new)
            if self.settings.isolation == "process":
                return apart(execution, own)
            return HereOrApart(here(execution, new), lambda: apart(execution, own))

        return embody


async def keep_serving(serving: Serving, reopen: Callable[[], Awaitable[Serving]]) -> None:
    """Serve until drained or deposed; when the log was out of reach, open the host again once it answers."""
    while True:
        try:
            return await serving.run()
        except Deposed:
            return None
        except LogUnavailable as error:
            _log.warning("host %s: %s; opened again as soon as the log answers", serving.host.name, error)
            serving = await _reopened(reopen)


async def _reopened(reopen: Callable[[], Awaitable[Serving]]) -> Serving:
    while True:
        await asyncio.sleep(_SERVE_AGAIN_AFTER)
        try:
            return await reopen()
        except (LogUnavailable, EnvironmentProblem, OSError) as error:
            _log.debug("not yet: %s", error)
