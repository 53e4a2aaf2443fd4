"""The commands that look into the past and go on from there: replay and fork."""

import asyncio
import secrets
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli_support import (
    AsJson,
    Stopped,
    Store,
    data_from,
    only_data_on_stdout,
    print_json,
    say,
    settings_from,
    settings_of_existing,
    until_stopped,
)
from perdure.errors import BadInput, ExecutionFailed, ExecutionStopped

if TYPE_CHECKING:
    from perdure.actors.state import ExecutionState
    from perdure.cluster.client import AsyncClient
    from perdure.cluster.comparison import Comparison
    from perdure.cluster.settings import Settings

app = typer.Typer()

Execution = Annotated[str, typer.Argument(help="The execution's id.", show_default=False)]
Place = Annotated[
    str | None,
    typer.Option("--at", help="After the entry of this number, or at this UTC time (ISO 8601).", show_default=False),
]


def place_from(text: str | None, option: str = "--at") -> int | datetime | None:
    """Return the place in a past that an option names; raise BadInput where it is neither a number nor a time."""
    if text is None or text.isdecimal():
        return None if text is None else int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(
            f"{option} {text}: write the number of an entry, such as 17, or a time, such as 2026-11-22T18:30:00Z"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


@app.command()
def replay(
    execution: Execution,
    at: Place = None,
    since: Annotated[
        str | None,
        typer.Option(help="Only what changed of the state between this place and --at.", show_default=False),
    ] = None,
    diff: Annotated[
        str | None, typer.Option("--diff", help="Compare with this execution instead.", show_default=False)
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Fold the past again and show it entry by entry, with what each one changed. Nothing is called.

    Example: perdure replay order-42 --at 17
    """
    settings, place = settings_of_existing(store), place_from(at)
    if diff is not None:
        if at is not None or since is not None:
            raise BadInput("--diff compares whole executions; leave out --at and --since")
        _show_comparison(asyncio.run(_compared(execution, diff, settings)), as_json=as_json)
    elif since is not None:
        asyncio.run(_changes(execution, place_from(since, "--since"), place, settings, as_json=as_json))
    else:
        asyncio.run(_replay(execution, place, settings, as_json=as_json))


@app.command()
def fork(
    execution: Execution,
    at: Place = None,
    from_: Annotated[
        list[str] | None,
        typer.Option("--from", help="A node that begins anew, with all that depends on it.", show_default=False),
    ] = None,
    input: Annotated[
        str | None, typer.Option(help="Another input as JSON, or @FILE that holds it.", show_default=False)
    ] = None,
    with_: Annotated[
        str | None,
        typer.Option("--with", help="Another definition to go on under: a file, or a name.", show_default=False),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Another model for all of its agents.", show_default=False)] = None,
    id: Annotated[str | None, typer.Option(help="The fork's id.", show_default=False)] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Only record the fork: the hosts of the store go on with it.")
    ] = False,
    local: Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")] = False,
    replies: Annotated[
        Path | None, typer.Option(help="Answer agents from this file of scripted replies.", show_default=False)
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Begin a new execution from a place in the past of another one: what was done is reused, what follows is live.

    Example: perdure fork order-42 --from refund --input '{"total": 30}'
    """
    from perdure.cluster.references import is_reference

    settings_of_existing(store)
    new = f"{execution}-fork-{secrets.token_hex(3)}" if id is None else id
    workflow = with_ if with_ is None or is_reference(with_) else Path(with_)
    asked: dict[str, Any] = {"at": place_from(at), "from_": tuple(from_ or ()), "workflow": workflow, "model": model}
    if input is not None:
        asked["input"] = data_from(input, "--input")
    try:
        output = _forked(execution, new, asked, store, replies, mode="none" if detach else "local" if local else "ray")
    except (ExecutionFailed, ExecutionStopped) as error:
        if as_json:
            print_json({"id": new, "of": execution, "status": getattr(error, "status", "failed")})
        say(f"{error}\nlook further with: perdure show {quote(new)}")
        raise typer.Exit(error.exit_code) from None
    if detach:
        print_json({"id": new, "of": execution}) if as_json else typer.echo(new)
    else:
        print_json({"id": new, "of": execution, "status": "succeeded", "output": output} if as_json else output)


def _forked(
    execution: str, new: str, asked: dict[str, Any], store: Path | None, replies: Path | None, mode: str
) -> Any:
    try:
        with only_data_on_stdout():
            return until_stopped(_fork(execution, new, asked, store, replies, mode))
    except Stopped as stopped:
        say(f"suspended; it goes on with the same command and --id {quote(new)}")
        raise typer.Exit(stopped.exit_code) from None


async def _fork(
    execution: str, new: str, asked: dict[str, Any], store: Path | None, replies: Path | None, mode: Any
) -> Any:
    from perdure import console
    from perdure.cluster.client import AsyncClient
    from perdure.testing import Model

    with Model.from_file(replies) if replies else nullcontext() as scripted:
        settings = settings_from({"store": store, "openai_base_url": scripted.base_url if scripted else None})
        async with await AsyncClient.open(settings, mode, drive=None if mode == "none" else new) as client:
            forked = await client.get(execution).fork(**asked, id=new)
            reused = sorted(path for path, node in (await forked.history().at(1)).nodes.items() if node.reused)
            say(f"execution {new}, a fork of {execution}; reused: {', '.join(reused) or 'nothing'}")
            if mode == "none":
                return None
            await console.follow(console.Progress(new), forked.events(), forked.stream())
            try:
                return await forked.result()
            finally:
                await client.let_go()


async def _compared(one: str, other: str, settings: "Settings") -> "Comparison":
    from perdure.cluster.comparison import compared

    async with await _looking(settings) as client:
        return await compared(client.get(one).history(), client.get(other).history())


def _show_comparison(told: "Comparison", *, as_json: bool) -> None:
    import msgspec

    from perdure.console_past import show_comparison

    if as_json:
        print_json({"same": told.same, **msgspec.to_builtins(told)})
    else:
        show_comparison(told)


async def _changes(execution: str, since: Any, at: Any, settings: "Settings", *, as_json: bool) -> None:
    from perdure.console_past import show_changes

    async with await _looking(settings) as client:
        changes = await client.get(execution).history().diff(since, at)
    if as_json:
        print_json([each._asdict() for each in changes])
    else:
        show_changes(changes)
        if not changes:
            say("nothing changed")


async def _replay(execution: str, at: int | datetime | None, settings: "Settings", *, as_json: bool) -> None:
    from perdure.actors.described import changes
    from perdure.actors.state import INITIAL
    from perdure.console_past import show_step
    from perdure.events.entry import as_data

    rows = []
    async with await _looking(settings) as client:
        history = client.get(execution).history()
        last = await history.step(at)  # says so where there is no such place
        before: ExecutionState = INITIAL
        began: datetime | None = None
        async for step in history.steps():
            if step.entry.n > last.entry.n:
                break
            changed = changes(execution, before, step.after.state)
            before, began = step.after.state, began or step.entry.at
            if as_json:
                rows.append({**as_data(step.entry), "changed": [each._asdict() for each in changed]})
            else:
                show_step(step.entry, began, changed)
    if as_json:
        print_json(rows)


async def _looking(settings: "Settings") -> "AsyncClient":
    from perdure.cluster.client import AsyncClient

    return await AsyncClient.open(settings, "none")
