"""The commands that tell an execution something: signal, approve, reject, pause, resume, cancel, terminate."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli_support import AsJson, Store, data_from, print_json, say, settings_of_existing
from perdure.errors import BadInput

if TYPE_CHECKING:
    from perdure.cluster.client import AsyncClient
    from perdure.cluster.run import AsyncRun
    from perdure.cluster.settings import Settings

app = typer.Typer()
nodes = typer.Typer(no_args_is_help=True, help="Mend single nodes by hand; who and why are recorded.")

Execution = Annotated[str, typer.Argument(help="The execution's id.", show_default=False)]
Node = Annotated[str, typer.Argument(help="The node's path, such as approve or check[3]/ask.", show_default=False)]
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
    value = data_from(data, "the signal's data")
    _tell(execution, store, f"signal {name}", lambda run, _: run.signal(name, value), as_json=as_json, signal=name)


@app.command()
def approve(
    execution: Execution, node: Node, by: By = None, data: Data = None, store: Store = None, as_json: AsJson = False
) -> None:
    """Approve what an execution asks.

    Example: perdure approve order-42 refund --by ann
    """
    value = data_from(data, "--data")
    _tell(execution, store, "approval", lambda run, me: run.approve(node, by=by or me, data=value), as_json=as_json)


@app.command()
def reject(
    execution: Execution, node: Node, by: By = None, data: Data = None, store: Store = None, as_json: AsJson = False
) -> None:
    """Reject what an execution asks.

    Example: perdure reject order-42 refund --by ann --data '"too late"'
    """
    value = data_from(data, "--data")
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


@app.command()
def retry(
    execution: Execution, reason: Reason = "", by: By = None, store: Store = None, as_json: AsJson = False
) -> None:
    """Let a failed execution go on from what failed.

    Example: perdure retry order-42 --reason "the bank is back"
    """
    _tell(execution, store, "retry", lambda run, me: run.retry(reason, by=by or me), as_json=as_json)


@nodes.command()
def skip(
    execution: Execution, node: Node, reason: Reason = "", by: By = None, store: Store = None, as_json: AsJson = False
) -> None:
    """Settle a node as skipped, whether it has begun or not.

    Example: perdure node skip order-42 notify --reason "told by phone"
    """
    _tell(execution, store, "skip", lambda run, me: run.skip_node(node, reason, by=by or me), as_json=as_json)


@nodes.command()
def complete(
    execution: Execution,
    node: Node,
    output: Annotated[str | None, typer.Argument(help="Its output: JSON, or @FILE that holds it.")] = None,
    reason: Reason = "",
    by: By = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Settle a node by hand, with this output.

    Example: perdure node complete order-42 charge '{"receipt": "R-7"}' --reason "paid in cash"
    """
    value = data_from(output, "the output")
    _tell(
        execution,
        store,
        "complete",
        lambda run, me: run.complete_node(node, value, reason, by=by or me),
        as_json=as_json,
    )


@nodes.command("input")
def change_input(
    execution: Execution,
    node: Node,
    value: Annotated[str, typer.Argument(help="Its input: JSON, or @FILE that holds it.", show_default=False)],
    reason: Reason = "",
    by: By = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Give a node that has not begun another input.

    Example: perdure node input order-42 ship '{"address": "1 Main Street"}'
    """
    given = data_from(value, "the input")
    _tell(
        execution, store, "input", lambda run, me: run.change_input(node, given, reason, by=by or me), as_json=as_json
    )


@nodes.command()
def deadline(
    execution: Execution,
    by_how_much: Annotated[str, typer.Argument(help="How much later, such as 2h.", show_default=False)],
    node: Annotated[str, typer.Option(help="The node; the execution's timeout where absent.", show_default=False)] = "",
    reason: Reason = "",
    by: By = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Move the deadline of a node, or the timeout of the execution.

    Example: perdure node deadline order-42 2h --node charge
    """
    from perdure.definitions.durations import duration_in_bounds

    try:
        seconds = duration_in_bounds(by_how_much)
    except ValueError as error:
        raise BadInput(f"{by_how_much}: {error}") from None
    _tell(
        execution, store, "deadline", lambda run, me: run.extend_deadline(seconds, node, reason, by=by or me),
        as_json=as_json,
    )  # fmt: skip


def _tell(
    execution: str,
    store: Path | None,
    what: str,
    command: Callable[["AsyncRun", str], Awaitable[bool]],
    *,
    as_json: bool,
    signal: str | None = None,
) -> None:
    settings = settings_of_existing(store)
    done, hint = asyncio.run(_told(execution, settings, command, signal))
    if as_json:
        print_json({"id": execution, "command": what, "recorded": done})
    say(
        f"{what}: recorded"
        if done
        else f"{what}: safe in the inbox; it counts when a host serves execution {execution}"
    )
    if hint:
        say(hint)


async def _told(
    execution: str, settings: "Settings", command: Callable[["AsyncRun", str], Awaitable[bool]], signal: str | None
) -> tuple[bool, str]:
    """Return whether the command is recorded, and what else is to be said."""
    from perdure.cluster.client import AsyncClient

    async with await AsyncClient.open(settings, "none") as client:
        done = await command(client.get(execution), settings.user or getpass.getuser())
        return done, await _unawaited(client, execution, signal) if done and signal is not None else ""


async def _unawaited(client: "AsyncClient", execution: str, signal: str) -> str:
    """Say that no node waits for a signal of this name, if so: it was probably misspelt."""
    from perdure.definitions.calls import signals_awaited
    from perdure.definitions.hints import did_you_mean
    from perdure.definitions.model import Workflow

    ran = (await client.get(execution).state()).started.digest
    names = signals_awaited(Workflow.model_validate_json(await client.workflows.definition(ran)))
    if names is None or signal in names:
        return ""
    hint = did_you_mean(signal, names) or f"; there are {', '.join(sorted(names)) or 'none'}"
    return f"but no node of this workflow waits for a signal {signal!r}{hint}"
