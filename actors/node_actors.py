"""Calls in node actors, as the process of an execution makes them: with a ticket of the keeper of all pools."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError

from perdure.actors.deaths import how_it_died
from perdure.actors.demands import Demand, demand_of
from perdure.actors.node_process import NodeProcess
from perdure.actors.time_limits import HeartbeatLost, QueueTimeout, Timeout, alive, in_time
from perdure.actors.work import Work, WorkerLost, result_of
from perdure.events.vocabulary import Error

_log = logging.getLogger("perdure.node_actors")

BEAT = 1.0  # seconds between words to the keeper, and between looks at a tool's progress
_TRIES = 20


class Granted(NamedTuple):
    """An actor for one call. stops: whether its tool can hear that it is to stop."""

    actor: "ActorHandle[NodeProcess]"
    stops: bool


class NotGranted(NamedTuple):
    """Why a call gets no actor: `expired` where it waited for as long as it may, or the error of the start."""

    expired: bool = False
    lost: str = ""
    error: Error | None = None


class Keeper(Protocol):
    """The actor that keeps all pools; each method is called by `remote`."""

    def ask(self, ticket: str, holder: str, demand: Demand, patience: float | None, alone: bool) -> Any:
        """Give Granted when there is an actor for the call, or NotGranted."""

    def release(self, ticket: str, spoiled: bool) -> Any:
        """End a call; a spoiled actor is killed."""

    def hear(self, holder: str, tickets: list[str]) -> Any:
        """Take note that a holder of tickets lives; give what those wait for that wait for something."""


class NodeActors:
    """Makes calls in node actors; see CallElsewhere. find: gives the keeper's handle, of a new one where it is gone."""

    def __init__(self, find: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._find = find
        self._keeper: Any = None
        self._holder = uuid4().hex
        self._waiting: dict[str, Work] = {}
        self._told: dict[str, str] = {}
        self._held: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._beating: asyncio.Task[None] | None = None

    async def __call__(self, work: Work) -> Any:
        """Run the tool in a node actor; see CallElsewhere."""
        assert work.place is not None  # noqa: S101 (every tool was located before the start)
        demand = demand_of(work.plan, work.node, work.place, work.places)
        ticket = uuid4().hex
        self._held.add(ticket)
        self._beat_on()
        try:
            granted = await self._granted(ticket, demand, work)
        except BaseException:
            self._release(ticket, spoiled=False)
            raise
        finally:
            self._waiting.pop(ticket, None)
            if self._told.pop(ticket, ""):
                work.queued("")
        return await self._made(ticket, demand, granted, work)

    def close(self) -> None:
        """Stop what is under way; the keeper takes back what was held."""
        for task in [*self._tasks, *([self._beating] if self._beating else [])]:
            task.cancel()

    async def _granted(self, ticket: str, demand: Demand, work: Work) -> Granted:
        """Wait for an actor; raise QueueTimeout, WorkerLost, or what the tool's loading raised."""
        self._waiting[ticket] = work
        for number in range(_TRIES):
            try:
                keeper = self._keeper = self._keeper or await self._find()
                answer = await keeper.ask.remote(
                    ticket, self._holder, demand, work.node.queue_timeout, alone=work.resumed > 0
                )
                break
            except RayActorError as error:
                _log.warning("the keeper of the node actors is gone, started again: %s", how_it_died(error))
                self._keeper = None
                await asyncio.sleep(0.1 * number)
        else:
            raise WorkerLost("the keeper of the node actors does not stay alive")
        if isinstance(answer, Granted):
            return answer
        if answer.expired:
            raise QueueTimeout(f"there was no room in a node actor within {work.node.queue_timeout:g} s")
        if answer.lost:
            raise WorkerLost(answer.lost)
        return result_of((None, answer.error))  # type: ignore[no-any-return]  # it raises

    async def _made(self, ticket: str, demand: Demand, granted: Granted, work: Work) -> Any:
        """Make the call and give the actor back, at once or when it has been stopped."""
        actor = granted.actor
        watching = asyncio.create_task(self._watch(actor, ticket, work)) if granted.stops else None
        try:
            call = _answer(actor.call.remote(ticket, work.input, work.context()))
            silence = _silence(actor, ticket)
            outcome = await in_time(alive(call, work.node.heartbeat, silence), work.node.timeout)
        except RayError as error:
            self._release(ticket, spoiled=True)
            raise WorkerLost(how_it_died(error)) from error
        except (asyncio.CancelledError, Timeout, HeartbeatLost):
            self._spawn(self._stopped(actor, ticket, demand.grace if granted.stops else 0))
            raise
        finally:
            if watching is not None:
                watching.cancel()
        self._release(ticket, spoiled=False)
        return result_of(outcome)

    async def _stopped(self, actor: Any, ticket: str, grace: float) -> None:
        """Ask a call to stop; an actor in which it does not in time is killed as soon as it has no other call."""
        spoiled = True
        try:
            if grace:
                async with asyncio.timeout(grace):
                    await actor.stop.remote(ticket)
                spoiled = False
        except (TimeoutError, RayError):
            pass
        finally:
            self._release(ticket, spoiled=spoiled)

    async def _watch(self, actor: Any, ticket: str, work: Work) -> None:
        """Pass on what the tool tells of its progress."""
        last = None
        with contextlib.suppress(RayError):  # the call itself says so
            while True:
                await asyncio.sleep(BEAT)
                _, progress = await actor.beats.remote(ticket)
                if progress is not None and progress != last:
                    last = progress
                    work.progress(progress)

    def _release(self, ticket: str, *, spoiled: bool) -> None:
        self._held.discard(ticket)
        if self._keeper is not None:
            self._keeper.release.remote(ticket, spoiled=spoiled)

    def _beat_on(self) -> None:
        if self._beating is None or self._beating.done():
            self._beating = asyncio.create_task(self._beat(), name="perdure-node-actors")

    async def _beat(self) -> None:
        """Tell the keeper that we live, for as long as we hold tickets, and the executions what theirs wait for."""
        while self._held:
            await asyncio.sleep(BEAT)
            if self._keeper is None:
                continue
            try:
                waits = await self._keeper.hear.remote(self._holder, list(self._waiting))
            except RayError:
                continue  # who asks for an actor starts the keeper again
            for ticket, work in self._waiting.items():
                if (why := waits.get(ticket, "")) != self._told.get(ticket, ""):
                    self._told[ticket] = why
                    work.queued(why)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _answer(reference: Any) -> Any:
    return await reference


def _silence(actor: Any, ticket: str) -> Callable[[], Coroutine[Any, Any, tuple[float, Any]]]:
    async def silence() -> tuple[float, Any]:
        with contextlib.suppress(RayError):  # the call itself says so
            answer: tuple[float, Any] = await actor.beats.remote(ticket)
            return answer
        return 0.0, None

    return silence
