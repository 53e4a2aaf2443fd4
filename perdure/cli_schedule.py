"""The command line's group `schedule`: add, list, show, pause, resume, backfill and remove."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from zoneinfo import ZoneInfo

import typer

from perdure.cli_support import (
    AsJson,
    Store,
    input_from,
    only_data_on_stdout,
    print_json,
    say,
    settings_from,
    settings_of_existing,
)

if TYPE_CHECKING:
    from perdure.actors.schedule_state import Schedule
    from perdure.cluster.schedules import Schedules
    from perdure.cluster.settings import Settings

Result = TypeVar("Result")

app = typer.Typer(no_args_is_help=True, help="Start workflows by the clock; perdure up lets schedules fire.")

_SHOWN = 5
_HEADINGS = ("schedule", "status", "workflow", "when", "next", "last")

Name = Annotated[str, typer.Argument(help="The schedule's name.", show_default=False)]
_Overlap = Annotated[
    str | None,
    typer.Option(help="While an earlier one runs: skip, queue, cancel (the old one), or allow.", show_default=False),
]


@app.command()
def add(
    name: Name,
    workflow: Annotated[
        str, typer.Argument(help="A definition's file, or a registered workflow: order, order@3.", show_default=False)
    ],
    cron: Annotated[
        str, typer.Option(help="Minute hour day month weekday; six fields begin with the second.", show_default=False)
    ] = "",
    every: Annotated[str, typer.Option(help="An interval, such as 90s, 15m or 1d.", show_default=False)] = "0",
    at: Annotated[str, typer.Option(help="Once, at a time such as 2026-12-24T18:00.", show_default=False)] = "",
    zone: Annotated[str, typer.Option(help="Time zone of --cron and --at, such as Europe/Berlin.")] = "UTC",
    overlap: _Overlap = "skip",
    jitter: Annotated[str, typer.Option(help="Put each fire off by a share of this duration.")] = "0s",
    catch_up: Annotated[str, typer.Option(help="How late a fire may still start, after an outage.")] = "1h",
    priority: Annotated[int, typer.Option(min=0, max=9, help="Of its executions; 9 comes first.")] = 5,
    input: Annotated[str | None, typer.Option(help="Input as JSON, or @FILE.", show_default=False)] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One key of the input: key=value; repeatable.", show_default=False)
    ] = None,
    time_as: Annotated[str, typer.Option(help="Key of the input that gets each fire's time.", show_default=False)] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Change a schedule of this name.")] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Start a workflow again and again: --cron, --every, or once --at.

    Example: perdure schedule add nightly report.yaml --cron "0 3 * * MON-FRI" --zone Europe/Berlin
    """
    given, which = input_from(input, set_ or []), Path(workflow) if Path(workflow).exists() else workflow

    async def work(schedules: "Schedules") -> "Schedule":
        return await schedules.add(
            name, which, given, cron=cron, every=every if every != "0" else 0, at=at or None, zone=zone,
            overlap=overlap or "skip", jitter=jitter, catch_up=catch_up, priority=priority, time_as=time_as,  # type: ignore[arg-type]
            replace=replace,
        )  # fmt: skip

    with only_data_on_stdout():  # tool files are loaded, and may print
        added = _told(settings_from({"store": store}), work)
    _print(added, _SHOWN, as_json=as_json)


@app.command("list")
def list_(store: Store = None, as_json: AsJson = False) -> None:
    """List the schedules: when they fire next, and how the last fire went.

    Example: perdure schedule list
    """
    from perdure import console

    found = asyncio.run(_with(settings_of_existing(store), lambda schedules: schedules.list()))
    if as_json:
        print_json([as_data(each) for each in found])
        return
    console.show_versions(
        _HEADINGS,
        [_cells(each) for each in found],
        'there are no schedules; add one with: perdure schedule add NAME FILE --cron "0 3 * * *"',
    )


@app.command()
def show(
    name: Name,
    count: Annotated[
        int, typer.Option("--next", min=2, max=1000, help="So many of the next fire times, and of the last.")
    ] = _SHOWN,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show a schedule: its plan, the next fire times, what runs and waits, and what became of the last fires.

    Example: perdure schedule show nightly --next 10
    """
    found = asyncio.run(_with(settings_of_existing(store), lambda schedules: schedules.show(name)))
    _print(found, count, as_json=as_json)


@app.command()
def pause(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why, for others to read.", show_default=False)] = "",
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Start nothing from now on; what runs goes on, and the fire times of the pause are left out.

    Example: perdure schedule pause nightly --reason "the warehouse moves"
    """
    _print(_told(settings_of_existing(store), lambda schedules: schedules.pause(name, reason)), as_json=as_json)


@app.command()
def resume(name: Name, store: Store = None, as_json: AsJson = False) -> None:
    """Let a paused schedule fire again.

    Example: perdure schedule resume nightly
    """
    _print(_told(settings_of_existing(store), lambda schedules: schedules.resume(name)), as_json=as_json)


@app.command()
def backfill(
    name: Name,
    since: Annotated[str, typer.Option("--from", help="The first moment that counts.", show_default=False)],
    until: Annotated[
        str | None, typer.Option("--to", help="The last one; now where absent.", show_default=False)
    ] = None,
    overlap: _Overlap = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Start the executions of fire times that have passed and have none; prints their ids.

    They run one after the other, unless the schedule, or --overlap allow, lets them run side by side.

    Example: perdure schedule backfill nightly --from 2026-11-01 --to 2026-11-07
    """

    async def work(schedules: "Schedules") -> Sequence[str]:
        return await schedules.backfill(name, since, until, overlap)  # type: ignore[arg-type]

    asked = _told(settings_of_existing(store), work)
    if as_json:
        print_json(asked)
        return
    say(f"{len(asked)} fire times start" if asked else "every fire time there has its execution, or waits for it")
    for each in asked:
        typer.echo(each)


@app.command()
def remove(name: Name, store: Store = None, as_json: AsJson = False) -> None:
    """Remove a schedule: it fires no more, and what it started goes on.

    Example: perdure schedule remove nightly
    """
    _print(_told(settings_of_existing(store), lambda schedules: schedules.remove(name)), as_json=as_json)


def as_data(found: "Schedule", count: int = 5) -> dict[str, Any]:
    """Return a schedule as JSON data, with so many of its next fire times."""
    import msgspec

    data: dict[str, Any] = msgspec.to_builtins(found)
    plan = data.pop("plan", None)
    return {"name": found.name, "status": found.status, "next": _next(found, count), "plan": plan, **data}


def _next(found: "Schedule", count: int) -> list[str]:
    """Return the next fire times in the schedule's own time zone."""
    return [_local(found, at) for at in found.next(count, datetime.now(UTC))]


def _local(found: "Schedule", at: datetime) -> str:
    """Return a moment as people read it in the schedule's own time zone."""
    zone = ZoneInfo(found.plan.timing.zone) if found.plan else UTC
    return at.astimezone(zone).isoformat(" ")


def _print(found: "Schedule", count: int = 1, *, as_json: bool) -> None:
    """Print a schedule, with so many of its next fire times and of its last fires."""
    from perdure import console

    if as_json:
        print_json(as_data(found, count))
        return
    console.show_versions(_HEADINGS, [_cells(found)], "")
    if found.status == "removed" or count == 1:
        return
    for at in _next(found, count):
        say(f"fires      {at}")
    if found.waiting:
        say(f"waiting    {len(found.waiting)}, the first for {_local(found, found.waiting[0].at)}")
    for child, time in found.running.items():
        gives_way = ", and gives way" if child in found.cancelling else ""
        say(f"runs       {_local(found, time)}  {child}{gives_way}")
    for fire in reversed(found.last[-count:]):
        if fire.outcome != "running":
            text = f": {fire.text}" if fire.execution and fire.text else fire.text
            say(f"{fire.outcome:<11}{_local(found, fire.at)}  {fire.execution}{text}")


def _cells(found: "Schedule") -> tuple[str, ...]:
    plan, upcoming = found.plan, _next(found, 1)
    if plan is None:
        return found.name, "removed", "", "", "", ""
    timing = plan.timing
    when = f"{timing.cron} ({timing.zone})" if timing.cron else f"every {timing.every} s" if timing.every else "once"
    last = f"{found.last[-1].outcome} {_local(found, found.last[-1].at)}" if found.last else ""
    status = f"paused: {found.paused.reason}" if found.paused and found.paused.reason else found.status
    return found.name, status, plan.workflow, when, upcoming[0] if upcoming else "", last


def _told(settings: "Settings", work: "Callable[[Schedules], Awaitable[Result]]") -> Result:
    """Do something, and say so where nobody is there to let schedules fire."""

    async def both(schedules: "Schedules") -> tuple[Result, bool]:
        return await work(schedules), await schedules.served()

    done, served = asyncio.run(_with(settings, both))
    if not served:
        say("nobody lets schedules fire now: bring up a cluster with perdure up")
    return done


async def _with(settings: "Settings", work: "Callable[[Schedules], Awaitable[Result]]") -> Result:
    from perdure.cluster.client import AsyncClient

    async with await AsyncClient.open(settings, "none") as client:
        return await work(client.schedules)
