"""One schedule, purely: given what happened, when it is told something, then this follows."""

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

import msgspec
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from perdure.actors.fire_times import due, fires
from perdure.actors.inputs import ActivateExecution, FireTimer, ReportChild
from perdure.actors.schedule_state import Fire, Schedule, execution_of, fold
from perdure.actors.schedules import (
    MOST_AT_ONCE,
    MOST_WAITING,
    BackfillSchedule,
    Input,
    PauseSchedule,
    Refused,
    RemoveSchedule,
    ResumeSchedule,
    SetSchedule,
    decide,
)
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
    SchedulePaused,
    ScheduleRemoved,
    ScheduleResumed,
    ScheduleSet,
    Timing,
)
from perdure.events.vocabulary import Error, TimerArmed, TimerCancelled, TimerFired

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WAKE = ActivateExecution("", "schedule:s")


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def run(minutes: float) -> str:
    return execution_of("s", at(minutes))


def plan(overlap: Overlap = "skip", **changes: Any) -> ScheduleSet:
    """Return a plan that fires every minute from noon on."""
    whole = ScheduleSet(NOON, "ann", "report", Timing("* * * * *"), "7", "sha256:1", overlap=overlap)
    return msgspec.structs.replace(whole, **changes)


def fired(minutes: float) -> FireTimer:
    return FireTimer.of("schedule:s", "fire", at(minutes))


def ended(minutes: float, error: Error | None = None) -> ReportChild:
    return ReportChild(f"{run(minutes)}/ended", "schedule:s", run(minutes), error=error)


def armed(minutes: float) -> TimerArmed:
    return TimerArmed("fire", at(minutes))


class Told:
    """What it was told after what had happened, and what followed."""

    def __init__(self, *past: Any) -> None:
        self.state = fold(Schedule("s"), past)

    def when(self, given: Input, minutes: float) -> "Told":
        self.events = decide(self.state, given, at(minutes))
        self.state = fold(self.state, self.events)
        return self

    def then(self, *events: Any) -> None:
        assert self.events == list(events)


def given(*past: Any) -> Told:
    return Told(*past)


def test_a_new_schedule_is_armed_for_its_first_fire() -> None:
    given().when(SetSchedule(plan()), 0).then(plan(), armed(1))


def test_a_schedule_that_is_added_again_stays_as_it_is() -> None:
    same = plan(at=at(7), by="bob")
    given(plan(), armed(1)).when(SetSchedule(same), 7).then()


def test_another_schedule_of_the_same_name_is_refused_unless_it_replaces() -> None:
    other = plan(timing=Timing("0 * * * *"), at=at(1))
    with pytest.raises(BadInput, match="give replace to change it"):
        given(plan(), armed(1)).when(SetSchedule(other), 1)
    given(plan(), armed(1)).when(SetSchedule(other, replace=True), 1).then(other, armed(60))


def test_a_fire_starts_one_execution_and_arms_the_next_fire() -> None:
    given(plan(), armed(1)).when(fired(1), 1.001).then(TimerFired("fire"), FireStarted(at(1), run(1)), armed(2))


def test_the_id_of_an_execution_says_its_fire_time() -> None:
    assert run(1) == "s-20260301T120100Z"


def test_a_fire_that_comes_again_starts_nothing() -> None:
    told = given(plan(), armed(1)).when(fired(1), 1.001)
    told.when(fired(1), 1.002).then()


def test_a_fire_counts_although_this_clock_is_behind_the_servers() -> None:
    given(plan(), armed(1)).when(fired(1), 0.9).then(TimerFired("fire"), FireStarted(at(1), run(1)), armed(2))


def test_skip_leaves_a_fire_out_while_the_last_one_runs() -> None:
    told = given(plan("skip"), armed(1)).when(fired(1), 1)
    told.when(fired(2), 2).then(TimerFired("fire"), FireSkipped(at(2), f"{run(1)} still runs"), armed(3))
    told.when(ended(1), 2.5).then(FireEnded(run(1)))
    told.when(fired(3), 3).then(TimerFired("fire"), FireStarted(at(3), run(3)), armed(4))


def test_queue_starts_what_waited_one_after_the_other_in_order() -> None:
    told = given(plan("queue"), armed(1)).when(fired(1), 1)
    told.when(fired(2), 2).then(TimerFired("fire"), FireQueued(at(2)), armed(3))
    told.when(fired(3), 3)
    told.when(ended(1), 3.5).then(FireEnded(run(1)), FireStarted(at(2), run(2)))
    told.when(ended(2), 3.6).then(FireEnded(run(2)), FireStarted(at(3), run(3)))


def test_cancel_has_the_old_one_end_before_the_newest_starts() -> None:
    told = given(plan("cancel"), armed(1)).when(fired(1), 1)
    told.when(fired(2), 2).then(TimerFired("fire"), FireCancelled(run(1)), FireQueued(at(2)), armed(3))
    told.when(fired(3), 3).then(
        TimerFired("fire"), FireSkipped(at(2), "the fire of 2026-03-01 12:03:00 took its place"), FireQueued(at(3)),
        armed(4),
    )  # fmt: skip
    cancelled = Error("Cancelled", "it was cancelled")
    told.when(ended(1, cancelled), 3.1).then(
        FireEnded(run(1), "Cancelled", "it was cancelled"), FireStarted(at(3), run(3))
    )
    assert told.state.cancelling == ()
    assert [each.outcome for each in told.state.last] == ["cancelled", "skipped", "running"]


def test_allow_starts_beside_what_runs() -> None:
    told = given(plan("allow"), armed(1)).when(fired(1), 1)
    told.when(fired(2), 2).then(TimerFired("fire"), FireStarted(at(2), run(2)), armed(3))
    assert list(told.state.running) == [run(1), run(2)]


def test_fires_that_could_not_come_in_time_are_caught_up_within_the_window_and_missed_before_it() -> None:
    told = given(plan("allow", catch_up=120), armed(1)).when(WAKE, 60.5)
    told.then(
        FiresMissed(at(1), at(58.5)), FireStarted(at(59), run(59)), FireStarted(at(60), run(60)), armed(61)
    )  # fmt: skip


def test_a_year_of_absence_is_missed_in_one_step() -> None:
    told = given(plan("skip", timing=Timing("* * * * * *")), armed(1)).when(WAKE, 525_600)
    assert isinstance(told.events[0], FiresMissed)
    assert len(told.events) == MOST_AT_ONCE + 1
    assert told.state.decided is not None
    assert told.events[-1] == TimerArmed("fire", told.state.decided + timedelta(seconds=1))


def test_a_paused_schedule_starts_nothing_and_goes_on_with_the_next_fire_after_its_pause() -> None:
    told = given(plan(), armed(1)).when(PauseSchedule("holidays", "ann"), 0.5)
    told.then(SchedulePaused("holidays", "ann"), TimerCancelled("fire"))
    told.when(fired(1), 1).then()
    told.when(WAKE, 5).then()
    told.when(ResumeSchedule("bob"), 9.5).then(ScheduleResumed(at(9.5), "bob"), armed(10))


def test_what_waits_starts_after_the_pause() -> None:
    told = given(plan("queue"), armed(1)).when(fired(1), 1).when(fired(2), 2).when(PauseSchedule(), 2.1)
    told.when(ended(1), 2.2).then(FireEnded(run(1)))
    told.when(ResumeSchedule(), 2.3).then(ScheduleResumed(at(2.3)), armed(3))
    told.when(WAKE, 2.4).then(FireStarted(at(2), run(2)))


def test_what_people_ask_for_starts_nothing_itself() -> None:
    late = given(plan(), armed(1))
    late.when(PauseSchedule(), 5).then(SchedulePaused(), TimerCancelled("fire"))


def test_a_removed_schedule_fires_no_more_and_its_executions_go_on() -> None:
    told = given(plan(), armed(1)).when(fired(1), 1).when(RemoveSchedule("ann"), 1.5)
    told.then(ScheduleRemoved("ann"), TimerCancelled("fire"))
    told.when(fired(2), 2).then()
    told.when(ended(1), 2).then(FireEnded(run(1)))
    assert told.state.status == "removed"
    for command in (PauseSchedule(), ResumeSchedule(), RemoveSchedule(), BackfillSchedule([NOON], "queue")):
        with pytest.raises(ScheduleNotFound, match="no schedule 's'"):
            told.when(command, 3)


def test_a_schedule_that_is_added_again_after_its_removal_begins_anew() -> None:
    told = given(plan(), armed(1)).when(PauseSchedule(), 0.1).when(RemoveSchedule(), 1)
    told.when(SetSchedule(plan(at=at(5))), 5).then(plan(at=at(5)), armed(6))
    assert told.state.status == "active"


def test_a_single_fire_is_done_with() -> None:
    told = given().when(SetSchedule(plan(timing=Timing(at=at(5)))), 0)
    told.when(fired(5), 5).then(TimerFired("fire"), FireStarted(at(5), run(5)))
    assert told.state.status == "done"


def test_a_backfill_starts_past_fires_one_after_the_other_and_leaves_the_regular_ones_alone() -> None:
    told = given(plan("skip", at=at(10)), armed(11))
    told.when(BackfillSchedule([at(1), at(2)], "queue", "ann"), 10.5).then(
        BackfillAsked([at(1), at(2)], "queue", "ann")
    )
    told.when(WAKE, 10.6).then(FireStarted(at(1), run(1)))
    told.when(fired(11), 11).then(TimerFired("fire"), FireSkipped(at(11), f"{run(1)} still runs"), armed(12))
    told.when(ended(1), 11.5).then(FireEnded(run(1)), FireStarted(at(2), run(2)))
    told.when(ended(2), 11.6).then(FireEnded(run(2)))
    assert told.state.decided == at(11)


def test_a_backfill_side_by_side_starts_all_at_once_though_not_in_one_entry() -> None:
    times = [at(minute) for minute in range(-500, 0)]
    told = given(plan("skip"), armed(1)).when(BackfillSchedule(times, "allow"), 0.5)
    told.when(WAKE, 0.5)
    assert told.events == [FireStarted(each, execution_of("s", each)) for each in times[:MOST_AT_ONCE]]
    for _ in range(4):
        told.when(WAKE, 0.5)
    assert list(told.state.running) == [execution_of("s", each) for each in times]
    told.when(WAKE, 0.5).then()


def test_a_backfill_leaves_out_what_runs_or_waits_and_what_is_still_to_come() -> None:
    told = given(plan("queue"), armed(1)).when(fired(1), 1).when(fired(2), 2)
    told.when(BackfillSchedule([at(0), at(1), at(2), at(3)], "queue"), 2.5).then(BackfillAsked([at(0)], "queue"))


def test_a_backfill_of_too_many_is_refused() -> None:
    times = [at(-minute) for minute in range(1, MOST_WAITING + 2)]
    with pytest.raises(BadInput, match="that makes 1001 executions"):
        given(plan(), armed(1)).when(BackfillSchedule(times, "queue"), 0.5)


def test_cancel_keeps_what_was_asked_for() -> None:
    told = given(plan("cancel", at=at(10)), armed(11)).when(BackfillSchedule([at(1), at(2)], "queue"), 10)
    told.when(WAKE, 10.1).when(fired(11), 11)
    assert [each.at for each in told.state.waiting] == [at(2), at(11)]


def test_a_fire_whose_execution_cannot_start_is_failed_and_the_next_one_starts() -> None:
    told = given(plan(), armed(1)).when(fired(1), 1)
    told.when(Refused(run(1), Error("WorkflowNotFound", "no workflow 'report'")), 1.1)
    told.then(FireEnded(run(1), "WorkflowNotFound", "no workflow 'report'"))
    assert told.state.last == (Fire(at(1), "failed", run(1), "WorkflowNotFound: no workflow 'report'"),)
    told.when(fired(2), 2).then(TimerFired("fire"), FireStarted(at(2), run(2)), armed(3))


def test_the_end_of_something_else_means_nothing() -> None:
    given(plan(), armed(1)).when(ended(5), 0.5).then()


def test_jitter_puts_the_start_off_and_does_not_change_the_id() -> None:
    jittered = plan(timing=Timing("* * * * *", jitter=50))
    told = given().when(SetSchedule(jittered), 0)
    late = due("s", jittered.timing, at(1))
    assert told.state.armed == late > at(1)
    told.when(FireTimer.of("schedule:s", "fire", late), 1)
    assert FireStarted(at(1), run(1)) in told.events


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["fire", "wake", "end", "pause", "resume", "backfill", "replace", "remove"]),
        st.integers(0, 400),
    ),
    max_size=60,
)


@for_all(st.sampled_from(["skip", "queue", "cancel", "allow"]), st.integers(0, 90), _STEPS)
def test_whatever_it_is_told_each_fire_time_starts_once_and_is_armed_for(
    overlap: Overlap, jitter: int, steps: list[tuple[str, int]]
) -> None:
    told, now, started = Told(), 0.0, list[str]()
    told.when(SetSchedule(plan(overlap, timing=Timing("* * * * *", jitter=jitter), catch_up=300)), 0)
    for what, seconds in steps:
        now += seconds / 60
        given_now = _input(what, told.state, overlap, jitter, now)
        if given_now is None:
            continue
        told.when(given_now, now)
        started += [event.execution for event in told.events if isinstance(event, FireStarted)]
        state = told.state
        if overlap != "allow":
            assert len(state.running) <= 1
        if state.paused is None and state.there and what in ("fire", "wake", "end"):
            assert state.armed is not None
            assert state.armed > at(now) or len(told.events) >= MOST_AT_ONCE
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=Schedule) == state
    assert len(started) == len(set(started))


def _input(what: str, state: Schedule, overlap: Overlap, jitter: int, now: float) -> Input | None:
    """Return a step that can be taken now, None where it cannot."""
    timing = Timing("* * * * *", jitter=jitter)
    there = state.there
    match what:
        case "fire":
            return FireTimer.of("schedule:s", "fire", state.armed) if state.armed and state.armed <= at(now) else None
        case "wake":
            return WAKE
        case "end" if state.running:
            return ReportChild("", "schedule:s", next(iter(state.running)))
        case "pause" if there:
            return PauseSchedule()
        case "resume" if there:
            return ResumeSchedule()
        case "remove" if there:
            return RemoveSchedule()
        case "backfill" if there:
            return BackfillSchedule([at(-1 - state.started)], "queue")
        case "replace":
            return SetSchedule(plan(overlap, timing=timing, catch_up=200, at=at(now)), replace=True)
    return None


def test_every_fire_time_of_a_day_is_started_where_each_ends_at_once() -> None:
    berlin = plan("skip", timing=Timing("*/10 * * * *", "Europe/Berlin"), at=datetime(2026, 10, 24, 22, tzinfo=UTC))
    told, started = Told(berlin), list[datetime]()
    told.when(WAKE, 0)  # arms nothing yet: noon of March lies before it was added
    end = datetime(2026, 10, 25, 23, tzinfo=UTC)
    while (next_at := told.state.armed) is not None and next_at <= end:
        minutes = (next_at - NOON).total_seconds() / 60
        told.when(FireTimer.of("schedule:s", "fire", next_at), minutes)
        for event in told.events:
            if isinstance(event, FireStarted):
                started.append(event.at)
                told.when(ReportChild("", "schedule:s", event.execution), minutes)
    assert started == list(takewhile(lambda each: each <= end, fires(berlin.timing, berlin.at)))
    assert len(started) == 25 * 6
