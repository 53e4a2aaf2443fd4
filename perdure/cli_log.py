"""The command line's group `log`: purge, export, import and verify."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli_support import AsJson, Store, print_json, say, settings_from, settings_of_existing
from perdure.errors import BadInput

if TYPE_CHECKING:
    from perdure.cluster.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Look after the log: purge, export, import, verify.")
_TOLD_EVERY = 500  # executions


@app.command()
def purge(
    older_than: Annotated[str, typer.Option(help="Executions that ended longer ago than this, such as 30d or 12h.")],
    status: Annotated[
        list[str] | None, typer.Option(help="Only those: succeeded, failed, cancelled, terminated, compensated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be purged, and purge nothing.")] = False,
    store: Store = None,
) -> None:
    """Remove the entries, snapshots and blobs of ended executions; their ids stay taken.

    Example: perdure log purge --older-than 30d --status succeeded
    """
    from pydantic_core import PydanticCustomError

    from perdure.cluster.run import ENDED
    from perdure.definitions.durations import parse_duration

    if set(status or []) - set(ENDED):
        raise BadInput(f"--status {' '.join(status or [])}: it is one of {', '.join(ENDED)}")
    try:
        seconds = float(parse_duration(older_than))
    except PydanticCustomError as error:
        raise BadInput(f"--older-than: {error.message()}") from None
    ids = asyncio.run(_purge(seconds, status or list(ENDED), dry_run=dry_run, store=store))
    for execution in ids:
        typer.echo(execution)
    typer.echo(f"{len(ids)} executions {'would be purged' if dry_run else 'purged'}", err=True)


@app.command("export")
def export_(
    execution: Annotated[str, typer.Argument(help="The execution's id.", show_default=False)], store: Store = None
) -> None:
    """Print an execution's whole history as JSON lines.

    Example: perdure log export order-42 > order-42.jsonl
    """
    asyncio.run(_export(execution, store))


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A file that export wrote; - for standard input.", show_default=False)],
    store: Store = None,
) -> None:
    """Take in a history, verified whole before anything is stored; what had not ended goes on here.

    Example: perdure log import order-42.jsonl
    """
    try:
        lines = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: cannot be read: {error}") from None
    typer.echo(asyncio.run(_import(lines.splitlines(), store)))


@app.command()
def verify(
    executions: Annotated[list[str] | None, typer.Argument(help="Ids of executions.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of the store, one after the other.")] = False,
    projections: Annotated[bool, typer.Option(help="Hold the rows of the read models against the log, too.")] = True,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Fold histories with this release, and tell which do not fold, are altered, or differ from the read models.

    Exit code 1 where there is any. The check before an upgrade, for CI.

    Example: perdure log verify --all
    """
    if bool(executions) == everything:
        raise BadInput("name executions, or say --all")
    count, entries, problems = asyncio.run(
        _verify(executions or [], settings_of_existing(store), projections=projections, as_json=as_json)
    )
    if as_json:
        print_json({"executions": count, "entries": entries, "problems": problems})
    say(f"{count} executions, {entries} entries: {len(problems) or 'no'} problems")
    if problems:
        raise typer.Exit(1)


async def _verify(
    executions: list[str], settings: "Settings", *, projections: bool, as_json: bool
) -> tuple[int, int, list[dict[str, Any]]]:
    import msgspec

    from perdure.cluster.client import AsyncClient

    count, entries, problems = 0, 0, list[dict[str, Any]]()
    async with await AsyncClient.open(settings, "none") as client:
        async for each in client.verify(executions or None, projections=projections):
            count, entries = count + bool(each.execution), entries + each.entries
            problems += [msgspec.to_builtins(problem) for problem in each.problems]
            for problem in each.problems if not as_json else ():
                place = f", entry {problem.n}" if problem.n else ""
                typer.echo(f"{problem.execution or 'all executions'}{place}: {problem.kind}: {problem.message}")
            if count % _TOLD_EVERY == 0:
                say(f"{count} executions so far, {len(problems)} problems")
    return count, entries, problems


async def _purge(seconds: float, statuses: list[str], *, dry_run: bool, store: Path | None) -> list[str]:
    from perdure.cluster.client import AsyncClient

    async with await AsyncClient.open(settings_of_existing(store), "none") as client:
        return await client.purge(seconds, statuses, dry_run=dry_run)


async def _export(execution: str, store: Path | None) -> None:
    from perdure.cluster.client import AsyncClient

    async with await AsyncClient.open(settings_of_existing(store), "none") as client:
        async for line in client.export(execution):
            typer.echo(line)


async def _import(lines: list[str], store: Path | None) -> str:
    from perdure.cluster.client import AsyncClient

    async with await AsyncClient.open(settings_from({"store": store}), "none") as client:
        return await client.import_history(lines)
