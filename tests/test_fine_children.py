"""Children of an execution to the last detail: what mutation testing found untested."""

from typing import Any

from scenario import BOOM, EXECUTION, due, failure, running

from perdure.actors.children import to_close, to_start
from perdure.actors.inputs import (
    ReportChild,
    ReportFailure,
    RetryExecution,
)
from perdure.events.vocabulary import ChildEnded, Error

LEAF = {"name": "leaf", "nodes": {"x": {"set": 1}}, "input": {"type": "object"}}


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
