"""Starts, commands and their answers to the last detail: what mutation testing found untested."""

from typing import Any

import pytest
from scenario import BOOM, EXECUTION, NOW, due, failure, output, plan_of, running, start

from perdure.actors.decisions import decide
from perdure.actors.evolve import evolve
from perdure.actors.inputs import (
    CancelExecution,
    ChangeInput,
    CompleteNode,
    Continue,
    DecideApproval,
    ExtendDeadline,
    PauseExecution,
    Recover,
    ReportChild,
    ReportFailure,
    ReportLoss,
    ReportSuccess,
    ResumeExecution,
    RetryExecution,
    SignalExecution,
    SkipNode,
    TerminateExecution,
)
from perdure.actors.state import INITIAL, Purged
from perdure.events.vocabulary import (
    CommandRefused,
    Error,
    ExecutionCancelling,
    ExecutionPurged,
    InputChanged,
    Intervened,
    NodeCancelled,
    NodeSucceeded,
    NodeWaiting,
    TimerArmed,
)

TAKE: dict[str, Any] = {"tool": "take", "compensate": {"tool": "give"}}


# starts, and what is lost


def test_the_id_of_a_purged_execution_stays_taken() -> None:
    plan = plan_of({"a": {"set": 1}})
    purged = Purged(ExecutionPurged("flow", "d", "succeeded", NOW, NOW, 1))
    why = "the execution id was used by an execution that has been purged"
    assert decide(plan, EXECUTION, purged, start(plan, command="s-9"), NOW)[0] == [CommandRefused("s-9", why)]


def test_nothing_can_happen_before_the_start() -> None:
    with pytest.raises(ValueError, match="NodeSucceeded before ExecutionStarted"):
        evolve(INITIAL, NodeSucceeded("a", 1))


def test_a_node_that_keeps_taking_its_worker_down_stops_the_others_of_its_item_and_they_are_not_resumed() -> None:
    nodes = {
        "all": {"foreach": {"items": [1], "on_failure": "continue"}, "do": {"a": {"tool": "t"}, "b": {"tool": "t"}}}
    }
    given = running(nodes).when(*[ReportLoss("all[0]/a", 1)] * 3, Recover())
    assert output(given) == {"all": [None]}


# commands


def test_a_catching_node_cannot_be_settled_by_hand() -> None:
    given = running({"a": {"fail": "no", "catch": [{"then": "h"}]}, "h": {"tool": "t"}})
    given.when(SkipNode("k", EXECUTION, "a"))
    assert given.events[-1] == CommandRefused("k", "node 'a' is catching already")


def test_only_what_is_being_compensated_cannot_be_settled_by_hand() -> None:
    body = {"take": TAKE, "use": {"tool": "use", "needs": "take"}}
    given = running({"all": {"foreach": {"items": [1]}, "do": body}, "b": {"tool": "t"}}, failure="drain")
    given.when(ReportSuccess("all[0]/take", 1), ReportFailure("all[0]/use", 1, BOOM))
    given.when(SkipNode("k-1", EXECUTION, "all"), SkipNode("k-2", EXECUTION, "b"))
    refusal = "node 'all' is being compensated; wait for the end of that"
    assert [event for event in given.events if isinstance(event, CommandRefused)] == [CommandRefused("k-1", refusal)]
    assert given.now.nodes["b"].status == "skipped"


def test_a_node_that_is_completed_by_hand_was_at_its_attempt() -> None:
    given = running({"a": {"tool": "t", "retry": {"attempts": 3, "delay": 1}}}).when(ReportFailure("a", 1, BOOM))
    given.when(due(given, "retry/a")).when(CompleteNode("c", EXECUTION, "a", 7, "seen", "ann"))
    assert Intervened("complete", "a", "seen", "ann") in given.events
    assert NodeSucceeded("a", 2, 7) in given.events


def test_a_node_that_is_skipped_by_hand_shows_no_input() -> None:
    given = running({"a": {"tool": "t", "with": {"n": 1}}}).when(SkipNode("k", EXECUTION, "a"))
    assert given.now.nodes["a"].input is None


def test_another_input_and_a_later_deadline_are_recorded_with_who_and_why() -> None:
    nodes = {"a": {"tool": "t", "deadline": "1h"}, "b": {"tool": "t", "with": {"n": 1}, "needs": "a"}}
    given = running(nodes)
    before, at = len(given.events), given.now.timers["deadline/a"]
    given.when(ChangeInput("i", EXECUTION, "b", {"n": 2}, "typo", "ann"))
    given.when(ExtendDeadline("e", EXECUTION, "a", 60, "slow", "bob"))
    assert given.events[before:-1] == [
        Intervened("input", "b", "typo", "ann"),
        InputChanged("b", {"n": 2}),
        Intervened("deadline", "a", "slow", "bob"),
    ]
    assert isinstance(given.events[-1], TimerArmed)
    assert (given.events[-1].due - at).total_seconds() == 60


def test_what_has_no_deadline_cannot_be_extended() -> None:
    given = running({"a": {"tool": "t"}})
    given.when(ExtendDeadline("e-1", EXECUTION, "a", 60), ExtendDeadline("e-2", EXECUTION, "", 60))
    assert given.events[-2:] == [
        CommandRefused("e-1", "node 'a' has no deadline now"),
        CommandRefused("e-2", "the execution has no timeout"),
    ]


def test_a_declared_signal_is_checked_by_its_data() -> None:
    given = running({"a": {"wait": {"signal": "go"}}}, signals={"go": {"schema": {"type": "object"}}})
    given.when(SignalExecution("s-1", EXECUTION, "go", 1))
    assert isinstance(given.events[-1], CommandRefused)
    assert given.events[-1].reason.startswith("the data of signal 'go' does not fit: ")
    assert output(given.when(SignalExecution("s-2", EXECUTION, "go", {}))) == {"a": {}}


def test_a_signal_that_was_kept_and_taken_is_forgotten() -> None:
    nodes = {"a": {"tool": "t"}, "b": {"wait": {"signal": "go"}, "needs": "a"}, "c": {"tool": "t", "needs": "b"}}
    given = running(nodes).when(SignalExecution("s", EXECUTION, "go", 1), ReportSuccess("a", 1))
    assert dict(given.now.signals) == {}


def test_an_answer_that_does_not_fit_or_is_not_asked_for_is_refused_by_its_id() -> None:
    form = {"type": "object", "required": ["why"]}
    given = running({"a": {"approval": {"title": "?", "form": form}}, "b": {"approval": {"title": "?"}}})
    given.when(DecideApproval("d-1", EXECUTION, "a", approved=True, data={}))
    given.when(DecideApproval("d-2", EXECUTION, "zzzzzz", approved=True))
    first, second = given.events[-2:]
    assert isinstance(first, CommandRefused)
    assert isinstance(second, CommandRefused)
    assert (first.command, second.command) == ("d-1", "d-2")
    assert "the data does not fit the form: " in first.reason
    assert second.reason == "approval 'zzzzzz': there is no such approval now; a, b is asked for"


@pytest.mark.parametrize(("by", "message"), [("ann", "rejected by ann"), ("", "rejected")])
def test_a_rejection_says_by_whom(by: str, message: str) -> None:
    given = running({"a": {"approval": {"title": "?"}}})
    given.when(DecideApproval("d", EXECUTION, "a", approved=False, by=by))
    assert failure(given) == Error("Rejected", message, {"approved": False, "by": by, "data": None})


@pytest.mark.parametrize(("reason", "told"), [("enough", "enough"), ("", "the execution was terminated")])
def test_what_a_terminate_stops_has_its_reason(reason: str, told: str) -> None:
    given = running({"a": {"tool": "t"}}).when(TerminateExecution("t", EXECUTION, reason))
    assert NodeCancelled("a", told) in given.events


@pytest.mark.parametrize(("reason", "told"), [("enough", "enough"), ("", "the execution was cancelled")])
def test_a_cancel_is_recorded_with_who_and_why(reason: str, told: str) -> None:
    given = running({"a": {"tool": "t"}}).when(CancelExecution("c", EXECUTION, reason, "ann"))
    assert ExecutionCancelling(reason, "ann") in given.events
    assert NodeCancelled("a", told) in given.events


# what is told


def test_an_approval_says_what_it_asks_and_whom() -> None:
    given = running({"a": {"approval": {"title": "Go?", "details": {"n": 1}, "assignees": ["ann"]}}})
    asked = {"title": "Go?", "details": {"n": 1}, "assignees": ["ann"], "approval": True}
    assert given.events[-1] == NodeWaiting("a", 1, asked)


def test_the_execution_has_an_id_and_a_workflow() -> None:
    assert output(running({"a": {"set": "${{ [execution.id, execution.workflow] }}"}})) == {"a": [EXECUTION, "flow"]}


def test_a_node_that_had_not_begun_is_completed_at_its_first_attempt() -> None:
    given = running({"a": {"tool": "t"}, "b": {"tool": "t", "needs": "a"}}).when(CompleteNode("c", EXECUTION, "b", 7))
    assert NodeSucceeded("b", 1, 7) in given.events


def test_a_retry_of_what_has_not_failed_is_refused_by_its_id() -> None:
    given = running({"a": {"tool": "t"}}).when(RetryExecution("y", EXECUTION))
    assert given.events[-1] == CommandRefused("y", "it is running; only a failed execution is retried")


@pytest.mark.parametrize(
    ("signals", "sent", "told"),
    [
        ({"go": {}, "also": {}}, "xxxxx", "the workflow takes no signal 'xxxxx'; it takes also, go"),
        ({}, "xxxxx", "the workflow takes no signal 'xxxxx'; it takes none"),
        ({"finish": {}}, "finnish", "the workflow takes no signal 'finnish'; did you mean 'finish'?"),
    ],
)
def test_a_signal_that_is_not_taken_says_which_are(signals: dict[str, Any], sent: str, told: str) -> None:
    given = running({"a": {"tool": "t"}}, signals=signals).when(SignalExecution("s", EXECUTION, sent))
    assert given.events[-1] == CommandRefused("s", told)


def test_an_answer_to_a_name_that_is_nearly_right_says_the_right_one() -> None:
    given = running({"confirm": {"approval": {"title": "?"}}})
    given.when(DecideApproval("d", EXECUTION, "confrm", approved=True))
    assert isinstance(given.events[-1], CommandRefused)
    assert "did you mean 'confirm'?" in given.events[-1].reason


# what is refused, or means nothing


def test_a_report_that_comes_after_the_end_means_nothing() -> None:
    given = running({"a": {"tool": "t"}, "b": {"tool": "t"}}).when(ReportFailure("a", 1, BOOM))
    before = len(given.events)
    given.when(ReportSuccess("b", 1), ReportLoss("b", 1), ReportChild("e", EXECUTION, "nobody"))
    assert len(given.events) == before


def test_only_an_approval_takes_an_answer() -> None:
    given = running({"w": {"wait": {"signal": "go"}}, "t": {"tool": "t"}})
    for node in ("w", "t"):
        given.when(DecideApproval(f"d-{node}", EXECUTION, node, approved=True))
        why = f"approval {node!r}: there is no such approval now; nothing is asked for"
        assert given.events[-1] == CommandRefused(f"d-{node}", why)


def test_a_call_that_undoes_and_a_node_of_an_item_that_is_undone_cannot_be_settled_by_hand() -> None:
    body = {"take": TAKE, "use": {"tool": "use", "needs": "take"}, "more": {"tool": "t", "needs": "use"}}
    nodes = {"all": {"foreach": {"items": [1], "on_failure": "continue"}, "do": body}, "b": {"tool": "t"}}
    given = running(nodes).when(ReportSuccess("all[0]/take", 1), ReportFailure("all[0]/use", 1, BOOM))
    given.when(SkipNode("k-1", EXECUTION, "all[0]/take~undo"), SkipNode("k-2", EXECUTION, "all[0]/more"))
    first, second = given.events[-2:]
    assert isinstance(first, CommandRefused)
    assert first.reason.startswith("there is no node 'all[0]/take~undo' in this workflow")
    assert second == CommandRefused("k-2", "what node 'all[0]/more' is part of does not run now")


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (PauseExecution("x", EXECUTION), "the execution is being cancelled"),
        (CancelExecution("x", EXECUTION), "the execution is at its end already; terminate it to end it at once"),
    ],
)
def test_a_command_at_the_end_is_refused_by_its_id(command: PauseExecution | CancelExecution, why: str) -> None:
    ends = {name: {"x": {"tool": "t"}} for name in ("on_cancel", "on_failure")}
    given = running({"a": {"tool": "t"}}, **ends)
    first = CancelExecution("c", EXECUTION) if isinstance(command, PauseExecution) else ReportFailure("a", 1, BOOM)
    assert given.when(first, command).events[-1] == CommandRefused("x", why)


def test_a_new_owner_goes_on_with_what_runs_at_the_end() -> None:
    last = {"all": {"foreach": {"items": list(range(2000))}, "do": {"x": {"set": 1}}}}
    given = running({"a": {"set": 1}}, **{"finally": last})
    assert given.now.outcome is None
    for _ in range(20):
        given.when(Continue())
    assert output(given) == {"a": 1}


def test_a_resume_begins_what_was_held_in_every_body() -> None:
    nodes = {
        "all": {"foreach": {"items": [1]}, "do": {"x": {"tool": "t"}, "y": {"tool": "t", "needs": "x"}}},
        "race": {"parallel": {"branches": {"l": {"do": {"x": {"tool": "t"}, "y": {"tool": "t", "needs": "x"}}}}}},
    }
    given = running(nodes).when(PauseExecution("p", EXECUTION))
    given.when(ReportSuccess("all[0]/x", 1), ReportSuccess("race/l/x", 1))
    assert not given.now.running
    assert set(given.when(ResumeExecution("r", EXECUTION)).now.running) == {"all[0]/y", "race/l/y"}


def test_a_node_that_is_cancelled_says_why_and_keeps_its_input() -> None:
    given = running({"a": {"tool": "t"}, "b": {"tool": "t", "with": {"n": 1}}}).when(ReportFailure("a", 1, BOOM))
    node = given.now.nodes["b"]
    assert (node.status, node.reason, node.input) == ("cancelled", "node 'a' failed", {"n": 1})


def test_a_signal_that_nobody_took_is_kept_for_a_retry() -> None:
    nodes = {"a": {"tool": "t"}, "b": {"wait": {"signal": "go"}, "needs": "a"}}
    given = running(nodes).when(SignalExecution("s", EXECUTION, "go", 1), ReportFailure("a", 1, BOOM))
    given.when(RetryExecution("y", EXECUTION), ReportSuccess("a", 1))
    assert output(given) == {"b": 1}


def test_nothing_is_held_any_more_at_the_end() -> None:
    given = running({"a": {"wait": "1h"}, "b": {"tool": "t"}}).when(PauseExecution("p", EXECUTION))
    given.when(due(given, "wait/a")).when(TerminateExecution("t", EXECUTION))
    assert given.now.held == ()
