"""Node actors: Ray actors that run plain `def` tools, pooled by tool, kept warm, reaped when idle."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from perdure.actors.context import Beats, Context
from perdure.actors.spawn import spawn
from perdure.actors.time_limits import HeartbeatLost, QueueTimeout, Timeout, alive, in_time
from perdure.actors.work import Work, WorkerLost, call_here, heard, result_of
from perdure.events.vocabulary import Error

IDLE_SECONDS = 30.0


class _NodeActor:
    """The process that runs a tool; one call at a time, and where that has a heartbeat, questions about it."""

    _beats: Beats | None = None

    def ready(self) -> bool:
        return True

    def call(self, place: str, arguments: dict[str, Any], context: Context) -> tuple[Any, Error | None]:
        beats = self._beats = Beats()
        try:
            return call_here(place, arguments, heard(context, beats.beat))
        finally:
            self._beats = None

    def silence(self) -> tuple[float, Any]:
        beats = self._beats
        return beats.read() if beats else (0.0, None)  # it has not begun, or just ended


class _Pool(NamedTuple):
    """Which node actors may do the same work: questions about heartbeats need a thread of their own in them."""

    place: str
    beating: bool


async def _answer(reference: Any) -> Any:
    return await reference


class NodeActors:
    """Pools of node actors, one per tool; together at most `limit` (the cluster's CPUs)."""

    def __init__(self, limit: int) -> None:
        self._free = asyncio.Semaphore(limit)
        self._idle: dict[_Pool, list[ActorHandle[_NodeActor]]] = defaultdict(list)
        self._reapers: dict[ActorHandle[_NodeActor], asyncio.TimerHandle] = {}

    async def __call__(self, work: Work) -> Any:
        """Run the tool in a node actor; see CallElsewhere."""
        assert work.place is not None  # noqa: S101 (every tool was located before the start)
        pool = _Pool(work.place, work.node.heartbeat is not None)
        async with self._slot(work.node.queue_timeout):
            actor = self._take(pool)
            try:
                await actor.ready.remote()  # starting a process is not the tool's time
                outcome = await self._call(actor, work)
            except RayActorError as error:
                raise WorkerLost(f"the node actor of {work.place} is gone") from error
            except (asyncio.CancelledError, Timeout, HeartbeatLost):
                ray.kill(actor)
                raise
            self._give_back(pool, actor)
            return result_of(outcome)

    @contextlib.asynccontextmanager
    async def _slot(self, seconds: float | None) -> AsyncIterator[None]:
        """Hold one of the places to run; raise QueueTimeout when none gets free in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._free.acquire()
        except TimeoutError as error:
            raise QueueTimeout(f"no node actor was free within {seconds:g} s") from error
        try:
            yield
        finally:
            self._free.release()

    @staticmethod
    async def _call(actor: "ActorHandle[_NodeActor]", work: Work) -> tuple[Any, Error | None]:
        async def silence() -> tuple[float, Any]:
            with contextlib.suppress(RayActorError):  # the call itself says so
                answer: tuple[float, Any] = await actor.silence.remote()
                return answer
            return 0.0, None

        call = _answer(actor.call.remote(work.place, work.input, work.context()))
        outcome: tuple[Any, Error | None] = await in_time(alive(call, work.node.heartbeat, silence), work.node.timeout)
        return outcome

    def close(self) -> None:
        """Kill every idle node actor."""
        for pool in list(self._idle):
            for actor in list(self._idle[pool]):
                self._reap(pool, actor)

    def _take(self, pool: _Pool) -> "ActorHandle[_NodeActor]":
        if self._idle[pool]:
            actor = self._idle[pool].pop()
            self._reapers.pop(actor).cancel()
            return actor
        return spawn(_NodeActor, max_concurrency=2 if pool.beating else 1)

    def _give_back(self, pool: _Pool, actor: "ActorHandle[_NodeActor]") -> None:
        self._idle[pool].append(actor)
        self._reapers[actor] = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._reap, pool, actor)

    def _reap(self, pool: _Pool, actor: "ActorHandle[_NodeActor]") -> None:
        with contextlib.suppress(ValueError):
            self._idle[pool].remove(actor)
        self._reapers.pop(actor).cancel()
        ray.kill(actor)
