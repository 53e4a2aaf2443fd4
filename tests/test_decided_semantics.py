"""What DESIGN decides, as far as the loader holds it.

Scopes: test_a_name_is_there_where_its_scope_is, test_a_name_is_not_there_outside_of_its_scope,
  test_names_are_letters_digits_and_underscores, test_an_item_cannot_hide_a_root,
  test_inner_names_come_first_and_are_invisible_outside.
Conditions: test_a_condition_is_an_expression_with_or_without_braces, test_a_condition_that_is_none_is_refused,
  test_an_unterminated_expression_says_to_quote_it; YAML 1.2 is held by test_loading.
Join: test_the_join_is_none_failed_by_default, test_a_node_is_the_target_of_one_switch_or_catch_only.
Foreach and loop: test_work_stands_under_do_or_is_one_call, test_the_item_is_there_in_the_call_and_not_in_modifiers,
  test_a_loop_is_bounded.
Retry: test_attempts_count_all_tries_so_there_is_at_least_one; durations are held by test_bad_definitions.
Catch: test_a_handler_is_never_upstream, test_what_a_catch_leads_to_runs_for_it_only.
Approval: test_an_approval_gives_its_decision_who_made_it_and_its_data.
Parallel: test_a_parallel_joins_all_any_or_as_many_as_there_are.
Compensation: only where something can be compensated, in test_bad_definitions.
Invoke: test_an_invocation_is_named_by_its_state_unless_it_has_an_id, test_the_context_changes_by_set_only.
Secrets: test_secrets_are_read_in_with_only.
Tools: test_tools_are_files_names_and_import_paths.
"""

from typing import Any

import pytest

from perdure.definitions.loading import Definition, load
from perdure.definitions.nodes import ToolNode
from perdure.errors import DefinitionError

CALL = {"tool": "t"}


def dag(nodes: dict[str, Any], **parts: Any) -> Definition:
    return load({"name": "x", "nodes": nodes, **parts})


def chart(states: dict[str, Any], **parts: Any) -> Definition:
    return load({"name": "x", "kind": "statechart", "states": states, **parts})


def refused(nodes: dict[str, Any], **parts: Any) -> str:
    with pytest.raises(DefinitionError) as caught:
        dag(nodes, **parts)
    return str(caught.value)


def chart_refused(states: dict[str, Any], **parts: Any) -> str:
    with pytest.raises(DefinitionError) as caught:
        chart(states, **parts)
    return str(caught.value)


def place(where: str, expression: str) -> dict[str, Any]:
    """Return a workflow that reads an expression at one place."""
    text = f"${{{{ {expression} }}}}"
    handler = {"a": {**CALL, "catch": [{"then": "h"}]}, "h": {**CALL, "with": {"x": text}}}
    nodes: dict[str, dict[str, Any]] = {
        "set": {"a": {"set": text}},
        "with": {"a": {**CALL, "with": {"x": text}}},
        "catch": {"a": {**CALL, "catch": [{"output": text}]}},
        "handler": handler,
        "compensate": {"a": {**CALL, "compensate": {**CALL, "with": {"x": text}}}},
        "do": {"a": {"loop": {"max_iterations": 2}, "do": {"b": {"set": text}}}},
        "until": {"a": {"loop": {"max_iterations": 2, "until": f"{expression} == 1"}, **CALL}},
        "item": {"a": {"foreach": {"items": "input.list", "as": "one"}, **CALL, "with": {"x": text}}},
    }
    end: dict[str, Any] = {"b": {"set": text}}
    if where in ("on_failure", "on_cancel", "finally"):
        return {"name": "x", "nodes": {"a": CALL}, where: end}
    if where == "chart":
        return {"name": "x", "kind": "statechart", "states": {"s": {"type": "final", "output": text}}}
    return {"name": "x", "nodes": nodes[where]}


PLACES = (
    "set",
    "with",
    "catch",
    "handler",
    "compensate",
    "do",
    "until",
    "item",
    "on_failure",
    "on_cancel",
    "finally",
    "chart",
)
SCOPES = {
    "input": set(PLACES),
    "execution.id": set(PLACES),
    "secrets.key": {"with", "handler", "compensate", "item"},
    "error.message": {"catch", "handler", "compensate", "on_failure", "finally"},
    "loop.last": {"do", "until"},
    "loop.index": {"do", "until"},
    "one": {"item"},
    "index": {"item"},
    "event": {"chart"},
    "args": set(),
}


@pytest.mark.parametrize(("name", "where"), [(name, each) for name, scope in SCOPES.items() for each in sorted(scope)])
def test_a_name_is_there_where_its_scope_is(name: str, where: str) -> None:
    assert load(place(where, name))


@pytest.mark.parametrize(
    ("name", "where"), [(name, each) for name, scope in SCOPES.items() for each in PLACES if each not in scope]
)
def test_a_name_is_not_there_outside_of_its_scope(name: str, where: str) -> None:
    with pytest.raises(DefinitionError, match=f"unknown name '{name.partition('.')[0]}'"):
        load(place(where, name))


@pytest.mark.parametrize("name", ["2nd", "a-b", "a b", "", "é", "a.b"])
def test_names_are_letters_digits_and_underscores(name: str) -> None:
    assert "is not a name: letters, digits and '_'" in refused({name: CALL})
    assert dag({"_a1": CALL})


@pytest.mark.parametrize(
    "word", ["input", "nodes", "execution", "secrets", "context", "event", "error", "loop", "args"]
)
def test_an_item_cannot_hide_a_root(word: str) -> None:
    said = refused({"a": {"foreach": {"items": [1], "as": word}, **CALL}})
    assert f"{word!r} is a name that expressions begin with already" in said


def test_inner_names_come_first_and_are_invisible_outside() -> None:
    body = {"inner": {"set": {"y": 1}}, "outer": {"set": {"z": 2}}, "read": {"set": "${{ nodes.outer.output.z }}"}}
    assert dag({"outer": {"set": 1}, "a": {"foreach": {"items": [1]}, "do": body}})
    assert dag(
        {
            "outer": {"set": {"y": 1}},
            "a": {"foreach": {"items": [1]}, "do": {"b": {"set": "${{ nodes.outer.output.y }}"}}},
        }
    )
    said = refused({"a": {"foreach": {"items": [1]}, "do": body}, "b": {"set": "${{ nodes.inner.output }}"}})
    assert "reads node 'inner', which does not exist here; it lies within node 'a'" in said


@pytest.mark.parametrize("condition", [True, False, "input.x > 1", "${{ input.x > 1 }}", " ${{ input.x }} "])
def test_a_condition_is_an_expression_with_or_without_braces(condition: Any) -> None:
    assert dag({"a": {**CALL, "if": condition}})
    assert dag({"a": {"switch": {"cases": [{"when": condition, "then": "b"}]}}, "b": CALL})
    assert dag({"a": {"loop": {"while": condition, "max_iterations": 2}, **CALL}})


@pytest.mark.parametrize(
    "condition", [1, None, [], "nodes.one.output", "'text'", "yes ${{ input.x }}", "${{ input.x }} yes"]
)
def test_a_condition_that_is_none_is_refused(condition: Any) -> None:
    if condition is None:
        assert dag({"a": {**CALL, "if": None}})  # as if it were not there
    else:
        assert "at nodes.a.if: " in refused({"one": {"set": 1}, "a": {**CALL, "if": condition}})
    assert "'items' gives a list" in refused(
        {"one": {"set": 1}, "a": {"foreach": {"items": "nodes.one.output"}, **CALL}}
    )


def test_an_unterminated_expression_says_to_quote_it() -> None:
    assert "quote this value" in refused({"a": {"set": "${{ input.x"}})


def test_the_join_is_none_failed_by_default() -> None:
    assert dag({"a": CALL}).plan.main.nodes["a"].join == "none_failed"


def test_a_node_is_the_target_of_one_switch_or_catch_only() -> None:
    switch = {"switch": {"cases": [{"when": "input.x", "then": "t"}, {"when": "input.y", "then": "t"}], "default": "t"}}
    assert dag({"a": switch, "t": CALL})
    assert "'t' is already led to by the switch 'a'" in refused({"a": switch, "b": switch, "t": CALL})
    assert "only one node may lead to it" in refused({"a": switch, "b": {**CALL, "catch": [{"then": "t"}]}, "t": CALL})


@pytest.mark.parametrize("kind", [{"foreach": {"items": [1]}}, {"loop": {"max_iterations": 2}}])
def test_work_stands_under_do_or_is_one_call(kind: dict[str, Any]) -> None:
    assert dag({"a": {**kind, **CALL}})
    assert dag({"a": {**kind, "do": {"b": CALL}}})
    assert "does its work under 'do'" in refused({"a": kind})
    assert "it has 'tool' and 'do'" in refused({"a": {**kind, **CALL, "do": {"b": CALL}}})
    assert "'with' belongs to a single call" in refused({"a": {**kind, "do": {"b": CALL}, "with": {}}})


@pytest.mark.parametrize(
    "modifier", [{"if": "one > 1"}, {"output": "${{ one }}"}, {"compensate": {**CALL, "with": {"x": "${{ one }}"}}}]
)
def test_the_item_is_there_in_the_call_and_not_in_modifiers(modifier: dict[str, Any]) -> None:
    node = {"foreach": {"items": [1], "as": "one"}, **CALL, "with": {"x": "${{ one }}"}}
    assert dag({"a": node})
    assert "unknown name 'one'" in refused({"a": {**node, **modifier}})


def test_a_loop_is_bounded() -> None:
    assert "a loop without a bound is refused; add 'max_iterations'" in refused(
        {"a": {"loop": {"until": "True"}, **CALL}}
    )
    both = {"while": "loop.index < 3", "until": "loop.index > 5", "max_iterations": 3}
    assert "a loop has 'while' or 'until', not both" in refused({"a": {"loop": both, **CALL}})


def test_attempts_count_all_tries_so_there_is_at_least_one() -> None:
    assert "'attempts' is at least 1, not 0" in refused({"a": {**CALL, "retry": {"attempts": 0}}})
    assert dag({"a": CALL}).plan.main.nodes["a"].retry.attempts == 1


def test_a_handler_is_never_upstream() -> None:
    said = refused({"a": CALL, "b": {**CALL, "needs": ["a"], "catch": [{"then": "a"}]}})
    assert "the nodes wait for each other in a circle: a needs b needs a ('b' leads to 'a')" in said
    assert "leads to itself; use a loop to go back" in refused({"a": {**CALL, "catch": [{"then": "a"}]}})


def test_what_a_catch_leads_to_runs_for_it_only() -> None:
    plan = dag({"a": {**CALL, "catch": [{"on": "X", "then": "h"}, {"then": "h"}]}, "h": CALL}).plan.main
    assert (plan.nodes["h"].needs, plan.nodes["h"].handler_of, plan.leaves) == (("a",), "a", ("a",))


def test_an_approval_gives_its_decision_who_made_it_and_its_data() -> None:
    form = {"type": "object", "properties": {"why": {"type": "string"}}, "additionalProperties": False}
    asked = {"approval": {"title": "?", "form": form}}
    for key in ("approved", "by", "data.why"):
        assert dag({"a": asked, "b": {"set": f"${{{{ nodes.a.output.{key} }}}}"}})
    assert "there is no 'answer'; there are approved, by, data" in refused(
        {"a": asked, "b": {"set": "${{ nodes.a.output.answer }}"}}
    )
    assert "there is no 'what'" in refused({"a": asked, "b": {"set": "${{ nodes.a.output.data.what }}"}})


@pytest.mark.parametrize(
    ("join", "sound"), [("all", True), ("any", True), (1, True), (2, True), (3, False), (0, False)]
)
def test_a_parallel_joins_all_any_or_as_many_as_there_are(join: Any, sound: bool) -> None:
    nodes = {"a": {"parallel": {"join": join, "branches": {"l": CALL, "r": CALL}}}}
    assert dag(nodes) if sound else "branches can never succeed; join 1 to 2" in refused(nodes)


def test_an_invocation_is_named_by_its_state_unless_it_has_an_id() -> None:
    end = {"end": {"type": "final"}}
    one = {"tool": "t", "on_done": "end"}
    assert chart({"s": {"invoke": [one, {**one, "id": "other"}]}, **end})
    assert "an invocation named 's' stands in state 's' already; give this one an 'id'" in chart_refused(
        {"s": {"invoke": [one, one]}, **end}
    )


def test_the_context_changes_by_set_only() -> None:
    states = {"s": {"entry": {"set": {"late": 1}}, "always": {"target": "end", "if": "context.late == context.early"}}}
    end = {"end": {"type": "final"}}
    assert chart({**states, **end}, context={"early": 0})
    assert "'context.early' can never be read: there is no 'early'" in chart_refused({**states, **end})


@pytest.mark.parametrize(
    "field", [{"if": "secrets.x"}, {"output": "${{ secrets.x }}"}, {"catch": [{"output": "${{ secrets.x }}"}]}]
)
def test_secrets_are_read_in_with_only(field: dict[str, Any]) -> None:
    assert dag({"a": {**CALL, "with": {"key": "${{ secrets.x }}"}}})
    assert "secrets may be read in 'with' only" in refused({"a": {**CALL, **field}})
    assert "secrets may be read in 'with' only" in refused({"a": CALL}, output="${{ secrets.x }}")


@pytest.mark.parametrize("tool", ["lookup", "payments.refund", "package.module:function"])
def test_tools_are_files_names_and_import_paths(tool: str) -> None:
    declared = {"name": "pay", "call": "shop.tools:pay"}
    nodes = dag({"a": {"tool": tool}}, tools=["./tools.py", declared]).workflow.nodes
    assert isinstance(nodes["a"], ToolNode)
