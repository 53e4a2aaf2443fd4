"""Details of what is kept, recorded and refused, which mutation testing found untested: one sentence each."""

from typing import Any

import pytest
from scenario import BOOM, EXECUTION, NOW, due, failure, output, running

from perdure.actors.containers import MANY
from perdure.actors.evolve import evolve
from perdure.actors.inputs import (
    ChangeInput,
    DecideApproval,
    PauseExecution,
    ReportChild,
    ReportFailure,
    ReportLoss,
    ReportSuccess,
    ResumeExecution,
    RetryExecution,
    SkipNode,
)
from perdure.actors.state import Purged
from perdure.events.vocabulary import (
    CommandRefused,
    CompensationStarted,
    Error,
    ExecutionPaused,
    ExecutionPurged,
    NodeCaught,
    NodeFailed,
    NodeScheduled,
    NodeSucceeded,
    NodeWaiting,
)

LEAF = {"name": "leaf", "nodes": {"x": {"set": 1}}}
TAKE: dict[str, Any] = {"tool": "take", "compensate": {"tool": "give"}}
PAUSE, RESUME = PauseExecution("p", EXECUTION), ResumeExecution("r", EXECUTION)


# what is kept


def test_a_child_has_its_place_in_the_order_of_completion() -> None:
    nodes = {"z": TAKE, "b": {"workflow": "leaf", "needs": "z"}, "c": {**TAKE, "needs": "b"}}
    given = running({**nodes, "bad": {"tool": "t", "needs": "c"}}, workflows={"leaf": LEAF})
    given.when(ReportSuccess("z", 1), ReportChild("e", EXECUTION, "x-1.b"), ReportSuccess("c", 1))
    given.when(ReportFailure("bad", 1, BOOM))
    assert CompensationStarted("", "execution", ["c", "b", "z"], BOOM) in given.events


def test_an_input_that_was_given_by_hand_is_kept_for_a_retry() -> None:
    nodes = {"a": {"tool": "t"}, "b": {"tool": "t", "with": {"n": 1}, "needs": "a"}}
    given = running(nodes).when(ChangeInput("i", EXECUTION, "b", {"n": 2}), ReportFailure("a", 1, BOOM))
    given.when(RetryExecution("y", EXECUTION), ReportSuccess("a", 1))
    assert given.events[-1] == NodeScheduled("b", 1, {"n": 2})


def test_how_often_a_node_was_undone_is_counted() -> None:
    given = running({"a": TAKE, "b": {"tool": "t", "needs": "a"}})
    for number in (1, 2):
        given.when(ReportSuccess("a", 1), ReportFailure("b", 1, BOOM), ReportSuccess("a~undo", 1))
        assert dict(given.now.undone) == {"a": number}
        given.when(RetryExecution(f"y-{number}", EXECUTION))


def test_a_foreach_that_is_done_forgets_its_items_but_those_that_can_be_undone_and_those_before_them() -> None:
    body = {"take": {**TAKE, "if": "item == 2"}, "x": {"set": 1}}
    given = running({"all": {"foreach": {"items": [0, 1, 2, 3]}, "do": body}, "b": {"tool": "t"}})
    given.when(ReportSuccess("all[2]/take", 1))
    assert set(given.now.nodes["all"].bodies) == {"1", "2"}
    plain = running({"all": {"foreach": {"items": [0, 1]}, "do": {"x": {"set": 1}}}, "b": {"tool": "t"}})
    assert (dict(plain.now.nodes["all"].bodies), plain.now.nodes["all"].input) == ({}, None)


def test_the_pass_before_one_that_can_be_undone_is_kept_for_it() -> None:
    call = {"tool": "give", "with": {"last": "${{ loop.last }}"}}
    body = {"take": {"tool": "t", "compensate": call, "if": "loop.index == 1"}, "n": {"set": "${{ loop.index }}"}}
    again = {"loop": {"max_iterations": 4, "initial": "none"}, "do": body, "output": "${{ output }}"}
    given = running({"again": again, "bad": {"tool": "t", "needs": "again"}})
    given.when(ReportSuccess("again[1]/take", 1), ReportFailure("bad", 1, BOOM))
    assert given.events[-1] == NodeScheduled("again[1]/take~undo", 1, {"last": {"take": None, "n": 0}})


def test_the_tries_of_a_stuck_node_count_anew_after_each_resume() -> None:
    given = running({"a": {"tool": "t", "retry": {"attempts": 3, "delay": 1, "exhausted": "pause"}}})
    for attempt in range(1, 7):
        given.when(ReportFailure("a", attempt, BOOM))
        stuck = attempt in (3, 6)
        assert (given.now.nodes["a"].status == "stuck") == stuck, attempt
        given.when(RESUME if stuck else due(given, "retry/a"))


def test_a_purged_execution_is_what_its_summary_says() -> None:
    summary = ExecutionPurged("flow", "d", "succeeded", NOW, NOW, 3)
    assert evolve(running({"a": {"set": 1}}).state, summary) == Purged(summary)


def test_an_item_that_fails_leaves_the_timer_of_the_workflow_armed() -> None:
    nodes = {
        "all": {"foreach": {"items": [1], "on_failure": "continue"}, "do": {"x": {"fail": "no"}}},
        "b": {"tool": "t"},
    }
    assert set(running(nodes, timeout="1h").now.timers) == {"execution/"}


# what is recorded


def test_a_wait_until_a_time_says_so() -> None:
    given = running({"a": {"wait": {"until": "2026-03-01T09:00:00+01:00"}}})
    assert NodeWaiting("a", 1, {"until": "2026-03-01T08:00:00+00:00"}) in given.events


@pytest.mark.parametrize(
    "node",
    [
        {"loop": {"max_iterations": 1}, "tool": "t"},
        {"loop": {"until": "True", "max_iterations": 2}, "tool": "t"},
        {"parallel": {"branches": {"l": {"tool": "t"}}}},
        {"foreach": {"items": [1]}, "tool": "t"},
    ],
)
def test_a_node_with_bodies_succeeds_at_the_attempt_that_it_is_at(node: dict[str, Any]) -> None:
    given = running({"a": {**node, "retry": {"attempts": 2, "delay": 1}}})
    (path,) = given.now.running
    given.when(ReportFailure(path, 1, BOOM)).when(due(given, "retry/a")).when(ReportSuccess(path, 1, 1))
    (done,) = [event for event in given.events if isinstance(event, NodeSucceeded) and event.node == "a"]
    assert done.attempt == 2


def test_a_caught_error_was_that_of_its_attempt() -> None:
    node = {"tool": "t", "retry": {"attempts": 2, "delay": 1}, "catch": [{"output": 0}]}
    given = running({"a": node}).when(ReportFailure("a", 1, BOOM))
    given.when(due(given, "retry/a")).when(ReportFailure("a", 2, BOOM))
    assert NodeCaught("a", 2, BOOM, 0) in given.events


def test_a_catch_whose_output_cannot_be_made_fails_with_the_reason() -> None:
    error = failure(running({"a": {"fail": "no", "catch": [{"output": "${{ input.gone }}"}]}}, {}))
    assert error.type == "ExpressionError"
    assert "gone" in error.message


def test_an_output_that_cannot_be_made_says_why_and_of_what() -> None:
    error = failure(running({"a": {"tool": "t", "output": "${{ input.gone }}"}}, {}).when(ReportSuccess("a", 1)))
    assert "gone" in error.message
    branches = {"l": {"do": {"x": {"set": 1}}, "output": "${{ input.gone }}"}}
    error = failure(running({"a": {"parallel": {"branches": branches}}}, {}))
    assert error.message.startswith("output of 'a/l': ")


def test_what_cannot_be_merged_and_what_is_no_list_is_told() -> None:
    error = failure(running({"a": {"aggregate": {"items": [{}, 1], "how": "merge"}}}))
    assert error == Error("Invalid", "only objects can be merged, and number 1 of 2 is none: 1")
    error = failure(running({"a": {"foreach": {"items": "input"}, "tool": "t"}}, 1))
    assert error == Error("ExpressionError", "'items' of node 'a' gave 1, which is no list")


def test_an_execution_is_paused_once_however_many_nodes_are_stuck() -> None:
    node = {"tool": "t", "retry": {"attempts": 1, "exhausted": "pause"}}
    given = running({"a": node, "b": node}).when(ReportFailure("a", 1, BOOM), ReportFailure("b", 1, BOOM))
    assert len([event for event in given.events if isinstance(event, ExecutionPaused)]) == 1


def test_of_two_held_timers_the_second_means_nothing_where_the_first_has_settled_the_node() -> None:
    node = {"wait": {"signal": "go"}, "timeout": "1m", "deadline": "1h"}
    given = running({"a": node, "b": {"tool": "t"}}, failure="drain").when(PAUSE)
    given.when(due(given, "timeout/a"), due(given, "deadline/a"), RESUME)
    assert len([event for event in given.events if isinstance(event, NodeFailed)]) == 1
    assert given.now.status == "running"


def test_what_runs_at_the_end_may_read_the_data_of_the_error() -> None:
    nodes = {"a": {"fail": {"message": "no", "data": {"n": 1}}}}
    given = running(nodes, on_failure={"x": {"set": "${{ error.data.n }}"}})
    assert given.now.nodes["on_failure/x"].output == 1


def test_a_node_deep_within_others_reads_those_around_it() -> None:
    inner = {"foreach": {"items": [1], "as": "j"}, "do": {"x": {"set": "${{ nodes.out.output + nodes.mid.output }}"}}}
    body = {"mid": {"set": 10}, "all": inner}
    nodes = {"out": {"set": 1}, "all": {"foreach": {"items": [1]}, "do": body}}
    assert output(running(nodes)) == {"all": [{"all": [{"x": 11}]}]}
    given = running({"a": {"set": 0}}, **{"finally": nodes})
    assert given.now.nodes["finally/all"].output == [{"all": [{"x": 11}]}]


def test_a_long_loop_is_decided_in_portions() -> None:
    given = running({"a": {"loop": {"max_iterations": 2 * MANY}, "do": {"x": {"set": 1}}}})
    assert given.now.outcome is None
    assert MANY < len(given.events) < MANY + 10


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
