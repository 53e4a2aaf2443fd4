"""The commands to an execution under way: each is carried out, already so, or refused with a reason."""

from typing import Any

import pytest
from scenario import BOOM, EXECUTION, Given, due, output, plan_of, running

from perdure.actors.inputs import (
    CancelExecution,
    Control,
    DecideApproval,
    PauseExecution,
    ReportFailure,
    ReportSuccess,
    ResumeExecution,
    SignalExecution,
    TerminateExecution,
)
from perdure.events.vocabulary import (
    CommandRefused,
    ExecutionCancelled,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionTerminated,
    NodeCancelled,
    NodeScheduled,
    TimerHeld,
)

CHAIN: dict[str, Any] = {"a": {"tool": "t"}, "b": {"tool": "t", "needs": "a"}}
PAUSE = PauseExecution("p-1", EXECUTION, "look at it", "ann")
RESUME = ResumeExecution("r-1", EXECUTION, "ann")
CANCEL = CancelExecution("c-1", EXECUTION, "no more", "ann")
TERMINATE = TerminateExecution("t-1", EXECUTION, "stuck", "ann")
SIGNAL = SignalExecution("s-1", EXECUTION, "go", 1)
DECIDE = DecideApproval("d-1", EXECUTION, "a", approved=True)


def status(given: Given, node: str) -> str:
    return given.now.nodes[node].status


def test_a_paused_execution_records_what_runs_and_starts_nothing_new() -> None:
    given = running(CHAIN).when(PAUSE, ReportSuccess("a", 1))
    assert (given.now.status, len(given.now.running)) == ("paused", 0)
    given.when(RESUME)
    assert given.events[-2:] == [ExecutionResumed("ann"), NodeScheduled("b", 1, {})]


def test_pausing_twice_and_resuming_what_runs_changes_nothing() -> None:
    given = running(CHAIN).when(RESUME, PAUSE, PAUSE)
    assert [type(event) for event in given.events[2:]] == [ExecutionPaused]


def test_timers_that_come_due_during_a_pause_count_at_the_resume() -> None:
    given = running({"a": {"wait": "1h"}, "b": {"tool": "t", "retry": {"attempts": 2}}})
    given.when(ReportFailure("b", 1, BOOM), PAUSE).when(due(given, "wait/a"), due(given, "retry/b"))
    assert given.events[-2:] == [TimerHeld("wait/a"), TimerHeld("retry/b")]
    assert status(given, "a") == "waiting"
    given.when(RESUME)
    assert status(given, "a") == "succeeded"
    assert (given.now.nodes["b"].status, given.now.nodes["b"].attempt) == ("running", 2)


def test_a_foreach_begins_no_more_items_while_it_is_paused() -> None:
    given = running({"a": {"foreach": {"items": "input", "max_parallel": 1}, "tool": "t"}}, [1, 2])
    given.when(PAUSE, ReportSuccess("a[0]/do", 1))
    assert not given.now.running
    assert set(given.when(RESUME).now.running) == {"a[1]/do"}


def test_an_execution_whose_last_node_ends_during_a_pause_ends_too() -> None:
    given = running({"a": {"tool": "t"}}).when(PAUSE, ReportSuccess("a", 1, 7))
    assert output(given) == {"a": 7}


def test_a_cancelled_execution_stops_what_runs_and_disarms_its_timers() -> None:
    given = running({"a": {"tool": "t"}, "b": {"wait": "1h"}}).when(CANCEL)
    assert [event.node for event in given.events if isinstance(event, NodeCancelled)] == ["a", "b"]
    assert given.events[-1] == ExecutionCancelled("no more")
    assert not given.now.timers


def test_a_paused_execution_can_be_cancelled() -> None:
    given = running(CHAIN, on_cancel={"x": {"tool": "t"}}).when(PAUSE, CANCEL)
    assert given.now.cancelling is not None
    given.when(ReportSuccess("on_cancel/x", 1))
    assert given.now.outcome == ExecutionCancelled("no more")


def test_an_execution_that_is_failing_cannot_be_cancelled_any_more() -> None:
    given = running({"a": {"tool": "t"}}, on_failure={"x": {"tool": "t"}}).when(ReportFailure("a", 1, BOOM), CANCEL)
    assert isinstance(given.events[-1], CommandRefused)
    assert given.when(ReportSuccess("on_failure/x", 1)).now.status == "failed"


def test_a_terminated_execution_ends_at_once_and_runs_nothing() -> None:
    given = running(CHAIN, **{"finally": {"x": {"tool": "t"}}}).when(TERMINATE)
    assert given.events[-1] == ExecutionTerminated("stuck", "ann")
    assert not given.now.running


def test_what_runs_last_can_be_terminated_too() -> None:
    given = running({"a": {"set": 1}}, **{"finally": {"x": {"tool": "t"}}}).when(TERMINATE)
    assert (given.now.status, dict(given.now.running)) == ("terminated", {})


@pytest.mark.parametrize(
    "command", [PAUSE, RESUME, CANCEL, TERMINATE, SIGNAL, DECIDE], ids=lambda each: type(each).__name__
)
def test_an_ended_execution_refuses_every_command_with_the_reason(command: Control) -> None:
    given = running({"a": {"set": 1}}).when(command)
    assert given.events[-1] == CommandRefused(command.id, "the execution has ended: it is succeeded")


@pytest.mark.parametrize(("first", "again"), [(CANCEL, CANCEL), (TERMINATE, TERMINATE)])
def test_ending_it_again_the_same_way_changes_nothing(first: Control, again: Control) -> None:
    given = running(CHAIN).when(first)
    before = len(given.events)
    assert len(given.when(again).events) == before


def test_a_command_to_an_execution_that_never_began_decides_nothing() -> None:
    Given(plan_of(CHAIN)).when(PAUSE, SIGNAL, CANCEL).then_nothing()
