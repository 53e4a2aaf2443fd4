"""The actor of a schedule: woken by its timer and by what it started, it decides, sends what it owes, and leaves."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Protocol

from perdure.actors.alarms import TimerQueue
from perdure.actors.inputs import ActivateExecution, FireTimer, ReportChild
from perdure.actors.log_context import about
from perdure.actors.schedule_log import Folded, ScheduleLog
from perdure.actors.schedule_state import Schedule, id_of
from perdure.actors.schedules import TIMER, Input, Refused, decide
from perdure.errors import Deposed, LogUnavailable, PerdureError
from perdure.events.vocabulary import Error

_log = logging.getLogger("perdure.schedule")
_MOST_LOOKED_AT = 16  # executions, before a fire would be held back by them


class Starter(Protocol):
    """Carries what schedules owe to executions; each may be sent more than once, and counts once."""

    async def start(self, schedule: Schedule, execution: str) -> None:
        """Start the execution of a fire. Raises what keeps it from starting."""
        ...

    async def cancel(self, schedule: Schedule, execution: str) -> None:
        """Cancel one that has to give way."""
        ...

    async def end_of(self, schedule: Schedule, execution: str) -> ReportChild | None:
        """Return how an execution ended, as its own report would say; None while it has not."""
        ...


class ScheduleActor:
    """Embodies a schedule; see perdure.cluster.leases.Embodied."""

    def __init__(self, name: str, log: ScheduleLog, starter: Starter, timers: TimerQueue) -> None:
        self._id = id_of(name)
        self._log = log
        self._starter = starter
        self._timers = timers
        self._mailbox: asyncio.Queue[tuple[Input, asyncio.Future[bool]]] = asyncio.Queue()
        self._sent: set[str] = set()
        self._armed: datetime | str | None = "unknown"
        self._closed = False

    async def run(self, *first: Input) -> bool:
        """Decide what it is told until nothing is left to do; return whether it was ever added.

        Raises Deposed where a newer owner has it, and LogUnavailable: then it is to be embodied again.
        """
        about(execution=self._id)
        waiting: list[asyncio.Future[bool]] = []
        inputs = list(first)
        try:
            while True:
                await self._take(inputs)
                _settle(waiting, True)
                if self._mailbox.empty():
                    return (await self._log.load()).n > 0
                taken = [self._mailbox.get_nowait() for _ in range(self._mailbox.qsize())]
                inputs, waiting = [given for given, _ in taken], [decided for _, decided in taken]
        finally:
            self._closed = True
            while not self._mailbox.empty():
                waiting.append(self._mailbox.get_nowait()[1])
            _settle(waiting, False)

    async def tell(self, given: Input) -> bool:
        """Hand over a command; return when it is decided and recorded, or False when this actor has closed."""
        if self._closed:
            return False
        decided: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._mailbox.put_nowait((given, decided))
        return await decided

    def hurry(self) -> None:
        """Leave soon, which it does anyway."""

    def leave(self) -> None:
        """Leave soon, which it does anyway."""

    async def _take(self, inputs: list[Input]) -> None:
        folded = await self._owed(inputs)
        inputs = [*await self._ends(folded.state, inputs), *inputs]
        while inputs:
            if not await self._log.change(inputs):
                await self._owed(inputs)
                continue
            folded = await self._owed()
            wake = ActivateExecution("", self._id)
            inputs = [wake] if decide(folded.state, wake, datetime.now(UTC)) else []  # what one entry did not hold
        await self._arm(folded.state)

    async def _owed(self, told: list[Input] | None = None) -> Folded:
        """Send what may not have been sent, and return the schedule; `told` may say that something has ended."""
        folded = await self._log.load()
        ended = {given.child for given in told or () if isinstance(given, ReportChild)}
        for child in folded.unsent:
            if child in folded.state.running and child not in self._sent | ended:
                self._sent.add(child)
                await self._start(folded.state, child)
        for child in folded.state.cancelling:
            if f"cancel {child}" not in self._sent and child not in ended:
                await self._starter.cancel(folded.state, child)
                self._sent.add(f"cancel {child}")
        return folded

    async def _start(self, state: Schedule, child: str) -> None:
        try:
            await self._starter.start(state, child)
        except (LogUnavailable, Deposed):
            self._sent.discard(child)
            raise
        except PerdureError as error:
            _log.warning("schedule %s: %s cannot start: %s", state.name, child, error)
            refused = Refused(child, Error(type(error).__name__, str(error)))
            self._mailbox.put_nowait((refused, asyncio.get_running_loop().create_future()))

    async def _ends(self, state: Schedule, inputs: list[Input]) -> list[Input]:
        """Return the ends of what would hold back a fire: a report is never lost, but may be on its way."""
        fires = any(isinstance(given, FireTimer | ActivateExecution) for given in inputs)
        if not fires or state.plan is None or state.plan.overlap == "allow" or len(state.running) > _MOST_LOOKED_AT:
            return []
        found = [await self._starter.end_of(state, child) for child in state.running]
        return [end for end in found if end is not None]

    async def _arm(self, state: Schedule) -> None:
        """Have the inbox hold the timer that the state says; the first time whatever it holds."""
        if state.armed == self._armed or state.plan is None:
            return
        await self._log.fenced()
        if state.armed is None:
            await self._timers.disarm(self._id, TIMER)
        else:
            await self._timers.arm(self._id, state.plan.lane, TIMER, state.armed)
        self._armed = state.armed


def _settle(waiting: list[asyncio.Future[bool]], decided: bool) -> None:
    for each in waiting:
        if not each.done():
            each.set_result(decided)
