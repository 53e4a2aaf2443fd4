"""Checks of a definition against the code of its tools, which are imported for it."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.actors import mcp_tools
from perdure.actors.mcp_pool import McpPool
from perdure.actors.models import Unavailable
from perdure.actors.outside import Outside
from perdure.actors.tools import find, locate, why_silent
from perdure.definitions.call_checks import call_findings
from perdure.definitions.calls import heartbeats, tool_places
from perdure.definitions.findings import Finding
from perdure.definitions.loading import Definition
from perdure.definitions.node_types import Types
from perdure.definitions.parts import Tool
from perdure.definitions.placement import runtime_envs, tools_elsewhere
from perdure.definitions.tool_rules import mcp_servers
from perdure.errors import BadInput, EnvironmentProblem, ToolNotFound

if TYPE_CHECKING:
    from perdure.cluster.settings import Settings


def missing_files(definition: Definition) -> Iterator[Finding]:
    """Yield the files and folders that a definition names and that are not there; nothing is imported."""
    for index, tool in enumerate(definition.workflow.tools):
        if isinstance(tool, str) and not Path(definition.base or ".", tool).is_file():
            yield Finding(("tools", index), f"the tool file {tool} does not exist")
    for env, at in runtime_envs(definition.workflow):
        folders: dict[str, tuple[str | int, ...]] = {
            each: ("py_modules", index) for index, each in enumerate(env.py_modules)
        }
        if env.working_dir is not None:
            folders[env.working_dir] = ("working_dir",)
        for written, where in folders.items():
            if not Path(definition.base or ".", written).exists():
                yield Finding((*at, *where), f"{written} does not exist")


def code_findings(definition: Definition, settings: "Settings | None" = None) -> Iterator[Finding]:
    """Yield the calls of tools that are not there, and those that do not fit what the tool takes.

    MCP servers are asked what theirs take. settings: name tools and servers beside those of the definition.
    """
    from perdure.cluster.settings import Settings

    settings = settings or Settings()
    workflow, found = definition.workflow, dict[str, Tool]()
    elsewhere = tools_elsewhere(workflow)
    missing: dict[str, str] = {}
    for name in dict.fromkeys(name for _, name in tool_places(workflow)):
        try:
            place = locate(
                [name], workflow.tools, definition.base,
                shared=True, installed=settings.tools, mcp=mcp_servers(workflow), reach=settings.reach,
            )[name]  # fmt: skip
            found[name] = Tool(name=name, call=place, input=_arguments(place, settings))
        except ToolNotFound as error:
            if name not in elsewhere:
                missing[name] = str(error)
        except (BadInput, EnvironmentProblem, Unavailable) as error:
            missing[name] = str(error)
    yield from (Finding(path, missing[name]) for path, name in tool_places(workflow) if name in missing)
    for path, name in heartbeats(workflow):
        if name in found and (why := why_silent(name, found[name].call)):
            yield Finding(path, why)
    declared = {tool.name for tool in workflow.tools if isinstance(tool, Tool) and tool.input is not None}
    known = workflow.model_copy(update={"tools": [tool for tool in found.values() if tool.name not in declared]})
    for each in call_findings(Types(known)):
        # Text such as '3' is taken for a number at the call: a wrong type is probably a mistake, and no more.
        yield each if each.lack or each.key else replace(each, warning=True)


def _arguments(place: str, settings: "Settings") -> dict[str, Any] | None:
    """Return the JSON Schema of what a tool takes; None where it cannot be said in one."""
    if place.startswith(mcp_tools.PREFIX):
        return asyncio.run(_of_server(place, settings))
    face = find(place).face
    return None if face is None else face.parameters


async def _of_server(place: str, settings: "Settings") -> dict[str, Any]:
    from perdure.cluster.secret_sources import secrets_in

    pool = McpPool()
    try:
        outside = Outside(settings.reach, secrets_in(settings.secrets_dir), mcp=pool)
        return (await mcp_tools.described(place, outside)).parameters
    finally:
        await pool.close()
