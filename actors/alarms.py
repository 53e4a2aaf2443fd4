"""The alarms of an execution: near timers stay in this process, far ones are left to the inbox."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Protocol

from perdure.actors.inputs import FireTimer, Input
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
    """Arms what the state says is armed, and disarms the rest; `fire` is told of near timers whose time has come.

    near: says how many seconds ahead a timer stays here. fence: awaited before the inbox is changed: a stale owner
    would replace, or remove, what a newer one has armed under the same name.
    """

    def __init__(
        self,
        execution: str,
        queue: TimerQueue,
        near: Callable[[], float],
        fence: Callable[[], Awaitable[None]],
        fire: Callable[[FireTimer], None],
    ) -> None:
        self._id = execution
        self._queue = queue
        self._seconds = near
        self._fence = fence
        self._tell = fire
        self._near: dict[tuple[str, datetime], asyncio.TimerHandle] = {}
        self._far: dict[str, datetime] = {}
        self._loaded: dict[str, datetime] = {}

    def remember(self, timers: Mapping[str, datetime]) -> None:
        """Know of the timers that a loaded state has: they may be in the inbox, left there by whoever had it before."""
        self._loaded.update(timers)

    def hear(self, inputs: Iterable[Input]) -> None:
        """Know whose time has come: nothing is left in the inbox of these that could be removed."""
        for fired in inputs:
            for known in (self._far, self._loaded):
                if isinstance(fired, FireTimer) and known.get(fired.timer) == fired.due:
                    del known[fired.timer]

    @property
    def near(self) -> bool:
        """Whether a timer is armed in this process."""
        return bool(self._near)

    async def reconcile(self, lane: str, wanted: Mapping[str, datetime]) -> None:
        """Make what is armed match what is wanted; `lane` is the one that the execution's commands come on."""
        now, near = datetime.now(UTC), self._seconds()
        for key in self._near.keys() - wanted.items():
            self._near.pop(key).cancel()
        gone = (self._far.keys() | self._loaded.keys()) - wanted.keys()
        far = {
            timer: due
            for timer, due in wanted.items()
            if (due - now).total_seconds() > near and self._far.get(timer) != due
        }
        if gone or far:
            await self._fence()
        self._loaded.clear()
        for timer in gone:
            self._far.pop(timer, None)
            with contextlib.suppress(LogUnavailable):  # then it fires, and decides to nothing
                await self._queue.disarm(self._id, timer)
        for timer, due in wanted.items():
            if timer in far and await self._armed(lane, timer, due):
                self._far[timer] = due
                self._drop(timer, due)
            elif (timer, due) not in self._near and self._far.get(timer) != due:
                self._near[timer, due] = self._call_at(timer, due)

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

    def _drop(self, timer: str, due: datetime) -> None:
        if (handle := self._near.pop((timer, due), None)) is not None:
            handle.cancel()

    def _call_at(self, timer: str, due: datetime) -> asyncio.TimerHandle:
        seconds = max(0.0, (due - datetime.now(UTC)).total_seconds())
        return asyncio.get_running_loop().call_later(seconds, self._fire, timer, due)

    def _fire(self, timer: str, due: datetime) -> None:
        self._tell(FireTimer.of(self._id, timer, due))
