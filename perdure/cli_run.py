"""The command that runs a workflow to its end, and drives it meanwhile."""

import secrets
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli_support import (
    AsJson,
    Stopped,
    Store,
    attributes_from,
    input_from,
    only_data_on_stdout,
    print_json,
    say,
    settings_from,
    until_stopped,
)
from perdure.errors import BadInput, EnvironmentProblem, ExecutionFailed, ExecutionStopped, LogUnavailable

if TYPE_CHECKING:
    from perdure.cluster.client import AsyncClient
    from perdure.cluster.settings import Settings
    from perdure.definitions.loading import Definition

app = typer.Typer()


@dataclass(frozen=True)
class _Asked:
    """What a run is asked for on the command line."""

    workflow: str | Path
    input: Any
    execution: str
    local: bool
    retry: bool
    replies: Path | None
    settings: dict[str, Any]
    search: dict[str, Any]
    tags: list[str]


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
        typer.Option(
            help="Execution id; the same id, with the same input, goes on where it stopped.", show_default=False
        ),
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
    search: Annotated[list[str] | None, typer.Option(help="name=value: an attribute to find it by.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A word to find it by.")] = None,
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
    execution = f"{name}-{secrets.token_hex(4)}" if id is None else id
    how = {"isolation": isolation, "store": store}
    given = input_from(input, set or [])
    if id is not None and given is None:
        given = until_stopped(_recorded_input(id, settings_from({"store": store})))
    attributes = attributes_from(search or [], "--search")
    asked = _Asked(workflow, given, execution, local, retry, replies, how, attributes, tag or [])
    try:
        output = _outcome(asked)
    except (ExecutionFailed, ExecutionStopped) as error:
        _tell_end(execution, error, as_json=as_json)
        raise typer.Exit(error.exit_code) from None
    print_json({"id": execution, "status": "succeeded", "output": output} if as_json else output)


def _outcome(asked: _Asked) -> Any:
    """Drive the execution to its end and return its output; say how it goes on where that is broken off."""
    try:
        with only_data_on_stdout():
            return until_stopped(_driven(asked))
    except Stopped as stopped:
        say(f"suspended; it goes on with the same command and --id {quote(asked.execution)}")
        raise typer.Exit(stopped.exit_code) from None
    except LogUnavailable as error:
        further = f"it goes on with the same command and --id {quote(asked.execution)}"
        raise EnvironmentProblem(f"{error}\nnothing that was recorded is lost; {further}") from None


def _tell_end(execution: str, error: ExecutionFailed | ExecutionStopped, *, as_json: bool) -> None:
    """Say of what the execution has ended, and how to look further."""
    if isinstance(error, ExecutionStopped):
        data: dict[str, Any] = {"status": error.status, "reason": error.reason}
        further = ""
    else:
        data = {"status": "failed", "node": error.node, "attempt": error.attempt, "error": error.error}
        further = f"\nlook further with: perdure show {quote(execution)}"
        further += f"\ngo on from what failed with the same command, --id {quote(execution)} and --retry"
    if as_json:
        print_json({"id": execution, **data})
    say(f"{error}{further}")


async def _driven(asked: _Asked) -> Any:
    from perdure import console
    from perdure.cluster.checks import checked
    from perdure.cluster.client import AsyncClient

    execution = asked.execution
    with _model(asked.replies) as model:
        settings = settings_from({**asked.settings, "openai_base_url": model.base_url if model else None})
        definition = await _definition(asked.workflow, execution, settings)
        checked(settings, definition, asked.input, execution)  # and nothing is started
        async with await AsyncClient.open(settings, "local" if asked.local else "ray", drive=execution) as client:
            if model:
                say(f"agents get scripted replies from {asked.replies}: no language model is asked")
            say(f"execution {execution}")
            started = await client.start(
                asked.workflow, asked.input, id=execution, search=asked.search, tags=asked.tags, confirm=False
            )
            if asked.retry and await started.status() == "failed":
                await started.retry()
            await console.follow(console.Progress(execution), started.events(), started.stream())
            await _let_children_end(client, execution)
            try:
                return await started.result()
            finally:
                await client.let_go()


async def _let_children_end(client: "AsyncClient", execution: str) -> None:
    """Go on driving children that are still at work: detached ones, and those that are being closed."""
    from perdure.cluster.run import ENDED

    for child in sorted((await client.get(execution).state()).children):
        run = client.get(child)
        if await run.status() not in ENDED:
            say(f"child {child} is still at work; Ctrl-C leaves it, and the same command with --id goes on with it")
            async for _ in run.events():
                pass
        await _let_children_end(client, child)


async def _recorded_input(execution: str, settings: "Settings") -> Any:
    """Return the input that an execution began with, so that to go on none need be given; None without any."""
    if not settings.nats_url and not settings.store.exists():
        return None
    from perdure.cluster.client import AsyncClient

    async with await AsyncClient.open(settings, "none") as client:
        begun = await client.get(execution).begun()
        return begun.input if begun is not None else None


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


def _model(replies: Path | None) -> Any:
    if replies is None:
        return nullcontext()
    from perdure.testing import Model

    return Model.from_file(replies)
