"""Tools of MCP servers: where they are, as text that an execution begins with, and how they are called."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from perdure.actors.context import Context
from perdure.actors.mcp_pool import McpPool
from perdure.actors.outside import Outside
from perdure.actors.tool_schema import CONTEXT, Tool, ToolSchema
from perdure.definitions.mcp_servers import McpServer
from perdure.errors import EnvironmentProblem, ToolNotFound

PREFIX = "mcp:"
"""What the place of such a tool begins with; a list follows: its server's name, the tool's, and how it is reached."""


def place_of(name: str, servers: Mapping[str, McpServer], base: str | None, known: Mapping[str, Any]) -> str | None:
    """Return the place of `server.tool`; None where there is no such server.

    servers: the definition's, whose working folder is `base`; they go along with the execution. known: those of the
    settings, which are looked up at the call, in the settings of the process that makes it.
    """
    server, dot, tool = name.partition(".")
    if not dot or not tool:
        return None
    if server in servers:
        reached = servers[server]
        if reached.command is not None:
            reached = reached.model_copy(update={"cwd": str(Path(base or ".", reached.cwd or ".").resolve())})
        how = reached.model_dump(mode="json", exclude_defaults=True)
        return PREFIX + msgspec.json.encode([server, tool, how]).decode()
    return PREFIX + msgspec.json.encode([server, tool]).decode() if server in known else None


def tool_at(place: str) -> Tool:
    """Return the tool at a place; whether its server has it shows at the call."""
    server, tool, *_ = json.loads(place.removeprefix(PREFIX))
    return Tool(f"{server}.{tool}", partial(_call, place), True, None)


async def described(place: str, outside: Outside) -> ToolSchema:
    """Return a tool's schema as its server gives it.

    Raises ToolNotFound, Unavailable, EnvironmentProblem or SecretMissing.
    """
    server, tool, reached, pool = _reached(place, outside)
    found = await pool.tools(server, reached, outside)
    if tool not in found:
        raise ToolNotFound(f"MCP server {server!r} has no tool {tool!r}; it has {', '.join(sorted(found)) or 'none'}")
    return found[tool]


async def tools_of(name: str, servers: Mapping[str, McpServer], base: str | None, outside: Outside) -> list[ToolSchema]:
    """Return the tools of a server of a definition, or else of the settings; raise as `described` does."""
    place = place_of(f"{name}.*", servers, base, outside.reach.mcp)
    assert place is not None  # noqa: S101 (who asks has its name from one of them)
    server, _, reached, pool = _reached(place, outside)
    return list((await pool.tools(server, reached, outside)).values())


async def _call(place: str, **given: Any) -> Any:
    context: Context = given.pop(CONTEXT)
    server, tool, reached, pool = _reached(place, context.outside)
    return await pool.call(server, reached, tool, given, context.outside, context.idempotency_key)


def _reached(place: str, outside: Outside) -> tuple[str, str, McpServer, McpPool]:
    server, tool, *how = json.loads(place.removeprefix(PREFIX))
    if outside.mcp is None:
        raise EnvironmentProblem(
            f"tool '{server}.{tool}' is of an MCP server, which only the event loop's process reaches"
        )
    if how:
        return server, tool, McpServer(**how[0]), outside.mcp
    if server not in outside.reach.mcp:
        raise EnvironmentProblem(
            f"there is no MCP server {server!r} in the setting `mcp` of the process that runs this"
        )
    return server, tool, outside.reach.mcp[server], outside.mcp
