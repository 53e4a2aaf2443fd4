"""What holds of the tools that are perdure's own and of MCP servers, in a definition."""

from collections.abc import Iterator
from typing import Any

from perdure.definitions.builtin_tools import BUILTINS
from perdure.definitions.calls import tool_places
from perdure.definitions.findings import Finding
from perdure.definitions.mcp_servers import McpServer
from perdure.definitions.model import Workflow
from perdure.definitions.nodes import ToolNode
from perdure.definitions.parts import Tool
from perdure.definitions.places import bodies_of
from perdure.definitions.secret_references import names_in
from perdure.definitions.templates import compile_template, expressions
from perdure.definitions.yaml_source import Path
from perdure.errors import ExpressionError

_ONLY_SECRETS = "only ${{ secrets.NAME }} may stand here: a server is reached before anything is computed"


def mcp_servers(workflow: Workflow) -> dict[str, McpServer]:
    """Return the MCP servers of a workflow and of those that it carries, by name."""
    found: dict[str, McpServer] = {}
    for child in workflow.workflows.values():
        found |= mcp_servers(child)
    return found | workflow.mcp


def mcp_secrets(workflow: Workflow) -> frozenset[str]:
    """Return the names of the secrets that its MCP servers are reached with, of those servers that it calls."""
    called = {tool.partition(".")[0] for _, tool in tool_places(workflow)}
    servers = (server for name, server in mcp_servers(workflow).items() if name in called)
    return frozenset().union(*(names_in(compile_template(server.templates)) for server in servers))


def tool_rule_findings(workflow: Workflow) -> Iterator[Finding]:
    """Yield names that are taken, queries that are put together, and servers that cannot be reached as is written."""
    for index, tool in enumerate(workflow.tools):
        if isinstance(tool, Tool) and tool.name in BUILTINS:
            yield Finding(("tools", index, "name"), f"{tool.name!r} is a tool of perdure's own; name yours otherwise")
    for name, server in workflow.mcp.items():
        yield from _server_findings(workflow, name, server)
    for body in bodies_of(workflow):
        for node, at in body.nodes.values():
            if isinstance(node, ToolNode) and node.tool == "sql":
                yield from _query_findings(node.with_, (*at, "with", "query"))


def _server_findings(workflow: Workflow, name: str, server: McpServer) -> Iterator[Finding]:
    at: Path = ("mcp", name)
    if any(each.startswith(f"{name}.") for each in BUILTINS):
        yield Finding(at, f"tools named '{name}.…' are perdure's own; name the server otherwise", key=True)
    for child, carried in workflow.workflows.items():
        if carried.mcp.get(name, server) != server:
            yield Finding(at, f"workflow {child!r} within has another MCP server {name!r}; rename one", key=True)
    fixed: dict[str, Any] = {"command": server.command, "args": server.args, "cwd": server.cwd, "url": server.url}
    for key, value in fixed.items():
        if "${{" in str(value):
            yield Finding((*at, key), "nothing is computed here; secrets stand in 'env' or 'headers'")
    for key, texts in server.templates.items():
        for inner, text in texts.items():
            if not _has_only_secrets(text):
                yield Finding((*at, key, inner), _ONLY_SECRETS)


def _has_only_secrets(text: str) -> bool:
    try:
        return all(each.secret is not None for each in expressions(compile_template(text)))
    except ExpressionError:
        return False


def _query_findings(given: dict[str, Any], at: Path) -> Iterator[Finding]:
    if "${{" in str(given.get("query", "")):
        what = "a query is not put together: write :name where a value belongs, and give the value under 'params'"
        yield Finding(at, what)
