"""Errors, timers and compensation to the last detail: what mutation testing found untested."""

from typing import Any

import pytest
from scenario import BOOM, EXECUTION, NOW, due, failure, output, running

from perdure.actors.evolve import evolve
from perdure.actors.inputs import (
    CancelExecution,
    ChangeInput,
    CompleteNode,
    DecideApproval,
    PauseExecution,
    Recover,
    ReportChild,
    ReportFailure,
    ReportSuccess,
    ResumeExecution,
    RetryExecution,
    SkipNode,
)
from perdure.actors.state import Purged
from perdure.events.vocabulary import (
    BodyFailed,
    BodySucceeded,
    CompensationStarted,
    Error,
    ExecutionFailed,
    ExecutionPurged,
    NodeAttemptFailed,
    NodeCancelled,
    NodeFailed,
    NodeScheduled,
    TimerCancelled,
)

LEAF = {"name": "leaf", "nodes": {"x": {"set": 1}}, "input": {"type": "object"}}
TAKE: dict[str, Any] = {"tool": "take", "compensate": {"tool": "give"}}
ITEM = {"take": TAKE, "use": {"tool": "use", "needs": "take"}}
TIMEOUT = "it took longer than 60 s"
PAUSE, RESUME = PauseExecution("p", EXECUTION), ResumeExecution("r", EXECUTION)


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


def test_items_that_were_done_are_undone_with_their_item_though_the_rest_was_skipped_by_hand() -> None:
    call = {"tool": "give", "with": {"what": "${{ item }}"}}
    node = {"foreach": {"items": ["i", "j"], "max_parallel": 1}, "do": {"take": {**TAKE, "compensate": call}}}
    given = running({"all": node, "bad": {"tool": "t"}}).when(ReportSuccess("all[0]/take", 1))
    given.when(SkipNode("k", EXECUTION, "all"), ReportFailure("bad", 1, BOOM))
    assert given.events[-1] == NodeScheduled("all[0]/take~undo", 1, {"what": "i"})


def test_a_deadline_that_is_held_counts_at_the_resume_and_not_before() -> None:
    given = running({"a": {"tool": "t", "deadline": "1m", "retry": {"attempts": 2, "delay": 1}}}).when(PAUSE)
    given.when(due(given, "deadline/a")).when(ReportFailure("a", 1, BOOM))
    assert given.now.nodes["a"].status == "retrying"
    assert failure(given.when(RESUME)) == Error("Timeout", "it was not done within 60 s, its deadline")
