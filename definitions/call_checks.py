"""Checks what tools and child workflows are called with against the schemas of their input."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from perdure.definitions.chart import Chart
from perdure.definitions.chart_places import actions_of, charts_of
from perdure.definitions.data_words import said
from perdure.definitions.findings import Finding
from perdure.definitions.hints import did_you_mean
from perdure.definitions.node_types import Types
from perdure.definitions.nodes import AggregateNode, Node, ToolNode, WorkflowNode
from perdure.definitions.places import Body, bodies_of
from perdure.definitions.schema_validator import validator
from perdure.definitions.templates import Interpolation, compile_template, expressions
from perdure.definitions.value_types import Schema, Type, described, kinds
from perdure.definitions.yaml_source import Path
from perdure.errors import ExpressionError

_NUMBERS = frozenset({"integer", "number"})
_OBJECT = frozenset({"object"})


def call_findings(types: Types) -> Iterator[Finding]:
    """Yield arguments that are missing, unknown, or of a wrong type."""
    for body in bodies_of(types.workflow):
        for node, at in body.nodes.values():
            yield from _node_calls(types, body, node, at)
    for chart, at in charts_of(types.workflow):
        yield from _chart_calls(types, chart, at)


def _node_calls(types: Types, body: Body, node: Node, at: Path) -> Iterator[Finding]:
    if isinstance(node, ToolNode):
        yield from _call(types, body, tool=node.tool, given=node.with_, at=at)
    elif isinstance(node, WorkflowNode):
        yield from _call(types, body, child=node.workflow.name, given=node.with_, at=at)
    elif isinstance(node, AggregateNode):
        yield from _call(types, body, tool=node.aggregate.tool, given={"items": "${{ [] }}", **node.with_}, at=at)
    undo = node.compensate
    if undo is not None and undo.with_ is not None:
        child = undo.workflow.name if undo.workflow else None
        yield from _call(types, body, tool=undo.tool, child=child, given=undo.with_, at=(*at, "compensate"))


def _chart_calls(types: Types, chart: Chart, outer: Path) -> Iterator[Finding]:
    for each in chart.states.values():
        for at, action in actions_of(each):
            child = action.start.name if action.start else None
            yield from _call(types, None, tool=action.tool, child=child, given=action.with_, at=(*outer, *at))
        for number, invoke in enumerate(each.state.invoke):
            child = invoke.workflow.name if invoke.workflow else None
            where = (*outer, *each.at, "invoke", number)
            yield from _call(types, None, tool=invoke.tool, child=child, given=invoke.with_, at=where)


def _call(
    types: Types,
    body: Body | None,
    *,
    tool: str | None = None,
    child: str | None = None,
    given: Mapping[str, Any],
    at: Path,
) -> Iterator[Finding]:
    if tool is not None and tool in types.tools:
        wanted, who, key = types.schema(types.tools[tool].input), f"tool {tool!r}", "tool"
    elif child is not None and child in types.workflow.workflows:
        wanted, who, key = types.schema(types.workflow.workflows[child].input), f"workflow {child!r}", "workflow"
    else:
        return
    if not isinstance(wanted, Schema):
        return
    for finding in _object_findings(types, body, dict(given), wanted, (*at, "with"), who):
        # Without `with` a missing argument is told where the call is named.
        yield finding if given else replace(finding, path=(*at, key))


def _object_findings(
    types: Types, body: Body | None, given: dict[str, Any], wanted: Schema, at: Path, who: str
) -> Iterator[Finding]:
    declared = wanted.schema.get("properties")
    declared = declared if isinstance(declared, dict) else {}
    simple = not any(word in wanted.schema for word in ("allOf", "anyOf", "oneOf", "if", "$ref", "patternProperties"))
    for key in wanted.schema.get("required") or ():
        if key not in given:
            yield Finding(at, f"{who} needs {key!r}, which is not given; add it under 'with'", lack=True)
    for key, value in given.items():
        if key in declared:
            yield from _value_findings(types, body, value, Schema(declared[key], wanted.root), (*at, key), who)
        elif simple and (declared or wanted.schema.get("additionalProperties") is False):
            closed = wanted.schema.get("additionalProperties") is False
            if closed or "additionalProperties" not in wanted.schema:
                hint = did_you_mean(key, declared) or f"; it takes {', '.join(sorted(declared)) or 'nothing'}"
                yield Finding((*at, key), f"{who} takes no {key!r}{hint}", warning=not closed, key=True)


def _value_findings(
    types: Types, body: Body | None, value: Any, wanted: Schema, at: Path, who: str
) -> Iterator[Finding]:
    try:
        template = compile_template(value)
    except ExpressionError:
        return  # the expression checks say so
    if not any(True for _ in expressions(template)):
        yield from _literal_findings(value, wanted, at, who)
    elif isinstance(value, dict) and "$ref" not in wanted.schema and kinds(wanted) == _OBJECT:
        yield from _object_findings(types, body, value, wanted, at, who)
    elif isinstance(value, str) and not (isinstance(template, Interpolation) and _takes(wanted, "string")):
        yield from _kind_findings(types.of_value(body, value), wanted, at, f"{who} takes", value)


def _takes(wanted: Schema, kind: str) -> bool:
    taken = kinds(wanted)
    return taken is None or kind in taken


def _kind_findings(given: Type, wanted: Schema, at: Path, who: str, shown: str) -> Iterator[Finding]:
    had, taken = kinds(given), kinds(wanted)
    if had is None or taken is None or had & taken or (had & _NUMBERS and taken & _NUMBERS):
        return
    yield Finding(at, f"{who} {described(taken)} for {at[-1]!r}, and {shown!r} is {described(had)}")


def _literal_findings(value: Any, wanted: Schema, at: Path, who: str) -> Iterator[Finding]:
    from referencing.exceptions import Unresolvable

    try:
        for error in validator(wanted.root).evolve(schema=wanted.schema).iter_errors(value):
            for what in said(error, f"{at[-1]}{error.json_path[1:]}"):
                yield Finding((*at, *error.path), f"{who} does not take this for {at[-1]!r}: {what}")
    except (Unresolvable, RecursionError):
        return  # a reference leads nowhere, and the schema checks say so
