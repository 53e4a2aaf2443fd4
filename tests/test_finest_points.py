"""Finer points of what is stopped, undone, kept in mind and told, which mutation testing found untested."""

from typing import Any

import pytest
from scenario import BOOM, EXECUTION, NOW, due, failure, output, plan_of, running, start

from perdure.actors.children import to_close, to_start
from perdure.actors.decisions import decide
from perdure.actors.inputs import (
    CancelExecution,
    CompleteNode,
    DecideApproval,
    PauseExecution,
    Recover,
    ReportFailure,
    ReportSuccess,
    ResumeExecution,
    RetryExecution,
    SignalExecution,
)
from perdure.actors.state import INITIAL
from perdure.events.vocabulary import (
    BodyFailed,
    BodySucceeded,
    ChildRequested,
    CommandRefused,
    CompensationStarted,
    Error,
    ExecutionFailed,
    NodeFailed,
    NodeScheduled,
    NodeSucceeded,
    NodeWaiting,
)

LEAF = {"name": "leaf", "nodes": {"x": {"set": 1}}, "input": {"type": "object"}}
TAKE: dict[str, Any] = {"tool": "take", "compensate": {"tool": "give"}}
ITEM = {"take": TAKE, "use": {"tool": "use", "needs": "take"}}


# compensation


def test_two_items_that_fail_at_once_are_both_undone() -> None:
    given = running({"all": {"foreach": {"items": [1, 2], "on_failure": "continue"}, "do": ITEM}})
    for item in (0, 1):
        given.when(ReportSuccess(f"all[{item}]/take", 1), ReportFailure(f"all[{item}]/use", 1, BOOM))
    assert CompensationStarted("all[1]", "body", ["all[1]/take"], BOOM) in given.events
    given.when(ReportSuccess("all[0]/take~undo", 1))
    assert set(given.now.undoing) == {"all[1]"}
    assert output(given.when(ReportSuccess("all[1]/take~undo", 1))) == {"all": [None, None]}


def test_an_item_keeps_what_can_be_undone_in_it_and_what_that_reads_and_no_more() -> None:
    undo = {"tool": "give", "with": {"what": "${{ nodes.ask.output }}"}}
    body = {"ask": {"set": 1}, "more": {"set": 2}, "take": {"tool": "take", "compensate": undo}}
    given = running({"more": TAKE, "all": {"foreach": {"items": [1]}, "do": body}})
    given.when(ReportSuccess("more", 1), ReportSuccess("all[0]/take", 1))
    (done,) = [event for event in given.events if isinstance(event, BodySucceeded)]
    assert done.keep == ["ask", "take"]


def test_an_item_with_nothing_to_undo_keeps_nothing() -> None:
    given = running({"a": TAKE, "all": {"foreach": {"items": [1]}, "do": {"a": {"set": 1}}, "needs": "a"}})
    assert BodySucceeded("all[0]", {"a": 1}, []) in given.when(ReportSuccess("a", 1)).events


def test_a_call_that_cannot_be_made_says_why() -> None:
    nodes = {"a": {"tool": "t", "compensate": {"tool": "u", "with": {"x": "${{ input.gone }}"}}}, "b": {"tool": "t"}}
    given = running(nodes, {}).when(ReportSuccess("a", 1), ReportFailure("b", 1, BOOM))
    (failed,) = [event for event in given.events if isinstance(event, NodeFailed) and event.node == "a~undo"]
    assert "gone" in failed.error.message


def test_the_branches_of_a_parallel_that_waits_for_all_are_undone_together() -> None:
    left = {"do": {"take": TAKE, "use": {"tool": "use", "needs": "take"}}}
    given = running({"all": {"parallel": {"branches": {"l": left, "r": {"do": {"take": TAKE}}}}}})
    given.when(ReportSuccess("all/l/take", 1), ReportSuccess("all/r/take", 1), ReportFailure("all/l/use", 1, BOOM))
    assert CompensationStarted("all", "node", ["all/r/take", "all/l/take"], BOOM) in given.events
    assert not any(isinstance(event, BodyFailed) for event in given.events)


def test_a_losing_branch_is_undone_for_the_error_cancelled() -> None:
    undo = {"tool": "give", "with": {"why": "${{ error.type + ': ' + error.message }}"}}
    slow = {"do": {"take": {**TAKE, "compensate": undo}, "more": {"tool": "t", "needs": "take"}}}
    race = {"parallel": {"join": "any", "branches": {"slow": slow, "quick": {"tool": "t"}}}}
    given = running({"race": race}).when(ReportSuccess("race/slow/take", 1), ReportSuccess("race/quick/do", 1))
    assert NodeScheduled("race/slow/take~undo", 1, {"why": "Cancelled: another branch was first"}) in given.events


def test_a_cancel_undoes_all_of_the_main_body_for_the_error_cancelled() -> None:
    given = running({"a": TAKE, "b": {"tool": "t"}}).when(ReportSuccess("a", 1), CancelExecution("c", EXECUTION, "why"))
    assert CompensationStarted("", "execution", ["a"], Error("Cancelled", "why")) in given.events


# ends and errors


def test_of_several_failed_nodes_of_finally_the_first_in_order_is_named_with_its_own_error() -> None:
    last = {"z": {"fail": "of z"}, "a": {"fail": "of a"}}
    given = running({"x": {"set": 1}}, failure="drain", **{"finally": last})
    assert given.events[-1] == ExecutionFailed(Error("Failed", "of z"), "finally/z")


def test_an_output_of_the_workflow_that_cannot_be_made_says_so() -> None:
    assert failure(running({"a": {"set": 1}}, {}, output="${{ input.gone }}")).message.startswith("output: ")


def test_an_output_of_a_node_that_cannot_be_made_fails_it_at_its_attempt() -> None:
    given = running({"a": {"tool": "t", "output": "${{ input.gone }}"}}, {}).when(ReportSuccess("a", 1))
    assert isinstance(given.now.outcome, ExecutionFailed)
    assert (given.now.outcome.node, given.now.outcome.attempt) == ("a", 1)


def test_too_few_winners_fail_with_the_error_of_the_first_failed_branch() -> None:
    branches = {name: {"tool": "t"} for name in "abc"}
    given = running({"race": {"parallel": {"join": 2, "branches": branches}}})
    given.when(ReportSuccess("race/a/do", 1), ReportFailure("race/c/do", 1, BOOM))
    given.when(ReportFailure("race/b/do", 1, Error("First", "of b")))
    assert failure(given) == Error("First", "of b")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"wait": {"signal": "go", "timeout": 1}}, "no signal came in time"),
        ({"approval": {"title": "?", "timeout": 1}}, "nobody answered in time"),
    ],
)
def test_what_nobody_said_in_time_is_told(node: dict[str, Any], message: str) -> None:
    given = running({"a": node})
    assert failure(given.when(due(given, "wait/a"))) == Error("Timeout", message)


def test_a_deadline_fails_a_node_whatever_it_is_at_and_whatever_tries_are_left() -> None:
    node = {"tool": "t", "deadline": "1m", "retry": {"attempts": 3}}
    for kind in ({"tool": "t"}, {"foreach": {"items": [1]}, "tool": "t"}, {"wait": "1h"}):
        given = running({"a": {**node, **kind} if "tool" in kind else {**kind, "deadline": "1m"}})
        given.when(due(given, "deadline/a"))
        assert given.events[-1] == ExecutionFailed(
            Error("Timeout", "it was not done within 60 s, its deadline"), "a", 1
        )
        assert not given.now.timers


def test_the_timeout_of_a_workflow_ends_it_and_is_disarmed_with_its_main_body() -> None:
    given = running({"a": {"tool": "t"}}, timeout="1m")
    given.when(due(given, "execution/"))
    assert given.events[-1] == ExecutionFailed(Error("Timeout", "the execution took longer than 60 s"))
    last = running({"a": {"set": 1}}, timeout="1m", **{"finally": {"x": {"tool": "t"}}})
    assert not last.now.timers
    failing = running({"a": {"tool": "t"}}, timeout="1m", on_failure={"x": {"tool": "t"}})
    assert not failing.when(ReportFailure("a", 1, BOOM)).now.timers


# timers


def test_the_timeout_of_a_call_is_no_durable_timer() -> None:
    assert not running({"a": {"tool": "t", "timeout": "1m"}}).now.timers


def test_a_timer_that_is_held_is_not_armed_any_more() -> None:
    given = running({"a": {"wait": "1h"}}).when(PauseExecution("p", EXECUTION))
    given.when(due(given, "wait/a"))
    assert (dict(given.now.timers), given.now.held) == ({}, ("wait/a",))


def test_of_two_held_timers_of_a_node_the_first_may_disarm_the_other() -> None:
    given = running({"a": {"wait": {"signal": "go"}, "timeout": "1m", "deadline": "1h"}})
    given.when(PauseExecution("p", EXECUTION))
    given.when(due(given, "timeout/a"), due(given, "deadline/a"), ResumeExecution("r", EXECUTION))
    assert len([event for event in given.events if isinstance(event, NodeFailed)]) == 1


def test_a_new_owner_goes_on_with_a_decision_that_was_left_off() -> None:
    given = running({"all": {"foreach": {"items": "input"}, "do": {"x": {"set": 1}}}}, [0] * 2000)
    assert given.now.outcome is None
    for _ in range(20):
        given.when(Recover())
    assert output(given) == {"all": [{"x": 1}] * 2000}


# children


def test_children_are_started_that_are_awaited_or_detached_and_closed_where_nobody_waits() -> None:
    policies = ("cancel", "terminate", "abandon")
    nodes: dict[str, Any] = {name: {"workflow": {"name": "leaf", "on_parent_close": name}} for name in policies}
    nodes["detached"] = {"workflow": {"name": "leaf", "detach": True}}
    given = running({**nodes, "bad": {"tool": "t"}}, workflows={"leaf": LEAF})
    assert {each.node for each in to_start(given.now)} == {*policies, "detached"}
    assert list(to_close(given.now)) == []
    given.when(ReportFailure("bad", 1, BOOM))
    assert [each.node for each in to_start(given.now)] == ["detached"]
    assert {each.node for each in to_close(given.now)} == {"cancel", "terminate"}


def test_a_retried_parent_still_has_its_old_children_to_close() -> None:
    given = running({"a": {"workflow": "leaf"}, "bad": {"tool": "t"}}, workflows={"leaf": LEAF})
    given.when(ReportFailure("bad", 1, BOOM), RetryExecution("y", EXECUTION))
    assert set(given.now.children) == {"x-1.a", "x-1.a+1"}
    assert [each.child for each in to_close(given.now)] == ["x-1.a"]


def test_the_id_of_a_child_that_would_be_too_long_ends_in_a_digest() -> None:
    body: dict[str, Any] = {"workflow": "leaf"}
    name = "n" * 60
    for _ in range(4):
        body = {"parallel": {"branches": {name: {"do": {name: body}}}}}
    (child,) = running({name: body}, workflows={"leaf": LEAF}).now.children
    assert child.startswith(f"{EXECUTION}.")
    assert len(child) == len(EXECUTION) + 1 + 32


def test_a_child_whose_input_or_id_does_not_fit_fails_with_the_reason() -> None:
    leaf = {**LEAF, "input": {"type": "object", "properties": {"n": {"type": "integer"}}}}
    node = {"workflow": "leaf", "with": {"n": "${{ input }}"}}
    error = failure(running({"a": node}, "text", workflows={"leaf": leaf}))
    assert error.message.startswith("the input of workflow 'leaf' does not fit: input.n ")
    nodes = {"a": {"workflow": {"name": "leaf", "id": "a\tb"}}}
    error = failure(running(nodes, workflows={"leaf": LEAF}))
    assert error == Error("Invalid", "the id of a child has 1 to 200 printable characters, not 'a\\tb'")


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


# small numbers and names


def test_a_node_of_finally_that_failed_is_named_though_others_before_it_never_began() -> None:
    last: dict[str, Any] = {"slow": {"tool": "t"}, "soon": {"tool": "t"}}
    last |= {"never": {"set": 1, "needs": "slow"}, "bad": {"fail": "no", "needs": "soon"}}
    given = running({"x": {"set": 1}}, **{"finally": last}).when(ReportSuccess("finally/soon", 1))
    assert given.events[-1] == ExecutionFailed(Error("Failed", "no"), "finally/bad")


@pytest.mark.parametrize(
    ("node", "value"),
    [
        ({"switch": {"cases": [{"when": "True", "then": "b"}]}}, ["b"]),
        ({"aggregate": {"items": [1], "how": "collect"}}, [1]),
        ({"set": 1}, 1),
    ],
)
def test_what_succeeds_at_once_does_so_at_its_first_attempt(node: dict[str, Any], value: Any) -> None:
    assert NodeSucceeded("a", 1, value) in running({"a": node, "b": {"tool": "t"}}).events


def test_a_wait_for_no_time_is_over_at_once() -> None:
    given = running({"a": {"wait": 0}})
    assert given.now.timers["wait/a"] == NOW


@pytest.mark.parametrize(
    ("wait", "message"),
    [
        ({"until": "${{ input }}"}, "'until' of node 'a' gave 'soon', which is no time with a zone"),
        ({"duration": "${{ input }}"}, "'duration' of node 'a': "),
        ({"signal": "go", "timeout": "${{ input }}"}, "'timeout' of node 'a': "),
    ],
)
def test_a_time_that_is_none_is_told_with_its_place(wait: dict[str, Any], message: str) -> None:
    error = failure(running({"a": {"wait": wait}}, "soon"))
    assert (error.type, error.message[: len(message)]) == ("ExpressionError", message)


def test_the_shortest_id_of_a_child_has_one_character() -> None:
    assert set(running({"a": {"workflow": {"name": "leaf", "id": "c"}}}, workflows={"leaf": LEAF}).now.children) == {
        "c"
    }


def test_the_made_id_of_a_child_begins_with_that_of_its_parent_or_what_fits_of_it() -> None:
    plan = plan_of({"a": {"workflow": "leaf"}}, workflows={"leaf": LEAF})
    events = decide(plan, "e" * 199, INITIAL, start(plan), NOW)
    (asked,) = [event for event in events if isinstance(event, ChildRequested)]
    assert asked.child[:101] == "e" * 100 + "."
    assert len(asked.child) == 133
