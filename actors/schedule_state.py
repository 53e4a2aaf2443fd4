"""The state of one schedule, and how events fold into it."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

import msgspec

from perdure.actors.fire_times import fires
from perdure.events.schedules import (
    BackfillAsked,
    FireCancelled,
    FireEnded,
    FireQueued,
    FireSkipped,
    FiresMissed,
    FireStarted,
    Overlap,
    SchedulePaused,
    ScheduleRemoved,
    ScheduleResumed,
    ScheduleSet,
)
from perdure.events.vocabulary import TimerArmed, TimerCancelled, TimerFired

PREFIX = "schedule:"
_REMEMBERED = 20
_replace = msgspec.structs.replace

Status = Literal["active", "paused", "done", "removed"]


class Fire(msgspec.Struct, frozen=True):
    """What became of one fire time. execution: "" where none was started. text: why not, or how it ended."""

    at: datetime
    outcome: Literal["running", "succeeded", "failed", "cancelled", "skipped", "missed"]
    execution: str = ""
    text: str = ""


class Waiting(msgspec.Struct, frozen=True):
    """A fire that waits for its turn. backfilled: somebody asked for it, so no newer one takes its place."""

    at: datetime
    overlap: Overlap
    backfilled: bool = False


class Schedule(msgspec.Struct, frozen=True):
    """A schedule as of now. decided: every fire time up to it is dealt with; armed: when it is due next (UTC).

    running: the executions that it started and that have not ended, with their fire times. cancelling: those that are
    to end for a newer one. last: what became of the newest fires, oldest first.
    """

    name: str
    plan: ScheduleSet | None = None
    removed: bool = False
    paused: SchedulePaused | None = None
    decided: datetime | None = None
    armed: datetime | None = None
    running: dict[str, datetime] = {}
    cancelling: tuple[str, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    last: tuple[Fire, ...] = ()
    started: int = 0

    @property
    def there(self) -> bool:
        """Whether it was added, and not removed."""
        return self.plan is not None and not self.removed

    @property
    def status(self) -> Status:
        """In one word; `done` where no fire time is left."""
        if not self.there:
            return "removed"
        return "paused" if self.paused else "active" if self.armed or self.waiting else "done"

    def next(self, count: int, after: datetime) -> list[datetime]:
        """Return the next fire times behind a UTC time, without jitter, at most so many; none while it is paused."""
        if self.plan is None or self.removed or self.paused:
            return []
        return [at for at, _ in zip(fires(self.plan.timing, after), range(count), strict=False)]


def id_of(name: str) -> str:
    """Return the id under which a schedule's entries lie on the log, and its commands in the inbox."""
    return PREFIX + name


def is_schedule(identity: str) -> bool:
    """Say whether an id is a schedule's."""
    return identity.startswith(PREFIX)


def name_in(identity: str) -> str:
    """Return the name of the schedule that has this id."""
    return identity.removeprefix(PREFIX)


def execution_of(name: str, at: datetime) -> str:
    """Return the id of the execution of a fire time: there is one for each."""
    return f"{name}-{at:%Y%m%dT%H%M%SZ}"


def fold(state: Schedule, events: Iterable[Any]) -> Schedule:
    """Return the state after these events."""
    for event in events:
        state = evolve(state, event)
    return state


def evolve(state: Schedule, event: Any) -> Schedule:
    """Return the state after one event."""
    match event:
        case ScheduleSet():
            paused = None if state.removed else state.paused
            return _replace(state, plan=event, removed=False, paused=paused, decided=event.at)
        case SchedulePaused():
            return _replace(state, paused=event)
        case ScheduleResumed(at=at):
            return _replace(state, paused=None, decided=at)
        case ScheduleRemoved():
            return _replace(state, removed=True, waiting=())
        case TimerArmed(due=at):
            return _replace(state, armed=at)
        case TimerFired() | TimerCancelled():
            return _replace(state, armed=None)
        case BackfillAsked(times, overlap):
            asked = tuple(Waiting(at, overlap, backfilled=True) for at in times)
            return _replace(state, waiting=state.waiting + asked)
        case FireCancelled(execution):
            return _replace(state, cancelling=(*state.cancelling, execution))
        case FireEnded():
            return _ended(state, event)
    return _fired(state, event)


def _fired(state: Schedule, event: Any) -> Schedule:
    """Fold what became of a fire time, which is decided by that, or waited."""
    if isinstance(event, FiresMissed):
        last = _remembered(state, Fire(event.first, "missed", text=f"up to {event.last:%Y-%m-%d %H:%M:%S}"))
        return _replace(state, decided=event.last, last=last)
    waited = next((each for each in state.waiting if each.at == event.at), None)
    rest = tuple(each for each in state.waiting if each is not waited)
    decided = max(state.decided, event.at) if state.decided and not (waited and waited.backfilled) else state.decided
    state = _replace(state, waiting=rest, decided=decided)
    match event:
        case FireStarted(at, execution):
            running = {**state.running, execution: at}
            last = _remembered(state, Fire(at, "running", execution))
            return _replace(state, running=running, last=last, started=state.started + 1)
        case FireSkipped(at, why):
            return _replace(state, last=_remembered(state, Fire(at, "skipped", text=why)))
        case FireQueued(at):
            overlap = state.plan.overlap if state.plan else "queue"
            return _replace(state, waiting=(*state.waiting, Waiting(at, overlap)))
    return state


def _ended(state: Schedule, event: FireEnded) -> Schedule:
    text = f"{event.error}: {event.message}" if event.message else event.error
    stopped = event.error in ("Cancelled", "Terminated")
    outcome = "cancelled" if stopped else "failed" if event.error else "succeeded"
    last = tuple(
        _replace(each, outcome=outcome, text=text)
        if each.execution == event.execution and each.outcome == "running"
        else each
        for each in state.last
    )
    running = {child: at for child, at in state.running.items() if child != event.execution}
    cancelling = tuple(child for child in state.cancelling if child != event.execution)
    return _replace(state, running=running, cancelling=cancelling, last=last)


def _remembered(state: Schedule, fire: Fire) -> tuple[Fire, ...]:
    return (*state.last, fire)[-_REMEMBERED:]
