"""The commands on tools: what there is to call, and perdure itself as a server of tools."""

import getpass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli_support import (
    AsJson,
    Stopped,
    Store,
    only_data_on_stdout,
    print_json,
    settings_from,
    until_stopped,
)
from perdure.errors import EnvironmentProblem

if TYPE_CHECKING:
    from perdure.cluster.settings import Settings

app = typer.Typer()


@app.command()
def tools(
    file: Annotated[
        Path | None, typer.Argument(help="A definition: its own tools and MCP servers too.", show_default=False)
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only tools with this tag.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """List the tools that nodes can call, with JSON Schemas of what they take and give.

    Example: perdure tools examples/hello.yaml --json
    """
    from perdure.cluster.tool_list import listed
    from perdure.definitions.loading import load

    settings = settings_from({})
    definition = None if file is None else load(file)
    with only_data_on_stdout():
        found = until_stopped(listed(settings, definition, set(tag or [])))
    if as_json:
        print_json([each.as_json() for each in found])
        return
    from perdure import console

    console.show_tools(found)


@app.command()
def mcp(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Definitions that may be started, and no others; else all registered workflows."),
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="Run executions in this process, without Ray.")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Let nothing be started or decided.")] = False,
    store: Store = None,
) -> None:
    """Serve perdure to agents as an MCP server on stdin and stdout: start, list, show, signal, approve, reject.

    Example: perdure mcp examples/approval.yaml --local
    """
    settings = settings_from({"store": store})
    try:
        until_stopped(_serve(settings, files or [], local=local, read_only=read_only))
    except Stopped as stopped:
        raise typer.Exit(stopped.exit_code) from None


async def _serve(settings: "Settings", files: list[Path], *, local: bool, read_only: bool) -> None:
    if find_spec("mcp") is None:
        raise EnvironmentProblem("an MCP server needs the package mcp: pip install 'perdure[mcp]'")
    from perdure import __version__
    from perdure.cluster.client import AsyncClient
    from perdure.operator_mcp import Operator, files_by_name, server

    who = settings.user or getpass.getuser()
    operator = Operator(
        lambda: AsyncClient.open(settings, "local" if local else "ray"), f"{who} by MCP", files_by_name(files)
    )
    await server(operator, __version__, read_only=read_only).run_stdio_async()
