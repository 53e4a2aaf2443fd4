"""The command line: its groups, and show. Data goes to stdout, words for people to stderr."""

import asyncio
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from perdure import (
    cli_batch,
    cli_cluster,
    cli_controls,
    cli_definitions,
    cli_list,
    cli_log,
    cli_past,
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
from perdure.errors import BadInput, PerdureError

if TYPE_CHECKING:
    from perdure.actors.pools import PoolReport
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
app.add_typer(cli_past.app)
app.add_typer(cli_controls.nodes, name="node")
app.add_typer(cli_log.app, name="log")
app.add_typer(cli_workflows.app, name="workflows")
app.add_typer(cli_projections.app, name="projections")
app.add_typer(cli_subscriptions.app, name="subscriptions")
app.add_typer(cli_webhooks.app, name="webhooks")
app.add_typer(cli_batch.app, name="batch")
app.add_typer(cli_schedule.app, name="schedule")
app.add_typer(cli_sessions.app, name="sessions")
app.add_typer(cli_sessions.transcripts)


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
    at: cli_past.Place = None,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Draw when attempts, waits and timers began and ended.")
    ] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show one execution: its nodes, its output or error; with --at as it was then.

    Example: perdure show order-42 --follow
    """
    settings = settings_of_existing(store)
    if follow + definition + timeline + (at is not None) > 1:
        raise BadInput("say one of --follow, --definition, --timeline and --at")
    if timeline:
        asyncio.run(_timeline(execution, settings, as_json=as_json))
        return
    if definition:
        cli_workflows.print_definition(asyncio.run(_ran(execution, settings)), as_json=as_json)
        return
    try:
        until_stopped(_show(execution, settings, at, follow=follow, as_json=as_json))
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


async def _show(execution: str, settings: "Settings", at: str | None, *, follow: bool, as_json: bool) -> None:
    from perdure import console
    from perdure.actors.described import described
    from perdure.cluster.client import AsyncClient
    from perdure.events.vocabulary import ExecutionSucceeded

    async with await AsyncClient.open(settings, "none") as client:
        started = client.get(execution)
        state = await started.state()  # says so where there is none
        last = await started.history().step(cli_past.place_from(at))
        if at is None and state.outcome is None and not await started.is_driven():
            say("nobody drives this execution now; it goes on with its `perdure run` command and --id, or a client")
        if follow:
            await console.follow(console.Progress(execution), started.events(), started.stream())
        progress = console.Progress(execution)
        async for recorded in started.history():
            for happened in recorded.unpack() if at is None or recorded.position <= last.recorded.position else ():
                progress.feed(happened)
        if as_json:
            fork = {"fork": progress.fork} if progress.fork else {}
            typer.echo(console.as_json({**described(execution, progress.state), **fork}))
            return
        console.show(progress)
        outcome = getattr(progress.state, "outcome", None)
        if isinstance(outcome, ExecutionSucceeded):
            print_json(outcome.output)


async def _timeline(execution: str, settings: "Settings", *, as_json: bool) -> None:
    from perdure import console, console_past
    from perdure.cluster.client import AsyncClient

    async with await AsyncClient.open(settings, "none") as client:
        await client.get(execution).state()  # says so where there is none
        spans = await client.timeline(execution)
    if as_json:
        typer.echo(console.as_json(spans))
    else:
        console_past.show_timeline(spans, datetime.now(UTC))


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


if __name__ == "__main__":
    main()
