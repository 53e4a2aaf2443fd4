"""What stands in line for node actors in a host: the calls of each pool, and the actors that they get."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from ray.exceptions import RayError

from perdure.actors.batches import Batch, Pace
from perdure.actors.call_queue import CallQueue
from perdure.actors.demands import Demand
from perdure.actors.keeper import Granted
from perdure.actors.work import Work

_LOOK = 1.0  # seconds between looks at a tool's progress


class Lease(NamedTuple):
    """An actor for one call, or for those of a batch, which gives it back; and the ticket that it goes back with."""

    ticket: str
    granted: Granted
    batch: Batch | None = None


class Waiting:
    """A call in its line; `told` is what its execution was told that it waits for."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.lease: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self.since = asyncio.get_running_loop().time()
        self.why, self.told = "", work.waits_for


class Line:
    """The calls of one pool that wait here, the tickets that were asked for them, and the actors kept for the next."""

    def __init__(self, demand: Demand) -> None:
        self.demand = demand
        self.calls: CallQueue[Waiting] = CallQueue()
        self.asked: dict[str, tuple[str, int]] = {}  # the execution and the priority of the call for which each was
        self.pace = Pace()
        self.busy = 0
        self.kept: dict[str, Lease] = {}
        self.pressed = False
        self.users = 0


def run_of(work: Work) -> str:
    """Return the name of one run of an attempt."""
    return f"{work.execution}/{work.path}#{work.attempt}.{work.resumed}"


async def awaited(reference: Any) -> Any:
    """Return what comes of a call to Ray."""
    return await reference


async def watch(actor: Any, call_id: str, work: Work) -> None:
    """Pass on what the tool tells of its progress."""
    last = None
    with contextlib.suppress(RayError):  # the call itself says so
        while True:
            await asyncio.sleep(_LOOK)
            _, progress = await actor.beats.remote(call_id)
            if progress is not None and progress != last:
                last = progress
                work.progress(progress)


def silence_of(actor: Any, call_id: str) -> Callable[[], Coroutine[Any, Any, tuple[float, Any]]]:
    """Return what asks for the seconds since a call's last heartbeat, and its last progress."""

    async def silence() -> tuple[float, Any]:
        with contextlib.suppress(RayError):  # the call itself says so
            answer: tuple[float, Any] = await actor.beats.remote(call_id)
            return answer
        return 0.0, None

    return silence
