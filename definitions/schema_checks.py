"""Checks that every JSON Schema in a definition is one."""

from collections.abc import Iterable, Iterator
from typing import Any

from perdure.definitions.findings import Finding
from perdure.definitions.hints import did_you_mean
from perdure.definitions.model import Workflow
from perdure.definitions.nodes import ApprovalNode, Node, StatechartNode, WaitNode
from perdure.definitions.parts import Tool
from perdure.definitions.places import bodies_of
from perdure.definitions.value_types import Schema, referred
from perdure.definitions.yaml_source import Path


def schema_findings(workflow: Workflow) -> Iterator[Finding]:
    """Yield what is wrong in the schemas of a workflow."""
    schemas = [(at, schema) for at, schema in schemas_of(workflow) if schema is not None]
    if not schemas:
        return
    from jsonschema import Draft202012Validator, FormatChecker  # slow to import, and seldom needed
    from jsonschema.exceptions import best_match

    meta = Draft202012Validator(Draft202012Validator.META_SCHEMA, format_checker=FormatChecker(["regex"]))
    for at, schema in schemas:
        errors = list(meta.iter_errors(schema))
        places: set[Path] = set()
        for error in errors:
            path = (*at, *error.absolute_path)
            if path not in places:
                places.add(path)
                known = [each for each in errors if each.absolute_path == error.absolute_path]
                yield Finding(path, f"{_UNSOUND}: {_why(best_match(known) or error)}")
        words = _ANNOTATIONS.union(Draft202012Validator.VALIDATORS)
        if not errors and schema and words.isdisjoint(schema):
            first = next(iter(schema))
            what = f"none of its keys is one of JSON Schema, so it takes anything; write `properties: {{{first}: ...}}`"
            yield Finding(at, what, warning=True)
        elif not errors:
            yield from _misspelt(schema, schema, at, words)


def _why(error: Any) -> str:
    if error.absolute_path and error.absolute_path[-1] == "type":
        hint = did_you_mean(str(error.instance), _TYPES)
        return f"{error.instance!r} is not a type; there are {', '.join(_TYPES)}{hint}"
    return str(error.message)


def _misspelt(schema: Any, root: Any, at: Path, known: frozenset[str]) -> Iterator[Finding]:
    """Find references that lead nowhere, and keywords that look misspelt."""
    if isinstance(schema, list):
        for index, item in enumerate(schema):
            yield from _misspelt(item, root, (*at, index), known)
    if not isinstance(schema, dict):
        return
    yield from _reference(schema, root, at)
    for key, value in schema.items():
        if key not in known and (hint := did_you_mean(key, known)):
            yield Finding((*at, key), f"{key!r} is no keyword of JSON Schema{hint}", warning=True, key=True)
        if key in ("properties", "patternProperties", "$defs", "dependentSchemas") and isinstance(value, dict):
            for name, part in value.items():
                yield from _misspelt(part, root, (*at, key, name), known)
        elif key not in ("const", "enum", "default", "examples"):
            yield from _misspelt(value, root, (*at, key), known)


def _reference(schema: dict[str, Any], root: Any, at: Path) -> Iterator[Finding]:
    ref = schema.get("$ref")
    if not isinstance(ref, str):
        return
    if ref.startswith("#/") and referred(Schema(schema, root)) is None:
        yield Finding((*at, "$ref"), f"{ref!r} leads nowhere in this schema; put it under '$defs'")
    elif not ref.startswith("#") and not _names_parts(root):
        what = f"{ref!r} is outside of this schema, and nothing is fetched; put it under '$defs'"
        yield Finding((*at, "$ref"), what)


def _names_parts(schema: Any) -> bool:
    """Say whether a part of a schema has an `$id`, which references may name."""
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    return (isinstance(schema, dict) and "$id" in schema) or any(map(_names_parts, inner))


_UNSOUND = "not a valid JSON Schema"
_TYPES = ("string", "integer", "number", "boolean", "object", "array", "null")
_ANNOTATIONS = frozenset(
    {"$schema", "$id", "$defs", "$anchor", "$comment", "definitions", "title", "description", "default", "examples"}
    | {"deprecated", "readOnly", "writeOnly", "contentEncoding", "contentMediaType", "contentSchema", "then", "else"}
    | {"minContains", "maxContains"}
)


def unsound_schemas(workflow: Workflow, findings: Iterable[Finding]) -> frozenset[int]:
    """Return the ids of the schemas in which there are errors, those of child workflows included."""
    paths = {each.path for each in findings if each.message.startswith(_UNSOUND)}
    if not paths:
        return frozenset()
    starts = {path[:length] for path in paths for length in range(len(path) + 1)}
    return frozenset(id(schema) for at, schema in _all_schemas(workflow) if at in starts)


def _all_schemas(workflow: Workflow) -> Iterator[tuple[Path, Any]]:
    yield from schemas_of(workflow)
    for name, child in workflow.workflows.items():
        yield from ((("workflows", name, *at), schema) for at, schema in _all_schemas(child))


def schemas_of(workflow: Workflow) -> Iterator[tuple[Path, Any]]:
    """Yield every schema with its place."""
    yield ("input",), workflow.input
    for name, agent in workflow.agents.items():
        yield ("agents", name, "output"), agent.output
        for index, called in enumerate(agent.tools):
            yield ("agents", name, "tools", index, "input"), called.input
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
