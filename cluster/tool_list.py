"""All tools that nodes can call here, with their schemas, wherever they come from."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from perdure.actors import mcp_tools, tools
from perdure.actors.mcp_pool import McpPool
from perdure.actors.outside import Outside
from perdure.actors.tool_schema import ToolSchema, schema_of
from perdure.actors.tool_sources import Shelf
from perdure.cluster.secret_sources import secrets_in
from perdure.cluster.settings import Settings
from perdure.definitions.builtin_tools import BUILTINS
from perdure.definitions.loading import Definition
from perdure.definitions.mcp_servers import McpServer
from perdure.definitions.tool_rules import mcp_servers
from perdure.errors import PerdureError


class ListedTool(msgspec.Struct, frozen=True):
    """A tool. place: where its code is, `perdure`, or `MCP server NAME`. problem: why its schema is not known."""

    name: str
    place: str
    version: str = "1"
    tags: Sequence[str] = ()
    description: str = ""
    parameters: dict[str, Any] | None = None
    returns: dict[str, Any] | None = None
    problem: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        plain: dict[str, Any] = msgspec.to_builtins(self) | {"tags": list(self.tags)}
        return plain


async def listed(settings: Settings, definition: Definition | None, tags: set[str]) -> list[ListedTool]:
    """Return the tools by name; MCP servers are asked for theirs, and one that does not answer is listed with why.

    definition: one whose own tools and servers are listed too. tags: those that a tool must have. Raises BadInput.
    """
    shelves = tools.shelves(settings.tools)
    if definition is not None:
        shelves = [tools.own_tools(definition.workflow.tools, definition.base), *shelves]
    found = [each for shelf in shelves for each in _of_code(shelf)]
    known: dict[str, ListedTool] = {}
    for each in found:
        known.setdefault(f"{each.name}@{each.version}", each)  # as they are found by name: the first counts
    base = None if definition is None else definition.base
    servers = {} if definition is None else mcp_servers(definition.workflow)
    named = [*known.values(), *await _of_servers(settings, servers, base)]
    return sorted((each for each in named if tags <= {*each.tags}), key=lambda each: (each.name, each.version))


def _of_code(shelf: Shelf) -> Iterator[ListedTool]:
    for name, version, place in shelf:
        where = "perdure" if name in BUILTINS else place
        try:
            tool = tools.find(place)
        except PerdureError as error:
            yield ListedTool(name, where, version, problem=str(error))
            continue
        schema = schema_of(tool)
        version = tool.version if tool.name == name else version
        yield ListedTool(name, where, version, tool.tags, schema.description, schema.parameters, schema.returns)


async def _of_servers(settings: Settings, own: dict[str, McpServer], base: str | None) -> list[ListedTool]:
    pool = McpPool()
    outside = Outside(settings.reach, secrets_in(settings.secrets_dir), mcp=pool)
    found: list[ListedTool] = []
    try:
        for name in sorted({*own, *settings.mcp}):
            where = f"MCP server {name}"
            try:
                found += [_of_schema(where, each) for each in await mcp_tools.tools_of(name, own, base, outside)]
            except PerdureError as error:
                found.append(ListedTool(f"{name}.*", where, problem=str(error)))
    finally:
        await pool.close()
    return found


def _of_schema(where: str, schema: ToolSchema) -> ListedTool:
    return ListedTool(schema.name, where, "1", (), schema.description, schema.parameters, schema.returns)
