"""Finer points of deciding, which mutation testing found untested: one sentence each."""

from typing import Any

import pytest
from scenario import BOOM, EXECUTION, NOW, due, failure, output, plan_of, running, start

from perdure.actors.decisions import decide
from perdure.actors.evolve import evolve
from perdure.actors.inputs import (
    CancelExecution,
    ChangeInput,
    CompleteNode,
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
from perdure.actors.signals import misfit
from perdure.actors.state import INITIAL, Purged
from perdure.events.vocabulary import (
    BodyStarted,
    ChildEnded,
    CommandRefused,
    CompensationStarted,
    Error,
    ExecutionCancelling,
    ExecutionFailed,
    ExecutionPurged,
    InputChanged,
    Intervened,
    NodeAttemptFailed,
    NodeCancelled,
    NodeFailed,
    NodeScheduled,
    NodeSucceeded,
    TimerArmed,
    TimerCancelled,
)

LEAF = {"name": "leaf", "nodes": {"x": {"set": 1}}}
TAKE: dict[str, Any] = {"tool": "take", "compensate": {"tool": "give"}}
TIMEOUT = "it took longer than 60 s"


# starts, and what is lost


def test_the_id_of_a_purged_execution_stays_taken() -> None:
    plan = plan_of({"a": {"set": 1}})
    purged = Purged(ExecutionPurged("flow", "d", "succeeded", NOW, NOW, 1))
    why = "the execution id was used by an execution that has been purged"
    assert decide(plan, EXECUTION, purged, start(plan, command="s-9"), NOW) == [CommandRefused("s-9", why)]


def test_nothing_can_happen_before_the_start() -> None:
    with pytest.raises(ValueError, match="NodeSucceeded before ExecutionStarted"):
        evolve(INITIAL, NodeSucceeded("a", 1))


def test_a_node_that_keeps_taking_its_worker_down_stops_the_others_of_its_item_and_they_are_not_resumed() -> None:
    nodes = {
        "all": {"foreach": {"items": [1], "on_failure": "continue"}, "do": {"a": {"tool": "t"}, "b": {"tool": "t"}}}
    }
    given = running(nodes).when(*[ReportLoss("all[0]/a", 1)] * 3, Recover())
    assert output(given) == {"all": [None]}


# data


def test_the_output_of_a_node_within_an_item_may_read_the_item() -> None:
    body = {"a": {"tool": "t", "output": "${{ [item, output] }}"}}
    given = running({"all": {"foreach": {"items": ["i"]}, "do": body}}).when(ReportSuccess("all[0]/a", 1, 1))
    assert output(given) == {"all": [{"a": ["i", 1]}]}


def test_what_is_within_a_handler_may_read_the_error() -> None:
    handler = {"foreach": {"items": [1]}, "tool": "t", "with": {"why": "${{ error.type }}"}}
    given = running({"a": {"fail": "no", "catch": [{"then": "h"}]}, "h": handler})
    assert given.events[-1] == NodeScheduled("h[0]/do", 1, {"why": "Failed"})


def test_what_runs_at_the_end_sees_nodes_that_never_began_as_pending() -> None:
    nodes = {"a": {"tool": "t", "with": {"n": 1}}, "b": {"tool": "t", "needs": "a"}}
    seen = "${{ [nodes.a.status, nodes.a.input, nodes.b.status, nodes.b.output, nodes.b.input] }}"
    given = running(nodes, on_failure={"x": {"set": seen}}).when(ReportFailure("a", 1, BOOM))
    assert given.now.nodes["on_failure/x"].output == ["failed", {"n": 1}, "pending", None, None]


def test_a_catch_may_read_the_error_and_the_caught_node_keeps_it() -> None:
    text = "${{ [error.type, error.message, error.data] }}"
    given = running({"a": {"fail": {"type": "T", "message": "m", "data": 1}, "catch": [{"output": text}]}})
    assert output(given) == {"a": ["T", "m", 1]}
    assert given.now.nodes["a"].error == Error("T", "m", 1)


def test_an_aggregate_within_a_body_takes_the_nodes_beside_it() -> None:
    body = {"a": {"set": 1}, "b": {"set": 2}, "sum": {"aggregate": {"from": ["a", "b"], "how": "collect"}}}
    assert output(running({"all": {"foreach": {"items": [0]}, "do": body}})) == {"all": [{"sum": [1, 2]}]}


@pytest.mark.parametrize(
    ("node", "error"),
    [
        ({"aggregate": {"items": "[]", "how": "vote"}}, Error("NoVotes", "nobody voted")),
        (
            {"aggregate": {"items": "input.n", "how": "vote"}},
            Error("ExpressionError", "'items' of node 'a' gave 1, which is no list"),
        ),
        ({"foreach": {"items": [1]}, "do": {"x": {"set": 1}}, "output": "${{ input.no }}"}, None),
        ({"workflow": {"name": "leaf", "id": "x" * 201}}, None),
        ({"workflow": {"name": "leaf", "id": "${{ input.n }}"}}, None),
    ],
)  # fmt: skip
def test_what_a_node_cannot_work_with_fails_it(node: dict[str, Any], error: Error | None) -> None:
    given = running({"a": node}, {"n": 1}, workflows={"leaf": LEAF})
    found = failure(given)
    assert (found == error) if error else found.type in ("ExpressionError", "Invalid")


def test_two_children_of_one_id_at_once_are_refused_by_the_second() -> None:
    nodes = {name: {"workflow": {"name": "leaf", "id": "same"}} for name in "ab"}
    error = failure(running(nodes, workflows={"leaf": LEAF}))
    assert error == Error("Invalid", "a child 'same' of this execution is at work already")


def test_the_longest_id_of_a_child_has_two_hundred_characters() -> None:
    given = running({"a": {"workflow": {"name": "leaf", "id": "x" * 200}}}, workflows={"leaf": LEAF})
    assert set(given.now.children) == {"x" * 200}


def test_a_schema_that_refers_to_nothing_fits_nothing() -> None:
    assert misfit({"$ref": "#/$defs/gone"}, 1) == "its schema refers to '/$defs/gone', which is not in it"


# bodies


def test_the_output_of_a_body_that_cannot_be_made_fails_the_node() -> None:
    foreach = {"foreach": {"items": [1]}, "do": {"x": {"set": 1}}, "catch": [{"on": "ExpressionError", "output": 0}]}
    branches = {"l": {"do": {"x": {"set": 1}}, "output": "${{ input.no }}"}}
    given = running({"a": {"parallel": {"branches": branches}, "catch": foreach["catch"]}}, {})
    assert output(given) == {"a": 0}


@pytest.mark.parametrize(
    "node",
    [{"foreach": {"items": [1, 2], "max_parallel": 1}, "tool": "t"}, {"loop": {"max_iterations": 2}, "tool": "t"}],
)
def test_no_item_and_no_pass_begins_during_a_pause(node: dict[str, Any]) -> None:
    given = running({"a": node}).when(PauseExecution("p", EXECUTION), ReportSuccess("a[0]/do", 1))
    assert BodyStarted("a[1]") not in given.events
    given.when(ResumeExecution("r", EXECUTION))
    assert BodyStarted("a[1]") in given.events


def test_a_loop_that_may_go_on_at_its_bound_is_exhausted() -> None:
    given = running({"a": {"loop": {"while": "True", "max_iterations": 1}, "do": {"x": {"set": 1}}}})
    assert failure(given) == Error("LoopExhausted", "loop 'a' is not done after 1 passes, its max_iterations")


def test_too_many_failed_items_say_how_many_and_one_of_their_errors() -> None:
    node = {"foreach": {"items": [1, 2], "on_failure": {"threshold": 1}}, "do": {"x": {"fail": "no"}}}
    assert failure(running({"a": node})) == Error("TooManyFailed", "2 of 2 items failed; one of them: no")


def test_bodies_run_at_the_end_too() -> None:
    node = {"foreach": {"items": [1, 2]}, "tool": "t"}
    given = running({"a": {"set": 1}}, **{"finally": {"all": node}})
    given.when(ReportSuccess("finally/all[1]/do", 1, 2), ReportSuccess("finally/all[0]/do", 1, 1))
    assert given.now.nodes["finally/all"].output == [1, 2]
    assert output(given) == {"a": 1}


def test_an_error_in_finally_names_the_node_that_failed() -> None:
    given = running({"a": {"set": 1}}, **{"finally": {"a": {"set": 1}, "b": {"fail": "no", "needs": "a"}}})
    assert given.events[-1] == ExecutionFailed(Error("Failed", "no"), "finally/b")


def test_an_output_that_cannot_be_made_is_no_nodes_fault() -> None:
    given = running({"a": {"set": 1}}, {}, output="${{ input.no }}")
    assert isinstance(given.now.outcome, ExecutionFailed)
    assert (given.now.outcome.node, given.now.outcome.attempt) == (None, 0)
    assert given.now.outcome.error.type == "ExpressionError"


def test_what_waits_for_a_caught_node_waits_for_its_handler() -> None:
    nodes = {
        "a": {"fail": "no", "catch": [{"then": "h"}]},
        "h": {"tool": "t"},
        "c": {"tool": "t"},
        "b": {"tool": "t", "needs": ["a", "c"]},
    }
    given = running(nodes).when(ReportSuccess("c", 1))
    assert set(given.now.running) == {"h"}


# timers


@pytest.mark.parametrize(
    "node",
    [
        {"wait": {"signal": "go"}},
        {"approval": {"title": "?"}},
        {"workflow": "leaf"},
        {"foreach": {"items": [1]}, "tool": "t"},
        {"loop": {"max_iterations": 1}, "tool": "t"},
        {"parallel": {"branches": {"l": {"tool": "t"}}}},
    ],
)
def test_an_attempt_at_anything_that_waits_has_a_durable_timeout(node: dict[str, Any]) -> None:
    nodes = {"a": {**node, "timeout": "1m", "retry": {"attempts": 2, "delay": 1}}}
    given = running(nodes, workflows={"leaf": LEAF})
    given.when(due(given, "timeout/a"))
    assert NodeAttemptFailed("a", 1, Error("Timeout", TIMEOUT)) in given.events
    assert set(given.now.timers) == {"retry/a"}
    given.when(due(given, "retry/a"))
    given.when(due(given, "timeout/a"))
    assert given.events[-1] == ExecutionFailed(Error("Timeout", TIMEOUT), "a", 2)


def test_a_rejected_attempt_leaves_no_timer_but_that_of_the_next() -> None:
    approval = {"approval": {"title": "?", "timeout": "2m"}, "timeout": "1m", "retry": {"attempts": 2, "delay": 1}}
    given = running({"a": approval}).when(DecideApproval("d", EXECUTION, "a", approved=False))
    assert set(given.now.timers) == {"retry/a"}


def test_a_timer_that_is_held_is_disarmed_with_its_node() -> None:
    given = running({"a": {"wait": "1h"}, "b": {"tool": "t"}}).when(PauseExecution("p", EXECUTION))
    given.when(due(given, "wait/a")).when(CompleteNode("c", EXECUTION, "a", 1))
    assert TimerCancelled("wait/a") in given.events
    assert given.now.held == ()


# compensation


def test_what_could_not_be_undone_keeps_its_place_in_the_order_when_the_execution_is_retried() -> None:
    nodes = {"z": TAKE, "b": {**TAKE, "needs": "z"}, "c": {"tool": "t", "needs": "b"}}
    given = running(nodes).when(ReportSuccess("z", 1), ReportFailure("b", 1, BOOM), ReportFailure("z~undo", 1, BOOM))
    given.when(RetryExecution("y", EXECUTION), ReportSuccess("b", 1), ReportFailure("c", 1, BOOM))
    assert given.events[-2] == CompensationStarted("", "execution", ["b", "z"], BOOM)


def test_a_call_that_cannot_be_made_has_failed_to_undo_at_its_first_attempt() -> None:
    nodes = {"a": {"tool": "t", "compensate": {"tool": "u", "with": {"x": "${{ input.no }}"}}}, "b": {"tool": "t"}}
    given = running(nodes, {}).when(ReportSuccess("a", 1), ReportFailure("b", 1, BOOM))
    (failed,) = [event for event in given.events if isinstance(event, NodeFailed) and event.node == "a~undo"]
    assert (failed.attempt, failed.error.type) == (1, "ExpressionError")


def test_branches_within_items_are_undone_when_their_foreach_is_long_done() -> None:
    race = {"parallel": {"branches": {"left": {"do": {"take": TAKE}}}}}
    given = running({"all": {"foreach": {"items": [1]}, "do": {"race": race}}, "bad": {"tool": "t", "needs": "all"}})
    given.when(ReportSuccess("all[0]/race/left/take", 1), ReportFailure("bad", 1, BOOM))
    assert CompensationStarted("", "execution", ["all[0]/race/left/take"], BOOM) in given.events


def test_the_tries_of_a_whole_node_are_counted_though_each_is_compensated() -> None:
    body = {"take": TAKE, "use": {"tool": "use", "needs": "take"}}
    given = running({"all": {"foreach": {"items": [1]}, "do": body, "retry": {"attempts": 2, "delay": 1}}})
    for attempt in (1, 2):
        given.when(ReportSuccess("all[0]/take", 1), ReportFailure("all[0]/use", 1, BOOM))
        given.when(ReportSuccess("all[0]/take~undo", 1))
        if attempt == 1:
            given.when(due(given, "retry/all"))
    assert given.events[-1] == ExecutionFailed(BOOM, "all", 2)


def test_nothing_is_being_undone_any_more_once_an_item_was() -> None:
    body = {"take": TAKE, "use": {"tool": "use", "needs": "take"}}
    nodes = {"all": {"foreach": {"items": [1], "on_failure": "continue"}, "do": body}, "b": {"tool": "t"}}
    given = running(nodes).when(ReportSuccess("all[0]/take", 1), ReportFailure("all[0]/use", 1, BOOM))
    given.when(ReportSuccess("all[0]/take~undo", 1))
    assert dict(given.now.undoing) == {}


def test_what_is_stopped_is_stopped_in_the_order_of_its_paths() -> None:
    names = [f"n{number}" for number in range(9)]
    given = running({"bad": {"tool": "t"}, **{name: {"tool": "t"} for name in reversed(names)}})
    given.when(ReportFailure("bad", 1, BOOM))
    assert [event.node for event in given.events if isinstance(event, NodeCancelled)] == names


# children


def test_a_child_that_comes_too_late_for_its_attempt_is_only_noted() -> None:
    node = {"workflow": "leaf", "timeout": "1m", "retry": {"attempts": 2, "delay": 1}}
    given = running({"a": node}, workflows={"leaf": LEAF})
    given.when(due(given, "timeout/a")).when(ReportChild("e", EXECUTION, "x-1.a", 1))
    assert given.events[-1] == ChildEnded("x-1.a")


def test_a_child_of_an_item_that_has_failed_meanwhile_is_only_noted() -> None:
    body = {"c": {"workflow": "leaf"}, "t": {"tool": "t"}}
    nodes = {"all": {"foreach": {"items": [1], "on_failure": "continue"}, "do": body}, "b": {"tool": "t"}}
    given = running(nodes, workflows={"leaf": LEAF}).when(ReportFailure("all[0]/t", 1, BOOM))
    given.when(ReportChild("e", EXECUTION, "x-1.all[0]/c", 1))
    assert given.events[-1] == ChildEnded("x-1.all[0]/c")


def test_a_child_of_an_earlier_try_of_what_is_around_its_node_is_only_noted() -> None:
    body = {"c": {"workflow": "leaf"}, "t": {"tool": "t"}}
    nodes = {"all": {"foreach": {"items": [1]}, "do": body, "retry": {"attempts": 2, "delay": 1}}}
    given = running(nodes, workflows={"leaf": LEAF}).when(ReportFailure("all[0]/t", 1, BOOM))
    given.when(due(given, "retry/all")).when(ReportChild("e", EXECUTION, "x-1.all[0]/c", 1))
    assert given.events[-1] == ChildEnded("x-1.all[0]/c")
    assert given.now.nodes["all[0]/c"].status == "waiting"


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
