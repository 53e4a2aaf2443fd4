"""Checks a whole workflow before anything runs, and gives every problem with the path of its place."""

from collections.abc import Iterator
from typing import Any

from perdure.definitions.hints import did_you_mean
from perdure.definitions.model import AgentNode, Node, SetNode, Workflow
from perdure.definitions.plan import find_cycle, needs_of
from perdure.definitions.templates import Template, compile_condition, compile_template, expressions
from perdure.definitions.yaml_source import Path
from perdure.errors import ExpressionError

ROOTS = frozenset({"input", "nodes", "execution"})

Problem = tuple[Path, str]
"""The path of the wrong value within the definition, and what is wrong with it."""


def problems_of(workflow: Workflow) -> list[Problem]:
    """Return every problem of a well-formed workflow; an empty list says that it can be compiled."""
    problems = [*_schema_problems(workflow), *_output_problems(workflow)]
    for name, node in workflow.nodes.items():
        problems += _node_problems(workflow, name, node)
    if not problems:
        problems += _cycle_problems(workflow)
    return problems


def _node_problems(workflow: Workflow, name: str, node: Node) -> Iterator[Problem]:
    at: Path = ("nodes", name)
    for index, need in enumerate(node.needs):
        if need not in workflow.nodes:
            yield (
                (*at, "needs", index),
                f"node {name!r} needs {need!r}, which does not exist{did_you_mean(need, workflow.nodes)}",
            )
        elif need == name:
            yield (*at, "needs", index), f"node {name!r} needs itself"
    if isinstance(node, AgentNode) and node.agent not in workflow.agents:
        hint = did_you_mean(node.agent, workflow.agents) or "; declare it under 'agents'"
        yield (*at, "agent"), f"node {name!r} asks agent {node.agent!r}, which does not exist{hint}"
    if node.if_ is not None:
        yield from _template_problems(workflow, (*at, "if"), node.if_, condition=True)
    part = "set" if isinstance(node, SetNode) else "with"
    yield from _template_problems(workflow, (*at, part), node.set if isinstance(node, SetNode) else node.with_)


def _output_problems(workflow: Workflow) -> Iterator[Problem]:
    yield from _template_problems(workflow, ("output",), workflow.output)


def _template_problems(workflow: Workflow, at: Path, value: Any, *, condition: bool = False) -> Iterator[Problem]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _template_problems(workflow, (*at, key), item)
        return
    try:
        template: Template = compile_condition(value) if condition else compile_template(value)
    except ExpressionError as error:
        yield at, str(error)
        return
    for expression in expressions(template):
        for root in sorted(expression.roots - ROOTS):
            hint = did_you_mean(root, ROOTS) or f"; there are {', '.join(sorted(ROOTS))}"
            yield at, f"unknown name {root!r} in '{expression.text}'{hint}"
        for node in sorted(expression.nodes - workflow.nodes.keys()):
            yield (
                at,
                f"'{expression.text}' reads node {node!r}, which does not exist{did_you_mean(node, workflow.nodes)}",
            )
        if at[0] == "nodes" and at[1] in expression.nodes:
            yield at, f"node {at[1]!r} reads its own result in '{expression.text}'"


def _cycle_problems(workflow: Workflow) -> Iterator[Problem]:
    cycle = find_cycle({name: needs_of(node) for name, node in workflow.nodes.items()})
    if cycle:
        yield ("nodes", cycle[0]), f"the nodes wait for each other in a circle: {' needs '.join(cycle)}"


def _schema_problems(workflow: Workflow) -> Iterator[Problem]:
    schemas: list[tuple[Path, dict[str, Any]]] = []
    if workflow.input is not None:
        schemas.append((("input",), workflow.input))
    schemas += [(("agents", name, "output"), agent.output) for name, agent in workflow.agents.items() if agent.output]
    if not schemas:
        return
    from jsonschema import Draft202012Validator, SchemaError

    for at, schema in schemas:
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            yield (*at, *error.path), f"not a valid JSON Schema: {error.message}"
