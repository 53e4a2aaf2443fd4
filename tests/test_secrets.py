"""Secrets in a definition and in the log: where they may stand, and the references that are recorded."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenario import BOOM, EXECUTION, Given, due, plan_of, running

from perdure.actors.folded import Folded
from perdure.actors.inputs import ChangeInput, Recover, ReportFailure, ReportSuccess, SignalExecution
from perdure.actors.snapshot import pack, unpack
from perdure.definitions.loading import load
from perdure.definitions.secret_references import pointers_in, revealed
from perdure.definitions.templates import compile_template, render
from perdure.errors import DefinitionError
from perdure.events.vocabulary import NodeScheduled
from perdure.testing import play

TOKEN = 'k"1\\é/ +9%'
REFERENCE = {"secret": [{"name": "TOKEN"}]}
CALL = {"tool": "t", "with": {"auth": "Bearer ${{ secrets.TOKEN }}", "user": "${{ input }}"}}
BEARER = {"secret": ["Bearer ", {"name": "TOKEN"}]}


def scheduled(given: Given) -> list[NodeScheduled]:
    return [event for event in given.events if isinstance(event, NodeScheduled)]


# --- what is recorded


def test_a_secret_is_recorded_as_the_reference_to_it_and_where_that_stands() -> None:
    assert scheduled(running({"a": CALL}, "ann")) == [NodeScheduled("a", 1, {"auth": BEARER, "user": "ann"}, ["/auth"])]


def test_text_and_values_around_a_secret_are_recorded_in_order() -> None:
    with_ = {"url": "https://${{ input.user }}:${{ secrets.PW }}@${{ input.host }}/${{ secrets.PATH }}"}
    given = running({"a": {"tool": "t", "with": with_}}, {"user": "ann", "host": "h"})
    assert scheduled(given)[0].input["url"] == {"secret": ["https://ann:", {"name": "PW"}, "@h/", {"name": "PATH"}]}


def test_data_that_looks_like_a_reference_is_data() -> None:
    call = scheduled(running({"a": CALL}, REFERENCE))[0]
    assert call.secrets == ["/auth"]
    seen = revealed(call.input, call.secrets, {"TOKEN": "t-1"}.__getitem__)
    assert seen == {"auth": "Bearer t-1", "user": REFERENCE}


def test_a_reference_that_another_node_reads_is_data_there() -> None:
    given = running({"a": CALL, "b": {"tool": "t", "with": {"all": "${{ nodes.a }}"}}}, "ann")
    given.when(ReportSuccess("a", 1, None))
    all_of_a = {"output": None, "status": "succeeded", "input": {"auth": BEARER, "user": "ann"}}
    assert scheduled(given)[1] == NodeScheduled("b", 1, {"all": all_of_a}, [])


def test_a_retry_and_a_new_owner_know_where_the_references_are() -> None:
    given = running({"a": {**CALL, "retry": {"attempts": 2, "delay": 1}}}, "ann").when(Recover())
    assert given.now.running["a"].secrets == ["/auth"]
    given.when(ReportFailure("a", 1, BOOM))
    given.when(due(given, "retry/a"))
    assert scheduled(given)[1] == NodeScheduled("a", 2, {"auth": BEARER, "user": "ann"}, ["/auth"])


def test_a_snapshot_keeps_where_the_references_are() -> None:
    data = pack(Folded(running({"a": CALL}, "ann").state))
    assert data is not None
    saved = unpack(data)
    assert saved is not None
    assert saved[0].state.running["a"].secrets == ["/auth"]  # type: ignore[union-attr]


def test_a_compensation_may_name_secrets_and_gets_those_of_what_it_undoes() -> None:
    nodes = {
        "a": {**CALL, "compensate": {"tool": "u"}},
        "b": {"tool": "t", "needs": ["a"], "compensate": {"tool": "u", "with": {"key": "${{ secrets.K }}"}}},
        "c": {"tool": "t", "needs": ["b"]},
    }
    given = running(nodes, "ann").when(ReportSuccess("a", 1, 1), ReportSuccess("b", 1, 2), ReportFailure("c", 1, BOOM))
    given.when(ReportSuccess("b~undo", 1, None))
    assert scheduled(given)[-2:] == [
        NodeScheduled("b~undo", 1, {"key": {"secret": [{"name": "K"}]}}, ["/key"]),
        NodeScheduled("a~undo", 1, {"input": {"auth": BEARER, "user": "ann"}, "output": 1}, ["/input/auth"]),
    ]


def test_the_items_of_an_aggregate_are_data_whatever_stands_under_their_name() -> None:
    with_ = {"items": "${{ secrets.TOKEN }}", "key": "${{ secrets.TOKEN }}"}
    node = {"aggregate": {"items": "input", "tool": "t"}, "with": with_}
    assert scheduled(running({"a": node}, REFERENCE["secret"])) == [
        NodeScheduled("a", 1, {"items": REFERENCE["secret"], "key": REFERENCE}, ["/key"])
    ]


def test_the_single_call_of_a_foreach_may_name_secrets() -> None:
    node = {"foreach": {"items": [1], "as": "n"}, "tool": "t", "with": {"n": "${{ n }}", "k": "${{ secrets.TOKEN }}"}}
    assert scheduled(running({"a": node})) == [NodeScheduled("a[0]/do", 1, {"n": 1, "k": REFERENCE}, ["/k"])]


@pytest.mark.parametrize(
    ("given", "pointers"),
    [
        ({"auth": BEARER, "user": "bob"}, ["/auth"]),
        ({"auth": {"secret": ["Bearer ", {"name": "OTHER"}]}, "user": BEARER}, []),
        ({"auth": {"secret": ["https://elsewhere/", {"name": "TOKEN"}]}}, []),
        ({}, []),
        (["auth"], []),
    ],
)
def test_an_input_given_by_hand_keeps_a_secret_where_it_repeats_the_reference(given: Any, pointers: list[str]) -> None:
    after = running({"s": {"wait": {"signal": "go"}}, "a": {**CALL, "needs": ["s"]}}, "ann")
    after.when(ChangeInput("c-1", EXECUTION, "a", given), SignalExecution("s-1", EXECUTION, "go"))
    assert scheduled(after) == [NodeScheduled("a", 1, given, pointers)]


def test_an_input_given_by_hand_is_data_where_the_reference_has_text_of_an_expression() -> None:
    node = {"tool": "t", "with": {"url": "${{ input }}${{ secrets.TOKEN }}"}, "needs": ["s"]}
    given = {"url": {"secret": ["u", {"name": "TOKEN"}]}}
    after = running({"s": {"wait": {"signal": "go"}}, "a": node}, "u")
    after.when(ChangeInput("c-1", EXECUTION, "a", given), SignalExecution("s-1", EXECUTION, "go"))
    assert scheduled(after) == [NodeScheduled("a", 1, given, [])]


def test_a_played_call_gets_the_name_of_the_secret() -> None:
    played = play({"name": "w", "nodes": {"a": CALL}}, "ann", tools={"t": lambda auth, user: f"{user} {auth}"})
    assert played.output == {"a": "ann Bearer [secret TOKEN]"}


LEAVES = st.sampled_from(["${{ secrets.T }}", "plain", "a/b~1", "", 7, None])
DATA = st.recursive(
    LEAVES | st.just({"secret": [{"name": "T"}]}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "/", "~", "~1", "0", ""]), inner),
    max_leaves=12,
)


@given(DATA)
def test_exactly_the_references_of_the_template_are_resolved(data: Any) -> None:
    template = compile_template(data)
    rendered = render(template, {})
    assert revealed(rendered, pointers_in(template), lambda name: f"<{name}>") == in_place(data)
    assert rendered == render(template, {})  # the recorded form is left as it is


def in_place(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: in_place(item) for key, item in data.items()}
    if isinstance(data, list):
        return [in_place(item) for item in data]
    return "<T>" if data == "${{ secrets.T }}" else data


# --- where they may stand


@pytest.mark.parametrize(
    "text", ["secrets.A + 'x'", "secrets['A']", "[secrets.A]", "secrets", "secrets.A.b", "secrets.A if input else 'x'"]
)
def test_a_secret_stands_alone(text: str) -> None:
    with pytest.raises(DefinitionError, match="a secret stands alone"):
        load({"name": "w", "nodes": {"a": {"tool": "t", "with": {"k": f"${{{{ {text} }}}}"}}}})
    state = {"invoke": {"tool": "t", "with": {"k": f"${{{{ {text} }}}}"}, "on_done": "end"}}
    with pytest.raises(DefinitionError, match="a secret stands alone"):
        load({"name": "w", "kind": "statechart", "states": {"s": state, "end": {"type": "final"}}})


CHILD = {"workflow": "w", "with": {"k": "${{ secrets.A }}"}}


@pytest.mark.parametrize("node", [CHILD, {**CHILD, "foreach": {"items": [1]}}, {"tool": "t", "compensate": CHILD}])
def test_a_secret_does_not_travel_to_another_workflow(node: dict[str, Any]) -> None:
    with pytest.raises(
        DefinitionError, match="would be recorded as another workflow's input; read it in that workflow"
    ):
        load({"name": "v", "nodes": {"a": node}})


def test_a_secret_does_not_travel_from_a_state_to_another_workflow() -> None:
    states = {"s": {"invoke": {**CHILD, "on_done": "end"}}, "end": {"type": "final"}}
    with pytest.raises(DefinitionError, match="would be recorded as another workflow's input"):
        load({"name": "v", "kind": "statechart", "states": states})


def test_a_plan_knows_all_secrets_that_its_calls_read() -> None:
    def call(name: str) -> dict[str, Any]:
        return {"tool": "t", "with": {"k": [f"x ${{{{ secrets.{name} }}}}"]}}

    nodes = {
        "a": {**call("A"), "compensate": call("B")},
        "c": {"foreach": {"items": [1]}, "do": {"d": call("C")}},
        "w": {"workflow": "w"},
    }
    plan = plan_of(nodes, workflows={"w": {"name": "w", "nodes": {"a": call("D")}}}, **{"finally": {"f": call("E")}})
    assert plan.secrets == {"A", "B", "C", "D", "E"}
