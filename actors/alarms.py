"""The alarms of an execution: near timers stay in this process, far ones are left to the inbox."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Protocol

from perdure.actors.inputs import FireTimer
from perdure.errors import LogUnavailable

_log = logging.getLogger("perdure.execution")

NEAR = 30.0  # seconds; a timer due later than this is left to the inbox, so that the execution need not stay


class TimerQueue(Protocol):
    """Durable timers: armed ones come back as FireTimer commands, whoever owns the execution by then."""

    async def arm(self, execution: str, lane: str, timer: str, due: datetime) -> None:
        """Arm a timer for the UTC time `due`; arming it again replaces it."""
        ...

    async def disarm(self, execution: str, timer: str) -> None:
        """Forget a timer; one that is not armed is no error."""
        ...


class Alarms:
    """Arms what the state says is armed, and disarms the rest; `fire` is told of near timers whose time has come."""

    def __init__(self, execution: str, queue: TimerQueue, near: float, fire: Callable[[FireTimer], None]) -> None:
        self._id = execution
        self._queue = queue
        self._seconds = near
        self._tell = fire
        self._near: dict[tuple[str, datetime], asyncio.TimerHandle] = {}
        self._far: dict[str, datetime] = {}
        self._loaded: set[str] = set()

    def remember(self, timers: Iterable[str]) -> None:
        """Know of the timers that a loaded state has: they may be in the inbox, left there by whoever had it before."""
        self._loaded.update(timers)

    @property
    def near(self) -> bool:
        """Whether a timer is armed in this process."""
        return bool(self._near)

    async def reconcile(self, lane: str, wanted: dict[str, datetime]) -> None:
        """Make what is armed match what is wanted; `lane` is the one that the execution's commands come on."""
        loop, now = asyncio.get_running_loop(), datetime.now(UTC)
        for key in self._near.keys() - wanted.items():
            self._near.pop(key).cancel()
        gone = (self._far.keys() | self._loaded) - wanted.keys()
        self._loaded.clear()
        for timer in gone:
            self._far.pop(timer, None)
            with contextlib.suppress(LogUnavailable):  # then it fires, and decides to nothing
                await self._queue.disarm(self._id, timer)
        for timer, due in wanted.items():
            seconds = (due - now).total_seconds()
            if (timer, due) in self._near or self._far.get(timer) == due:
                continue
            if seconds > self._seconds and await self._armed(lane, timer, due):
                self._far[timer] = due
            else:
                self._near[timer, due] = loop.call_later(max(0.0, seconds), self._fire, timer, due)

    def stop(self) -> None:
        """Forget the near ones: whoever embodies the execution next arms them anew."""
        for handle in self._near.values():
            handle.cancel()

    async def _armed(self, lane: str, timer: str, due: datetime) -> bool:
        """Leave a timer to the inbox; False where that is away, and the timer must be kept here."""
        try:
            await self._queue.arm(self._id, lane, timer, due)
        except LogUnavailable as error:
            _log.warning("execution %s: %s; the timer %s is kept in this process", self._id, error, timer)
            return False
        return True

    def _fire(self, timer: str, due: datetime) -> None:
        name = f"{self._id}/{timer}/{due.isoformat()}"  # as the inbox names it, so that both count once
        self._tell(FireTimer(name, self._id, timer, due))
