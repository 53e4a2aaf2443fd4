"""The commands that tell an execution something: signal, approve, reject, pause, resume, cancel, terminate."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli_support import AsJson, Store, input_from, print_json, say, settings_of_existing

if TYPE_CHECKING:
    from perdure.cluster.run import AsyncRun
    from perdure.cluster.settings import Settings

app = typer.Typer()

Execution = Annotated[str, typer.Argument(help="The execution's id.", show_default=False)]
Node = Annotated[str, typer.Argument(help="The approval's node, such as approve or check[3]/ask.", show_default=False)]
Reason = Annotated[str, typer.Option(help="Why; it is recorded.", show_default=False)]
By = Annotated[str | None, typer.Option(help="Who says so; you, where absent.", show_default=False)]
Data = Annotated[str | None, typer.Option(help="JSON, or @FILE that holds it.", show_default=False)]


@app.command()
def signal(
    execution: Execution,
    name: Annotated[str, typer.Argument(help="The signal's name.", show_default=False)],
    data: Annotated[str | None, typer.Argument(help="Its data: JSON, or @FILE that holds it.")] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Give an execution a signal: the node that waits for it goes on, or one that will.

    Example: perdure signal order-42 pay '{"amount": 30}'
    """
    value = input_from(data, [])
    _tell(execution, store, f"signal {name}", lambda run, _: run.signal(name, value), as_json=as_json)


@app.command()
def approve(
    execution: Execution, node: Node, by: By = None, data: Data = None, store: Store = None, as_json: AsJson = False
) -> None:
    """Approve what an execution asks.

    Example: perdure approve order-42 refund --by ann
    """
    value = input_from(data, [])
    _tell(execution, store, "approval", lambda run, me: run.approve(node, by=by or me, data=value), as_json=as_json)


@app.command()
def reject(
    execution: Execution, node: Node, by: By = None, data: Data = None, store: Store = None, as_json: AsJson = False
) -> None:
    """Reject what an execution asks.

    Example: perdure reject order-42 refund --by ann --data '"too late"'
    """
    value = input_from(data, [])
    _tell(execution, store, "rejection", lambda run, me: run.reject(node, by=by or me, data=value), as_json=as_json)


@app.command()
def pause(
    execution: Execution, reason: Reason = "", by: By = None, store: Store = None, as_json: AsJson = False
) -> None:
    """Let nothing new start in an execution; what runs goes on to its end.

    Example: perdure pause order-42 --reason "the shop is closed"
    """
    _tell(execution, store, "pause", lambda run, me: run.pause(reason, by=by or me), as_json=as_json)


@app.command()
def resume(execution: Execution, by: By = None, store: Store = None, as_json: AsJson = False) -> None:
    """Let a paused execution go on.

    Example: perdure resume order-42
    """
    _tell(execution, store, "resume", lambda run, me: run.resume(by=by or me), as_json=as_json)


@app.command()
def cancel(
    execution: Execution, reason: Reason = "", by: By = None, store: Store = None, as_json: AsJson = False
) -> None:
    """Stop an execution in good order: compensate what is completed, run `on_cancel` and `finally`, and end.

    Example: perdure cancel order-42 --reason "the customer changed her mind"
    """
    _tell(execution, store, "cancel", lambda run, me: run.cancel(reason, by=by or me), as_json=as_json)


@app.command()
def terminate(
    execution: Execution, reason: Reason = "", by: By = None, store: Store = None, as_json: AsJson = False
) -> None:
    """End an execution at once; nothing is compensated.

    Example: perdure terminate order-42 --reason "stuck"
    """
    _tell(execution, store, "terminate", lambda run, me: run.terminate(reason, by=by or me), as_json=as_json)


def _tell(
    execution: str,
    store: Path | None,
    what: str,
    command: Callable[["AsyncRun", str], Awaitable[bool]],
    *,
    as_json: bool,
) -> None:
    settings = settings_of_existing(store)
    done = asyncio.run(_told(execution, settings, command))
    if as_json:
        print_json({"id": execution, "command": what, "recorded": done})
    say(
        f"{what}: recorded"
        if done
        else f"{what}: safe in the inbox; it counts when a host serves execution {execution}"
    )


async def _told(execution: str, settings: "Settings", command: Callable[["AsyncRun", str], Awaitable[bool]]) -> bool:
    from perdure.cluster.client import AsyncClient

    async with await AsyncClient.open(settings, "none") as client:
        return await command(client.get(execution), settings.user or getpass.getuser())
