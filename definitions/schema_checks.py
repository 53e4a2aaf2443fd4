"""Checks that every JSON Schema in a definition is one."""

from collections.abc import Iterator
from typing import Any

from perdure.definitions.findings import Finding
from perdure.definitions.model import Workflow
from perdure.definitions.nodes import ApprovalNode, Node, StatechartNode, WaitNode
from perdure.definitions.parts import Tool
from perdure.definitions.places import bodies_of
from perdure.definitions.yaml_source import Path


def schema_findings(workflow: Workflow) -> Iterator[Finding]:
    """Yield what is wrong in the schemas of a workflow."""
    schemas = [(at, schema) for at, schema in schemas_of(workflow) if schema is not None]
    if not schemas:
        return
    from jsonschema import Draft202012Validator, SchemaError  # slow to import, and seldom needed

    for at, schema in schemas:
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            yield Finding((*at, *error.path), f"not a valid JSON Schema: {error.message}")


def schemas_of(workflow: Workflow) -> Iterator[tuple[Path, Any]]:
    """Yield every schema with its place."""
    yield ("input",), workflow.input
    for name, agent in workflow.agents.items():
        yield ("agents", name, "output"), agent.output
    for index, tool in enumerate(workflow.tools):
        if isinstance(tool, Tool):
            yield ("tools", index, "input"), tool.input
            yield ("tools", index, "output"), tool.output
    for name, signal in (workflow.signals or {}).items():
        yield ("signals", name, "schema"), signal.schema_
    for event, schema in (workflow.events or {}).items():
        yield ("events", event), schema
    for body in bodies_of(workflow):
        for node, at in body.nodes.values():
            yield from _node_schemas(node, at)


def _node_schemas(node: Node, at: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(node, WaitNode):
        yield (*at, "wait", "schema"), node.wait.schema_
    elif isinstance(node, ApprovalNode):
        yield (*at, "approval", "form"), node.approval.form
    elif isinstance(node, StatechartNode):
        for event, schema in (node.statechart.events or {}).items():
            yield (*at, "statechart", "events", event), schema
