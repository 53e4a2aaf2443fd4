"""The command line's group `batch`: do something to all executions that a query finds, after a preview."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli_support import AsJson, Store, asked, attributes_from, data_from, print_json, say, show_data
from perdure.errors import BadInput

if TYPE_CHECKING:
    from perdure.cluster.batch_records import Action, Batch
    from perdure.cluster.client import AsyncClient

app = typer.Typer(no_args_is_help=True, help="Do something to all executions that a query finds, after a preview.")

_Names = Annotated[list[str] | None, typer.Option(show_default=False, help="Only those; may be given several times.")]
_Where = Annotated[list[str] | None, typer.Option(show_default=False, help="name=value: with this search attribute.")]
_Filter = Annotated[str | None, typer.Option(show_default=False, help="An expression, as of perdure list.")]
_At = Annotated[str | None, typer.Option(show_default=False, help="Only those that are at this node, or state, now.")]
_Error = Annotated[str | None, typer.Option(show_default=False, help="Only with an error of this type.")]
_Parent = Annotated[str | None, typer.Option(show_default=False, help="Only children of this execution.")]
_ForkedFrom = Annotated[str | None, typer.Option(show_default=False, help="Only forks of this execution.")]
_Priority = Annotated[int | None, typer.Option(show_default=False, help="Only of this priority.")]
_Digest = Annotated[str | None, typer.Option(show_default=False, help="Only of this definition.")]
_Time = Annotated[str | None, typer.Option(show_default=False, help="A time, or how long ago: 2h.")]
_All = Annotated[bool, typer.Option("--all", help="All executions, where nothing else is said.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_Rate = Annotated[float, typer.Option(help="Executions a second.")]
_Reason = Annotated[str, typer.Option(help="Why; it is recorded.", show_default=False)]
_By = Annotated[str, typer.Option(help="Who does it; you, where absent.", show_default=False)]
_Id = Annotated[str, typer.Argument(help="The batch's id.", show_default=False)]


def _command(action: "Action", does: str) -> Callable[..., None]:
    def command(
        status: _Names = None, workflow: _Names = None, where: _Where = None, filter: _Filter = None,
        tag: _Names = None, at: _At = None, parent: _Parent = None, forked_from: _ForkedFrom = None,
        error: _Error = None, priority: _Priority = None, digest: _Digest = None, started_before: _Time = None,
        started_after: _Time = None, ended_before: _Time = None, ended_after: _Time = None, every: _All = False,
        dry_run: _DryRun = False,
        yes: _Yes = False, rate: _Rate = 50.0, reason: _Reason = "", by: _By = "", store: Store = None,
        as_json: AsJson = False,
    ) -> None:  # fmt: skip
        times = {"started_before": started_before, "started_after": started_after, "ended_before": ended_before,
                 "ended_after": ended_after}  # fmt: skip
        query = _query(times, where, status=status, workflow=workflow, filter=filter, tag=tag, at=at, parent=parent,
                       forked_from=forked_from, error=error, priority=priority, digest=digest)  # fmt: skip
        how = {"rate": rate, "reason": reason, "by": by, "every": every}
        _run(action, query, how, dry_run=dry_run, yes=yes, store=store, as_json=as_json)

    command.__doc__ = f"{does}\n\n    Example: perdure batch {action} --workflow order --where tenant=acme --dry-run"
    return command


for _action, _does in (
    ("cancel", "Cancel executions that have not ended."),
    ("terminate", "End executions at once, without compensation."),
    ("pause", "Pause executions."),
    ("resume", "Let paused executions go on."),
    ("retry", "Let failed executions go on from what failed."),
    ("purge", "Remove the past of executions that have ended."),
):
    app.command(_action)(_command(_action, _does))  # type: ignore[arg-type]


@app.command()
def signal(
    name: Annotated[str, typer.Argument(help="The signal's name.", show_default=False)],
    data: Annotated[str | None, typer.Argument(help="Its data: JSON, or @FILE that holds it.")] = None,
    status: _Names = None, workflow: _Names = None, where: _Where = None, filter: _Filter = None, tag: _Names = None,
    at: _At = None, parent: _Parent = None, forked_from: _ForkedFrom = None, priority: _Priority = None,
    digest: _Digest = None, started_before: _Time = None, started_after: _Time = None, every: _All = False,
    dry_run: _DryRun = False, yes: _Yes = False, rate: _Rate = 50.0, by: _By = "", store: Store = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Give executions that have not ended a signal.

    Example: perdure batch signal approved '{"by": "ann"}' --workflow order --at wait
    """
    times = {"started_before": started_before, "started_after": started_after}
    query = _query(times, where, status=status, workflow=workflow, filter=filter, tag=tag, at=at, parent=parent,
                   forked_from=forked_from, priority=priority, digest=digest)  # fmt: skip
    how = {"rate": rate, "by": by, "every": every, "signal": name, "data": data_from(data, "the signal's data")}
    _run("signal", query, how, dry_run=dry_run, yes=yes, store=store, as_json=as_json)


@app.command("list")
def list_(store: Store = None, as_json: AsJson = False) -> None:
    """Show the batches that are recorded, newest first.

    Example: perdure batch list
    """
    rows = [_row(batch) for batch in asked(store, lambda client: client.batches())]
    headings = {each: each for each in ("id", "action", "status", "matched", "outcomes", "by", "began")}
    show_data(rows, as_json=as_json, show=lambda console: console.show_rows(headings, rows, "no batches"))


@app.command()
def show(id: _Id, store: Store = None) -> None:
    """Show a batch as JSON: who, when, which executions, how each outcome came about.

    Example: perdure batch show 3f2a9c01d4e5
    """
    print_json(_row(asked(store, lambda client: client.get_batch(id))))


@app.command()
def go_on(id: _Id, store: Store = None) -> None:
    """Go on with a batch that was broken off or stopped; each execution is told once.

    Example: perdure batch go-on 3f2a9c01d4e5
    """
    _told(asked(store, lambda client: client.resume_batch(id, _progress)))


@app.command()
def stop(id: _Id, store: Store = None) -> None:
    """Have a batch do no more.

    Example: perdure batch stop 3f2a9c01d4e5
    """
    _told(asked(store, lambda client: client.stop_batch(id)))


def _run(
    action: "Action", query: dict[str, Any], how: dict[str, Any], *, dry_run: bool, yes: bool, store: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    async def work(client: "AsyncClient") -> "Batch":
        planned = await client.batch(action, dry_run=True, **how, **query)
        some = ", ".join(planned.first) + (", ..." if planned.matched > len(planned.first) else "")
        say(f"{action}: {planned.matched} executions{f': {some}' if some else ''}")
        if dry_run or not planned.matched:
            return planned
        if not yes and not _agreed(action, planned.matched):
            raise typer.Exit(1)
        say(f"batch {planned.id}; should it be broken off: perdure batch go-on {planned.id}")
        return await client.begin_batch(planned, _progress)

    batch = asked(store, work)
    if as_json:
        print_json(_row(batch))
    elif batch.status != "preview":
        _told(batch)


def _agreed(action: str, count: int) -> bool:
    if not sys.stdin.isatty():
        raise BadInput(f"nobody can be asked whether to {action} {count} executions; say --yes, or --dry-run to look")
    return typer.confirm(f"{action} {count} executions?", err=True)


def _query(times: dict[str, str | None], where: list[str] | None, **rest: Any) -> dict[str, Any]:
    from perdure.cli_list import moment_of

    moments = {name: moment_of(value, name) for name, value in times.items()}
    return {**rest, "where": attributes_from(where or [], "--where"), **moments}


def _progress(batch: "Batch") -> None:
    say(f"{sum(batch.outcomes.values())} of {batch.matched}")


def _told(batch: "Batch") -> None:
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in batch.outcomes.items()) or "nothing done"
    say(f"batch {batch.id} is {batch.status}: {outcomes}")
    for execution, why in batch.refusals.items():
        say(f"  {execution}: {why}")


def _row(batch: "Batch") -> dict[str, Any]:
    import msgspec

    row: dict[str, Any] = msgspec.to_builtins(batch)
    return row
