"""The reference of definitions as tables: one for each part of the model, from its fields and their descriptions."""

import json
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from perdure.actors.outside import Database, Smtp
from perdure.definitions import agent_parts, model, nodes, parts, states
from perdure.definitions.builtin_tools import BUILTINS, Auth, CallTimeout, Scalar
from perdure.definitions.durations import Duration
from perdure.definitions.mcp_servers import McpServer

_WORDS: list[tuple[Any, str]] = [
    (Duration, "duration"),
    (CallTimeout, "duration"),
    (parts.DurationOrExpression, "duration, or expression"),
    (parts.Condition, "condition"),
    (parts.Names, "name, or list of names"),
    (parts.SomeNames, "name, or list of names"),
    (parts.Name, "name"),
    (parts.Child, "name, or [child workflow](#child-workflow)"),
    (nodes.Body, "[nodes](#every-node) by name"),
    (states.Actions, "[action](#action), or list of them"),
    (states.Transitions, "target, [transition](#transition), or list of them"),
    (states.Invocations, "[invocation](#invoke), or list of them"),
    (Scalar, "text, number, or true or false"),
    (Scalar | list[Scalar], "text, number, true or false, or list of them"),
    (list[dict[str, Any]], "list of objects"),
    (dict[str, Any], "object"),
    (str, "text"),
    (int, "whole number"),
    (float, "number"),
    (bool, "true or false"),
    (Any, "any JSON"),
]
"""Types that have words of their own."""

_WORKFLOW = [
    agent_parts.Agent,
    agent_parts.AgentTool,
    agent_parts.ToolUndo,
    agent_parts.Fallback,
    agent_parts.Budget,
    agent_parts.Memory,
    agent_parts.Endpoint,
    parts.Tool,
    McpServer,
    model.Signal,
    parts.Limit,
    parts.Concurrency,
    parts.Quota,
]
_MODIFIERS = [
    parts.Retry, nodes.Catch, nodes.Compensation, parts.LimitUse, parts.Resources, parts.Pool, parts.RuntimeEnv,
]  # fmt: skip
_OF_KINDS: dict[str, list[type[BaseModel]]] = {
    "workflow": [parts.ChildWorkflow],
    "wait": [nodes.Wait],
    "approval": [nodes.Approval],
    "switch": [nodes.Switch, nodes.Case],
    "parallel": [nodes.Parallel, nodes.Branch],
    "foreach": [nodes.Foreach, nodes.Threshold],
    "loop": [nodes.Loop],
    "aggregate": [nodes.Aggregate],
    "fail": [parts.Fail],
}
_CHART: list[type[BaseModel]] = [
    states.State, states.Transition, states.Action, states.Send, states.Invoke,
    states.StateCompensation,
]  # fmt: skip

TITLES = {
    parts.ChildWorkflow: "Child workflow",
    parts.LimitUse: "Limit use",
    agent_parts.AgentTool: "Agent tool",
    agent_parts.ToolUndo: "Tool undo",
    McpServer: "MCP server",
    states.StateCompensation: "State compensation",
    parts.RuntimeEnv: "Runtime environment",
}


def reference() -> str:
    """Return the whole reference as Markdown."""
    return "\n".join(
        [
            *_part(3, "Workflow", model.Workflow),
            *(line for each in _WORKFLOW for line in _part(4, title_of(each), each)),
            *_part(3, "Every node", nodes._Node),
            *(line for each in _MODIFIERS for line in _part(4, title_of(each), each)),
            *("### Node kinds", ""),
            *(line for kind in nodes.KINDS for line in _kind(kind)),
            *_part(3, "Statechart", states.Statechart),
            *(line for each in _CHART for line in _part(4, title_of(each), each)),
        ]
    ).rstrip()


def builtins() -> str:
    """Return what perdure's own tools take and give, and the settings that they reach things by, as Markdown."""
    lines: list[str] = []
    for name, tool in BUILTINS.items():
        lines += [*_part(3, f"{name} takes", tool.takes), *_part(3, f"{name} gives", tool.gives)]
    for part in (Auth, Database, Smtp):
        lines += _part(3, part.__name__, part)
    return "\n".join(lines).rstrip()


def _kind(kind: str) -> list[str]:
    part = nodes.KINDS[kind]
    own = sorted(
        (name for name in part.model_fields if name not in nodes._Node.model_fields), key=lambda name: name != kind
    )
    example = f"Example: [{kind}.yaml](../examples/kinds/{kind}.yaml)."
    if part is nodes.CustomNode:
        example = "See [kinds of your own](#kinds-of-your-own)."
    lines = [f"#### {kind} node", "", f"{part.__doc__} {example}", ""]
    lines += [*_table(part, own), ""]
    return lines + [line for each in _OF_KINDS.get(kind, []) for line in _part(5, title_of(each), each)]


def title_of(part: type[BaseModel]) -> str:
    """Return the heading of a part, which links to it go by."""
    return TITLES.get(part, part.__name__.removeprefix("_"))


def _part(level: int, title: str, part: type[BaseModel]) -> list[str]:
    doc = (part.__doc__ or "").partition("\n")[0]
    return [f"{'#' * level} {title}", "", doc, "", *_table(part, list(part.model_fields)), ""]


def _table(part: type[BaseModel], names: list[str]) -> list[str]:
    hints = get_type_hints(part, include_extras=True)
    rows = ["| key | type | default | what it is |", "|---|---|---|---|"]
    for name in names:
        field = part.model_fields[name]
        key = field.alias or name
        type_ = "expression, or list" if key == "items" else words(hints[name])
        cells = [f"`{key}`", type_, _default(field, hints[name]), f"{field.description}"]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def _default(field: FieldInfo, hint: Any) -> str:
    if field.is_required():
        return "required"
    if isinstance(field.default, BaseModel):
        return ""
    if hint in (Duration, CallTimeout) and field.default is not None:
        return f"`{field.default:g}s`"
    return (
        "" if field.default in (None, [], {}, "") and field.default is not False else f"`{json.dumps(field.default)}`"
    )


def words(hint: Any) -> str:
    """Return a type in words."""
    for known, text in _WORDS:
        if hint == known:
            return text
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _annotated(inner)
    if origin in (Union, UnionType):
        return ", or ".join(dict.fromkeys(words(each) for each in inner if each is not type(None)))
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in inner)
    if origin is list:
        return f"list of {words(inner[0])}"
    if origin is dict:
        return f"{words(inner[1])} by name"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        title = title_of(hint)
        return f"[{title.lower()}](#{title.lower().replace(' ', '-')})"
    raise TypeError(f"no words for the type {hint!r}; add them to _WORDS")


def _annotated(inner: tuple[Any, ...]) -> str:
    """Return an annotated type in words, with the short form that it takes."""
    written = next((each.json_schema_input_type for each in inner[1:] if _has_short_form(each)), inner[0])
    return words(written)


def _has_short_form(annotation: Any) -> bool:
    written = getattr(annotation, "json_schema_input_type", Any)
    return written is not Any and not isinstance(written, type(...)) and "Undefined" not in repr(written)
