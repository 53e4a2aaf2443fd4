"""The JSON Schema of definitions, for editors: the model's own, shaped so that completion and messages are of use."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from perdure.definitions.model import Workflow
from perdure.definitions.nodes import KINDS
from perdure.definitions.own_configs import own_schemas
from perdure.definitions.own_kinds import own_kinds
from perdure.definitions.states import ACTIONS

_Schema = dict[str, Any]
_CALLS = ("agent", "tool", "workflow")
_ONE_OF: dict[str, list[tuple[str, ...]]] = {
    "Action": [ACTIONS],
    "Invoke": [_CALLS],
    "Compensation": [_CALLS],
    "StateCompensation": [_CALLS],
    "Branch": [(*_CALLS, "do")],
    "ForeachNode": [(*_CALLS, "do")],
    "LoopNode": [(*_CALLS, "do")],
    "AgentTool": [_CALLS],
    "Wait": [("duration", "until", "signal")],
    "Aggregate": [("from", "items"), ("how", "agent", "tool")],
}
"""The keys of which a part has exactly one."""


class _Generator(GenerateJsonSchema):
    """Without a title for each field: editors would show it in the place of the description."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def workflow_schema() -> _Schema:
    """Return the JSON Schema (2020-12) of a definition; what it refuses, `load` refuses too."""
    made = _shaped(Workflow.model_json_schema(by_alias=True, schema_generator=_Generator))
    parts: dict[str, _Schema] = made["$defs"]
    for name, choices in _ONE_OF.items():
        parts[name]["allOf"] = [{"oneOf": [{"required": [key]} for key in keys]} for keys in choices]
    parts["Workflow"] |= _by_kind()
    parts["State"] |= _when(_is("type", "history"), {"required": ["default"]})
    parts |= own_schemas(parts["CustomNode"])
    parts["Node"] = _node(parts)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "perdure.Workflow",
        "$ref": "#/$defs/Workflow",
        "$defs": dict(sorted(parts.items())),
    }


def _node(parts: dict[str, _Schema]) -> _Schema:
    """Return the schema of a node: its kind's key chooses which model holds."""
    models = {kind: f"{kind} node" for kind in own_kinds()} | {kind: model.__name__ for kind, model in KINDS.items()}
    plain = {"not": {"anyOf": [{"required": ["foreach"]}, {"required": ["loop"]}]}}  # beside these, it is their call
    rules = [
        _when(
            {"required": [kind], **(plain if kind in _CALLS else {})},
            {"$ref": f"#/$defs/{model}"},
        )
        for kind, model in models.items()
    ]
    any_kind = {"anyOf": [{"required": [kind]} for kind in models]}
    described = {kind: {"description": parts[model]["description"]} for kind, model in models.items()}
    rules.append(_when({"not": any_kind}, {"properties": described, **any_kind}))  # so editors offer the kinds first
    return {"type": "object", "description": "A node does exactly one thing.", "allOf": rules}


def _by_kind() -> _Schema:
    empty: _Schema = {"maxProperties": 0}
    dag = {"required": ["nodes"], "properties": {"nodes": {"minProperties": 1}, "states": empty, "context": empty}}
    chart = {"required": ["states"], "properties": {"states": {"minProperties": 1}, "nodes": empty}}
    return {**_when(_is("kind", "statechart"), chart), "else": dag}


def _is(key: str, value: str) -> _Schema:
    return {"required": [key], "properties": {key: {"const": value}}}


def _when(condition: _Schema, then: _Schema) -> _Schema:
    return {"if": condition, "then": then}


def _shaped(value: Any) -> Any:
    """Return a schema in which names are closed, bounds stand at their numbers, and a node is one part."""
    if isinstance(value, list):
        return [_shaped(item) for item in value]
    if not isinstance(value, dict):
        return value
    if {"$ref": "#/$defs/AgentNode"} in value.get("oneOf", []):
        return {"$ref": "#/$defs/Node"}
    shaped = {key: _shaped(item) for key, item in value.items()}
    if isinstance(shaped.get("description"), str):
        shaped["description"] = shaped["description"].partition("\n\n")[0]  # what follows is for programmers
    if isinstance(shaped.get("patternProperties"), dict) and "type" in shaped:
        shaped["additionalProperties"] = False
    if isinstance(shaped.get("anyOf"), list):
        _bound(shaped)
    return shaped


def _bound(schema: _Schema) -> None:
    """Move the bounds of a duration, which pydantic leaves beside its forms, to its form as a number."""
    bounds = {"gt": "exclusiveMinimum", "le": "maximum"}
    found = {word: schema.pop(key) for key, word in bounds.items() if key in schema}
    schema.pop("ge", None)  # stands there already
    for form in schema["anyOf"]:
        if form.get("type") == "number":
            form.update(found)
