"""Words and habits of other tools: each is answered with ours."""

from typing import Any

import pytest
from pydantic import BaseModel

from perdure.definitions.loading import load
from perdure.definitions.model import Workflow
from perdure.definitions.nodes import KINDS
from perdure.definitions.other_words import key_hint, meant
from perdure.definitions.states import Action, State, Transition
from perdure.errors import DefinitionError

CALL = {"tool": "t"}
AGENT = {"model": "m", "instructions": "i"}


def messages(**parts: Any) -> list[str]:
    """Return what is said of a workflow, warnings included."""
    try:
        return [each.message for each in load({"name": "x", **parts}).warnings]
    except DefinitionError as error:
        return [each.message for each in error.problems]


def of_node(node: dict[str, Any]) -> list[str]:
    return messages(nodes={"x": {"set": 1}, "y": node}, agents={"a": AGENT})


@pytest.mark.parametrize(
    ("node", "theirs", "ours"),
    [
        ({"set": 1, "depends_on": ["x"]}, "depends_on", "needs"),
        ({"set": 1, "dependsOn": ["x"]}, "dependsOn", "needs"),
        ({"uses": "t", "with": {}}, "uses", "tool"),
        ({"run": "echo"}, "run", "tool"),
        ({"sleep": "5m"}, "sleep", "wait"),
        ({**CALL, "env": {}}, "env", "with"),
        ({**CALL, "retries": 3}, "retries", "retry"),
        ({**CALL, "timeout_seconds": 3}, "timeout_seconds", "timeout"),
        ({**CALL, "matrix": {}}, "matrix", "foreach"),
        ({**CALL, "trigger_rule": "all_done"}, "trigger_rule", "join"),
        ({**CALL, "rescue": "x"}, "rescue", "catch"),
        ({**CALL, "undo": CALL}, "undo", "compensate"),
        ({**CALL, "when": "input.a"}, "when", "if"),
        ({"switch": {"cases": [{"if": "input.a", "then": "x"}]}}, "if", "when"),
        ({"switch": {"cases": [{"when": "input.a", "then": "x"}], "else": "x"}}, "else", "default"),
        ({"foreach": {"in": "input.a"}, **CALL}, "in", "items"),
        ({"foreach": {"items": "input.a"}, "steps": []}, "steps", "do"),
        ({**CALL, "retry": {"max_attempts": 3}}, "max_attempts", "attempts"),
        ({**CALL, "catch": [{"ErrorEquals": "A", "then": "x"}]}, "ErrorEquals", "on"),
    ],
)
def test_a_key_of_another_tool_is_answered_with_ours(node: dict[str, Any], theirs: str, ours: str) -> None:
    assert any(f"{theirs!r}; did you mean {ours!r}?" in each for each in of_node(node))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("steps", "did you mean 'nodes'?"),
        ("jobs", "did you mean 'nodes'?"),
        ("StartAt", "did you mean 'initial'?"),
        ("inputs", "did you mean 'input'?"),
        ("on", "a definition does not say when it starts"),
        ("schedule", "a definition does not say when it starts"),
        ("env", "there are no variables here"),
        ("secrets", "a secret is read where it is used"),
    ],
)
def test_a_key_at_the_top_is_answered_with_ours_or_with_why_there_is_none(key: str, said: str) -> None:
    assert any(f"unknown key {key!r}; {said}" in each for each in messages(nodes={"x": {"set": 1}}, **{key: {}}))


def test_a_node_without_a_kind_names_the_key_that_is_none_of_ours() -> None:
    (said,) = of_node({"invoke": "x"})
    assert said.endswith("; it has 'invoke', which is no key of a node")
    (said,) = of_node({"type": "task"})
    assert said.endswith("; it has 'type'; what a node does is its key, such as `tool: NAME` or `wait: 5m`")
    (said,) = of_node({"with": {}})
    assert said.endswith("'fail'")


def test_what_is_indented_too_little_to_stand_in_its_node_says_so() -> None:
    said = messages(nodes={"x": None, "set": 1, "needs": ["y"]})
    assert len(said) == 3
    assert sum("indent it further, to stand within its node" in each for each in said) == 2


def test_the_rest_of_a_chart_is_checked_beside_the_words_of_others() -> None:
    go = {"target": "b", "guard": "context.n > 1", "actions": [], "cond": "x"}
    states = {"a": {"on": {"go": go, "stop": "c"}, "on_enter": {}}, "b": {"type": "final", "data": 1}}
    said = " ".join(messages(kind="statechart", context={"n": 1}, states=states))
    assert "did you mean 'do'?" in said
    assert "there is no state 'c'" in said


def test_states_without_their_kind_are_one_mistake() -> None:
    (said,) = messages(states={"a": {"type": "final"}})
    assert "'states' belongs to a workflow with `kind: statechart`" in said


def test_our_own_keys_are_never_taken_for_others() -> None:
    models: list[type[BaseModel]] = [Workflow, *KINDS.values(), State, Transition, Action]
    for model in models:
        keys = [field.alias or name for name, field in model.model_fields.items()]
        assert all(meant(key, keys) == key for key in keys)
    assert key_hint("quite_else", ["nodes"]) == ""


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({**CALL, "retry": 3}, "'retry' is a mapping, not 3; write `retry: {attempts: 3}`"),
        ({"approval": "Sure?"}, "'approval' is a mapping, not 'Sure?'; write `approval: {title: Sure?}`"),
        ({"foreach": "input.a", **CALL}, "write `foreach: {items: input.a}`"),
        ({"foreach": {"items": "input.a"}, "do": [{"set": 1}]}, "write `key: value` lines below it, not `- ...`"),
    ],
)
def test_a_value_in_the_place_of_a_mapping_is_answered_with_the_mapping(node: dict[str, Any], said: str) -> None:
    assert any(said in each for each in of_node(node))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps.x.outputs.y", "unknown name 'steps' in 'steps.x.outputs.y'; did you mean 'nodes'?"),
        ("x.output", "unknown name 'x' in 'x.output'; write nodes.x.output"),
        ("input.a && input.b", "for '&&' write 'and'"),
        ("input.a || input.b", "for '||' write 'or'"),
        ("!input.a", "for '!' write 'not'"),
        ("input.a === '&&'", "for '===' write '=='"),
        ("input.a ? 1 : 2", "for '?' write 'A if TEST else B'"),
        ("input.a | upper", "'|' is not part of the expression language; write 'or', and call functions as f(x)"),
        ("f'{input.a}'", "f'...' is not part of the expression language; write text + str(value)"),
        ("~input.a", "'~' is not part of the expression language"),
        ("input.a @ 2", "'@' is not part of the expression language"),
    ],
)
def test_an_expression_of_another_language_is_answered_with_ours(text: str, said: str) -> None:
    assert any(said in each for each in of_node({"set": f"${{{{ {text} }}}}"}))


def test_python_that_is_merely_wrong_is_told_no_other_operator() -> None:
    (said,) = of_node({"set": "${{ input.a != '&&' b }}"})
    assert said.endswith("invalid syntax (at character 17)")


@pytest.mark.parametrize("text", ["{{ input.a }}", "Hello ${input.a}!", "${{ input.b }} and {{ input.a }}"])
def test_other_braces_around_what_could_be_read_are_warned_of(text: str) -> None:
    (said,) = of_node({"set": text})
    assert said.endswith("is text as it stands; an expression is '${{ input.a }}'")
    (said,) = messages(kind="statechart", states={"s": {"type": "final", "output": text}})
    assert "is text as it stands" in said


@pytest.mark.parametrize(
    "text", ["{{ name }}", "${HOME}", "{input}", "${{ {'a': {'b': input.a}} }}", "$${{ input.a }}"]
)
def test_other_braces_around_anything_else_are_text(text: str) -> None:
    assert of_node({"set": text}) == []


def test_what_is_never_computed_says_so() -> None:
    (said,) = messages(nodes={"x": {"agent": "a"}}, agents={"a": {**AGENT, "instructions": "Greet ${{ input.name }}."}})
    assert "is not computed in instructions; what the agent is to know stands in the node's 'with'" in said
    for node in ({"tool": "${{ input.t }}"}, {"workflow": "${{ input.w }}"}, {"wait": {"signal": "${{ input.s }}"}}):
        (said,) = of_node(node)
        assert "is not computed; write it out" in said


def test_fields_in_the_place_of_a_schema_are_warned_of() -> None:
    (said,) = messages(nodes={"x": {"set": 1}}, input={"customer": "string", "amount": "number"})
    assert "it takes anything; write `properties: {customer: ...}`" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nnodes:\n\ty: {}\n", "a tab; indent with blanks"),
        ("name: x\nnodes:\n  x:\n    set: 1\n   y:\n    set: 2\n", "is it indented as the lines above it"),
        ("name: x\nnodes: {x: {set: @a}}\n", "quote a text that begins with it"),
        ("name: x\ndescription: One: two\n", "quote a text with ': '"),
    ],
)
def test_text_that_is_no_yaml_is_answered_with_the_mend(text: str, said: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        load(text)
    assert said in str(caught.value)
