"""Every kind of node: how it begins, what it waits for, how it ends."""

from datetime import timedelta
from typing import Any

import pytest
from scenario import BOOM, EXECUTION, NOW, Given, due, failure, output, plan_of, running, start

from perdure.actors.inputs import DecideApproval, ReportFailure, ReportSuccess, SignalExecution
from perdure.events.vocabulary import (
    BodySucceeded,
    BranchTaken,
    CommandRefused,
    Error,
    ExecutionFailed,
    ExecutionSucceeded,
    NodeAttemptFailed,
    NodeCancelled,
    NodeFailed,
    NodeScheduled,
    NodeSkipped,
    NodeSucceeded,
    NodeWaiting,
    SignalReceived,
    SignalTaken,
    TimerArmed,
    TimerCancelled,
    TimerFired,
)

# set, output, fail


def test_an_output_mapping_makes_the_output_from_the_result() -> None:
    given = running({"a": {"tool": "t", "output": "${{ output.total * 2 }}"}}).when(ReportSuccess("a", 1, {"total": 4}))
    assert output(given) == {"a": 8}


def test_an_output_mapping_that_cannot_be_made_fails_the_node() -> None:
    given = running({"a": {"tool": "t", "output": "${{ output.total }}"}}).when(ReportSuccess("a", 1, {}))
    assert failure(given).type == "ExpressionError"


def test_a_fail_node_fails_with_its_type_message_and_data() -> None:
    node = {"fail": {"type": "TooBig", "message": "got ${{ input.n }}", "data": {"n": "${{ input.n }}"}}}
    assert failure(running({"a": node}, {"n": 7})) == Error("TooBig", "got 7", {"n": 7})


# switch


ROUTE = {
    "route": {"switch": {"default": "small", "cases": [
        {"when": "input > 10", "then": "big"}, {"when": "input > 5", "then": ["mid", "also"]}]}},
    "big": {"tool": "t"}, "mid": {"tool": "t"}, "also": {"set": 1}, "small": {"set": "s"},
    "after": {"set": "${{ nodes.mid.status }}", "needs": ["big", "mid", "small"]},
}  # fmt: skip


def test_a_switch_takes_the_first_arm_that_holds_and_skips_the_others() -> None:
    given = running(ROUTE, 7)
    assert BranchTaken("route", ["mid", "also"]) in given.events
    assert [event.node for event in given.events if isinstance(event, NodeSkipped)] == ["big", "small"]
    assert [event.node for event in given.events if isinstance(event, NodeScheduled)] == ["mid"]
    assert output(given.when(ReportSuccess("mid", 1)))["after"] == "succeeded"


def test_a_switch_takes_its_default_where_no_arm_holds() -> None:
    given = running(ROUTE, 1)
    assert output(given) == {"also": None, "after": "skipped"}


def test_a_switch_without_a_match_and_without_default_fails() -> None:
    given = running({"route": {"switch": {"cases": [{"when": "input > 1", "then": "a"}]}}, "a": {"set": 1}}, 0)
    assert failure(given).type == "NoMatch"


def test_what_only_an_untaken_arm_leads_to_is_skipped_too() -> None:
    nodes = {
        "route": {"switch": {"cases": [{"when": "input", "then": "a"}], "default": "b"}},
        "a": {"set": 1}, "b": {"set": 2}, "a2": {"set": "${{ nodes.a.output }}"}, "b2": {"needs": "b", "set": 3},
    }  # fmt: skip
    given = running(nodes, value=False)
    assert output(given) == {"a2": None, "b2": 3}


# wait


def test_a_wait_for_a_duration_arms_a_timer_and_goes_on_when_it_fires() -> None:
    given = running({"a": {"wait": "90s"}})
    given.then(
        given.events[0], NodeWaiting("a", 1, {"duration": 90.0}), TimerArmed("wait/a", NOW + timedelta(seconds=90))
    )
    given.when(due(given, "wait/a")).then(
        *given.events[:3], TimerFired("wait/a"), NodeSucceeded("a", 1), ExecutionSucceeded({"a": None})
    )


def test_a_wait_may_take_its_duration_from_an_expression() -> None:
    given = running({"a": {"wait": "${{ input }}"}}, "2h")
    assert given.now.timers["wait/a"] == NOW + timedelta(hours=2)
    assert failure(running({"a": {"wait": "${{ input }}"}}, "soon")).type == "ExpressionError"


@pytest.mark.parametrize(("until", "seconds"), [("2026-01-01T14:00:00+01:00", 3600), ("2020-01-01T00:00:00Z", 0)])
def test_a_wait_until_a_time_is_over_at_that_time_or_at_once(until: str, seconds: int) -> None:
    given = running({"a": {"wait": {"until": until}}})
    assert given.now.timers["wait/a"] == NOW + timedelta(seconds=seconds)


def test_a_wait_until_a_time_without_zone_fails() -> None:
    assert "zone" in failure(running({"a": {"wait": {"until": "${{ input }}"}}}, "2026-01-01T14:00:00")).message


PAY = {"a": {"wait": {"signal": "pay", "schema": {"type": "integer"}, "timeout": "1h"}}}


def test_a_signal_gives_a_waiting_node_its_output_and_disarms_its_timeout() -> None:
    given = running(PAY).when(SignalExecution("s-1", EXECUTION, "pay", 30))
    assert given.events[-3:] == [TimerCancelled("wait/a"), NodeSucceeded("a", 1, 30), ExecutionSucceeded({"a": 30})]


def test_a_signal_that_breaks_the_schema_is_refused_with_the_reason() -> None:
    given = running(PAY).when(SignalExecution("s-1", EXECUTION, "pay", "x"))
    assert given.events[-1] == CommandRefused(
        "s-1", "the data of signal 'pay' does not fit: data is 'x', not a whole number"
    )


def test_signals_queue_in_order_before_anybody_waits_and_each_is_taken_once() -> None:
    nodes = {
        "work": {"tool": "t"},
        "one": {"wait": {"signal": "go"}, "needs": "work"},
        "two": {"wait": {"signal": "go"}, "needs": "one"},
    }
    given = running(nodes).when(
        SignalExecution("s-1", EXECUTION, "go", 1), SignalExecution("s-2", EXECUTION, "go", 2), ReportSuccess("work", 1)
    )
    assert [event for event in given.events if isinstance(event, SignalReceived | SignalTaken)] == [
        SignalReceived("go", 1), SignalReceived("go", 2), SignalTaken("go", "one"), SignalTaken("go", "two"),
    ]  # fmt: skip
    assert (given.now.nodes["one"].output, output(given)) == (1, {"two": 2})


def test_a_queued_signal_that_does_not_fit_is_left_for_others() -> None:
    nodes = {"work": {"tool": "t"}, "a": {**PAY["a"], "needs": "work"}}
    given = running(nodes).when(
        SignalExecution("s-1", EXECUTION, "pay", "x"),
        SignalExecution("s-2", EXECUTION, "pay", 5),
        ReportSuccess("work", 1),
    )
    assert SignalTaken("pay", "a", 1) in given.events
    assert dict(given.now.signals) == {"pay": ("x",)}


def test_a_declared_signal_is_checked_when_it_comes() -> None:
    given = running({"a": {"tool": "t"}}, signals={"pay": {"schema": {"type": "integer"}}})
    given.when(SignalExecution("s-1", EXECUTION, "pay", "x"))
    assert isinstance(given.events[-1], CommandRefused)


def test_a_signal_that_is_not_declared_is_refused_where_signals_are() -> None:
    given = running({"a": {"tool": "t"}}, signals={"pay": {}}).when(SignalExecution("s-1", EXECUTION, "pya", 1))
    reason = "the workflow takes no signal 'pya'; did you mean 'pay'?"
    assert given.events[-1] == CommandRefused("s-1", reason)


@pytest.mark.parametrize(("on_timeout", "error"), [("fail", "Timeout"), ("continue", None)])
def test_without_a_signal_in_time_a_wait_fails_or_goes_on(on_timeout: str, error: str | None) -> None:
    given = running({"a": {"wait": {"signal": "pay", "timeout": "1h", "on_timeout": on_timeout}}})
    given.when(due(given, "wait/a"))
    assert (failure(given).type if error else output(given)) == (error or {"a": None})


# approval


ASK = {"a": {"approval": {"title": "Refund ${{ input.n }}?", "timeout": "2d",
                          "form": {"type": "object", "required": ["why"]}}}}  # fmt: skip


def test_an_approval_asks_and_goes_on_with_who_decided_and_what() -> None:
    given = running(ASK, {"n": 5})
    assert given.events[1] == NodeWaiting("a", 1, {"title": "Refund 5?", "approval": True})
    given.when(DecideApproval("d-1", EXECUTION, "a", approved=True, by="ann", data={"why": "fair"}))
    assert output(given) == {"a": {"approved": True, "by": "ann", "data": {"why": "fair"}}}


def test_an_answer_that_does_not_fit_the_form_is_refused() -> None:
    given = running(ASK, {"n": 5}).when(DecideApproval("d-1", EXECUTION, "a", approved=True, by="ann"))
    assert isinstance(given.events[-1], CommandRefused)
    assert given.now.nodes["a"].status == "waiting"


def test_a_rejection_fails_the_node_unless_it_goes_on_with_it() -> None:
    no = DecideApproval("d-1", EXECUTION, "a", approved=False, by="ann")
    assert failure(running(ASK, {"n": 5}).when(no)) == Error(
        "Rejected", "rejected by ann", {"approved": False, "by": "ann", "data": None}
    )
    given = running({"a": {"approval": {"title": "Go?", "on_reject": "continue"}}}).when(no)
    assert output(given) == {"a": {"approved": False, "by": "ann", "data": None}}


def test_a_late_or_unknown_approval_is_refused_with_the_reason() -> None:
    yes = DecideApproval("d-1", EXECUTION, "a", approved=True)
    given = running({"a": {"approval": {"title": "Go?"}}, "b": {"tool": "t"}}).when(yes)
    given.when(
        DecideApproval("d-2", EXECUTION, "a", approved=False), DecideApproval("d-3", EXECUTION, "x", approved=True)
    )
    assert given.events[-2:] == [
        CommandRefused("d-2", "approval 'a': it is decided already, or no longer asked for"),
        CommandRefused("d-3", "approval 'x': there is no such approval now; nothing is asked for"),
    ]


@pytest.mark.parametrize(("meaning", "status"), [("fail", "Timeout"), ("reject", "Rejected"), ("approve", "")])
def test_no_answer_in_time_means_what_the_approval_says(meaning: str, status: str) -> None:
    given = running({"a": {"approval": {"title": "Go?", "timeout": "1h", "on_timeout": meaning}}})
    given.when(due(given, "wait/a"))
    if status:
        assert failure(given).type == status
    else:
        assert output(given)["a"] == {"approved": True, "by": "timeout", "data": None}


# foreach


def each(**parts: Any) -> dict[str, Any]:
    foreach = {"items": "input", "as": "claim", **parts}
    return {"check": {"foreach": foreach, "tool": "verify", "with": {"c": "${{ claim }}"}}}


def test_a_foreach_runs_its_call_for_each_item_and_gives_results_in_item_order() -> None:
    given = running(each(), ["x", "y"])
    assert [event for event in given.events if isinstance(event, NodeScheduled)] == [
        NodeScheduled("check[0]/do", 1, {"c": "x"}), NodeScheduled("check[1]/do", 1, {"c": "y"}),
    ]  # fmt: skip
    given.when(ReportSuccess("check[1]/do", 1, "Y"), ReportSuccess("check[0]/do", 1, "X"))
    assert output(given) == {"check": ["X", "Y"]}


def test_a_foreach_runs_at_most_max_parallel_items_at_once() -> None:
    given = running(each(max_parallel=2), [1, 2, 3])
    assert set(given.now.running) == {"check[0]/do", "check[1]/do"}
    given.when(ReportSuccess("check[1]/do", 1))
    assert set(given.now.running) == {"check[0]/do", "check[2]/do"}


def test_a_foreach_over_nothing_gives_an_empty_list() -> None:
    assert output(running(each(), [])) == {"check": []}


def test_a_foreach_over_what_is_no_list_fails() -> None:
    assert "no list" in failure(running(each(), {"a": 1})).message


def test_a_foreach_may_take_items_in_batches() -> None:
    given = running(each(batch=2), [1, 2, 3])
    assert [node.input for _, node in sorted(given.now.running.items())] == [{"c": [1, 2]}, {"c": [3]}]


def test_a_foreach_with_a_body_gives_each_items_output_and_hides_its_inner_nodes() -> None:
    nodes = {
        "base": {"set": 10},
        "each": {
            "foreach": {"items": "input", "as": "n", "output": "${{ nodes.plus.output + index }}"},
            "do": {"ask": {"tool": "t"}, "plus": {"set": "${{ nodes.ask.output + n + nodes.base.output }}"}},
        },
    }
    given = running(nodes, [1, 2]).when(ReportSuccess("each[0]/ask", 1, 100), ReportSuccess("each[1]/ask", 1, 200))
    assert output(given) == {"each": [111, 213]}
    assert given.now.nodes.keys() == {"base", "each"}


def test_a_failed_item_stops_a_foreach_and_the_items_under_way() -> None:
    given = running(each(), [1, 2]).when(ReportFailure("check[0]/do", 1, BOOM))
    assert given.events[-4:] == [
        NodeFailed("check[0]/do", 1, BOOM), NodeCancelled("check[1]/do", "it broke"),
        NodeFailed("check", 1, BOOM), ExecutionFailed(BOOM, "check", 1),
    ]  # fmt: skip


def test_a_foreach_that_goes_on_has_null_in_the_place_of_a_failed_item() -> None:
    given = running(each(on_failure="continue"), [1, 2])
    given.when(ReportFailure("check[0]/do", 1, BOOM), ReportSuccess("check[1]/do", 1, "Y"))
    assert output(given) == {"check": [None, "Y"]}


@pytest.mark.parametrize(("threshold", "fails"), [(0, True), (1, False), ("50%", False), ("10%", True)])
def test_a_foreach_fails_when_more_items_fail_than_its_threshold(threshold: int | str, fails: bool) -> None:
    given = running(each(on_failure={"threshold": threshold}), [1, 2])
    given.when(ReportFailure("check[0]/do", 1, BOOM))
    assert (given.now.status == "failed") is fails


def test_a_failed_foreach_is_tried_again_from_its_first_item() -> None:
    nodes = each()
    nodes["check"]["retry"] = {"attempts": 2, "delay": 5, "jitter": False}
    given = running(nodes, [1, 2]).when(ReportSuccess("check[1]/do", 1), ReportFailure("check[0]/do", 1, BOOM))
    assert isinstance(given.events[-2], NodeAttemptFailed)
    given.when(due(given, "retry/check"))
    assert set(given.now.running) == {"check[0]/do", "check[1]/do"}
    assert given.now.nodes["check"].attempt == 2


def test_many_items_that_are_done_at_once_are_decided_in_portions() -> None:
    from perdure.actors.inputs import Continue

    plan = plan_of({"each": {"foreach": {"items": "input"}, "do": {"x": {"set": "${{ item * 2 }}"}}}})
    given = Given(plan).when(start(plan, list(range(5000))))
    first = len(given.events)
    assert first < 1100
    while given.now.outcome is None:
        given.when(Continue())
    assert output(given)["each"][4999] == {"x": 9998}


# loop


def test_a_loop_goes_on_while_its_condition_holds_and_carries_its_value() -> None:
    loop = {"while": "loop.last < 5", "max_iterations": 10, "initial": 1, "output": "${{ nodes.next.output }}"}
    given = running({"again": {"loop": loop, "do": {"next": {"set": "${{ loop.last * 2 }}"}}}})
    assert output(given) == {"again": 8}


def test_a_while_loop_may_make_no_pass_at_all_and_an_until_loop_makes_one() -> None:
    body = {"do": {"x": {"set": "${{ loop.index }}"}}}
    never = {"while": "False", "max_iterations": 3, "initial": "i"}
    once = {"until": "True", "max_iterations": 3}
    given = running({"a": {"loop": never, **body}, "b": {"loop": once, **body}})
    assert output(given) == {"a": "i", "b": {"x": 0}}


def test_a_loop_that_is_not_done_after_its_last_pass_is_exhausted() -> None:
    given = running({"a": {"loop": {"until": "False", "max_iterations": 3}, "do": {"x": {"set": 1}}}})
    assert failure(given).type == "LoopExhausted"
    assert sum(isinstance(event, BodySucceeded) for event in given.events) == 3


def test_a_loop_of_calls_makes_one_after_the_other() -> None:
    nodes = {
        "poll": {
            "loop": {"until": "loop.last.done", "max_iterations": 5},
            "tool": "t",
            "with": {"n": "${{ loop.index }}"},
        }
    }
    given = running(nodes).when(ReportSuccess("poll[0]/do", 1, {"done": False}))
    assert dict(given.now.running)["poll[1]/do"].input == {"n": 1}
    assert output(given.when(ReportSuccess("poll[1]/do", 1, {"done": True}))) == {"poll": {"done": True}}


# parallel


def race(join: Any, **branches: Any) -> dict[str, Any]:
    return {"race": {"parallel": {"join": join, "branches": branches or {"a": {"tool": "x"}, "b": {"tool": "y"}}}}}


def test_a_parallel_gives_the_results_of_all_its_branches() -> None:
    given = running(race("all")).when(ReportSuccess("race/b/do", 1, 2), ReportSuccess("race/a/do", 1, 1))
    assert output(given) == {"race": {"a": 1, "b": 2}}


def test_the_first_branch_wins_and_the_others_are_cancelled() -> None:
    given = running(race("any")).when(ReportSuccess("race/b/do", 1, 2))
    assert NodeCancelled("race/a/do", "another branch was first") in given.events
    assert output(given) == {"race": {"b": 2}}


def test_a_failed_branch_cannot_win() -> None:
    given = running(race("any")).when(ReportFailure("race/a/do", 1, BOOM), ReportSuccess("race/b/do", 1, 2))
    assert output(given) == {"race": {"b": 2}}


def test_a_parallel_fails_when_too_few_branches_are_left() -> None:
    given = running(race("any")).when(
        ReportFailure("race/b/do", 1, BOOM), ReportFailure("race/a/do", 1, Error("Other", ""))
    )
    assert failure(given).type == "Other"  # the first in the written order


def test_n_of_m_branches_are_enough() -> None:
    branches = {name: {"tool": "t"} for name in "abc"}
    given = running(race(2, **branches)).when(ReportSuccess("race/c/do", 1, 3), ReportSuccess("race/a/do", 1, 1))
    assert output(given) == {"race": {"a": 1, "c": 3}}


# aggregate


VOTERS = {"a": {"set": "${{ input[0] }}"}, "b": {"set": "${{ input[1] }}"}, "c": {"set": "${{ input[2] }}"}}


@pytest.mark.parametrize(
    ("how", "values", "result"),
    [
        ("collect", [1, 2, 3], [1, 2, 3]),
        ("merge", [{"x": 1}, {"y": 2}, {"x": 3}], {"x": 3, "y": 2}),
        ("vote", ["no", "yes", "yes"], {"winner": "yes", "votes": 2, "of": 3}),
        ("vote", [{"p": 1, "q": 2}, 0, {"q": 2, "p": 1}], {"winner": {"p": 1, "q": 2}, "votes": 2, "of": 3}),
    ],
)
def test_an_aggregate_makes_one_of_many(how: str, values: list[Any], result: Any) -> None:
    given = running({**VOTERS, "all": {"aggregate": {"from": ["a", "b", "c"], "how": how}}}, values)
    assert output(given) == {"all": result}


def test_an_aggregate_leaves_out_what_was_skipped() -> None:
    nodes = {
        "a": {"set": 1},
        "b": {"set": 2, "if": False},
        "all": {"aggregate": {"from": ["a", "b"], "how": "collect"}},
    }
    assert output(running(nodes)) == {"all": [1]}


def test_an_aggregate_by_a_tool_gives_it_the_items() -> None:
    given = running({"all": {"aggregate": {"items": "input", "tool": "judge"}, "with": {"k": 1}}}, [1, 2])
    assert given.now.running["all"].input == {"k": 1, "items": [1, 2]}


def test_objects_cannot_be_merged_with_anything_else() -> None:
    given = running({"all": {"aggregate": {"items": "input", "how": "merge"}}}, [{"a": 1}, 2])
    assert failure(given).type == "Invalid"
