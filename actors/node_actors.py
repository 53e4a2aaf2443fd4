"""Node actors: Ray actors that run plain `def` tools, pooled by tool, kept warm, reaped when idle."""

import asyncio
import contextlib
from collections import defaultdict
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from perdure.actors.spawn import spawn
from perdure.actors.work import Timeout, WorkerLost, call_here, in_time, result_of
from perdure.events.vocabulary import Error

IDLE_SECONDS = 30.0


class _NodeActor:
    """The process that runs a tool; one call at a time."""

    def ready(self) -> bool:
        return True

    def call(self, place: str, arguments: dict[str, Any]) -> tuple[Any, Error | None]:
        return call_here(place, arguments)


async def _answer(reference: Any) -> tuple[Any, Error | None]:
    outcome: tuple[Any, Error | None] = await reference
    return outcome


class NodeActors:
    """Pools of node actors, one per tool; together at most `limit` (the cluster's CPUs)."""

    def __init__(self, limit: int) -> None:
        self._free = asyncio.Semaphore(limit)
        self._idle: dict[str, list[ActorHandle[_NodeActor]]] = defaultdict(list)
        self._reapers: dict[ActorHandle[_NodeActor], asyncio.TimerHandle] = {}

    async def __call__(self, place: str, arguments: dict[str, Any], seconds: float | None = None) -> Any:
        """Run the tool in a node actor; see CallElsewhere."""
        async with self._free:
            actor = self._take(place)
            try:
                await actor.ready.remote()  # starting a process is not the tool's time
                outcome = await in_time(_answer(actor.call.remote(place, arguments)), seconds)
            except RayActorError as error:
                raise WorkerLost(f"the node actor of {place} is gone") from error
            except (asyncio.CancelledError, Timeout):
                ray.kill(actor)
                raise
            self._give_back(place, actor)
            return result_of(outcome)

    def close(self) -> None:
        """Kill every idle node actor."""
        for place in list(self._idle):
            for actor in list(self._idle[place]):
                self._reap(place, actor)

    def _take(self, place: str) -> "ActorHandle[_NodeActor]":
        if self._idle[place]:
            actor = self._idle[place].pop()
            self._reapers.pop(actor).cancel()
            return actor
        return spawn(_NodeActor)

    def _give_back(self, place: str, actor: "ActorHandle[_NodeActor]") -> None:
        self._idle[place].append(actor)
        self._reapers[actor] = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._reap, place, actor)

    def _reap(self, place: str, actor: "ActorHandle[_NodeActor]") -> None:
        with contextlib.suppress(ValueError):
            self._idle[place].remove(actor)
        self._reapers.pop(actor).cancel()
        ray.kill(actor)
