"""The tools of an agent as its model sees them: names, descriptions and the schemas of their arguments."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from perdure.actors import mcp_tools, tools
from perdure.actors.models import Offered
from perdure.actors.outside import Outside
from perdure.actors.tool_schema import schema_of
from perdure.definitions.agent_parts import HAND_OFF, Agent, AgentTool
from perdure.definitions.data_words import misfits
from perdure.definitions.plan import Plan
from perdure.errors import BadInput

_MESSAGE = {
    "type": "object",
    "required": ["message"],
    "additionalProperties": False,
    "properties": {"message": {"type": "string", "description": "What it is to do, with all that it needs to know."}},
}
_ANYTHING: dict[str, Any] = {"type": "object"}
_NOTHING: dict[str, Any] = {"type": "object", "properties": {}}


async def offered(plan: Plan, agent: Agent, places: Mapping[str, str], outside: Outside) -> list[Offered]:
    """Return what a model may call; `places` is where each tool's code is.

    Raises ToolNotFound or BadInput, and where an MCP server has the tool what that raises.
    """
    made = [await _offered(plan, tool, places, outside) for tool in agent.tools]
    return [*made, *(_hand_off(plan, name) for name in agent.handoffs)]


async def check_exact(plan: Plan, tool: AgentTool, places: Mapping[str, str], outside: Outside, given: Any) -> None:
    """Raise BadInput where a call that a condition let pass has arguments of other types than the tool takes.

    A tool takes "500" for 500, and the condition `args.amount == 500` saw no such amount.
    """
    if not tool.approve or tool.always_asks or tool.tool is None:
        return
    _, schema = await _of_tool(plan, tool.target, places, outside)
    seen = {key: value for key, value in given.items() if key not in tool.with_}
    if problems := misfits(_without(schema, tool.with_), seen, "its argument"):
        raise BadInput(f"tool {tool.target!r}, whose calls are decided on, takes no other types: {'; '.join(problems)}")


async def _offered(plan: Plan, tool: AgentTool, places: Mapping[str, str], outside: Outside) -> Offered:
    description, schema = tool.description, tool.input
    if tool.agent is not None:
        description, own = description or plan.agents[tool.agent].description, _MESSAGE
    elif tool.workflow is not None:
        known = plan.workflows.get(tool.workflow.name)
        description = description or (known.description if known is not None else "")
        own = (known.input if known is not None else None) or _ANYTHING
    else:
        said, own = await _of_tool(plan, tool.target, places, outside)
        description = description or said
    return Offered(tool.offered, description, _without(schema or own, tool.with_))


async def _of_tool(plan: Plan, name: str, places: Mapping[str, str], outside: Outside) -> tuple[str, dict[str, Any]]:
    """Return what is known of a tool: what its definition declares comes before what its code says."""
    declared = plan.tools.get(name)
    if declared is not None and declared.input is not None:
        return declared.description, declared.input
    if places[name].startswith(mcp_tools.PREFIX):
        known = await mcp_tools.described(places[name], outside)
        description, schema = known.description, known.parameters
    else:
        description, schema = _of_code(places[name])
    return (declared.description if declared is not None else "") or description, schema


@lru_cache(maxsize=1024)
def _of_code(place: str) -> tuple[str, dict[str, Any]]:
    known = schema_of(tools.find(place))
    return known.description, known.parameters


def _hand_off(plan: Plan, name: str) -> Offered:
    what = plan.agents[name].description
    return Offered(HAND_OFF + name, f"Hand the conversation over to {name}. {what}".strip(), _NOTHING)


def _without(schema: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without the arguments that the definition gives itself."""
    if not given:
        return schema
    properties = {key: each for key, each in schema.get("properties", {}).items() if key not in given}
    required = [each for each in schema.get("required", []) if each not in given]
    return {**schema, "properties": properties, "required": required}
