"""Loading: what is accepted, and that every mistake is named with its place and its mend."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.definitions.agent_parts import Agent
from perdure.definitions.loading import load
from perdure.definitions.model import Workflow
from perdure.definitions.nodes import AgentNode, SetNode, ToolNode
from perdure.definitions.plan import digest_of, find_cycle
from perdure.errors import BadInput, DefinitionError

GOOD = """\
name: good
agents:
  writer: {model: m, instructions: Write.}
nodes:
  first:
    tool: lookup
    with: {order: "${{ input.order }}"}
    retry: {attempts: 3, delay: 500ms, cap: 1h30m}
    timeout: 30s
  second:
    agent: writer
    if: nodes.first.output.total > 3
  third:
    set: [1, "${{ nodes.second.output }}"]
output: "${{ nodes.third.output }}"
"""


def problems_in(text: str) -> str:
    with pytest.raises(DefinitionError) as caught:
        load(text)
    return str(caught.value)


def test_a_good_definition_compiles_to_a_plan() -> None:
    plan = load(GOOD).plan.main
    assert list(plan.nodes) == ["first", "second", "third"]
    assert plan.nodes["second"].needs == ("first",)
    assert plan.nodes["first"].dependants == ("second",)
    assert plan.nodes["first"].timeout == 30
    assert (plan.nodes["first"].retry.delay, plan.nodes["first"].retry.cap) == (0.5, 5400)
    assert plan.leaves == ("third",)


def test_the_same_definition_is_the_same_in_every_form(tmp_path: Path) -> None:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    workflow = load(GOOD).workflow
    built = Workflow(
        name="good",
        agents={"writer": Agent(model="m", instructions="Write.")},
        nodes={
            "first": ToolNode.model_validate(
                {
                    "tool": "lookup",
                    "with": {"order": "${{ input.order }}"},
                    "retry": {"attempts": 3, "delay": 0.5, "cap": 5400},
                    "timeout": 30,
                }
            ),
            "second": AgentNode.model_validate({"agent": "writer", "if": "nodes.first.output.total > 3"}),
            "third": SetNode(set=[1, "${{ nodes.second.output }}"]),
        },
        output="${{ nodes.third.output }}",
    )
    forms = [load(file), load(str(file)), load(workflow), load(workflow.model_dump(by_alias=True)), load(built)]
    assert {form.plan.digest for form in forms} == {digest_of(workflow)}
    assert load(workflow.model_dump_json(by_alias=True)).plan.digest == digest_of(workflow)


def test_another_definition_has_another_digest() -> None:
    assert load(GOOD).plan.digest != load(GOOD.replace("> 3", "> 4")).plan.digest


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("    tool: lookup", "    tol: lookup", "definition:5:3: a node does exactly one thing"),
        ("timeout: 30s", "timeuot: 30s", "definition:9:5: unknown key 'timeuot'; did you mean 'timeout'?"),
        ("attempts: 3", "atempts: 3", "definition:8:13: unknown key 'atempts'; did you mean 'attempts'?"),
        ("instructions", "instuctions", "definition:3:22: unknown key 'instuctions'; did you mean 'instructions'?"),
        ("agents:", "agnets:", "definition:2:1: unknown key 'agnets'; did you mean 'agents'?"),
        ("name: good", "kind: dag", "definition:1:1: the key 'name' is missing"),
        ("name: good", "name: a b", "definition:1:7: 'a b' is not a name"),
        ("  third:", "  3rd:", "definition:13:3: '3rd' is not a name"),
        ("30s", "soon", "definition:9:14: not a duration: 'soon'; write 500ms"),
        ("attempts: 3", "attempts: 0", "definition:8:23: 'attempts' is at least 1, not 0"),
        (
            "agent: writer",
            "agent: riter",
            "definition:11:12: node 'second' asks agent 'riter', which does not exist; did",
        ),
        ("nodes.first.output.total", "nodes.fist.output", "definition:12:9: 'nodes.fist.output > 3' reads node 'fist'"),
        ("input.order", "inptu.order", "definition:7:19: unknown name 'inptu' in 'inptu.order'; did you mean 'input'?"),
        ("input.order }}", "input.order", "definition:7:19: '${{' without '}}'"),
        (
            "    if: ",
            "    needs: [fist]\n    if: ",
            "definition:12:13: node 'second' needs 'fist', which does not exist; d",
        ),
        ("    if: ", "    needs: [second]\n    if: ", "definition:12:13: node 'second' needs itself"),
        ("set: [1,", "set: ['${{ nodes.third }}',", "definition:14:11: node 'third' reads its own result"),
        ("    tool: lookup", "    tool: lookup\n    needs: [third]", "definition:5:3: the nodes wait for each other"),
        ("nodes.first.output.total > 3", "import os", "definition:12:9: cannot read the expression 'import os'"),
        ("nodes.first.output.total > 3", "exec('x')", "definition:12:9: there is no function 'exec'"),
        ("nodes.first.output.total > 3", "input.__class__", "definition:12:9: names do not begin with '_'"),
        ("nodes.first.output.total > 3", "input.n @ 2", "definition:12:9: '@' is not part of the expression"),
    ],
)
def test_a_mistake_is_named_with_its_place(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    assert expected in problems_in(GOOD.replace(old, new, 1))


def test_all_mistakes_are_told_at_once() -> None:
    text = GOOD.replace("agent: writer", "agent: x").replace("input.order", "inptu.order")
    assert problems_in(text).count("definition:") == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n- b\n", "definition:1:1: a workflow is a mapping"),
        ("\n", "the file is empty"),
        ("a: {\n", "not valid YAML"),
        ("a: 1\na: 2\n", "definition:2:1: the key 'a' stands twice"),
        ("a: !!python/object:os.system x\n", "definition:1:4: the tag"),
        ("a: .inf\n", ".inf is not a JSON float"),
        ("1: x\n", "definition:1:1: keys are strings; quote this one: '1'"),
        ("a: " + "[" * 150 + "]" * 150 + "\n", "levels"),
        ("a: " + "9" * 5000 + "\n", "is not a JSON int; quote it"),
        ("a: !!int abc\n", "abc is not a JSON int"),
        ("a: !!bool abc\n", "abc is not a JSON bool"),
        ("a: " + "[" * 100_000 + "]" * 100_000 + "\n", "definition:1:103: nested more than 100 levels"),
        ("a:\n  " + "- " * 100_000 + "x\n", "nested more than 100 levels"),
        ("a: &a {<<: *a}\n", "this mapping contains itself"),
        ("a: 1e999\n", "1e999 is not a JSON float"),
        ("a: &a {k: 1}\n" + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [{','.join(['*' + chr(97 + i)] * 9)}]}}\n" for i in range(10)),
         "aliases expand"),
        ("x: " + "y" * 1_000_001 + "\n", "over 1000000 bytes"),
        ("a: &a [1,1,1,1,1,1,1,1]\n" + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 8)}]\n" for i in range(8)),
         "aliases expand"),
    ],
)  # fmt: skip
def test_text_that_is_no_definition_is_refused(text: str, expected: str) -> None:
    assert expected in problems_in(text)


def test_yaml_has_the_values_of_version_1_2() -> None:
    nodes = {"a": {"set": None}}
    text = (
        "name: x\nnodes:\n  a:\n    set: {on: on, yes: yes, time: 1:30, octal: 0123, hex: 0x1F, empty: ~, no: 1.5e3}\n"
    )
    node = load(text).workflow.nodes["a"]
    assert isinstance(node, SetNode)
    assert node.set == {
        "on": "on", "yes": "yes", "time": "1:30", "octal": 123, "hex": 31, "empty": None, "no": 1500.0,
    }  # fmt: skip
    assert load({"name": "x", "nodes": nodes}).workflow.nodes.keys() == {"a"}


def test_anchors_and_merge_keys_work() -> None:
    text = """\
name: x
nodes:
  a: &base {tool: t, retry: {attempts: 2}}
  b:
    <<: *base
    tool: u
"""
    plan = load(text).plan
    assert (plan.main.nodes["b"].target, plan.main.nodes["b"].retry.attempts) == ("u", 2)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [("none.yaml", None, "there is no such file"), ("binary.yaml", b"\xff\xfe\x00", "not a text file")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None, expected: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=expected) as caught:
        load(path)
    assert name in str(caught.value)


def test_a_folder_is_no_definition(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load(tmp_path)


@given(st.dictionaries(st.integers(0, 6), st.lists(st.integers(0, 6), max_size=3), min_size=7, max_size=7))
def test_a_cycle_is_found_exactly_where_there_is_one(edges: dict[int, list[int]]) -> None:
    needs = {str(node): tuple(str(need) for need in wanted if need in edges) for node, wanted in edges.items()}
    cycle = find_cycle(needs)
    remaining = dict(needs)
    while leaves := [node for node, wanted in remaining.items() if not any(need in remaining for need in wanted)]:
        for leaf in leaves:
            del remaining[leaf]
    assert (cycle is not None) == bool(remaining)
    if cycle:
        assert cycle[0] == cycle[-1]
        assert all(after in needs[before] for before, after in pairwise(cycle))


@given(st.text(max_size=60))
def test_any_text_loads_or_is_refused_with_a_reason(text: str) -> None:
    try:
        load(text + "\n")
    except DefinitionError as error:
        assert str(error)


def test_a_misspelt_key_within_a_node_hides_no_mistake_of_another_node() -> None:
    said = problems_in(
        "name: x\nnodes:\n  check: {tool: t}\n  pay: {tool: t, if: nodes.chek.output > 3}\n"
        "  mail: {tool: t, retry: {atempts: 3}}\n"
    )
    assert "definition:4:22: 'nodes.chek.output > 3' reads node 'chek'" in said
    assert "definition:5:27: unknown key 'atempts'" in said
