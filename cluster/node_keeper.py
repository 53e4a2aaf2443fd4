"""The keeper of node actors: one named Ray actor of a store that owns them all, so that hosts share warm ones."""

import asyncio
import logging
import os
from collections.abc import Iterable
from time import monotonic
from typing import Any

import msgspec
import ray
from nats.aio.msg import Msg
from ray.actor import ActorHandle
from ray.exceptions import RayError

from perdure.actors.call_queue import NORMAL
from perdure.actors.deaths import how_it_died, start_failure
from perdure.actors.demands import Demand
from perdure.actors.keeper import RUNS, Granted, Heard, NotGranted
from perdure.actors.node_actors import NodeActors
from perdure.actors.node_process import NodeProcess
from perdure.actors.pools import REPORTS, Action, Grant, Kill, Pools, Spawn
from perdure.actors.spawn import cpus, spawn
from perdure.actors.work import WorkerLost, error_of
from perdure.cluster.code import CodeStore
from perdure.cluster.connection import Connection
from perdure.cluster.settings import Settings
from perdure.cluster.wiring import connect_to
from perdure.errors import PerdureError

_log = logging.getLogger("perdure.node_actors")

NAME = "perdure-node-keeper"
_TICK = 0.5  # seconds
_MOST_LOST = 1000  # of those runs whose loss is remembered
_LOOK = 5.0  # seconds between looks at what the cluster has
_LONELY = 15.0  # seconds without a word of any host after which it ends, and all node actors with it


class NodeKeeper:
    """Grants node actors to calls, and starts and ends them as `Pools` decides. Node actors die with it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = Settings(**settings)
        self._pools: Pools | None = None
        self._actors: dict[str, ActorHandle[NodeProcess]] = {}
        self._stops: dict[str, bool] = {}
        self._asking: dict[str, asyncio.Future[Granted | NotGranted]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard = monotonic()
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._opening = asyncio.Lock()
        self._packages: dict[str, Any] = {}
        self._runs: dict[str, str] = {}
        self._lost: dict[str, str] = {}
        self._losses = 0

    async def ask(
        self, ticket: str, holder: str, demand: Demand, alone: bool, share: str = "", priority: int = NORMAL
    ) -> Granted | NotGranted:
        """Return an actor for a call when there is one; see Keeper."""
        pools = await self._opened()
        asked: asyncio.Future[Granted | NotGranted] = asyncio.get_running_loop().create_future()
        self._asking[ticket] = asked
        self._heard = monotonic()
        self._do(pools.ask(ticket, holder, demand, monotonic(), alone=alone, share=share, priority=priority))
        return await asked

    async def release(self, ticket: str, spoiled: bool) -> None:
        """End a call, or the waiting for one; see Keeper."""
        pools = await self._opened()
        self._answer(ticket, NotGranted())
        self._runs.pop(ticket, None)
        self._do(pools.release(ticket, monotonic(), spoiled=spoiled))

    async def hear(self, holder: str, runs: dict[str, str], more: dict[str, int], losses: int) -> Heard:
        """Take note that a host lives, and tell it what its tickets wait for, and what was lost; see Keeper."""
        pools = await self._opened()
        self._heard = monotonic()
        self._runs.update(runs)
        pools.hear(holder, self._heard, more)
        lost = {} if losses == self._losses else self._lost
        return Heard(pools.waits(holder), pools.pressed(holder), self._losses, lost)

    async def _opened(self) -> Pools:
        if self._pools is None:
            async with self._opening:
                if self._pools is None:
                    places = await asyncio.to_thread(cpus)
                    self._pools = Pools(self._settings.node_actor_idle, places)
                    self._run(self._tick())
                    self._run(self._look())
                    self._run(self._serve_reports())
        return self._pools

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            assert self._pools is not None  # noqa: S101 (it was opened to get here)
            self._do(self._pools.tick(monotonic()))
            if monotonic() - self._heard > _LONELY:
                ray.actor.exit_actor()  # type: ignore[no-untyped-call]

    async def _serve_reports(self) -> None:
        """Answer who asks how the pools stand."""

        async def answer(message: Msg) -> None:
            assert self._pools is not None  # noqa: S101 (it was opened to get here)
            await message.respond(msgspec.json.encode(list(self._pools.reports())))

        while True:
            try:
                await (await self._connected()).nats.subscribe(REPORTS, cb=answer)
            except (PerdureError, OSError) as error:
                _log.warning("the keeper of the node actors cannot say how the pools stand: %s", error)
                await asyncio.sleep(_LOOK)
            else:
                return

    async def _connected(self) -> Connection:
        async with self._connecting:
            if self._connection is None:
                self._connection = await connect_to(self._settings)
        return self._connection

    async def _look(self) -> None:
        """Learn how much the cluster has, which may grow."""
        while self._pools is not None:
            totals = await asyncio.to_thread(ray.cluster_resources)
            self._pools.totals = {name: float(amount) for name, amount in totals.items()}
            self._pools.places = max(1, int(totals.get("CPU", 1)))
            await asyncio.sleep(_LOOK)

    def _do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Spawn(actor, demand):
                    self._spawn(actor, demand)
                case Grant(ticket, actor):
                    self._answer(ticket, Granted(self._actors[actor], self._stops[actor]))
                case Kill(actor):
                    self._end(actor)

    def _spawn(self, actor: str, demand: Demand) -> None:
        threads = 2 * demand.concurrency + 8  # calls, and questions about them
        try:
            handle = spawn(NodeProcess, demand, max_concurrency=threads, **_options(demand))
        except Exception as failure:  # Ray does not take what is asked
            asyncio.get_running_loop().call_soon(self._fail, actor, NotGranted(error=error_of(failure)))
            return
        self._actors[actor] = handle
        self._run(self._start(actor, handle, demand))

    def _end(self, actor: str) -> None:
        self._stops.pop(actor, None)
        if (handle := self._actors.pop(actor, None)) is not None:
            ray.kill(handle)

    def _answer(self, ticket: str, answer: Granted | NotGranted) -> None:
        asked = self._asking.pop(ticket, None)
        if asked is not None and not asked.done():
            asked.set_result(answer)

    async def _start(self, actor: str, handle: "ActorHandle[NodeProcess]", demand: Demand) -> None:
        """See an actor to where it takes calls, and then to its end."""
        assert self._pools is not None  # noqa: S101 (who is spawned was decided by them)
        try:
            await handle.where.remote()
            self._do(self._pools.placed(actor, monotonic()))
            packages = {digest: await self._package(digest) for _, digest in demand.code}
            stops, error = await handle.prepare.remote(packages)
        except RayError as failure:
            if actor in self._actors:  # else we killed it
                problem = start_failure(failure, demand.place)
                lost = str(problem) if isinstance(problem, WorkerLost) else ""
                self._fail(actor, NotGranted(lost=lost, error=None if lost else error_of(problem)))
            return
        except Exception as failure:
            self._fail(actor, NotGranted(error=error_of(failure)))
            return
        if error is not None:
            self._fail(actor, NotGranted(error=error))
            return
        if actor not in self._actors:
            return  # it is not wanted any more
        self._stops[actor] = stops
        self._do(self._pools.ready(actor, monotonic()))
        try:
            await handle.live.remote()
        except RayError as failure:
            if actor in self._actors:
                how = how_it_died(failure)
                _log.warning("a node actor of %s is gone: %s", demand.place, how)
                self._lose(actor, how)
                self._forget(actor)

    def _fail(self, actor: str, why: NotGranted) -> None:
        """Tell the call for which an actor was started why it could not be; the next one has another try."""
        assert self._pools is not None  # noqa: S101 (as above)
        ticket = self._pools.blamed(actor)
        if ticket is not None:
            self._answer(ticket, why)
        self._forget(actor)

    def _lose(self, actor: str, how: str) -> None:
        """Remember what ran in an actor that died: who waited for it may have died with it."""
        assert self._pools is not None  # noqa: S101 (as above)
        for ticket in self._pools.tickets_of(actor):
            for run in filter(None, self._runs.pop(ticket, "").split(RUNS)):
                self._lost[run] = how
                self._losses += 1
        while len(self._lost) > _MOST_LOST:
            del self._lost[next(iter(self._lost))]

    def _forget(self, actor: str) -> None:
        assert self._pools is not None  # noqa: S101 (as above)
        self._end(actor)
        self._do(self._pools.gone(actor, monotonic()))

    async def _package(self, digest: str) -> Any:
        """Return a package from the store, kept for the actors to come."""
        if digest not in self._packages:
            code = CodeStore(await self._connected(), self._settings.replicas)
            self._packages[digest] = await code.get(digest)
        return self._packages[digest]

    def _run(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the keeper of the node actors broke, and is started again", exc_info=error)
            os._exit(1)


def _options(demand: Demand) -> dict[str, Any]:
    options = dict(demand.takes)
    if demand.env:
        options["runtime_env"] = demand.env
    return options


def node_actors(settings: Settings, namespace: str) -> NodeActors:
    """Return what makes calls in node actors, in a process of Ray's; the keeper is started with the first one."""
    plain = settings.model_dump(mode="json", exclude={"openai_api_key"})

    async def find() -> Any:
        return spawn(
            NodeKeeper, plain, name=NAME, namespace=namespace, get_if_exists=True, lifetime="detached",
            max_concurrency=100_000,
        )  # fmt: skip

    return NodeActors(find)
