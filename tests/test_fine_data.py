"""Data, bodies and what is recorded, to the last detail: what mutation testing found untested."""

from typing import Any

import pytest
from scenario import BOOM, EXECUTION, NOW, due, failure, output, plan_of, running, start

from perdure.actors.containers import MANY
from perdure.actors.decisions import decide
from perdure.actors.inputs import (
    PauseExecution,
    ReportFailure,
    ReportSuccess,
    ResumeExecution,
    SignalExecution,
)
from perdure.actors.signals import misfit
from perdure.actors.state import INITIAL
from perdure.events.vocabulary import (
    BodyStarted,
    ChildRequested,
    Error,
    ExecutionFailed,
    ExecutionPaused,
    NodeCaught,
    NodeFailed,
    NodeScheduled,
    NodeSucceeded,
    NodeWaiting,
)

LEAF = {"name": "leaf", "nodes": {"x": {"set": 1}}, "input": {"type": "object"}}
PAUSE, RESUME = PauseExecution("p", EXECUTION), ResumeExecution("r", EXECUTION)


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
    assert (
        misfit({"$ref": "#/$defs/gone"}, 1)
        == "data cannot be checked: its schema refers to '/$defs/gone', which is not in it"
    )


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
    events = decide(plan, "e" * 199, INITIAL, start(plan), NOW)[0]
    (asked,) = [event for event in events if isinstance(event, ChildRequested)]
    assert asked.child[:101] == "e" * 100 + "."
    assert len(asked.child) == 133
    (asked,) = [
        event for event in decide(plan, "e" * 198, INITIAL, start(plan), NOW)[0] if isinstance(event, ChildRequested)
    ]
    assert asked.child == "e" * 198 + ".a"


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


@pytest.mark.parametrize(
    ("node", "value"),
    [
        ({"switch": {"cases": [{"when": "False", "then": "b"}], "default": "b"}}, ["b"]),
        ({"workflow": {"name": "leaf", "id": "c", "detach": True}}, "c"),
    ],
)
def test_a_default_arm_and_a_detached_child_succeed_at_their_first_attempt(node: dict[str, Any], value: Any) -> None:
    given = running({"a": node, "b": {"tool": "t"}}, workflows={"leaf": LEAF})
    assert NodeSucceeded("a", 1, value) in given.events


def test_a_signal_that_came_before_is_taken_at_the_first_attempt() -> None:
    nodes = {"a": {"tool": "t"}, "b": {"wait": {"signal": "go"}, "needs": "a"}, "c": {"tool": "t"}}
    given = running(nodes).when(SignalExecution("s", EXECUTION, "go", 7), ReportSuccess("a", 1))
    assert NodeSucceeded("b", 1, 7) in given.events


def test_a_condition_that_has_no_value_fails_its_node_at_its_first_attempt_and_can_be_caught() -> None:
    node = {"tool": "t", "if": "input.gone"}
    given = running({"a": node}, {})
    assert isinstance(given.now.outcome, ExecutionFailed)
    assert (given.now.outcome.attempt, given.now.outcome.error.type) == (1, "ExpressionError")
    assert output(running({"a": {**node, "catch": [{"on": "ExpressionError", "output": 0}]}}, {})) == {"a": 0}


def test_a_condition_that_gives_no_truth_names_itself() -> None:
    error = failure(running({"a": {"tool": "t", "if": "input"}}, 1))
    assert error.message == "'if' of node 'a' gave 1; a condition gives true or false"
    loop = {"loop": {"until": "input", "max_iterations": 2}, "do": {"x": {"set": 1}}}
    assert failure(running({"a": loop}, 1)).message == "'until' of node 'a' gave 1; a condition gives true or false"


def test_a_switch_without_a_match_says_so() -> None:
    error = failure(running({"a": {"switch": {"cases": [{"when": "input", "then": "b"}]}}, "b": {"set": 1}}, False))
    assert error == Error("NoMatch", "no arm of switch 'a' holds, and it has no default")


def test_an_aggregate_takes_caught_nodes_too() -> None:
    nodes = {
        "a": {"set": 1},
        "b": {"fail": "no", "catch": [{"output": 2}]},
        "c": {"set": 3, "if": False},
        "all": {"aggregate": {"from": ["a", "b", "c"], "how": "collect"}},
    }
    assert output(running(nodes))["all"] == [1, 2]


def test_most_votes_win_whatever_order_they_came_in() -> None:
    given = running({"a": {"aggregate": {"items": ["z", "a", "a"], "how": "vote"}}})
    assert output(given) == {"a": {"winner": "a", "votes": 2, "of": 3}}


def test_while_is_asked_with_the_number_of_the_pass_to_come_and_until_with_that_of_the_pass_done() -> None:
    loop = {"while": "loop.index < 2", "max_iterations": 9}
    given = running({"a": {"loop": loop, "do": {"x": {"set": "${{ loop.index }}"}}}})
    assert output(given) == {"a": {"x": 1}}
    loop = {"until": "loop.index == 2", "max_iterations": 9}
    assert output(running({"a": {"loop": loop, "do": {"x": {"set": "${{ loop.index }}"}}}})) == {"a": {"x": 2}}


def test_a_catch_within_an_item_may_read_the_item() -> None:
    body = {"a": {"fail": "no", "catch": [{"output": "${{ item }}"}]}}
    assert output(running({"all": {"foreach": {"items": [7]}, "do": body}})) == {"all": [{"a": 7}]}


def test_a_catch_whose_output_cannot_be_made_is_not_caught_by_the_next() -> None:
    catches = [{"on": "Failed", "output": "${{ input.gone }}"}, {"output": 0}]
    assert failure(running({"a": {"fail": "no", "catch": catches}}, {})).type == "ExpressionError"


def test_what_is_stopped_by_an_error_of_no_node_has_its_message() -> None:
    given = running({"a": {"tool": "t"}}, timeout="1m")
    given.when(due(given, "execution/"))
    assert given.now.nodes["a"].reason == "the execution took longer than 60 s"
