"""What follows from what a schedule is told: pure decisions, each of which ends with what is due."""

from datetime import datetime, timedelta

import msgspec

from perdure.actors.fire_times import check_timing, due, next_fire
from perdure.actors.inputs import Command, FireTimer, ReportChild
from perdure.actors.schedule_state import Schedule, evolve, execution_of
from perdure.errors import BadInput, ScheduleNotFound
from perdure.events.schedules import (
    BackfillAsked,
    FireCancelled,
    FireEnded,
    FireQueued,
    FireSkipped,
    FiresMissed,
    FireStarted,
    Overlap,
    ScheduleEvent,
    SchedulePaused,
    ScheduleRemoved,
    ScheduleResumed,
    ScheduleSet,
)
from perdure.events.vocabulary import Error, TimerArmed, TimerCancelled, TimerFired

TIMER = "fire"
MOST_WAITING = 1000
MOST_AT_ONCE = 100
"""Events after which an entry is long enough: the rest is decided by the next one."""
_replace = msgspec.structs.replace

Happened = ScheduleEvent | TimerArmed | TimerFired | TimerCancelled


class SetSchedule(msgspec.Struct, frozen=True):
    """Add it as planned. replace: it may be there already, and planned otherwise."""

    plan: ScheduleSet
    replace: bool = False


class PauseSchedule(msgspec.Struct, frozen=True):
    """Start nothing from now on."""

    reason: str = ""
    by: str = ""


class ResumeSchedule(msgspec.Struct, frozen=True):
    """Start executions again."""

    by: str = ""


class RemoveSchedule(msgspec.Struct, frozen=True):
    """Fire no more."""

    by: str = ""


class BackfillSchedule(msgspec.Struct, frozen=True):
    """Start the executions of these fire times, which nobody started."""

    times: list[datetime]
    overlap: Overlap
    by: str = ""


class Refused(msgspec.Struct, frozen=True):
    """An execution that was to start cannot."""

    execution: str
    error: Error


Told = SetSchedule | PauseSchedule | ResumeSchedule | RemoveSchedule | BackfillSchedule
Input = Told | Refused | Command


def decide(state: Schedule, given: Input, now: datetime) -> list[Happened]:
    """Return the events that follow, none where it is so already. Raises BadInput or ScheduleNotFound.

    What people ask for changes it and starts nothing: that is left to its owner, who is woken for it.
    """
    draft = _Draft(state)
    match given:
        case SetSchedule(plan, replace):
            _set(draft, plan, replace=replace, now=now)
        case PauseSchedule() | ResumeSchedule() | RemoveSchedule() | BackfillSchedule():
            _command(draft, given, now)
        case ReportChild(child=child, error=error) if child in state.running:
            draft.emit(FireEnded(child, error.type, error.message[:200]) if error else FireEnded(child))
        case Refused(child, error) if child in state.running:
            draft.emit(FireEnded(child, error.type, error.message[:200]))
        case FireTimer(due=at) if at == state.armed:
            draft.emit(TimerFired(TIMER))
            now = max(now, at)  # the server's clock says that it is time; ours may be behind
    if not isinstance(given, Told):
        _advance(draft, now)
    _arm(draft)
    return draft.events


class _Draft:
    """Collects events, and knows the state after them."""

    def __init__(self, state: Schedule) -> None:
        self.state = state
        self.events: list[Happened] = []

    def emit(self, event: Happened) -> None:
        self.events.append(event)
        self.state = evolve(self.state, event)


def _set(draft: _Draft, plan: ScheduleSet, *, replace: bool, now: datetime) -> None:
    state = draft.state
    check_timing(plan.timing, now)
    if state.there and state.plan is not None:
        if _same(plan, state.plan):
            return
        if not replace:
            raise BadInput(
                f"there is a schedule {state.name!r} already, and it is another one; give replace to change it"
            )
    draft.emit(plan)


def _same(plan: ScheduleSet, other: ScheduleSet) -> bool:
    """Say whether two plans differ in nothing but who asked when."""
    timing = _replace(plan.timing, since=other.timing.since)
    return _replace(plan, at=other.at, by=other.by, timing=timing) == other


def _command(
    draft: _Draft, given: PauseSchedule | ResumeSchedule | RemoveSchedule | BackfillSchedule, now: datetime
) -> None:
    state = draft.state
    if not state.there:
        raise ScheduleNotFound(f"there is no schedule {state.name!r}; see them with: perdure schedule list")
    match given:
        case PauseSchedule(reason, by) if state.paused is None:
            draft.emit(SchedulePaused(reason, by))
        case ResumeSchedule(by) if state.paused is not None:
            draft.emit(ScheduleResumed(now, by))
        case RemoveSchedule(by):
            draft.emit(ScheduleRemoved(by))
        case BackfillSchedule():
            _backfill(draft, given)


def _backfill(draft: _Draft, given: BackfillSchedule) -> None:
    state = draft.state
    known = {each.at for each in state.waiting} | set(state.running.values())
    over = [at for at in given.times if state.paused or (state.decided and at <= state.decided)]
    times = [at for at in over if at not in known]
    if len(times) + len(state.waiting) > MOST_WAITING:
        raise BadInput(
            f"that makes {len(times)} executions beside {len(state.waiting)} that wait, and a schedule keeps "
            f"{MOST_WAITING} waiting at most; ask for a shorter time"
        )
    if times:
        draft.emit(BackfillAsked(times, given.overlap, given.by))


def _advance(draft: _Draft, now: datetime) -> None:
    """Start what waits and may begin, and deal with every fire time that is due."""
    _start_waiting(draft)
    while (at := _undecided(draft.state)) is not None and len(draft.events) < MOST_AT_ONCE:
        plan = draft.state.plan
        assert plan is not None  # noqa: S101 (else nothing is due)
        at_last = due(draft.state.name, plan.timing, at)
        if at_last > now:
            return
        if now - at_last > timedelta(seconds=plan.catch_up):
            too_late = now - timedelta(seconds=plan.catch_up + plan.timing.jitter)
            draft.emit(FiresMissed(at, max(at, too_late.replace(microsecond=0))))
        else:
            _fire(draft, at, plan.overlap)


def _undecided(state: Schedule) -> datetime | None:
    """Return the first fire time that is not dealt with; None where there is none, or it is not to fire."""
    if state.plan is None or state.decided is None or state.removed or state.paused:
        return None
    return next_fire(state.plan.timing, state.decided)


def _fire(draft: _Draft, at: datetime, overlap: Overlap) -> None:
    state = draft.state
    if overlap == "allow" or not (state.running or state.waiting):
        draft.emit(FireStarted(at, execution_of(state.name, at)))
    elif overlap == "skip":
        what = next(iter(state.running), None)
        draft.emit(FireSkipped(at, f"{what} still runs" if what else "others wait"))
    elif len(state.waiting) >= MOST_WAITING:
        draft.emit(FireSkipped(at, f"{MOST_WAITING} others wait already"))
    else:
        if overlap == "cancel":
            _make_way(draft, at)
        draft.emit(FireQueued(at))


def _make_way(draft: _Draft, at: datetime) -> None:
    """Have everything that runs or waits give way to a newer fire, but for what was asked for."""
    for child in draft.state.running:
        if child not in draft.state.cancelling:
            draft.emit(FireCancelled(child))
    for each in draft.state.waiting:
        if not each.backfilled:
            draft.emit(FireSkipped(each.at, f"the fire of {at:%Y-%m-%d %H:%M:%S} took its place"))


def _start_waiting(draft: _Draft) -> None:
    """Start those that wait, in their order; one whose overlap allows it does not wait for what runs."""
    if draft.state.paused or not draft.state.there:
        return
    for each in draft.state.waiting:
        if len(draft.events) >= MOST_AT_ONCE:
            return
        if each.overlap == "allow" or not draft.state.running:
            draft.emit(FireStarted(each.at, execution_of(draft.state.name, each.at)))
        elif each.overlap == "skip":
            draft.emit(FireSkipped(each.at, f"{next(iter(draft.state.running))} still runs"))


def _arm(draft: _Draft) -> None:
    """Have the timer armed for the next fire time, or for now where something is left that may begin."""
    state, at = draft.state, _undecided(draft.state)
    wanted = due(state.name, state.plan.timing, at) if at is not None and state.plan is not None else None
    if wanted is not None and wanted != state.armed:
        draft.emit(TimerArmed(TIMER, wanted))
    elif wanted is None and state.armed is not None:
        draft.emit(TimerCancelled(TIMER))
