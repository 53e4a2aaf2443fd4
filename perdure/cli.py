"""The command line: run, show and list. Data goes to stdout, words for people to stderr."""

import asyncio
import secrets
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure import cli_controls, cli_definitions, cli_log, cli_workflows
from perdure.cli_support import (
    AsJson,
    Stopped,
    Store,
    input_from,
    only_data_on_stdout,
    print_json,
    say,
    settings_from,
    settings_of_existing,
    until_stopped,
)
from perdure.errors import BadInput, EnvironmentProblem, ExecutionFailed, ExecutionStopped, LogUnavailable, PerdureError

if TYPE_CHECKING:
    from perdure.cluster.run import AsyncRun
    from perdure.cluster.settings import Settings
    from perdure.definitions.loading import Definition

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
    help="Durable workflows on Ray. Exit codes: 0 done, 1 the execution failed, 2 bad input, 3 environment.",
)  # fmt: skip

_STATUSES = ("running", "paused", "cancelling", "succeeded", "failed", "cancelled", "terminated")

app.add_typer(cli_controls.app)
app.add_typer(cli_definitions.app)
app.add_typer(cli_controls.nodes, name="node")
app.add_typer(cli_log.app, name="log")
app.add_typer(cli_workflows.app, name="workflows")


@app.callback()
def _root() -> None:
    """Hold the options of all commands (there are none yet), so that commands keep their names."""


@app.command()
def run(
    file: Annotated[
        Path,
        typer.Argument(
            help="The workflow definition, YAML or JSON, or a registered NAME or NAME@3.", show_default=False
        ),
    ],
    input: Annotated[
        str | None, typer.Option(help="The input as JSON, or @FILE that holds it.", show_default=False)
    ] = None,
    set: Annotated[
        list[str] | None, typer.Option(help="key=value: set one key of the input; the value may be JSON.")
    ] = None,
    id: Annotated[
        str | None,
        typer.Option(help="Execution id; the same id goes on where it stopped.", show_default=False),
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="With --id: where it has failed, go on from what failed.")
    ] = False,
    local: Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")] = False,
    isolation: Annotated[
        str | None, typer.Option(help="shared, or process: a Ray actor of its own.", show_default=False)
    ] = None,
    replies: Annotated[
        Path | None,
        typer.Option(help="Answer agents from this file of scripted replies.", show_default=False),
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Run a workflow to its end and print its output.

    Example: perdure run examples/hello.yaml --set name=Ann
    """
    from perdure.cluster.references import is_reference, parse_reference
    from perdure.definitions.loading import load

    if local and isolation:
        raise BadInput("--local runs everything in one process; leave out --isolation, or --local")
    workflow = str(file) if is_reference(str(file)) else file
    name = parse_reference(workflow).name if isinstance(workflow, str) else load(workflow).workflow.name
    value = input_from(input, set or [])
    execution = f"{name}-{secrets.token_hex(4)}" if id is None else id
    how = {"isolation": isolation, "store": store}
    try:
        with only_data_on_stdout():
            outcome = until_stopped(
                _run(workflow, value, execution, local=local, retry=retry, replies=replies, how=how)
            )
    except Stopped as stopped:
        say(f"suspended; it goes on with the same command and --id {execution}")
        raise typer.Exit(stopped.exit_code) from None
    except LogUnavailable as error:
        raise EnvironmentProblem(
            f"{error}\nnothing that was recorded is lost; it goes on with the same command and --id {execution}"
        ) from None
    except ExecutionStopped as error:
        if as_json:
            print_json({"id": execution, "status": error.status, "reason": error.reason})
        say(str(error))
        raise typer.Exit(error.exit_code) from None
    except ExecutionFailed as error:
        if as_json:
            failed = {"id": execution, "status": "failed", "node": error.node, "attempt": error.attempt}
            print_json({**failed, "error": error.error})
        say(
            f"{error}\nlook further with: perdure show {execution}; go on with the same command, --id {execution} and --retry"
        )
        raise typer.Exit(error.exit_code) from None
    print_json({"id": execution, "status": "succeeded", "output": outcome} if as_json else outcome)


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


@app.command("list")
def list_(
    status: Annotated[
        str | None, typer.Option(help="Only those: running, paused, succeeded, failed, ...", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 50,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """List executions, newest first.

    Example: perdure list --status failed
    """
    if status is not None and status not in _STATUSES:
        raise BadInput(f"--status {status}: it is one of {', '.join(_STATUSES)}")
    rows = asyncio.run(_list(settings_of_existing(store), status, limit))
    from perdure import console

    if as_json:
        typer.echo(console.as_json(rows))
    else:
        console.show_list(rows)


def main() -> None:
    """Run the command line; an error that perdure foresaw becomes its sentence and its exit code."""
    sys.path.insert(0, "")  # tools by import path start from the working folder, as with `python -m`
    try:
        app()
    except PerdureError as error:
        say(str(error))
        sys.exit(error.exit_code)


async def _run(
    workflow: str | Path,
    value: Any,
    execution: str,
    *,
    local: bool,
    retry: bool,
    replies: Path | None,
    how: dict[str, Any],
) -> Any:
    from perdure import console
    from perdure.cluster.checks import checked
    from perdure.cluster.client import AsyncClient

    with _model(replies) as model:
        settings = settings_from({**how, "openai_base_url": model.base_url if model else None})
        checked(settings, await _definition(workflow, execution, settings), value, execution)  # and nothing is started
        async with await AsyncClient.open(settings, "local" if local else "ray", drive=execution) as client:
            if model:
                say(f"agents get scripted replies from {replies}: no language model is asked")
            say(f"execution {execution}")
            started = await client.start(workflow, value, id=execution, confirm=False)
            if retry and await started.status() == "failed":
                await started.retry()
            await console.follow(console.Progress(execution), started.events())
            return await started.result()


async def _definition(workflow: str | Path, execution: str, settings: "Settings") -> "Definition":
    from perdure.cluster.client import AsyncClient
    from perdure.definitions.loading import load

    if isinstance(workflow, Path):
        return load(workflow)
    if not settings.nats_url and not settings.store.exists():
        where = f"no store at {settings.store.absolute()} that could have a workflow of this name"
        raise BadInput(f"{workflow}: there is no such file, and {where}")
    async with await AsyncClient.open(settings, "none") as client:
        return await client.definition_of(workflow, execution)


async def _show(execution: str, settings: "Settings", *, follow: bool, as_json: bool) -> None:
    from perdure import console
    from perdure.cluster.client import AsyncClient

    async with await AsyncClient.open(settings, "none") as client:
        started = client.get(execution)
        state = await started.state()  # says so where there is none
        if state.outcome is None and not await started.is_driven():
            say("nobody drives this execution now; it goes on with its `perdure run` command and --id, or a client")
        if follow:
            await console.follow(console.Progress(execution), started.events())
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
        "outcome": msgspec.to_builtins(state.outcome),
    }


def _node_described(node: Any) -> dict[str, Any]:
    import msgspec

    described: dict[str, Any] = msgspec.to_builtins(node, enc_hook=dict)
    described.pop("bodies", None)  # what is within has paths of its own
    return described


async def _list(settings: "Settings", status: Any, limit: int) -> list[dict[str, Any]]:
    from perdure.cluster.client import AsyncClient

    client: AsyncClient
    async with await AsyncClient.open(settings, "none") as client:
        return await client.executions(status, limit)


def _model(replies: Path | None) -> Any:
    if replies is None:
        return nullcontext()
    from perdure.testing import ScriptedModel

    return ScriptedModel.from_file(replies)


if __name__ == "__main__":
    main()
