"""The command line's group `workflows`: register, list, show, activate, deprecate and evaluate."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from perdure.cli_support import AsJson, Store, only_data_on_stdout, print_json, say, settings_from, settings_of_existing
from perdure.errors import BadInput

if TYPE_CHECKING:
    from perdure.cluster.evaluation import Evaluated
    from perdure.cluster.settings import Settings
    from perdure.cluster.workflow_versions import RegisteredWorkflow
    from perdure.cluster.workflows import Registration, Workflows

Result = TypeVar("Result")

app = typer.Typer(no_args_is_help=True, help="Keep workflows by name and version: start them without their files.")

OneVersion = Annotated[str, typer.Argument(help="NAME@3, or NAME@sha256:...", show_default=False)]


@app.command()
def register(
    files: Annotated[list[Path], typer.Argument(help="Workflow definitions, YAML or JSON.", show_default=False)],
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Make each definition the next version of its name; one that is registered already changes nothing.

    Example: perdure workflows register order.yaml refund.yaml
    """
    from perdure.definitions.loading import load

    for file in files:
        load(file)  # all of them are sound before any is registered

    async def work(workflows: "Workflows") -> "list[Registration]":
        return [await workflows.register(file) for file in files]

    with only_data_on_stdout():  # tool files are loaded, and may print
        done = asyncio.run(_with(settings_from({"store": store}), work))
    for each in done:
        say(_told(each))
    if as_json:
        print_json([
            {"name": each.workflow.name, "version": each.version.version, "digest": each.version.digest,
             "outcome": each.outcome} for each in done
        ])  # fmt: skip
        return
    for each in done:
        typer.echo(f"{each.workflow.name}@{each.version.version}")


@app.command("list")
def list_(store: Store = None, as_json: AsJson = False) -> None:
    """List the registered workflows and the version of each that its name alone starts.

    Example: perdure workflows list
    """
    from perdure import console

    found = asyncio.run(_with(settings_of_existing(store), lambda workflows: workflows.list()))
    if as_json:
        typer.echo(console.as_json([_row(each) for each in found]))
        return
    console.show_versions(
        ("workflow", "active", "registered (UTC)", "by", "digest", ""),
        [(each.name, *_cells(each, each.active)) for each in found],
        "no workflows are registered; register one with: perdure workflows register FILE",
    )


@app.command()
def show(
    workflow: Annotated[str, typer.Argument(help="NAME, NAME@3, NAME@sha256:... or sha256:...", show_default=False)],
    definition: Annotated[
        bool, typer.Option("--definition", help="Print the definition as YAML; a digest alone always does.")
    ] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show the versions of a workflow: digest, when, by whom. Of a digest, show the definition.

    Example: perdure workflows show order@3 --definition
    """
    from perdure import console

    settings = settings_of_existing(store)
    if definition or workflow.startswith("sha256:"):
        print_definition(
            asyncio.run(_with(settings, lambda workflows: workflows.definition(workflow))), as_json=as_json
        )
        return
    found, numbers = asyncio.run(_with(settings, lambda workflows: _show(workflows, workflow)))
    if as_json:
        typer.echo(console.as_json(_row(found, numbers)))
        return
    rows = [_cells(found, each, *["active"] * (each == found.active)) for each in reversed(numbers)]
    console.show_versions(("version", "registered (UTC)", "by", "digest", ""), rows, "")


@app.command()
def activate(workflow: OneVersion, store: Store = None) -> None:
    """Make the name alone start this version, also where it was deprecated.

    Later registrations stay inactive then, until the last version is activated.

    Example: perdure workflows activate order@2
    """

    async def work(workflows: "Workflows") -> "RegisteredWorkflow":
        found, (number,) = await _show(workflows, _pinned(workflow))
        return await workflows.activate(found.name, number)

    found = asyncio.run(_with(settings_of_existing(store), work))
    follows = "; later registrations will be active at once" if found.pinned is None else ""
    say(f"{found.name} starts version {found.active} from now on{follows}")


@app.command()
def deprecate(
    workflow: OneVersion,
    why: Annotated[str, typer.Option(help="The reason, which refused starts are told.", show_default=False)],
    store: Store = None,
) -> None:
    """Refuse new starts of a version; executions of it go on.

    Example: perdure workflows deprecate order@2 --why "charges twice"
    """

    async def work(workflows: "Workflows") -> "tuple[RegisteredWorkflow, int]":
        found, (number,) = await _show(workflows, _pinned(workflow))
        return await workflows.deprecate(found.name, number, why), number

    found, number = asyncio.run(_with(settings_of_existing(store), work))
    say(f"{found.name}@{number} takes no new starts from now on; executions of it go on")
    if found.active == number:
        say(f"{found.name} alone means it and is refused, too; see the others: perdure workflows show {found.name}")


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(help="The changed definition, YAML or JSON.", show_default=False)],
    last: Annotated[int, typer.Option(min=1, help="So many of the newest executions that ended.")] = 20,
    of: Annotated[
        str | None, typer.Option(help="The workflow whose executions; that of FILE otherwise.", show_default=False)
    ] = None,
    dry: Annotated[bool, typer.Option("--dry", help="Call nothing; only say what would be called.")] = False,
    replies: Annotated[
        Path | None, typer.Option(help="Answer agents from this file of scripted replies.", show_default=False)
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Run the last executions again under a changed definition, and tell what differs: a regression test of agents.

    Nodes that are made as they were and get what they got are answered from the record; the others are really called.
    Exit code 1 where an outcome differs.

    Example: perdure workflows evaluate order.yaml --last 50 --dry
    """
    import msgspec

    from perdure import console_past

    with only_data_on_stdout():
        told = asyncio.run(_evaluate(file, last, of, replies, settings_of_existing(store), dry=dry))
    if as_json:
        print_json([msgspec.to_builtins(each) for each in told])
    else:
        console_past.show_evaluated(told, dry=dry)
    if any(each.same is False for each in told):
        raise typer.Exit(1)


async def _evaluate(
    file: Path, last: int, of: str | None, replies: Path | None, settings: "Settings", *, dry: bool
) -> "list[Evaluated]":
    from perdure.cluster.client import AsyncClient
    from perdure.testing import Model

    with Model.from_file(replies) if replies else nullcontext() as model:
        if model is not None:
            settings = settings.model_copy(update={"openai_base_url": model.base_url})
        async with await AsyncClient.open(settings, "none") as client:
            return [each async for each in client.evaluate(file, last, of=of, dry=dry)]


def print_definition(text: str, *, as_json: bool) -> None:
    """Print a stored definition on stdout, as YAML or JSON."""
    from perdure.definitions.yaml_writer import data_to_yaml

    data = json.loads(text)
    if as_json:
        print_json(data)
    else:
        typer.echo(data_to_yaml(data), nl=False)


async def _with(settings: "Settings", work: "Callable[[Workflows], Awaitable[Result]]") -> Result:
    from perdure.cluster.client import AsyncClient

    async with await AsyncClient.open(settings, "none") as client:
        return await work(client.workflows)


async def _show(workflows: "Workflows", which: str) -> "tuple[RegisteredWorkflow, Sequence[int]]":
    """Return a workflow, and the numbers of the versions that are meant."""
    from perdure.cluster.references import parse_reference

    reference = parse_reference(which)
    found = await workflows.show(reference.name)
    if reference.pinned:
        return found, [found.find(reference).version]
    return found, [each.version for each in found.versions]


def _pinned(which: str) -> str:
    from perdure.cluster.references import parse_reference

    if not parse_reference(which).pinned:
        raise BadInput(
            f"say which version of {which!r}, such as {which}@1; see them with: perdure workflows show {which}"
        )
    return which


def _told(done: "Registration") -> str:
    found, number = done.workflow, done.version.version
    text = {
        "registered": f"{found.name}: registered as version {number}",
        "moved": f"{found.name}: this definition is version {number} already; its tools are in {done.version.base} now",
        "unchanged": f"{found.name}: this definition is version {number} already; nothing changed",
    }[done.outcome]
    if done.version.deprecated is not None:
        text += f"; it is deprecated: {done.version.deprecated}"
    if found.active != number:
        text += f"; {found.name} alone starts version {found.active}, until: perdure workflows activate "
        text += f"{found.name}@{number}"
    return text


def _row(found: "RegisteredWorkflow", numbers: "Sequence[int] | None" = None) -> dict[str, Any]:
    return {
        "name": found.name,
        "active": found.active,
        "versions": [asdict(each) for each in found.versions if numbers is None or each.version in numbers],
    }


def _cells(found: "RegisteredWorkflow", number: int, *remarks: str) -> tuple[str, ...]:
    each = found.at(number)
    if each.deprecated is not None:
        remarks = (*remarks, f"deprecated: {each.deprecated}")
    return str(number), f"{each.at:%Y-%m-%d %H:%M:%S}", each.by, each.digest[:19], ", ".join(remarks)
