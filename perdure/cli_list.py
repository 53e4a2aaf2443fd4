"""The commands that ask the read models: list, approvals, dead-letters, statistics."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from perdure.cli_support import AsJson, Store, asked, attributes_from, say, show_data

app = typer.Typer()

Workflow = Annotated[str | None, typer.Option(help="Only of this workflow.", show_default=False)]
_Limit = Annotated[int, typer.Option(min=1, help="At most so many.")]
_Time = Annotated[
    str | None,
    typer.Option(help="A time (ISO 8601; UTC where it has no zone), or how long ago: 2h.", show_default=False),
]


@app.command("list")
def list_(
    status: Annotated[
        list[str] | None, typer.Option(help="Only those: running, paused, succeeded, failed, ...", show_default=False)
    ] = None,
    workflow: Annotated[list[str] | None, typer.Option(help="Only of this workflow.", show_default=False)] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="name=value: only with this search attribute.", show_default=False)
    ] = None,
    filter: Annotated[
        str | None, typer.Option(help="An expression: status == 'failed' and total > 100.", show_default=False)
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only with this tag.", show_default=False)] = None,
    at: Annotated[
        str | None, typer.Option(help="Only those that are at this node, or in this state, now.", show_default=False)
    ] = None,
    parent: Annotated[str | None, typer.Option(help="Only children of this execution.", show_default=False)] = None,
    forked_from: Annotated[str | None, typer.Option(help="Only forks of this execution.", show_default=False)] = None,
    error: Annotated[str | None, typer.Option(help="Only with an error of this type.", show_default=False)] = None,
    priority: Annotated[int | None, typer.Option(help="Only of this priority.", show_default=False)] = None,
    digest: Annotated[str | None, typer.Option(help="Only of this definition.", show_default=False)] = None,
    started_after: _Time = None,
    started_before: _Time = None,
    ended_after: _Time = None,
    ended_before: _Time = None,
    order: Annotated[str, typer.Option(help="started, ended or priority; downwards with - before it.")] = "-started",
    limit: _Limit = 50,
    cursor: Annotated[str | None, typer.Option(help="Of the page before: go on behind it.", show_default=False)] = None,
    count: Annotated[bool, typer.Option("--count", help="Only how many there are in each status.")] = False,
    stale: Annotated[bool, typer.Option("--stale", help="Answer at once, of what is folded already.")] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """List executions, newest first: those for which all that is given holds.

    Example: perdure list --status failed --where tenant=acme --started-after 2h
    """
    times = {"started_after": started_after, "started_before": started_before, "ended_after": ended_after,
             "ended_before": ended_before}  # fmt: skip
    query: dict[str, Any] = {
        "status": status or None, "workflow": workflow or None, "filter": filter,
        "where": attributes_from(where or [], "--where"),
        "tag": tag or None, "at": at, "parent": parent, "forked_from": forked_from, "error": error,
        "priority": priority, "digest": digest, "order": order,
        **{name: moment_of(value, name) for name, value in times.items()},
    }  # fmt: skip
    if count:
        counts = asked(store, lambda client: client.count(fresh=not stale, **query))
        show_data(counts, as_json=as_json, show=lambda console: console.show_counts(counts))
        return
    page = asked(store, lambda client: client.executions(limit=limit, cursor=cursor, fresh=not stale, **query))
    narrowed = any(value for name, value in query.items() if name != "order") or cursor is not None
    empty = "no execution is like that" if narrowed else "no executions yet; start one with: perdure run FILE"
    show_data(page, as_json=as_json, show=lambda console: console.show_list(page, empty))
    if page.cursor is not None:
        say(f"there are more: --cursor {page.cursor}")


@app.command()
def approvals(
    assignee: Annotated[
        str | None, typer.Option(help="Only what this person may decide, or anybody.", show_default=False)
    ] = None,
    workflow: Workflow = None,
    limit: _Limit = 50,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show what waits for a person's decision, longest first.

    Example: perdure approvals --assignee ann
    """
    rows = asked(store, lambda client: client.approvals(assignee, workflow, limit))
    headings = {"execution": "execution", "workflow": "workflow", "node": "node", "title": "asks", "details": "details",
                "assignees": "of", "since": "since (UTC)", "due": "until (UTC)"}  # fmt: skip
    show_data(
        rows, as_json=as_json, show=lambda console: console.show_rows(headings, rows, "nothing waits for anybody")
    )


@app.command("dead-letters")
def dead_letters(workflow: Workflow = None, limit: _Limit = 50, store: Store = None, as_json: AsJson = False) -> None:
    """Show what failed, or is stuck on an error, and waits for perdure retry or resume; newest first.

    Example: perdure dead-letters --workflow order
    """
    rows = asked(store, lambda client: client.dead_letters(workflow, limit))
    headings = {"execution": "execution", "workflow": "workflow", "kind": "kind", "node": "node",
                "error_type": "error", "error_message": "message", "since": "since (UTC)"}  # fmt: skip
    show_data(rows, as_json=as_json, show=lambda console: console.show_rows(headings, rows, "nothing has failed"))


@app.command()
def statistics(
    workflow: Workflow = None,
    after: _Time = None,
    before: _Time = None,
    hourly: Annotated[bool, typer.Option("--hourly", help="Hour by hour.")] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show how often executions and nodes ended how, and the seconds that they took.

    Example: perdure statistics --workflow order --after 24h
    """
    first, last = moment_of(after, "after"), moment_of(before, "before")
    rows = asked(store, lambda client: client.statistics(workflow, first, last, hourly=hourly))
    for row in rows:
        row.pop("durations", None)
    names = ["workflow", "node", *(["hour"] if hourly else []), "succeeded", "failed", "cancelled", "skipped",
             "retried", "failure_rate", "p50", "p95", "p99", "tokens_in", "tokens_out", "cost"]  # fmt: skip
    headings = {name: name.replace("_", " ") for name in names}
    show_data(rows, as_json=as_json, show=lambda console: console.show_rows(headings, rows, "nothing has ended"))


def moment_of(given: str | None, name: str) -> datetime | None:
    """Return the time that an option means: a moment, or so long ago."""
    if given is None:
        return None
    from perdure.definitions.durations import duration_in_bounds

    try:
        return datetime.now(UTC) - timedelta(seconds=duration_in_bounds(given))
    except (ValueError, OverflowError):
        from perdure.projections.filters import moment

        return moment(given, f"--{name.replace('_', '-')}")
