"""Checks before anything runs: reads of what may be skipped, arms and nodes that are never reached, types."""

from operator import eq, ge, gt, le, lt, ne
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.definitions.loading import load
from perdure.errors import BadInput, DefinitionError

CALL = {"tool": "t"}
READ = "${{ nodes.a.output.y }}"
MAYBE = {"a": {**CALL, "if": "input.x"}, "other": CALL}


def warnings_of(nodes: dict[str, Any], **parts: Any) -> list[str]:
    return [problem.message for problem in load({"name": "x", "nodes": nodes, **parts}).warnings]


def problems_of(nodes: dict[str, Any], **parts: Any) -> list[str]:
    try:
        return [each.message for each in load({"name": "x", "nodes": nodes, **parts}).warnings]
    except DefinitionError as error:
        return [problem.message for problem in error.problems]


@pytest.mark.parametrize(
    "nodes",
    [
        {**MAYBE, "b": {"set": READ, "needs": ["other"]}},
        {"s": {"switch": {"cases": [{"when": "input.x", "then": "a"}], "default": "other"}}, "a": CALL, "other": CALL,
         "b": {"set": READ, "needs": ["other"]}},
        {"c": {**CALL, "catch": [{"then": "a"}]}, "a": CALL, "b": {"set": READ, "needs": ["c"]}},
        {"first": {**CALL, "if": "input.x"}, "a": {**CALL, "needs": ["first"]}, "other": CALL,
         "b": {"set": READ, "needs": ["other"]}},
        {**MAYBE, "b": {"needs": ["other"], "foreach": {"items": [1]}, **CALL, "with": {"x": READ}}},
        {**MAYBE, "b": {"set": READ, "join": "all_done"}},
    ],
    ids=["if", "switch", "catch", "needs", "within a body", "all_done"],
)  # fmt: skip
def test_a_read_of_what_may_be_skipped_is_warned_of_with_the_mend(nodes: dict[str, Any]) -> None:
    (message,) = warnings_of(nodes)
    assert "'nodes.a.output.y' fails when node 'a' is skipped: its output is null" in message
    assert "write `default(nodes.a.output.y, ...)` or give this node `join: all_succeeded`" in message


@pytest.mark.parametrize(
    "reader",
    [
        {"set": "${{ nodes.a.output }}", "needs": ["other"]},
        {"set": "${{ default(nodes.a.output.y, 1) }}", "needs": ["other"]},
        {"set": "${{ nodes.a.output.get('y') }}", "needs": ["other"]},
        {"set": "${{ nodes.a.output.y if nodes.a.status == 'succeeded' else 0 }}", "needs": ["other"]},
        {"set": "${{ nodes.a.output and nodes.a.output.y }}", "needs": ["other"]},
        {"set": READ, "needs": ["other"], "if": "nodes.a.output is not None"},
        {"set": READ, "needs": ["other"], "if": "input.x"},
        {"set": READ, "needs": ["other"], "join": "all_succeeded"},
        {"set": READ},
    ],
    ids=["whole", "default", "get", "conditional", "and", "if", "same if", "all_succeeded", "skipped as well"],
)
def test_a_guarded_read_is_not_warned_of(reader: dict[str, Any]) -> None:
    assert warnings_of({**MAYBE, "b": reader}) == []


def test_nodes_of_one_arm_are_skipped_together() -> None:
    switch = {"switch": {"cases": [{"when": "input.x", "then": ["a", "b"]}], "default": "c"}}
    nodes = {"s": switch, "a": CALL, "b": {"set": READ}, "c": CALL}
    assert warnings_of(nodes) == []
    assert len(warnings_of({**nodes, "d": {"set": READ, "needs": ["c"]}})) == 1


def test_an_output_and_what_runs_at_the_end_cannot_rely_on_a_node() -> None:
    assert "fails when node 'a' is skipped" in warnings_of(MAYBE, output=READ)[0]
    for end in ("on_failure", "on_cancel", "finally"):
        (message,) = warnings_of({"a": CALL}, **{end: {"b": {"set": READ}}})
        assert "node 'a' need not have run by then; write `default(nodes.a.output.y, ...)`" in message


def test_a_node_that_needs_two_arms_of_a_switch_to_succeed_is_unreachable() -> None:
    switch = {"switch": {"cases": [{"when": "input.x", "then": "a"}, {"when": "input.y", "then": "b"}]}}
    after = {"c": {**CALL, "needs": ["a"]}, "d": {**CALL, "needs": ["b"]}}
    nodes = {"s": switch, "a": CALL, "b": CALL, **after}
    for join in ("none_failed", "any_succeeded", "all_done"):
        assert problems_of({**nodes, "e": {**CALL, "needs": ["c", "d"], "join": join}}) == []
    (message,) = problems_of({**nodes, "e": {**CALL, "needs": ["c", "d"], "join": "all_succeeded"}})
    assert "node 'e' is unreachable: it needs nodes of different arms of switch 's'" in message


OPERATORS = {"<": lt, "<=": le, ">": gt, ">=": ge, "==": eq, "!=": ne}
parts = st.tuples(st.sampled_from(["input.k", "input.m"]), st.sampled_from(sorted(OPERATORS)), st.integers(0, 4))
arms = st.lists(st.lists(st.lists(parts, min_size=1, max_size=2), min_size=1, max_size=2), min_size=2, max_size=5)


def holds(arm: list[list[tuple[str, str, int]]], values: dict[str, float]) -> bool:
    return any(all(OPERATORS[how](values[name], bound) for name, how, bound in group) for group in arm)


@given(arms)
def test_an_arm_that_is_said_to_be_unreachable_is_never_taken(arms: list[list[list[tuple[str, str, int]]]]) -> None:
    texts = [" or ".join(" and ".join(f"{n} {o} {b}" for n, o, b in group) for group in arm) for arm in arms]
    cases = [{"when": text, "then": f"n{index}"} for index, text in enumerate(texts)]
    nodes = {"s": {"switch": {"cases": cases}}, **{f"n{index}": CALL for index in range(len(arms))}}
    said = "\n".join(problems_of(nodes))
    halves = [number / 2 for number in range(-2, 11)]
    for index, arm in enumerate(arms):
        if f"at nodes.s.switch.cases.{index}.when" in said:
            for k in halves:
                for m in halves:
                    values = {"input.k": k, "input.m": m}
                    assert not holds(arm, values) or any(holds(one, values) for one in arms[:index])
    for index, text in enumerate(texts):
        if text in texts[:index]:
            assert f"at nodes.s.switch.cases.{index}.when" in said


POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "additionalProperties": False}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "maybe": {"anyOf": [POINT, {"type": "null"}]},
        "referred": {"$ref": "#/$defs/point"},
        "open": {"type": "object"},
        "list": {"type": "array", "items": {"$ref": "#/$defs/point"}},
        "free": True,
    },
    "$defs": {"point": POINT},
}


@pytest.mark.parametrize(
    "path", ["maybe.x", "referred.x", "open.any.thing", "list[0].x", "list[-1].x", "free.any[3].thing", "get('any')"]
)
def test_what_a_schema_allows_can_be_read(path: str) -> None:
    assert problems_of({"a": {"set": f"${{{{ input.{path} }}}}"}}, input=SCHEMA) == []


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("mayby", "there is no 'mayby'; did you mean 'maybe'?"),
        ("maybe.y", "there is no 'y'; there are x"),
        ("referred.x.y", "a number has no 'y'"),
        ("list.x", "a list has no 'x'"),
        ("list[0].z", "there is no 'z'; there are x"),
        ("referred[0]", "an object has no items"),
    ],
)
def test_what_a_schema_rules_out_is_refused(path: str, why: str) -> None:
    (message,) = problems_of({"a": {"set": f"${{{{ input.{path} }}}}"}}, input=SCHEMA)
    assert f"can never be read: {why}" in message


def test_types_are_known_through_bodies_and_outputs() -> None:
    agents = {"w": {"model": "m", "instructions": "", "output": POINT}}
    nodes = {
        "each": {"foreach": {"items": "[1, 2]", "output": {"got": "${{ nodes.do.output }}"}}, "agent": "w"},
        "again": {"loop": {"max_iterations": 2}, "agent": "w", "output": {"last": "${{ output.x }}"}},
        "both": {"parallel": {"branches": {"l": {"agent": "w"}, "r": {"do": {"z": CALL}, "output": [1]}}}},
    }
    for path in ("each.output[0].got.x", "again.output.last", "both.output.l.x", "both.output.r[0]"):
        assert problems_of({**nodes, "b": {"set": f"${{{{ nodes.{path} }}}}"}}, agents=agents) == []
    for path, why in (
        ("each.output[0].got.y", "there is no 'y'; there are x"),
        ("again.output.x", "there is no 'x'; there are last"),
        ("both.output.l.z", "there is no 'z'; there are x"),
        ("both.output.r[0].x", "a number has no 'x'"),
    ):
        assert why in problems_of({**nodes, "b": {"set": f"${{{{ nodes.{path} }}}}"}}, agents=agents)[0]


KEYWORDS = st.sampled_from(["type", "properties", "items", "$ref", "anyOf", "enum", "x", "required"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.sampled_from(["object", "array", "x", "#/x", "#"]))


def within(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYWORDS, inner, max_size=3))


@given(st.recursive(SCALARS, within, max_leaves=8))
def test_any_schema_is_read_or_refused(schema: Any) -> None:
    tools = [{"name": "t", "call": "a:b", "input": schema, "output": schema}]
    nodes = {
        "a": {"tool": "t", "with": {"x": 1, "y": "${{ input.x.y }}"}},
        "b": {"set": "${{ nodes.a.output.x[0].type }}"},
    }
    for message in problems_of(nodes, tools=tools, input=schema):
        assert message


def test_a_chart_without_a_way_to_its_end_is_warned_of() -> None:
    endless = {"a": {"on": {"go": "b"}}, "b": {"on": {"back": "a"}}}
    (said,) = load({"name": "x", "kind": "statechart", "states": endless}).warnings
    assert "no final state at the top" in said.message
    apart = {"a": {"on": {"go": "b"}}, "b": {"on": {"back": "a"}}, "end": {"type": "final"}}
    with pytest.raises(DefinitionError, match="state 'end' is unreachable: no transition or initial state leads to it"):
        load({"name": "x", "kind": "statechart", "states": apart})


def test_thousands_of_nodes_are_checked_in_good_time() -> None:
    many = 1500
    arms = [{"when": f"input.k == {n}", "then": f"n{n}"} for n in range(many)]
    nodes = {f"n{n}": {**CALL, "with": {"x": "${{ default(nodes.s.output, 0) }}"}} for n in range(many)}
    reads = [f"${{{{ nodes.n{n}.output.y }}}}" for n in range(many)]
    before = process_time()
    said = warnings_of({"s": {"switch": {"cases": arms}}, **nodes, "end": {"set": reads}})
    assert len(said) == many
    assert process_time() - before < 10  # seconds; about 1 here, and minutes when each is compared with each


@pytest.mark.parametrize(
    ("definition", "says"),
    [
        ({1: 2}, "unknown key '1'"),
        ({"name": "x", "nodes": {1: {"set": 1}}}, "'1' is not a name"),
        ({"name": "x", "nodes": {"a": {"set": object()}}}, "the definition is not JSON data"),
        ({"name": "x", "nodes": {"a": {"wait": float("nan")}}}, "it has NaN or infinity"),
        ({"name": "x", "nodes": {"a": ("set", 1)}}, "a node is a mapping, not a list"),
        ({"name": "x", "nodes": {"a": {"tool": "t", "needs": ("b",)}}}, "needs 'b', which does not exist; it is"),
    ],
)  # fmt: skip
def test_a_dict_of_python_values_is_read_as_json_or_refused(definition: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        load(definition)
