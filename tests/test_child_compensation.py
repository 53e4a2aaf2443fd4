"""Compensation across executions: children undo what they did, and children are run to undo something."""

from typing import Any

import pytest
from scenario import BOOM, EXECUTION, NOW, Given, due, failure, plan_of, running

from perdure.actors.children import to_close, to_compensate, to_start
from perdure.actors.compensated import TOLD, refusal
from perdure.actors.decisions import decide
from perdure.actors.inputs import (
    CancelExecution,
    CompensateExecution,
    CompleteNode,
    Input,
    PauseExecution,
    ReportChild,
    ReportCompensation,
    ReportFailure,
    ReportSuccess,
    ResumeExecution,
    RetryExecution,
    StartExecution,
    TerminateExecution,
)
from perdure.actors.state import INITIAL, Purged
from perdure.definitions.loading import load
from perdure.errors import ExecutionStopped
from perdure.events.vocabulary import (
    ChildRequested,
    CompensationStarted,
    Error,
    ExecutionCompensated,
    ExecutionCompensating,
    ExecutionPurged,
    ExecutionSucceeded,
    ExecutionTerminated,
    NodeFailed,
    NodeScheduled,
    NodeSucceeded,
    NodeWaiting,
    Parent,
)
from perdure.testing import fails, pause, play, resume, retry, takes

LEAF = {"name": "leaf", "nodes": {"x": {"set": 1}}}
CHILD: dict[str, Any] = {"workflow": "leaf"}
TAKE: dict[str, Any] = {"tool": "take", "compensate": {"tool": "give"}}


def ended(child: str, **parts: Any) -> ReportChild:
    return ReportChild(f"{child}/ended", EXECUTION, child, **parts)


def undone(given: Given, error: Error | None = None) -> ReportCompensation:
    """What the child answers that is being undone now."""
    (command,) = to_compensate(EXECUTION, given.now)
    return ReportCompensation(f"{command.id}/done", EXECUTION, command.parent.node, command.execution, error)


def failing(nodes: dict[str, Any], *children: str, value: Any = None) -> Given:
    """A parent whose children have succeeded, and whose node `bad` fails behind them."""
    given = running({**nodes, "bad": {"tool": "bad", "needs": list(nodes)}}, value, workflows={"leaf": LEAF})
    for child in children:
        given.when(ended(child, output=1))
    return given.when(ReportFailure("bad", 1, BOOM))


# the parent


def test_a_child_that_succeeded_is_told_to_undo_what_it_did() -> None:
    given = failing({"a": CHILD}, "x-1.a")
    assert given.events[-2:] == [
        CompensationStarted("", "execution", ["a"], BOOM),
        NodeWaiting("a~undo", 1, {"compensation": "x-1.a"}),
    ]
    command = CompensateExecution("x-1.a/compensate", "x-1.a", Parent(EXECUTION, "a~undo", 1, "0"), BOOM)
    assert list(to_compensate(EXECUTION, given.now)) == [command]


def test_a_parent_waits_for_the_answer_and_then_undoes_the_next() -> None:
    given = failing({"a": CHILD, "b": {**CHILD, "needs": "a"}}, "x-1.a", "x-1.b")
    given.when(undone(given))
    assert given.events[-2:] == [NodeSucceeded("b~undo", 1), NodeWaiting("a~undo", 1, {"compensation": "x-1.a"})]
    assert failure(given.when(undone(given))) == BOOM
    assert {given.now.nodes[name].status for name in "ab"} == {"compensated"}
    assert list(to_compensate(EXECUTION, given.now)) == []


def test_a_child_that_could_not_be_undone_is_recorded_and_the_rest_goes_on() -> None:
    given = failing({"a": CHILD, "b": {**CHILD, "needs": "a"}}, "x-1.a", "x-1.b")
    given.when(undone(given, Error("CompensationFailed", "no")))
    assert NodeFailed("b~undo", 1, Error("CompensationFailed", "no")) in given.events
    given.when(undone(given))
    assert failure(given) == BOOM
    assert [given.now.nodes[name].status for name in "ab"] == ["compensated", "succeeded"]


def test_an_answer_counts_once_and_only_for_the_call_that_waits_for_it() -> None:
    given = failing({"a": CHILD, "b": {**CHILD, "needs": "a"}}, "x-1.a", "x-1.b")
    answer, before = undone(given), len(given.events)
    given.when(ReportCompensation("other", EXECUTION, "b~undo", "x-1.a"))
    given.when(ReportCompensation("other", EXECUTION, "a~undo", "x-1.a"), ended("x-1.b", output=2))
    assert len(given.events) == before
    after = len(given.when(answer).events)
    assert len(given.when(answer).events) == after


def test_children_of_items_passes_and_branches_are_told_long_after_those_ended() -> None:
    nodes = {
        "all": {"foreach": {"items": [1, 2], "max_parallel": 1}, "workflow": "leaf"},
        "again": {"loop": {"max_iterations": 2}, "workflow": "leaf", "needs": "all"},
        "race": {"parallel": {"branches": {"l": {"workflow": "leaf"}}}, "needs": "again"},
    }
    children = [f"x-1.{place}/do" for place in ("all[0]", "all[1]", "again[0]", "again[1]", "race/l")]
    given, told = failing(nodes, *children), list[str]()
    while commands := list(to_compensate(EXECUTION, given.now)):
        told += [command.execution for command in commands]
        given.when(undone(given))
    assert told == children[::-1]
    assert failure(given) == BOOM


def test_a_losing_branch_has_its_child_undone_before_the_winner_counts() -> None:
    slow = {"do": {"take": CHILD, "more": {"tool": "t", "needs": "take"}}}
    race = {"parallel": {"join": "any", "branches": {"slow": slow, "quick": {"tool": "quick"}}}}
    given = running({"race": race}, workflows={"leaf": LEAF}).when(ended("x-1.race/slow/take", output=1))
    given.when(ReportSuccess("race/quick/do", 1, "won"))
    assert given.now.outcome is None
    given.when(undone(given))
    assert given.now.outcome == ExecutionSucceeded({"race": {"quick": "won"}})


def test_a_compensate_of_the_nodes_own_stands_for_what_its_child_did() -> None:
    given = failing({"a": {**CHILD, "compensate": {"tool": "u"}}}, "x-1.a")
    assert given.events[-1] == NodeScheduled("a~undo", 1, {"input": {"child": "x-1.a"}, "output": 1})


@pytest.mark.parametrize("node", [{"workflow": {"name": "leaf", "detach": True}}, {**CHILD, "catch": [{"output": 0}]}])
def test_a_detached_child_and_one_that_failed_are_not_told(node: dict[str, Any]) -> None:
    given = running({"a": node, "b": {"tool": "t"}}, workflows={"leaf": LEAF})
    given.when(ended("x-1.a", error=BOOM), ReportFailure("b", 1, BOOM))
    assert failure(given) == BOOM


def test_a_node_that_was_completed_by_hand_has_no_child_to_undo() -> None:
    nodes = {"a": CHILD, "b": {**CHILD, "needs": "a"}, "bad": {"tool": "t", "needs": "b"}}
    given = running(nodes, workflows={"leaf": LEAF})
    given.when(CompleteNode("c-1", EXECUTION, "b", 1), CompleteNode("c-2", EXECUTION, "a", 1))
    assert [each.child for each in to_close(given.now)] == ["x-1.a"]
    given.when(ended("x-1.a", error=Error("Cancelled", "")), ReportFailure("bad", 1, BOOM))
    assert failure(given) == BOOM


def test_a_node_that_was_completed_by_hand_after_its_child_had_failed_has_none_to_undo() -> None:
    nodes = {"a": {**CHILD, "retry": {"attempts": 2, "delay": 9}}, "bad": {"tool": "t", "needs": "a"}}
    given = running(nodes, workflows={"leaf": LEAF}).when(ended("x-1.a", error=BOOM))
    given.when(CompleteNode("c-1", EXECUTION, "a", 1), ReportFailure("bad", 1, BOOM))
    assert failure(given) == BOOM


def test_a_pause_lets_the_child_under_way_be_undone_and_holds_the_next() -> None:
    given = failing({"a": CHILD, "b": {**CHILD, "needs": "a"}}, "x-1.a", "x-1.b")
    given.when(PauseExecution("p", EXECUTION))
    given.when(undone(given))
    assert list(to_compensate(EXECUTION, given.now)) == []
    given.when(ResumeExecution("r", EXECUTION))
    assert failure(given.when(undone(given))) == BOOM


def test_a_terminated_parent_waits_for_no_answer() -> None:
    given = failing({"a": CHILD}, "x-1.a")
    answer = undone(given)
    given.when(TerminateExecution("t", EXECUTION))
    assert list(to_compensate(EXECUTION, given.now)) == []
    assert isinstance(given.when(answer).events[-1], ExecutionTerminated)


def test_a_cancel_has_children_undone_that_had_succeeded_and_closes_those_at_work() -> None:
    given = running({"a": CHILD, "b": {**CHILD, "needs": "a"}}, workflows={"leaf": LEAF}).when(ended("x-1.a"))
    given.when(CancelExecution("c", EXECUTION, "enough"))
    assert [command.error for command in to_compensate(EXECUTION, given.now)] == [Error("Cancelled", "enough")]
    assert [each.child for each in to_close(given.now)] == ["x-1.b"]
    given.when(undone(given))
    assert given.now.status == "cancelled"


def test_a_retry_runs_a_compensated_child_again_under_another_id() -> None:
    given = failing({"a": CHILD}, "x-1.a")
    given.when(undone(given), RetryExecution("y", EXECUTION))
    assert given.events[-1] == ChildRequested("a", 1, "x-1.a+1", "leaf", {})


def test_a_child_that_could_not_be_undone_is_told_again_where_the_retried_parent_fails_again() -> None:
    given = failing({"a": CHILD}, "x-1.a")
    given.when(undone(given, BOOM), RetryExecution("y", EXECUTION), ReportFailure("bad", 1, BOOM))
    (command,) = to_compensate(EXECUTION, given.now)
    assert (command.id, command.execution) == ("x-1.a/compensate+1", "x-1.a")


# the child


PARENT = Parent("up", "a", 1, "3")
COMMAND = CompensateExecution("c-1", EXECUTION, Parent("up", "a~undo", 1, "3"), BOOM)


def child(nodes: dict[str, Any], *inputs: Input, **parts: Any) -> Given:
    """A child that has come to its end by these inputs."""
    plan = plan_of(nodes, **parts)
    start = StartExecution("s", EXECUTION, plan.name, plan.digest, None, "0", parent=PARENT)
    return Given(plan).when(start, *inputs)


def test_a_child_undoes_its_completed_nodes_the_last_first_and_runs_nothing_else() -> None:
    nodes = {"a": TAKE, "b": {**TAKE, "needs": "a"}}
    last: dict[str, Any] = {name: {"x": {"set": 1}} for name in ("on_failure", "on_cancel", "finally")}
    given = child(nodes, ReportSuccess("a", 1, 1), ReportSuccess("b", 1, 2), **last)
    assert isinstance(given.now.outcome, ExecutionSucceeded)
    before = len(given.events)
    given.when(COMMAND)
    assert given.now.status == "compensating"
    given.when(ReportSuccess("b~undo", 1), ReportSuccess("a~undo", 1))
    assert isinstance(given.now.outcome, ExecutionCompensated)
    assert given.events[before:] == [
        ExecutionCompensating("c-1", BOOM),
        CompensationStarted("", "execution", ["b", "a"], BOOM),
        NodeScheduled("b~undo", 1, {"input": {}, "output": 2}),
        NodeSucceeded("b~undo", 1),
        NodeScheduled("a~undo", 1, {"input": {}, "output": 1}),
        NodeSucceeded("a~undo", 1),
        ExecutionCompensated(),
    ]


def test_a_child_with_nothing_to_undo_answers_at_once() -> None:
    given = child({"a": {"set": 1}}).when(COMMAND)
    assert given.events[-2:] == [ExecutionCompensating("c-1", BOOM), ExecutionCompensated()]


def test_a_child_undoes_its_own_children_too() -> None:
    given = child({"a": CHILD}, ended("x-1.a", output=1), workflows={"leaf": LEAF}).when(COMMAND)
    assert [command.execution for command in to_compensate(EXECUTION, given.now)] == ["x-1.a"]
    assert given.when(undone(given)).events[-1] == ExecutionCompensated()


def test_the_error_of_the_parent_is_readable_where_the_child_undoes() -> None:
    nodes = {"a": {"tool": "t", "compensate": {"tool": "u", "with": {"why": "${{ error.message }}"}}}}
    given = child(nodes, ReportSuccess("a", 1)).when(COMMAND)
    assert given.events[-1] == NodeScheduled("a~undo", 1, {"why": "it broke"})


def test_a_child_tells_what_it_could_not_undo_and_tries_that_again_when_it_is_told_again() -> None:
    nodes = {"all": {"foreach": {"items": [1]}, "do": {"a": TAKE}}, "b": {**TAKE, "needs": "all"}}
    given = child(nodes, ReportSuccess("all[0]/a", 1), ReportSuccess("b", 1)).when(COMMAND)
    given.when(ReportSuccess("b~undo", 1), ReportFailure("all[0]/a~undo", 1, BOOM))
    told = Error("CompensationFailed", "child 'x-1' could not undo 'all[0]/a' (Boom)")
    assert given.events[-1] == ExecutionCompensated(told)
    again = CompensateExecution("c-2", EXECUTION, COMMAND.parent, BOOM)
    assert refusal(EXECUTION, given.now, again) is None
    given.when(again, ReportSuccess("all[0]/a~undo", 1))
    assert given.now.nodes["b~undo"].status == "succeeded"
    assert given.events[-3:] == [
        NodeScheduled("all[0]/a~undo", 1, {"input": {}, "output": None}),
        NodeSucceeded("all[0]/a~undo", 1),
        ExecutionCompensated(),
    ]


@pytest.mark.parametrize(("many", "last"), [(TOLD, "'n09' (Boom)"), (TOLD + 2, "'n09' (Boom), and 2 more")])
def test_a_child_names_only_some_of_many_nodes_that_it_could_not_undo(many: int, last: str) -> None:
    given = child({f"n{number:02}": TAKE for number in range(many)})
    given.when(*[ReportSuccess(f"n{number:02}", 1) for number in range(many)], COMMAND)
    for number in reversed(range(many)):
        given.when(ReportFailure(f"n{number:02}~undo", 1, BOOM))
    assert isinstance(given.now.outcome, ExecutionCompensated)
    assert given.now.outcome.error is not None
    assert given.now.outcome.error.message.endswith(last)


def test_a_late_report_means_nothing_to_a_child_that_has_ended() -> None:
    given = child({"a": {"set": 1}})
    before = len(given.events)
    assert len(given.when(ReportSuccess("a", 1), ReportFailure("a", 1, BOOM)).events) == before


def test_an_execution_without_a_parent_is_nobodys_to_undo() -> None:
    given = running({"a": {"set": 1}})
    assert refusal(EXECUTION, given.state, COMMAND) == "execution 'x-1' is no child of that node"


def test_a_paused_child_holds_its_undoing_until_it_is_resumed() -> None:
    given = child({"a": TAKE, "b": {**TAKE, "needs": "a"}}, ReportSuccess("a", 1), ReportSuccess("b", 1))
    given.when(COMMAND, PauseExecution("p", EXECUTION), ReportSuccess("b~undo", 1))
    assert (given.now.status, given.events[-1]) == ("paused", NodeSucceeded("b~undo", 1))
    given.when(ResumeExecution("r", EXECUTION), ReportSuccess("a~undo", 1))
    assert given.now.status == "compensated"


def test_a_child_that_is_terminated_while_it_undoes_stops_at_once() -> None:
    given = child({"a": TAKE}, ReportSuccess("a", 1)).when(COMMAND, TerminateExecution("t", EXECUTION, "no"))
    assert (given.now.status, dict(given.now.running)) == ("terminated", {})


def test_a_child_is_undone_only_after_its_success_and_only_for_its_parent() -> None:
    done = child({"a": TAKE}, ReportSuccess("a", 1))
    stranger = CompensateExecution("c-9", EXECUTION, Parent("stranger", "a~undo", 1, "0"), BOOM)
    at_work = child({"a": TAKE})
    failed = child({"a": TAKE}, ReportFailure("a", 1, BOOM))
    for given, command, why in (
        (done, stranger, "execution 'x-1' is no child of that node"),
        (at_work, COMMAND, "child 'x-1' is running"),
        (failed, COMMAND, "child 'x-1' is failed"),
    ):
        before = len(given.events)
        assert refusal(EXECUTION, given.state, command) == why
        assert len(given.when(command).events) == before
    purged = Purged(ExecutionPurged("flow", "d", "succeeded", NOW, NOW, 1))
    assert refusal(EXECUTION, purged, COMMAND) == "the past of child 'x-1' has been removed"
    assert refusal(EXECUTION, INITIAL, COMMAND) == "there is no execution 'x-1'"
    assert decide(at_work.plan, EXECUTION, purged, COMMAND, NOW)[0] == []


def test_a_command_that_is_at_work_or_done_already_is_not_refused() -> None:
    given = child({"a": TAKE}, ReportSuccess("a", 1)).when(COMMAND)
    assert refusal(EXECUTION, given.state, COMMAND) is None
    other = CompensateExecution("c-2", EXECUTION, COMMAND.parent, BOOM)
    assert refusal(EXECUTION, given.state, other) == "child 'x-1' is compensating"
    given.when(ReportSuccess("a~undo", 1))
    assert refusal(EXECUTION, given.state, COMMAND) is None


# a child that undoes


def undoing(**parts: Any) -> Given:
    call = {"workflow": "leaf", **parts}
    nodes = {"a": {"tool": "t", "with": {"n": 1}, "compensate": call}, "bad": {"tool": "t", "needs": "a"}}
    given = running(nodes, workflows={"leaf": LEAF}).when(ReportSuccess("a", 1, 2))
    return given.when(ReportFailure("bad", 1, BOOM))


def test_a_workflow_that_undoes_runs_as_a_child_and_is_waited_for() -> None:
    given = undoing()
    asked = ChildRequested("a~undo", 1, "x-1.a~undo", "leaf", {"input": {"n": 1}, "output": 2})
    assert given.events[-1] == asked
    assert list(to_start(given.now)) == [asked]
    assert list(to_compensate(EXECUTION, given.now)) == []
    assert failure(given.when(ended("x-1.a~undo", output=3))) == BOOM
    assert given.now.nodes["a"].status == "compensated"


def test_a_workflow_that_undoes_has_the_input_and_the_id_that_it_is_given() -> None:
    call = {"name": "leaf", "id": "undo-${{ nodes.a.output }}-${{ error.type }}"}
    given = undoing(workflow=call, **{"with": {"why": "${{ error.message }}"}})
    assert given.events[-1] == ChildRequested("a~undo", 1, "undo-2-Boom", "leaf", {"why": "it broke"})


def test_a_workflow_that_fails_to_undo_is_a_failed_compensation() -> None:
    given = undoing().when(ended("x-1.a~undo", error=Error("Stuck", "no")))
    assert NodeFailed("a~undo", 1, Error("Stuck", "no")) in given.events
    assert failure(given) == BOOM


def test_a_workflow_that_fails_to_undo_is_tried_again_as_another_child() -> None:
    given = undoing(retry={"attempts": 2, "delay": 1}).when(ended("x-1.a~undo", error=BOOM))
    given.when(due(given, "retry/a~undo"))
    again = ChildRequested("a~undo", 2, "x-1.a~undo#2", "leaf", {"input": {"n": 1}, "output": 2})
    assert given.events[-1] == again
    assert failure(given.when(ended("x-1.a~undo#2"))) == BOOM


def test_a_workflow_that_takes_too_long_to_undo_is_closed() -> None:
    given = undoing(timeout="1h")
    given.when(due(given, "timeout/a~undo"))
    assert given.now.nodes["a~undo"].error == Error("Timeout", "it took longer than 3600 s")
    assert [each.child for each in to_close(given.now)] == ["x-1.a~undo"]


def test_a_workflow_whose_input_does_not_fit_fails_to_undo() -> None:
    leaf = {**LEAF, "input": {"type": "object", "required": ["why"]}}
    nodes = {"a": {"tool": "t", "compensate": {"workflow": "leaf"}}, "b": {**TAKE}, "bad": {"tool": "t"}}
    given = running(nodes, workflows={"leaf": leaf})
    given.when(ReportSuccess("b", 1), ReportSuccess("a", 1), ReportFailure("bad", 1, BOOM))
    (failed,) = [event for event in given.events if isinstance(event, NodeFailed) and event.node == "a~undo"]
    assert (failed.attempt, failed.error.type) == (1, "Invalid")
    assert failure(given.when(ReportSuccess("b~undo", 1))) == BOOM


def test_the_name_of_a_workflow_that_undoes_is_checked() -> None:
    nodes = {"a": {"tool": "t", "compensate": {"workflow": "leef"}}}
    warnings = load({"name": "flow", "nodes": nodes, "workflows": {"leaf": LEAF}}).warnings
    assert any("did you mean 'leaf'?" in str(warning) for warning in warnings)


# played


BOOK: dict[str, Any] = {"tool": "book", "compensate": {"tool": "unbook"}}
TRIP: dict[str, Any] = {
    "name": "trip",
    "workflows": {"hotel": {"name": "hotel", "nodes": {"room": BOOK, "table": {**BOOK, "needs": "room"}}}},
    "nodes": {"hotel": {"workflow": "hotel"}, "car": {"tool": "rent", "needs": "hotel"}},
}


def test_a_played_parent_undoes_what_its_played_children_did() -> None:
    played = play(TRIP, tools={"book": [1, 2], "unbook": takes("2h"), "rent": fails("NoCar")})
    inner = played.children["played.hotel"]
    assert [call.node for call in inner.calls] == ["room", "table", "table~undo", "room~undo"]
    assert (inner.status, played.status, played.took.seconds) == ("compensated", "failed", 4 * 3600)
    assert played.nodes["hotel"].status == "compensated"
    with pytest.raises(ExecutionStopped, match="compensated"):
        _ = inner.output


def test_a_played_child_that_cannot_be_undone_is_a_failed_compensation() -> None:
    played = play(TRIP, tools={"book": [1, 2], "unbook": [fails("TooLate"), None], "rent": fails("NoCar")})
    error = played.nodes["hotel~undo"].error
    assert error == Error("CompensationFailed", "child 'played.hotel' could not undo 'table' (TooLate)")
    assert played.nodes["hotel"].status == "succeeded"


def test_a_played_retry_has_undone_what_could_not_be_undone_at_first() -> None:
    tools = {"book": [1, 2], "unbook": [fails("TooLate"), None, None], "rent": [fails("NoCar"), fails("NoCar")]}
    played = play(TRIP, tools=tools, tell=[retry(at="1d")])
    inner = played.children["played.hotel"]
    assert [call.node for call in inner.calls[2:]] == ["table~undo", "room~undo", "table~undo"]
    assert played.nodes["hotel"].status == "compensated"


def test_a_pause_of_a_played_parent_lets_its_child_be_undone() -> None:
    nodes = {**TRIP["nodes"], "first": BOOK, "hotel": {"workflow": "hotel", "needs": "first"}}
    tools = {"book": [0, 1, 2], "unbook": takes("2h"), "rent": fails("NoCar")}
    played = play({**TRIP, "nodes": nodes}, tools=tools, tell=[pause(at="1h"), resume(at="9h")])
    assert [(call.node, (call.at - played.began).seconds // 3600) for call in played.calls][-1] == ("first~undo", 9)
    assert played.children["played.hotel"].status == "compensated"


def test_a_scripted_child_is_undone_unless_its_script_says_otherwise() -> None:
    tools = {"rent": fails("NoCar")}
    played = play(TRIP, tools=tools, workflows={"hotel": "booked"})
    assert played.nodes["hotel"].status == "compensated"
    assert played.inputs("hotel~undo") == [{"child": "played.hotel"}]
    played = play(TRIP, tools=tools, workflows={"hotel": "booked", "hotel~undo": fails("TooLate")})
    assert (played.nodes["hotel"].status, played.nodes["hotel~undo"].status) == ("succeeded", "failed")


def test_a_workflow_that_undoes_is_played_too() -> None:
    unbook = {"name": "unbook", "nodes": {"call": {"tool": "call", "with": {"what": "${{ input.output }}"}}}}
    nodes = {"room": {"tool": "book", "compensate": {"workflow": "unbook"}}, "car": {"fail": "no", "needs": "room"}}
    workflow = {"name": "trip", "workflows": {"unbook": unbook}, "nodes": nodes}
    played = play(workflow, tools={"book": "room 3", "call": None})
    assert played.children["played.room~undo"].inputs("call") == [{"what": "room 3"}]
    assert played.nodes["room"].status == "compensated"
    played = play(workflow, tools={"book": "room 3"}, workflows={"unbook": fails("TooLate")})
    assert played.nodes["room"].status == "succeeded"
