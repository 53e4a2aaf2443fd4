"""The JSON Schema of definitions: it accepts what loads, and refuses what is badly built, as the loader does."""

import re
from pathlib import Path
from typing import Any

import pytest
from bad_definitions import bad_definitions
from good_definitions import CHART as CHART_WITH_ALL
from good_definitions import DAG
from jsonschema import Draft202012Validator

from perdure.definitions.json_schema import workflow_schema
from perdure.definitions.loading import load
from perdure.definitions.yaml_source import parse_yaml
from perdure.errors import DefinitionError

ROOT = Path(__file__).parent.parent
EDITOR = Draft202012Validator(workflow_schema())
EXAMPLES = [file for file in sorted(ROOT.glob("examples/**/*.yaml")) if not file.name.endswith("replies.yaml")]
CHART = "name: x\nkind: statechart\nstates:\n  a: {on: {go: b}}\n  b: {type: final}\n"


def data_of(text: str) -> Any:
    return parse_yaml(text, "definition").data


def dag(node: str, rest: str = "") -> str:
    return f"name: x\nagents: {{w: {{model: m, instructions: i}}}}\nnodes:\n  a: {node}\n  b: {{set: 1}}\n{rest}"


def state(parts: str) -> str:
    return f"name: x\nkind: statechart\nstates:\n  a: {{on: {{go: b}}, {parts}}}\n  b: {{type: final}}\n"


def test_it_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(workflow_schema())


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: str(file.relative_to(ROOT)))
def test_it_accepts_the_examples(file: Path) -> None:
    EDITOR.validate(data_of(file.read_text()))


def test_it_accepts_the_workflows_of_the_readme() -> None:
    for block in re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        EDITOR.validate(data_of(block))


@pytest.mark.parametrize(
    "text",
    [
        dag("{set: 1, needs: b}"),
        dag("{set: 1, needs: [b], if: true}"),
        dag("{tool: t, timeout: 90, retry: {on: Timeout, delay: 1h30m}}"),
        dag("{workflow: billing}"),
        dag("{workflow: {name: billing, detach: true}}"),
        dag("{wait: 2d}"),
        dag("{wait: 30}"),
        dag("{wait: '${{ input.days }}'}"),
        dag("{wait: {signal: paid, timeout: '${{ input.days }}'}}"),
        dag("{fail: too much}"),
        dag("{fail: {type: TooMuch, message: 'is ${{ input.n }}'}}"),
        dag("{foreach: {items: input.all}, tool: t, with: {x: '${{ item }}'}}"),
        dag("{loop: {max_iterations: 3}, do: {c: {agent: w}}}"),
        dag("{parallel: {branches: {l: {tool: t}, r: {do: {c: {set: 1}}}}, join: 1}}"),
        dag("{switch: {cases: [{when: input.x, then: b}]}}"),
        dag("{aggregate: {from: b, how: collect}}"),
        dag("{approval: {title: OK?, timeout: 2d, on_timeout: reject}}"),
        dag("{statechart: {initial: s, states: {s: {type: final}}}}"),
        dag("{tool: t, limit: l}", "limits: {l: {concurrency: 1}}\nconcurrency: 3\n"),
        dag("{tool: t, catch: [{on: Timeout, output: null}], compensate: {tool: undo}}"),
        dag("{tool: t, description: null}".replace("null", "''"), "finally: {c: {set: 1}}\n"),
        CHART,
        state("entry: {set: {n: 1}}, exit: [{raise: left}], always: {target: b, if: context.n > 1}"),
        state("invoke: {tool: t, on_done: b, on_error: [b]}, after: {30m: b}"),
        state("states: {c: {on: {up: {do: {set: {n: 1}}}}}, h: {type: history, default: c}}, initial: c, always: h"),
    ],
)
def test_it_accepts_every_form_that_the_loader_accepts(text: str) -> None:
    load(text)
    EDITOR.validate(data_of(text))


@pytest.mark.parametrize(
    "text",
    [
        "name: x\n",
        "nodes: {a: {set: 1}}\n",
        "name: a b\nnodes: {a: {set: 1}}\n",
        "name: x\nnodes: {}\n",
        "name: x\nkind: graph\nnodes: {a: {set: 1}}\n",
        "name: x\nkind: statechart\nnodes: {a: {set: 1}}\n",
        "name: x\nnodes: {a: {set: 1}}\nstates: {s: {type: final}}\n",
        "name: x\nnodes: {1a: {set: 1}}\n",
        "name: x\nnodes: [a]\n",
        "name: x\nnods: {a: {set: 1}}\n",
        dag("{}"),
        dag("nothing"),
        dag("{tol: t}"),
        dag("{tool: t, agent: w}"),
        dag("{set: 1, wait: 5s}"),
        dag("{set: 1, foreach: {items: input.x}}"),
        dag("{foreach: {items: input.x}, loop: {max_iterations: 1}, tool: t}"),
        dag("{foreach: {items: input.x}}"),
        dag("{foreach: {items: input.x}, tool: t, do: {c: {set: 1}}}"),
        dag("{foreach: {items: input.x, max_parallel: 0}, tool: t}"),
        dag("{loop: {}, tool: t}"),
        dag("{tool: t, timeout: soon}"),
        dag("{tool: t, timeout: 0}"),
        dag("{tool: t, timeout: -1}"),
        dag("{tool: t, if: [x]}"),
        dag("{tool: t, if: 3}"),
        dag("{tool: t, retry: {atempts: 3}}"),
        dag("{tool: t, retry: {attempts: 0}}"),
        dag("{tool: t, join: some}"),
        dag("{tool: t, priority: 10}"),
        dag("{tool: t, needs: {a: b}}"),
        dag("{tool: t, with: [1]}"),
        dag("{tool: t, compensate: {}}"),
        dag("{tool: t, compensate: {tool: t, agent: w}}"),
        dag("{wait: {}}"),
        dag("{wait: {duration: 5s, signal: s}}"),
        dag("{wait: tomorrow}"),
        dag("{switch: {cases: []}}"),
        dag("{switch: {cases: [{when: input.x}]}}"),
        dag("{parallel: {branches: {l: {tool: t, do: {c: {set: 1}}}}}}"),
        dag("{parallel: {branches: {l: {}}}}"),
        dag("{aggregate: {from: b}}"),
        dag("{aggregate: {how: collect}}"),
        dag("{approval: {}}"),
        dag("{fail: {}}"),
        dag("{set: 1}", "agents2: {}\n"),
        dag("{set: 1}", "concurrency: 0\n"),
        state("entry: {}"),
        state("entry: {set: {n: 1}, raise: x}"),
        state("invoke: {tool: t, agent: w}"),
        state("invoke: {id: x}"),
        state("always: {goto: b}"),
        state("always: 3"),
        state("type: sometimes"),
        state("states: {h: {type: history}}"),
    ],
)
def test_it_refuses_what_is_badly_built_as_the_loader_does(text: str) -> None:
    with pytest.raises(DefinitionError):
        load(text)
    assert not EDITOR.is_valid(data_of(text))


MISTAKES = [pytest.param(text, id=name) for name, text, structural in bad_definitions() if structural]


@pytest.mark.parametrize("text", MISTAKES)
def test_it_refuses_every_mistake_of_form(text: str) -> None:
    assert not EDITOR.is_valid(data_of(text))


@pytest.mark.parametrize("text", [DAG, CHART_WITH_ALL])
def test_it_accepts_the_definitions_that_the_mistakes_are_made_of(text: str) -> None:
    EDITOR.validate(data_of(text))


def test_each_kind_of_node_is_described_where_its_key_is_completed() -> None:
    kinds = workflow_schema()["$defs"]["Node"]["allOf"][-1]["then"]["properties"]
    assert kinds["foreach"]["description"].startswith("Runs its body once per item")
    assert all(each["description"] for each in kinds.values())


def test_every_key_of_every_part_is_described() -> None:
    parts = workflow_schema()["$defs"]
    bare = [
        f"{name}.{key}"
        for name, part in parts.items()
        for key, value in part.get("properties", {}).items()
        if not {**parts.get(value.get("$ref", "").rpartition("/")[2], {}), **value}.get("description")
    ]
    assert bare == []
