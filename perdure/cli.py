"""The command line: its groups, and show. Data goes to stdout, words for people to stderr."""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure import (
    cli_batch,
    cli_cluster,
    cli_controls,
    cli_definitions,
    cli_list,
    cli_log,
    cli_projections,
    cli_run,
    cli_schedule,
    cli_sessions,
    cli_subscriptions,
    cli_tools,
    cli_webhooks,
    cli_workflows,
)
from perdure.cli_support import (
    AsJson,
    Stopped,
    Store,
    print_json,
    say,
    settings_of_existing,
    until_stopped,
)
from perdure.errors import PerdureError

if TYPE_CHECKING:
    from perdure.actors.pools import PoolReport
    from perdure.cluster.run import AsyncRun
    from perdure.cluster.settings import Settings

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
    help="Durable workflows on Ray. Exit codes: 0 done, 1 the execution failed, 2 bad input, 3 environment.",
)  # fmt: skip

app.add_typer(cli_run.app)
app.add_typer(cli_cluster.app)
app.add_typer(cli_controls.app)
app.add_typer(cli_definitions.app)
app.add_typer(cli_tools.app)
app.add_typer(cli_list.app)
app.add_typer(cli_controls.nodes, name="node")
app.add_typer(cli_log.app, name="log")
app.add_typer(cli_workflows.app, name="workflows")
app.add_typer(cli_projections.app, name="projections")
app.add_typer(cli_subscriptions.app, name="subscriptions")
app.add_typer(cli_webhooks.app, name="webhooks")
app.add_typer(cli_batch.app, name="batch")
app.add_typer(cli_schedule.app, name="schedule")
app.add_typer(cli_sessions.app, name="sessions")


@app.callback()
def _root() -> None:
    """Hold the options of all commands (there are none yet), so that commands keep their names."""


@app.command()
def show(
    execution: Annotated[str, typer.Argument(help="The execution's id.", show_default=False)],
    follow: Annotated[bool, typer.Option("--follow", help="Go on showing progress until it ends.")] = False,
    definition: Annotated[
        bool, typer.Option("--definition", help="Print the definition that it runs, as YAML, and nothing else.")
    ] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show one execution: its nodes, its output or error.

    Example: perdure show order-42 --follow
    """
    settings = settings_of_existing(store)
    if definition:
        cli_workflows.print_definition(asyncio.run(_ran(execution, settings)), as_json=as_json)
        return
    try:
        until_stopped(_show(execution, settings, follow=follow, as_json=as_json))
    except Stopped as stopped:
        raise typer.Exit(stopped.exit_code) from None


@app.command()
def pools(store: Store = None, as_json: AsJson = False) -> None:
    """Show the pools of node actors: how many work, and what calls wait for.

    Example: perdure pools
    """
    from perdure import console

    reports = asyncio.run(_pools(settings_of_existing(store)))
    if as_json:
        print_json([report._asdict() for report in reports])
    else:
        console.show_pools(reports)


def main() -> None:
    """Run the command line; an error that perdure foresaw becomes its sentence and its exit code."""
    sys.path.insert(0, "")  # tools by import path start from the working folder, as with `python -m`
    try:
        app()
    except PerdureError as error:
        say(str(error))
        sys.exit(error.exit_code)


async def _show(execution: str, settings: "Settings", *, follow: bool, as_json: bool) -> None:
    from perdure import console
    from perdure.cluster.client import AsyncClient

    async with await AsyncClient.open(settings, "none") as client:
        started = client.get(execution)
        state = await started.state()  # says so where there is none
        if state.outcome is None and not await started.is_driven():
            say("nobody drives this execution now; it goes on with its `perdure run` command and --id, or a client")
        if follow:
            await console.follow(console.Progress(execution), started.events(), started.stream())
        progress = console.Progress(execution)
        for recorded in await started.history():
            for happened in recorded.unpack():
                progress.feed(happened)
        if as_json:
            typer.echo(console.as_json(await _described(started)))
            return
        console.show(progress)
        state = await started.state()
        if state.status == "succeeded":
            print_json(getattr(state.outcome, "output", None))


async def _pools(settings: "Settings") -> "list[PoolReport]":
    from perdure.cluster.client import AsyncClient

    client: AsyncClient
    async with await AsyncClient.open(settings, "none") as client:
        return await client.pools()


async def _ran(execution: str, settings: "Settings") -> str:
    from perdure.cluster.client import AsyncClient

    async with await AsyncClient.open(settings, "none") as client:
        state = await client.get(execution).state()
        return await client.workflows.definition(state.started.digest)


async def _described(run: "AsyncRun") -> dict[str, Any]:
    import msgspec

    state = await run.state()
    return {
        "id": run.id,
        "workflow": state.started.workflow,
        "digest": state.started.digest,
        "status": state.status,
        "input": state.started.input,
        "nodes": {path: _node_described(node) for path, node in sorted(state.nodes.items())},
        **_chart_described(state),
        "outcome": msgspec.to_builtins(state.outcome),
    }


def _chart_described(state: Any) -> dict[str, Any]:
    """Return where the statecharts of an execution stand, if it has any."""
    from perdure.actors.listeners import active_states

    states = active_states(state)
    context = state.main.chart.context if state.main.chart is not None else None
    return ({"states": states} if states else {}) | ({"context": context} if context is not None else {})


def _node_described(node: Any) -> dict[str, Any]:
    import msgspec

    described: dict[str, Any] = msgspec.to_builtins(node, enc_hook=dict)
    described.pop("bodies", None)  # what is within has paths of its own
    return described


if __name__ == "__main__":
    main()
